"""The size search space of NATS-Bench: the published networks, and the values of the official package."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from torch import nn

import naswot
from naswot.benchmark import Column, get_benchmark
from naswot.data._safe_pickle import load_pickle
from naswot.errors import ArchitectureError, DataError, OptionError

SPECIMENS = {0: "8:8:8:8:8", 11: "8:8:8:16:32", 284: "8:8:40:32:40"}
DATASETS = {"cifar10": (10, 32), "cifar10-valid": (10, 32), "cifar100": (100, 32), "ImageNet16-120": (120, 16)}


@pytest.fixture(scope="module")
def space():
    return naswot.get_space("natsbench_sss")


@pytest.fixture(scope="module")
def folder(data_root):
    path = data_root / "natsbench_sss" / "original" / "NATS-sss-v1_0-50262-simple"
    if not path.is_dir():
        pytest.skip(f"no specimens of NATS-Bench: {path}")
    return path


@pytest.fixture(scope="module")
def nats(folder):
    return get_benchmark("natsbench_sss", folder)


def test_specimens_are_found_below_the_data_root(data_root, nats):
    found = get_benchmark("natsbench_sss", data_root)
    assert list(found.genotypes()) == list(nats.genotypes())
    assert [nats.space.format(genotype) for genotype in nats.genotypes()] == list(SPECIMENS.values())


def test_space_has_the_official_architectures_in_their_order(folder, space):
    archs = load_pickle(folder / "meta.pickle.pbz2")["meta_archs"]
    assert len(archs) == space.size == 32_768
    assert [space.format(genotype) for genotype in space.genotypes()] == archs


def test_networks_have_the_published_parameters_and_macs(nats):
    for genotype in nats.genotypes():
        for dataset, (n_classes, size) in DATASETS.items():
            model = nats.space.build(genotype, n_classes=n_classes)
            n_parameters = sum(parameter.numel() for parameter in model.parameters())
            assert n_parameters == nats.query(genotype, dataset=dataset, metric="params")
            macs = naswot.measure(model, torch.zeros(2, 3, size, size), ["flops"])["flops"]
            with_bias = macs + n_classes  # of the classifier
            assert with_bias == nats.query(genotype, dataset=dataset, metric="flops")


def test_cell_is_the_published_one(space):
    cell = space.build(space.parse("8:8:40:32:64")).eval()[4]  # from 8 to 40 channels
    kinds = [(c.in_channels, c.out_channels, c.kernel_size[0]) for c in cell.modules() if isinstance(c, nn.Conv2d)]
    assert kinds == [(8, 40, 3), (8, 40, 3), (40, 40, 3), (40, 40, 3), (40, 40, 3), (8, 40, 1)]
    nasbench201 = naswot.get_space("nasbench201")
    text = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    same = space.build(space.parse("8:8:40:32:64")).eval()[2]  # from 8 to 8 channels
    other = nasbench201.build(nasbench201.parse(text), width=8).eval().cells[0]
    for mine, edge in (("1_0", "1<-0"), ("2_0", "2<-0"), ("2_1", "2<-1"), ("3_1", "3<-1"), ("3_2", "3<-2")):
        other.edges[edge].load_state_dict(getattr(same, f"conv_{mine}").state_dict())
    x = torch.randn(2, 8, 6, 6)
    assert torch.allclose(same(x), other(x), atol=1e-6)


def test_skip_to_other_channels_passes_on_negative_values(space):
    cell = space.build(space.parse("8:8:40:32:64")).eval()[4]
    x = -torch.rand(1, 8, 4, 4)  # ReLU would leave nothing
    assert cell.skip_3_0(x).abs().min() > 0


def test_specimens_have_the_values_of_the_official_package(folder, nats):
    create = pytest.importorskip("nats_bench").create
    api = create(str(folder), "sss", fast_mode=True, verbose=False)
    compared = 0
    for index, arch in SPECIMENS.items():
        genotype = nats.space.parse(arch)
        api.reload(str(folder), index)
        for dataset, metric, epochs, seed in nats.columns:
            if seed is None or not metric.endswith("accuracy"):
                continue
            of_cifar10 = dataset in ("cifar10", "cifar10-valid")
            split = "x-valid" if metric == "valid_accuracy" else "ori-test" if of_cifar10 else "x-test"
            official = api.arch2infos_dict[index][f"{epochs:02}"].get_metrics(dataset, split, is_random=seed)
            ours = nats.query(genotype, dataset=dataset, metric=metric, epochs=epochs, seed=seed)
            assert ours == official["accuracy"]
            compared += 1
        for dataset in DATASETS:
            cost = api.get_cost_info(index, dataset, hp="90")
            assert nats.query(genotype, dataset=dataset, metric="params") == pytest.approx(1e6 * cost["params"])
            assert nats.query(genotype, dataset=dataset, metric="flops") == pytest.approx(1e6 * cost["flops"])
        seconds = nats.query(genotype, dataset="cifar10", metric="train_seconds", epochs=90)
        assert seconds == pytest.approx(api.get_more_info(index, "cifar10", hp="90")["train-all-time"])
    assert compared == 3 * (4 + 3) * (1 + 3 + 1)  # four test and three valid accuracies; 1, 12 (three seeds), 90 epochs


def test_lengths_and_seeds(nats):
    assert nats.datasets == ("ImageNet16-120", "cifar10", "cifar10-valid", "cifar100")
    assert {column.epochs for column in nats.columns if column.metric == "test_accuracy"} == {1, 12, 90}
    assert nats.seeds("cifar10", epochs=12) == (777, 888, 999)
    assert nats.seeds("cifar10") == (777,)
    assert Column("cifar10-valid", "valid_accuracy", 12, 888) in nats.columns
    assert not np.isnan(nats.column("cifar100")).any()


def test_a_folder_of_the_other_space_is_refused(folder, tmp_path):
    copy = tmp_path / "NATS-tss-v1_0-3ffb9-simple"
    shutil.copytree(folder, copy)
    with pytest.raises((DataError, ArchitectureError), match="8:8:8:8:8"):
        get_benchmark("nasbench201", copy)


@pytest.mark.parametrize("text", ["8:8:8:8", "8:8:8:8:8:8", "8:8:8:8:12", "8:8:8:8:72", "8:8:8:8:08", "8:8:8:8:8\n"])
def test_strings_that_do_not_fit_are_refused(space, text):
    with pytest.raises(ArchitectureError, match="expected five of"):
        space.parse(text)


def test_numbers_that_do_not_fit_are_refused(space):
    with pytest.raises(OptionError, match="at least 1"):
        space.build((0,) * 5, n_classes=0)
