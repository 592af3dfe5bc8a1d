"""Local search climbs to a local optimum by its own rule, begins again elsewhere, and never asks twice."""

import pytest

from naswot.errors import OptionError
from naswot.search._unseen import draw_unseen
from naswot.searcher import get_searcher
from naswot.testing.toy_space import ToySpace, planted


def climb(searcher, value, n=300):
    """Genotypes in the order of asking."""
    asked = []
    while len(asked) < n and (trial := searcher.ask()):
        asked.append(trial.genotype)
        searcher.tell(trial, value(trial.genotype))
    return asked


def slope(genotype):
    """One optimum; each neighbour's value is another one."""
    return sum(3**i * gene for i, gene in enumerate(genotype))


def test_all_neighbours_are_asked_then_the_best_is_moved_to():
    space = ToySpace((3, 3, 3))
    searcher = get_searcher("local_search", space, seed=1)
    searcher.enqueue([(0, 0, 0)])
    asked = climb(searcher, slope, 1 + 6 + 1)
    assert asked[0] == (0, 0, 0)
    assert sorted(asked[1:7]) == sorted(space.neighbours((0, 0, 0)))
    assert searcher.current == (0, 0, 2)
    assert asked[7] in space.neighbours((0, 0, 2))


def test_first_improvement_is_moved_to_at_once():
    searcher = get_searcher("local_search", ToySpace((3, 3, 3)), seed=1, move="first")
    searcher.enqueue([(0, 0, 0)])
    assert len(climb(searcher, slope, 3)) == 3  # each neighbour of the worst place is better
    assert sum(gene > 0 for gene in searcher.current) >= 1
    assert climb(get_searcher("local_search", ToySpace((3, 3, 3)), seed=1, move="first"), slope, 12)
    here = get_searcher("local_search", ToySpace((3,) * 6), seed=0, move="first")
    best = get_searcher("local_search", ToySpace((3,) * 6), seed=0)
    for searcher in (here, best):
        searcher.enqueue([(0,) * 6])
    assert climb(here, slope, 12)[-1] not in here.space.neighbours((0,) * 6)  # 12 neighbours: moved before all were
    assert all(genotype in best.space.neighbours((0,) * 6) for genotype in climb(best, slope, 12)[1:])


@pytest.mark.parametrize("move", ["best", "first"])
def test_optimum_of_a_smooth_space_is_found_from_anywhere(move):
    for seed in range(5):
        space = ToySpace((4, 4, 4, 4))
        asked = climb(get_searcher("local_search", space, seed=seed, move=move), slope, 60)
        assert (3, 3, 3, 3) in asked


@pytest.mark.parametrize("move", ["best", "first"])
@pytest.mark.parametrize("n_initial", [1, 5])
def test_every_architecture_once_then_the_end(move, n_initial):
    space = ToySpace((3, 2, 4), lambda genotype: sum(genotype) % 5 != 2)
    searcher = get_searcher("local_search", space, move=move, n_initial=n_initial)
    asked = climb(searcher, planted(space, rugged=2.0))
    assert sorted(asked) == list(space.genotypes())
    assert searcher.ask() is None


def test_after_an_optimum_a_random_one():
    space = ToySpace((3,) * 6)
    searcher = get_searcher("local_search", space)
    searcher.enqueue([(2,) * 6])  # the optimum
    asked = climb(searcher, slope, 1 + 12 + 1)
    assert searcher.current is None or searcher.current == asked[13]
    assert asked[13] not in space.neighbours((2,) * 6)


def test_climb_begins_at_the_best_start():
    space = ToySpace((4, 4, 4))
    searcher = get_searcher("local_search", space, n_initial=6)
    asked = climb(searcher, slope, 7)
    assert searcher.current == max(asked[:6], key=slope)


def test_waits_for_its_start_and_its_neighbours():
    space = ToySpace((3, 3))
    searcher = get_searcher("local_search", space)
    start = searcher.ask()
    assert searcher.ask() is None
    searcher.tell(start, 0.0)
    around = [searcher.ask() for _ in range(4)]
    assert None not in around
    assert searcher.ask() is None
    for trial in around[1:]:
        searcher.tell(trial, 1.0)
    assert searcher.ask() is None
    searcher.tell(around[0], 5.0)
    assert searcher.ask() is not None
    assert searcher.current == around[0].genotype


def test_failed_neighbours_are_not_moved_to():
    space = ToySpace((3, 3, 3))
    searcher = get_searcher("local_search", space)
    start = searcher.ask()
    searcher.tell(start, -5.0)
    for _ in range(6):
        searcher.tell(searcher.ask(), None)
    assert searcher.ask().genotype not in space.neighbours(start.genotype)
    assert searcher.current is None  # a new start is looked for


def test_waits_for_all_starts():
    searcher = get_searcher("local_search", ToySpace((3, 3)), n_initial=3)
    trials = [searcher.ask() for _ in range(3)]
    searcher.tell(trials[0], 1.0)
    assert searcher.ask() is None


def test_architecture_put_in_has_no_alternative():
    searcher = get_searcher("local_search", ToySpace((3, 3)))
    searcher.enqueue([(0, 1), (2, 2)])
    assert [proposal.genotype for proposal in searcher.candidates(5)] == [(0, 1)]
    assert searcher.n_enqueued == 1


def test_alternatives_are_different_and_change_nothing():
    space = ToySpace((3,) * 5)
    searcher = get_searcher("local_search", space)
    searcher.tell(searcher.ask(), 0.0)
    found = [proposal.genotype for proposal in searcher.candidates(7)]
    assert len(set(found)) == 7
    assert len(searcher.candidates(100)) == 10
    searcher.submit(searcher.candidates(3)[2])
    assert len(searcher.candidates(100)) == 9


def test_unseen_draws_find_the_last_one_and_end():
    space = ToySpace((50, 50))
    searcher = get_searcher("random", space)
    everything = set(space.genotypes())
    assert draw_unseen(searcher, everything - {(7, 31)}) == (7, 31)
    assert draw_unseen(searcher, everything) is None
    huge = get_searcher("random", ToySpace((10,) * 30, lambda genotype: sum(genotype[1:]) == 0))
    huge.space.sample = lambda rng: (0,) * 30  # listing 10^30 genotypes would not end
    assert draw_unseen(huge, {(0,) * 30}) is None


@pytest.mark.parametrize("options", [{"n_initial": 0}, {"move": "worst"}])
def test_options_out_of_range(options):
    with pytest.raises(OptionError, match="expected n_initial of at least 1 and move"):
        get_searcher("local_search", ToySpace(), **options)
