"""The baselines: counted on paper, and against torch's own counter."""

from __future__ import annotations

import pytest
import torch
from reference.tiny import CellNetwork, images, mlp, plain_convnet, wave
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import naswot
from naswot.types import Batch

BASELINES = ["params", "flops", "trainable_layers"]


@pytest.mark.parametrize(
    ("model", "inputs", "params", "flops", "layers"),
    [
        # 10*12 + 12 + 12*9 + 9 + 9*4 + 4; products alone
        (mlp(), wave(6, 10), 289, 120 + 108 + 36, 3),
        # 27*4 + 4 at 8x8, 36*6 + 6 at 4x4, 96*5 + 5
        (plain_convnet(), images(), 112 + 222 + 485, 108 * 64 + 216 * 16 + 480, 3),
        # stem 108 + 8; three edges of 144 + 8; head 8; 20 + 5; the third edge strides
        (CellNetwork(), images(), 116 + 3 * 152 + 8 + 25, 108 * 64 + 2 * 144 * 64 + 144 * 16 + 20, 10),
        # grouped convolution: each of the 6 outputs reads 2 channels
        (nn.Sequential(nn.Conv2d(4, 6, 3, groups=2, bias=False)), wave(2, 4, 5, 5), 108, 108 * 9, 1),
        # transposed: every input pixel meets every weight once
        (nn.Sequential(nn.ConvTranspose2d(3, 2, 2, stride=2, bias=False)), wave(2, 3, 4, 4), 24, 24 * 16, 1),
        (nn.Sequential(nn.Flatten(), nn.ReLU()), wave(2, 3), 0, 0, 0),
        # an embedding learns and multiplies nothing
        (nn.Sequential(nn.Embedding(7, 3)), torch.ones(2, 5, dtype=torch.int64), 21, 0, 1),
    ],
    ids=["mlp", "convnet", "cell", "grouped", "transposed", "nothing", "embedding"],
)
def test_counts_on_paper(model, inputs, params, flops, layers):
    expected = {"params": params, "flops": flops, "trainable_layers": layers}
    assert naswot.measure(model, inputs, BASELINES) == expected


def test_flops_are_for_one_image():
    model = plain_convnet()
    values = {naswot.measure(model, images(n), ["flops"])["flops"] for n in (1, 3, 7)}
    assert len(values) == 1


def test_shared_and_frozen_parameters():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(4, 2))
    model[3].weight.requires_grad_(False)
    scores = naswot.measure(model, wave(3, 4), BASELINES)
    assert scores == {"params": 30, "flops": 16 + 16 + 8, "trainable_layers": 2}  # the last one's bias still learns
    model[3].bias.requires_grad_(False)
    assert naswot.measure(model, wave(3, 4), ["trainable_layers"]) == {"trainable_layers": 1}
    assert naswot.measure(model, wave(3, 4), ["params"]) == {"params": 30}


def torch_count(model, inputs, n):
    """MACs per image by torch's own counter: half of what it calls FLOPs."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        Batch(inputs).call(model)
    return counter.get_total_flops() / 2 / n


def pytorchcv_model():
    return pytest.importorskip("pytorchcv.model_provider").get_model("resnet20_cifar10", pretrained=False), wave(
        2, 3, 32, 32
    )


SIZES = dict(num_hidden_layers=2, num_attention_heads=2, hidden_size=8, intermediate_size=16)


def vit():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(**SIZES, image_size=8, patch_size=4)
    return transformers.ViTForImageClassification(config), wave(3, 3, 8, 8)


def bert():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(**SIZES, vocab_size=20, max_position_embeddings=16)
    return transformers.BertForSequenceClassification(config), {"input_ids": torch.arange(21).reshape(3, 7) % 20}


@pytest.mark.parametrize("make", [pytorchcv_model, vit, bert])
@pytest.mark.parametrize("company", [[], ["naswot", "params"]])
def test_flops_equal_torchs_counter(make, company):
    model, inputs = make()
    n = Batch(inputs).n
    expected = torch_count(model.eval(), inputs, n)
    assert expected > 0
    assert naswot.measure(model, inputs, ["flops", *company])["flops"] == expected
