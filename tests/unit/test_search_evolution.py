"""What tells the evolutions apart: who has children, and who dies."""

import pytest

from naswot.errors import OptionError
from naswot.searcher import get_searcher
from naswot.space import get_space
from naswot.testing.toy_space import ToySpace, planted

SPACE = ToySpace((5,) * 6)


def step(searcher, value):
    trial = searcher.ask()
    searcher.tell(trial, value)
    return trial


def distance(first, second):
    return sum(a != b for a, b in zip(first, second, strict=True))


class TestRegularisedEvolution:
    """The oldest dies, however good it is."""

    def test_the_best_dies_when_it_is_the_oldest(self):
        """An elitist or pairwise evolution would keep the only good one for ever."""
        searcher = get_searcher("regularized_evolution", SPACE, population=5, sample=5, replace=False)
        best = step(searcher, 100.0)
        for _ in range(4):
            step(searcher, 0.0)
        child = step(searcher, 1.0)
        assert distance(child.genotype, best.genotype) == 1
        assert 100.0 not in [value for _, value in searcher.population]
        after = step(searcher, 0.5)
        assert distance(after.genotype, child.genotype) == 1  # the next best is the child now

    def test_population_is_the_last_p_in_order(self):
        searcher = get_searcher("regularized_evolution", SPACE, population=4, sample=2)
        trials = [step(searcher, float(i % 3)) for i in range(30)]
        assert [genotype for genotype, _ in searcher.population] == [trial.genotype for trial in trials[-4:]]

    def test_failed_one_never_wins_but_ages(self):
        searcher = get_searcher("regularized_evolution", SPACE, population=3, sample=3, replace=False)
        only = step(searcher, -5.0)
        step(searcher, None)
        step(searcher, None)
        assert distance(searcher.ask().genotype, only.genotype) == 1
        assert len(searcher.population) == 3

    def test_tournament_of_all_takes_the_best_and_of_one_anyone(self):
        parents = {sample: set() for sample in (1, 6)}
        for sample, found in parents.items():
            for seed in range(30):
                options = {"population": 6, "sample": sample, "replace": False}
                searcher = get_searcher("regularized_evolution", SPACE, seed=seed, **options)
                searcher.enqueue([(i,) * 6 for i in range(5)] + [(0, 1, 2, 3, 4, 0)])
                trials = [step(searcher, float(i)) for i in range(6)]
                child = searcher.ask().genotype
                found |= {trial.number for trial in trials if distance(trial.genotype, child) == 1}
        assert parents[6] == {5}
        assert parents[1] == set(range(6))

    def test_draws_with_replacement_need_not_see_all(self):
        """Six draws with replacement of six miss the best in a third of the cases."""
        missed = 0
        for seed in range(60):
            searcher = get_searcher("regularized_evolution", SPACE, seed=seed, population=6, sample=6, replace=True)
            searcher.enqueue([(i,) * 6 for i in range(5)] + [(0, 1, 2, 3, 4, 0)])
            trials = [step(searcher, float(i)) for i in range(6)]
            missed += distance(searcher.ask().genotype, trials[5].genotype) != 1
        assert 8 <= missed <= 32  # 20 expected, 3.6 standard deviation

    @pytest.mark.parametrize("options", [{"sample": 0}, {"sample": 11}, {"population": 2}])
    def test_options_out_of_range(self, options):
        with pytest.raises(OptionError, match="expected 1 <= sample <= population"):
            get_searcher("regularized_evolution", SPACE, **options)


class TestLargeScaleEvolution:
    """The worse of a pair dies, so the best never does."""

    def test_the_worse_of_the_pair_dies_and_the_better_has_a_child(self):
        searcher = get_searcher("large_scale_evolution", SPACE, population=2)
        good, bad = step(searcher, 3.0), step(searcher, 1.0)
        child = searcher.ask()
        assert child.parent == good.number
        assert distance(child.genotype, good.genotype) == 1
        assert [member.number for member in searcher.population] == [good.number]
        assert searcher.ask() is None  # a pair needs two
        searcher.tell(child, 9.0)
        assert searcher.ask().parent == child.number
        assert bad.number not in {member.number for member in searcher.population}

    def test_the_best_never_dies(self):
        """With aging it would be gone after a population's length."""
        value = planted(SPACE)
        searcher = get_searcher("large_scale_evolution", SPACE, population=8)
        best = -1e9
        for _ in range(200):
            trial = searcher.ask()
            best = max(best, value(trial.genotype))
            searcher.tell(trial, value(trial.genotype))
            assert best in [member.value for member in searcher.population]
        assert len(searcher.population) == 8

    def test_open_trials_are_missing_from_the_population(self):
        searcher = get_searcher("large_scale_evolution", SPACE, population=10)
        for i in range(10):
            step(searcher, float(i))
        trials = [searcher.ask() for _ in range(4)]
        assert len(searcher.population) == 6
        for trial in trials:
            searcher.tell(trial, None)
        assert len(searcher.population) == 10

    def test_it_goes_on_when_all_fail(self):
        searcher = get_searcher("large_scale_evolution", SPACE, population=3)
        for _ in range(20):
            step(searcher, None)
        assert len(searcher.population) == 3

    def test_mutations_and_start_of_the_space(self):
        class Evolving(ToySpace):
            """Counts up; every other child begins with fresh weights."""

            def start(self):
                return (0,) * 6

            def propose_mutation(self, genotype, rng):
                return (*genotype[:5], (genotype[5] + 1) % 5), bool(genotype[5] % 2)

        searcher = get_searcher("large_scale_evolution", Evolving((5,) * 6), population=3)
        searcher.enqueue([(4,) * 6])
        first = [step(searcher, 0.0) for _ in range(3)]
        assert [trial.genotype for trial in first] == [(4,) * 6, (0,) * 6, (0,) * 6]
        assert [trial.parent for trial in first] == [None] * 3
        for i in range(20):
            child = step(searcher, float(i))
            below = (child.genotype[5] - 1) % 5
            assert (child.parent is not None) == bool(below % 2)

    def test_graphs_begin_linear_and_grow_by_the_papers_mutations(self):
        """All members are linear models first; a child whose weights were reset names no parent."""
        space = get_space("evolved_graph")
        searcher = get_searcher("large_scale_evolution", space, population=4)
        trials = [step(searcher, 0.0) for _ in range(4)]
        assert {space.format(trial.genotype) for trial in trials} == {"lr0.1"}
        for _ in range(150):
            trial = searcher.ask()
            trials.append(trial)
            searcher.tell(trial, float(len(space.graph(trial.genotype).vertices)))
        grown = [len(space.graph(trial.genotype).vertices) for trial in trials]
        assert max(grown) >= 4
        fresh = [trial for trial in trials[4:] if trial.parent is None]
        assert 3 <= len(fresh) <= 40  # one mutation of up to eleven resets the weights
        heirs = [trial for trial in trials if trial.parent is not None]
        assert any(sum(a != b for a, b in zip(t.genotype, trials[t.parent].genotype, strict=True)) > 1 for t in heirs)

    def test_alternatives_are_children_of_one_parent_and_kill_one_when_chosen(self):
        searcher = get_searcher("large_scale_evolution", SPACE, population=6)
        for i in range(6):
            step(searcher, float(i))
        for _ in range(10):
            children = searcher.candidates(5)
        assert len(searcher.population) == 6
        assert len({child.parent for child in children}) == 1
        assert len({child.genotype for child in children}) > 1
        searcher.submit(children[2])
        assert len(searcher.population) == 5
        assert children[2].parent in {member.number for member in searcher.population}

    def test_options_out_of_range(self):
        with pytest.raises(OptionError, match="population of at least 2, but got 1"):
            get_searcher("large_scale_evolution", SPACE, population=1)
