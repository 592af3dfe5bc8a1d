"""One forward and one backward for all: modes, shared passes, and every product against plain loops."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from reference.slow_kernel import slow_network_kernel
from reference.tiny import BATCH, IMAGES, CellNetwork, Counting, mlp, set_weights, wave
from torch import nn

import naswot
from naswot.errors import OptionError
from naswot.measuring import run_proxies
from naswot.observers import Activation, Gradient, Module
from naswot.options import PassOptions
from naswot.passes import Passes
from naswot.proxy import Proxy, get_proxy
from naswot.types import Batch


@pytest.fixture
def network():
    return set_weights(CellNetwork())


# --- modes -----------------------------------------------------------------------------------------------------------


def statistics_of(model, mode):
    """Which normalisations used the batch, by module name, and whether dropout was on."""
    seen = Module(nn.Module, lambda module, inputs, output: ((type(module).__name__, module.training),))
    with Passes(model, BATCH, options=PassOptions(mode=mode)) as passes:
        passes.observe([seen])
        return set(passes.seen({"s": seen})["s"])


class Auxiliary(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.frozen, self.drop = (
            nn.BatchNorm2d(3),
            nn.BatchNorm2d(3, track_running_stats=False),
            nn.Dropout(),
        )
        self.group, self.head, self.extra = nn.GroupNorm(1, 3), nn.Linear(192, 4), nn.Linear(192, 4)

    def forward(self, x):
        x = self.drop(self.group(self.frozen(self.norm(x)))).relu().flatten(1)
        return (self.head(x), self.extra(x)) if self.training else self.head(x)


def test_mode_train_uses_batch_statistics_and_nothing_else():
    model = Auxiliary().eval()
    assert statistics_of(model, "train") == {
        ("BatchNorm2d", True),
        ("Dropout", False),
        ("GroupNorm", False),
        ("Linear", False),
        ("Auxiliary", False),
    }
    with Passes(model, BATCH) as passes:
        assert isinstance(passes.outputs(), torch.Tensor)
        passes.outputs()
        assert passes.n_forwards == 1


def test_mode_eval_uses_running_statistics():
    assert all(not training for _, training in statistics_of(Auxiliary().train(), "eval"))


@pytest.mark.parametrize("training", [True, False])
def test_mode_as_is_is_what_the_caller_left(training):
    model = Auxiliary().train(training)
    model.norm.train(not training)
    modes = dict(statistics_of(model, "as_is"))
    assert modes["Dropout"] == modes["Linear"] == training


def test_modes_give_what_they_say(network):
    expected = slow_network_kernel(copy.deepcopy(network), IMAGES)
    assert naswot.hamming_kernel(network.eval(), IMAGES).tolist() == expected.tolist()
    assert naswot.hamming_kernel(network.train(), IMAGES, mode="as_is").tolist() == expected.tolist()
    evaluated = naswot.hamming_kernel(network.train(), IMAGES, mode="eval")
    assert evaluated.tolist() == naswot.hamming_kernel(network.eval(), IMAGES, mode="as_is").tolist()
    assert evaluated.tolist() != expected.tolist()


def test_dropout_is_off_in_mode_train():
    model = nn.Sequential(nn.Linear(10, 64), nn.Dropout(0.5), nn.ReLU())
    plain = nn.Sequential(model[0], nn.ReLU())
    x = wave(6, 10)
    assert naswot.score(model.train(), x) == naswot.score(plain, x)
    assert naswot.score(model, x, mode="as_is") != naswot.score(plain, x)


def test_unknown_mode(network):
    with pytest.raises(OptionError, match="expected mode 'train', 'eval' or 'as_is', but got 'test'"):
        naswot.score(network, IMAGES, mode="test")


# --- sharing ---------------------------------------------------------------------------------------------------------


def sum_of_squares(name, parameter, gradient):
    return gradient.double().square().sum()


def count_convolutions(module, inputs, output):
    return 1


def adhoc(name, observe, needs=()):
    def function(seen, passes):
        value = next(iter(seen.values()))
        return torch.as_tensor(value, dtype=torch.float64).sum()

    return Proxy(name, function, observe, needs, True, "test")


GRADIENT = adhoc("gradient", {"g": Gradient(sum_of_squares)})
MODULES = adhoc("modules", {"n": Module(nn.Conv2d, count_convolutions)})


def test_four_kinds_share_one_forward_and_one_backward(network, monkeypatch):
    model = Counting(network)
    n_backwards = []
    original = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: n_backwards.append(1) or original(*a, **k))
    chosen = [get_proxy("naswot"), get_proxy("flops"), GRADIENT, MODULES, get_proxy("params")]
    together = run_proxies(model, BATCH, chosen)
    assert model.n_forwards == 1
    assert len(n_backwards) == 1
    assert (together.n_forwards, together.n_backwards) == (1, 1)
    for proxy in chosen:
        alone = run_proxies(model, BATCH, [proxy])
        assert alone.scores[proxy.name] == together.scores[proxy.name], proxy.name


def test_proxies_that_look_at_no_pass_run_none(network):
    model = Counting(network)
    result = run_proxies(model, BATCH, [get_proxy("params"), get_proxy("trainable_layers")])
    assert (model.n_forwards, result.n_forwards, result.n_backwards) == (0, 0, 0)


def test_forward_only_proxies_keep_no_graph(network):
    seen = Module(nn.Linear, lambda module, inputs, output: (output.requires_grad,))
    with Passes(network, BATCH) as passes:
        passes.observe([seen])
        assert passes.seen({"s": seen})["s"] == (False,)


def test_equal_observers_run_once(network):
    runs = []

    def reduce(call):
        runs.append(call.index)
        return 1

    first = adhoc("first", {"a": Activation(reduce)})
    second = adhoc("second", {"b": Activation(reduce)})
    scores = run_proxies(network, BATCH, [first, second]).scores
    assert runs == [0, 1, 2, 3]
    assert scores == {"first": 4.0, "second": 4.0}


def test_observers_do_not_see_each_other(network):
    """What one observer computes is neither an activation nor an operation of the model."""

    def busy(module, inputs, output):
        return (torch.relu(output) @ torch.ones(output.shape[-1], 3)).clamp(min=0).sum()

    def busy_call(call):
        return (F.gelu(call.units()) @ torch.ones(call.n_units, 2)).sum()

    observers = [adhoc("m", {"m": Module(nn.Conv2d, busy)}), adhoc("a", {"a": Activation(busy_call)})]
    names = [get_proxy("naswot"), get_proxy("flops")]
    alone = run_proxies(network, BATCH, names).scores
    together = run_proxies(network, BATCH, [*observers, *names, GRADIENT]).scores
    assert {name: together[name] for name in alone} == alone


def test_product_backend_adds_no_flops(network, monkeypatch):
    from naswot import kernels

    expected = naswot.measure(network, IMAGES, ["naswot", "flops"])
    monkeypatch.setattr(kernels, "_compiled", lambda: None)
    assert naswot.measure(network, IMAGES, ["naswot", "flops"]) == expected


def test_module_observer_sees_each_call_with_its_output():
    model = nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 3))
    shapes = Module(nn.Linear, lambda module, inputs, output: ((module.out_features, tuple(output.shape)),))
    with Passes(model, Batch(wave(6, 10))) as passes:
        passes.observe([shapes])
        assert passes.seen({"s": shapes})["s"] == ((10, (6, 10)), (3, (6, 3)))


def test_what_no_event_reached_is_none():
    observer = Module(nn.Conv3d, lambda module, inputs, output: 1)
    with Passes(mlp(), Batch(wave(6, 10))) as passes:
        passes.observe([observer])
        assert passes.seen({"x": observer}) == {"x": None}


# --- leaving early ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_calls", [1, 2, 3, 4])
def test_stop_after_leaves_behind_that_many_calls(network, n_calls):
    model = nn.Sequential(network, nn.Identity())
    reached = []
    model[1].register_forward_hook(lambda module, inputs, output: reached.append(1))
    layers = naswot.explain(network, IMAGES).layers
    details = naswot.explain(model, IMAGES, stop_after=n_calls)
    assert details.n_units == sum(layer.n_units for layer in layers[:n_calls])
    assert reached == []
    if n_calls == 4:
        assert torch.equal(naswot.hamming_kernel(model, IMAGES, stop_after=4), naswot.hamming_kernel(model, IMAGES))


def test_stop_after_more_calls_than_there_are(network):
    assert naswot.score(network, IMAGES, stop_after=99) == naswot.score(network, IMAGES)


def test_stop_after_must_be_positive(network):
    with pytest.raises(OptionError, match="expected stop_after of at least 1 activation call, but got 0"):
        naswot.score(network, IMAGES, stop_after=0)


def test_inputs_that_the_logits_do_not_depend_on_have_a_jacobian_of_zeros():
    """As in cells whose every path is cut: the graph does not hold the images at all."""

    class Ignores(nn.Linear):
        def forward(self, x):
            return super().forward(x.new_zeros(len(x), 4))

    with Passes(Ignores(4, 3), Batch(torch.randn(5, 3, 2, 2))) as passes:
        assert torch.equal(passes.input_jacobian(), torch.zeros(5, 12))
    assert naswot.measure(Ignores(4, 3), torch.randn(5, 3, 2, 2), ["jacov"])["jacov"] == -torch.inf
