"""The files of the NDS cell families: published figures, and the form of the CIFAR-10 files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from naswot.benchmark import Column, benchmarks, get_benchmark
from naswot.errors import DataError
from naswot.space import get_space

IMAGENET = {
    "nds_amoeba_in": ("Amoeba_in", 124, 50),
    "nds_darts_in": ("DARTS_in", 121, 50),
    "nds_darts_fix_w_d_in": ("DARTS_fix-w-d_in", 499, 5),
    "nds_darts_lr_wd_in": ("DARTS_lr-wd_in", 515, 50),
    "nds_enas_in": ("ENAS_in", 117, 50),
    "nds_nasnet_in": ("NASNet_in", 122, 50),
    "nds_pnas_in": ("PNAS_in", 119, 50),
}
CIFAR = {
    "nds_amoeba": "Amoeba",
    "nds_darts": "DARTS",
    "nds_darts_fix_w_d": "DARTS_fix-w-d",
    "nds_darts_lr_wd": "DARTS_lr-wd",
    "nds_enas": "ENAS",
    "nds_enas_fix_w_d": "ENAS_fix-w-d",
    "nds_nasnet": "NASNet",
    "nds_pnas": "PNAS",
    "nds_pnas_fix_w_d": "PNAS_fix-w-d",
}


@pytest.mark.parametrize("name", IMAGENET)
def test_figures_are_those_of_the_file(name, data_root):
    file, n, epochs = IMAGENET[name]
    path = data_root / "nds" / "original" / f"{file}.json"
    if not path.exists():
        pytest.skip(f"no file {path}")
    rows, benchmark = json.loads(path.read_text()), get_benchmark(name, data_root)
    assert benchmark.source == str(path)
    assert benchmark.datasets == ("imagenet",)
    assert len(benchmark) == len(rows) == n
    assert benchmark.seeds("imagenet", epochs=epochs) == (0,)
    last, best = (benchmark.column("imagenet", m, epochs=epochs) for m in ("test_accuracy", "best_test_accuracy"))
    assert np.allclose(last, [100 - row["test_ep_top1"][-1] for row in rows], rtol=0, atol=1e-9)
    assert np.allclose(best, [100 - row["min_test_top1"] for row in rows], rtol=0, atol=1e-9)
    assert (best >= last - 1e-9).all()
    for metric in ("params", "flops"):
        assert benchmark.column("imagenet", metric).tolist() == [row[metric] for row in rows]
    description = benchmark.space.describe(next(benchmark.genotypes()))
    assert description["genotype"] == rows[0]["net"]["genotype"]


def entry(space, genotype, errors):
    net = space.describe(genotype) | {"aux": False, "drop_prob": 0.0}
    figures = {"params": 10**6, "flops": 10**8, "test_ep_top1": errors, "min_test_top1": min(errors)}
    return {"net": net, "optim": {"max_ep": len(errors)}, **figures}


@pytest.mark.parametrize("name", CIFAR)
def test_the_cifar_files_are_read_by_name(name, tmp_path):
    space = get_space(benchmarks.get(name).space)
    first, second = (space.sample(np.random.default_rng(seed)) for seed in (0, 1))
    rows = [entry(space, first, [40.0, 7.5, 8.0]), entry(space, second, [50.0, 9.0, 6.0])]
    (tmp_path / f"{CIFAR[name]}.json").write_text(json.dumps(rows))
    benchmark = get_benchmark(name, tmp_path)
    assert benchmark.datasets == ("cifar10",)
    assert list(benchmark.genotypes()) == [first, second]
    assert benchmark.column("cifar10", epochs=3).tolist() == [92.0, 94.0]
    assert benchmark.column("cifar10", "best_test_accuracy").tolist() == [92.5, 94.0]


def test_trainings_of_one_architecture_are_seeds_also_in_the_form_of_re_runs(tmp_path):
    space = get_space("nds_darts")
    first, second = (space.sample(np.random.default_rng(seed)) for seed in (0, 1))
    top = [entry(space, first, [9.0, 8.0]), entry(space, first, [9.0, 7.0])]
    content = {"top": top, "mid": [entry(space, second, [20.0, 19.0])]}
    (tmp_path / "DARTS_lr-wd.json").write_text(json.dumps(content))
    benchmark = get_benchmark("nds_darts_lr_wd", tmp_path)
    assert benchmark.seeds("cifar10") == (0, 1)
    assert benchmark[Column("cifar10", "test_accuracy", 2, 0)].tolist() == [92.0, 81.0]
    assert np.array_equal(benchmark.column("cifar10", seed=1), [93.0, np.nan], equal_nan=True)
    assert benchmark.column("cifar10").tolist() == [92.5, 81.0]


def test_a_network_of_another_family_is_refused_by_entry(tmp_path):
    rows = [entry(space := get_space("nds_pnas"), space.sample(np.random.default_rng(0)), [9.0])]
    path = tmp_path / "ENAS.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"ENAS\.json: entry 0 is malformed .*operation .* is none of skip_connect"):
        get_benchmark("nds_enas", path)
