"""The taps: every activation in every form once, at the right threshold, and nothing passed over in silence."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from reference.slow_kernel import slow_kernel
from reference.tiny import wave
from torch import nn

import naswot
from naswot.errors import NoActivationError, OptionError, ShapeError
from naswot.observers import Activation
from naswot.passes import Passes, PassOptions
from naswot.types import Batch

N, D = 6, 11
VALUES = wave(N, D) * 2
aten = torch.ops.aten


class Call(nn.Module):
    """Model that does nothing but call ``function`` on (a fresh copy of) its input."""

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x * 1.0)


def model_of(function):
    """A module as it is, anything else within a module."""
    return nn.Sequential(nn.Flatten(), function) if isinstance(function, nn.Module) else Call(function)


def calls_of(model, inputs, **options):
    """(function, threshold, units) of every tapped call, and what was met untapped."""
    seen = Activation(lambda call: ((call.function, call.threshold, call.n_units),))
    batch = inputs if isinstance(inputs, Batch) else Batch(inputs)
    with Passes(model, batch, options=PassOptions(**options)) as passes:
        try:
            passes.observe([seen])
        except NoActivationError:
            return (), dict(passes.untapped)
        return passes.seen({"calls": seen})["calls"], dict(passes.untapped)


def expected_codes(threshold=0.0, values=VALUES):
    return values.reshape(N, -1) > threshold


RELU_FORMS = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "F.relu keyword": lambda x: F.relu(input=x),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.relu_(),
    "aten packet": lambda x: aten.relu(x),
    "aten packet in place": lambda x: aten.relu_(x),
    "aten overload": lambda x: aten.relu.default(x),
    "aten overload in place": lambda x: aten.relu_.default(x),
}
PIECEWISE = {
    **{f"relu, {form}": ("relu", function) for form, function in RELU_FORMS.items()},
    "nn.ReLU6": ("hardtanh", nn.ReLU6()),
    "nn.ReLU6 in place": ("hardtanh", nn.ReLU6(inplace=True)),
    "F.relu6": ("relu6", F.relu6),
    "torch._C._nn.relu6": ("relu6", torch._C._nn.relu6),
    "nn.LeakyReLU": ("leaky_relu", nn.LeakyReLU(0.2)),
    "nn.LeakyReLU in place": ("leaky_relu", nn.LeakyReLU(0.2, inplace=True)),
    "F.leaky_relu": ("leaky_relu", F.leaky_relu),
    "F.leaky_relu_": ("leaky_relu", F.leaky_relu_),
    "torch._C._nn.leaky_relu": ("leaky_relu", torch._C._nn.leaky_relu),
    "aten.leaky_relu": ("leaky_relu", lambda x: aten.leaky_relu.default(x, 0.1)),
    "nn.PReLU": ("prelu", nn.PReLU()),
    "F.prelu": ("prelu", lambda x: F.prelu(x, torch.tensor([0.1]))),
    "torch.prelu": ("prelu", lambda x: torch.prelu(x, torch.tensor([0.1]))),
    "method prelu": ("prelu", lambda x: x.prelu(torch.tensor([0.1]))),
    "aten._prelu_kernel": ("prelu_kernel", lambda x: aten._prelu_kernel.default(x, torch.tensor([0.1]))),
    "nn.RReLU": ("rrelu", nn.RReLU()),
    "F.rrelu": ("rrelu", F.rrelu),
    "F.rrelu_": ("rrelu", F.rrelu_),
    "torch.rrelu": ("rrelu", torch.rrelu),
    "hardtanh at zero": ("hardtanh", lambda x: F.hardtanh(x, 0.0, 6.0)),
    "threshold at zero": ("threshold", lambda x: F.threshold(x, 0.0, 0.0)),
    "clamp positional": ("clamp", lambda x: torch.clamp(x, 0)),
    "clamp method": ("clamp", lambda x: x.clamp(0.0)),
    "clamp keyword": ("clamp", lambda x: x.clamp(min=0)),
    "clamp both": ("clamp", lambda x: x.clamp(min=0, max=6)),
    "clamp both positional": ("clamp", lambda x: torch.clamp(x, 0, 6)),
    "clamp in place": ("clamp", lambda x: x.clamp_(min=0)),
    "clamp by a tensor": ("clamp", lambda x: x.clamp(min=torch.tensor(0.0))),
    "clamp by a row": ("clamp", lambda x: x.clamp(min=torch.zeros(D))),
    "clip": ("clip", lambda x: torch.clip(x, 0)),
    "clip keyword": ("clip", lambda x: x.clip(min=0.0)),
    "clip in place": ("clip", lambda x: x.clip_(0)),
    "clamp_min": ("clamp_min", lambda x: torch.clamp_min(x, 0)),
    "clamp_min keyword": ("clamp_min", lambda x: x.clamp_min(min=0)),
    "clamp_min tensor": ("clamp_min", lambda x: x.clamp_min(torch.tensor(0.0))),
    "clamp_min in place": ("clamp_min", lambda x: x.clamp_min_(0)),
    "aten.clamp": ("clamp", lambda x: aten.clamp.default(x, 0)),
    "aten.clamp.Tensor": ("clamp", lambda x: aten.clamp.Tensor(x, torch.tensor(0.0))),
    "aten.clamp_min": ("clamp_min", lambda x: aten.clamp_min.default(x, 0)),
}
SMOOTH = {
    "nn.GELU": ("gelu", nn.GELU()),
    "nn.GELU tanh": ("gelu", nn.GELU(approximate="tanh")),
    "F.gelu": ("gelu", F.gelu),
    "torch._C._nn.gelu": ("gelu", torch._C._nn.gelu),
    "torch._C._nn.gelu_": ("gelu", torch._C._nn.gelu_),
    "aten.gelu": ("gelu", lambda x: aten.gelu.default(x)),
    "nn.SiLU": ("silu", nn.SiLU()),
    "nn.SiLU in place": ("silu", nn.SiLU(inplace=True)),
    "F.silu": ("silu", F.silu),
    "aten.silu": ("silu", lambda x: aten.silu(x)),
    "nn.Mish": ("mish", nn.Mish()),
    "nn.Mish in place": ("mish", nn.Mish(inplace=True)),
    "F.mish": ("mish", F.mish),
    "nn.ELU": ("elu", nn.ELU()),
    "F.elu_": ("elu", F.elu_),
    "aten.elu": ("elu", lambda x: aten.elu.default(x)),
    "nn.CELU": ("celu", nn.CELU()),
    "torch.celu_": ("celu", torch.celu_),
    "nn.SELU": ("selu", nn.SELU()),
    "torch.selu": ("selu", torch.selu),
    "nn.Softplus": ("softplus", nn.Softplus()),
    "F.softplus": ("softplus", F.softplus),
    "nn.Hardswish": ("hardswish", nn.Hardswish()),
    "nn.Hardswish in place": ("hardswish", nn.Hardswish(inplace=True)),
    "F.hardswish": ("hardswish", F.hardswish),
}


# --- every form once ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [*PIECEWISE, *SMOOTH])
def test_every_form_counts_once(form):
    name, function = {**PIECEWISE, **SMOOTH}[form]
    calls, untapped = calls_of(model_of(function), VALUES)
    assert calls == ((name, 0.0, D),)
    assert untapped == {}
    assert torch.equal(naswot.binary_codes(model_of(function), VALUES), expected_codes())


@pytest.mark.parametrize("form", PIECEWISE)
def test_taps_relu_counts_the_piecewise_linear_ones(form):
    name, function = PIECEWISE[form]
    assert calls_of(model_of(function), VALUES, taps="relu") == (((name, 0.0, D),), {})


@pytest.mark.parametrize("form", SMOOTH)
def test_taps_relu_reports_the_smooth_ones(form):
    name, function = SMOOTH[form]
    assert calls_of(model_of(function), VALUES, taps="relu") == ((), {name: 1})
    with pytest.raises(NoActivationError, match=rf"taps='relu' counts; met instead: {name} \(1\); use taps='all'"):
        naswot.score(model_of(function), VALUES, taps="relu")


@pytest.mark.parametrize(
    ("function", "threshold"),
    [
        (nn.Hardtanh(), -1.0),
        (nn.Hardtanh(-0.5, 2.0), -0.5),
        (F.hardtanh, -1.0),
        (lambda x: F.hardtanh(x, -0.25, 1.0), -0.25),
        (lambda x: F.hardtanh(x, min_val=0.5, max_val=1.0), 0.5),
        (lambda x: F.hardtanh_(x, -0.75, 1.0), -0.75),
        (lambda x: aten.hardtanh.default(x, -0.3, 1.0), -0.3),
        (nn.Threshold(0.5, 0.0), 0.5),
        (nn.Threshold(-0.5, -0.5, inplace=True), -0.5),
        (lambda x: F.threshold(x, 0.25, 0.0), 0.25),
        (lambda x: F.threshold(x, threshold=0.25, value=0.0), 0.25),
        (lambda x: F.threshold_(x, 0.75, 0.0), 0.75),
        (lambda x: torch.threshold(x, -1.5, 0.0), -1.5),
    ],
)
@pytest.mark.parametrize("taps", ["relu", "all"])
def test_the_bit_is_set_above_the_lowest_kink(function, threshold, taps):
    calls, untapped = calls_of(model_of(function), VALUES, taps=taps)
    assert [call[1] for call in calls] == [threshold]
    assert untapped == {}
    codes = naswot.binary_codes(model_of(function), VALUES, taps=taps)
    assert torch.equal(codes, expected_codes(torch.tensor(threshold)))
    kernel = naswot.hamming_kernel(model_of(function), VALUES, taps=taps)
    assert kernel.tolist() == slow_kernel([VALUES.numpy()], [threshold]).tolist()


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: x.clamp(-1, 1), "clamp"),
        (lambda x: x.clamp(max=1), "clamp"),
        (lambda x: x.clamp(None, 0), "clamp"),
        (lambda x: torch.clamp(x, min=0.5), "clamp"),
        (lambda x: torch.clamp(x, min=torch.tensor(-1.0)), "clamp"),
        (lambda x: torch.clip(x, 1e-6), "clip"),
        (lambda x: x.clamp_min(1e-12), "clamp_min"),
        (lambda x: x.clamp_max(0), "clamp_max"),
    ],
)
def test_other_clamps_are_reported(function, name):
    assert calls_of(Call(function), VALUES) == ((), {name: 1})


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.sigmoid, "sigmoid"),
        (F.sigmoid, "sigmoid"),
        (lambda x: x.sigmoid_(), "sigmoid"),
        (torch.special.expit, "sigmoid"),
        (nn.Sigmoid(), "sigmoid"),
        (torch.tanh, "tanh"),
        (nn.Tanh(), "tanh"),
        (lambda x: x.tanh(), "tanh"),
        (lambda x: torch.maximum(x, torch.zeros_like(x)), "maximum"),
        (lambda x: torch.max(x, torch.zeros_like(x)), "maximum"),
        (lambda x: x.min(other=torch.zeros_like(x)), "minimum"),
        (lambda x: torch.where(x > 0, x, 0.0), "where"),
        (lambda x: x.where(x > 0, torch.zeros_like(x)), "where"),
        (lambda x: x**2, "pow"),
        (lambda x: torch.pow(x, 3), "pow"),
        (lambda x: 2.0**x, "pow"),
        (lambda x: x.square(), "square"),
        (torch.exp, "exp"),
        (abs, "abs"),
        (nn.Hardsigmoid(), "hardsigmoid"),
        (nn.LogSigmoid(), "log_sigmoid"),
        (nn.Softmax(dim=1), "softmax"),
        (nn.GLU(dim=1), "glu"),
        (nn.Softshrink(), "softshrink"),
        (nn.Hardshrink(), "hardshrink"),
        (nn.Tanhshrink(), "tanhshrink"),
        (nn.Softsign(), "softsign"),
    ],
)
def test_non_linearities_without_a_bit_are_reported(function, name):
    inputs = VALUES[:, :10]
    assert calls_of(model_of(function), inputs) == ((), {name: 1})
    with pytest.raises(NoActivationError, match=rf"met instead: {name} \(1\)"):
        naswot.score(model_of(function), inputs)


def test_reductions_are_no_non_linearity():
    assert calls_of(Call(lambda x: F.relu(x + x.max() + x.max(dim=1, keepdim=True).values)), VALUES)[1] == {}


def test_untapped_calls_are_counted_each():
    model = Call(lambda x: torch.tanh(torch.sigmoid(F.relu(x)) + torch.sigmoid(x)) ** 2)
    details = naswot.explain(model, VALUES)
    assert details.untapped == {"pow": 1, "sigmoid": 2, "tanh": 1}
    assert details.n_units == D


def test_tensors_that_hold_no_images_do_not_count():
    table = nn.Parameter(wave(1, 4, 4))
    model = Call(lambda x: F.relu(x) + F.softplus(table).sum() + F.relu(torch.arange(3)).sum())
    calls, untapped = calls_of(model, VALUES)
    assert calls == (("relu", 0.0, D),)
    assert untapped == {"softplus (independent of the images)": 1}


def test_taps_must_be_one_of_three():
    with pytest.raises(OptionError, match="expected taps 'relu', 'all' or 'mellor', but got 'gelu'"):
        naswot.score(nn.Sequential(nn.ReLU()), VALUES, taps="gelu")


# --- forms of models ---------------------------------------------------------------------------------------------


def test_a_module_used_many_times_counts_per_call():
    class Reused(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.relu = nn.Linear(D, D), nn.ReLU()

        def forward(self, x):
            for _ in range(3):
                x = self.relu(self.linear(x))
            return x

    details = naswot.explain(Reused(), VALUES)
    assert [(layer.module, layer.n_units) for layer in details.layers] == [("relu", D)] * 3


def test_nested_sequential_and_module_names():
    model = nn.Sequential(nn.Linear(D, 5), nn.Sequential(nn.ReLU(), nn.Linear(5, 4)), nn.GELU(), Call(F.silu))
    layers = naswot.explain(model, VALUES).layers
    assert [(layer.module, layer.function, layer.n_units) for layer in layers] == [
        ("1.0", "relu", 5),
        ("2", "gelu", 4),
        ("3", "silu", 4),
    ]


def test_in_place_relu_is_read_before_it_writes():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(D, 20), nn.ReLU(), nn.Linear(20, 7), nn.ReLU6(), nn.Linear(7, 5), nn.LeakyReLU())
    twin = nn.Sequential(
        nn.Linear(D, 20), nn.ReLU(True), nn.Linear(20, 7), nn.ReLU6(True), nn.Linear(7, 5), nn.LeakyReLU(inplace=True)
    )
    twin.load_state_dict(plain.state_dict())
    assert torch.equal(naswot.binary_codes(plain, VALUES), naswot.binary_codes(twin, VALUES))
    # a threshold above its own value: reading afterwards would give other bits
    shifted, in_place = nn.Threshold(-0.5, -2.0), nn.Threshold(0.5, 1.0, inplace=True)
    assert torch.equal(naswot.binary_codes(nn.Sequential(shifted), VALUES), VALUES > -0.5)
    assert torch.equal(naswot.binary_codes(nn.Sequential(in_place), VALUES), VALUES > 0.5)


class Mixed(nn.Module):
    """Module, function and method in one forward; traceable."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.gelu = nn.Linear(D, 8), nn.Linear(8, 6), nn.GELU()

    def forward(self, x):
        x = self.gelu(self.first(x))
        return torch.sigmoid(F.relu6(self.second(F.leaky_relu(x)).relu().clamp(min=0)))


@pytest.fixture(scope="module")
def mixed():
    torch.manual_seed(1)
    return Mixed()


def test_fx_graph_counts_as_its_model(mixed):
    traced = torch.fx.symbolic_trace(mixed)
    assert calls_of(traced, VALUES) == calls_of(mixed, VALUES)
    assert len(calls_of(mixed, VALUES)[0]) == 5
    assert torch.equal(naswot.binary_codes(traced, VALUES), naswot.binary_codes(mixed, VALUES))


def test_exported_program_counts_as_its_model(mixed):
    exported = torch.export.export(mixed.eval(), (VALUES,)).module()
    assert torch.equal(naswot.hamming_kernel(exported, VALUES), naswot.hamming_kernel(mixed, VALUES))


def test_functional_call_counts_as_its_model(mixed):
    parameters = {name: p.detach() for name, p in mixed.named_parameters()}

    class Functional(nn.Module):
        def forward(self, x):
            return torch.func.functional_call(mixed, parameters, (x,))

    assert calls_of(Functional(), VALUES) == calls_of(mixed, VALUES)


def test_compiled_model_scores_as_the_plain_one(mixed):
    compiled = torch.compile(mixed, backend="eager")
    assert naswot.score(compiled, VALUES) == naswot.score(mixed, VALUES)
    compiled(VALUES)
    assert naswot.score(compiled, VALUES) == naswot.score(mixed, VALUES)
    assert calls_of(compiled, VALUES) == calls_of(mixed, VALUES)


def test_compiled_part_of_a_model(mixed):
    inner = torch.compile(nn.Sequential(nn.Linear(D, 4), nn.ReLU()), backend="eager")
    model = nn.Sequential(inner, nn.Linear(4, 3), nn.ReLU())
    assert naswot.explain(model, VALUES).n_units == 7


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointed_block_counts_once(use_reentrant):
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.block, self.head = nn.Sequential(nn.Linear(D, 8), nn.ReLU()), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(checkpoint(self.block, x, use_reentrant=use_reentrant))

    model = Checkpointed()
    plain = nn.Sequential(model.block, model.head)
    assert calls_of(model, VALUES) == ((("relu", 0.0, 8),), {})
    assert naswot.score(model, VALUES) == naswot.score(plain, VALUES)
    seen = Activation(lambda call: (call.function,))  # and when the backward pass recomputes it
    with Passes(model, Batch(VALUES, torch.zeros(N, dtype=torch.int64))) as passes:
        passes.observe([seen], graph=True)
        assert passes.gradients()
        assert passes.seen({"calls": seen})["calls"] == ("relu",)


# --- what no tap sees --------------------------------------------------------------------------------------------


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


def test_fused_kernels_are_reported():
    weight, bias = wave(D, 5), wave(5)
    details = naswot.explain(Call(lambda x: F.relu(torch._addmm_activation(bias, x, weight) - 0.1)), VALUES)
    assert details.untapped == {"linear layer with activation (inside TorchScript or a fused kernel)": 1}
    assert details.n_units == 5


# --- composite activations ---------------------------------------------------------------------------------------


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


# --- custom autograd functions -----------------------------------------------------------------------------------


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

    barrier, counts = threading.Barrier(2, timeout=30), {}

    def work(name, times):
        def forward(x):
            barrier.wait()  # both taps are in place
            for _ in range(times):
                x = Doubled.apply(x)
            barrier.wait()  # and stay until both are done
            return F.relu(x)

        counts[name] = calls_of(Call(forward), VALUES)[1]

    threads = [threading.Thread(target=work, args=("a", 2)), threading.Thread(target=work, args=("b", 5))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == {"a": {"autograd.Function Doubled": 2}, "b": {"autograd.Function Doubled": 5}}


# --- which dimension counts the images ---------------------------------------------------------------------------


def encoder(*, batch_first, activation="relu"):
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(8, 2, 16, activation=activation, batch_first=batch_first)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("activation", ["relu", "gelu", F.silu])
def test_encoder_layer_batch_first(activation, mode):
    """In evaluation mode the fused path would hide the activation; under the tap it is not taken."""
    model = encoder(batch_first=True, activation=activation).eval()
    details = naswot.explain(model, wave(N, 5, 8), mode=mode)
    assert details.n_units == 5 * 16
    assert details.untapped == {"multi_head_attention_forward": 1}


def test_encoder_of_several_layers_with_a_mask():
    model = nn.TransformerEncoder(encoder(batch_first=True), 2, enable_nested_tensor=True).eval()
    padding = torch.zeros(N, 5, dtype=torch.bool)
    padding[:, 4:] = True
    inputs = {"src": wave(N, 5, 8), "src_key_padding_mask": padding}
    assert naswot.explain(model, inputs, mode="eval").n_units == 2 * 5 * 16


def test_sequence_first_raises_and_works_with_batch_dim():
    model = encoder(batch_first=False)
    sequence_first = Batch(wave(5, N, 8), batch_dim=1)
    with pytest.raises(
        ShapeError, match=r"\(5, 6, 16\), whose dimension 0 does not count the 6 images; pass batch_dim="
    ):
        naswot.score(model, sequence_first)
    details = naswot.explain(model, sequence_first, batch_dim=1)
    assert (details.n_images, details.n_units) == (N, 5 * 16)
    twin = encoder(batch_first=True)
    kernel = naswot.hamming_kernel(model, sequence_first, batch_dim=1, mode="eval")
    expected = naswot.hamming_kernel(twin, wave(5, N, 8).transpose(0, 1), mode="eval")
    assert torch.equal(kernel, expected)


def test_sequence_length_that_is_a_multiple_of_the_batch_is_doubtful():
    with pytest.raises(ShapeError, match="dimension 0 could be that of the 6 images"):
        naswot.score(encoder(batch_first=False), Batch(wave(2 * N, N, 8), batch_dim=1))


def test_dimension_that_does_not_count_the_images():
    with pytest.raises(ShapeError, match=r"the input of relu has shape \(11, 6\), whose dimension 0 does not count"):
        naswot.score(Call(lambda x: F.relu(x.t())), VALUES)
    assert naswot.explain(Call(lambda x: F.relu(x.t())), VALUES, batch_dim=1).n_units == D


def test_windows_are_rows_of_their_image():
    """(N x windows, L, C) rows, image by image: the codes are those of the tensor before it was cut into windows."""
    tokens = wave(N, 8, 4)

    def windowed(x):
        return F.gelu(x.reshape(N * 2, 4, 4))

    codes = naswot.binary_codes(Call(windowed), tokens)
    assert torch.equal(codes, (tokens > 0).reshape(N, -1))
    kernel = naswot.hamming_kernel(Call(windowed), tokens)
    assert torch.equal(kernel, naswot.hamming_kernel(Call(F.gelu), tokens))
    # rows may lie in memory in any order
    strided = naswot.hamming_kernel(Call(lambda x: F.gelu(x.reshape(N * 2, 4, 4).transpose(1, 2))), tokens)
    assert torch.equal(strided, kernel)


def test_order_in_memory_does_not_matter():
    images = wave(N, 3, 5, 4)
    plain = naswot.hamming_kernel(Call(F.relu), images)
    for layout in (torch.channels_last, torch.contiguous_format):
        relaid = Call(lambda x, layout=layout: F.relu(x.contiguous(memory_format=layout)))
        assert torch.equal(naswot.hamming_kernel(relaid, images), plain)
    assert torch.equal(naswot.hamming_kernel(Call(lambda x: F.relu(x.permute(0, 3, 1, 2))), images), plain)
    assert torch.equal(naswot.hamming_kernel(Call(F.relu), images, channels_last=True), plain)
    assert plain.tolist() == slow_kernel([images.reshape(N, -1).numpy()], [0.0]).tolist()


def test_codes_are_in_row_major_order_whatever_the_layout():
    images = wave(N, 3, 5, 4)
    channels_last = Call(lambda x: F.relu(x.contiguous(memory_format=torch.channels_last)))
    assert torch.equal(naswot.binary_codes(channels_last, images), (images > 0).reshape(N, -1))


# --- the same pre-activation -------------------------------------------------------------------------------------


def count_kernels(monkeypatch, model, inputs=VALUES, **options):
    from naswot import scoring

    counted = []
    original = scoring.agreement_kernel

    def counting(values, threshold=0.0):
        counted.append(values.shape)
        return original(values, threshold)

    monkeypatch.setattr(scoring, "agreement_kernel", counting)
    kernel = naswot.hamming_kernel(model, inputs, **options)
    return len(counted), kernel


def test_edges_that_read_one_tensor_are_counted_once(monkeypatch):
    n_kernels, kernel = count_kernels(monkeypatch, Call(lambda x: F.relu(x) + F.relu(x) + torch.relu(x) + F.gelu(x)))
    assert n_kernels == 1
    assert kernel.tolist() == (4 * slow_kernel([VALUES.numpy()], [0.0])).tolist()


def test_another_threshold_is_another_code(monkeypatch):
    n_kernels, kernel = count_kernels(monkeypatch, Call(lambda x: F.relu(x) + F.hardtanh(x) + F.hardtanh(x)))
    assert n_kernels == 2
    twice = slow_kernel([VALUES.numpy()] * 3, [0.0, -1.0, -1.0])
    assert kernel.tolist() == twice.tolist()


def test_change_in_place_between_two_reads_is_seen(monkeypatch):
    def forward(x):
        first = F.relu(x)
        x.neg_()
        return first + F.relu(x)

    n_kernels, kernel = count_kernels(monkeypatch, Call(forward))
    assert n_kernels == 2
    assert kernel.tolist() == slow_kernel([VALUES.numpy(), -VALUES.numpy()], [0.0, 0.0]).tolist()


def test_in_place_relu_read_again(monkeypatch):
    n_kernels, kernel = count_kernels(monkeypatch, Call(lambda x: F.relu(F.relu_(x) - 0.0 * x) + F.relu(x)))
    after = VALUES.clamp(min=0).numpy()
    assert n_kernels == 3
    assert kernel.tolist() == slow_kernel([VALUES.numpy(), after, after], [0.0] * 3).tolist()


def test_short_lived_tensors_that_reuse_addresses_are_told_apart(monkeypatch):
    def forward(x):
        total = torch.zeros_like(x)
        for shift in range(60):
            total = total + F.relu(x + (shift - 30) / 30)  # freed before the next one is made
        return total

    n_kernels, kernel = count_kernels(monkeypatch, Call(forward))
    layers = [(VALUES + (shift - 30) / 30).numpy() for shift in range(60)]
    assert n_kernels == 60
    assert kernel.tolist() == slow_kernel(layers, [0.0] * 60).tolist()


def test_memory_of_dead_tensors_is_released():
    from naswot.activations import CallReader

    alive = []

    def listen(call):
        call.once(lambda call: torch.zeros(1000))
        alive.append(len(reader._alive))

    reader = CallReader(N, 0, listen)
    for _ in range(20):
        reader.read(VALUES.clone(), "relu", 0.0, None, F.relu)
    assert max(alive) == 1
    assert reader._alive == {}
    kept = VALUES.clone()
    for _ in range(3):
        reader.read(kept, "relu", 0.0, None, F.relu)
    assert len(reader._alive) == 1


def test_inference_tensors_are_counted_anew():
    from naswot.activations import CallReader

    seen = []
    reader = CallReader(N, 0, lambda call: seen.append(call.once(lambda c: c.units().sum().item())))
    with torch.inference_mode():
        tensor = VALUES.clone()
        reader.read(tensor, "relu", 0.0, None, F.relu)
        tensor.neg_()
        reader.read(tensor, "relu", 0.0, None, F.relu)
    assert seen[0] == -seen[1] != 0


# --- models of others --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


TOKENS = (wave(N, 7).abs() * 18).long() + 1
TEXT = dict(vocab_size=20, num_hidden_layers=2, num_attention_heads=2, hidden_size=8, intermediate_size=16)
VISION = dict(TEXT, image_size=8, patch_size=4)
del VISION["vocab_size"]


def layers_of(model, inputs, **options):
    return [(layer.function, layer.n_units) for layer in naswot.explain(model, inputs, **options).layers]


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("form", ["tensor", "mapping"])
def test_bert(transformers, form, mask):
    config = transformers.BertConfig(**TEXT, max_position_embeddings=16)
    model = transformers.BertForSequenceClassification(config)
    inputs = TOKENS if form == "tensor" and not mask else {"input_ids": TOKENS}
    if mask:
        inputs["attention_mask"] = torch.ones_like(TOKENS)
    assert layers_of(model, inputs) == [("gelu", 7 * 16)] * 2
    assert naswot.explain(model, inputs).untapped["tanh"] == 1  # the pooler
    assert math.isfinite(naswot.score(model, inputs))


def test_gpt2_composite_gelu(transformers):
    config = transformers.GPT2Config(
        vocab_size=20, n_embd=8, n_layer=2, n_head=2, n_positions=16, pad_token_id=0, bos_token_id=1, eos_token_id=1
    )
    model = transformers.GPT2ForSequenceClassification(config)
    assert layers_of(model, TOKENS) == [("NewGELUActivation", 7 * 32)] * 2
    untapped = naswot.explain(model, TOKENS).untapped
    assert "pow" not in untapped
    assert "tanh" not in untapped
    with pytest.raises(NoActivationError, match="NewGELUActivation"):
        naswot.score(model, TOKENS, taps="relu")


def test_clip_quick_gelu(transformers):
    model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION))
    assert layers_of(model, wave(N, 3, 8, 8)) == [("QuickGELUActivation", 5 * 16)] * 2


def test_vit(transformers):
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**VISION))
    images = wave(N, 3, 8, 8)
    assert layers_of(model, images) == [("gelu", 5 * 16)] * 2
    assert naswot.explain(model, images).untapped.keys() <= {"scaled_dot_product_attention", "softmax"}


@pytest.fixture(scope="module")
def pytorchcv():
    return pytest.importorskip("pytorchcv.model_provider")


def test_pytorchcv_resnet(pytorchcv):
    model = pytorchcv.get_model("resnet20_cifar10", pretrained=False)
    details = naswot.explain(model, wave(3, 3, 32, 32))
    assert len(details.layers) == 19
    # stem and three stages of three blocks with two ReLUs each, at 16, 32 and 64 channels
    assert details.n_units == 7 * 16 * 32 * 32 + 6 * 32 * 16 * 16 + 6 * 64 * 8 * 8
    assert details.untapped == {}


def test_pytorchcv_swish(pytorchcv):
    model = pytorchcv.get_model("efficientnet_b0", pretrained=False)
    details = naswot.explain(model, wave(2, 3, 32, 32))
    assert {layer.function for layer in details.layers} == {"Swish"}
    assert len(details.layers) == 49
    assert details.untapped == {"sigmoid": 16}  # the gates of squeeze-and-excitation, which are no activations
