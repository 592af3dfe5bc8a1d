"""What the taps cannot look into, or must look at as a whole."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from reference.taps import VALUES, Call, D, calls_of, expected_codes
from reference.tiny import wave
from torch import nn

import naswot
from naswot.errors import NoActivationError, UntappedWarning
from naswot.observers import Activation
from naswot.passes import Passes
from naswot.types import Batch

pytestmark = pytest.mark.filterwarnings(
    "ignore::naswot.errors.UntappedWarning", "ignore:.*torch.jit:DeprecationWarning"
)


# --- what no tap sees ------------------------------------------------------------------------------------------------


@torch.jit.script
def scripted_relu(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_script_modules_are_reported():
    script = torch.jit.script(nn.Sequential(nn.Linear(D, 4), nn.ReLU()))
    details = naswot.explain(nn.Sequential(script, nn.Linear(4, 3), nn.ReLU()), VALUES)
    assert details.n_units == 3
    assert details.untapped == {"ScriptModule": 1, "relu (inside TorchScript or a fused kernel)": 1}
    with pytest.raises(NoActivationError, match=r"met instead: ScriptModule \(1\).*TorchScript"):
        naswot.score(nn.Sequential(script), VALUES)
    with pytest.raises(NoActivationError, match="ScriptModule"):
        naswot.score(script, VALUES)


def test_scripted_functions_are_reported():
    details = naswot.explain(Call(lambda x: F.relu(scripted_relu(x) - 0.5)), VALUES)
    assert details.n_units == D
    assert details.untapped == {"relu (inside TorchScript or a fused kernel)": 1}


def test_a_dispatch_mode_does_not_show_the_tap_more_than_there_is():
    """`explain` and `flops` watch the dispatcher; what they call through must not come back as a model's call."""
    model = Call(lambda x: F.relu(scripted_relu(x) - 0.5))
    alone = naswot.score(model, VALUES)
    assert naswot.explain(model, VALUES).log_det == alone
    assert naswot.measure(model, VALUES, ["naswot", "flops"])["naswot"] == alone


def test_code_that_cannot_be_looked_into_is_warned_of():
    script = torch.jit.script(nn.Sequential(nn.Linear(D, 4), nn.ReLU()))
    with pytest.warns(UntappedWarning, match=r"activations inside these are not counted: ScriptModule"):
        naswot.score(nn.Sequential(script, nn.Linear(4, 3), nn.ReLU()), VALUES)
    with pytest.warns(UntappedWarning, match="autograd.Function Doubled"):
        naswot.score(Call(lambda x: F.relu(Doubled.apply(x))), VALUES)


def test_what_is_looked_into_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        naswot.score(Call(lambda x: torch.tanh(F.relu(x)) * torch.sigmoid(x)), VALUES)
        naswot.explain(nn.Sequential(Swish(), nn.GELU()), VALUES)


def test_fused_kernels_are_reported():
    weight, bias = wave(D, 5), wave(5)
    details = naswot.explain(Call(lambda x: F.relu(torch._addmm_activation(bias, x, weight) - 0.1)), VALUES)
    assert details.untapped == {"linear layer with activation (inside TorchScript or a fused kernel)": 1}
    assert details.n_units == 5


# --- composite activations -------------------------------------------------------------------------------------------


class Swish(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x)


class HSwish(nn.Module):
    def forward(self, x):
        return x * F.relu6(x + 3.0) / 6.0


@pytest.mark.parametrize("composite", [Swish, HSwish])
def test_composites_count_once_at_their_input(composite):
    model = nn.Sequential(composite())
    assert calls_of(model, VALUES) == (((composite.__name__, 0.0, D),), {})
    assert calls_of(model, VALUES, taps="relu") == ((), {composite.__name__: 1})
    assert torch.equal(naswot.binary_codes(model, VALUES), expected_codes())
    assert naswot.explain(model, VALUES).untapped == {}


def test_composite_that_is_made_of_modules_counts_by_its_parts():
    class Swish(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.SiLU()

        def forward(self, x):
            return self.act(x)

    assert calls_of(nn.Sequential(Swish()), VALUES) == ((("silu", 0.0, D),), {})


def test_composite_defined_in_a_function_is_recognised():
    class QuickGELU(nn.Module):
        def forward(self, x):
            return x * torch.sigmoid(1.702 * x)

    assert calls_of(nn.Sequential(QuickGELU()), VALUES) == ((("QuickGELU", 0.0, D),), {})


@pytest.mark.parametrize("function", [nn.GELU(), HSwish(), nn.ReLU(inplace=True), nn.PReLU(), nn.Threshold(0.5, 0.1)])
def test_observers_may_compute_the_activation_itself(function):
    """``activated()`` neither counts as a call nor changes what the model reads."""
    activated = Activation(lambda call: (call.activated(),))
    names = Activation(lambda call: (call.function,))
    model = nn.Sequential(nn.Flatten(), function)
    with Passes(model, Batch(VALUES)) as passes:
        passes.observe([activated, names])
        seen = passes.seen({"activated": activated, "names": names})
        assert len(seen["names"]) == 1
        assert torch.equal(seen["activated"][0], function(VALUES.clone()))
        assert torch.equal(passes.outputs(), function(VALUES.clone()))
        assert passes.untapped == {}


# --- custom autograd functions ---------------------------------------------------------------------------------------


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


APPLY = torch.autograd.Function.__dict__["apply"]


@pytest.fixture
def untouched_apply():
    assert torch.autograd.Function.__dict__["apply"] is APPLY
    yield
    assert torch.autograd.Function.__dict__["apply"] is APPLY


@pytest.mark.usefixtures("untouched_apply")
def test_custom_functions_are_reported_and_apply_comes_back():
    calls, untapped = calls_of(Call(lambda x: F.relu(Doubled.apply(Doubled.apply(x)))), VALUES)
    assert calls == (("relu", 0.0, D),)
    assert untapped == {"autograd.Function Doubled": 2}
    assert torch.equal(Doubled.apply(VALUES), 2 * VALUES)


@pytest.mark.usefixtures("untouched_apply")
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_apply_comes_back_after_an_error(error):
    def fails(x):
        Doubled.apply(x)
        raise error("no")

    with pytest.raises((naswot.errors.ModelError, KeyboardInterrupt)):
        naswot.score(Call(fails), VALUES)


@pytest.mark.usefixtures("untouched_apply")
def test_apply_comes_back_after_nested_scores():
    inner = Call(lambda x: F.relu(Doubled.apply(x)))

    def outer(x):
        assert naswot.explain(inner, VALUES).untapped == {"autograd.Function Doubled": 1}
        return F.relu(Doubled.apply(x))

    naswot.score(Call(outer), VALUES)


@pytest.mark.usefixtures("untouched_apply")
def test_two_threads_count_their_own_functions():
    import threading
    import time

    counts = {}

    def work(name, times):
        def forward(x):
            for _ in range(times):
                x = Doubled.apply(x)
                time.sleep(0.01)  # room for the other to come in between, were it not for the turns that passes take
            return F.relu(x)

        counts[name] = calls_of(Call(forward), VALUES)[1]

    threads = [threading.Thread(target=work, args=("a", 2)), threading.Thread(target=work, args=("b", 5))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == {"a": {"autograd.Function Doubled": 2}, "b": {"autograd.Function Doubled": 5}}
