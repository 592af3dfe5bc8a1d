"""What an output depends on: however it is run, and on the networks of the spaces."""

import gc
import warnings
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference.dependence_models import Of, conv, conv_bn, images, numbers, size, told, vectors
from torch import nn
from torch.utils.checkpoint import checkpoint

from naswot.dependence import dependence_of
from naswot.errors import UntappedWarning
from naswot.measuring import measure
from naswot.models import load_model, random_tokens, reads_tokens
from naswot.observers import Activation
from naswot.passes import Passes
from naswot.seeding import seeded, torch_generator
from naswot.space import get_space
from naswot.testing.networks import KINDS, small_batch, small_network
from naswot.testing.traces import Traces
from naswot.types import Batch


@pytest.mark.parametrize("frozen", ["all", "some"])
def test_frozen_parameters_count_like_the_others(frozen):
    model = nn.Sequential(conv_bn(), nn.Flatten(), nn.Linear(256, 3))
    expected = told(model, images())
    (model if frozen == "all" else model[0]).requires_grad_(False)
    assert told(model, images()) == expected
    assert expected.params == size(model)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpoints_are_looked_into(use_reentrant):
    model = Of(
        lambda m, x: m.head(checkpoint(m.block, F.relu(x), use_reentrant=use_reentrant).mean((2, 3))),
        block=conv_bn(), head=nn.Linear(4, 3),
    )  # fmt: skip
    apply = torch.utils.checkpoint.CheckpointFunction.__dict__.get("apply")
    d = told(model, images())
    assert torch.utils.checkpoint.CheckpointFunction.__dict__.get("apply") is apply
    assert (d.params, d.layers, d.depth, d.calls) == (size(model), 3, 3, {0, 1})


def test_options_of_passes_do_not_change_the_structure():
    model = Of(
        lambda m, x: m.head(m.dropout(m.body(x).mean((2, 3)))) + m.dead(x * 0).mean((2, 3)),
        body=conv_bn(), dropout=nn.Dropout(0.9), head=nn.Linear(4, 3), dead=conv(4, 3),
    )  # fmt: skip
    expected = told(model, images())
    assert expected.params == size(model.body, model.head)
    many: list[dict[str, object]] = [
        {"channels_last": True}, {"bfloat16": True}, {"mode": "eval"}, {"mode": "as_is"}, {"names": True},
        {"stop_after": 1}, {"output": lambda logits: logits},
    ]  # fmt: skip
    assert [told(model, images(), **options) for options in many] == [expected] * len(many)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_images_under_a_normalisation_of_single_pixels(n):
    model = nn.Sequential(conv(4, 4, 8, stride=8), nn.BatchNorm2d(4), nn.ReLU(), conv(k=1), nn.BatchNorm2d(4))
    assert numbers(told(model, images(n, 7))) == (size(model), 1024 + 16, 2, 1, 2, 2)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30, 1e30])
def test_images_may_be_blank_faint_or_bright(value):
    model = nn.Sequential(conv_bn(), nn.Flatten(), nn.Linear(256, 3))
    assert numbers(told(model, torch.full((4, 4, 8, 8), value))) == numbers(told(model, images()))


def test_sequences_may_come_first():
    encoder = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0)
    model = Of(lambda m, x: m.head(m.encoder(x).mean(0)), encoder=encoder, head=nn.Linear(4, 3))
    d = told(model, Batch(torch.randn(6, 5, 4), batch_dim=1), batch_dim=1)
    assert (d.params, d.layers, len(d.calls)) == (size(model), 7, 1)
    assert d.macs == 6 * (48 + 16 + 64) + 2 * 6 * 6 * 4 + 12


def test_inputs_that_are_no_images_are_not_cut():
    model = Of(lambda m, x, mask: m.head((m.body(x) * mask).mean(1)), body=nn.Linear(4, 4), head=nn.Linear(4, 3))
    d = told(model, (torch.randn(5, 6, 4), torch.ones(6, 4)))
    assert (d.params, d.layers) == (size(model), 2)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("last", [nn.Identity(), nn.Softmax(1), nn.Sigmoid()])
def test_deep_models_without_normalisation_neither_vanish_nor_overflow(scale, last):
    """Plainly run, with these weights, the signal is 0 or infinite in float32 after some ten or hundred layers."""
    layers = [layer for _ in range(150) for layer in (nn.Linear(8, 8), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(8, 3), last)
    for layer in layers[::2]:
        nn.init.normal_(layer.weight, std=scale)
    d = told(model, vectors(width=8))
    assert (d.params, d.layers, d.depth, len(d.calls)) == (size(model), 151, 151, 150)


def test_gradients_that_are_not_finite_count_as_live():
    model = Of(lambda m, x: m.b(m.a(x) + (m.a(x) * 0).norm(dim=1, keepdim=True)), a=nn.Linear(4, 4), b=nn.Linear(4, 3))
    assert told(model, vectors()).params == size(model)
    model = Of(lambda m, x: m.b((m.a(x) * 0 + 0.0).sqrt() + x), a=nn.Linear(4, 4), b=nn.Linear(4, 3))
    assert told(model, vectors()).params == size(model.b)  # not a number times zero is no number either


def test_the_graph_does_not_outlive_the_walk():
    kept = []

    class Keeping(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.held = x.detach()
            kept.append(weakref.ref(ctx.held))
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntappedWarning)
        told(Of(lambda m, x: Keeping.apply(m.a(F.relu(x))), a=nn.Linear(4, 3)), vectors())
    gc.collect()
    assert [ref() for ref in kept] == [None]


def test_it_is_worked_out_once_and_counted():
    model = small_network()
    with Passes(model, small_batch()) as passes:
        assert dependence_of(passes) is dependence_of(passes)
        assert (passes.n_forwards, passes.n_backwards) == (1, 1)


def test_layers_that_autograd_does_not_see_are_dead():
    def forward(m, x):
        with torch.no_grad():
            seen = m.a(x)
        return m.b(seen + m.c(x).detach())

    model = Of(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 3), c=nn.Linear(4, 4))
    d = told(model, vectors())
    assert (d.params, d.layers, d.all_layers, d.depth) == (size(model.b), 1, 3, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_small_networks_of_the_kinds_that_people_score(kind):
    model, batch = small_network(kind), small_batch(kind=kind)
    with Traces(model, *batch.tensors()) as traces:
        first, second = told(model, batch, seed=1), told(model, small_batch(12, kind, seed=7), seed=2)
    assert traces.left == []
    assert numbers(first) == numbers(second)
    assert first.params == size(model)
    assert first.layers == first.all_layers
    assert first.macs == first.all_macs
    if "transformer" not in kind and kind != "language model" and kind != "tied weights":  # flops miss fused products
        assert first.macs == measure(model, batch, ["flops"])["flops"]


# --- spaces ----------------------------------------------------------------------------------------------------------


def built(space, genotype, seed, **options):
    with seeded(seed):
        model = space.build(genotype, **options)
    return model, Batch(space.example_inputs(3 + seed, generator=torch_generator(seed)))


def n_calls(model, batch):
    with Passes(model, batch) as passes:
        passes.observe([observer := Activation(lambda call: 1)])
        return passes.seen({"calls": observer})["calls"]


def check_cell(genotype):
    space, small = get_space("nasbench201"), {"n_cells": 1, "width": 4}
    whole = told(*built(space, genotype, 1, **small), seed=1)
    assert whole == told(*built(space, genotype, 2, **small), seed=2)
    assert numbers(whole) == numbers(told(*built(space, space.representative(genotype), 3, **small)))
    model, batch = built(space, genotype, 4, **small, pruned=True)
    pruned = told(model, batch)
    assert numbers(whole) == numbers(pruned)
    if whole.layers == 0:  # the cell passes nothing on: the logits are the classifier's bias
        assert numbers(whole) == (0, 0, 0, 0, 0, 0)
        return
    flops = measure(model, batch, ["flops"])["flops"]
    assert numbers(whole)[:4] == (size(model), flops, pruned.all_layers, n_calls(model, batch))


CELLS = [
    (3, 3, 3, 3, 3, 3),
    (0, 0, 0, 0, 0, 0),
    (1, 1, 1, 1, 1, 1),
    (0, 3, 2, 0, 3, 3),
    (3, 0, 0, 3, 0, 0),
    (3, 2, 0, 4, 0, 2),
    (0, 2, 3, 1, 2, 0),
    (3, 0, 3, 0, 3, 0),
]
"""None dead, no path, no layer, node 1 without input, two nodes without output, and others with dead edges."""


@pytest.mark.parametrize("genotype", CELLS)
def test_cells_of_nasbench201_are_as_if_pruned(genotype):
    check_cell(genotype)


@pytest.mark.slow
def test_many_cells_of_nasbench201_are_as_if_pruned():
    rng = np.random.default_rng(5)
    for _ in range(40):
        check_cell(get_space("nasbench201").sample(rng))


SPACES = {
    "nasbench101": {"width": 8, "n_cells": 1},
    "nasbench_macro": {"width": 4},
    "nds_resnet": {},
    "mobilenet": {},
    "layered_cnn": {},
    "evolved_graph": {},
    "macro_chain": {},
    "natsbench_sss": {},
    "nasbench1shot1_2": {},
    "darts": {"width": 4, "n_cells": 3, "auxiliary": True},
}
"""Spaces in whose architectures nothing is dead, and how to build them small."""


@pytest.mark.parametrize("name", SPACES)
def test_nothing_is_dead_where_nothing_can_be(name):
    space = get_space(name)
    genotype = space.sample(np.random.default_rng(1))
    model, batch = built(space, genotype, 1, **SPACES[name])
    d = told(model, batch, seed=1)
    assert d == told(*built(space, genotype, 2, **SPACES[name]), seed=2)
    auxiliary = sum(p.numel() for key, p in model.named_parameters() if "auxiliary" in key)
    assert d.params == size(model) - auxiliary  # a second output, of training alone
    assert (d.layers, len(d.calls)) == (d.all_layers, n_calls(model, batch))
    assert d.macs == d.all_macs == measure(model, batch, ["flops"])["flops"]
    assert 1 <= d.mean_depth <= d.depth <= d.layers


def test_dead_edges_of_transnasbench101():
    """0 is none, 3 a 3x3 convolution; cells are 1<-0, then 2<-0 2<-1, then 3<-0 3<-1 3<-2. There are ten of them."""
    space = get_space("transnasbench101_micro")
    full, one, lost = (
        told(*built(space, space.parse(f"64-41414-{cell}"), 1, width=4))
        for cell in ("3_33_333", "3_03_303", "0_33_300")
    )
    assert (full.layers, full.depth) == (full.all_layers, 10 * 3 + 2 + 1)
    assert (one.layers, one.depth) == (one.all_layers, full.depth)
    assert (lost.layers, lost.all_layers, lost.depth) == (10 + 3, 10 * 3 + 3, 10 + 3)


@pytest.mark.parametrize(
    ("name", "size_of_images", "n_layers"),
    [
        ("pytorchcv:resnet20_cifar10", 32, 22),
        pytest.param("pytorchcv:mobilenetv3_small_w7d20", 224, 54, marks=pytest.mark.slow),
        pytest.param("hf:vit", 32, 1 + 12 * 8 + 1, marks=pytest.mark.slow),
        pytest.param("hf:bert", 0, 12 * 8 + 2, marks=pytest.mark.slow),
    ],
)
def test_models_of_libraries(name, size_of_images, n_layers):
    pytest.importorskip({"pytorchcv": "pytorchcv", "hf": "transformers"}[name.partition(":")[0]])
    model = load_model(name, size=size_of_images or 32)
    if reads_tokens(model):
        batch = random_tokens(model, 4, generator=torch_generator(0), length=8)
    else:
        batch = Batch(images(4, size_of_images, 3))
    d = told(model, batch)
    assert (d.params, d.layers, d.all_layers) == (size(model), n_layers, n_layers)
