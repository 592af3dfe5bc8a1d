"""The plain chain of stages: parameters by hand, shapes at any size, other sets of options."""

from __future__ import annotations

import pytest
import torch

import naswot
from naswot.errors import ArchitectureError, OptionError
from naswot.seeding import numpy_generator, torch_generator
from naswot.spaces.macro_chain import MacroChain

SPACE = naswot.get_space("macro_chain")
ONE = MacroChain(n_stages=1, depths=(1, 2), widths=(8,), kernels=(3,))


def n_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


STEM, HEAD = 3 * 8 * 9 + 16, 8 * 10 + 10


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("d1w8k3conv", 8 * 8 * 9 + 16),
        ("d2w8k3res", 2 * 2 * (8 * 8 * 9 + 16)),  # the shortcut is an identity
        ("d1w8k3mb3", (8 * 24 + 48) + (24 * 9 + 48) + (24 * 8 + 16)),
        ("d2w8k3mb6", 2 * ((8 * 48 + 96) + (48 * 9 + 96) + (48 * 8 + 16))),
    ],
)
def test_parameters_by_hand(text, blocks):
    assert n_parameters(ONE.build(ONE.parse(text))) == STEM + blocks + HEAD


def test_a_residual_block_that_changes_the_shape_has_a_projection():
    two = MacroChain(n_stages=2, depths=(1,), widths=(8, 16), kernels=(5,))
    model = two.build(two.parse("d1w8k5conv-d1w16k5res"))
    block = 25 * (8 * 16 + 16 * 16) + 2 * 32 + (8 * 16 + 32)
    assert n_parameters(model) == STEM + (25 * 64 + 16) + block + 16 * 10 + 10


def test_residual_blocks_add_their_input():
    model = ONE.build(ONE.parse("d1w8k3res")).eval()
    stem, block = model[0], model[1]
    torch.nn.init.zeros_(block.layers[1][0].weight)
    with torch.no_grad():
        x = stem(torch.randn(2, 3, 6, 6, generator=torch_generator(0)))
        assert x.std() > 0
        assert torch.equal(block(x), x)


@pytest.mark.parametrize(("stem", "size", "last"), [("small", 32, 4), ("imagenet", 64, 2), ("small", 1, 1)])
def test_shapes_at_any_size(stem, size, last):
    model = SPACE.build(SPACE.parse("d2w16k3conv-d1w64k5res-d3w32k3mb6-d1w48k5mb3"), stem=stem).eval()
    with torch.no_grad():
        assert model[:-1](torch.zeros(2, 3, size, size)).shape == (2, 48, last, last)


def test_blocks_are_what_is_built():
    genotype = SPACE.sample(numpy_generator(3))
    chain, model = SPACE.blocks(genotype, input_size=32, width=0.5), SPACE.build(genotype, width=0.5).eval()
    feature = torch.zeros(2, 3, 32, 32)
    with torch.no_grad():
        for block, layer in zip(chain, model, strict=True):
            assert block.input_shape == feature.shape[1:]
            feature = layer(feature)
    assert feature.shape == (2, 10)


def test_covering_genotypes_hold_every_block():
    small = MacroChain(n_stages=3, depths=(1, 2), widths=(8, 16), kernels=(3,))
    covered = {block.key for genotype in small.covering() for block in small.blocks(genotype)}
    assert {block.key for genotype in small.genotypes() for block in small.blocks(genotype)} == covered


def test_the_width_multiplier_scales_every_stage():
    model = SPACE.build(SPACE.parse("-".join(4 * ["d1w32k3conv"])), width=0.25)
    assert [stage[0].out_channels for stage in model[:-1]] == 5 * [8]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("d1w16k3conv", "expected 4 stages joined by '-', but got 1"),
        ("-".join(4 * ["d1w17k3conv"]), "'17' in 'd1w17k3conv' is no option of macro_chain"),
        ("-".join(4 * ["d1w16k3mb4"]), "'mb4' in 'd1w16k3mb4'"),
        ("-".join(4 * ["d01w16k3mb3"]), "'01' in 'd01w16k3mb3'"),
        ("-".join(4 * ["w16k3mb3"]), "'w16k3mb3' is no stage of macro_chain"),
    ],
)
def test_other_strings_are_refused(text, message):
    with pytest.raises(ArchitectureError, match=message):
        SPACE.parse(text)


@pytest.mark.parametrize("options", [{"n_stages": 0}, {"depths": ()}, {"widths": (8, 8)}, {"kernels": (4,)}])
def test_options_that_make_no_space_are_refused(options):
    with pytest.raises(OptionError, match="expected at least one stage"):
        MacroChain(**options)


@pytest.mark.parametrize("options", [{"stem": "cifar"}, {"width": 0.0}, {"in_channels": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(OptionError, match=r"stem of small or imagenet"):
        SPACE.build((0,) * 16, **options)
