"""Observers of gradients: what they are shown, that they share their passes, and what becomes of undefined scores."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from naswot.errors import InputError
from naswot.measuring import run_proxies
from naswot.observers import Gradient, Module, Operation, OutputGradient, SampleGradient
from naswot.passes import Passes
from naswot.proxy import Proxy
from naswot.testing.networks import small_batch, small_network
from naswot.testing.traces import Traces
from naswot.types import Batch


def collect(*event):
    return (event,)


def collect_copy(gradients):
    return ({name: gradient.clone() for name, gradient in gradients.items()},)


def observe(model, batch, *observers):
    with Passes(model, batch) as passes:
        passes.observe(observers)
        return passes.seen(dict(enumerate(observers))), passes


class InPlace(nn.Module):
    """What the convolution gives is overwritten by the activation behind it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x):
        return self.linear(self.conv(x).relu_().mean((2, 3)))


def test_gradient_of_an_output_that_is_overwritten_in_place():
    model, batch = InPlace(), small_batch()
    seen, _ = observe(model, batch, OutputGradient((nn.Conv2d, nn.Linear), collect))
    before = model.conv(batch.inputs).detach().requires_grad_()
    logits = model.linear(F.relu(before).mean((2, 3)))
    expected = torch.autograd.grad(F.cross_entropy(logits, batch.targets), [before, logits])
    assert [module for module, _, _ in seen[0]] == [model.conv, model.linear]
    for (_, output, gradient), value, slope in zip(seen[0], [before, logits], expected, strict=True):
        assert torch.equal(output, value)
        assert torch.allclose(gradient, slope, atol=1e-7)
    assert (seen[0][0][1] < 0).any()  # the pre-activation itself, not what overwrote it


def test_gradients_of_parameters_and_outputs_share_one_backward():
    observers = [Gradient(collect), OutputGradient(nn.Conv2d, collect), OutputGradient(nn.Linear, collect)]
    seen, passes = observe(small_network(), small_batch(), *observers)
    assert (passes.n_forwards, passes.n_backwards) == (1, 1)
    assert len(seen[1]) == 3
    assert len(seen[2]) == 1
    assert {name for name, _, _ in seen[0]} == {name for name, _ in small_network().named_parameters()}


def test_outputs_that_the_loss_does_not_reach_are_left_out():
    class Idle(InPlace):
        def forward(self, x):
            self.conv(x)
            return self.linear(x.mean((2, 3)).repeat(1, 2)[:, :4])

    seen, _ = observe(Idle(), small_batch(), OutputGradient((nn.Conv2d, nn.Linear), collect))
    assert [type(module) for module, _, _ in seen[0]] == [nn.Linear]


@pytest.mark.parametrize("of", ["loss", "logits"])
@pytest.mark.parametrize("reading", ["coupled", "single", "eval"])
def test_gradients_of_single_images(reading, of):
    batch = small_batch(4)
    seen, passes = observe(small_network(), batch, SampleGradient(collect_copy, reading, of))
    assert len(seen[0]) == 4
    assert passes.n_backwards == 4
    assert passes.n_forwards == {"coupled": 1, "single": 5, "eval": 2}[reading]
    with Passes(small_network(), batch) as other:
        stacked = other.per_sample_gradients(reading=reading, of=of)
    for name, rows in stacked.items():
        assert torch.equal(torch.stack([gradients[name] for gradients in seen[0]]), rows)


def test_readings_are_shared_by_all_that_ask_for_them():
    observers = [
        SampleGradient(collect, "coupled"),
        SampleGradient(collect_copy, "coupled"),
        Module(nn.Linear, collect),
    ]
    _, passes = observe(small_network(), small_batch(4), *observers)
    assert (passes.n_forwards, passes.n_backwards) == (1, 4)


def test_gradients_of_parts_are_those_of_the_parts_alone():
    batch = small_batch(7)
    with Passes(small_network(), batch) as passes:
        parts = passes.part_gradients(2)
        assert passes.part_gradients(2) is parts
        assert (passes.n_forwards, passes.n_backwards) == (2, 2)
        with pytest.raises(InputError, match="at least 8 images to part, but the batch has 7"):
            passes.part_gradients(8)
    for start, part in zip((0, 3), parts, strict=True):
        alone = Batch(batch.inputs[start : start + 3], batch.targets[start : start + 3])
        with Passes(small_network(), alone) as passes:
            for name, gradient in passes.gradients().items():
                assert torch.equal(part[name], gradient)


def test_reducers_run_without_autograd_and_leave_no_trace():
    model, batch = small_network(), small_batch()

    def product(name, parameter, gradient):
        assert not torch.is_grad_enabled()
        return (parameter * gradient).sum()

    with Traces(model, batch.inputs) as traces:
        seen, _ = observe(model, batch, Gradient(product), OutputGradient(nn.Conv2d, collect))
    assert traces.left == []
    assert not seen[0].requires_grad


def proxy(function, *, higher_is_better=True, **fields):
    return Proxy("some", function, fields.pop("observe", {}), (), higher_is_better, "A 2020", **fields)


@pytest.mark.parametrize(("higher", "worst"), [(True, -math.inf), (False, math.inf)])
def test_undefined_score_is_the_worst_with_its_reason(higher, worst):
    undefined = proxy(lambda seen, passes: passes.undefined("nothing to see"), higher_is_better=higher)
    result = run_proxies(small_network(), small_batch(), [undefined])
    assert result.scores == {"some": worst}
    assert result.reasons == {"some": "nothing to see"}


def test_reason_tells_that_the_loss_was_not_finite():
    model = small_network()
    with torch.no_grad():
        model.classifier.weight.fill_(3e38)
    norm = proxy(lambda seen, passes: seen["g"], observe={"g": Gradient(lambda name, p, g: g.sum())})
    result = run_proxies(model, small_batch(), [norm])
    assert result.scores == {"some": -math.inf}
    assert result.reasons == {"some": "the loss is not finite"}


def test_smallest_batch():
    picky = proxy(lambda seen, passes: torch.ones(()), minimum_images=9)
    with pytest.raises(InputError, match="some needs at least 9 images, but the batch has 8"):
        run_proxies(small_network(), small_batch(), [picky])


def test_own_pass_of_a_scratch_copy_is_counted():
    with Passes(small_network(), small_batch()) as passes, passes.scratch() as copy:
        passes.own_forward(copy, torch.ones(2, 3, 8, 8))
        assert passes.n_forwards == 1
        assert copy is not passes.model


def test_model_made_in_inference_mode_has_no_gradients():
    with torch.inference_mode():
        model = small_network()
    with pytest.raises(InputError, match="made in inference mode"):
        observe(model, small_batch(), Gradient(collect))


@pytest.mark.parametrize("graph", [False, True])
def test_attention_is_seen_whole_with_and_without_a_graph(graph):
    batch = small_batch(4, "vision transformer")
    model = small_network("vision transformer").eval()
    with Passes(model, batch) as passes:
        operations = Operation(lambda packet, args, kwargs, output: (packet,))
        passes.observe([operations], graph=graph)
        seen = passes.seen({"all": operations})["all"]
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.ops.aten._transformer_encoder_layer_fwd not in seen
    assert torch.ops.aten.gelu in seen
