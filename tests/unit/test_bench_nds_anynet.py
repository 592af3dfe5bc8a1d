"""The JSON files of NDS: published figures, re-runs as seeds, and errors that name the entry."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from naswot.benchmark import Column, get_benchmark
from naswot.errors import DataError

NET = {"block_type": "res_basic_block", "bot_muls": [], "num_gs": []}
NET |= {"ds": [1, 2, 3, 3], "ss": [1, 1, 2, 2], "ws": [16, 32, 128, 160]}
ENTRY = {"net": NET, "optim": {"max_ep": 3}, "test_ep_top1": [40.0, 4.5, 5.0], "min_test_top1": 4.5}
ENTRY |= {"params": 2174234, "flops": 322469450}


def entry(**changes):
    changed = copy.deepcopy(ENTRY)
    for key, value in changes.items():
        (changed["net"] if key in NET else changed)[key] = value
    return changed


@pytest.fixture
def read(tmp_path):
    """Reads such content as the benchmark of the file's name."""

    def call(content, name="nds_resnet", file="ResNet.json"):
        path = tmp_path / file
        path.write_text(json.dumps(content))
        return get_benchmark(name, path)

    return call


def test_figures_are_those_of_the_file(data_root):
    benchmark = get_benchmark("nds_resnext_a_in", data_root)
    rows = json.loads((data_root / "nds/original/ResNeXt-A_in.json").read_text())
    assert len(benchmark) == len(rows) == 130
    assert np.allclose(benchmark.column("imagenet"), [100 - row["test_ep_top1"][-1] for row in rows])
    best = benchmark.column("imagenet", "best_test_accuracy", epochs=50)
    assert np.allclose(best, [100 - row["min_test_top1"] for row in rows])
    genotype = benchmark.space.parse("d2w16r0.25g2-d2w128r0.5g4-d2w128r0.25g2")
    assert next(benchmark.genotypes()) == genotype
    assert benchmark.query(genotype, dataset="imagenet") == pytest.approx(100 - 59.516)


@pytest.mark.parametrize(
    ("name", "n", "dataset", "epochs"),
    [
        ("nds_vanilla_lr_wd_in", 500, "imagenet", 50),
        ("nds_resnet_lr_wd_in", 494, "imagenet", 50),
        ("nds_resnext_b_in", 164, "imagenet", 50),
        ("nds_vanilla_reruns", 2, "cifar10", 100),
    ],
)
def test_counts_data_sets_and_lengths(name, n, dataset, epochs, data_root):
    benchmark = get_benchmark(name, data_root)
    assert (len(benchmark), benchmark.datasets) == (n, (dataset,))
    assert {column.epochs for column in benchmark.columns} == {epochs, None}
    assert not np.isnan(benchmark.column(dataset)).any()


def test_reruns_are_seeds_in_file_order(data_root):
    benchmark = get_benchmark("nds_resnet_reruns", data_root)
    content = json.loads((data_root / "nds/original/ResNet_reruns.json").read_text())
    assert benchmark.seeds("cifar10") == tuple(range(100))
    top, mid = benchmark.genotypes()
    for genotype, rows in ((top, content["top"]), (mid, content["mid"])):
        errors = [row["test_ep_top1"][-1] for row in rows]
        assert benchmark.query(genotype, dataset="cifar10", seed=7) == pytest.approx(100 - errors[7])
        assert benchmark.query(genotype, dataset="cifar10") == pytest.approx(100 - np.mean(errors))
    assert benchmark.space.format(mid) == "d24w24-d2w32-d24w32"


def test_the_form_of_the_cifar_sweeps_is_read(read):
    other = entry(ds=[1, 1, 1, 24], params=3, flops=4)
    benchmark = read([entry(), other, entry(test_ep_top1=[9.0, 8.0, 7.0], min_test_top1=7.0)])
    assert [benchmark.space.format(g) for g in benchmark.genotypes()] == [
        "d2w32-d3w128-d3w160",
        "d1w32-d1w128-d24w160",
    ]
    seeds = [benchmark[Column("cifar10", "test_accuracy", 3, seed)] for seed in (0, 1)]
    assert np.array_equal(seeds, [[95.0, 95.0], [93.0, np.nan]], equal_nan=True)
    assert benchmark.column("cifar10").tolist() == [94.0, 95.0]
    assert benchmark.column("cifar10", "best_test_accuracy").tolist() == [94.25, 95.5]
    assert benchmark.column("cifar10", "params").tolist() == [2174234, 3]
    assert benchmark.column("cifar10", "flops").tolist() == [322469450, 4]


def test_bottlenecks_of_the_cifar_sweeps_are_read(read):
    net = {"block_type": "res_bottleneck_block", "bot_muls": [0.0, 0.25, 0.25, 0.25], "num_gs": [1, 2, 1, 2]}
    net |= {"ds": [1, 16, 1, 4], "ss": [1, 1, 2, 2], "ws": [16, 64, 128, 16]}  # an entry that others have published
    benchmark = read([ENTRY | {"net": net}], "nds_resnext_a", "ResNeXt-A.json")
    (genotype,) = benchmark.genotypes()
    assert benchmark.space.format(genotype) == "d16w64r0.25g2-d1w128r0.25g1-d4w16r0.25g2"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"test_ep_top1": [4.0, 3.0]}, "2 errors for 3 epochs"),
        ({"test_ep_top1": None}, "TypeError"),
        ({"test_ep_top1": [1.0, 2.0, float("nan")]}, "no percentages"),
        ({"min_test_top1": -1.0}, "no percentages"),
        ({"min_test_top1": "4.5"}, "TypeError"),
        ({"params": -1}, "no counts"),
        ({"flops": None}, "TypeError"),
        ({"net": None}, "TypeError"),
        ({"net": {}}, "KeyError"),
        ({"optim": {}}, "KeyError: 'max_ep'"),
        ({"ds": []}, "ValueError"),
        ({"ds": [1, 2, 3]}, "ValueError"),
        ({"ds": [1, 2, 3, 5]}, "d is 5"),
        ({"ds": [2, 2, 3, 3]}, "depth of the stem"),
        ({"ws": [16, 32, 128, 512]}, "w is 512"),
        ({"ws": [32, 32, 128, 160]}, "stem has 32 channels"),
        ({"ss": [4, 1, 2, 2]}, "strides"),
        ({"block_type": "double_plain_block"}, "block type"),
    ],
)
def test_malformed_entries_are_named(read, damage, reason):
    with pytest.raises(DataError, match=rf"ResNet\.json: entry 1 of 'mid' is malformed.*{reason}"):
        read({"top": [entry()], "mid": [entry(), entry(**damage)]})
    with pytest.raises(DataError, match=r"ResNet\.json: entry 0 is malformed"):
        read([entry(**damage)])


def test_contradictions_are_named(read):
    with pytest.raises(DataError, match=r"entry 1 has 7 params, 322469450 flops.* had 2174234 params"):
        read([entry(), entry(params=7)])


@pytest.mark.parametrize(
    ("content", "reason"),
    [([], "holds no training"), ({}, "holds no training"), ({"top": []}, "holds no training")]
    + [(content, "expected a list of trainings") for content in (3, None, "text", {"top": 3})]
    + [([content], "entry 0 is malformed") for content in (3, None, "text", [ENTRY])],
)
def test_files_of_something_else_are_refused(read, content, reason):
    with pytest.raises(DataError, match=rf"ResNet\.json:? {reason}"):
        read(content)
