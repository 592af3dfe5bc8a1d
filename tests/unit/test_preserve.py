"""Leave no trace: a model, a batch and the global state come back as they came, whatever happened."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch
from reference.tiny import IMAGES, TARGETS, CellNetwork, mlp, set_weights, wave
from torch import nn

import naswot
from naswot.errors import ModelError
from naswot.options import PassOptions
from naswot.passes import Passes
from naswot.preserve import eager, preserve
from naswot.seeding import seeded
from naswot.testing.traces import Traces
from naswot.types import Batch


class Everything(nn.Module):
    """Every kind of state a pass can touch."""

    def __init__(self, fail: BaseException | None = None) -> None:
        super().__init__()
        self.network = CellNetwork()
        self.frozen = nn.BatchNorm2d(3).eval()
        self.instance = nn.InstanceNorm2d(3, track_running_stats=True)
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(5, 5))
        self.old_spectral = nn.utils.spectral_norm(nn.Linear(5, 5))
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("moved", torch.zeros(3))
        self.register_buffer("reassigned", torch.zeros(2))
        self.register_buffer("resized", torch.zeros(2))
        self.register_buffer("absent", None)
        self.register_buffer("expanded", torch.ones(1).expand(4))
        self.fail = fail

    def forward(self, x):
        self.calls += 1
        self.moved.data.add_(1.0)
        self.reassigned = self.reassigned + 1
        self.resized.data = torch.ones(5)
        self.absent = torch.ones(1)
        if not hasattr(self, "late"):
            self.register_buffer("late", torch.ones(1))
        x = self.dropout(self.instance(self.frozen(x)))
        y = self.old_spectral(self.spectral(self.network(x)))
        random.random(), np.random.rand(), torch.rand(1)
        if self.fail is not None:
            raise self.fail
        return torch.relu(y)


def everything(fail=None):
    torch.manual_seed(3)
    model = Everything(fail)
    model.network.head.eval()
    model.network.stem[0].weight.requires_grad_(False)
    model.network.classifier.weight.grad = wave(*model.network.classifier.weight.shape)
    model.spectral.register_forward_hook(lambda module, args, output: None)
    return model


RUNS = {
    "score": lambda m: naswot.score(m, IMAGES),
    "score as it is": lambda m: naswot.score(m, IMAGES, mode="as_is"),
    "score eval": lambda m: naswot.score(m, IMAGES, mode="eval"),
    "score stopped": lambda m: naswot.score(m, IMAGES, stop_after=2),
    "score mellor": lambda m: naswot.score(m, IMAGES, taps="mellor"),
    "score fast": lambda m: naswot.score(m, IMAGES, fast=True),
    "explain": lambda m: naswot.explain(m, IMAGES),
    "codes": lambda m: naswot.binary_codes(m, IMAGES),
    "measure": lambda m: naswot.measure(m, Batch(IMAGES, TARGETS), ["naswot", "flops", "params"]),
}


def products(model):
    with Passes(model, Batch(IMAGES, TARGETS)) as passes:
        passes.outputs(), passes.gradients(), passes.input_jacobian()
        for reading in ("coupled", "eval"):
            passes.per_sample_gradients(reading=reading)


RUNS["products"] = products


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("run", RUNS)
def test_nothing_is_left_behind(run, training):
    model = everything()
    for module in (model, model.dropout, model.spectral, model.network.edge_a):
        module.training = training
    with Traces(model, IMAGES) as traces:
        RUNS[run](model)
    assert traces.left == []


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)], ids=lambda e: type(e).__name__
)
@pytest.mark.parametrize("run", sorted(RUNS.keys() - {"score stopped"}))
def test_nothing_is_left_behind_by_a_failing_model(run, error):
    model = everything(error)
    with Traces(model, IMAGES) as traces, pytest.raises(ModelError if isinstance(error, ValueError) else type(error)):
        RUNS[run](model)
    assert traces.left == []


def test_batchnorm_statistics_come_back():
    """The version counter of a tensor does not tell that batch norm wrote to it."""
    norm = nn.BatchNorm1d(10)
    model = nn.Sequential(norm, nn.ReLU())
    kept = norm.running_mean, norm.running_var
    naswot.score(model, wave(6, 10) + 3)
    assert (norm.running_mean is kept[0], norm.running_var is kept[1]) == (True, True)
    assert norm.running_mean.tolist() == [0.0] * 10
    assert norm.running_var.tolist() == [1.0] * 10
    assert norm.num_batches_tracked.item() == 0


def test_a_graph_of_the_caller_still_differentiates():
    model = set_weights(CellNetwork())
    loss = model(IMAGES).sum()
    naswot.score(model, IMAGES)
    naswot.score(model, IMAGES, mode="as_is")
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_images_come_back_when_the_model_begins_in_place():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(192, 4))
    x = IMAGES.clone()
    with Passes(model, Batch(x, TARGETS % 4)) as passes:
        passes.outputs()
        first = passes.input_jacobian()
        passes.per_sample_gradients(reading="single")
    assert torch.equal(x, IMAGES)
    assert not x.requires_grad
    assert first.shape == (6, 192)


def test_inputs_that_need_gradients_keep_them_out():
    x = IMAGES.clone().requires_grad_()
    naswot.score(set_weights(CellNetwork()), x)
    assert x.grad is None
    assert x.requires_grad


@pytest.mark.parametrize("mode", ["train", "eval", "as_is"])
def test_lazy_modules_are_given_their_shape_and_can_be_trained(mode):
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(5))
    value = naswot.score(model, IMAGES, mode=mode)
    assert value == naswot.score(model, IMAGES, mode=mode)
    assert model[1].weight.shape == (8, 192)
    assert model[2].running_mean.tolist() == [0.0] * 8
    assert not model[1].weight.is_inference()
    torch.nn.functional.cross_entropy(model(IMAGES), TARGETS).backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert all(module.training for module in model.modules())


def test_lazy_weights_depend_on_the_seed_alone():
    def lazy():
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU())

    torch.manual_seed(1)
    first = naswot.score(lazy(), IMAGES, seed=5)
    torch.manual_seed(2)
    assert naswot.score(lazy(), IMAGES, seed=5) == first
    assert naswot.score(lazy(), IMAGES, seed=6) != first


def test_lazy_model_that_fails():
    with pytest.raises(ModelError):
        naswot.score(nn.Sequential(nn.LazyLinear(3), nn.Linear(4, 2), nn.ReLU()), wave(6, 10))


def test_model_that_caches_a_tensor_can_be_trained():
    class Caching(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.cache = nn.Linear(10, 5), None

        def forward(self, x):
            if self.cache is None:
                self.cache = torch.ones(5) * 2
                self.register_buffer("mask", torch.ones(5))
            return torch.relu(self.linear(x) * self.cache)

    for ambient in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        model = Caching()
        with ambient():
            naswot.score(model, wave(6, 10))
        assert not model.cache.is_inference()
        model(wave(6, 10)).sum().backward()


def test_within_inference_mode_everything_still_works():
    model, batch = set_weights(CellNetwork()), Batch(IMAGES, TARGETS)
    expected = naswot.measure(model, batch, ["naswot", "flops"])
    with torch.inference_mode():
        made_inside = Batch(IMAGES.clone(), TARGETS.clone())
        assert naswot.measure(model, made_inside, ["naswot", "flops"]) == expected
        with Passes(model, made_inside) as passes:
            assert passes.gradients()
            assert passes.input_jacobian().shape == (6, 192)


def test_model_made_in_inference_mode():
    with torch.inference_mode():
        model = CellNetwork()
        set_weights(model)
    with Traces(model) as traces:
        scores = naswot.measure(model, IMAGES, ["naswot", "flops"])
    assert traces.left == []
    assert scores == naswot.measure(set_weights(CellNetwork()), IMAGES, ["naswot", "flops"])


def test_version_counters_and_expanded_buffers():
    model = everything()
    versions = {name: b._version for name, b in model.named_buffers()}
    with preserve(model):
        model.calls.add_(5)
        model.frozen.running_mean.mul_(3)
    assert {name: b._version for name, b in model.named_buffers()} == versions


def test_spectral_norm_vectors_in_training():
    model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(10, 8)), nn.ReLU())
    before = {name: b.clone() for name, b in model.named_buffers()}
    assert len(before) == 2
    naswot.score(model, wave(6, 10), mode="as_is")
    assert all(torch.equal(b, before[name]) for name, b in model.named_buffers())


def test_global_generators_do_not_matter_and_do_not_move():
    model = nn.Sequential(nn.Linear(10, 64), nn.Dropout(0.5), nn.ReLU())
    scores = set()
    for state in (1, 2, 3):
        random.seed(state), np.random.seed(state), torch.manual_seed(state)
        scores.add(naswot.score(model, wave(6, 10), mode="as_is", seed=7))
        drawn = random.random(), np.random.rand(), torch.rand(1).item()
        random.seed(state), np.random.seed(state), torch.manual_seed(state)
        assert drawn == (random.random(), np.random.rand(), torch.rand(1).item())
    assert len(scores) == 1
    assert naswot.score(model, wave(6, 10), mode="as_is", seed=8) not in scores


def test_seeding_does_not_reach_devices_that_are_not_in_use(monkeypatch):
    """Before its first use a CUDA device keeps the last seed for later: it would outlive the block."""
    seeds = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    with seeded(3):
        first = torch.rand(2)
    assert seeds == []
    assert torch.equal(first, torch.rand(2, generator=torch.Generator().manual_seed(3)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::naswot.errors.UntappedWarning")
def test_scripted_module_inside():
    script = torch.jit.script(nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.ReLU()))
    model = nn.Sequential(script, nn.ReLU())
    naswot.score(model, wave(6, 10))
    buffers = dict(script.named_buffers())
    assert buffers["1.running_mean"].tolist() == [0.0] * 8
    assert script.training


@pytest.mark.parametrize("mode", ["train", "eval", "as_is"])
def test_tap_hooks_are_gone(mode):
    model = mlp()
    naswot.explain(model, wave(6, 10), mode=mode)
    with Passes(model, Batch(wave(6, 10)), options=PassOptions(names=True)) as passes:
        passes.outputs()
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._forward_hooks_with_kwargs
        assert not module._forward_pre_hooks_with_kwargs
        assert not module._forward_hooks_always_called


def test_plain_calls_end_with_the_last_thread_that_asked_for_them():
    first_in, second_in, first_out = (threading.Event() for _ in range(3))
    seen = []

    def first():
        with eager():
            first_in.set()
            assert second_in.wait(30)
        seen.append(torch.backends.mha.get_fastpath_enabled())
        first_out.set()

    thread = threading.Thread(target=first)
    thread.start()
    assert first_in.wait(30)
    with eager():
        second_in.set()
        assert first_out.wait(30)
    thread.join()
    assert seen == [False]
    assert torch.backends.mha.get_fastpath_enabled()
