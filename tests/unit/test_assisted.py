"""Zero-cost help: whom it proposes, drops and leaves alone; AREA, naswot_search and cascade."""

from __future__ import annotations

import math

import pytest

from naswot.assisted import Assisted, ProxyScorer, TableScorer, best_scored
from naswot.constraints import ConstrainedSpace
from naswot.data import get_data
from naswot.errors import OptionError
from naswot.evaluate import Evaluator
from naswot.run import sample_distinct
from naswot.search.cascade import Cascade
from naswot.searcher import get_searcher
from naswot.space import get_space

SPACE = get_space("nasbench201")
SCORES = {genotype: float(sum(genotype)) for genotype in SPACE.genotypes()}


def scorer():
    return TableScorer(SCORES, seconds=2.0)


def play(searcher, n, value=lambda genotype: float(sum(genotype))):
    trials = []
    for _ in range(n):
        trial = searcher.ask()
        if trial is None:
            break
        searcher.tell(trial, value(trial.genotype))
        trials.append(trial)
    return trials


def test_the_warm_up_proposes_the_best_of_the_pool_then_leaves_the_strategy_alone():
    helped = Assisted(get_searcher("random", SPACE, seed=1), scorer(), warm_up=50, keep=5)
    pool = sample_distinct(SPACE, 50, seed=1)
    trials = play(helped, 8)
    assert [t.genotype for t in trials[:5]] == sorted(pool, key=lambda g: -SCORES[g])[:5]
    assert [t.genotype for t in trials[5:]] == [t.genotype for t in play(get_searcher("random", SPACE, seed=1), 3)]
    assert (helped.n_scored, helped.scoring_seconds) == (50, 100.0)


def test_area_is_evolution_from_the_ten_best_of_twenty():
    area = get_searcher("area", SPACE, seed=2, scorer=scorer())
    pool = sample_distinct(SPACE, 20, seed=2)
    first = [t.genotype for t in play(area, 10)]
    assert first == best_scored(pool, scorer(), 10)
    child = area.ask().genotype
    assert any(child in SPACE.neighbours(parent) for parent in first)
    assert area.n_scored == 20


def test_prescreening_takes_the_best_of_the_alternatives():
    plain = get_searcher("random", SPACE, seed=4)
    helped = Assisted(get_searcher("random", SPACE, seed=4), scorer(), prescreen=6)
    drawn = [t.genotype for t in play(plain, 18)]
    chosen = [t.genotype for t in play(helped, 3)]
    assert chosen == [max(drawn[i : i + 6], key=SCORES.__getitem__) for i in (0, 6, 12)]


def test_the_warm_up_is_not_screened_again():
    helped = Assisted(get_searcher("random", SPACE, seed=1), scorer(), warm_up=50, keep=6, prescreen=3)
    pool = sample_distinct(SPACE, 50, seed=1)
    assert [t.genotype for t in play(helped, 6)] == sorted(pool, key=lambda g: -SCORES[g])[:6]


def test_prescreened_evolution_still_trains_a_whole_first_population():
    helped = Assisted(get_searcher("regularized_evolution", SPACE, seed=4, population=7), scorer(), prescreen=5)
    play(helped, 7)
    assert len(helped.inner.population) == 7
    parents = [genotype for genotype, _ in helped.inner.population]
    child = helped.ask().genotype
    assert any(child in SPACE.neighbours(parent) for parent in parents)


def test_the_best_score_of_all_is_not_tried_for_ever():
    helped = Assisted(get_searcher("regularized_evolution", SPACE, seed=4), scorer(), prescreen=10)
    genotypes = [t.genotype for t in play(helped, 80, value=lambda genotype: SCORES[genotype])]
    assert len(set(genotypes)) > 70


def test_a_warm_up_larger_than_the_space_takes_all_of_it():
    few = ConstrainedSpace(SPACE, {"sum": 4.0}, {"sum": lambda genotype: float(sum(genotype))})
    helped = Assisted(get_searcher("random", few), scorer(), warm_up=500, keep=3)
    play(helped, 1)
    assert helped.n_scored == sum(1 for _ in few.genotypes()) == 210
    with pytest.raises(OptionError, match="no more than 210 architectures of nasbench201 were met"):
        sample_distinct(few, 211)


def test_help_ends_where_the_strategy_ends():
    cascade = get_searcher("cascade", SPACE, scorer=scorer(), screened=8, kept=2)
    assert Assisted(cascade, scorer(), reject_below=0.1).ends
    assert not Assisted(get_searcher("random", SPACE), scorer(), reject_below=0.1).ends


def test_early_rejection_drops_what_lies_below_the_quantile():
    helped = Assisted(get_searcher("random", SPACE, seed=5), scorer(), reject_below=0.8)
    pool = sorted(SCORES[g] for g in sample_distinct(SPACE, 100, seed=5))
    trials = play(helped, 30)
    assert min(SCORES[t.genotype] for t in trials) >= pool[79]
    assert helped.n_rejected > 60  # four in five are dropped


def test_rejection_gives_up_where_nothing_is_good_enough():
    space_of_one = TableScorer({}, seconds=0.0)  # everything scores -inf, so nothing is below the threshold
    assert len(play(Assisted(get_searcher("random", SPACE), space_of_one, reject_below=0.5), 5)) == 5

    class Falling:
        n_scored, seconds = 0, 0.0

        def __call__(self, genotypes):
            self.n_scored += 1
            return [-float(self.n_scored)] * len(genotypes)

    helped = Assisted(get_searcher("random", SPACE), Falling(), reject_below=0.5)
    assert helped.ask() is not None
    assert helped.n_rejected == helped.patience - 1


@pytest.mark.parametrize(
    "options",
    [{}, {"warm_up": 5, "keep": 6}, {"warm_up": -1}, {"prescreen": 0}, {"reject_below": 1.0}, {"reject_below": -0.1}],
)
def test_help_out_of_range_is_refused(options):
    with pytest.raises(OptionError):
        Assisted(get_searcher("random", SPACE), scorer(), **options)


def test_naswot_search_is_one_trial_the_best_of_n_and_singular_ones_never_win():
    scores = {g: -math.inf if sum(g) > 10 else float(sum(g)) for g in SCORES}
    searcher = get_searcher("naswot_search", SPACE, seed=7, scorer=TableScorer(scores), n=200)
    drawn = [t.genotype for t in play(_like(searcher, 7), 200)]
    trial = searcher.ask()
    assert trial.genotype == max(drawn, key=scores.__getitem__)
    assert sum(trial.genotype) == 10
    searcher.tell(trial, 1.0)
    assert searcher.ask() is None


def _like(searcher, seed):
    """Random search that draws from the same stream."""
    same = get_searcher("random", SPACE, seed=seed)
    same.rng = type(searcher)(SPACE, seed=seed, scorer=scorer()).rng
    return same


def test_cascade_screens_trains_the_kept_briefly_and_the_finalists_fully():
    cascade = get_searcher(
        "cascade", SPACE, seed=3, scorer=scorer(), screened=40, kept=6, finalists=2, brief=3, full=50
    )
    trials = play(cascade, 99, value=lambda genotype: -float(sum(genotype)))
    assert [t.epochs for t in trials] == [3] * 6 + [50] * 2
    brief = [t.genotype for t in trials[:6]]
    assert [SCORES[g] for g in brief] == sorted((SCORES[g] for g in brief), reverse=True)
    assert [t.genotype for t in trials[6:]] == sorted(brief, key=SCORES.__getitem__)[:2]  # training says the opposite
    assert cascade.n_scored == 40


def test_a_cascade_all_of_whose_brief_trainings_failed_is_over():
    cascade = Cascade(SPACE, scorer=scorer(), screened=10, kept=3)
    for _ in range(3):
        cascade.tell(cascade.ask(), None)
    assert cascade.ask() is None


def test_cascade_waits_for_the_brief_stage():
    cascade = Cascade(SPACE, scorer=scorer(), screened=10, kept=2)
    first, second = cascade.ask(), cascade.ask()
    assert cascade.ask() is None
    cascade.tell(second, 5.0)
    assert cascade.ask() is None
    cascade.tell(first, None)
    final = cascade.ask()
    assert (final.genotype, final.epochs) == (second.genotype, None)


def test_proxy_scores_are_taken_once_and_lower_is_turned_round():
    images = get_data("digits", size=8)
    evaluator = Evaluator(SPACE, images, ("naswot", "ntk_condition"), batch_size=4, build={"width": 2, "n_cells": 1})
    genotypes = [(3, 3, 3, 3, 3, 3), (1, 1, 1, 1, 1, 1), (3, 3, 3, 3, 3, 3)]
    by_score, by_condition = ProxyScorer(evaluator), ProxyScorer(evaluator, "ntk_condition")
    scores = by_score(genotypes)
    assert scores[0] == scores[2] == evaluator(genotypes[0]).scores["naswot"]
    assert by_score.n_scored == 2
    assert by_score.seconds > 0
    assert by_condition(genotypes)[0] == -evaluator(genotypes[0]).scores["ntk_condition"]
    with pytest.raises(OptionError, match="one of the scores naswot, ntk_condition"):
        ProxyScorer(evaluator, "snip")
