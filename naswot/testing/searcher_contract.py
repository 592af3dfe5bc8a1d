"""The contract of a search strategy.

Example:
    A test file of a few lines covers a plug-in::

        from naswot.testing.searcher_contract import SearcherContract
        class TestMine(SearcherContract):
            name = "my_strategy"
            def options(self, space):
                return {"population": 8}  # what keeps the tests short
"""

from __future__ import annotations

import functools
import inspect
import math
import random
import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import pytest
import torch

from naswot.errors import ArchitectureError, InputError, OptionError
from naswot.searcher import Searcher, Trial, get_searcher
from naswot.seeding import numpy_generator, preserve_random_state, seeded
from naswot.space import SearchSpace, get_space
from naswot.testing.space_contract import is_plain
from naswot.testing.toy_space import ToySpace, planted
from naswot.types import Genotype

Told = float | Sequence[float] | None
SPACES: dict[str, Callable[[], SearchSpace]] = {
    "free": ToySpace,
    "constrained": lambda: ToySpace((4,) * 5, lambda genotype: sum(genotype) % 3 != 1),
    "nasbench101": lambda: get_space("nasbench101"),
}
"""Spaces on which every strategy is tried; it may refuse all but the first by an ``OptionError``."""


class Build(Protocol):
    """Makes a fresh strategy for a space."""

    def __call__(self, space: SearchSpace, *, seed: int = 0, n_objectives: int = 1) -> Searcher:
        """The strategy."""
        ...


def play(
    searcher: Searcher,
    value: Callable[[Trial], Told],
    n: int,
    *,
    at_once: int = 1,
    order: np.random.Generator | None = None,
) -> list[Trial]:
    """Ask for up to ``n`` trials and tell each of them.

    Args:
        searcher: the strategy.
        value: what is told.
        n: trials.
        at_once: so many are asked for, fewer if none comes, before all of them are told.
        order: shuffles the order of telling.
    Returns:
        The trials in the order of asking; fewer than ``n`` if nothing was left.
    """
    asked: list[Trial] = []
    while True:
        batch: list[Trial] = []
        while len(batch) < at_once and len(asked) < n:
            trial = searcher.ask()
            if trial is None:
                break
            batch.append(trial)
            asked.append(trial)
        if not batch:
            return asked
        for i in range(len(batch)) if order is None else order.permutation(len(batch)):
            searcher.tell(batch[int(i)], value(batch[int(i)]))


def by_genotype(value: Callable[[Genotype], Told]) -> Callable[[Trial], Told]:
    """A value that depends on the architecture alone."""
    return lambda trial: value(trial.genotype)


def _scaled(value: Callable[[Genotype], float], scale: float, trial: Trial) -> float:
    return scale * value(trial.genotype)


def _global_states() -> tuple[object, ...]:
    _, keys, *rest = np.random.get_state()  # noqa: NPY002
    return random.getstate(), bytes(keys), tuple(rest), torch.get_rng_state().numpy().tobytes()  # type: ignore[arg-type]


class SearcherContract:
    """Subclass with ``name``, or override the fixture ``build``."""

    name: ClassVar[str]
    n_trials: ClassVar[int] = 60

    def n_on(self, space: SearchSpace) -> int:
        """Trials on a space: fewer where drawing is slow."""
        return self.n_trials if isinstance(space, ToySpace) else self.n_trials // 6

    def options(self, space: SearchSpace) -> dict[str, Any]:  # noqa: ARG002
        """Options of the strategy, made anew for each."""
        return {}

    @pytest.fixture
    def build(self) -> Build:
        """Makes the strategy under test."""

        def make(space: SearchSpace, *, seed: int = 0, n_objectives: int = 1) -> Searcher:
            return get_searcher(self.name, space, seed=seed, n_objectives=n_objectives, **self.options(space))

        return make

    @pytest.fixture(params=list(SPACES))
    def space(self, request: pytest.FixtureRequest, build: Build) -> SearchSpace:
        """A space that the strategy does not refuse."""
        space = SPACES[request.param]()
        if request.param != "free":
            try:
                build(space)
            except OptionError as error:
                pytest.skip(str(error))
        return space

    def test_declaration(self, build: Build) -> None:
        """Name, reference, and options that all have a default."""
        cls = type(build(ToySpace()))
        assert re.fullmatch(r"[a-z][a-z0-9_]*", cls.name)
        assert cls.reference
        parameters = list(inspect.signature(cls.__init__).parameters.values())[2:]
        assert {"seed", "n_objectives"} <= {parameter.name for parameter in parameters}
        assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters)

    def test_trials_are_valid_plain_and_numbered(self, build: Build, space: SearchSpace) -> None:
        """Length of training and parent too."""
        trials = play(build(space), by_genotype(planted(space)), self.n_on(space))
        assert [trial.number for trial in trials] == list(range(len(trials)))
        assert trials
        for trial in trials:
            assert is_plain(trial.genotype)
            assert space.is_valid(trial.genotype)
            assert trial.epochs is None or (type(trial.epochs) is int and trial.epochs >= 1)
            assert trial.parent is None or (type(trial.parent) is int and 0 <= trial.parent < trial.number)

    def test_same_seed_same_search(self, build: Build, space: SearchSpace) -> None:
        """With the same values; so a search is resumed by asking again and telling what is known."""
        value = by_genotype(planted(space))
        first = play(build(space, seed=3), value, self.n_on(space))
        assert play(build(space, seed=3), value, self.n_on(space)) == first

    def test_other_seed_other_search(self, build: Build) -> None:
        """Five of five equal ones would be no chance."""
        space = ToySpace((6,) * 8)
        value = by_genotype(planted(space))
        assert len({tuple(play(build(space, seed=seed), value, 10)) for seed in range(5)}) > 1

    def test_global_generators_play_no_part(self, build: Build) -> None:
        """They are neither changed nor read."""
        space = ToySpace()
        value = by_genotype(planted(space))
        searches = []
        with preserve_random_state():
            for seed in (1, 2):
                with seeded(seed):
                    before = _global_states()
                    searches.append(play(build(space), value, self.n_trials))
                    assert _global_states() == before
        assert searches[0] == searches[1]

    def test_order_of_telling_plays_no_part(self, build: Build) -> None:
        """With four open at a time."""
        space = ToySpace()
        value = by_genotype(planted(space))
        in_order = play(build(space), value, self.n_trials, at_once=4)
        for seed in range(3):
            assert play(build(space), value, self.n_trials, at_once=4, order=numpy_generator(seed)) == in_order

    def test_four_workers_in_any_order(self, build: Build, space: SearchSpace) -> None:
        """Nothing is asked for too much; None means to wait only while trials are open, and else the end."""
        searcher, value, rng = build(space), planted(space), numpy_generator(0)
        waiting: list[Trial] = []
        for _ in range(4 * self.n_on(space)):
            trial = searcher.ask() if len(waiting) < 4 else None
            if trial is not None:
                waiting.append(trial)
            elif waiting:
                done = waiting.pop(int(rng.integers(len(waiting))))
                searcher.tell(done, value(done.genotype))
            else:
                assert searcher.ask() is None  # and it stays the end
                break
            assert searcher.n_open == len(waiting)

    def test_some_trials_fail(self, build: Build, space: SearchSpace) -> None:
        """The first among them; the search goes on if it would have gone on otherwise."""
        value = planted(space)
        trials = play(build(space), lambda t: None if t.number % 3 == 0 else value(t.genotype), self.n_on(space))
        assert len(trials) > 1 or len(play(build(space), by_genotype(value), 2)) == 1

    def test_all_trials_fail(self, build: Build, space: SearchSpace) -> None:
        """It goes on or ends."""
        play(build(space), lambda trial: None, self.n_on(space), at_once=3)

    def test_the_worst_value(self, build: Build, space: SearchSpace) -> None:
        """-inf for some, and for all."""
        value = planted(space)
        play(build(space), lambda t: value(t.genotype) if t.number % 3 else -math.inf, self.n_on(space))
        play(build(space), lambda trial: -math.inf, self.n_on(space), at_once=3)

    def test_equal_and_large_values(self, build: Build) -> None:
        """A plateau, and values as large and as small as those of FLOPs and rates."""
        space = ToySpace()
        value = planted(space)
        play(build(space), lambda trial: 0.0, self.n_trials)
        for scale in (1e12, -1e12, 1e-12):
            play(build(space), functools.partial(_scaled, value, scale), self.n_trials // 2)

    def test_nan_is_refused(self, build: Build) -> None:
        """And the trial stays open."""
        searcher = build(ToySpace())
        trial = searcher.ask()
        assert trial is not None
        with pytest.raises(InputError):
            searcher.tell(trial, math.nan)
        assert searcher.n_open == 1
        searcher.tell(trial, 1.0)
        assert searcher.n_open == 0

    def test_wrong_number_of_values_is_refused(self, build: Build) -> None:
        """Two where there is one objective, or none."""
        searcher = build(ToySpace())
        trial = searcher.ask()
        assert trial is not None
        for wrong in ((1.0, 2.0), ()):
            with pytest.raises(InputError):
                searcher.tell(trial, wrong)

    def test_trials_that_are_not_open_are_refused(self, build: Build) -> None:
        """Told before, of another searcher, or never asked for."""
        searcher = build(ToySpace())
        trial = searcher.ask()
        assert trial is not None
        other = Trial(trial.number, ToySpace().neighbours(trial.genotype)[0], trial.epochs, trial.parent)
        for stranger in (other, Trial(trial.number + 1, trial.genotype)):
            with pytest.raises(InputError):
                searcher.tell(stranger, 1.0)
        searcher.tell(trial, 1.0)
        with pytest.raises(InputError):
            searcher.tell(trial, 1.0)

    def test_architectures_put_in_come_first(self, build: Build, space: SearchSpace) -> None:
        """In their order."""
        rng = numpy_generator(5)
        wanted = list(dict.fromkeys(space.sample(rng) for _ in range(8)))[:3]
        searcher = build(space)
        searcher.enqueue(wanted)
        trials = play(searcher, by_genotype(planted(space)), len(wanted))
        assert trials
        assert [trial.genotype for trial in trials] == wanted[: len(trials)]
        assert len(trials) == len(wanted) or searcher.ask() is None

    def test_what_the_space_does_not_contain_is_not_put_in(self, build: Build) -> None:
        """By an error, at once."""
        with pytest.raises(ArchitectureError):
            build(ToySpace((2, 2, 2))).enqueue([(0, 1, 2)])

    def test_tiny_space_ends_or_repeats(self, build: Build) -> None:
        """Two architectures; a search for a third one would not end."""
        left = [50_000]

        def fuse(genotype: Genotype) -> bool:  # noqa: ARG001
            left[0] -= 1
            assert left[0] > 0, "the strategy looks for what is not there without end"
            return True

        trials = play(build(ToySpace((2,), fuse)), lambda trial: float(trial.genotype[0]), self.n_trials)
        assert {trial.genotype for trial in trials} <= {(0,), (1,)}

    def test_alternatives(self, build: Build, space: SearchSpace) -> None:
        """At most as many as asked for, valid; one becomes a trial and the others are forgotten, however often."""
        searcher, value = build(space), planted(space)
        for number in range(self.n_on(space) // 2):
            for n in (1, 4, 3):
                found = searcher.candidates(n)
                assert len(found) <= n
                assert all(is_plain(p.genotype) and space.is_valid(p.genotype) for p in found)
            if not found:
                break
            trial = searcher.submit(found[-1])
            assert (trial.number, trial.genotype) == (number, found[-1].genotype)
            assert (trial.epochs, trial.parent) == (found[-1].epochs, found[-1].parent)
            searcher.tell(trial, value(trial.genotype))
        assert searcher.n_asked > 0
        assert searcher.n_open == 0

    def test_number_of_objectives(self, build: Build) -> None:
        """Several are searched or refused, as declared; none is refused."""
        space = ToySpace()
        value = planted(space)
        with pytest.raises(OptionError):
            build(space, n_objectives=0)
        if not type(build(space)).multi_objective:
            with pytest.raises(OptionError):
                build(space, n_objectives=2)
            return
        searcher = build(space, n_objectives=2)
        assert play(searcher, lambda t: (value(t.genotype), -float(sum(t.genotype))), self.n_trials)
        assert play(build(space, n_objectives=2), lambda t: (-math.inf, 1.0) if t.number % 2 else None, self.n_trials)

    def test_better_than_bad_luck(self, build: Build) -> None:
        """Over four seeds the best value is one that a third as many random draws would miss once in a thousand."""
        space = ToySpace((4,) * 6)
        value = planted(space)
        everything = sorted(value(genotype) for genotype in space.genotypes())
        for seed in range(4):
            trials = play(build(space, seed=seed), by_genotype(value), self.n_trials)
            bound = everything[int(0.001 ** (3 / max(3, len(trials))) * len(everything))]
            assert max(value(trial.genotype) for trial in trials) >= bound
