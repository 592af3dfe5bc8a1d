"""Other tools choose the architectures, ours evaluates them; nothing gets lost on the way."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from naswot.data import get_data
from naswot.errors import InputError, MissingPackageError, OptionError
from naswot.evaluate import Evaluator
from naswot.evaluators import CallableEvaluator
from naswot.integrations import genotype_of, outcome_of
from naswot.integrations import optuna as by_optuna
from naswot.integrations import pymoo as by_pymoo
from naswot.integrations import ray_tune as by_ray
from naswot.objectives import Objective
from naswot.seeding import numpy_generator
from naswot.space import SearchSpace, get_space
from naswot.types import Evaluation


def evaluator_of(space, proxies=("naswot", "params"), width=4):
    return Evaluator(get_space(space), get_data("digits"), proxies, 8, build={"width": width, "n_cells": 1})


class Odd(SearchSpace):
    """Three genes whose sum is odd."""

    name, reference, choices = "odd", "none", (3, 4, 1)

    def is_valid(self, genotype):
        return super().is_valid(genotype) and sum(genotype) % 2 == 1

    def build(self, genotype, *, n_classes=10, in_channels=3):
        raise NotImplementedError

    def format(self, genotype):
        return "".join(map(str, genotype))

    def parse(self, text):
        return tuple(map(int, text))


def worth(genotype):
    """-inf for 0 1 0, an error for 1 0 0, otherwise the larger, the better."""
    if genotype == (1, 0, 0):
        raise ValueError("too hot")
    return {"value": -math.inf if genotype == (0, 1, 0) else 10.0 * genotype[0] + genotype[1], "cost": sum(genotype)}


@pytest.fixture
def odd():
    return CallableEvaluator(Odd(), worth, names=("value", "cost"))


def test_genotypes_by_name():
    space = get_space("nasbench201")
    values = {"g3": 3, "g0": 0.0, "g1": 1, "g2": np.int64(2), "g5": 4, "g4": 4, "x": 9}
    assert genotype_of(values, space) == (0, 1, 2, 3, 4, 4)
    with pytest.raises(InputError, match="variables g0 to g5, but g4 is missing"):
        genotype_of({f"g{i}": 0 for i in (0, 1, 2, 3, 5)}, space)


def test_outcomes(odd):
    value, cost = Objective.parse("value"), Objective.parse("-cost")
    assert outcome_of(odd, (value, cost), (2, 3, 0)).values == (23.0, -5.0)
    invalid = outcome_of(odd, (value,), (2, 2, 0))
    assert (invalid.values, invalid.evaluation) == (None, None)
    assert invalid.reason == "(2, 2, 0) is no valid genotype of odd"
    failed = outcome_of(odd, (value,), (1, 0, 0))
    assert (failed.values, failed.reason, failed.is_finite) == (None, "ValueError: too hot", False)
    infinite = outcome_of(odd, (value,), (0, 1, 0))
    assert (infinite.values, infinite.is_finite) == ((-math.inf,), False)
    singular = outcome_of(evaluator_of("nasbench201"), (Objective.parse("naswot"),), (0,) * 6)
    assert singular.values == (-math.inf,)
    assert singular.reason.startswith("naswot: ")


def test_values_of_what_failed_halfway_do_not_count(odd, monkeypatch):
    half = Evaluation((2, 3, 0), "230", {"value": 23.0}, {}, 0, error="MemoryShortageError: none left")
    monkeypatch.setattr(odd, "evaluate", lambda trial: half)
    assert outcome_of(odd, (Objective.parse("value"),), (2, 3, 0)) == (None, half.error, half)


def test_optuna_suggests_or_prunes():
    optuna = pytest.importorskip("optuna")
    assert by_optuna.suggest_genotype(optuna.trial.FixedTrial({"g0": 1, "g1": 2, "g2": 0}), Odd()) == (1, 2, 0)
    trial = optuna.trial.FixedTrial({"g0": 1, "g1": 3, "g2": 0})
    with pytest.raises(optuna.TrialPruned, match=r"\(1, 3, 0\) is no valid genotype of odd"):
        by_optuna.suggest_genotype(trial, Odd())
    assert trial.user_attrs["reason"] == "(1, 3, 0) is no valid genotype of odd"


def studied(evaluator, objectives, n, *, sampler=None):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    n_objectives = 1 if isinstance(objectives, str) else len(objectives)
    study = optuna.create_study(
        directions=["maximize"] * n_objectives, sampler=sampler or optuna.samplers.TPESampler(seed=3)
    )
    study.optimize(by_optuna.objective(evaluator, objectives), n_trials=n)
    return study


def test_optuna_finds_the_best_of_what_it_tried():
    evaluator = evaluator_of("nasbench201")
    study = studied(evaluator, "naswot", 30)
    assert all(trial.state.name == "COMPLETE" for trial in study.trials)
    scores = [trial.user_attrs["scores"]["naswot"] for trial in study.trials]
    assert study.best_value == max(scores) == study.best_trial.values[0]
    assert len(set(scores)) > 10
    best = genotype_of(study.best_params, evaluator.space)
    assert study.best_trial.user_attrs["arch"] == evaluator.space.format(best)
    assert evaluator(best).scores["naswot"] == study.best_value
    again = studied(evaluator, "naswot", 30)
    assert [trial.params for trial in again.trials] == [trial.params for trial in study.trials]
    assert np.mean(scores[15:]) > np.mean(scores[:10])  # it learns


def test_optuna_takes_several_objectives():
    study = studied(evaluator_of("nasbench201"), ["naswot", "-params"], 12)
    for trial in study.trials:
        scores = trial.user_attrs["scores"]
        assert trial.values == [scores["naswot"], -scores["params"]]
    assert min(trial.user_attrs["scores"]["params"] for trial in study.best_trials) == min(
        trial.user_attrs["scores"]["params"] for trial in study.trials
    )


@pytest.mark.parametrize("objectives", ["value", ["value", "-cost"]])
def test_optuna_is_told_why_a_trial_has_no_value(odd, objectives):
    optuna = pytest.importorskip("optuna")
    grid = {"g0": [0, 1, 2], "g1": [0, 1, 2, 3], "g2": [0]}
    study = studied(odd, objectives, 12, sampler=optuna.samplers.GridSampler(grid, seed=0))
    trials = {genotype_of(trial.params, odd.space): trial for trial in study.trials}
    assert len(trials) == 12
    for genotype, trial in trials.items():
        valid = sum(genotype) % 2 == 1
        assert (trial.state.name == "COMPLETE") == (valid and genotype != (1, 0, 0))
        if not valid:
            assert trial.user_attrs == {"reason": f"{genotype} is no valid genotype of odd"}
    assert trials[1, 0, 0].user_attrs["reason"] == "ValueError: too hot"
    assert trials[0, 1, 0].values[0] == -math.inf
    assert trials[2, 3, 0].values[0] == 23
    assert trials[2, 3, 0] in study.best_trials


def test_optuna_survives_values_of_minus_infinity(odd):
    study = studied(odd, "value", 40)  # its sampler models them from the eleventh trial on
    assert genotype_of(study.best_params, odd.space) == (2, 3, 0)
    assert any(trial.value == -math.inf for trial in study.trials if trial.state.name == "COMPLETE")


def test_optuna_meets_invalid_cells_of_nasbench101():
    optuna = pytest.importorskip("optuna")
    evaluator, rng = evaluator_of("nasbench101", ("params",), width=8), numpy_generator(0)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    for _ in range(2):  # cells drawn at random are hardly ever valid
        study.enqueue_trial({f"g{i}": gene for i, gene in enumerate(evaluator.space.sample(rng))})
    study.optimize(by_optuna.objective(evaluator, "params"), n_trials=20)
    assert [trial.state.name for trial in study.trials[:2]] == ["COMPLETE", "COMPLETE"]
    for trial in study.trials:
        valid = evaluator.space.is_valid(genotype_of(trial.params, evaluator.space))
        assert trial.state.name == ("COMPLETE" if valid else "PRUNED")
    assert any(trial.state.name == "PRUNED" for trial in study.trials)
    assert study.best_value == max(trial.value for trial in study.trials if trial.value is not None)


def minimised(evaluator, objectives, *, seed=0, limits=None, generations=4, size=10):
    nsga2 = pytest.importorskip("pymoo.algorithms.moo.nsga2")
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    rounded = {"vtype": float, "repair": RoundingRepair()}
    algorithm = nsga2.NSGA2(size, IntegerRandomSampling(), crossover=SBX(**rounded), mutation=PM(**rounded))
    problem = by_pymoo.problem(evaluator, objectives, limits=limits)
    return minimize(problem, algorithm, ("n_gen", generations), seed=seed, save_history=True)


def everything(result):
    """X, F and G of all that was evaluated."""
    populations = [step.off if step.off is not None else step.pop for step in result.history]
    return tuple(np.concatenate([population.get(what) for population in populations]) for what in "XFG")


@pytest.mark.slow
def test_pymoo_finds_the_best_of_what_it_tried():
    evaluator = evaluator_of("nasbench201")
    result = minimised(evaluator, ["naswot", "-params"])
    x, f, g = everything(result)
    feasible = g[:, 0] <= 0
    assert len(x) == 40
    assert result.F.min(axis=0).tolist() == f[feasible].min(axis=0).tolist()
    for genes, values in zip(result.X, result.F, strict=True):
        scores = evaluator(genotype_of({f"g{i}": gene for i, gene in enumerate(genes)}, evaluator.space)).scores
        assert values.tolist() == [-scores["naswot"], scores["params"]]
    again = minimised(evaluator, ["naswot", "-params"])
    assert again.X.tolist() == result.X.tolist()
    assert everything(minimised(evaluator, ["naswot", "-params"], seed=1))[0].tolist() != x.tolist()


def test_pymoo_never_returns_what_has_no_value(odd):
    result = minimised(odd, ["value", "-cost"], size=40, generations=2)
    x, f, g = everything(result)
    for genes, values, violation in zip(x.astype(int).tolist(), f, g[:, 0], strict=True):
        good = sum(genes) % 2 == 1 and tuple(genes) not in ((1, 0, 0), (0, 1, 0))
        assert (violation <= 0) == good == bool(np.isfinite(values).all())
    assert (g > 0).any()
    assert sorted(result.X.tolist()) == [[2, 1, 0], [2, 3, 0]]  # no other architecture is nowhere beaten


def test_pymoo_keeps_to_limits(odd):
    result = minimised(odd, ["value"], limits={"cost": 3}, size=40, generations=2)
    assert result.X.tolist() == [2, 1, 0]
    assert result.G.tolist() == [0.0, 0.0]
    x, _, g = everything(result)
    over = {tuple(genes): excess for genes, excess in zip(x.astype(int).tolist(), g[:, 1].tolist(), strict=True)}
    assert over[2, 3, 0] == 2.0
    assert over[2, 1, 0] == 0.0


def test_pymoo_meets_invalid_cells_of_nasbench101():
    evaluator = evaluator_of("nasbench101", ("params",), width=8)
    problem = by_pymoo.problem(evaluator, ["params"])
    rng = numpy_generator(0)
    valid = [evaluator.space.sample(rng) for _ in range(2)]
    unconnected = (0,) * len(evaluator.space.choices)
    assert problem.xu.tolist() == [n - 1 for n in evaluator.space.choices]
    out = problem.evaluate(np.array([*valid, unconnected]), return_as_dictionary=True)
    assert np.isfinite(out["F"][:2]).all()
    assert out["F"][2] == math.inf
    assert out["G"].ravel().tolist() == [0.0, 0.0, 1.0]


@pytest.mark.slow
def test_ray_tune_finds_the_best_of_what_it_tried(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    tune = pytest.importorskip("ray.tune")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    evaluator = evaluator_of("nasbench201")
    space = by_ray.search_space(evaluator.space)
    space = {**space, "g0": tune.grid_search([0, 3, 1]), **{f"g{i}": tune.choice([0, 3][: 1 + i]) for i in range(1, 6)}}
    ray.init(num_cpus=1, include_dashboard=False, logging_level="error", log_to_driver=False)
    try:
        results = tune.Tuner(
            by_ray.trainable(evaluator, ["naswot", "-params"]),
            param_space={**space, "g5": 3},
            tune_config=tune.TuneConfig(metric="naswot", mode="max"),
            run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
        ).fit()
    finally:
        ray.shutdown()
    assert not results.errors
    assert len(results) == 3
    for result in results:
        evaluation = evaluator(genotype_of(result.config, evaluator.space))
        assert result.metrics["arch"] == evaluation.arch
        assert result.metrics["naswot"] == result.metrics["scores/naswot"] == evaluation.scores["naswot"]
        assert result.metrics["-params"] == -evaluation.scores["params"]
    assert results.get_best_result().metrics["naswot"] == max(result.metrics["naswot"] for result in results)


def test_ray_tune_is_told_why_there_is_no_value(odd, monkeypatch):
    tune = pytest.importorskip("ray.tune")
    told = []
    monkeypatch.setattr(tune, "report", told.append)
    run = by_ray.trainable(odd, ["value", "-cost"])
    for genes in ((2, 2, 0), (1, 0, 0), (0, 1, 0), (2, 3, 0)):
        run({f"g{i}": gene for i, gene in enumerate(genes)})
    assert told == [
        {"value": -math.inf, "-cost": -math.inf, "arch": "", "reason": "(2, 2, 0) is no valid genotype of odd"},
        {"value": -math.inf, "-cost": -math.inf, "arch": "100", "reason": "ValueError: too hot"},
        {"scores/value": -math.inf, "scores/cost": 1, "value": -math.inf, "-cost": -1, "arch": "010", "reason": ""},
        {"scores/value": 23, "scores/cost": 5, "value": 23, "-cost": -5, "arch": "230", "reason": ""},
    ]
    space = by_ray.search_space(odd.space)
    assert {name: domain.categories for name, domain in space.items()} == {
        "g0": [0, 1, 2],
        "g1": [0, 1, 2, 3],
        "g2": [0],
    }


@pytest.mark.parametrize("make", [by_optuna.objective, by_ray.trainable, by_pymoo.problem])
def test_objectives_are_checked_before_the_first_trial(make, odd):
    with pytest.raises(OptionError, match="needs 'naswot'; the evaluator gives value, cost"):
        make(odd, ["naswot"])
    with pytest.raises(OptionError, match="no weighted sum"):
        make(odd, ["value ** 2"])
    with pytest.raises(OptionError, match="needs 'flops'"):
        by_pymoo.problem(odd, ["value"], limits={"flops": 1e6})


@pytest.mark.parametrize(
    ("make", "module", "extra"),
    [
        (lambda e: by_optuna.objective(e, "value"), "optuna", "optuna"),
        (lambda e: by_ray.trainable(e, "value"), "ray", "ray"),
        (lambda e: by_ray.search_space(e.space), "ray", "ray"),
        (lambda e: by_pymoo.problem(e, ["value"]), "pymoo.core.problem", "pymoo"),
    ],
)
def test_a_missing_tool_is_named(make, module, extra, odd, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError, match=rf"naswot\[{extra}\]"):
        make(odd)
