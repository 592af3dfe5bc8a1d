"""The space of ProxylessNAS: parameters and outputs against another implementation, identities, stems, strings."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import naswot
from naswot.errors import ArchitectureError, OptionError
from naswot.seeding import numpy_generator, seeded, torch_generator

SPACE = naswot.get_space("mobilenet")
STARTS = (0, 4, 8, 12, 16, 20)
K3E6, K7E6, IDENTITY = 1, 5, 6


def n_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def uniform(option, others=None):
    """One option in the first block of each stage, another everywhere else."""
    return tuple(option if i in STARTS or others is None else others for i in range(21))


def images(size, n=2):
    return torch.randn(n, 3, size, size, generator=torch_generator(0))


def test_the_space_has_the_published_size():
    assert SPACE.size == 6**6 * 7**15
    assert all(n == (6 if i in STARTS else 7) for i, n in enumerate(SPACE.choices))


@pytest.mark.parametrize(
    ("genotype", "n_classes", "expected"),
    [
        # 928 + 896 (stem, first), sum of h*(cin + cout + k*k + 4) + 2*cout with h = e*cin, 1,693,160 (head)
        (uniform(K3E6), 1000, 4_684_776),
        (uniform(K7E6), 10, 3_835_146),
        (uniform(2, IDENTITY), 10, 908_298),
    ],
)
def test_parameters_are_those_of_the_closed_form(genotype, n_classes, expected):
    assert n_parameters(SPACE.build(genotype, n_classes=n_classes)) == expected


def reference(genotype):
    """The same network by pytorchcv, an implementation of the published networks."""
    module = pytest.importorskip("pytorchcv.models.proxylessnas")
    stages = [[16]] + [4 * [width] for width in (24, 40)] + [4 * [80] + 4 * [96], 4 * [192] + [320]]
    kernels, expansions, residuals, shortcuts = [[3]], [[1]], [[1]], [[0]]
    position = 0
    for widths in stages[1:]:
        genes = genotype[position : position + len(widths)]
        kernels.append([3 + 2 * (gene // 2) for gene in genes])
        expansions.append([3 + 3 * (gene % 2) for gene in genes])
        residuals.append([int(gene != IDENTITY) for gene in genes])
        shortcuts.append([int(position + i not in STARTS) for i in range(len(widths))])
        position += len(widths)
    return module.ProxylessNAS(stages, 32, 1280, residuals, shortcuts, kernels, expansions)


@pytest.mark.parametrize("seed", range(3))
def test_networks_compute_what_another_implementation_computes(seed):
    genotype = SPACE.sample(numpy_generator(seed))
    assert IDENTITY in genotype
    other = reference(genotype)
    model = SPACE.build(genotype, n_classes=1000, stem="imagenet")
    ours, theirs = model.state_dict(), other.state_dict()
    assert [value.shape for value in ours.values()] == [value.shape for value in theirs.values()]
    other.load_state_dict(dict(zip(theirs, ours.values(), strict=True)))
    with torch.no_grad():  # on batch statistics, without which the signal fades before it reaches the logits
        first, second = model(images(224)), other(images(224))
    assert first.std() > 0.1
    assert torch.allclose(first, second, rtol=0, atol=1e-5)  # the other pools by another sum


def test_identities_add_no_parameters_and_no_layer():
    full, short = uniform(K3E6), uniform(K3E6, IDENTITY)
    one_less = (*full[:1], IDENTITY, *full[2:])
    assert n_parameters(SPACE.build(full)) - n_parameters(SPACE.build(one_less)) == 2 * 24 * 144 + 13 * 144 + 48
    assert len(SPACE.build(short)) == 2 + 6 + 1
    assert not any(isinstance(layer, nn.Identity) for layer in SPACE.build(short).modules())


@pytest.mark.parametrize(("stem", "size", "last"), [("small", 32, 4), ("small", 16, 2), ("imagenet", 224, 7)])
def test_stems_divide_the_images_as_declared(stem, size, last):
    model = SPACE.build(uniform(0, IDENTITY), stem=stem).eval()
    with torch.no_grad():
        assert model[:-1](images(size, 1)).shape == (1, 320, last, last)
        assert model(images(1, 1)).shape == (1, 10)


@pytest.mark.parametrize(("multiplier", "stem", "head"), [(0.35, 16, 1280), (1.4, 48, 1792)])
def test_channels_stay_multiples_of_eight(multiplier, stem, head):
    model = SPACE.build(uniform(0), width_multiplier=multiplier)
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert convolutions[0].out_channels == stem
    assert convolutions[-1].out_channels == head
    assert all(layer.out_channels % 8 == 0 for layer in convolutions)


def test_blocks_are_what_is_built():
    genotype = SPACE.sample(numpy_generator(7))
    chain = SPACE.blocks(genotype, input_size=32)
    with seeded(0):
        model, feature = SPACE.build(genotype).eval(), images(32)
    assert len(chain) == len(model) == 3 + sum(gene != IDENTITY for gene in genotype)
    with torch.no_grad():
        for block, layer in zip(chain, model, strict=True):
            assert block.input_shape == feature.shape[1:]
            feature = layer(feature)
    assert feature.shape == (2, 10)


def test_covering_genotypes_hold_every_block():
    covered = {block.key for genotype in SPACE.covering() for block in SPACE.blocks(genotype)}
    rng = numpy_generator(0)
    assert {block.key for _ in range(50) for block in SPACE.blocks(SPACE.sample(rng))} == covered
    assert len(covered) == 6 * 11 + 3  # first and later blocks of five stages, one of the last; stem, first, head


def test_strings_name_kernel_and_expansion():
    text = "k3e3,id,k7e6,id," + ",".join(16 * ["k5e6"]) + ",k5e3"
    assert SPACE.parse(text) == (0, 6, 5, 6, *16 * [3], 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",".join(["id", *20 * ["k3e3"]]), "block 0 of mobilenet is 'id'"),
        (",".join([*12 * ["k3e3"], "id", *8 * ["k3e3"]]), "block 12 of mobilenet is 'id'"),
        (",".join(20 * ["k3e3"]), "expected 21 blocks joined by commas, but got 20"),
        (",".join(["k3e3", "k4e3", *19 * ["k3e3"]]), "block 1 of mobilenet is 'k4e3'"),
    ],
)
def test_other_strings_are_refused(text, message):
    with pytest.raises(ArchitectureError, match=message):
        SPACE.parse(text)


@pytest.mark.parametrize("options", [{"stem": "cifar"}, {"width_multiplier": 0.0}, {"n_classes": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(OptionError, match=r"stem|width_multiplier"):
        SPACE.build(uniform(0), **options)
