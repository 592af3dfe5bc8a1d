"""What an output depends on: branches, activations, and what is refused, in models made by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference.dependence import WIDTH, Sum, random_graph, told_by_the_book
from reference.dependence_models import Of, conv, conv_bn, images, numbers, size, told, vectors
from torch import nn

from naswot.dependence import dependence_of
from naswot.errors import InputError
from naswot.observers import Activation
from naswot.passes import Passes
from naswot.seeding import seeded
from naswot.types import Batch

# --- branches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end",
    [
        lambda m, x, stem: m.head(stem) + m.branch(stem) * 0,
        lambda m, x, stem: (m.branch(stem), m.head(stem).mean((2, 3))),
        lambda m, x, stem: {"features": m.branch(stem), "logits": m.head(stem)},
        lambda m, x, stem: m.head(stem) + m.branch(stem * 0),
        lambda m, x, stem: m.head(stem) + m.branch(torch.zeros_like(x)),
        lambda m, x, stem: m.head(stem) + 0 * m.branch(stem * 0),
        lambda m, x, stem: m.head(torch.cat([stem, m.branch(stem)], 1)[:, :4]),
        lambda m, x, stem: m.head(torch.stack([stem, m.branch(stem)]).unbind()[0]),
        lambda m, x, stem: m.head(stem) + (m.branch(stem) > 0).float(),
    ],
    ids=["times zero", "unused in a tuple", "unused in a mapping", "reads zeros", "reads new zeros", "both",
         "cut off by a slice", "cut off by unbind", "a step"],
)  # fmt: skip
def test_a_branch_without_effect_is_dead(end):
    model = Of(lambda m, x: end(m, x, m.stem(x)), stem=conv(), branch=conv_bn(), head=conv())
    d = told(model, images())
    assert d.params == size(model.stem, model.head)
    assert (d.layers, d.all_layers, d.depth, d.mean_depth) == (2, 4, 2, 2)
    assert (d.macs, d.all_macs) == (2 * 64 * 144, 4 * 64 * 144)
    assert d.calls == frozenset()


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU(), nn.ReLU6(inplace=True), nn.SiLU(), nn.PReLU(), nn.ELU()])
def test_an_activation_that_reads_zeros_is_dead(activation):
    model = Of(
        lambda m, x: m.head(m.act(m.stem(x)) + m.branch(m.act(m.first(x * 0)))),
        stem=conv(), first=conv(), branch=conv(), head=conv(), act=activation,
    )  # fmt: skip
    d = told(model, images())
    assert d.calls == {0}
    assert d.params == size(model.stem, model.head, model.act)


def _of_zero_scale():
    block = conv_bn()
    nn.init.zeros_(block[-1].weight)
    return Of(lambda m, x: m.head((x + m.block(x)).mean((2, 3))), block=block, head=nn.Linear(4, 3))


def _of_layer_scale():
    model = Of(lambda m, x: m.head((x + m.gamma * m.block(x)).mean((2, 3))), block=conv_bn(), head=nn.Linear(4, 3))
    model.gamma = nn.Parameter(torch.zeros(4, 1, 1))
    return model


def _of_zero_gate():
    model = Of(lambda m, x: m.head((x + m.alpha * m.block(x)).mean((2, 3))), block=conv_bn(), head=nn.Linear(4, 3))
    model.alpha = nn.Parameter(torch.tensor(0.0))
    return model


def _of_zero_weights():
    model = Of(lambda m, x: m.head((x + m.block(x)).mean((2, 3))), block=conv_bn(), head=nn.Linear(4, 3))
    for module in (model.block[0], model.block[3], model.head):
        nn.init.zeros_(module.weight)
    return model


@pytest.mark.parametrize("make", [_of_zero_scale, _of_layer_scale, _of_zero_gate, _of_zero_weights])
def test_what_only_begins_at_zero_is_live(make):
    model = make()
    d = told(model, images())
    assert d.params == size(model)
    assert (d.layers, d.depth, d.mean_depth, d.calls) == (3, 3, 2, {0})


def test_a_bias_counts_with_its_layer():
    model = Of(lambda m, x: m.dead(x * 0) + m.live(x), dead=nn.Linear(4, 3), live=nn.Linear(4, 3))
    assert told(model, vectors()).params == size(model.live)


def test_a_bias_counts_with_its_layer_by_any_name():
    model = Of(lambda m, x: F.linear(x * 0, m.w, m.b) + m.live(x), live=nn.Linear(4, 3))
    model.w, model.b = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(3))
    assert told(model, vectors()).params == size(model.live)


def test_statistics_of_a_trained_batch_norm_feed_nothing():
    model = Of(lambda m, x: m.head(x) + m.branch(x * 0), branch=conv_bn(), head=conv())
    for norm in (model.branch[1], model.branch[4]):
        nn.init.normal_(norm.running_mean)
    assert told(model, images()).params == size(model.head)


def test_a_layer_that_reads_zeros_adds_nothing_to_a_chain_that_passes_it():
    def forward(m, x):
        first = m.a(x)
        return m.b(first - first.detach()) + m.c(x)  # zero, with a gradient

    model = Of(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 3), c=nn.Linear(4, 3))
    d = told(model, vectors())
    assert (d.layers, d.depth, d.mean_depth) == (2, 1, 1)


def test_of_several_readers_of_a_tensor_only_the_live_ones_count():
    model = Of(
        lambda m, x: (m.a(F.relu(x)), m.b(F.relu(x)) * 0, F.relu(x), m.head(F.relu(x)) + m.a(F.gelu(x)))[-1],
        a=nn.Linear(4, 4), b=nn.Linear(4, 4), head=nn.Linear(4, 4),
    )  # fmt: skip
    d = told(model, vectors())
    assert d.calls == {3, 4}
    assert d.params == size(model.a, model.head)
    assert (d.layers, d.all_layers) == (2, 4)


def test_a_reused_module_counts_at_each_call():
    model = Of(lambda m, x: m.a(F.relu(m.a(F.relu(m.a(x))))), a=nn.Linear(4, 4, bias=False))
    d = told(model, vectors())
    assert numbers(d) == (16, 48, 3, 2, 3, 3)


def test_parts_of_what_is_split_live_by_themselves():
    def forward(m, x):
        a, b, c = m.wide(x).chunk(3, 1)
        return m.one(F.relu(a)) + m.two(F.relu(b)) * 0 + c

    model = Of(forward, wide=nn.Linear(4, 12), one=nn.Linear(4, 4), two=nn.Linear(4, 4))
    d = told(model, vectors())
    assert d.params == size(model.wide, model.one)
    assert (d.layers, d.depth, d.mean_depth, d.calls) == (2, 2, 1.5, {0})


# --- activations -----------------------------------------------------------------------------------------------------


RECTIFIERS = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "six": nn.ReLU6(),
    "six in place": nn.ReLU6(inplace=True),
    "function": Of(lambda m, x: F.relu(x)),
    "function six": Of(lambda m, x: F.relu6(x)),
    "function in place": Of(lambda m, x: F.relu_(x)),
    "torch": Of(lambda m, x: torch.relu(x)),
    "torch, by keyword": Of(lambda m, x: torch.relu(input=x)),
    "torch in place": Of(lambda m, x: torch.relu_(x)),
    "method": Of(lambda m, x: x.relu()),
    "method in place, result thrown away": Of(lambda m, x: (x.relu_(), x)[1]),
    "keyword": Of(lambda m, x: (F.relu(input=x, inplace=True), x)[1]),
    "positional": Of(lambda m, x: (F.hardtanh(x, 0.0, 6.0, True), x)[1]),
    "operator": Of(lambda m, x: torch.ops.aten.relu.default(x)),
    "operator in place": Of(lambda m, x: (torch.ops.aten.relu_.default(x), x)[1]),
    "operators of that name": Of(lambda m, x: torch.ops.aten.hardtanh(x, 0.0, 6.0)),
    "named limits": Of(lambda m, x: F.hardtanh(x, min_val=0.0, max_val=1.0)),
}


@pytest.mark.parametrize("rectifier", RECTIFIERS.values(), ids=RECTIFIERS)
def test_a_squeeze_whose_units_are_all_off_is_live(rectifier):
    """Weights are negative and inputs positive, so that every unit is off for every image."""
    model = nn.Sequential(nn.Linear(4, 2), rectifier, nn.Linear(2, 4), nn.Sigmoid())
    model[0].weight.data = -model[0].weight.data.abs()
    d = told(model, vectors().abs())
    assert (d.params, d.layers, d.depth, d.calls) == (size(model), 2, 2, {0})


def test_rectifiers_that_cut_at_another_place_are_left_alone():
    """From 1 to 2 it makes ones of zeros, and the layer behind it reads something."""
    for least, n_live in ((0.0, 0), (1.0, 1)):
        model = Of(
            lambda m, x, least=least: m.b(F.hardtanh(m.a(x * 0), least, 2.0)), a=nn.Linear(4, 4), b=nn.Linear(4, 2)
        )
        assert told(model, vectors()).layers == n_live


def test_roots_and_logarithms_of_what_is_rectified_stay_numbers():
    model = Of(lambda m, x: m.b(F.relu(m.a(x)).sqrt() + F.relu(m.a(x)).log1p()), a=nn.Linear(4, 9), b=nn.Linear(9, 2))
    assert numbers(told(model, vectors()))[2:] == (3, 2, 2, 2)


class HandSwish(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x)


class Swish(HandSwish):
    """The name under which published code has it, which the taps know."""


class OwnReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.variable = "not a leaf"
        return x * (x > 0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x > 0)


@pytest.mark.parametrize(
    ("activation", "n_calls"),
    [
        (nn.GELU(), 1), (nn.SiLU(inplace=True), 1), (nn.Mish(), 1), (nn.PReLU(), 1), (nn.Hardswish(), 1),
        (nn.LeakyReLU(inplace=True), 1), (nn.Softplus(), 1), (Of(lambda m, x: x.clamp(min=0)), 1), (Swish(), 1),
        (HandSwish(), 0), (nn.Tanh(), 0), (Of(lambda m, x: OwnReLU.apply(x)), 0),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:activations inside these")
def test_activations_of_all_kinds(activation, n_calls):
    model = nn.Sequential(nn.Linear(4, 16), activation, nn.Linear(16, 3))
    d = told(model, vectors())
    assert (d.params, d.layers, d.depth, d.mean_depth) == (size(model), 2, 2, 2)
    assert len(d.calls) == n_calls


def test_taps_of_the_other_readings():
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    assert told(model, vectors(), taps="relu").calls == {0}
    mellor = told(model, vectors(), taps="mellor")
    assert (mellor.calls, mellor.layers, mellor.all_layers) == ({0}, 3, 3)


# --- the twin --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_by_the_book(seed):
    edges = random_graph(np.random.default_rng(seed))
    expected = told_by_the_book(4, edges)
    with seeded(seed):
        model = Sum(4, edges)
    d = told(model, vectors(width=WIDTH), seed=seed)
    n_layers = sum(edges[i][2] == "layer" for i in expected.live)
    if not expected.lengths:
        assert numbers(d) == (0, 0, 0, 0, 0, 0)
        return
    assert (d.layers, len(d.calls)) == (n_layers + 1, n_layers)
    assert (d.params, d.macs) == (n_layers * 28 + 20, (n_layers + 1) * 16)
    assert d.depth == max(expected.lengths) + 1
    assert math.isclose(d.mean_depth, np.mean(expected.lengths) + 1)


# --- refusals --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_told_is_refused():
    with torch.inference_mode():
        made = nn.Linear(4, 3)
    with pytest.raises(InputError, match="made in inference mode"):
        told(made, vectors())
    with pytest.raises(InputError, match="no gradient leads"):
        told(Of(lambda m, ids: F.one_hot(ids, 5).float().mean(1)), torch.randint(5, (4, 3)))
    with pytest.raises(InputError, match="no gradient leads"):
        told(Of(lambda m, x: m.a(x).detach(), a=nn.Linear(4, 3)), vectors())
    with pytest.raises(InputError, match="meta device"):
        told(nn.Linear(4, 3, device="meta"), torch.randn(4, 4, device="meta"))


def test_calls_whose_number_depends_on_the_images_are_refused():
    model = Of(lambda m, x: [x := m.a(F.relu(x)) for _ in range(len(x))][-1], a=nn.Linear(4, 4))
    with Passes(model, Batch(vectors())) as passes:
        passes.observe([Activation(lambda call: 1)])
        with pytest.raises(InputError, match="5 activation calls for 5 images, but 3 for 3"):
            dependence_of(passes)
