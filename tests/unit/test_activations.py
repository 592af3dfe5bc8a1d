"""The taps: every activation in every form once, at the right threshold, and nothing passed over in silence."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from reference.slow_kernel import slow_kernel
from reference.taps import VALUES, Call, D, calls_of, expected_codes, model_of
from reference.tiny import wave
from torch import nn

import naswot
from naswot.errors import NoActivationError, OptionError

aten = torch.ops.aten

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


# --- every form once -------------------------------------------------------------------------------------------------


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


def test_a_prelu_with_a_slope_for_each_channel_is_tapped():
    """Its slopes are a second positional argument, and no flag."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(8))
    kernel = naswot.hamming_kernel(model, torch.randn(4, 3, 8, 8))
    assert kernel[0, 0] == 8 * 6 * 6
