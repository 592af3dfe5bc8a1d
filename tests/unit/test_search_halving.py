"""Successive halving and Hyperband: rungs as published, who goes on, and what waits."""

import itertools

import pytest

from naswot.errors import OptionError
from naswot.search._halving import epoch_levels
from naswot.searcher import get_searcher
from naswot.testing.toy_space import ToySpace

SPACE = ToySpace((8, 8, 8))


def worth(genotype):
    return float(sum(8**i * gene for i, gene in enumerate(genotype)))


def run(searcher, n=300, value=worth):
    """All trials in the order of asking."""
    trials = []
    while len(trials) < n and (trial := searcher.ask()):
        trials.append(trial)
        searcher.tell(trial, value(trial.genotype))
    return trials


def test_brackets_are_those_of_the_formula_for_81_and_3():
    """Algorithm 1 of Li et al.: n = ceil(5 / (s + 1) * 3^s), r = 81 / 3^s, floor(n / 3^i) of them at r * 3^i."""
    assert get_searcher("hyperband", SPACE, max_epochs=81).brackets == (
        ((81, 1), (27, 3), (9, 9), (3, 27), (1, 81)),
        ((34, 3), (11, 9), (3, 27), (1, 81)),
        ((15, 9), (5, 27), (1, 81)),
        ((8, 27), (2, 81)),
        ((5, 81),),
    )


def test_hyperband_asks_for_its_brackets_in_turn():
    searcher = get_searcher("hyperband", SPACE, max_epochs=9, rounds=1)
    epochs = [trial.epochs for trial in run(searcher)]
    assert epochs == [1] * 9 + [3] * 3 + [9] + [3] * 5 + [9] + [9] * 3
    assert searcher.ask() is None
    assert [trial.epochs for trial in run(get_searcher("hyperband", SPACE, max_epochs=9), 23)][22] == 1  # begins again


def test_hyperband_on_two_levels():
    assert get_searcher("hyperband", SPACE, levels=(12, 200)).brackets == (((3, 12), (1, 200)), ((2, 200),))


def test_halving_lets_the_best_third_go_on():
    searcher = get_searcher("successive_halving", SPACE, rounds=1)
    trials = run(searcher)
    rungs = [[t for t in trials if t.epochs == epochs] for epochs in (1, 3, 9, 27)]
    assert [len(rung) for rung in rungs] == [27, 9, 3, 1]
    for below, rung in itertools.pairwise(rungs):
        best = sorted(below, key=lambda t: -worth(t.genotype))[: len(rung)]
        assert [t.genotype for t in rung] == [t.genotype for t in best]
        assert all(trials[t.parent].genotype == t.genotype and trials[t.parent] in below for t in rung)
    assert all(t.parent is None for t in rungs[0])
    assert searcher.ask() is None


def test_levels_and_sizes_of_ones_own():
    searcher = get_searcher("successive_halving", SPACE, n=10, eta=4, levels=(12, 200))
    assert [(t.epochs) for t in run(searcher, 14)] == [12] * 10 + [200] * 2 + [12] * 2


@pytest.mark.parametrize(
    ("limits", "expected"),
    [((1, 27, 3), (1, 3, 9, 27)), ((2, 50, 3), (6, 17, 50)), ((1, 50, 3), (2, 6, 17, 50)), ((5, 5, 3), (5,)),
     ((1, 8, 2), (1, 2, 4, 8)), ((1, 243, 3), (1, 3, 9, 27, 81, 243))],
)  # fmt: skip
def test_epochs_are_rounded(limits, expected):
    assert epoch_levels(*limits, None) == expected


def test_rung_waits_until_it_is_complete():
    searcher = get_searcher("successive_halving", SPACE, n=3, max_epochs=3)
    trials = [searcher.ask() for _ in range(3)]
    assert searcher.ask() is None
    searcher.tell(trials[2], 9.0)
    searcher.tell(trials[0], 1.0)
    assert searcher.ask() is None
    searcher.tell(trials[1], 5.0)
    assert searcher.ask().genotype == trials[2].genotype
    assert searcher.ask() is None


def test_several_runs_at_once_fill_the_time_of_waiting():
    searcher = get_searcher("successive_halving", SPACE, n=3, max_epochs=3, at_once=2)
    trials = [searcher.ask() for _ in range(6)]
    assert None not in trials
    assert searcher.ask() is None
    for trial in trials[:3]:
        searcher.tell(trial, worth(trial.genotype))
    promoted = searcher.ask()  # of the first run, whatever the second is worth
    assert promoted.genotype == max(trials[:3], key=lambda t: worth(t.genotype)).genotype
    for trial in (*trials[3:], promoted):
        searcher.tell(trial, worth(trial.genotype))
    assert [searcher.ask().epochs for _ in range(4)] == [3, 1, 1, 1]  # the third begins when the first has ended


def test_what_failed_does_not_go_on():
    searcher = get_searcher("successive_halving", SPACE, n=9, max_epochs=9)
    first = [searcher.ask() for _ in range(9)]
    for i, trial in enumerate(first):
        searcher.tell(trial, 1.0 if i == 4 else None)
    assert searcher.ask().genotype == first[4].genotype
    assert searcher.ask() is None


def test_run_in_which_all_failed_is_over():
    searcher = get_searcher("successive_halving", SPACE, n=3, max_epochs=9, eta=3, levels=(1, 9))
    for _ in range(3):
        searcher.tell(searcher.ask(), None)
    assert searcher.ask().epochs == 1


def test_alternatives_are_new_draws_only():
    searcher = get_searcher("successive_halving", SPACE, n=3, max_epochs=3)
    for _ in range(3):
        alternatives = searcher.candidates(5)
        assert len(alternatives) == 5
        searcher.tell(searcher.submit(alternatives[3]), 1.0)
    assert [p.epochs for p in searcher.candidates(5)] == [3]
    assert [p.epochs for p in searcher.candidates(5)] == [3]  # asking for them changes nothing
    searcher.submit(searcher.candidates(5)[0])
    assert searcher.candidates(5) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [({"eta": 1}, "eta of at least 2"), ({"levels": (200, 12)}, "ascending"), ({"levels": ()}, "ascending"),
     ({"levels": (0, 1)}, "ascending"), ({"min_epochs": 0}, "1 <= min_epochs <= max_epochs"),
     ({"min_epochs": 9, "max_epochs": 3}, "1 <= min_epochs <= max_epochs"), ({"rounds": 0}, "rounds of at least 1"),
     ({"at_once": 0}, "at_once of at least 1")],
)  # fmt: skip
@pytest.mark.parametrize("name", ["successive_halving", "hyperband"])
def test_options_out_of_range(name, options, message):
    with pytest.raises(OptionError, match=message):
        get_searcher(name, SPACE, **options)


def test_too_few_for_the_rungs():
    with pytest.raises(OptionError, match=r"expected n of at least 27, .* each of 4 rungs, but got 26"):
        get_searcher("successive_halving", SPACE, n=26)
