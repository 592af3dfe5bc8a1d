"""Predictor-guided search: what the model learns decides what is asked."""

import math
import time

import numpy as np
import pytest

from naswot.errors import OptionError
from naswot.search._surrogates import Features, expected_improvement, fit_forest, fit_gp
from naswot.searcher import get_searcher
from naswot.seeding import numpy_generator
from naswot.space import get_space
from naswot.testing.toy_space import ToySpace, planted

SPACE = ToySpace((4,) * 6)


def search(searcher, value, n):
    """Values in the order of asking."""
    told = []
    for _ in range(n):
        trial = searcher.ask()
        told.append(value(trial.genotype))
        searcher.tell(trial, told[-1])
    return told


@pytest.mark.parametrize("model", ["forest", "gp"])
@pytest.mark.parametrize("acquisition", ["ei", "ucb", "thompson"])
def test_guided_proposals_are_better_than_random_ones(model, acquisition):
    value = planted(SPACE)
    told = search(get_searcher("predictor", SPACE, model=model, acquisition=acquisition, n_trees=20), value, 50)
    everything = sorted(map(value, SPACE.genotypes()))
    assert np.mean(told[20:]) > np.quantile(everything, 0.85) > np.mean(told[:20])


def test_first_ones_are_random_and_none_comes_twice():
    searcher = get_searcher("predictor", ToySpace((3, 3, 3)), n_initial=5, refit=2, n_trees=5)
    asked = []
    while len(asked) < 100 and (trial := searcher.ask()):
        asked.append(trial.genotype)
        searcher.tell(trial, float(sum(trial.genotype)))
    assert sorted(asked) == list(searcher.space.genotypes())


def test_model_is_fitted_again_after_refit_results(monkeypatch):
    import naswot.search.predictor as module

    fitted = []
    monkeypatch.setitem(module._FITS, "forest", lambda x, y, **o: fitted.append(len(y)) or fit_forest(x, y, **o))
    search(get_searcher("predictor", SPACE, n_initial=8, refit=4, n_trees=3), planted(SPACE), 21)
    assert fitted == [8, 12, 16, 20]


def test_failed_and_infinite_values_count_as_the_worst_known(monkeypatch):
    import naswot.search.predictor as module

    seen = []
    monkeypatch.setitem(module._FITS, "forest", lambda x, y, **o: seen.append(list(y)) or fit_forest(x, y, **o))
    searcher = get_searcher("predictor", SPACE, n_initial=4, n_trees=3)
    for value in (2.0, None, -math.inf, 5.0):
        searcher.tell(searcher.ask(), value)
    assert searcher.ask() is not None
    assert seen == [[2.0, 2.0, 2.0, 5.0]]


def test_without_any_value_the_draws_stay_random():
    searcher = get_searcher("predictor", SPACE, n_initial=3)
    trials = [searcher.ask() for _ in range(3)]
    assert searcher.ask() is None  # nothing is known yet
    for trial in trials:
        searcher.tell(trial, None)
    assert searcher.ask() is not None


def test_features_can_carry_the_search():
    """One feature that is the value itself finds the optimum of a landscape that codes say nothing about."""
    value = planted(SPACE, rugged=100.0)
    informed = get_searcher("predictor", SPACE, features=lambda genotype: [value(genotype), -math.inf], n_random=400)
    plain = get_searcher("predictor", SPACE, n_random=400)
    assert max(search(informed, value, 40)) > max(search(plain, value, 40))
    assert np.mean(search(informed, value, 20)) > np.quantile([value(g) for g in SPACE.genotypes()], 0.95)


def test_alternatives_are_the_next_best_and_move_on_if_none_becomes_a_trial():
    searcher = get_searcher("predictor", SPACE, n_initial=10, n_trees=5)
    search(searcher, planted(SPACE), 10)
    first, second = searcher.candidates(3), searcher.candidates(3)
    assert [p.genotype for p in first + second] == searcher._ranked[:6]
    trial = searcher.submit(first[1])
    assert searcher.propose() == first[0]
    assert trial.genotype not in {p.genotype for p in searcher.candidates(10)}


def test_codes_are_those_of_the_space():
    space = get_space("nasbench201")
    rng = numpy_generator(0)
    genotypes = [space.sample(rng) for _ in range(20)]
    expected = np.stack([space.encode(genotype) for genotype in genotypes])
    assert np.array_equal(Features(space.choices, None).fit(genotypes), expected)


def test_features_lie_between_0_and_1_whatever_they_are():
    values = {(0,): [1.0, math.nan], (1,): [3.0, -math.inf], (2,): [math.inf, 7.0], (3,): [-math.inf, math.inf]}
    features = Features((4,), values.__getitem__)
    assert features.fit([(0,), (1,)])[:, 4:].tolist() == [[0.0, 0.0], [1.0, 0.0]]
    assert features([(2,), (3,)])[:, 4:].tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert features.fit([(0,), (1,), (2,), (3,)])[:, 4:].tolist() == [[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
    signed = Features((3,), {(0,): [-1.0], (1,): [1.0], (2,): [math.nan]}.__getitem__)
    assert signed.fit([(0,), (1,), (2,)])[:, 3].tolist() == [0.0, 1.0, 0.0]  # not half way


def test_expected_improvement_on_paper():
    found = expected_improvement(np.array([1.0, 0.0, 3.0, 1.0]), np.array([0.0, 1.0, 0.0, 2.0]), best=1.0)
    # sd 0: what it is above the best; z = -1: phi(1) - Phi(-1); at the best: sd / sqrt(2 pi)
    assert found == pytest.approx([0.0, 0.24197072 - 0.15865525, 2.0, 2 / math.sqrt(2 * math.pi)], abs=1e-7)


@pytest.mark.parametrize("fit", [fit_forest, fit_gp])
def test_models_are_surest_of_what_they_have_seen(fit):
    rng = numpy_generator(0)
    genes = rng.integers(3, size=(40, 4))
    inputs = Features((3,) * 4, None)([tuple(row) for row in genes.tolist()])
    values = genes @ np.array([4.0, 2.0, 1.0, 0.0])
    predict = fit(inputs[:20], values[:20], n_trees=50, seed=0)
    mean, deviation = predict(inputs)
    assert np.corrcoef(mean[20:], values[20:])[0, 1] > 0.8
    assert (deviation >= 0).all()
    assert deviation[:20].mean() < deviation[20:].mean()
    again = fit(inputs[:20], values[:20], n_trees=50, seed=0)(inputs)
    assert np.array_equal(mean, again[0])


def test_one_search_takes_less_than_a_second():
    space = get_space("nasbench201")
    value = planted(space)
    search(get_searcher("predictor", space), value, 22)  # imports
    start = time.process_time()
    search(get_searcher("predictor", space, seed=1), value, 110)
    assert time.process_time() - start < 2  # 0.25 s on an idle core


@pytest.mark.parametrize(
    "options",
    [{"model": "net"}, {"acquisition": "pi"}, {"n_initial": 0}, {"refit": 0}, {"n_random": 0, "n_mutated": 0},
     {"beta": -1.0}, {"n_trees": 0}, {"n_parents": 0}, {"n_random": -1}],
)  # fmt: skip
def test_options_out_of_range(options):
    with pytest.raises(OptionError, match="expected "):
        get_searcher("predictor", SPACE, **options)
