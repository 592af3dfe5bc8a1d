"""Runs of successive halving: rungs, who waits, who goes on. Shared by successive halving and Hyperband."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, pairwise, repeat
from typing import NamedTuple

from naswot.errors import OptionError
from naswot.searcher import Proposal, Searcher, Trial, Values
from naswot.types import Genotype


class Rung(NamedTuple):
    """So many architectures are trained for so many epochs.

    Args:
        n: architectures.
        epochs: length of their training.
    """

    n: int
    epochs: int


class Result(NamedTuple):
    """What is known of an architecture of a rung.

    Args:
        value: what was told; -inf if it failed.
        number: of the trial.
        genotype: the architecture.
    """

    value: float
    number: int
    genotype: Genotype


def epoch_levels(min_epochs: int, max_epochs: int, eta: int, levels: Sequence[int] | None) -> tuple[int, ...]:
    """Epochs of the rungs, ascending: ``max_epochs / eta**k``, rounded, down to ``min_epochs``.

    Args:
        min_epochs: the fewest.
        max_epochs: R, the most.
        eta: one of so many goes on.
        levels: these instead.
    Raises:
        OptionError: if they do not ascend from at least 1, or ``eta`` is below 2.
    """
    if eta < 2:
        raise OptionError(f"expected eta of at least 2, but got {eta}")
    if levels is not None:
        if not levels or levels[0] < 1 or any(a >= b for a, b in pairwise(levels)):
            raise OptionError(f"expected levels to be ascending numbers of epochs such as (12, 200), but got {levels}")
        return tuple(levels)
    if not 1 <= min_epochs <= max_epochs:
        raise OptionError(f"expected 1 <= min_epochs <= max_epochs, but got {min_epochs} and {max_epochs}")
    n = 1
    while min_epochs * eta**n <= max_epochs:
        n += 1
    return tuple(round(max_epochs / eta**k) for k in reversed(range(n)))


def rungs(n: int, levels: Sequence[int], eta: int) -> tuple[Rung, ...]:
    """``n_i = floor(n / eta**i)`` architectures at each level."""
    return tuple(Rung(n // eta**i, epochs) for i, epochs in enumerate(levels))


class Halving:
    """State of one run; it is told which of its proposals became trials.

    Args:
        plan: its rungs.
    """

    def __init__(self, plan: Sequence[Rung]) -> None:
        self.plan = tuple(plan)
        self._rung = 0
        self._queue: list[Result] = []  # those of the rung below that go on, best first
        self._size, self._n_submitted = self.plan[0].n, 0
        self._results: list[Result] = []

    @property
    def finished(self) -> bool:
        """Whether its last trial is known."""
        return self._rung >= len(self.plan)

    @property
    def draws(self) -> bool:
        """Whether it needs a new architecture."""
        return self._rung == 0 and self._n_submitted < self._size

    def first(self, genotype: Genotype) -> Proposal:
        """Proposal of a new architecture."""
        return Proposal(genotype, self.plan[0].epochs)

    def promotion(self) -> Proposal | None:
        """The next architecture that goes on; None while the rung is not complete."""
        if self.finished or self._rung == 0 or self._n_submitted >= self._size:
            return None
        below = self._queue[self._n_submitted]
        return Proposal(below.genotype, self.plan[self._rung].epochs, below.number)

    def submitted(self) -> None:
        """One of its proposals became a trial."""
        self._n_submitted += 1

    def learn(self, result: Result) -> None:
        """A result; after the last of a rung the best go on, but none that failed."""
        self._results.append(result)
        if len(self._results) < self._size:
            return
        able = [known for known in self._results if known.value > -math.inf]
        self._rung += 1
        if self._rung == len(self.plan):
            return
        order = sorted(able, key=lambda known: (-known.value, known.number))
        self._queue = order[: self.plan[self._rung].n]
        self._size, self._n_submitted, self._results = len(self._queue), 0, []
        if not self._queue:  # nobody is left
            self._rung = len(self.plan)


class Runs:
    """Runs of successive halving, one after another or several at a time.

    Args:
        plans: the rungs of each run.
        at_once: how many runs may be open.
    Raises:
        OptionError: if ``at_once`` is below 1.
    """

    def __init__(self, plans: Iterable[Sequence[Rung]], at_once: int) -> None:
        if at_once < 1:
            raise OptionError(f"expected at_once of at least 1, but got {at_once}")
        self._plans, self._at_once = iter(plans), at_once
        self._open: list[Halving] = []
        self._of_trial: dict[int, Halving] = {}
        self._last: Halving | None = None  # the run that the last proposals belong to

    def candidates(self, draw: Callable[[], Genotype], n: int) -> list[Proposal]:
        """Up to ``n`` new architectures, or the one that goes on; none while every open run waits."""
        run = next((run for run in self._open if run.draws or run.promotion()), None) or self._begin()
        self._last = run
        if run is None:
            return []
        promotion = run.promotion()
        return [promotion] if promotion else [run.first(draw()) for _ in range(n)]

    def submitted(self, number: int) -> None:
        """One of the last proposals became the trial of that number."""
        if self._last is not None:
            self._last.submitted()
            self._of_trial[number] = self._last
            self._last = None

    def learn(self, trial: Trial, values: Values | None) -> None:
        """Hand the value to the run of the trial; what failed is worse than all."""
        run = self._of_trial.pop(trial.number, None)
        if run is not None:
            run.learn(Result(-math.inf if values is None else values[0], trial.number, trial.genotype))

    def _begin(self) -> Halving | None:
        """Another run, if it may be opened and there is one."""
        self._open = [run for run in self._open if not run.finished]
        plan = next(self._plans, None) if len(self._open) < self._at_once else None
        if plan is None:
            return None
        self._open.append(Halving(plan))
        return self._open[-1]


class HalvingSearcher(Searcher):
    """A strategy that is nothing but runs of successive halving; a subclass names them by :meth:`begin`."""

    _runs: Runs

    def begin(self, plans: Sequence[Sequence[Rung]], rounds: int | None, at_once: int) -> None:
        """Start with the first run.

        Args:
            plans: the rungs of each run of a round.
            rounds: how often all of them are run; None: without end.
            at_once: how many runs may be open.
        Raises:
            OptionError: if a number is below 1.
        """
        if rounds is not None and rounds < 1:
            raise OptionError(f"expected rounds of at least 1, or None for no end, but got {rounds}")
        repeated = repeat(plans) if rounds is None else repeat(plans, rounds)
        self._runs = Runs(chain.from_iterable(repeated), at_once)

    def propose(self) -> Proposal | None:
        """Who goes on, or a new architecture; None while a rung is not complete, and after the last round."""
        found = self.candidates(1)
        return found[0] if found else None

    def candidates(self, n: int) -> list[Proposal]:
        """Up to ``n`` new architectures, or the one that goes on."""
        return self._runs.candidates(self.draw, 1 if self.n_enqueued else n)

    def submit(self, proposal: Proposal | Genotype) -> Trial:
        """Make a trial of one of the last proposals."""
        trial = super().submit(proposal)
        self._runs.submitted(trial.number)
        return trial

    def learn(self, trial: Trial, values: Values | None) -> None:
        """Hand the value to the run of the trial."""
        self._runs.learn(trial, values)
