"""Replication: noise and errors as least squares gives them, right places at the stated level, few passes."""

from __future__ import annotations

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats

import naswot
from naswot._repeats_fit import Fit
from naswot.data import get_data
from naswot.errors import OptionError
from naswot.evaluate import Evaluator
from naswot.replicating import replicate
from naswot.run import sample_distinct, screen
from naswot.seeding import derive_seed, numpy_generator
from naswot.store import ResultStore
from naswot.testing.toy_space import ToySpace
from naswot.types import Batch, Evaluation
from naswot.workers import worker_pool

LOWER = "ntk_condition"


class Blank:
    """Images that nobody looks at."""

    def batch(self, n, *, generator):
        return Batch(torch.zeros(n, 3, 4, 4))


@dataclass(frozen=True)
class Noisy(Evaluator):
    """Scores with known means, noise and batches; each genotype is one gene, the number of its mean."""

    means: tuple[float, ...] = ()
    noise: float = 1.0
    loud_from: int = 0
    batches: float = 0.0
    undefined: tuple[tuple[int, int], ...] = ()
    failing: tuple[tuple[int, int], ...] = ()
    backwards: bool = False  # results come in the opposite order

    def __call__(self, genotype, repeat=0):
        gene, arch = genotype[0], self.space.format(genotype)
        if (gene, repeat) in self.failing:
            return Evaluation(genotype, arch, {}, {"score": 0.0}, self.seed, repeat, error="ModelError: no")
        own = numpy_generator(derive_seed(self.seed, "own", gene, repeat)).normal()
        noise = self.noise if repeat >= self.loud_from else self.noise * 1e-6
        value = self.means[gene] + noise * own + self.shift(repeat)
        value = -math.inf if (gene, repeat) in self.undefined else value
        return Evaluation(genotype, arch, dict.fromkeys(self.names, value), {"score": 0.0}, self.seed, repeat)

    def shift(self, repeat):
        return self.batches * numpy_generator(derive_seed(self.seed, "batch", repeat)).normal()

    def map(self, genotypes, **options):
        found = list(super().map(genotypes, **options))
        yield from reversed(found) if self.backwards else found


def noisy(means, seed=0, proxies=("naswot",), **options):
    space = ToySpace((len(means),))
    return Noisy(space, Blank(), proxies, batch_size=2, seed=seed, means=tuple(means), **options)


def run(means, seed=0, **options):
    of_evaluator = {k: options.pop(k) for k in list(options) if k in Noisy.__dataclass_fields__}
    evaluator = noisy(means, seed, **of_evaluator)
    return replicate(evaluator, [(i,) for i in range(len(means))], **options)


def genes(estimates):
    return [each.genotype[0] for each in estimates]


# ---------------------------------------------------------------------------------------------------- noise and errors


def twin(rows):
    """Means, noise and covariance of the means by a plain design matrix with a column for everything."""
    rounds = max(map(len, rows))
    design, values = [], []
    for a, row in enumerate(rows):
        for r, value in enumerate(row):
            batch = np.eye(rounds)[r] - 1 / rounds  # so that an architecture's coefficient is at the average batch
            design.append(np.concatenate([np.eye(len(rows))[a], batch @ np.eye(rounds)[:, :-1] - batch[-1]]))
            values.append(value)
    x, y = np.array(design), np.array(values)
    beta, _, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    noise = math.sqrt(np.square(y - x @ beta).sum() / (len(y) - rank))
    return beta[: len(rows)], noise, np.linalg.inv(x.T @ x)[: len(rows), : len(rows)], len(y) - rank


def test_fit_is_that_of_least_squares_with_unequal_numbers():
    rng = np.random.default_rng(3)
    rows = [list(rng.normal(5 * a, 1, n) + [0, 9, -4, 2, 1][:n]) for a, n in enumerate((1, 2, 5, 3, 5, 1, 2, 4))]
    fit = Fit(rows)
    means, noise, covariance, degrees = twin(rows)
    np.testing.assert_allclose(fit.means, means, atol=1e-12)
    assert fit.noise == pytest.approx(noise)
    assert fit.degrees == degrees == 23 - 8 - 4
    np.testing.assert_allclose(fit.errors(), noise * np.sqrt(np.diag(covariance)))
    for a, n in enumerate(fit.counts):
        for c, m in enumerate(fit.counts):
            if a != c:
                variance = covariance[a, a] + covariance[c, c] - 2 * covariance[a, c]
                gap = stats.t.isf(0.01, degrees) * noise * math.sqrt(variance)
                assert fit._gap(int(n), int(m), 0.01) == pytest.approx(gap)


def test_noise_on_paper():
    fit = Fit([[1.0, 3.0], [2.0, 8.0], [0.0]])  # changes 2 and 6: residuals 1, -1, -1, 1 about the mean change 4
    assert fit.noise == pytest.approx(2.0)  # 4 residuals of 1 and one degree of freedom
    assert fit.degrees == 1
    assert fit.means.tolist() == pytest.approx(
        [2.0, 5.0, 2.0]
    )  # 0 + half of the change of 4 that the second batch makes
    assert fit.errors()[0] == pytest.approx(2 / math.sqrt(2))
    assert fit.errors()[2] == pytest.approx(2 * math.sqrt(1 + 1 / 4))  # half a change: 1/4 of 2 variances / 2


def test_in_doubt_is_decided_by_all_pairs():
    rng = np.random.default_rng(5)
    for best in (1, 4, 12, 13, 20):
        rows = [list(rng.normal(a, 0.3, n)) for a, n in enumerate([1, 3, 2, 2, 3, 1, 2, 3, 1, 1, 2, 2, 3])]
        fit = Fit(rows)
        clear = [
            [m - o > fit._gap(i, j, 0.05) for o, j in zip(fit.means, fit.counts, strict=True)]
            for m, i in zip(fit.means, fit.counts, strict=True)
        ]
        beats = np.array(clear)
        expected = (beats.sum(1) < len(rows) - best) & (beats.sum(0) < best)
        assert fit.in_doubt(best, 0.05).tolist() == expected.tolist()


def test_noise_is_pooled_and_free_of_the_spread_between_architectures():
    means = np.linspace(0, 3000, 600)  # a spread 400 times the noise
    found = [run(means, seed, noise=2.0, batches=7.0, best=300, repeats=2) for seed in range(10)]
    assert all(each.estimates[0].degrees == 599 for each in found)  # the pilot is 600, two repeats each
    assert np.mean([each.noise**2 for each in found]) == pytest.approx(4.0, rel=0.06)  # 3 standard errors of 2 %
    errors = [each.estimates[0].standard_error for each in found]
    assert np.mean(errors) == pytest.approx(2 / math.sqrt(2), rel=0.03)


@pytest.mark.parametrize("batches", [0.0, 5.0])
def test_intervals_cover(batches):
    means = stats.norm.ppf(np.linspace(0.01, 0.99, 40)) * 6
    hits = []
    for seed in range(100):
        found = run(means, seed, batches=batches, best=5, repeats=6)
        evaluator = noisy(means, seed, batches=batches)
        average = np.mean([evaluator.shift(r) for r in range(max(e.repeats for e in found.estimates))])
        for each in found.estimates:
            low, high = each.interval(0.9)
            hits.append(low < means[each.genotype[0]] + average < high)
    assert np.mean(hits) == pytest.approx(0.9, abs=0.02)


# -------------------------------------------------------------------------------------------------------------- places


@pytest.mark.parametrize("batches", [0.0, 3.0])
def test_the_best_are_found_with_few_passes(batches):
    means = [10.0 + 2 * i for i in range(5)] + [8.0 - 0.2 * i for i in range(55)]
    found = [run(means, seed, batches=batches, best=5, repeats=30) for seed in range(30)]
    right = [set(genes(each.estimates[:5])) == set(range(5)) and not each.contenders for each in found]
    assert np.mean(right) >= 0.95
    assert max(each.passes / each.uniform for each in found) < 0.35
    assert all(each.uniform == 1800 and each.computed == each.passes for each in found)


def test_settled_places_are_wrong_as_rarely_as_stated():
    means = [0.1] + [0.0] * 30  # nearly equal: whoever settles here without care is often wrong
    wrong = 0
    for seed in range(200):
        found = run(means, seed, best=1, repeats=6, level=0.9)
        settled = [each for each in found.estimates if not each.contender]
        top = found.estimates[0].genotype[0]
        wrong += any(each.genotype == (0,) for each in settled) and top != 0
    assert wrong / 200 <= 0.1


def test_what_moves_all_alike_changes_no_decision():
    means = stats.norm.ppf(np.linspace(0.01, 0.99, 50)) * 4
    plain, shifted = (run(means, 7, batches=b, best=5, repeats=8) for b in (0.0, 1000.0))
    assert genes(plain.estimates) == genes(shifted.estimates)
    for a, b in zip(plain.estimates, shifted.estimates, strict=True):
        assert (a.repeats, a.contender) == (b.repeats, b.contender)
        assert a.standard_error == pytest.approx(b.standard_error)
    assert plain.noise == pytest.approx(shifted.noise)
    assert max(each.repeats for each in plain.estimates) > 2


def test_ties_at_the_border_stay_contenders():
    found = run([5.0, 3.0, 3.0, 4.0, 3.0, 1.0], noise=0.0, best=3)
    assert genes(found.estimates) == [0, 3, 1, 2, 4, 5]
    assert genes(found.contenders) == [1, 2, 4]
    assert found.noise == 0
    assert found.passes == 12  # one each and the pilot; more would tell nothing
    assert found.uniform == 48


def test_equal_architectures_all_stay():
    silent, loud = (run([1.0] * 30, noise=noise, best=4, repeats=5) for noise in (0.0, 1.0))
    assert len(silent.contenders) == len(loud.contenders) == 30
    assert silent.passes == 30 + 20
    assert loud.passes == loud.uniform == 150


def test_only_contenders_are_repeated():
    means = [20.0, 19.0, 10.0, 10.0, *([0.0] * 40)]
    found = run(means, best=3, repeats=9, level=0.99)
    assert set(genes(found.contenders)) == {2, 3}
    repeats = {each.genotype[0]: each.repeats for each in found.estimates}
    assert repeats[2] == repeats[3] == 9
    assert max(n for gene, n in repeats.items() if gene not in (2, 3)) <= 3


def test_no_more_than_the_best_or_a_single_one_leaves_nothing_to_settle():
    found = run([1.0, 1.0, 5.0], best=3)
    assert found.contenders == ()
    assert [each.repeats for each in found.estimates] == [2, 2, 2]
    assert genes(found.estimates)[0] == 2
    alone = run([4.0], best=1)
    assert alone.contenders == ()
    assert (alone.passes, alone.noise) == (2, None)
    assert alone.estimates[0].standard_error is None
    assert alone.estimates[0].interval() == (-math.inf, math.inf)
    assert run([4.0, 3.0], best=1, repeats=3, noise=0.1).noise > 0


def test_undefined_scores_are_last_and_never_contend():
    means = [9.0, 8.0, 7.0, 6.9, 1.0, 0.5]
    found = run(means, best=2, repeats=4, undefined=((0, 0), (1, 1)), failing=((2, 0),))
    by_gene = {each.genotype[0]: each for each in found.estimates}
    assert genes(found.estimates) == [3, 4, 5, 0, 1, 2]
    assert found.undefined == 3
    for gene, repeats in ((0, 1), (1, 2), (2, 1)):
        assert by_gene[gene].mean == -math.inf
        assert by_gene[gene].standard_error is None
        assert by_gene[gene].repeats == repeats
        assert not by_gene[gene].contender
    assert by_gene[2].error == "ModelError: no"
    nobody = run([1.0, 2.0], best=1, undefined=((0, 0), (1, 0)))
    assert (nobody.undefined, nobody.passes, nobody.contenders, nobody.noise) == (2, 2, (), None)


def test_lower_is_better_where_the_proxy_says_so():
    means = [5.0, 1.0, 9.0, 2.0, 7.0]
    found = run(means, proxies=(LOWER,), best=2, repeats=5, noise=0.01, undefined=((4, 0),))
    assert genes(found.estimates) == [1, 3, 0, 2, 4]
    assert found.estimates[0].mean == pytest.approx(1.0, abs=0.05)
    assert found.estimates[-1].mean == math.inf
    assert found.contenders == ()
    up = run([-value for value in means], best=2, repeats=5, noise=0.01, undefined=((4, 0),))
    assert genes(up.estimates) == genes(found.estimates)


# ----------------------------------------------------------------------------------------------------------- conditions


def test_neither_order_nor_arrival_changes_anything():
    means = stats.norm.ppf(np.linspace(0.01, 0.99, 40)) * 3
    plain = run(means, best=5)
    assert run(means, best=5, backwards=True) == plain
    again = [(i % 40,) for i in reversed(range(80))]
    assert replicate(noisy(means), again, best=5) == plain


def test_who_comes_back_as_a_contender_catches_up_in_the_order_of_the_repeats():
    means, options = [3.0, 3.0, *([2.9] * 38)], {"batches": 2.0, "loud_from": 2, "best": 1, "repeats": 4}
    plain = run(means, **options)
    n_at_most = [each.repeats for each in plain.estimates].count(4)
    assert n_at_most > 20  # two contenders until the noise shows itself, then others that had only one repeat
    assert run(means, backwards=True, **options) == plain
    assert plain.noise > 0.1


CELLS = sample_distinct(naswot.get_space("nasbench201"), 12, seed=1)
OPTIONS = {"rank_by": "naswot", "best": 3, "repeats": 4}


def real():
    build = {"width": 4, "n_cells": 1}
    space, images = naswot.get_space("nasbench201"), get_data("digits", size=8)
    return Evaluator(space, images, ("params", "naswot"), batch_size=8, build=build)


@pytest.mark.slow
def test_processes_change_nothing():
    alone = replicate(real(), CELLS, **OPTIONS)
    with worker_pool(2) as executor:
        assert replicate(real(), CELLS, **OPTIONS, executor=executor) == alone


def test_executors_and_stores_change_nothing(tmp_path):
    evaluator, options, genotypes = real(), OPTIONS, CELLS
    seen = []
    alone = replicate(evaluator, genotypes, **options, on_result=seen.append)
    assert len({(each.arch, each.repeat) for each in seen}) == len(seen) == alone.passes == alone.computed
    assert alone.passes < alone.uniform
    with ThreadPoolExecutor(2) as executor:
        assert replicate(evaluator, genotypes, **options, executor=executor) == alone
    with ResultStore(tmp_path / "s.sqlite", options=evaluator.describe()) as store:
        screen(evaluator, genotypes[:5], store=store)
        part = replicate(evaluator, genotypes, **options, store=store)
        assert part == dataclasses.replace(alone, computed=alone.passes - 5)
        assert len(store) == alone.passes
        assert replicate(evaluator, genotypes, **options, store=store) == dataclasses.replace(alone, computed=0)
        screen(evaluator, genotypes, repeats=4, store=store)
        assert replicate(evaluator, genotypes, **options, store=store) == dataclasses.replace(alone, computed=0)
    single = next(each for each in alone.estimates if each.contender or each.repeats > 1)
    values = [evaluator(single.genotype, r).scores["naswot"] for r in range(single.repeats)]
    assert min(values) - 1 < single.mean < max(values) + 1


@pytest.mark.parametrize("wrong", [{"best": 0}, {"repeats": 1}, {"level": 1.0}, {"level": 0.0}, {"rank_by": "snip"}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(OptionError, match="rank_by" if "rank_by" in wrong else "repeats >= 2"):
        run([1.0, 2.0], **wrong)
