"""What the best few by score are worth, on cases worked out on paper."""

from __future__ import annotations

import math

import numpy as np
import pytest

from naswot.errors import InputError
from naswot.selection import best_rank_at, by_score, ndcg_at, precision_at, regret_at, tau_in_top
from naswot.statistics import kendall

TRUTH = np.array([90.0, 94.0, 93.0, 91.0, 92.0])
SCORE = np.array([5.0, 1.0, 4.0, 3.0, 2.0])  # order by score: 90, 93, 91, 92, 94


def test_order():
    order, truths = by_score(SCORE, TRUTH)
    assert list(truths[order]) == [90, 93, 91, 92, 94]


def test_on_paper():
    assert precision_at(SCORE, TRUTH, 2) == 0.5
    assert precision_at(SCORE, TRUTH, 5) == 1.0
    assert (best_rank_at(SCORE, TRUTH, 1), best_rank_at(SCORE, TRUTH, 2), best_rank_at(SCORE, TRUTH, 5)) == (5, 2, 1)
    assert (regret_at(SCORE, TRUTH, 1), regret_at(SCORE, TRUTH, 3), regret_at(SCORE, TRUTH, 5)) == (4.0, 1.0, 0.0)


def test_gain_halves_with_every_point():
    # two chosen: gains 1/16 and 1/2 relative to the best, discounts 1 and log2(3); ideal 1 and 1/2
    expected = (1 / 16 + 0.5 / math.log2(3)) / (1 + 0.5 / math.log2(3))
    assert ndcg_at(SCORE, TRUTH, 2) == pytest.approx(expected, rel=1e-12)
    assert ndcg_at(TRUTH, TRUTH, 3) == pytest.approx(1.0)
    plain = (2.0**TRUTH - 1)[np.argsort(-SCORE)] / np.log2(np.arange(2, 7))
    ideal = np.sort(2.0**TRUTH - 1)[::-1] / np.log2(np.arange(2, 7))
    assert ndcg_at(SCORE, TRUTH, 5) == pytest.approx(plain.sum() / ideal.sum(), rel=1e-12)


def test_a_constant_score_gains_nothing():
    constant = np.zeros(5)
    assert precision_at(constant, TRUTH, 2) == 0.0
    assert best_rank_at(constant, TRUTH, 1) == 5
    assert regret_at(constant, TRUTH, 2) == 3.0


def test_what_ties_with_the_last_of_the_best_counts_as_best():
    assert precision_at([3, 2, 1], [94.0, 93.0, 93.0], 2) == 1.0
    assert best_rank_at([1, 2, 3], [94.0, 94.0, 93.0], 3) == 1
    assert best_rank_at([1, 3, 2], [94.0, 94.0, 93.0], 1) == 1


def test_items_without_score_come_last_and_without_truth_not_at_all():
    score = np.array([np.nan, -np.inf, 1.0, 9.0])
    truth = np.array([99.0, 95.0, 90.0, np.nan])
    order, truths = by_score(score, truth)
    assert list(truths[order]) == [90, 95, 99]
    with pytest.raises(InputError, match="k from 1 to the 3 items"):
        precision_at(score, truth, 4)


def test_tau_among_the_best():
    assert tau_in_top(SCORE, TRUTH, 0.6) == kendall([1.0, 4.0, 2.0], [94.0, 93.0, 92.0])
    assert tau_in_top(SCORE, TRUTH, 1.0) == kendall(SCORE, TRUTH)
    assert tau_in_top([1, 2, 3, 4], [90.0, 91.0, 91.0, 92.0], 0.5) == kendall([2, 3, 4], [91, 91, 92])
    with pytest.raises(InputError, match="share within"):
        tau_in_top(SCORE, TRUTH, 0.0)


def test_refuses_what_does_not_fit():
    with pytest.raises(InputError, match="one length"):
        precision_at([1, 2], [1, 2, 3], 1)
    with pytest.raises(InputError, match="k from 1"):
        regret_at(SCORE, TRUTH, 0)
