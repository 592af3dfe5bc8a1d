"""The evolution of SPOS: its generations, its parents, no architecture twice, limits kept, better than random."""

from __future__ import annotations

import numpy as np
import pytest

from naswot.constraints import ConstrainedSpace
from naswot.errors import OptionError
from naswot.searcher import get_searcher
from naswot.searching import run_search
from naswot.space import get_space
from naswot.testing.searcher_contract import by_genotype, play
from naswot.testing.toy_space import ToySpace, planted

LARGE = ToySpace((5,) * 12)


def evolution(space=LARGE, **options):
    return get_searcher("spos_evolution", space, **options)


def genes_apart(a, b):
    return sum(x != y for x, y in zip(a, b, strict=True))


def generations(trials, size):
    return [[trial.genotype for trial in trials[i : i + size]] for i in range(0, len(trials), size)]


def test_by_default_it_has_the_twenty_generations_of_fifty_of_the_paper_and_ends():
    searcher = evolution()
    trials = play(searcher, by_genotype(planted(LARGE)), 2000)
    assert searcher.ends
    assert len(trials) == searcher.planned == 1000
    assert searcher.ask() is None


def test_no_architecture_is_proposed_twice():
    trials = play(evolution(), by_genotype(planted(LARGE)), 1000)
    assert len({trial.genotype for trial in trials}) == 1000
    small = ToySpace((3, 3, 3))
    trials = play(evolution(small), by_genotype(planted(small)), 1000)
    assert sorted(trial.genotype for trial in trials) == sorted(small.genotypes())  # and then the space is used up


def test_a_generation_waits_until_all_of_the_one_before_was_told():
    searcher = evolution(population=4)
    trials = [searcher.ask() for _ in range(4)]
    assert searcher.ask() is None
    for trial in trials[:3]:
        searcher.tell(trial, 1.0)
    assert searcher.ask() is None
    searcher.tell(trials[3], 1.0)
    assert searcher.ask() is not None


def best_of(trials, value, n):
    return sorted((trial.genotype for trial in trials), key=lambda genotype: -value(genotype))[:n]


def test_mutants_differ_from_one_of_the_best_in_a_tenth_of_their_genes():
    space, value = ToySpace((9,) * 30), planted(ToySpace((9,) * 30))
    searcher = evolution(space, population=100, mutants=1.0, crossings=0.0, generations=2)
    trials = play(searcher, by_genotype(value), 200)
    parents = best_of(trials[:100], value, 10)
    distances = [min(genes_apart(trial.genotype, parent) for parent in parents) for trial in trials[100:]]
    assert max(distances) < 12  # those of two random architectures are about 27 of 30
    assert np.mean(distances) == pytest.approx(30 * 0.1 * 8 / 9, abs=0.6)  # a ninth of the draws changes nothing
    near = {min(parents, key=lambda p, t=trial: genes_apart(p, t.genotype)) for trial in trials[100:]}
    assert near == set(parents)


def test_crossings_take_every_gene_from_one_of_two_of_the_best():
    space, value = ToySpace((9,) * 30), planted(ToySpace((9,) * 30))
    searcher = evolution(space, population=40, mutants=0.0, crossings=1.0, generations=2)
    trials = play(searcher, by_genotype(value), 80)
    parents = best_of(trials[:40], value, 10)
    for trial in trials[40:]:
        pairs = [(a, b) for a in parents for b in parents if a != b]
        assert any(all(g in both for g, *both in zip(trial.genotype, a, b, strict=True)) for a, b in pairs)


def test_parents_are_the_best_of_all_generations_and_not_of_the_last():
    space = ToySpace((9,) * 30)
    searcher = evolution(space, population=20, parents=2, mutants=1.0, crossings=0.0, generations=3)
    trials = play(searcher, lambda trial: -float(trial.number) if trial.number < 20 else None, 60)
    parents = [trials[0].genotype, trials[1].genotype]
    second, third = (
        np.mean([min(genes_apart(trial.genotype, parent) for parent in parents) for trial in some])
        for some in (trials[20:40], trials[40:])
    )
    assert max(second, third) < 4  # the second generation failed: its offspring would be about 5 apart


def test_half_of_a_generation_are_mutants_and_what_is_missing_is_random():
    space, value = ToySpace((9,) * 30), planted(ToySpace((9,) * 30))
    searcher = evolution(space, population=40, mutants=0.5, crossings=0.25, generations=2)
    second = generations(play(searcher, by_genotype(value), 80), 40)[1]
    parents = best_of(play(evolution(space, population=40), by_genotype(value), 40), value, 10)
    near = [min(genes_apart(child, parent) for parent in parents) for child in second]
    assert max(near[:20]) < 12
    assert min(near[30:]) > 15


@pytest.mark.parametrize("shares", [(0.5, 0.5), (1.0, 0.0), (0.0, 1.0)])
def test_a_limit_is_never_violated(shares):
    def cost(genotype):
        return 1.0 + sum(genotype)

    space = ConstrainedSpace(LARGE, {"sum": 20.0}, {"sum": cost})
    searcher = evolution(space, mutants=shares[0], crossings=shares[1], generations=6)
    trials = play(searcher, lambda trial: cost(trial.genotype), 300)  # what is worth most is what costs most
    assert len(trials) == 300
    assert max(cost(trial.genotype) for trial in trials) == 20.0


def test_evolution_is_at_least_as_good_as_random_search_at_equal_queries_over_twenty_seeds():
    space = get_space("nasbench201")
    value = planted(space, rugged=0.5)

    def best(name, seed, **options):
        result = run_search(get_searcher(name, space, seed=seed, **options), value, budget=200)
        assert len(result.records) == 200
        return result.best.values[0]

    gains = [best("spos_evolution", s, population=20, generations=10) - best("random", s) for s in range(20)]
    assert np.mean(gains) > 0
    assert sum(gain >= 0 for gain in gains) >= 15  # by chance once in 50


def test_what_was_put_in_later_comes_with_the_next_generation():
    searcher = evolution(population=4)
    trials = [searcher.ask() for _ in range(4)]
    wanted = (4,) * 12
    searcher.enqueue([wanted, trials[0].genotype])  # the second is known
    for trial in trials:
        searcher.tell(trial, 0.0)
    second = [searcher.ask().genotype for _ in range(4)]
    assert second[0] == wanted
    assert trials[0].genotype not in second


@pytest.mark.parametrize(
    "options",
    [{"population": 0}, {"generations": 0}, {"parents": 0}, {"mutants": 0.7}, {"crossings": -0.1}, {"mutation": 1.5}],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(OptionError, match="expected"):
        evolution(**options)
