"""The range test: it finds the limit of a quadratic and leaves everything as it was."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from naswot.data.images import ImageSet
from naswot.errors import InputError, OptionError
from naswot.seeding import seeded, torch_generator
from naswot.training.lr_finder import find_learning_rate, range_test
from naswot.training.recipe import get_recipe


def blobs(n=64, split="train"):
    generator = torch_generator(0)
    targets = torch.arange(n) % 2
    images = 0.1 * torch.rand(n, 1, 4, 4, generator=generator) + 0.8 * targets.reshape(-1, 1, 1, 1)
    return ImageSet("blobs", images, targets, 2, (0.5,), (0.5,), split=split)


def network():
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(16, 2)
        )


def quadratic(curvatures, *, momentum=0.0, noise=0.1, seed=0):
    """A step of gradient descent on L w^2 / 2 whose minimum jumps a little, as from batch to batch."""
    rng = np.random.default_rng(seed)
    curvature = np.array(curvatures, dtype=float)
    w, velocity = np.ones(len(curvature)), np.zeros(len(curvature))

    def step(rate):
        nonlocal w, velocity
        away = w - noise * rng.standard_normal(len(curvature))
        velocity = momentum * velocity + curvature * away
        w = w - rate * velocity
        return float((curvature * away**2).sum() / 2)

    return step


@pytest.mark.parametrize("curvatures", [[1.0], [1000.0], [1.0, 0.1], [100.0, 1.0, 0.01]])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_it_recovers_the_stability_limit_of_a_quadratic(curvatures, momentum, seed):
    limit = 2 * (1 + momentum) / max(curvatures)
    curve = range_test(quadratic(curvatures, momentum=momentum, seed=seed), start=1e-6 * limit, stop=10 * limit)
    assert limit / 3 < curve.limit < 3 * limit  # the running mean lags behind
    assert curve.rule == "slope"
    assert limit / 1000 < curve.suggestion < limit / 3
    if not momentum:
        assert limit / 50 < curve.suggestion
    assert curve.limit == curve.rates[-1] < 10 * limit
    assert len(curve.rates) == len(curve.losses)


def test_without_momentum_the_suggestion_scales_as_the_curvature():
    one, hundred = (range_test(quadratic([c], noise=0.0)).suggestion for c in (1.0, 100.0))
    assert one / hundred == pytest.approx(100, rel=0.3)  # a step of the test is a factor of 1.2


def test_a_test_that_ends_early_has_no_limit():
    curve = range_test(quadratic([1.0]), stop=1e-3, steps=50)
    assert curve.limit is None
    assert len(curve.rates) == 50
    assert curve.rates[0] == pytest.approx(1e-7)
    assert curve.rates[-1] == pytest.approx(1e-3)
    assert np.allclose(np.diff(np.log(curve.rates)), np.log(1e4) / 49)


def test_a_loss_that_never_falls_gives_a_tenth_of_its_smallest():
    losses = iter([2.0, 2.1, 1.0, *[2.0 + 0.1 * k for k in range(97)]])
    curve = range_test(lambda rate: next(losses), smoothing=0.0)
    assert curve.rule == "minimum"
    assert curve.suggestion == pytest.approx(curve.rates[2] / 10)


def test_noise_of_the_first_steps_decides_nothing():
    losses = iter([9.0, 6.0, 3.0, *[3.0] * 60, *[3.0 - 0.02 * k for k in range(37)]])
    curve = range_test(lambda rate: next(losses), smoothing=0.0)
    assert curve.rates.index(curve.suggestion) > 60


def test_the_end_at_four_times_the_best():
    losses = iter([1.0] * 20 + [3.9, 4.1, 1.0])
    curve = range_test(lambda rate: next(losses), smoothing=0.0, steps=100)
    assert len(curve.rates) == 21
    assert next(losses) == 1.0


def test_the_running_mean_begins_without_a_bias():
    losses = iter([2.0, 1.0, *[1.0] * 10])
    curve = range_test(lambda rate: next(losses), smoothing=0.9, steps=5)
    assert curve.losses[0] == pytest.approx(2.0)
    assert curve.losses[1] == pytest.approx((0.9 * 2.0 + 1.0) / 1.9)


@pytest.mark.parametrize("raises", [False, True])
def test_nothing_changes(raises, monkeypatch):
    model = network()
    model.train()
    model[1].eval()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    nn.functional.cross_entropy(model(blobs().tensors()[0]), blobs().labels).backward()
    optimizer.step()
    gradients = [p.grad.clone() for p in model.parameters()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    buffers = [s["momentum_buffer"].clone() for s in optimizer.state.values()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    if raises:
        monkeypatch.setattr(model[3], "start_dim", 7)
        with pytest.raises(IndexError):
            find_learning_rate(model, blobs(), get_recipe("quick", batch_size=16))
    else:
        curve = find_learning_rate(model, blobs(), get_recipe("quick", batch_size=16))
        assert 1e-4 < curve.suggestion < 3
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(torch.equal(s["momentum_buffer"], b) for s, b in zip(optimizer.state.values(), buffers, strict=True))
    assert [module.training for module in (model, model[1], model[4])] == [True, False, True]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


def test_the_seed_decides():
    recipe = get_recipe("quick", batch_size=16)
    curves = [find_learning_rate(network(), blobs(), recipe, seed=seed, steps=30) for seed in (0, 0, 1)]
    assert curves[0] == curves[1] != curves[2]


def test_the_recipe_decides():
    clipped, free = (
        find_learning_rate(network(), blobs(), get_recipe("quick", batch_size=16, clip_norm=norm), stop=1e4)
        for norm in (1e-3, None)
    )
    assert free.limit is not None
    assert clipped.limit is None or clipped.limit > 10 * free.limit


def test_what_does_not_fit_is_refused():
    with pytest.raises(OptionError, match="0 < start < stop"):
        range_test(quadratic([1.0]), start=1.0, stop=0.1)
    with pytest.raises(OptionError, match="steps of at least 2"):
        range_test(quadratic([1.0]), steps=1)
    with pytest.raises(OptionError, match="smoothing < 1"):
        range_test(quadratic([1.0]), smoothing=1.0)
    with pytest.raises(OptionError, match="test images"):
        find_learning_rate(network(), blobs(split="test"))
    model = network()
    nn.init.constant_(model[5].weight, torch.nan)
    with pytest.raises(InputError, match="not finite before the first step"):
        find_learning_rate(model, blobs())
