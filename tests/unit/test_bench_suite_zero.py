"""NAS-Bench-Suite-Zero: the keys stand for the cells they are said to, by accuracy and by number of parameters."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from naswot.benchmark import Column, get_benchmark
from naswot.errors import DataError
from naswot.space import get_space, list_spaces

BASE = "nasbench201/original"
SHARD = f"{BASE}/naslib_zc_shards/benchmark--nasbench201--cifar10--250.json"


def opened(data_root, name, path):
    if not (data_root / path).exists():
        pytest.skip(f"no {data_root / path}")
    return get_benchmark(name, data_root / path)


def test_cells_of_nasbench201_have_the_parameters_of_the_networks_we_build(data_root):
    benchmark = opened(data_root, "suite_zero_nasbench201", f"{BASE}/zc_nasbench201.json")
    assert (len(benchmark), benchmark.datasets) == (725, ("ImageNet16-120", "cifar10", "cifar100"))
    for dataset, n_classes in (("cifar10", 10), ("cifar100", 100), ("ImageNet16-120", 120)):
        params = benchmark.column(dataset, "params")
        built = [benchmark.space.n_parameters(genotype, n_classes=n_classes) for genotype in benchmark.genotypes()]
        known = ~np.isnan(params)
        assert known.sum() >= 724
        assert np.allclose(params[known], np.array(built)[known], rtol=0, atol=0.01)


def test_their_validation_accuracy_is_that_of_one_training(data_root):
    benchmark = opened(data_root, "suite_zero_nasbench201", f"{BASE}/zc_nasbench201.json")
    trained = pytest.importorskip("pandas").read_parquet(data_root / "nasbench201" / "nb201_accuracy.parquet")
    genotypes = [benchmark.space.parse(arch) for arch in trained["arch_str"]]
    for dataset, short in (("cifar10", "c10valid"), ("cifar100", "c100"), ("ImageNet16-120", "in16")):
        known = dict(zip(genotypes, trained[f"{short}_val_e200_naslib1seed"], strict=True))
        ours = benchmark.column(dataset, "valid_accuracy")
        theirs = np.array([known[genotype] for genotype in benchmark.genotypes()])
        assert np.nanmax(abs(ours - theirs)) < 1e-5


def test_scores_are_the_published_ones(data_root):
    shard = opened(data_root, "suite_zero_nasbench201", SHARD)
    record = json.loads((data_root / SHARD).read_text())[0]
    assert record["arch"] == "(3, 3, 1, 2, 1, 4)"
    # 1-0 1x1, 2-0 1x1, 3-0 none, 2-1 3x3, 3-1 none, 3-2 pooling
    arch = "|nor_conv_1x1~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|none~0|none~1|avg_pool_3x3~2|"
    assert shard.query(shard.space.parse(arch), dataset="cifar10", metric="zen") == record["zen"]["score"]
    assert set(shard.columns) == {Column("cifar10", "zen"), Column("cifar10", "valid_accuracy")}


def test_cells_of_transnasbench101_have_the_parameters_and_metrics_known_otherwise(data_root):
    path = "transnasbench101/original/zc_transbench101_micro.json"
    benchmark = opened(data_root, "suite_zero_transnasbench101_micro", path)
    assert (len(benchmark), len(benchmark.datasets)) == (711, 7)
    known = opened(data_root, "transnasbench101_micro", "transnasbench101/tnb101_micro_performance.parquet")
    genotypes = list(benchmark.genotypes())
    for task in set(benchmark.datasets) - {"segmentsemantic"}:
        theirs = [known.query(genotype, dataset=task, metric="best") for genotype in genotypes]
        assert np.allclose(benchmark.column(task, "valid_metric"), theirs, rtol=0, atol=1e-6)
    params = benchmark.column("class_object", "params")
    for row in range(0, 711, 150):
        built = benchmark.space.build(genotypes[row], n_classes=100)  # NASLib's network has 100 classes of objects
        assert params[row] == sum(p.numel() for p in built.parameters())


def test_cells_of_nasbench101_have_the_parameters_of_the_networks_we_build(data_root):
    needs("nasbench101")
    benchmark = opened(data_root, "suite_zero_nasbench101", "nasbench101/original/zc_nasbench101.json")
    assert len(benchmark) == 301  # of 500 keys, many of which differ in idle vertices only
    params = benchmark.column("cifar10", "params")
    for row, genotype in list(enumerate(benchmark.genotypes()))[::60]:
        built = sum(p.numel() for p in benchmark.space.build(genotype).parameters())
        assert params[row] == pytest.approx(built, abs=0.01)


def test_cells_of_darts_have_nearly_the_parameters_of_the_networks_we_build(data_root):
    needs("darts")
    benchmark = opened(data_root, "suite_zero_darts", "nasbench301/original/zc_nasbench301.json")
    assert len(benchmark) == 725
    params = benchmark.column("cifar10", "params")
    for row, genotype in list(enumerate(benchmark.genotypes()))[::145]:
        built = sum(p.numel() for p in benchmark.space.build(genotype, width=32, n_cells=8).parameters())
        assert 1 < built / params[row] < 1.015  # NASLib's network has about a percent less


def needs(space):
    if space not in list_spaces():
        pytest.skip(f"the space {space} is not installed")


KEY, OTHER = "(0, 2, 3, 2, 3, 1)", "(1, 1, 1, 1, 1, 1)"


def read(tmp_path, content):
    path = tmp_path / "zc_nasbench201.json"
    path.write_text(json.dumps(content))
    return get_benchmark("suite_zero_nasbench201", path)


def test_every_form_of_a_score_is_read_and_a_failed_one_is_unknown(tmp_path):
    rows = {KEY: {"idx": "3", "nwot": {"score": 5.5, "time": 1}, "params": 0.25}, OTHER: {"nwot": {"score": -1e8}}}
    for content in ({"cifar10": rows}, {"nasbench201": {"cifar10": rows}}):
        benchmark = read(tmp_path, content)
        first, second = list(benchmark.genotypes())
        assert get_space("nasbench201").format(second) == "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
        assert benchmark.query(first, dataset="cifar10", metric="nwot") == 5.5
        assert math.isnan(benchmark.query(second, dataset="cifar10", metric="nwot"))
        assert benchmark.query(first, dataset="cifar10", metric="params") == 250_000


def test_cells_that_occur_twice_get_the_mean(tmp_path):
    rows = {KEY: {"nwot": 1.0, "zen": 7.0}, KEY.replace(" ", ""): {"nwot": 2.0}}
    benchmark = read(tmp_path, {"cifar10": rows})
    assert benchmark.column("cifar10", "nwot").tolist() == [1.5]
    assert benchmark.column("cifar10", "zen").tolist() == [7.0]


@pytest.mark.parametrize("key", ["(0, 1, 2, 3, 4, 5)", "(0, 1, 2, 3, 4)", "(0, -1, 2, 3, 4, 0)", "|none~0|", ""])
def test_keys_of_another_space_are_refused(tmp_path, key):
    with pytest.raises(DataError, match="is no architecture of nasbench201"):
        read(tmp_path, {"cifar10": {key: {"nwot": 1.0}}})


def test_a_file_without_scores_is_refused(tmp_path):
    for content in ({}, {"cifar10": {}}, {"cifar10": {KEY: {"idx": "3"}}}):
        with pytest.raises(DataError, match=r"expected genotypes|no column of results"):
            read(tmp_path, content)
