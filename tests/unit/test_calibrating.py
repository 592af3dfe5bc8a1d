"""Whether proxies help: worked cases, simulations where the truth is known, published scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from naswot import _crossfit
from naswot._crossfit import best_single, combination_weights, cross_fit, normal_scores
from naswot.calibrating import SIZE, Sign, Verdict, calibrate
from naswot.errors import InputError, OptionError, UnknownNameError
from naswot.statistics import compare, kendall, kendall_interval, partial_kendall

HELPS = {Verdict.PROXY, Verdict.COMBINATION, Verdict.SIZE}


def planted(n, tau, rng, noise=9):
    """Accuracies, one score with that tau, and some without any: (n,), (n, 1 + noise)."""
    r = math.sin(math.pi * tau / 2)
    truth = rng.standard_normal(n)
    score = r * truth + math.sqrt(1 - r**2) * rng.standard_normal(n)
    common = rng.standard_normal((n, 1))
    return truth, np.column_stack([score, (common + rng.standard_normal((n, noise))) / math.sqrt(2)])


# ------------------------------------------------------------------------------------------------------ worked cases


def test_normal_scores_by_hand():
    scores = normal_scores(np.array([3.0, -math.inf, 2.0, 2.0, math.nan]))
    assert scores == pytest.approx([norm.ppf(7 / 8), norm.ppf(1 / 8), 0.0, 0.0, 0.0])  # ranks 4, 1, 2.5, 2.5 of 4
    assert normal_scores(np.full(3, math.nan)).tolist() == [0.0, 0.0, 0.0]


def test_weights_are_never_negative():
    x = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert combination_weights(x, x @ [3.0, 1.0]).tolist() == pytest.approx([0.75, 0.25])
    assert combination_weights(x, x @ [3.0, -1.0]).tolist() == pytest.approx([1.0, 0.0])
    assert combination_weights(x, x @ [-3.0, -1.0]).tolist() == [0.0, 0.0]
    assert best_single(x, x @ [1.0, 2.0]).tolist() == [0.0, 1.0]


def test_numbers_of_a_score_are_those_of_the_statistics():
    rng = np.random.default_rng(0)
    truth, scores = planted(40, 0.5, rng, noise=3)
    names = ["good", "bad", "params", "flops"]
    found = calibrate(names, scores, truth)
    by_name = {each.name: each for each in found.proxies}
    assert [each.tau.value for each in found.proxies] == sorted((e.tau.value for e in found.proxies), reverse=True)
    for k, name in enumerate(names):
        assert by_name[name].tau == kendall_interval(scores[:, k], truth)
    best = max(("params", "flops"), key=lambda name: by_name[name].tau.value)
    assert found.baseline == best
    assert found.sizes == ("params", "flops")
    good = by_name["good"]
    expected = compare(scores[:, 0], scores[:, names.index(best)], truth)
    assert good.above.difference == expected.difference
    assert good.above.p_value == pytest.approx(3 * expected.p_value)  # least of good, bad and the combination
    assert good.given["params"] == partial_kendall(scores[:, 0], truth, scores[:, 2])
    assert "params" not in by_name["params"].given
    assert by_name["params"].above is None


def test_one_score_in_perfect_order():
    found = calibrate(["up"], np.arange(30.0)[:, None], np.arange(30.0))
    assert found.verdict is Verdict.PROXY
    assert found.use == "up"
    assert found.combination is None
    assert found.proxies[0].sign is Sign.DECLARED
    assert math.isnan(found.proxies[0].tau.low)
    assert "100 % of pairs" in found.text


def test_a_reversed_score_is_said_so_and_not_turned_round():
    truth, scores = planted(80, 0.6, np.random.default_rng(11))
    names = ["turned", *(f"noise{i}" for i in range(9))]
    scores[:, 0] *= -1
    found = calibrate(names, scores, truth)
    turned = next(each for each in found.proxies if each.name == "turned")
    assert turned.sign is Sign.REVERSED
    assert turned.tau.value < -0.4
    assert turned.p_value < 1e-6
    assert found.verdict in {Verdict.NONE, Verdict.TOO_FEW}
    assert "turned" not in found.combination.weights
    assert f"Shown to be reversed here: turned ({turned.tau});" in found.text
    declared = calibrate(names, scores, truth, lower_is_better=["turned"])
    assert "reversed" not in declared.text
    assert (declared.verdict, declared.use) == (Verdict.PROXY, "turned")
    assert declared.proxies[0].tau.value == pytest.approx(-turned.tau.value)


def test_what_says_no_more_than_size_does_not_beat_it():
    rng = np.random.default_rng(2)
    truth, scores = planted(100, 0.5, rng, noise=3)
    echo = scores[:, 0] + 0.5 * rng.standard_normal(100)
    found = calibrate(["params", "echo", "noise"], np.column_stack([scores[:, 0], echo, scores[:, 1]]), truth)
    assert (found.verdict, found.use) == (Verdict.SIZE, "params")
    by_name = {each.name: each for each in found.proxies}
    assert by_name["echo"].shown
    assert by_name["echo"].tau.value > 0.35 > 0.2 > by_name["echo"].given["params"].value
    assert not by_name["echo"].shown_above_size


def test_two_parts_of_the_truth_are_combined():
    rng = np.random.default_rng(3)
    parts = rng.standard_normal((120, 2))
    scores = np.column_stack([parts, rng.standard_normal((120, 2))])
    found = calibrate(["depth", "width", "params", "noise"], scores, parts.sum(axis=1) + rng.standard_normal(120) / 3)
    assert (found.verdict, found.use) == (Verdict.COMBINATION, "combination")
    assert sum(found.combination.weights.values()) == pytest.approx(1)
    assert found.combination.weights["depth"] == pytest.approx(0.5, abs=0.07)
    assert found.combination.gain.difference.low > 0
    assert found.combination.standing.tau.value > 0.65 > found.combination.single.value


def test_too_few_says_how_many_more():
    rng = np.random.default_rng(4)
    found = calibrate(["noise"], rng.standard_normal((8, 1)), rng.standard_normal(8))
    assert found.verdict is Verdict.TOO_FEW
    assert found.more == 76 - 8  # 4 + 0.437 (1.96 (1 - 0.15^2) / 0.15)^2 = 75.3
    assert "About 68 more" in found.text
    assert found.use is None


def test_shown_but_too_weak_does_not_help():
    truth, scores = planted(600, 0.15, np.random.default_rng(5), noise=0)
    found = calibrate(["weak"], scores, truth)
    assert found.proxies[0].shown
    assert found.proxies[0].tau.high < 0.3
    assert found.verdict is Verdict.NONE
    assert calibrate(["weak"], scores, truth, useful=0.1).verdict is Verdict.PROXY


def test_undefined_scores():
    truth = np.arange(20.0)
    worst = truth.copy()
    worst[0] = -math.inf  # ranks below all, in its place
    unknown = truth.copy()
    unknown[5:8] = math.nan
    few = np.full(20, math.nan)
    few[:6] = truth[:6]
    found = calibrate(["worst", "unknown", "few", "same"], np.column_stack([worst, unknown, few, 0 * truth]), truth)
    by_name = {each.name: each for each in found.proxies}
    assert (by_name["worst"].tau.value, by_name["worst"].tau.n, by_name["worst"].n_finite) == (1.0, 20, 19)
    assert (by_name["unknown"].tau.value, by_name["unknown"].tau.n, by_name["unknown"].n_finite) == (1.0, 17, 17)
    assert (by_name["few"].p_value, by_name["same"].p_value) == (1.0, 1.0)
    assert math.isnan(by_name["same"].tau.value)
    assert found.proxies[-1].name == "same"


def test_ceiling_is_the_mean_tau_between_trainings():
    rng = np.random.default_rng(6)
    truth, scores = planted(50, 0.5, rng, noise=1)
    trainings = truth[:, None] + 0.5 * rng.standard_normal((50, 3))
    trainings[3, 1] = math.nan
    found = calibrate(["a", "b"], scores, truth, trainings=trainings)
    taus = [kendall(trainings[:, i], trainings[:, j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert found.ceiling.value == pytest.approx(np.mean(taus))
    assert found.ceiling.low < found.ceiling.value < found.ceiling.high
    assert calibrate(["a", "b"], scores, truth).ceiling is None
    with pytest.raises(InputError, match="2 or more"):
        calibrate(["a", "b"], scores, truth, trainings=trainings[:, :1])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(accuracies=np.arange(9.0)), InputError, r"\(10, 2\) and \(9,\)"),
        (dict(scores=np.ones((7, 2)), accuracies=np.arange(7.0)), InputError, "at least 8 architectures"),
        (dict(accuracies=np.array([math.nan, *range(9)])), InputError, "accuracy of 1 of 10"),
        (dict(accuracies=np.full(10, 3.0)), InputError, "the same accuracy, 3.0"),
        (dict(scores=np.ones((10, 2))), InputError, "no score tells any two"),
        (dict(names=["a", "a"]), InputError, "names that differ"),
        (dict(useful=1.0), OptionError, "useful tau within"),
        (dict(lower_is_better=["bb"]), UnknownNameError, "did you mean 'b'"),
    ],
)
def test_what_cannot_be_judged_is_refused(change, error, message):
    good = dict(names=["a", "b"], scores=np.arange(20.0).reshape(10, 2), accuracies=np.arange(10.0))
    with pytest.raises(error, match=message):
        calibrate(**{**good, **change})


# --------------------------------------------------------------------------------------------------- cross-validation


def test_no_accuracy_has_a_say_in_its_own_prediction():
    rng = np.random.default_rng(7)
    truth, scores = planted(30, 0.4, rng)
    columns = np.stack([normal_scores(column) for column in scores.T], axis=1)
    parts = np.stack([rng.permutation(30) % 5 for _ in range(2)])
    everyone = np.ones(30, dtype=bool)
    before = _crossfit._predictions(columns, truth, parts, everyone)
    changed = truth.copy()
    changed[4] += 100
    after = _crossfit._predictions(columns, changed, parts, everyone)
    for deal, part in enumerate(parts):
        own = part == part[4]
        assert (before[deal][:, own] == after[deal][:, own]).all()
        assert (before[deal][:, ~own] != after[deal][:, ~own]).any()


def test_left_out_of_learning_it_is_predicted_all_the_same():
    rng = np.random.default_rng(8)
    truth, scores = planted(30, 0.4, rng)
    parts = (np.arange(30) % 5)[None]
    used = np.arange(30) >= 3
    without = _crossfit._predictions(scores, truth, parts, used)
    changed = np.where(used, truth, -truth)
    assert (without == _crossfit._predictions(scores, changed, parts, used)).all()
    assert (without[0, 0, :3] != 0).all()


def test_choosing_the_best_of_many_is_paid_for_outside_the_folds():
    chosen, honest, combined = [], [], []
    for seed in range(12):
        truth, scores = planted(40, 0.0, np.random.default_rng(seed), noise=19)
        fit = cross_fit(scores, truth, seed=seed)
        chosen.append(max(kendall(column, truth) for column in scores.T))
        honest.append(fit.single.value)
        combined.append(fit.combination.value)
    assert np.mean(chosen) > 0.15
    assert abs(np.mean(honest)) < 0.08
    assert abs(np.mean(combined)) < 0.08


def test_cross_validation_of_a_perfect_score_and_of_hopeless_ones():
    truth = np.arange(25.0)
    noise = np.random.default_rng(9).standard_normal(25)
    perfect = cross_fit(np.column_stack([truth, noise]), truth)
    assert perfect.single.value == perfect.combination.value == 1.0
    assert math.isnan(perfect.combination.low)
    assert perfect.p_value < 1e-6  # 1 over twice Kendall's variance: 4.95 standard errors
    hopeless = cross_fit(np.column_stack([-truth, -truth]), truth)
    assert hopeless.weights.tolist() == [0.0, 0.0]
    assert hopeless.combination.value == 0.0
    assert hopeless.p_value == 1.0


def test_seeds_make_it_repeatable():
    truth, scores = planted(30, 0.4, np.random.default_rng(10))
    first, again, other = (cross_fit(scores, truth, seed=seed) for seed in (0, 0, 1))
    assert first.combination == again.combination
    assert first.combination != other.combination
    assert first.combination.value == pytest.approx(other.combination.value, abs=0.1)


# --------------------------------------------------------------------------------------------------------- simulations


@pytest.mark.slow
def test_cross_validated_intervals_hold_the_truth():
    """The truth is the population's tau of the very combination that was learned, known for normal variables."""
    covered = {}
    for n, tau in ((20, 0.0), (100, 0.4)):  # results/calibrate_verdicts.csv has more
        hits = []
        for sample in range(60):
            truth, scores = planted(n, tau, np.random.default_rng([n, sample]), noise=7)
            fit = cross_fit(scores, truth, seed=sample)
            w, r = fit.weights, math.sin(math.pi * tau / 2)
            spread = math.sqrt(0.5 * (w @ w + w[1:].sum() ** 2 + w[0] ** 2))  # noise has correlations of 1/2
            true = 2 / math.pi * math.asin(w[0] * r / spread) if spread else 0.0
            hits.append(fit.combination.low <= true <= fit.combination.high)
        covered[n, tau] = np.mean(hits)
    assert min(covered.values()) >= 0.88
    assert np.mean(list(covered.values())) <= 0.99


@pytest.mark.slow
def test_noise_is_hardly_ever_taken_for_help():
    names = ["a", "b", "c", "d", "e", "f", "g", *SIZE]
    verdicts = []
    for n, samples in ((20, 20), (60, 20)):
        for sample in range(samples):
            truth, scores = planted(n, 0.0, np.random.default_rng([n, sample]))
            verdicts.append(calibrate(names, scores, truth).verdict)
    assert np.mean([verdict in HELPS for verdict in verdicts]) <= 0.08


@pytest.mark.slow
def test_a_planted_proxy_is_found():
    names = ["planted", "b", "c", "d", "e", "f", "g", *SIZE]
    for sample in range(8):
        truth, scores = planted(100, 0.5, np.random.default_rng(sample))
        found = calibrate(names, scores, truth)
        assert found.verdict is Verdict.PROXY
        assert found.use == "planted"


# ------------------------------------------------------------------------------------------------------ published data


def test_published_scores_help_on_nasbench201(data_root):
    pd = pytest.importorskip("pandas")
    folder = data_root / "nasbench201"
    scores = pd.read_parquet(folder / "nb201_c10_suite_zero_scores_9445.parquet")
    table = scores.merge(pd.read_parquet(folder / "nb201_accuracy.parquet"), on="arch_str")
    cells = table.iloc[np.random.default_rng(0).choice(len(table), 100, replace=False)]
    names = list(scores.columns[2:])
    trainings = cells[[f"c10_test_e200_seed{seed}" for seed in range(3)]]
    found = calibrate(names, cells[names], cells["c10_test_e200_mean"], trainings=trainings)
    by_name = {each.name: each for each in found.proxies}
    for name in ("nwot", "synflow", "jacov"):
        assert by_name[name].shown
        assert by_name[name].sign is Sign.DECLARED
    assert by_name["plain"].sign is Sign.REVERSED  # -0.23 over all 9,445
    assert found.verdict is Verdict.COMBINATION
    everywhere = kendall(table["nwot"], table["c10_test_e200_mean"])
    assert by_name["nwot"].tau.low < everywhere < by_name["nwot"].tau.high
    assert 0.8 < found.ceiling.value < 0.95
    alone = ["nwot", "synflow", "jacov"]
    assert calibrate(alone, cells[alone], cells["c10_test_e200_mean"]).verdict in {Verdict.PROXY, Verdict.COMBINATION}


@pytest.mark.parametrize(("n", "seed"), [(100, 0), (100, 1), (100, 2), (200, 0)])
def test_published_scores_do_not_help_on_the_autoencoder_of_transnas(data_root, n, seed):
    pd = pytest.importorskip("pandas")
    folder = data_root / "transnasbench101"
    scores = pd.read_parquet(folder / "tnb101_micro_zero_cost_scores_naslib.parquet")
    table = scores.merge(pd.read_parquet(folder / "tnb101_micro_performance.parquet"), on="arch_str")
    columns = [name for name in scores.columns if name.startswith("autoencoder_")]
    table = table[table[columns].notna().all(axis=1)]
    chosen = table.iloc[np.random.default_rng(seed).choice(len(table), n, replace=False)]
    names = [name.removeprefix("autoencoder_") for name in columns]
    found = calibrate(names, chosen[columns], chosen["autoencoder_best"])
    assert found.verdict in {Verdict.NONE, Verdict.TOO_FEW}
    assert next(each for each in found.proxies if each.name == "fisher").sign is Sign.REVERSED
