"""NAS-Bench-301: the official specimen, folders of results, the table of predictions, the surrogate by a stub."""

from __future__ import annotations

import copy
import json
import sys
import types

import numpy as np
import pytest
import torch

from bench_adapters.nasbench301 import load_surrogate
from naswot.benchmark import Column, get_benchmark
from naswot.errors import DataError, MissingPackageError
from naswot.space import get_space

PREFIX = "NetworkSelectorDatasetInfo:darts:"
SPECIMEN = (
    "Genotype(normal=[('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 1), "
    "('dil_conv_3x3', 0), ('dil_conv_5x5', 2), ('sep_conv_3x3', 1), ('skip_connect', 2)], normal_concat=range(2, 6), "
    "reduce=[('max_pool_3x3', 0), ('avg_pool_3x3', 1), ('skip_connect', 0), ('dil_conv_5x5', 1), "
    "('sep_conv_3x3', 1), ('sep_conv_5x5', 2), ('sep_conv_3x3', 2), ('dil_conv_3x3', 3)], reduce_concat=range(2, 6))"
)


@pytest.fixture(name="space")
def space_():
    return get_space("darts")


def result(space, genotype, *, test=90.0, epochs=100, layers=8, width=32):
    """Content of a result file as NAS-Bench-301 writes it."""
    config = {f"{PREFIX}layers": layers, f"{PREFIX}init_channels": width}
    for name, plan in zip(("normal", "reduce"), space.cells(genotype), strict=True):
        for number, (operation, source) in enumerate(plan.edges):
            node = 2 + number // 2
            first = {2: 0, 3: 2, 4: 5, 5: 9}[node]
            config[f"{PREFIX}edge_{name}_{first + source}"] = operation
            if number % 2:
                config[f"{PREFIX}inputs_node_{name}_{node}"] = f"{plan.edges[number - 1][1]}_{source}"
        del config[f"{PREFIX}inputs_node_{name}_2"]
    info = {"val_accuracy": test + 1, "model_parameters": 1_000_000}
    return {
        "optimized_hyperparamater_config": config,
        "budget": epochs,
        "info": [info],
        "test_accuracy": test,
        "runtime": 60 * epochs,
    }


def test_specimen_has_the_published_figures_and_parameters(data_root, space):
    path = data_root / "nasbench301" / "original" / "results_0.json"
    if not path.exists():
        pytest.skip(f"no file {path}")
    benchmark = get_benchmark("nasbench301", path)
    (genotype,) = benchmark.genotypes()
    assert space.format(genotype) == SPECIMEN
    assert benchmark.columns[0] == Column("cifar10-20x50", "valid_accuracy", 1500, 0)
    figures = {
        m: benchmark.query(genotype, dataset="cifar10-20x50", metric=m) for m in benchmark.metrics("cifar10-20x50")
    }
    assert figures == {
        "valid_accuracy": 97.68,
        "test_accuracy": 97.54,
        "train_seconds": 365136,
        "params": 6369358,
    }
    with torch.device("meta"):
        model = space.build(genotype, width=50, n_cells=20, auxiliary=True)
    assert sum(parameter.numel() for parameter in model.parameters()) == 6369358


def test_predictions_are_called_so(data_root):
    pytest.importorskip("pyarrow")
    path = data_root / "nasbench301" / "nb301_725_archs_zero_cost_scores_naslib.parquet"
    if not path.exists():
        pytest.skip(f"no table {path}")
    benchmark = get_benchmark("nasbench301", data_root)
    assert benchmark.source == str(path)
    assert len(benchmark) == 725
    assert benchmark.columns == (Column("cifar10", "surrogate_valid_accuracy"),)
    compact = "[[(0, 0), (1, 0), (0, 0), (2, 4), (1, 2), (3, 6), (3, 1), (4, 5)], "
    compact += "[(1, 2), (0, 6), (1, 1), (2, 0), (3, 1), (2, 5), (1, 3), (4, 6)]]"
    found = benchmark.query(benchmark.space.parse(compact), dataset="cifar10", metric="surrogate_valid_accuracy")
    assert found == pytest.approx(92.18582974716452)


def test_a_folder_of_results_is_read_whole(tmp_path, space):
    first, second = (space.sample(np.random.default_rng(seed)) for seed in (0, 1))
    contents = {
        "rs/results_0.json": result(space, first, test=92.0),
        "rs/results_1.json": result(space, second, test=93.0),
        "de/results_7_ti.json": result(space, first, test=94.0),
        "de/results_8.json": result(space, second, test=80.0, epochs=50),
        "re/results_8.json": result(space, second, test=96.0, layers=20, width=36),
        "re/config_8.json": {},
    }
    for name, content in contents.items():
        path = tmp_path / "nb_301_v13_lc_iclr_final" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    benchmark = get_benchmark("nasbench301", tmp_path)
    assert set(benchmark.genotypes()) == {first, second}
    assert benchmark.datasets == ("cifar10", "cifar10-20x36")
    ask = {"dataset": "cifar10", "metric": "test_accuracy"}
    assert [benchmark.query(first, seed=seed, epochs=100, **ask) for seed in (0, 1)] == [94.0, 92.0]
    assert benchmark.query(first, epochs=100, **ask) == 93.0
    assert benchmark.query(second, epochs=100, **ask) == 93.0
    assert benchmark.query(second, epochs=50, **ask) == 80.0
    assert np.isnan(benchmark.query(first, epochs=50, **ask))
    assert benchmark.query(second, dataset="cifar10-20x36", metric="valid_accuracy") == 97.0
    assert benchmark.query(first, dataset="cifar10", metric="params") == 1_000_000
    of_one_folder = get_benchmark("nasbench301", tmp_path / "nb_301_v13_lc_iclr_final" / "de")
    assert set(of_one_folder.genotypes()) == {first, second}
    assert of_one_folder.seeds("cifar10", epochs=100) == (0,)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pop("test_accuracy"),
        lambda content: content["info"].clear(),
        lambda content: content["optimized_hyperparamater_config"].pop(f"{PREFIX}edge_reduce_0"),
        lambda content: content["optimized_hyperparamater_config"].update({f"{PREFIX}inputs_node_normal_4": "0_9"}),
        lambda content: content["optimized_hyperparamater_config"].update({f"{PREFIX}edge_normal_1": "none"}),
        lambda content: content.update(budget="long"),
    ],
)
def test_a_damaged_result_is_refused_by_file(damage, tmp_path, space):
    genotype = space.sample(np.random.default_rng(0))
    for number in range(3):
        content = copy.deepcopy(result(space, genotype))
        if number == 1:
            damage(content)
        (tmp_path / f"results_{number}.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"results_1\.json is no sound training result"):
        get_benchmark("nasbench301", tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    folder = tmp_path / "nb_301_v13"
    folder.mkdir()
    with pytest.raises(DataError, match="holds no file results"):
        get_benchmark("nasbench301", folder)


def test_surrogate_asks_the_package_for_the_mean(monkeypatch, tmp_path, space):
    asked = []

    class Ensemble:
        def predict(self, *, config, representation, with_noise):
            asked.append((config, representation, with_noise))
            return np.float32(93.5)

    stub = types.ModuleType("nasbench301")
    stub.load_ensemble = lambda folder: asked.append(folder) or Ensemble()
    monkeypatch.setitem(sys.modules, "nasbench301", stub)
    predicted = load_surrogate(tmp_path)(space.parse(SPECIMEN))
    assert type(predicted) is float
    assert predicted == 93.5
    folder, (config, representation, with_noise) = asked
    assert (folder, representation, with_noise) == (str(tmp_path), "genotype", False)
    assert config.normal[:4] == [("skip_connect", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 1)]
    assert config.reduce[-1] == ("dil_conv_3x3", 3)
    assert config.normal_concat == config.reduce_concat == [2, 3, 4, 5]
    with pytest.raises(DataError, match="there is no folder"):
        load_surrogate(tmp_path / "nothing")


def test_surrogate_without_its_package_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "nasbench301", None)
    with pytest.raises(MissingPackageError, match="pip install nasbench301"):
        load_surrogate(tmp_path)
