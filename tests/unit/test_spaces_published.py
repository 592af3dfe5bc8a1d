"""Spaces beside NAS-Bench-201: the networks that were trained, by their published parameters and operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import naswot
from naswot.benchmark import get_benchmark
from naswot.errors import ArchitectureError, OptionError


def n_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_macro_networks_have_the_published_parameters_and_macs(data_root):
    benchmark = get_benchmark("nasbench_macro", data_root)
    genotypes = list(benchmark.genotypes())
    assert len(genotypes) == 3**8
    for row in np.random.default_rng(0).choice(len(genotypes), 12, replace=False):
        model = benchmark.space.build(genotypes[row])
        assert n_parameters(model) == benchmark.query(genotypes[row], dataset="cifar10", metric="params")
        macs = naswot.measure(model, torch.zeros(2, 3, 32, 32), ["flops"])["flops"]
        assert macs == benchmark.query(genotypes[row], dataset="cifar10", metric="flops")


def test_macro_optimum_and_both_files_agree(data_root):
    official = get_benchmark("nasbench_macro", data_root / "nasbench_macro/original/nas-bench-macro_cifar10.json")
    compact = get_benchmark("nasbench_macro", data_root / "nasbench_macro/nasbench_macro_cifar10.parquet")
    best = max(official.genotypes(), key=lambda g: official.query(g, dataset="cifar10"))
    assert official.space.format(best) == "22212220"
    assert official.query(best, dataset="cifar10") == pytest.approx(93.13, abs=0.005)
    for genotype in list(official.genotypes())[:200]:
        for metric in ("test_accuracy", "params", "flops"):
            first, second = (b.query(genotype, dataset="cifar10", metric=metric) for b in (official, compact))
            assert first == pytest.approx(second, rel=1e-6)


def test_transnas_networks_have_the_published_parameters(data_root):
    pandas = pytest.importorskip("pandas")
    path = data_root / "transnasbench101" / "tnb101_micro_zero_cost_scores_naslib.parquet"
    if not path.exists():
        pytest.skip(f"no table {path}")
    table, space = pandas.read_parquet(path), naswot.get_space("transnasbench101_micro")
    # those scores were taken with 100 classes of objects and 63 of scenes
    for task, n_classes in (("class_object", 100), ("class_scene", 63)):
        rows = table[["arch_str", f"{task}_params"]].dropna().sample(8, random_state=0)
        for arch, params in rows.itertuples(index=False):
            assert n_parameters(space.build(space.parse(arch), n_classes=n_classes)) == round(1e6 * params)


def test_transnas_optima_are_the_published_ones(data_root):
    benchmark = get_benchmark("transnasbench101_micro", data_root)
    assert len(benchmark) == 4**6
    best = [round(float(np.max(benchmark.column(task, "best"))), 4) for task in benchmark.datasets]
    published = {"class_object": 46.32, "class_scene": 54.94, "jigsaw": 95.37, "room_layout": -0.5938}
    published |= {"segmentsemantic": 26.27, "normal": 0.5962, "autoencoder": 0.5772}
    assert dict(zip(benchmark.datasets, best, strict=True)) == pytest.approx(published, abs=0.005)


@pytest.mark.parametrize(
    ("name", "text"),
    [("nasbench_macro", "2221222"), ("nasbench_macro", "22212223"), ("nasbench_macro", "")]
    + [("transnasbench101_micro", text) for text in ("64-41414-1_02_334", "64-41414-1_02_33", "32-41414-1_02_333")],
)
def test_strings_that_do_not_fit_are_refused(name, text):
    with pytest.raises(ArchitectureError, match=r"expected eight digits|the form is"):
        naswot.get_space(name).parse(text)


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(OptionError, match="at least 1"):
        naswot.get_space("nasbench_macro").build((0,) * 8, n_classes=0)
    with pytest.raises(OptionError, match="even width"):
        naswot.get_space("transnasbench101_micro").build((0,) * 6, width=7)


@pytest.mark.parametrize("size", [32, 33, 47])
def test_networks_take_any_size(size):
    for name in ("nasbench_macro", "transnasbench101_micro"):
        space = naswot.get_space(name)
        for seed in range(6):
            genotype = space.sample(np.random.default_rng(seed))
            logits = space.build(genotype, n_classes=7, width=4).eval()(torch.zeros(2, 3, size, size))
            assert logits.shape == (2, 7)
