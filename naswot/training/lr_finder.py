"""A learning rate to begin with: raise it from step to step and see where the loss falls fastest.

Paper: Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017, arXiv:1506.01186 (the range test). The
smoothing, the end at four times the best loss and the choice by the steepest slope are custom, not the paper's.
Original code: none of the author's. Differences from custom: a slope is that of a line through nine points of the
smoothed curve, and the first tenth of the test is no candidate, as noise would otherwise decide; the running mean keeps
0.9 in each step rather than 0.95 to 0.98, whose lag moves every finding to the right; a copy of the network is trained.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from torch import nn

from naswot.data.images import ImageSet
from naswot.errors import DivergedError, InputError, OptionError
from naswot.seeding import derive_seed
from naswot.training._session import Job, Session, memory_shortage_named
from naswot.training.devices import make_fabric
from naswot.training.recipe import TrainingRecipe, get_recipe
from naswot.training.splits import refuse_test_images

_WORST: Final = 4.0
"""The test ends when the smoothed loss is so many times its smallest value."""

_HALF_WINDOW: Final = 4
"""Points on each side through which a line gives the slope."""


@dataclass(frozen=True)
class LearningRateCurve:
    """What a range test measured.

    Args:
        rates: learning rates, rising by a constant factor.
        losses: smoothed training loss of the batch *before* the step at that rate, nats for networks.
        suggestion: a learning rate to begin with; for a quadratic loss without momentum about a twentieth of the limit.
        rule: ``"slope"`` if the suggestion is where the loss falls fastest; ``"minimum"`` if it is a tenth of the rate
            at the smallest loss, because the loss falls nowhere.
        limit: the last rate before the loss ran away and the test ended, by the smoothing about twice the true limit;
            None if it never did.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float
    rule: str
    limit: float | None


def find_learning_rate(
    model: nn.Module,
    train: ImageSet,
    recipe: TrainingRecipe | None = None,
    *,
    start: float = 1e-7,
    stop: float = 10.0,
    steps: int = 100,
    smoothing: float = 0.9,
    seed: int = 0,
    device: str = "cpu",
) -> LearningRateCurve:
    """Learning rate for a network, its images and everything else in a recipe.

    Args:
        model: a copy of it is trained; neither it nor any global state changes.
        train: images to learn from, with labels.
        recipe: batch size, momentum, augmentation and the like; its own learning rate is not used. None: ``"quick"``.
        start: first learning rate.
        stop: last learning rate.
        steps: number of steps.
        smoothing: share of the running mean of the losses that stays in each step.
        seed: order of the images and everything random in the model.
        device: where the copy is trained.
    Raises:
        OptionError: if an option does not fit, or ``train`` are test images.
        InputError: if the very first loss is not finite.
    """
    recipe = get_recipe("quick") if recipe is None else recipe
    refuse_test_images(train, "trained on")
    fabric = make_fabric(device, devices=1, num_nodes=1, precision=recipe.precision)

    def run(fabric: Any) -> LearningRateCurve:
        job = Job(copy.deepcopy(model), train, None, recipe, derive_seed(seed, "learning rate"), None, {})
        with memory_shortage_named(recipe.batch_size), Session(fabric, job) as session:
            session.wrapped.train()
            batches = itertools.chain.from_iterable(session.batches(epoch) for epoch in itertools.count(1))

            def step(rate: float) -> float:
                for group in session.optimizer.param_groups:
                    group["lr"] = rate
                try:
                    return session.step(*next(batches), number=1)
                except DivergedError:
                    return math.inf

            return range_test(step, start=start, stop=stop, steps=steps, smoothing=smoothing)

    result: LearningRateCurve = fabric.launch(run)
    return result


def range_test(
    step: Callable[[float], float],
    *,
    start: float = 1e-7,
    stop: float = 10.0,
    steps: int = 100,
    smoothing: float = 0.9,
) -> LearningRateCurve:
    """Take steps at rising learning rates until the smoothed loss is four times its smallest value.

    Args:
        step: takes one step at a learning rate and gives the loss before it; infinity ends the test.
        start: first learning rate.
        stop: last learning rate.
        steps: number of steps.
        smoothing: share of the running mean of the losses that stays in each step, from 0.
    Raises:
        OptionError: if an option does not fit.
        InputError: if the very first loss is not finite.
    """
    if not 0 < start < stop < math.inf or steps < 2 or not 0 <= smoothing < 1:
        raise OptionError(
            f"expected 0 < start < stop, steps of at least 2 and 0 <= smoothing < 1, but got {start}, {stop}, {steps}, "
            f"{smoothing}"
        )
    rates: list[float] = []
    losses: list[float] = []
    mean, ran_away = 0.0, False
    for number, rate in enumerate(np.geomspace(start, stop, steps).tolist(), start=1):
        mean = smoothing * mean + (1 - smoothing) * step(rate)
        smoothed = mean / (1 - smoothing**number)
        if not math.isfinite(smoothed) or (losses and smoothed > _WORST * min(losses)):
            ran_away = True
            break
        rates.append(rate)
        losses.append(smoothed)
    if not rates:
        raise InputError(
            "the loss is not finite before the first step; the weights or images hold NaN or are too large"
        )
    limit = rates[-1] if ran_away else None
    return LearningRateCurve(tuple(rates), tuple(losses), *_suggest(rates, losses, steps), limit)


def _suggest(rates: Sequence[float], losses: Sequence[float], steps: int) -> tuple[float, str]:
    """A rate and the rule that gave it."""
    x, y = np.log(rates), np.asarray(losses)
    slopes = {}
    for place in range(steps // 10, len(rates)):
        near = slice(max(0, place - _HALF_WINDOW), place + _HALF_WINDOW + 1)
        if len(x[near]) > 1:
            slopes[place] = float(np.polyfit(x[near], y[near], 1)[0])
    steepest = min(slopes, key=slopes.__getitem__, default=None)
    if steepest is not None and slopes[steepest] < 0:
        return rates[steepest], "slope"
    return rates[int(y.argmin())] / 10, "minimum"
