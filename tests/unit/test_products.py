"""Products of the passes against plain loops, and where the logits come from."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from reference.tiny import (
    BATCH,
    IMAGES,
    TARGETS,
    CellNetwork,
    Counting,
    is_close,
    mlp,
    plain_convnet,
    set_weights,
    wave,
)
from torch import nn

import naswot
from naswot.errors import InputError, OptionError, OutputError
from naswot.measuring import run_proxies
from naswot.observers import Gradient
from naswot.options import PassOptions
from naswot.passes import Passes
from naswot.proxy import Proxy, get_proxy
from naswot.types import Batch


@pytest.fixture
def network():
    return set_weights(CellNetwork())


def squares(name, parameter, gradient):
    return gradient.double().square().sum()


GRADIENT = Proxy("gradient", lambda seen, passes: seen["g"], {"g": Gradient(squares)}, (), True, "test")


# --- products --------------------------------------------------------------------------------------------------------


def test_outputs_are_the_logits_on_batch_statistics(network):
    expected = copy.deepcopy(network).train()(IMAGES)
    with Passes(network, BATCH) as passes:
        assert torch.equal(passes.outputs(), expected)
        assert torch.equal(passes.outputs(), expected)
        assert passes.n_forwards == 1
        assert passes.loss().item() == F.cross_entropy(expected, TARGETS).item()


def test_gradients_equal_autograd_by_hand(network):
    twin = copy.deepcopy(network).train()
    F.cross_entropy(twin(IMAGES), TARGETS).backward()
    with Passes(network, BATCH) as passes:
        gradients = passes.gradients()
        assert passes.gradients() is gradients
        assert (passes.n_forwards, passes.n_backwards) == (1, 1)
        assert gradients.keys() == dict(twin.named_parameters()).keys()
        for name, parameter in twin.named_parameters():
            assert torch.equal(gradients[name], parameter.grad), name


def test_parameters_without_gradient_are_left_out():
    model = mlp()
    model.unused = nn.Linear(3, 3)
    model.forward = lambda x: model[4](model[3](model[2](model[1](model[0](x)))))
    model[0].weight.requires_grad_(False)
    with Passes(model, Batch(wave(6, 10), TARGETS % 4)) as passes:
        assert set(passes.gradients()) == {"0.bias", "2.weight", "2.bias", "4.weight", "4.bias"}


def test_no_trainable_parameter():
    model = mlp().requires_grad_(False)
    with (
        Passes(model, Batch(wave(6, 10), TARGETS % 4)) as passes,
        pytest.raises(InputError, match="no trainable parameter"),
    ):
        passes.gradients()


def test_input_jacobian_equals_a_loop():
    model = set_weights(plain_convnet())
    rows = []
    for i in range(6):
        image = IMAGES[i : i + 1].clone().requires_grad_()
        model(image).sum().backward()
        rows.append(image.grad.reshape(-1))
    with Passes(model, BATCH) as passes:
        jacobian = passes.input_jacobian()
        assert jacobian.shape == (6, 192)
        assert is_close(jacobian, torch.stack(rows))
        assert (passes.n_forwards, passes.n_backwards) == (1, 1)


def test_input_jacobian_shares_the_forward_when_declared(network):
    model = Counting(network)
    jacobian = Proxy("j", lambda seen, passes: passes.input_jacobian().sum(), {}, ("input_jacobian",), True, "test")
    result = run_proxies(model, BATCH, [get_proxy("naswot"), GRADIENT, jacobian])
    # a proxy that needs only the Jacobian joins the pass of the others
    assert (model.n_forwards, result.n_backwards) == (1, 2)


def test_input_jacobian_of_token_ids():
    model = nn.Sequential(nn.Embedding(9, 4), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3))
    tokens = torch.arange(30).reshape(6, 5) % 9
    with Passes(model, Batch(tokens)) as passes, pytest.raises(InputError, match="inputs are integers"):
        passes.input_jacobian()


def plain_rows(model, reading, of):
    """Per-sample gradients by plain loops over copies of the model."""
    model = copy.deepcopy(model)
    model.train(reading != "eval")
    names = [name for name, _ in model.named_parameters()]

    def scalars(inputs, targets):
        logits = model(inputs)
        return logits.sum(dim=1) if of == "logits" else F.cross_entropy(logits, targets, reduction="none")

    rows = []
    for i in range(6):
        one = slice(i, i + 1)
        value = scalars(IMAGES[one], TARGETS[one])[0] if reading == "single" else scalars(IMAGES, TARGETS)[i]
        gradients = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
        rows.append(dict(zip(names, gradients, strict=True)))
    return {name: torch.stack([row[name] for row in rows]) for name in names if rows[0][name] is not None}


@pytest.mark.parametrize("of", ["loss", "logits"])
@pytest.mark.parametrize("reading", ["coupled", "single", "eval"])
def test_per_sample_gradients_equal_plain_loops(network, reading, of):
    expected = plain_rows(network, reading, of)
    modes = [module.training for module in network.modules()]
    with Passes(network, BATCH) as passes:
        inside = [module.training for module in network.modules()]
        rows = passes.per_sample_gradients(reading=reading, of=of)
        assert [module.training for module in network.modules()] == inside
        assert passes.n_backwards == 6
        assert passes.n_forwards == (6 if reading == "single" else 1)
    assert [module.training for module in network.modules()] == modes
    assert rows.keys() == expected.keys()
    for name, value in rows.items():
        assert value.shape == (6, *network.get_parameter(name).shape)
        assert is_close(value, expected[name]), name


def test_readings_differ_where_batchnorm_ties_images(network):
    with Passes(network, BATCH) as passes:
        rows = [passes.per_sample_gradients(reading=r)["classifier.weight"] for r in ("coupled", "single", "eval")]
    assert not is_close(rows[0], rows[1])
    assert not is_close(rows[0], rows[2])


def test_coupled_gradients_average_to_the_gradient(network):
    with Passes(network, BATCH) as passes:
        rows, mean = passes.per_sample_gradients(reading="coupled"), passes.gradients()
        for name, gradient in mean.items():
            assert torch.allclose(rows[name].mean(dim=0), gradient, rtol=1e-4, atol=1e-6), name


def test_unknown_reading(network):
    with Passes(network, BATCH) as passes, pytest.raises(OptionError, match="expected reading 'coupled'"):
        passes.per_sample_gradients(reading="batch")


def test_products_that_need_labels_say_so(network):
    with Passes(network, Batch(IMAGES)) as passes, pytest.raises(InputError, match=r"pass Batch\(inputs, targets\)"):
        passes.gradients()
    with pytest.raises(InputError, match="gradient: the loss needs labels"):
        run_proxies(network, Batch(IMAGES), [GRADIENT])


def test_scratch_is_a_private_copy(network):
    before = copy.deepcopy(network.state_dict())
    with Passes(network, BATCH) as passes:
        expected = passes.outputs().clone()
        with passes.scratch() as scratch:
            first = torch.rand(1)
            assert [m.training for m in scratch.modules()] == [m.training for m in network.modules()]
            for parameter in scratch.parameters():
                parameter.data.zero_()
            scratch(IMAGES).sum().backward()
            scratch.train()
        with passes.scratch() as another:
            assert torch.equal(torch.rand(1), first)
            assert all(p.grad is None for p in another.parameters())
        passes.observe([])
        assert torch.equal(passes.outputs(), expected)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# --- the rule for logits ---------------------------------------------------------------------------------------------


class Wrapped(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.inner, self.wrap = mlp(), wrap

    def forward(self, x):
        return self.wrap(self.inner(x))


class WithLogits:
    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: y,
        WithLogits,
        lambda y: {"logits": y, "features": y[:, :2]},
        lambda y: (y[:, None, :], y),
        lambda y: [y.sum(), y[:, :2], y],
        lambda y: (y, y[:, None, :]),
    ],
    ids=["tensor", "attribute", "mapping", "tuple", "last matrix of a list", "matrix first"],
)
def test_logits_by_the_rule(wrap):
    model = Wrapped(wrap)
    batch = Batch(wave(6, 10), TARGETS % 4)
    with Passes(model, batch) as passes:
        assert torch.equal(passes.outputs(), model.inner(wave(6, 10)))
        assert passes.gradients()


def test_logits_by_the_callers_rule():
    model = Wrapped(lambda y: {"out": y})
    batch = Batch(wave(6, 10), TARGETS % 4)
    with Passes(model, batch, options=PassOptions(output=lambda r: r["out"])) as passes:
        assert torch.equal(passes.outputs(), model.inner(wave(6, 10)))


@pytest.mark.parametrize(
    "wrap", [lambda y: {"out": y}, lambda y: (y[:, None],), lambda y: None], ids=["mapping", "no matrix", "nothing"]
)
def test_no_logits_by_the_rule(wrap):
    model, batch = Wrapped(wrap), Batch(wave(6, 10), TARGETS % 4)
    with Passes(model, batch) as passes, pytest.raises(OutputError, match=r"cannot find logits .*pass output="):
        passes.outputs()
    assert naswot.score(model, wave(6, 10)) == naswot.score(model.inner, wave(6, 10))  # which needs none


def test_logits_that_are_no_matrix():
    model, batch = Wrapped(lambda y: y[:, :, None]), Batch(wave(6, 10), TARGETS % 4)
    with Passes(model, batch) as passes, pytest.raises(OutputError, match=r"shape \(N, K\), but got \(6, 4, 1\)"):
        passes.gradients()


@pytest.mark.parametrize(
    ("names", "forwards", "backwards"),
    [
        (("jacov", "epe_nas"), 1, 1),
        (("jacov", "epe_nas", "snip", "plain"), 1, 2),
        (("synflow", "logsynflow"), 1, 1),
        (("az_expressivity", "az_progressivity"), 1, 0),
        (("vkdnw", "vkdnw_entropy"), 2, 10),  # 2 images of 5 classes
    ],
)
def test_what_several_proxies_ask_for_is_worked_out_once(network, names, forwards, backwards):
    options = {"vkdnw": {"n_images": 2}, "vkdnw_entropy": {"n_images": 2}}
    proxies = [get_proxy(name, **options.get(name, {})) for name in names]
    together = run_proxies(network, BATCH, proxies)
    assert (together.n_forwards, together.n_backwards) == (forwards, backwards)
    for proxy in proxies:
        alone = run_proxies(network, BATCH, [proxy])
        assert alone.scores[proxy.name] == together.scores[proxy.name]
        assert alone.n_backwards <= backwards
