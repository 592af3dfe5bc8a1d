"""Spaces with limits: every strategy stays within them, impossible ones are named."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from naswot.benchmark import Benchmark, Column, Table, get_benchmark
from naswot.constraints import ConstrainedSpace, StoredCost, network_costs, space_held
from naswot.data import get_data
from naswot.errors import ArchitectureError, OptionError
from naswot.evaluate import Evaluator
from naswot.searcher import get_searcher, list_searchers
from naswot.space import get_space
from naswot.store import ResultStore

SPACE = get_space("nasbench201")


def n_convolutions(genotype):
    return float(sum(gene in (2, 3) for gene in genotype))


def limited(limit=2.0):
    return ConstrainedSpace(SPACE, {"convolutions": limit}, {"convolutions": n_convolutions})


def test_all_ways_to_a_new_architecture_keep_to_the_limit():
    space, rng = limited(), np.random.default_rng(0)
    first, second = space.sample(rng), space.sample(rng)
    children = [space.mutate(first, rng) for _ in range(200)] + [space.crossover(first, second, rng) for _ in range(50)]
    everything = [*children, *space.neighbours(first), first, second]
    assert max(map(n_convolutions, everything)) == 2
    assert all(space.is_valid(genotype) for genotype in everything)
    assert not space.is_valid((3, 3, 3, 0, 0, 0))
    assert sum(1 for _ in space.genotypes()) == sum(n_convolutions(g) <= 2 for g in SPACE.genotypes())


@pytest.mark.parametrize("name", [n for n in list_searchers() if n not in ("area", "cascade", "naswot_search", "nao")])
def test_every_strategy_keeps_to_it_without_knowing(name):
    searcher = get_searcher(name, limited(3.0), seed=1)
    for _ in range(40):
        trial = searcher.ask()
        if trial is None:
            break
        assert n_convolutions(trial.genotype) <= 3
        searcher.tell(trial, n_convolutions(trial.genotype))
    assert searcher.n_asked > 5


def test_impossible_limits_say_what_the_least_was():
    space = ConstrainedSpace(SPACE, {"cost": 1.0}, {"cost": lambda genotype: 5.0 + sum(genotype)})
    with pytest.raises(
        OptionError, match=r"impossible constraint: none of 1,000 .* cost <= 1 \(least met \d+\); relax"
    ):
        space.sample(np.random.default_rng(0))


def test_a_mutant_that_has_no_affordable_neighbour_gives_way_to_a_random_one():
    lonely = {(0, 0, 0, 0, 0, 0), (4, 4, 4, 4, 4, 4)}

    class Listed(type(SPACE)):
        def sample(self, rng):
            return sorted(lonely)[int(rng.integers(2))]

    space = ConstrainedSpace(Listed(), {"other": 0.5}, {"other": lambda genotype: float(genotype not in lonely)})
    rng = np.random.default_rng(1)
    assert {space.mutate((0, 0, 0, 0, 0, 0), rng) for _ in range(20)} == lonely
    assert space.crossover((0, 0, 0, 0, 0, 0), (4, 4, 4, 4, 4, 4), rng) in lonely


def test_wrong_limits_and_dear_architectures_are_refused():
    with pytest.raises(OptionError, match="there is no cost 'speed' to limit; there are convolutions"):
        ConstrainedSpace(SPACE, {"speed": 1.0}, {"convolutions": n_convolutions})
    with pytest.raises(OptionError, match="above 0"):
        limited(0.0)
    with pytest.raises(ArchitectureError, match="has convolutions 6; at most 2 is allowed"):
        limited().check((3, 3, 3, 3, 3, 3))


def test_costs_of_networks_are_those_of_the_built_network_and_asked_once():
    images = get_data("digits", size=8)
    build = {"width": 4, "n_cells": 1}
    costs = network_costs(SPACE, images, build=build)
    genotype = (3, 3, 1, 2, 0, 4)
    assert costs["params"](genotype) == SPACE.n_parameters(genotype, **build)
    asked = []
    space = ConstrainedSpace(SPACE, {"x": 10.0}, {"x": lambda g: asked.append(g) or 1.0})
    for _ in range(3):
        assert space.is_valid(genotype)
    assert asked == [genotype]


def test_of_a_benchmark_that_holds_a_part_of_its_space_that_part_is_searched():
    bench = get_benchmark("nasbench201_digits")
    space, rng = space_held(bench), np.random.default_rng(0)
    genotype = space.sample(rng)
    assert all(space.mutate(genotype, rng) in bench for _ in range(30))
    assert set(space.genotypes()) == set(bench.genotypes())
    whole = Benchmark("whole", SPACE, Table(list(SPACE.genotypes()), {Column("d", "a"): np.zeros(SPACE.size)}))
    assert space_held(whole) is SPACE


def test_mutations_of_the_space_itself_keep_to_the_limits_too():
    graphs = get_space("evolved_graph")
    small = ConstrainedSpace(graphs, {"vertices": 1.5}, {"vertices": lambda g: float(len(graphs.graph(g).vertices))})
    evolution = get_searcher("large_scale_evolution", small, population=4)
    assert evolution.ask().genotype == graphs.start()
    rng = np.random.default_rng(0)
    genotype = small.start()
    for _ in range(100):
        genotype, _ = small.propose_mutation(genotype, rng)
        assert small.is_valid(genotype)
    some = ConstrainedSpace(graphs, {"none": 0.5}, {"none": lambda g: float(not graphs.graph(g).vertices)})
    assert not hasattr(some, "start")


def test_a_measured_cost_is_taken_once_and_kept(tmp_path):
    taken = []

    def measure(genotype):
        taken.append(genotype)
        return float(len(taken))

    genotype = (1, 1, 1, 1, 1, 1)
    with ResultStore(tmp_path / "r.sqlite", options={}) as store:
        cost = StoredCost("latency", measure, SPACE, store=store)
        assert [cost(genotype), cost(genotype), cost((0,) * 6)] == [1.0, 1.0, 2.0]
        again = StoredCost("latency", measure, SPACE, store=store)
        assert again(genotype) == 1.0
        assert copy.copy(cost)(genotype) == 1.0
    assert len(taken) == 2


def test_it_is_the_whole_space_in_all_else():
    space = limited()
    assert (space.name, space.choices, space.input_size) == (SPACE.name, SPACE.choices, SPACE.input_size)
    genotype = (1, 1, 3, 0, 4, 3)
    assert space.parse(space.format(genotype)) == genotype
    assert space.canonical(genotype) == SPACE.canonical(genotype)
    built = Evaluator(space, get_data("digits", size=8), ("params",), batch_size=2, build={"width": 4})(genotype)
    assert built.scores["params"] == SPACE.n_parameters(genotype, width=4)
    assert space.prune(genotype) == SPACE.prune(genotype)  # what only this space has
    assert sum(p.numel() for p in space.build(genotype, width=4).parameters()) == SPACE.n_parameters(genotype, width=4)
    copy = pickle.loads(pickle.dumps(ConstrainedSpace(SPACE, {"x": 3.0}, {"x": n_convolutions})))
    assert not copy.is_valid((3, 3, 3, 3, 3, 3))
