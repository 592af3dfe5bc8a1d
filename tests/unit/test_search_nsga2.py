"""NSGA-II finds the Pareto front, keeps to generations and can sort what is infinite."""

import sys

import numpy as np
import pytest

from naswot.errors import MissingPackageError, OptionError
from naswot.search.nsga2 import to_minimise
from naswot.searcher import get_searcher
from naswot.testing.toy_space import ToySpace, planted

SPACE = ToySpace((4, 4, 4, 3))
QUALITY = planted(SPACE, seed=1)


def cost(genotype):
    return float(sum((i + 1) * gene for i, gene in enumerate(genotype)))


def both(genotype):
    return QUALITY(genotype), -cost(genotype)


def front(points):
    """Those that no other point dominates."""
    array = np.array(list(points.values()))
    dominated = [((array >= row).all(1) & (array > row).any(1)).any() for row in array]
    return {genotype for genotype, bad in zip(points, dominated, strict=True) if not bad}


def search(searcher, values, n):
    told = {}
    for _ in range(n):
        trial = searcher.ask()
        if trial is None:
            break
        told[trial.genotype] = values(trial.genotype)
        searcher.tell(trial, told[trial.genotype])
    return told


LARGE = ToySpace((4,) * 6)
NOISE = planted(LARGE, seed=1, rugged=0.1)


def trade(genotype):
    """Cost buys quality, at a falling rate."""
    bought = sum(np.sqrt((i + 1) * gene) for i, gene in enumerate(genotype))
    return NOISE(genotype) + bought / 2, -cost(genotype)


@pytest.mark.parametrize("seed", range(2))
def test_front_is_the_one_found_by_brute_force(seed):
    """After 600 of 4,096 architectures; random search finds a third of it."""
    expected = front({genotype: trade(genotype) for genotype in LARGE.genotypes()})
    assert len(expected) == 12
    searcher = get_searcher("nsga2", LARGE, n_objectives=2, seed=seed)
    found = search(searcher, trade, 600)
    assert len(found) == 600
    assert front(found) == expected
    assert {tuple(member.X.tolist()) for member in searcher._algorithm.pop} >= expected
    drawn = search(get_searcher("random", LARGE, n_objectives=2, seed=seed), trade, 600)
    assert len(front(drawn) & expected) <= 6


def test_higher_is_better_in_both():
    """The ends of the front, after 300 of 4,096 architectures."""
    found = search(get_searcher("nsga2", LARGE, n_objectives=2, population=20), trade, 300)
    everything = [trade(genotype) for genotype in LARGE.genotypes()]
    assert max(cheap for _, cheap in found.values()) >= -2.0  # of 0 to -63
    assert max(good for good, _ in found.values()) >= np.quantile([good for good, _ in everything], 0.998)


def test_one_objective_works_too():
    found = search(get_searcher("nsga2", LARGE, population=20), NOISE, 300)
    assert max(found.values()) >= np.quantile([NOISE(genotype) for genotype in LARGE.genotypes()], 0.998)


def test_generation_waits_for_all_of_it():
    searcher = get_searcher("nsga2", SPACE, n_objectives=2, population=4)
    trials = [searcher.ask() for _ in range(4)]
    assert len({trial.genotype for trial in trials}) == 4
    assert searcher.ask() is None
    for trial in trials[:3]:
        searcher.tell(trial, both(trial.genotype))
    assert searcher.ask() is None
    searcher.tell(trials[3], both(trials[3].genotype))
    assert searcher.ask() is not None


def test_none_comes_twice_until_the_space_is_used_up():
    """Also where mating a small population soon gives nothing new."""
    space = ToySpace((3, 3, 3))
    searcher = get_searcher("nsga2", space, n_objectives=2, population=4)
    asked = []
    while trial := searcher.ask():
        asked.append(trial.genotype)
        searcher.tell(trial, (float(trial.genotype[0]), float(trial.genotype[1])))
    assert sorted(asked) == list(space.genotypes())
    assert searcher.ask() is None


def test_failed_ones_do_not_survive_others():
    """Although they would be the cheapest."""
    searcher = get_searcher("nsga2", SPACE, n_objectives=2, population=8)
    for _ in range(8 * 5):
        trial = searcher.ask()
        searcher.tell(trial, None if trial.genotype[0] == 0 else both(trial.genotype))
    assert all(member.X[0] != 0 for member in searcher._algorithm.pop)


def test_infinite_values_are_beyond_the_finite_ones():
    values = np.array([[1.0, -np.inf], [3.0, -np.inf], [-np.inf, -np.inf], [np.inf, -np.inf]])
    assert to_minimise(values).tolist() == [[-1.0, 1.0], [-3.0, 1.0], [1.0, 1.0], [-5.0, 1.0]]
    equal = to_minimise(np.array([[2.0], [2.0], [-np.inf]]))
    assert equal.tolist() == [[-2.0], [-2.0], [-1.0]]


def test_one_infinite_objective_leaves_the_others_apart():
    """Beside -inf itself all distances in that objective would be 0, and the three in the middle equally crowded."""
    searcher = get_searcher("nsga2", SPACE, n_objectives=2, population=5)
    told = [(-np.inf, 0.0), (1.0, -1.0), (2.0, -2.0), (10.0, -3.0), (11.0, -4.0)]
    for values in told:
        searcher.tell(searcher.ask(), values)
    crowding = {tuple(member.data["told"]): float(member.get("crowding")) for member in searcher._algorithm.pop}
    # -inf counts as 1 - (11 - 1): distances 11/20, 9/20, 9/20, and 2/4 by cost; pymoo takes the mean of both
    assert [crowding[values] for values in told[1:4]] == pytest.approx([0.525, 0.475, 0.475])


def test_architectures_put_in_come_first_and_between_generations():
    searcher = get_searcher("nsga2", SPACE, n_objectives=2, population=3)
    searcher.enqueue([(3, 3, 3, 2), (0, 0, 0, 0), (1, 1, 1, 1), (2, 2, 2, 2)])
    assert list(search(searcher, both, 4)) == [(3, 3, 3, 2), (0, 0, 0, 0), (1, 1, 1, 1), (2, 2, 2, 2)]
    searcher.enqueue([(3, 0, 0, 0)])
    assert searcher.ask().genotype == (3, 0, 0, 0)


@pytest.mark.parametrize("options", [{"population": 1}, {"mutation": 1.5}, {"mutation": -0.1}])
def test_options_out_of_range(options):
    with pytest.raises(OptionError, match="expected a population of at least 2"):
        get_searcher("nsga2", SPACE, n_objectives=2, **options)


def test_without_pymoo(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymoo.algorithms.moo.nsga2", None)
    with pytest.raises(MissingPackageError, match=r"nsga2 needs the package 'pymoo': pip install 'naswot\[pymoo\]'"):
        get_searcher("nsga2", SPACE, n_objectives=2)


def test_nothing_is_printed(capsys):
    search(get_searcher("nsga2", SPACE, n_objectives=2, population=4), both, 20)
    assert capsys.readouterr() == ("", "")
