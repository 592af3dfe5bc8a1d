"""Proxies that look at activations and features: against slow twins, on paper, and what sets each apart."""

from __future__ import annotations

import copy
import math

import pytest
import reference.activation_proxies as slow
import torch
from reference.tiny import CellNetwork, images, mlp, plain_convnet, set_weights, wave
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from naswot import Batch, get_proxy, measure
from naswot._patterns import PatternSet
from naswot.errors import InputError, OptionError
from naswot.kernels import packed_codes
from naswot.measuring import run_proxies
from proxies._features import effective_rank
from proxies.dextr import ElementaryNorms, curvature

NAMES = ["lnwot", "swap", "reg_swap", "apd", "near", "meco", "linear_regions", "dextr", "zen"]


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def model(request):
    """A cell with two edges that read the same tensor; BatchNorm trains, as in the default mode of a pass."""
    return set_weights(CellNetwork()).to(request.param).train()


def batch_for(model, n=6):
    return images(n).to(next(model.parameters()).dtype)


def score(model, inputs, name, **options):
    proxy = get_proxy(name, **options)
    result = run_proxies(model, Batch(inputs), [proxy])
    return result.scores[name], result.reasons.get(name)


def close(model, value):
    return pytest.approx(value, rel=1e-9 if next(model.parameters()).dtype == torch.float64 else 2e-4)


# ------------------------------------------------------------------ equal to their twins


@pytest.mark.parametrize("name", ["lnwot", "swap", "apd"])
def test_equal_to_the_slow_twin(model, name):
    inputs = batch_for(model)
    expected = getattr(slow, name)(copy.deepcopy(model), inputs)
    assert score(model, inputs, name)[0] == close(model, expected)


def test_near_equals_the_slow_twin(model):
    inputs = batch_for(model)
    assert score(model, inputs, "near", repeats=1)[0] == close(model, slow.near(copy.deepcopy(model), inputs))


@pytest.mark.parametrize("containers", [False, True])
def test_meco_equals_the_slow_twin(model, containers):
    image = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(batch_for(model).dtype)
    expected = slow.meco(copy.deepcopy(model), image, containers=containers)
    assert expected > 0.01
    assert score(model, batch_for(model), "meco", size=16, containers=containers)[0] == close(model, expected)


def test_linear_regions_equal_the_slow_twin():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 3), nn.ReLU(), nn.Flatten())
    set_weights(model)
    inputs = torch.randn(200, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    expected = slow.linear_regions(model, inputs)
    assert 20 < expected < 200
    assert score(model, wave(2, 1, 8, 8), "linear_regions", n_samples=200)[0] == expected


def test_dextr_equals_the_slow_twin():
    model = set_weights(CellNetwork()).double().train()
    inputs = batch_for(model)
    generator = torch.Generator().manual_seed(0)
    plane = torch.linalg.qr(torch.randn(192, 2, dtype=torch.float64, generator=generator))[0]
    first = math.log(1 + slow.conditioning(copy.deepcopy(model), inputs))
    second = math.log(1 + slow.curvature(copy.deepcopy(model), plane, (3, 8, 8), 4, step=1e-5))
    expected = first * second / (first + second)
    assert score(model, inputs, "dextr", n_points=4)[0] == pytest.approx(expected, rel=1e-4)  # differences: 1e-5


NORMS = {
    "batch": [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5)],
    "layer": [nn.Conv2d(3, 4, 1), nn.LayerNorm([8, 8]), nn.SiLU(), nn.Flatten(), nn.LayerNorm(256), nn.Linear(256, 5)],
    "group": [nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.GELU(), nn.Flatten(), nn.Linear(144, 5)],
    "attention": [
        nn.Conv2d(3, 8, 4, stride=4),
        nn.Flatten(2),
        nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, activation="gelu", batch_first=True),
        nn.Flatten(),
        nn.Linear(32, 5),
    ],
}


@pytest.mark.parametrize("kind", NORMS)
def test_curvature_equals_differences(kind):
    model = set_weights(nn.Sequential(*NORMS[kind])).double().train()
    plane = torch.linalg.qr(wave(192, 2).double())[0]
    angle = torch.zeros((), dtype=torch.float64, requires_grad=True)
    angles = angle + torch.arange(3, dtype=torch.float64) * (2 * math.pi / 3)
    points = torch.stack([angles.cos(), angles.sin()], dim=1) @ plane.t()
    with ElementaryNorms(), sdpa_kernel(SDPBackend.MATH):
        outputs = model(points.reshape(3, 3, 8, 8))
        value = curvature(outputs, angle).mean().item()
    assert value == pytest.approx(slow.curvature(model, plane, (3, 8, 8), 3), rel=1e-5)


def test_zen_equals_the_slow_twin(model):
    twin = copy.deepcopy(model)
    expected = slow.zen(twin, twin.head[1], (3, 8, 8), repeats=2, n_images=4, gamma=0.01)
    value, _ = score(model, batch_for(model), "zen", repeats=2, n_images=4)
    tolerance = 1e-9 if next(model.parameters()).dtype == torch.float64 else 1e-3  # a difference of nearly equal maps
    assert value == pytest.approx(expected, rel=tolerance)


# ------------------------------------------------------------------ on paper


def two_layers():
    """2 -> 2 -> 1 with ReLU behind each: the second unit sees the sum of the first two."""
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]]))
        model[2].weight.fill_(1.0)
        model[2].bias.fill_(-2.5)
    return model


SIGNS = torch.tensor([[1.0, 1.0], [1.0, -1.0]])


def test_lnwot_and_swap_on_paper():
    # first layer: codes 111 and 100, K = [[3, 1], [1, 3]], log 8; second: 1 + 1 + 2 - 2.5 > 0 and 1 - 2.5 < 0,
    # codes 1 and 0, K = [[1, 0], [0, 1]], log 1. Patterns over the images: 11, 10, 10 and 10: two of four.
    assert measure(two_layers(), SIGNS, ["lnwot", "swap"]) == {"lnwot": pytest.approx(math.log(8)), "swap": 2.0}


def test_reg_swap_on_paper():
    # 6 + 3 + 1 + 2 + 2 = 14 parameters; two patterns
    value, _ = score(two_layers(), SIGNS, "reg_swap", mu=24e-6, sigma=2e-10)
    assert value == pytest.approx(2 * math.exp(-0.5))


def test_apd_on_paper():
    # one channel of one pixel, normalised: +-1 for two images, a matrix (2, 1) of rank 1, stable rank 1;
    # the convolution's weight (3, 4): 7 / 5
    model = nn.Sequential(nn.Conv2d(2, 1, 1, bias=False), nn.BatchNorm2d(1), nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1))
    assert measure(model, wave(2, 2, 1, 1), "apd") == {"apd": pytest.approx(1.4, rel=1e-5)}


def test_effective_rank_on_paper():
    # singular values 3 and 1: p = 3/4 and 1/4, entropy log 4 - 3/4 log 3
    assert effective_rank(torch.diag(torch.tensor([3.0, -1.0]))).item() == pytest.approx(4 / 3**0.75)
    assert effective_rank(torch.zeros(2, 2)).item() == 0


def test_near_on_paper():
    # the identity on two unit vectors: each of the output, its ReLU and the last layer has effective rank 2
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    for layer in (model[0], model[2]):
        nn.init.eye_(layer.weight)
    assert score(model, torch.eye(2), "near", repeats=1) == (pytest.approx(6.0), None)


def test_meco_on_paper():
    # two equal channels correlate by 1: eigenvalues 0 and 2. Two channels x and -x after a ReLU share no pixel
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.ReLU())
    nn.init.ones_(model[0].weight)
    assert score(model, wave(2, 1, 8, 8), "meco") == (pytest.approx(0.0, abs=1e-9), None)
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.ReLU())
    assert score(model, wave(2, 1, 8, 8), "meco") == (pytest.approx(1.0), None)  # one channel correlates with itself


def test_dextr_on_paper():
    # the output is the input: a circle of radius 1, curvature 1, B = log 2. The only features are the identity
    # matrix of the first image, ratio 1, A = log 2. The score is log 2 / 2
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten())
    nn.init.ones_(model[0].weight)
    model = nn.Sequential(model, nn.Linear(4, 4, bias=False), nn.ReLU6(), nn.Identity())
    nn.init.eye_(model[1].weight)
    shift = nn.Linear(4, 4)
    nn.init.eye_(shift.weight), nn.init.constant_(shift.bias, 3.0)  # stays on the straight part of the ReLU6
    model[1] = shift
    assert score(model, wave(2, 1, 2, 2), "dextr") == (pytest.approx(math.log(2) / 2), None)


def test_zen_on_paper():
    # one 1x1 convolution: |f(x) - f(x')| = gamma |w| |noise|; nothing normalises, so doubling gamma adds log 2
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.ReLU())
    one, two = (score(model, wave(2, 1, 4, 4), "zen", gamma=g, repeats=3)[0] for g in (0.01, 0.02))
    assert two - one == pytest.approx(math.log(2), abs=1e-4)
    # E log |w| = -0.635 for w of N(0, 1), and the sum of 16 |noise| is about 16 * 0.798
    many, _ = score(model, wave(2, 1, 4, 4), "zen", repeats=200)
    assert many == pytest.approx(math.log(0.01 * 16 * 0.798) - 0.635, abs=0.3)


# ------------------------------------------------------------------ what sets them apart


@pytest.mark.parametrize("n", [1, 5, 64, 65, 130])
def test_pattern_sets_agree_with_a_set_of_tuples(n, monkeypatch):
    monkeypatch.setattr("naswot._patterns._CAPACITY", 64)
    calls = [wave(n, d, start=7 * d) for d in (3, 64, 65, 200)]
    calls.append(calls[1][:, :10])
    calls.append(torch.zeros(n, 3))
    calls.append(torch.cat([torch.ones(n, 40)[:64], calls[3][64:, :40]]))  # told apart by the images behind the 64th
    compiled, expected = PatternSet(n), set()
    for values in calls:
        compiled.insert(packed_codes(values).numpy(), values.shape[1])
        expected |= {tuple(unit) for unit in (values > 0).t().tolist()}
        assert len(compiled) == len(expected)


@pytest.mark.parametrize("n", [5, 70])
def test_swap_without_numba(n, monkeypatch):
    model, inputs = set_weights(CellNetwork()), images(n)
    expected = measure(model, inputs, ["swap"])
    monkeypatch.setattr("proxies._patterns.packed_units", lambda call: None)
    assert measure(model, inputs, ["swap"]) == expected


def test_calls_on_the_same_tensor_are_looked_at_once(monkeypatch):
    taken = []
    monkeypatch.setattr("naswot._patterns._append", lambda *args: taken.append(args))
    measure(set_weights(CellNetwork()), images(), ["swap", "reg_swap"])
    assert len(taken) == 3  # of four calls, the first two read one tensor


def test_lnwot_counts_a_shared_tensor_for_each_call():
    # edges a and b read one tensor, so its determinant counts twice; twice the batch's units change nothing
    class Twice(nn.Module):
        def forward(self, x):
            return torch.relu(x) + torch.relu(x)

    once, _ = score(nn.ReLU(), wave(4, 9), "lnwot")
    assert score(Twice(), wave(4, 9), "lnwot")[0] == pytest.approx(2 * once)


@pytest.mark.parametrize("name", ["lnwot", "swap", "apd"])
def test_scale_of_the_weights_does_not_matter(name):
    model, inputs = set_weights(CellNetwork()).double(), images().double()
    before = measure(model, inputs, [name])[name]
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(3.0)
    assert measure(model, inputs, [name])[name] == pytest.approx(before, rel=1e-4)  # BatchNorm's eps


def test_reg_swap_prefers_the_wanted_size():
    large = mlp()  # 289 parameters
    inputs = wave(6, 10)
    near_size, far = (score(large, inputs, "reg_swap", mu=mu, sigma=1e-9)[0] for mu in (289e-6, 320e-6))
    assert near_size == measure(large, inputs, "swap")["swap"] > far > 0


def test_linear_regions_saturate_and_grow():
    narrow = set_weights(nn.Sequential(nn.Conv2d(3, 1, 3), nn.ReLU(), nn.Flatten()))
    assert score(narrow, wave(2, 3, 8, 8), "linear_regions", n_samples=50) == (2.0, None)  # one unit: on or off
    wide = set_weights(nn.Sequential(nn.Conv2d(3, 40, 3, padding=1), nn.ReLU(), nn.Flatten()))
    assert score(wide, wave(2, 3, 8, 8), "linear_regions", n_samples=50) == (50.0, None)


def test_near_averages_over_initialisations():
    model, inputs = mlp(), wave(12, 10)
    values = {score(model, inputs, "near", repeats=repeats)[0] for repeats in (1, 2, 3)}
    assert len(values) == 3
    before = copy.deepcopy(model.state_dict())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_zen_does_not_depend_on_the_model_s_weights():
    one, other = CellNetwork(), set_weights(CellNetwork())
    assert score(one, images(), "zen", repeats=2) == score(other, images(5), "zen", repeats=2)


# ------------------------------------------------------------------ undefined and unsuitable


def test_singular_layers_and_jitter():
    model, inputs = two_layers(), torch.cat([SIGNS, SIGNS[:1]])
    # codes 111 100 111 and 1 0 1: both kernels have a zero eigenvalue
    value, reason = score(model, inputs, "lnwot")
    assert value == -math.inf
    assert reason == "the kernels of 2 of 2 activation calls are singular"
    # eigenvalues of [[3, 1, 3], [1, 3, 1], [3, 1, 3]]: 0 and those of product 2 * 9 - 2 = 16; of the second: 0, 1, 2
    jittered, _ = score(model, inputs, "lnwot", jitter=1e-9)
    assert jittered == pytest.approx(2 * math.log(1e-9) + math.log(16) + math.log(2), rel=1e-6)
    regular = SIGNS
    assert score(model, regular, "lnwot", jitter=0.5) == score(model, regular, "lnwot")
    with pytest.raises(OptionError, match="jitter of at least 0"):
        score(model, regular, "lnwot", jitter=-1.0)


def test_reg_swap_underflows_in_words():
    value, reason = score(mlp(), wave(6, 10), "reg_swap", mu=100.0, sigma=0.1)
    assert value == -math.inf
    assert "too far from mu=100" in reason


def test_dead_branches_have_rank_zero():
    dead = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.ReLU())
    nn.init.zeros_(dead[0].weight), nn.init.zeros_(dead[0].bias)
    assert score(dead, images(), "apd") == (0.0, None)
    constant = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Threshold(1e9, 0.0), nn.AdaptiveAvgPool2d(1))
    value, reason = score(nn.Sequential(constant, nn.Flatten()), images(), "zen", repeats=1)
    assert value == -math.inf
    assert reason == "the features do not depend on the image"
    assert score(nn.Sequential(constant, nn.Flatten()), images(), "dextr")[1].startswith("the output does not move")


@pytest.mark.parametrize(
    ("name", "model", "inputs", "message"),
    [
        ("apd", plain_convnet(), images(), "no BatchNorm"),
        ("apd", nn.Sequential(nn.Linear(10, 4), nn.BatchNorm1d(4), nn.ReLU()), wave(6, 10), "no convolution"),
        ("meco", mlp(), wave(6, 10), r"one input \(N, C, H, W\); got \(6, 10\)"),
        ("meco", plain_convnet(), images(), r"images of shape \(3, 64, 64\), which the model does not take.*size=None"),
        ("linear_regions", plain_convnet(), images(), r"shape \(3, 3, 3\), which the model does not take"),
        ("dextr", mlp(), wave(6, 10), r"one input \(N, C, H, W\)"),
        ("zen", nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU()), images(), "has none"),
        ("zen", nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()), images(), "the model does neither"),
    ],
)
def test_unsuitable_models_are_refused_in_words(name, model, inputs, message):
    with pytest.raises(InputError, match=message):
        measure(model, inputs, [name])


def test_size_none_takes_the_size_of_the_batch():
    assert score(plain_convnet(), images(), "meco", size=None)[0] >= 0
    assert score(plain_convnet(), images(), "linear_regions", size=None, n_samples=20)[0] == 20


def test_labels_are_not_needed_and_company_does_not_matter():
    model, inputs = set_weights(CellNetwork()), images()
    together = measure(model, inputs, ["naswot", *NAMES, "flops"])
    for name in NAMES:
        assert measure(model, inputs, [name])[name] == together[name], name
