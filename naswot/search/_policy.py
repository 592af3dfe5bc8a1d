"""What strategies with a policy share: baseline, rewards, and whether a space can be drawn position by position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final
from weakref import WeakKeyDictionary

import numpy as np

from naswot.errors import OptionError
from naswot.searcher import Values
from naswot.seeding import derive_seed, numpy_generator
from naswot.space import SearchSpace

MAX_TRIES = 20_000
"""Position-wise draws for one proposal before a uniform architecture takes its place."""

_FIRST_TRIES = 2_000
_hits: Final[WeakKeyDictionary[SearchSpace, bool]] = WeakKeyDictionary()  # spaces may hold much, such as costs


class MovingAverage:
    """Exponential moving average without the pull of its start: the weights of what was seen add up to one.

    Args:
        momentum: weight of the past, in [0, 1).
    Raises:
        OptionError: if it lies outside.
    """

    def __init__(self, momentum: float) -> None:
        if not 0 <= momentum < 1:
            raise OptionError(f"expected a baseline momentum in [0, 1), but got {momentum}")
        self.momentum = momentum
        self._sum = self._weight = 0.0

    @property
    def value(self) -> float | None:
        """The average; None before the first value."""
        return self._sum / self._weight if self._weight else None

    def update(self, value: float) -> float:
        """Take in a value.

        Returns:
            The average with it.
        """
        self._sum = self.momentum * self._sum + (1 - self.momentum) * value
        self._weight = self.momentum * self._weight + (1 - self.momentum)
        return self._sum / self._weight


class Rewards:
    """Rewards of trials: ``(scale * value) ** power``, with the sign kept.

    What failed, or has a value that is not finite, gets the worst reward seen so far, and none if there was none yet:
    a policy should leave such architectures, but one of them must not outweigh all others.

    Args:
        scale: factor on the told value.
        power: exponent.
    Raises:
        OptionError: if one of them is not positive.
    """

    def __init__(self, scale: float = 1.0, power: float = 1.0) -> None:
        require_positive(reward_scale=scale, reward_power=power)
        self.scale, self.power = scale, power
        self.worst: float | None = None

    def __call__(self, values: Values | None) -> float | None:
        """Reward of the values of a trial; None if there is nothing to learn from it."""
        if values is None or not math.isfinite(values[0]):
            return self.worst
        scaled = self.scale * values[0]
        reward = scaled if self.power == 1 else math.copysign(abs(scaled) ** self.power, scaled)
        self.worst = reward if self.worst is None else min(self.worst, reward)
        return reward


def advantages(rewards: Sequence[float], baseline: MovingAverage) -> list[float]:
    """Rewards of a batch less the average of those before it, which then takes them in; the first less its own mean."""
    known = baseline.value
    level = sum(rewards) / len(rewards) if known is None else known
    for reward in rewards:
        baseline.update(reward)
    return [reward - level for reward in rewards]


def require_positive(**numbers: float) -> None:
    """Refuse options that are not above 0.

    Raises:
        OptionError: naming the first.
    """
    for option, value in numbers.items():
        if not value > 0:
            raise OptionError(f"expected {option} above 0, but got {value}")


def is_free(space: SearchSpace) -> bool:
    """Whether every combination of options is an architecture, so that no draw has to be checked."""
    return type(space).is_valid is SearchSpace.is_valid


def require_drawable(space: SearchSpace, strategy: str) -> None:
    """Refuse a space that position-wise draws do not hit.

    The answer is that of one fixed sequence of draws, so that it does not depend on the seed of a search.

    Raises:
        OptionError: if none of 2,000 draws with uniform positions is an architecture.
    """
    if not is_free(space) and not _is_hit(space):
        raise OptionError(
            f"{strategy} draws position by position, but none of {_FIRST_TRIES:,} uniform draws is an architecture of "
            f"{space.name}; random and regularized_evolution draw and change whole architectures"
        )


def _is_hit(space: SearchSpace) -> bool:
    if space not in _hits:
        rng = numpy_generator(derive_seed("position-wise draws", space.name))
        drawn = rng.integers(np.array(space.choices), size=(_FIRST_TRIES, len(space.choices)))
        _hits[space] = any(space.is_valid(tuple(genotype)) for genotype in drawn.tolist())
    return _hits[space]
