"""Saliency of weights and channels: slow twins, cases on paper, what the formulas feel and what they do not."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from reference.saliency import (
    differentiated,
    slow_fisher,
    slow_grad_norm,
    slow_grasp,
    slow_l2_norm,
    slow_logsynflow,
    slow_mask_gradients,
    slow_products,
    slow_synflow,
)
from reference.tiny import images, set_weights, wave
from torch import nn
from torch.autograd.function import once_differentiable

import naswot
from naswot.errors import InputError
from naswot.measuring import run_proxies
from naswot.proxy import get_proxy
from naswot.types import Batch

OF_LOSS = ["grad_norm", "snip", "plain", "fisher", "grasp"]
OF_FLOW = ["synflow", "logsynflow"]
SHAPE = (2, 6, 6)
IMAGES, TARGETS = images(4, 2, 6), torch.tensor([0, 2, 1, 2])
LN3 = math.log(3)

SLOW = {
    "grad_norm": slow_grad_norm,
    "snip": lambda *case: sum(map(abs, slow_products(*case))),
    "plain": lambda *case: sum(slow_products(*case)),
    "l2_norm": lambda model, images, targets: slow_l2_norm(model),
    "fisher": slow_fisher,
    "grasp": slow_grasp,
    "synflow": lambda model, images, targets: slow_synflow(model, images.shape[1:]),
    "logsynflow": lambda model, images, targets: slow_logsynflow(model, images.shape[1:]),
}


class Residual(nn.Module):
    """Stem with BatchNorm, a residual branch with a strided and a grouped convolution, linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2), nn.ReLU())
        self.branch = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1))
        self.norm, self.head = nn.BatchNorm2d(2), nn.Linear(2, 3)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(self.norm(x + self.branch(x)))
        return self.head(x.mean(dim=(2, 3)))


@pytest.fixture
def model():
    return set_weights(Residual()).double()


def measured(model, inputs, targets=None, names=None):
    return run_proxies(model, Batch(inputs, targets), [get_proxy(name) for name in names])


def value(name, model, inputs=IMAGES, targets=TARGETS):
    return measured(model, inputs, targets, [name]).scores[name]


def close(expected, rel=1e-9):
    return pytest.approx(expected, rel=rel, abs=1e-15)


# --- slow twins ------------------------------------------------------------------------------------------------------

# two gradients at a distance of 1e-5: the error is of the order of its square, 1e-10, and of rounding over it
REL = {"grasp": 1e-6}


@pytest.mark.parametrize("name", SLOW)
def test_equals_the_slow_twin(name, model):
    expected = SLOW[name](model, IMAGES.double(), TARGETS)
    assert value(name, model) == close(expected, REL.get(name, 1e-9))
    # float32 keeps 7 digits of each term, the sums of signed ones lose some
    single = value(name, model.float())
    assert single == pytest.approx(expected, rel=1e-4)


def test_snip_is_the_gradient_in_a_mask_of_ones(model):
    gradients = slow_mask_gradients(model, IMAGES, TARGETS)
    assert len(gradients) == 36 + 36 + 8 + 6
    assert value("snip", model) == close(sum(map(abs, gradients)), 1e-6)
    assert value("plain", model) == close(sum(gradients), 1e-6)


# --- on paper --------------------------------------------------------------------------------------------------------


def test_of_the_loss_on_paper():
    # logits (ln 3, 0), p = (3/4, 1/4), label 0: dL/dlogit = (-1/4, 1/4), twice each in the weights because x = (1, 1)
    layer = nn.Linear(2, 2, bias=False).double()
    layer.weight.data = torch.tensor([[LN3, 0], [0, 0]], dtype=torch.float64)
    scores = naswot.measure(layer, Batch(torch.ones(1, 2), torch.tensor([0])), [*OF_LOSS, "l2_norm"])
    assert scores == {
        "grad_norm": close(0.5),
        "snip": close(LN3 / 4),
        "plain": close(-LN3 / 4),
        "fisher": close(2 * 0.5 * (LN3 / 4) ** 2),  # the first channel alone, for each of its two weights
        # H = 3/16 [[1, -1], [-1, 1]] (x) x x^T; H g of the one weight that is not zero: 3/16 * (-1/4 - 1/4) * 2
        "grasp": close(LN3 * 3 / 16),
        "l2_norm": close(LN3),
    }


def test_of_the_flow_on_paper():
    # |W1| 1 = (3, 3); R = 1 * 3 + 2 * 3 = 9, which each layer conserves; gradients: rows of 1 and 2; (3, 3)
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    model[0].weight.data = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    model[2].weight.data = torch.tensor([[-1.0, 2.0]])
    result = measured(model, torch.zeros(3, 2), names=OF_FLOW)
    assert result.scores == {"synflow": 18.0, "logsynflow": close(3 * math.log(2 * 3 * 4))}
    assert (result.n_forwards, result.n_backwards) == (1, 1)  # one pass serves both


# --- what they feel and what they do not -----------------------------------------------------------------------------


def convolution_and_norm(eps=1e-14):
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3, eps=eps), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)
    )
    return set_weights(model).double()


def test_scale_before_a_norm():
    model, scaled = convolution_and_norm(), convolution_and_norm()
    scaled[0].weight.data *= 8
    for name in ("snip", "plain", "fisher"):  # w * dL/dw and a * dL/da do not change
        assert value(name, scaled) == close(value(name, model)), name
    of_head = differentiated(model, IMAGES.double(), TARGETS)[4].weight.grad.norm().item()
    of_convolution = value("grad_norm", model) - of_head
    assert value("grad_norm", scaled) - of_head == close(of_convolution / 8, 1e-8)
    assert value("l2_norm", scaled) - value("l2_norm", model) == close(7 * model[0].weight.norm().item())
    assert value("synflow", scaled) == close(8 * value("synflow", model))  # without biases in the way: see below


def test_plain_is_blind_before_a_norm():
    model = convolution_and_norm()
    model[4].weight.requires_grad_(False)
    assert abs(value("plain", model)) < 1e-10 < value("snip", model)


def test_grasp_of_a_scale_free_layer_is_its_squared_gradient():
    # the gradient falls with the scale t as g / t, so w * (H g) = -g * g
    model = convolution_and_norm()
    gradient = differentiated(model, IMAGES.double(), TARGETS)[0].weight.grad
    model[4].weight.requires_grad_(False)
    assert value("grasp", model) == close(gradient.square().sum().item(), 1e-8)


def test_flow_sees_neither_data_nor_signs_nor_norms(model):
    flipped = copy.deepcopy(model)
    for parameter in flipped.parameters():
        parameter.data.mul_(torch.where(wave(*parameter.shape, start=7) > 0, 1.0, -1.0))
    flipped.norm.running_var.mul_(9)
    flipped.requires_grad_(False)
    expected = naswot.measure(model, IMAGES, OF_FLOW)
    assert naswot.measure(flipped, -IMAGES[:1], OF_FLOW) == expected
    with torch.no_grad():
        assert naswot.measure(model, IMAGES, OF_FLOW) == expected


def test_flow_bypasses_functional_and_fused_norms():
    class Fused(nn.BatchNorm1d):
        def forward(self, x):
            return super().forward(x).clamp(max=5)

    class Functional(nn.Module):
        def forward(self, x):
            return F.batch_norm(x, None, None, training=True)

    model = nn.Sequential(nn.Linear(3, 1, bias=False), Functional(), Fused(1), nn.Linear(1, 1, bias=False))
    for layer in (model[0], model[3]):
        nn.init.constant_(layer.weight, -1.0)
    assert value("synflow", model, torch.ones(4, 3)) == 3.0 + 3.0
    model[0].weight.data *= 2  # 6 is clamped to 5: the activation of the fused layer is still there
    assert value("synflow", model, torch.ones(4, 3)) == 0.0 + 5.0


def test_which_weights_count():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.norm = nn.Embedding(3, 4), nn.LayerNorm(4)
            self.attention = nn.MultiheadAttention(4, 1, batch_first=True)
            self.line, self.head = nn.Conv1d(4, 4, 1, bias=False), nn.Linear(4, 3)
            self.head.weight = self.words.weight

        def forward(self, x):
            x = self.norm(self.words(x))
            x = self.attention(x, x, x)[0]
            return self.head(self.line(x.transpose(1, 2)).mean(dim=2))

    model = Model()
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    # out_proj of 16 ones, the 1-D convolution of 16, the head of 12 under the name of the embedding
    assert value("l2_norm", model) == close(4 + 4 + math.sqrt(12))
    set_weights(model).double()
    batch = torch.tensor([[0, 1, 2, 1], [2, 2, 0, 1]]), torch.tensor([0, 1])
    twin = differentiated(model, *batch)
    counted = (twin.attention.out_proj, twin.line, twin.head)
    assert value("grad_norm", model, *batch) == close(sum(m.weight.grad.norm().item() for m in counted))


def test_fisher_of_tokens_and_of_repeated_calls():
    layer = nn.Linear(2, 2, bias=False).double()
    model = nn.Sequential(layer, nn.Tanh(), layer, nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten())
    layer.weight.data = wave(2, 2).double()
    x, targets = wave(3, 5, 2).double(), torch.tensor([0, 1, 1])
    first = layer(x)
    second = layer(first.tanh())
    of_first, of_second = torch.autograd.grad(F.cross_entropy(second.mean(dim=1), targets), (first, second))
    expected = sum(
        2 * 0.5 * (a[i, :, k] @ g[i, :, k]).item() ** 2 / 3  # a channel is a feature, summed over the tokens
        for a, g in ((first, of_first), (second, of_second))
        for i in range(3)
        for k in range(2)
    )
    assert value("fisher", model, x, targets) == close(expected)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.head = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x):
        q, k, v = self.qkv(x.flatten(2)[:, :, :4]).unsqueeze(1).chunk(3, dim=-1)
        return self.head(F.scaled_dot_product_attention(q, k, v).mean(dim=(1, 2)))


def test_grasp_goes_round_fused_attention():
    model = set_weights(Attention()).double()
    result = measured(model, IMAGES, TARGETS, ["grasp"])
    assert result.scores["grasp"] == close(slow_grasp(model, IMAGES, TARGETS), 1e-6)
    assert result.n_forwards == 2
    assert measured(set_weights(Residual()), IMAGES, TARGETS, ["grasp"]).n_forwards == 1


# --- nothing to say --------------------------------------------------------------------------------------------------


def test_vanished_gradients_give_zero(model):
    model.head.weight.data.zero_()
    model.head.bias.data.zero_()  # else Fisher sees logits times their gradient
    model.norm.weight.data.zero_()
    model.norm.bias.data.zero_()
    assert naswot.measure(model, Batch(IMAGES, TARGETS), OF_LOSS) == dict.fromkeys(OF_LOSS, 0.0)
    model.stem[0].weight.data.zero_()
    model.branch[2].weight.data.zero_()
    model.branch[2].bias.data.zero_()
    assert naswot.measure(model, IMAGES, OF_FLOW) == dict.fromkeys(OF_FLOW, 0.0)


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.bias = nn.Linear(2, 2), nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return self.layer(x).detach() + self.bias


def test_unreached_weights_are_undefined():
    result = measured(Detached(), torch.ones(2, 2), torch.tensor([0, 1]), OF_LOSS)
    assert set(result.scores.values()) == {-math.inf}
    assert all("does not depend on the weight" in result.reasons[name] for name in OF_LOSS)


def chain(*layers):
    model = nn.Sequential(*layers).double()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 1e200)
    return model


def test_overflow_of_the_flow():
    deep = chain(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    result = measured(deep, torch.ones(1, 1), names=OF_FLOW)
    assert result.scores == dict.fromkeys(OF_FLOW, math.inf)
    assert all("overflows" in reason for reason in result.reasons.values())
    lost = chain(nn.Linear(2, 2), nn.Linear(2, 2), nn.LayerNorm(2, elementwise_affine=False))  # inf - inf
    result = measured(lost, torch.ones(1, 2), names=OF_FLOW)
    assert result.scores == dict.fromkeys(OF_FLOW, -math.inf)
    assert all("NaN" in reason for reason in result.reasons.values())
    deep[0].bias.data.fill_(math.nan)
    with pytest.raises(InputError, match="NaN outputs"):
        value("synflow", deep, torch.ones(1, 1), None)


def test_flow_needs_floats():
    tokens = nn.Sequential(nn.Embedding(3, 2), nn.Flatten(), nn.Linear(8, 2))
    with pytest.raises(InputError, match="integers, such as token ids"):
        value("synflow", tokens, torch.zeros(2, 4, dtype=torch.int64), None)

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 1, bias=False)

        def forward(self, pixels, mask):
            return {"logits": self.head(pixels * mask)}

    model = Masked()
    nn.init.constant_(model.head.weight, 3.0)
    mask = torch.tensor([[1, 0], [1, 1]])  # that of the first image
    assert value("synflow", model, {"pixels": torch.zeros(2, 2), "mask": mask}, None) == 3.0


def test_flow_of_a_model_made_in_inference_mode(model):
    expected = naswot.measure(model, IMAGES, OF_FLOW)
    with torch.inference_mode():
        frozen = set_weights(Residual()).double()
        assert naswot.measure(frozen, IMAGES, OF_FLOW) == expected


@pytest.mark.parametrize("name", [*OF_LOSS, "l2_norm", *OF_FLOW])
def test_unsuitable_models(name, model):
    no_layer = nn.Sequential(nn.Flatten(), nn.LayerNorm(72))
    with pytest.raises(InputError, match="no convolution or linear layer"):
        value(name, no_layer, IMAGES, TARGETS)
    nn.utils.parametrizations.weight_norm(model.head)
    with pytest.raises(InputError, match="'head' is no parameter"):
        value(name, model)


@pytest.mark.parametrize("name", ["grad_norm", "snip", "plain", "grasp"])
def test_frozen_weights(name, model):
    for module in (model.stem[0], model.branch[0], model.branch[2], model.head):
        module.weight.requires_grad_(False)
    with pytest.raises(InputError, match="frozen"):
        value(name, model)


def test_grasp_says_what_cannot_be_differentiated_twice():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        @once_differentiable
        def backward(ctx, gradient):
            return gradient * 2

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            return Once.apply(self.layer(x))

    with pytest.raises(InputError, match="differentiates twice"):
        value("grasp", Model(), torch.ones(2, 2), torch.tensor([0, 1]))


def test_fisher_counts_images_first(model):
    with pytest.raises(InputError, match="batch_dim"):
        naswot.measure(nn.Linear(2, 2), Batch(torch.ones(2, 2), torch.tensor([0, 1])), ["fisher"], batch_dim=1)


@pytest.mark.parametrize("name", OF_LOSS)
def test_labels_are_asked_for(name, model):
    with pytest.raises(InputError, match="needs labels"):
        naswot.measure(model, IMAGES, [name])
