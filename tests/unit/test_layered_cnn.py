"""The space of Zoph and Le: order of the genes, what a layer reads, what reaches the classifier."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import naswot
from naswot.errors import ArchitectureError, OptionError
from naswot.seeding import numpy_generator, seeded, torch_generator
from naswot.spaces.layered_cnn import LayeredCNN, concatenate

SPACE = naswot.get_space("layered_cnn")
THREE = LayeredCNN(n_layers=3)


def n_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def images(size=8):
    return torch.randn(2, 3, size, size, generator=torch_generator(0))


def test_six_layers_and_fifteen_anchor_bits():
    assert SPACE.size == 64**6 * 2**15
    assert LayeredCNN(n_layers=15).size == 64**15 * 2**105
    assert LayeredCNN(n_layers=2, strides=True).size == (64 * 9) ** 2 * 2


@pytest.mark.parametrize("strides", [False, True])
def test_decisions_name_every_position_in_the_order_of_a_controller(strides):
    space = LayeredCNN(n_layers=4, strides=strides)
    kinds = ["filter_height", "filter_width", "n_filters", *strides * ["stride_height", "stride_width"]]
    options = {**dict.fromkeys(kinds[:3], 4), **dict.fromkeys(kinds[3:], 3), "skip": 2}
    for layer, positions in enumerate(space.layer_slices):
        assert list(space.decisions[positions]) == kinds + layer * ["skip"]
    assert space.choices == tuple(options[kind] for kind in space.decisions)
    assert len(space.layer_slices) == 4
    assert space.layer_slices[-1].stop == len(space.choices)


def test_a_genotype_spells_its_layers():
    genotype = (1, 3, 0, 0, 0, 1, 1, 2, 2, 3, 0, 1)
    assert THREE.format(genotype) == "3x7x24|1x1x36:1|5x5x64:01"
    assert [THREE.values(genotype, layer) for layer in range(3)] == [(3, 7, 24), (1, 1, 36), (5, 5, 64)]
    assert THREE.sources(genotype) == ((), (0,), (1,))
    strided = LayeredCNN(n_layers=2, strides=True)
    assert strided.parse("3x3x24/2x1|1x1x24/1x3:0") == (1, 1, 0, 1, 0, 0, 0, 0, 0, 2, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [  # filters h * w * inputs * count + 2 * count of the normalisation; the classifier
        ("3x7x24|1x1x36:1|5x5x64:01", (21 * 3 * 24 + 48) + (24 * 36 + 72) + (25 * 36 * 64 + 128) + 64 * 10 + 10),
        ("3x7x24|1x1x36:1|5x5x64:11", (21 * 3 * 24 + 48) + (24 * 36 + 72) + (25 * 60 * 64 + 128) + 64 * 10 + 10),
        ("3x7x24|1x1x36:0|5x5x64:00", (21 * 3 * 24 + 48) + (3 * 36 + 72) + (25 * 3 * 64 + 128) + 124 * 10 + 10),
        ("3x7x24|1x1x36:0|5x5x64:10", (21 * 3 * 24 + 48) + (3 * 36 + 72) + (25 * 24 * 64 + 128) + 100 * 10 + 10),
    ],
)
def test_parameters_by_hand(text, expected):
    assert n_parameters(THREE.build(THREE.parse(text))) == expected


def gradients(text, **options):
    """Whether each layer's filters, and the images as layer 0 reads them, reach the logits."""
    model = THREE.build(THREE.parse(text), **options)
    model(images()).square().sum().backward()
    return [layer[0].weight.grad.abs().sum().item() > 0 for layer in model.layers]


def test_every_layer_reaches_the_classifier():
    for text in ("1x1x24|1x1x24:0|1x1x24:00", "1x1x24|1x1x24:1|1x1x24:00", "1x1x24|1x1x24:1|1x1x24:11"):
        assert gradients(text) == [True, True, True]


def test_a_layer_reads_its_sources_in_order_and_unread_layers_are_the_output():
    with seeded(0):
        model = THREE.build(THREE.parse("1x3x24|3x1x36:0|1x1x48:10")).eval()
    first, second = model.layers[0](images()), model.layers[1](images())
    third = model.layers[2](first)
    expected = model.classifier(torch.cat([second, third], 1).mean((2, 3)))
    assert model.outputs == (1, 2)
    assert torch.equal(model(images()), expected)
    with seeded(0):
        both = THREE.build(THREE.parse("1x3x24|3x1x36:0|1x1x48:11")).eval()
    first, second = both.layers[0](images()), both.layers[1](images())
    third = both.layers[2](torch.cat([first, second], 1))
    assert torch.equal(both(images()), both.classifier(third.mean((2, 3))))


def test_smaller_maps_are_padded_with_zeros():
    large, small = torch.ones(1, 2, 4, 3), torch.ones(1, 1, 2, 5)
    joined = concatenate([large, small])
    assert joined.shape == (1, 3, 4, 5)
    assert joined.sum() == large.sum() + small.sum()
    assert joined[0, 0, :, :3].min() == joined[0, 2, :2].min() == 1
    space = LayeredCNN(n_layers=3, strides=True)
    model = space.build(space.parse("3x3x24/1x1|3x3x24/2x3:1|1x1x24/1x1:11")).eval()
    assert model.layers[1](torch.zeros(1, 24, 9, 9)).shape == (1, 24, 5, 3)
    assert model(images(9)).shape == (2, 10)


def test_pooling_halves_images_and_all_maps():
    text = "3x3x24|3x3x24:1|3x3x24:10"
    model, sizes = THREE.build(THREE.parse(text), pool_every=1).eval(), []
    for layer in model.layers:
        layer.register_forward_hook(lambda layer, inputs, output: sizes.append((inputs[0].shape[2], output.shape[2])))
    model(images(7))
    assert sizes == [(7, 7), (4, 4), (2, 2)]
    model = THREE.build(THREE.parse("3x3x24|3x3x24:0|3x3x24:00"), pool_every=2).eval()
    sizes.clear()
    for layer in model.layers:
        layer.register_forward_hook(lambda layer, inputs, output: sizes.append((inputs[0].shape[2], output.shape[2])))
    model(images(7))
    assert sizes == [(7, 7), (7, 7), (4, 4)]


def test_layers_are_convolution_normalisation_relu():
    space = LayeredCNN(n_layers=15)
    model = space.build(space.sample(numpy_generator(0)), pool_every=3)
    assert all(list(map(type, layer)) == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] for layer in model.layers)
    assert model(images()).shape == (2, 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3x3x24|3x3x24:1", "expected 3 layers joined by '|', but got 2"),
        ("3x3x24|3x3x24:1|3x3x24:1", "layer 2 of layered_cnn is '3x3x24:1'; expected the form '3x3x24:00'"),
        ("3x3x24:0|3x3x24:1|3x3x24:11", "layer 0 of layered_cnn is '3x3x24:0'"),
        ("3x3x24|3x4x24:1|3x3x24:11", "filter_width of layer 1 of layered_cnn is 4; expected one of"),
        ("3x3x24|3x3x24:1|3x3x25:11", "n_filters of layer 2 of layered_cnn is 25"),
        ("3x3x24|3x3x24/1x1:1|3x3x24:11", "layer 1 of layered_cnn is '3x3x24/1x1:1'"),
    ],
)
def test_other_strings_are_refused(text, message):
    with pytest.raises(ArchitectureError, match=message.replace("|", r"\|")):
        THREE.parse(text)


def test_options_out_of_range_are_refused():
    with pytest.raises(OptionError, match="at least one layer, but got 0"):
        LayeredCNN(n_layers=0)
    with pytest.raises(OptionError, match="pool_every of at least 0, but got 10, 3 and -1"):
        SPACE.build(SPACE.sample(numpy_generator(0)), pool_every=-1)
