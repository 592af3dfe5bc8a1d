"""The ResNet-like families of NDS: sizes of the spaces, the networks that were trained, their strings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import naswot
from naswot.benchmark import get_benchmark
from naswot.errors import ArchitectureError, OptionError, UnknownNameError
from naswot.seeding import seeded

FILES = {
    "nds_vanilla_reruns": ("cifar", 10, 32),
    "nds_resnet_reruns": ("cifar", 10, 32),
    "nds_vanilla_lr_wd_in": ("imagenet", 1000, 224),
    "nds_resnet_lr_wd_in": ("imagenet", 1000, 224),
    "nds_resnext_a_in": ("imagenet", 1000, 224),
    "nds_resnext_b_in": ("imagenet", 1000, 224),
}


def n_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("nds_vanilla", 1_259_712),  # Table 1 of the paper
        ("nds_resnet", 1_259_712),
        ("nds_resnext_a", 11_390_625),
        ("nds_resnext_b", 52_734_375),
        ("nds_vanilla_in", 3 * (12 * 10) ** 4),
        ("nds_resnet_in", 3 * (12 * 10) ** 4),
    ],
)
def test_sizes_are_the_published_ones(name, size):
    assert naswot.get_space(name).size == size


def check_parameters(benchmark, genotypes, stem, n_classes):
    for genotype in genotypes:
        with torch.device("meta"):
            model = benchmark.space.build(genotype, n_classes=n_classes, stem=stem)
        assert n_parameters(model) == benchmark.query(genotype, dataset=benchmark.datasets[0], metric="params")


@pytest.mark.parametrize("name", FILES)
def test_networks_have_the_published_parameters(name, data_root):
    benchmark = get_benchmark(name, data_root)
    check_parameters(benchmark, list(benchmark.genotypes())[::25], *FILES[name][:2])


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", FILES)
def test_all_networks_have_the_published_parameters(name, data_root):
    benchmark = get_benchmark(name, data_root)
    check_parameters(benchmark, benchmark.genotypes(), *FILES[name][:2])


def published_operations(model, images):
    """MACs of convolutions and classifier, the classifier's bias, five for each number that is normalised."""
    total = 0

    def count(layer, inputs, output):
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += output[0].numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            total += output[0].numel() * (layer.in_features + 1)
        elif isinstance(layer, nn.BatchNorm2d):
            total += 5 * output[0].numel()

    for layer in model.modules():
        layer.register_forward_hook(count)
    model.eval()(images)
    return total


@pytest.mark.parametrize("name", FILES)
def test_networks_have_the_published_operations(name, data_root):
    benchmark, (stem, n_classes, size) = get_benchmark(name, data_root), FILES[name]
    for genotype in list(benchmark.genotypes())[:: max(1, len(benchmark) // 8)]:
        with torch.device("meta"), torch.no_grad():
            model = benchmark.space.build(genotype, n_classes=n_classes, stem=stem)
            found = published_operations(model, torch.zeros(1, 3, size, size))
        assert found == benchmark.query(genotype, dataset=benchmark.datasets[0], metric="flops")


def test_macs_are_less_than_the_published_operations_by_bias_and_normalisation(data_root):
    benchmark = get_benchmark("nds_vanilla_reruns", data_root)
    genotype = benchmark.space.parse("d4w16-d2w80-d4w24")
    macs = naswot.measure(benchmark.space.build(genotype), torch.zeros(2, 3, 32, 32), ["flops"])["flops"]
    normalised = 16 * 32**2 * (1 + 8) + 80 * 16**2 * 4 + 24 * 8**2 * 8  # stem and stages
    assert macs + 10 + 5 * normalised == benchmark.query(genotype, dataset="cifar10", metric="flops") == 71_139_578


def test_residual_block_adds_before_the_last_relu():
    model = naswot.get_space("nds_resnet").build((0, 0, 0, 0, 0, 0))  # one block of 16 channels per stage
    block = model[3]
    assert isinstance(block.shortcut, nn.Identity)
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(block.eval()(x), torch.relu(x + block.body(x)))
    assert [tuple(convolution.stride) for convolution in model[4].modules() if isinstance(convolution, nn.Conv2d)] == [
        (2, 2),
        (2, 2),
        (1, 1),
    ]


def test_bottleneck_block_has_its_ratio_groups_and_stride():
    space = naswot.get_space("nds_resnext_b")
    model = space.build(space.parse("d1w64r0.5g4-d2w256r0.25g16-d1w64r1.0g1"))
    inner = [(c.in_channels, c.out_channels, c.groups, c.stride[0]) for c in model.modules() if spatial(c)]
    assert inner == [(3, 16, 1, 1), (32, 32, 4, 1), (64, 64, 16, 2), (64, 64, 16, 1), (64, 64, 1, 2)]


def spatial(layer):
    return isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)


def test_weights_are_drawn_as_in_the_original():
    space = naswot.get_space("nds_resnext_b")
    with seeded(0):
        model = space.build(space.parse("d1w1024r1.0g16-d1w64r0.25g1-d1w1024r1.0g1"))
    grouped = next(c for c in model.modules() if spatial(c) and c.groups == 16)
    assert grouped.weight.std().item() == pytest.approx((2 / (9 * 1024)) ** 0.5, rel=0.01)  # fan-out of all groups
    assert model[-1].weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not model[-1].bias.any()


@pytest.mark.parametrize(("name", "shrinks"), [("nds_resnet_in", 4), ("nds_resnext_a", 8)])
def test_stems_for_imagenet_shrink_as_published(name, shrinks):
    space = naswot.get_space(name)
    model = space.build((0,) * len(space.choices), stem="imagenet").eval()
    first_block = next(i for i, layer in enumerate(model) if hasattr(layer, "body"))
    assert model[:first_block](torch.zeros(1, 3, 64, 64)).shape[2:] == (64 // shrinks, 64 // shrinks)


def test_what_was_not_trained_is_refused():
    with pytest.raises(UnknownNameError, match="cifar"):
        naswot.get_space("nds_resnet").build((0,) * 6, stem="imagenet")
    with pytest.raises(OptionError, match="at least 1"):
        naswot.get_space("nds_resnet").build((0,) * 6, n_classes=0)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("nds_resnet", "d2w32-d3w128-d5w160", "d is 5"),
        ("nds_resnet", "d2w32-d3w512-d4w160", "w is 512"),
        ("nds_resnet", "d2w32-d3w128", "such as 'd1w16-d1w16-d1w16'"),
        ("nds_resnet_in", "d2w32-d3w128-d5w192-d1w16", "such as 's16-d1w16"),
        ("nds_resnext_a", "d1w16r1g1-d1w16r1g1-d1w16r1g1", "r is 1"),
        ("nds_resnext_a", "d1w16r1.0g8-d1w16r1.0g1-d1w16r1.0g1", "g is 8"),
    ],
)
def test_strings_that_do_not_fit_are_refused(name, text, reason):
    with pytest.raises(ArchitectureError, match=reason):
        naswot.get_space(name).parse(text)


@pytest.mark.parametrize("name", ["nds_resnet_in", "nds_resnext_b"])
@pytest.mark.parametrize("size", [1, 33])
def test_networks_take_any_size(name, size):
    space = naswot.get_space(name)
    for stem in space.stems:
        logits = space.build((0,) * len(space.choices), stem=stem).eval()(torch.zeros(1, 3, size, size))
        assert np.isfinite(logits.detach().numpy()).all()
