"""score, explain, hamming_kernel, binary_codes and measure: one truth among them, and clear words for bad input."""

from __future__ import annotations

import copy
import inspect
import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.bits import bits
from reference.slow_kernel import slow_network_kernel
from reference.tiny import CellNetwork, images, mlp, plain_convnet, set_weights, wave
from torch import nn

import naswot
from naswot.errors import (
    InputError,
    ModelError,
    NaswotError,
    NoActivationError,
    ShapeError,
    UnknownNameError,
    UntappedWarning,
)
from naswot.kernels import log_determinant
from naswot.types import Batch

IMAGES = images(12)


@pytest.fixture
def network():
    return set_weights(CellNetwork())


# --- exactness ---------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 9),
    widths=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    norm=st.booleans(),
    inplace=st.booleans(),
)
def test_random_networks_equal_the_slow_twin_bit_for_bit(seed, n, widths, norm, inplace):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers, channels = [], 2
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, padding=1), *([nn.BatchNorm2d(width)] if norm else [])]
            layers += [nn.ReLU(inplace=inplace)]
            channels = width
        model, x = nn.Sequential(*layers), torch.randn(n, 2, 5, 4)
    expected = slow_network_kernel(copy.deepcopy(model), x)
    assert naswot.hamming_kernel(model, x).tolist() == expected.tolist()


def test_all_views_of_the_score_agree(network):
    kernel, codes = naswot.hamming_kernel(network, IMAGES), naswot.binary_codes(network, IMAGES)
    details, score = naswot.explain(network, IMAGES), naswot.score(network, IMAGES)
    assert (kernel.dtype, codes.dtype) == (torch.float64, torch.bool)
    n_units = codes.shape[1]
    agreements = (codes[:, None, :] == codes[None, :, :]).sum(dim=2)
    assert kernel.tolist() == agreements.tolist() == slow_network_kernel(copy.deepcopy(network), IMAGES).tolist()
    assert kernel.diagonal().tolist() == [n_units] * 12
    assert score == details.log_det == log_determinant(kernel).value
    assert (details.n_images, details.n_units, details.rank, details.sign) == (12, n_units, 12, 1)
    assert details.reason is None
    assert details.size_term == pytest.approx(12 * math.log(n_units), rel=1e-15)
    assert details.size_term + details.diversity_term == pytest.approx(score, rel=1e-15)
    assert details.diversity_term < 0
    assert sum(layer.n_units for layer in details.layers) == n_units
    measured = naswot.measure(network, IMAGES, ["naswot", "naswot_size", "naswot_diversity"])
    assert measured["naswot"] == score
    assert measured["naswot_size"] == pytest.approx(details.size_term, rel=1e-15)
    assert measured["naswot_diversity"] == pytest.approx(details.diversity_term, rel=1e-12)


def test_codes_lie_layer_by_layer(network):
    layers = naswot.explain(network, IMAGES).layers
    assert [(layer.module, layer.function) for layer in layers] == [
        ("edge_a.0", "relu"),
        ("edge_b.0", "relu"),
        ("edge_c.0", "relu"),
        ("head.1", "relu"),
    ]
    codes = naswot.binary_codes(network, IMAGES).split([layer.n_units for layer in layers], dim=1)
    assert torch.equal(codes[0], codes[1])  # two edges read the stem
    assert not torch.equal(codes[0], codes[2])


def test_units_are_counted_on_paper(network):
    # 4 channels: two edges and the third at 8x8, the head at 4x4 after a stride of 2
    assert [layer.n_units for layer in naswot.explain(network, IMAGES).layers] == [256, 256, 256, 64]


@pytest.mark.parametrize("taps", ["relu", "all", "mellor"])
@pytest.mark.parametrize("mode", ["train", "eval", "as_is"])
def test_options_reach_every_function(network, taps, mode):
    options = {"taps": taps, "mode": mode, "seed": 3}
    kernel = naswot.hamming_kernel(network, IMAGES, **options)
    assert naswot.score(network, IMAGES, **options) == log_determinant(kernel).value
    assert naswot.explain(network, IMAGES, **options).log_det == log_determinant(kernel).value
    assert naswot.binary_codes(network, IMAGES, **options).shape == (12, int(kernel[0, 0]))
    assert naswot.measure(network, IMAGES, ["naswot"], **options) == {"naswot": log_determinant(kernel).value}


def test_another_process_gives_the_same_bits():
    """Whatever order its sets and dictionaries of strings have."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    env = {**os.environ, "PYTHONHASHSEED": "977", "PYTHONPATH": path}
    command = [sys.executable, "-m", "reference.bits"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == bits()


def test_signatures_are_those_of_the_design():
    for function in (naswot.score, naswot.explain, naswot.hamming_kernel, naswot.binary_codes):
        parameters = list(inspect.signature(function).parameters.values())
        assert [p.name for p in parameters[:2]] == ["model", "inputs"]
        assert all(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in parameters[2:])
        assert inspect.signature(function).parameters["seed"].default == 0
    parameters = inspect.signature(naswot.measure).parameters
    assert list(parameters)[:3] == ["model", "batch", "proxies"]
    defaults = naswot.PassOptions()
    assert (defaults.taps, defaults.mode) == ("all", "train")


def test_score_stays_the_function():
    import naswot.scoring

    assert callable(naswot.score)
    assert naswot.score is naswot.scoring.score


def test_public_names_are_there():
    for name in naswot.__all__:
        assert getattr(naswot, name) is not None
        assert name in dir(naswot)
    with pytest.raises(AttributeError, match="module 'naswot' has no attribute 'scores'"):
        _ = naswot.scores


# --- inputs ------------------------------------------------------------------------------------------------------


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(10, 8), nn.Linear(4, 8)

    def forward(self, x, y):
        return torch.relu(self.a(x) + self.b(y))


def test_inputs_may_be_a_tuple_a_mapping_or_a_batch():
    model, x, y = set_weights(TwoInputs()), wave(6, 10), wave(6, 4)
    expected = naswot.score(model, (x, y))
    assert math.isfinite(expected)
    assert naswot.score(model, {"y": y, "x": x}) == expected
    assert naswot.score(model, Batch((x, y))) == expected
    assert naswot.score(model, Batch({"x": x, "y": y}, torch.zeros(6, dtype=torch.int64))) == expected
    assert naswot.score(model, [x, y]) == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_inputs_take_the_floating_type_of_the_model(dtype):
    model = set_weights(CellNetwork()).to(dtype)
    details = naswot.explain(model, IMAGES)
    assert math.isfinite(details.log_det)
    assert details.n_units == 832
    kernel = naswot.hamming_kernel(model, IMAGES)
    codes = naswot.binary_codes(model, IMAGES.to(dtype))
    assert kernel.tolist() == (codes[:, None, :] == codes[None, :, :]).sum(dim=2).tolist()


def test_inputs_may_be_more_precise_than_the_model(network):
    assert naswot.score(network, IMAGES.double()) == naswot.score(network, IMAGES)


def test_one_image_scores_the_log_of_its_units(network):
    details = naswot.explain(network, IMAGES[:1], mode="eval")
    assert details.log_det == pytest.approx(math.log(details.n_units), rel=1e-15)
    assert details.diversity_term == pytest.approx(0.0, abs=1e-12)
    assert naswot.binary_codes(network, IMAGES[:1]).shape == (1, 832)


def test_a_model_in_evaluation_mode_scores_the_same(network):
    assert naswot.score(network.eval(), IMAGES) == naswot.score(network.train(), IMAGES)
    assert not network.eval().training


def test_fast_is_close_to_the_default():
    model = set_weights(CellNetwork(width=16))
    exact, fast = naswot.score(model, images(16)), naswot.score(model, images(16), fast=True)
    assert fast == pytest.approx(exact, abs=0.1)  # bfloat16 moves signs of pre-activations next to zero
    laid_out = naswot.score(model, images(16), channels_last=True)
    assert laid_out == pytest.approx(exact, abs=1e-2)
    assert naswot.hamming_kernel(model, images(16), fast=True).diagonal().tolist() == [3328.0] * 16


def test_bfloat16_counts_are_integers_without_numba_too(monkeypatch):
    from naswot import kernels

    model = set_weights(CellNetwork(width=16))
    expected = naswot.hamming_kernel(model, images(16), bfloat16=True)
    monkeypatch.setattr(kernels, "_compiled", lambda: None)
    assert torch.equal(naswot.hamming_kernel(model, images(16), bfloat16=True), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_inputs_follow_the_model_to_its_device(network):
    expected = naswot.hamming_kernel(network, IMAGES)
    kernel = naswot.hamming_kernel(network.cuda(), IMAGES)
    assert kernel.device.type == "cuda"
    assert (kernel.cpu() - expected).abs().max() <= 0.01 * expected.max()  # convolutions round differently there
    codes = naswot.binary_codes(network, IMAGES)
    assert kernel.tolist() == (codes[:, None, :] == codes[None, :, :]).sum(dim=2).tolist()


def test_params_and_flops_of_a_model_without_storage(network):
    scores = naswot.measure(network, IMAGES, ["params", "flops", "trainable_layers"])
    on_meta = copy.deepcopy(network).to("meta")
    assert naswot.measure(on_meta, IMAGES, ["params", "flops", "trainable_layers"]) == scores


# --- bad input ---------------------------------------------------------------------------------------------------


class Raises(nn.Module):
    def forward(self, x):
        raise KeyError("weights")


def zeroed(model, value=0.0):
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    return model


BAD = {
    "a model that raises": (
        lambda: naswot.score(Raises(), IMAGES),
        ModelError,
        r"the model Raises raised KeyError: 'weights' \(inputs \(12, 3, 8, 8\) torch.float32 on cpu\)",
    ),
    "images of the wrong shape": (
        lambda: naswot.score(plain_convnet(), wave(12, 192)),
        ModelError,
        r"the model Sequential raised RuntimeError: .*\(inputs \(12, 192\)",
    ),
    "one dimension": (
        lambda: naswot.score(mlp(), wave(10)),
        ShapeError,
        r"expected inputs of shape \(N, C, H, W\) or \(N, features\), but got \(10,\)",
    ),
    "a number": (
        lambda: naswot.score(mlp(), torch.tensor(3.0)),
        ShapeError,
        r"batch dimension 0, but got shapes \[\(\)\]",
    ),
    "no image": (lambda: naswot.score(mlp(), wave(0, 10)), ShapeError, r"at least one image, .*\(0, 10\)"),
    "no tensor": (lambda: naswot.score(mlp(), {"x": 3}), InputError, "at least one tensor, but got dict"),
    "nothing": (lambda: naswot.score(mlp(), None), InputError, "at least one tensor, but got NoneType"),
    "an array": (lambda: naswot.score(mlp(), wave(6, 10).numpy()), InputError, "at least one tensor, but got ndarray"),
    "NaN among the inputs": (
        lambda: naswot.score(mlp(), wave(6, 10).index_fill(1, torch.tensor([3]), math.nan)),
        InputError,
        r"expected inputs as finite numbers, but got 6 NaN and 0 infinite values among the 60 of shape \(6, 10\)",
    ),
    "infinite inputs": (
        lambda: naswot.score(mlp(), {"input": wave(6, 10) / torch.zeros(10)}),
        InputError,
        r"expected input 'input' as finite numbers, but got 0 NaN and 60 infinite",
    ),
    "NaN among the weights": (
        lambda: naswot.score(zeroed(mlp(), math.nan), wave(6, 10)),
        InputError,
        "the model Sequential turned finite inputs into NaN outputs; its weights may hold NaN",
    ),
    "uint8 images": (
        lambda: naswot.score(plain_convnet(), (IMAGES * 255).to(torch.uint8)),
        InputError,
        r"expected inputs as floating-point images, but got torch.uint8 .*convert them by images.float\(\) / 255",
    ),
    "int64 images": (
        lambda: naswot.score(plain_convnet(), (IMAGES * 255).long()),
        InputError,
        "expected inputs as floating-point images, but got torch.int64",
    ),
    "inputs without storage": (
        lambda: naswot.score(mlp(), wave(6, 10).to("meta")),
        InputError,
        "the inputs lie on the meta device",
    ),
    "a model without storage": (
        lambda: naswot.score(mlp().to("meta"), wave(6, 10)),
        InputError,
        "meta device hold no numbers",
    ),
    "no activation": (
        lambda: naswot.score(nn.Sequential(nn.Linear(10, 3), nn.Tanh()), wave(6, 10)),
        NoActivationError,
        r"met no activation that taps='all' counts; met instead: tanh \(1\)",
    ),
    "activations without units": (
        lambda: naswot.score(nn.Sequential(nn.Flatten(), nn.Linear(10, 0), nn.ReLU()), wave(6, 10)),
        NoActivationError,
        "met no activation",
    ),
    "a function as model": (
        lambda: naswot.score(lambda x: x, wave(6, 10)),
        InputError,
        "expected a model of type torch.nn.Module, but got function",
    ),
    "a class as model": (lambda: naswot.score(nn.ReLU, wave(6, 10)), InputError, "torch.nn.Module, but got type"),
    "labels of the wrong number": (
        lambda: naswot.score(mlp(), Batch(wave(6, 10), torch.zeros(5, dtype=torch.int64))),
        ShapeError,
        r"expected targets of shape \(6,\), but got \(5,\)",
    ),
    "labels that are no classes": (
        lambda: naswot.score(mlp(), Batch(wave(6, 10), torch.zeros(6))),
        InputError,
        r"expected integer class labels \(N,\) as targets, but got torch.float32",
    ),
    "an unknown proxy": (
        lambda: naswot.measure(mlp(), wave(6, 10), ["param"]),
        UnknownNameError,
        "unknown proxy 'param'; did you mean 'params'\\? `naswot list proxies` shows all",
    ),
    "an unknown option": (
        lambda: naswot.score(mlp(), wave(6, 10), tap="relu"),
        UnknownNameError,
        "unknown option 'tap'; did you mean 'taps'",
    ),
    "an unknown option of measure": (
        lambda: naswot.measure(mlp(), wave(6, 10), ["params"], modes="eval"),
        UnknownNameError,
        "unknown option 'modes'; did you mean 'mode'",
    ),
}


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    run, error, message = BAD[case]
    with pytest.raises(error, match=message) as caught:
        run()
    assert isinstance(caught.value, NaswotError)


def test_the_cause_of_a_failing_model_is_kept():
    with pytest.raises(ModelError) as caught:
        naswot.score(Raises(), IMAGES)
    assert isinstance(caught.value.__cause__, KeyError)
    assert isinstance(caught.value, RuntimeError)


def test_nan_hidden_in_a_mapping_is_found():
    class Mapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = zeroed(mlp(), math.nan)

        def forward(self, x):
            return {"logits": self.inner(x)}

    with pytest.raises(InputError, match="into NaN outputs"):
        naswot.score(Mapped(), wave(6, 10))


def test_all_codes_equal():
    details = naswot.explain(zeroed(mlp()), wave(6, 10))
    assert (details.log_det, details.diversity_term) == (-math.inf, -math.inf)
    assert (details.sign, details.rank, details.n_duplicate_codes) == (0, 1, 5)
    assert details.reason == "all 6 images have the same code"
    assert details.size_term == pytest.approx(6 * math.log(21), rel=1e-15)
    assert naswot.score(zeroed(mlp()), wave(6, 10)) == -math.inf


def test_some_images_twice(network):
    details = naswot.explain(network, IMAGES[[0, 1, 2, 1]])
    assert details.log_det == -math.inf
    assert details.reason == "1 of 4 images repeat the code of another; rank 3"
    assert naswot.measure(network, IMAGES[[0, 1, 1]], ["naswot_diversity"]) == {"naswot_diversity": -math.inf}


def test_more_images_than_units():
    model = nn.Sequential(nn.Linear(10, 2), nn.ReLU())
    details = naswot.explain(model, wave(4, 10))
    assert details.log_det == -math.inf
    assert details.reason is not None


def test_reasons_come_with_the_measurement():
    from naswot.measuring import run_proxies
    from naswot.proxy import get_proxy

    chosen = [get_proxy("naswot"), get_proxy("params")]
    result = run_proxies(zeroed(mlp()), Batch(wave(6, 10)), chosen)
    assert result.reasons == {"naswot": "all 6 images have the same code"}
    assert result.scores["params"] == 289
    assert result.seconds > 0


def test_opaque_code_warns_once_by_a_category_of_its_own():
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.jit.script(torch.nn.Sequential(torch.nn.Linear(4, 4)))
    )
    with pytest.warns(UntappedWarning, match="ScriptModule"):
        naswot.score(model, torch.randn(2, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        naswot.score(model[:2], torch.randn(2, 4))
