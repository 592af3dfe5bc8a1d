"""Ask and tell: numbering, order of learning, what comes first, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from naswot.errors import ArchitectureError, InputError, OptionError, UnknownNameError
from naswot.searcher import Proposal, Searcher, Trial, get_searcher, list_searchers, searcher_options
from naswot.searching import run_search
from naswot.space import get_space


class Listener(Searcher):
    name = "listener"
    reference = "a test"

    def __init__(self, space, *, seed=0, n_objectives=1):
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        self.heard = []

    def propose(self):
        return Proposal(self.draw())

    def learn(self, trial, values):
        self.heard.append((trial.number, values))


@pytest.fixture
def space():
    return get_space("nasbench201")


def test_results_are_learned_in_the_order_of_asking(space):
    searcher = Listener(space)
    trials = [searcher.ask() for _ in range(4)]
    for number in (2, 1):
        searcher.tell(trials[number], float(number))
    assert searcher.heard == []
    assert searcher.n_open == 2
    searcher.tell(trials[0], None)
    assert searcher.heard == [(0, None), (1, (1.0,)), (2, (2.0,))]
    searcher.tell(trials[3], (3.0,))
    assert [number for number, _ in searcher.heard] == [0, 1, 2, 3]


def test_what_is_put_in_comes_before_random_draws(space):
    plain, fed = Listener(space, seed=3), Listener(space, seed=3)
    fed.enqueue([(1, 2, 3, 4, 0, 1), (0, 0, 0, 0, 0, 1)])
    assert [fed.ask().genotype for _ in range(2)] == [(1, 2, 3, 4, 0, 1), (0, 0, 0, 0, 0, 1)]
    assert [fed.ask().genotype for _ in range(5)] == [plain.ask().genotype for _ in range(5)]
    with pytest.raises(ArchitectureError):
        fed.enqueue([(9, 9, 9, 9, 9, 9)])


def test_wrong_tells_are_refused_and_change_nothing(space):
    searcher = Listener(space)
    trial = searcher.ask()
    for wrong in (math.nan, (1.0, 2.0), ()):
        with pytest.raises(InputError, match="trial 0"):
            searcher.tell(trial, wrong)
    with pytest.raises(InputError, match="not open"):
        searcher.tell(Trial(5, trial.genotype), 1.0)
    with pytest.raises(InputError, match="another searcher"):
        searcher.tell(Trial(0, (4, 4, 4, 4, 4, 4)), 1.0)
    searcher.tell(trial, -math.inf)
    assert searcher.heard == [(0, (-math.inf,))]
    with pytest.raises(InputError, match="told before"):
        searcher.tell(trial, 1.0)


@pytest.mark.parametrize("value", [np.float32(3), np.int64(3), torch.tensor(3.0), [3], np.array([3.0])])
def test_numbers_of_any_kind_are_told(space, value):
    searcher = Listener(space)
    searcher.tell(searcher.ask(), value)
    assert searcher.heard == [(0, (3.0,))]
    assert type(searcher.heard[0][1][0]) is float


def test_a_small_strategy_needs_neither_name_nor_wrapping(space):
    class Small(Searcher):
        def propose(self):
            return self.draw()

        def learn(self, trial, values):
            pass

    found = run_search(Small(space), lambda genotype: float(sum(genotype)), budget=20)
    assert Small.name == "Small"
    assert found.best.values[0] == max(sum(r.trial.genotype) for r in found.records)
    assert len(found.records) == 20


def test_one_objective_only_unless_declared(space):
    with pytest.raises(OptionError, match="listener searches for one objective, but got 2"):
        Listener(space, n_objectives=2)


def test_strategies_are_found_by_name(space):
    assert {"random", "regularized_evolution", "naswot_search", "area", "cascade"} <= set(list_searchers())
    assert searcher_options("regularized_evolution") == {"population": 10, "sample": 3, "replace": True}
    with pytest.raises(UnknownNameError, match="did you mean 'random'"):
        get_searcher("randm", space)
    with pytest.raises(OptionError, match="has no option 'populaton'; it offers population, sample, replace"):
        get_searcher("regularized_evolution", space, populaton=5)
    with pytest.raises(OptionError, match=r"'population' of regularized_evolution is a number .* got 'five'"):
        get_searcher("regularized_evolution", space, population="five")
    assert get_searcher("random", "darts").space is get_space("darts")
    for name in ("naswot_search", "area", "cascade"):
        with pytest.raises(OptionError, match="pass scorer="):
            get_searcher(name, space)


def test_the_oldest_dies_even_if_it_is_the_best(space):
    searcher = get_searcher("regularized_evolution", space, population=5, sample=2)
    first = searcher.ask()
    searcher.tell(first, 1e9)
    for _ in range(4):
        searcher.tell(searcher.ask(), 0.0)
    assert first.genotype in [genotype for genotype, _ in searcher.population]
    searcher.tell(searcher.ask(), 0.0)
    assert 1e9 not in [value for _, value in searcher.population]
    assert len(searcher.population) == 5


def test_children_are_neighbours_of_the_best_of_the_tournament(space):
    searcher = get_searcher("regularized_evolution", space, population=4, sample=4, replace=False)
    for value in (1.0, 5.0, 2.0, 3.0):
        searcher.tell(searcher.ask(), value)
    best = searcher.population[1][0]
    assert {searcher.propose().genotype for _ in range(200)} <= set(space.neighbours(best))
