"""Picking among architectures by shared weights: their own statistics of the normalisation, best of some, evolution."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from naswot.constraints import ConstrainedSpace
from naswot.data import get_data
from naswot.differentiable.paths import CostWindow, UniformPath
from naswot.differentiable.picking import BestOf, EvolveOnSupernet, PathEvaluator, recalibrated
from naswot.differentiable.plan import SearchPlan, Selection, Stage, WeightSteps
from naswot.differentiable.preset import get_plan
from naswot.differentiable.relaxations import Softmax
from naswot.differentiable.searching import run_supernet_search
from naswot.differentiable.session import SearchSession
from naswot.differentiable.tasks import ImageTask
from naswot.errors import OptionError
from naswot.evaluators import SupernetEvaluator
from naswot.searcher import Trial, get_searcher
from naswot.searching import run_search
from naswot.seeding import seeded
from naswot.space import get_space
from naswot.supernet import make_supernet
from naswot.testing.toy_space import planted
from naswot.training.evaluation import evaluate
from naswot.training.splits import LabelledImages, three_way_split

BUILD = {"width": 4, "n_cells": 1}
SPACE = get_space("nasbench201")
CELL = (3, 1, 2, 0, 4, 3)
CELLS = [CELL, (3,) * 6, (1, 3, 3, 1, 1, 3), (2, 3, 0, 1, 3, 1)]


@pytest.fixture(scope="module")
def parts():
    return three_way_split(get_data("digits", size=8).subset(torch.arange(256)), valid_fraction=0.5)


@pytest.fixture(scope="module")
def trained(parts):
    """A supernet after some epochs of uniform paths."""

    @dataclass(frozen=True)
    class First(Selection):
        needs_alphas: ClassVar[bool] = False

        def select(self, session):
            return CELL

    plan = SearchPlan(
        relaxation=UniformPath(),
        architect=None,
        batch_size=32,
        stages=(Stage(epochs=15),),
        weights=WeightSteps(learning_rate=0.1),
        selection=First(),
    )
    return run_supernet_search(SPACE, *parts, plan, build=BUILD).supernet


@pytest.fixture
def session(parts):
    plan = SearchPlan(relaxation=UniformPath(), architect=None, selection=BestOf(), batch_size=32)
    with SearchSession(SPACE, ImageTask(*parts, batch_size=32), plan, build=BUILD) as session:
        yield session


def norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


# ---------------------------------------------------------------------------------------------------------- statistics


def test_recalibration_changes_the_running_statistics_and_not_the_weights(trained, parts):
    model = copy.deepcopy(trained)
    before = copy.deepcopy(model)
    train = parts[0]
    batches = [(train.normalised(train.images[i : i + 32]), train.labels[i : i + 32]) for i in (0, 32, 64)]
    with model.activate(CELL) as path, recalibrated(path, batches):
        for (name, old), new in zip(before.named_parameters(), model.parameters(), strict=True):
            assert torch.equal(old, new), name
            assert new.grad is None
        pairs = list(zip(norms(before), norms(model), strict=True))
        used = [(old, new) for old, new in pairs if new.num_batches_tracked == 3]
        unused = [new for _, new in pairs if new.num_batches_tracked == 0]
        assert len(used) + len(unused) == len(pairs)
        assert min(len(used), len(unused)) > 3
        assert not any(torch.equal(old.running_mean, new.running_mean) for old, new in used)
        means = torch.stack([model.stem[0](images).mean((0, 2, 3)) for images, _ in batches])
        assert torch.allclose(model.stem[1].running_mean, means.mean(0), atol=1e-6)  # of all batches alike
    assert all(torch.equal(a, b) for a, b in zip(before.buffers(), model.buffers(), strict=True))
    assert [norm.momentum for norm in norms(model)] == [0.1] * len(norms(model))
    assert [module.training for module in model.modules()] == [module.training for module in before.modules()]


def test_statistics_are_put_back_after_an_error(trained):
    model = copy.deepcopy(trained)
    with (
        pytest.raises(ZeroDivisionError),
        recalibrated(model.at(model.mixing_of(CELL)), [(torch.randn(4, 3, 8, 8), 0)]),
    ):
        raise ZeroDivisionError
    assert all(torch.equal(a, b) for a, b in zip(trained.buffers(), model.buffers(), strict=True))


def test_a_recalibrated_accuracy_does_not_depend_on_the_statistics_of_the_supernet(trained, parts):
    train, valid = parts
    spoiled = copy.deepcopy(trained)
    for norm in norms(spoiled):
        norm.running_mean.fill_(7.0)

    def accuracies(supernet):
        evaluator = SupernetEvaluator(supernet, valid, recalibration=train)
        return [evaluator.evaluate(Trial(0, cell)).scores["supernet_accuracy"] for cell in CELLS]

    assert accuracies(spoiled) == accuracies(trained)
    assert len(set(accuracies(trained))) > 1
    one = SupernetEvaluator(trained, valid, recalibration=train, recalibration_batches=1)
    assert one.describe()["recalibration_batches"] == 1
    assert SupernetEvaluator(trained, valid).describe().keys().isdisjoint({"recalibration", "recalibration_batches"})


def test_own_statistics_fit_better_than_those_of_all_paths_together(trained, parts):
    train, valid = (LabelledImages(part, "cpu") for part in parts)
    losses = []
    for cell in CELLS:
        with trained.activate(cell) as path:
            before = evaluate(path, valid.batches(256))["loss"]
            with recalibrated(path, train.batches(64)):
                losses.append((before, evaluate(path, valid.batches(256))["loss"]))
    assert all(own < shared for shared, own in losses)


def test_test_images_and_no_batches_are_refused(trained, parts):
    test = get_data("digits", size=8, split="test")
    with pytest.raises(OptionError, match=r"\(test\) must not select"):
        SupernetEvaluator(trained, parts[1], recalibration=test)
    with pytest.raises(OptionError, match="recalibration_batches of at least 1, but got 0"):
        SupernetEvaluator(trained, parts[1], recalibration=parts[0], recalibration_batches=0)


@pytest.mark.parametrize("recalibration", [None, 0])
def test_any_strategy_searches_a_trained_supernet(trained, parts, recalibration):
    evaluator = SupernetEvaluator(trained, parts[1], recalibration=parts[recalibration] if recalibration == 0 else None)
    result = run_search(get_searcher("regularized_evolution", SPACE, population=5), evaluator, budget=30)
    values = [record.values[0] for record in result.records]
    assert len(values) == 30
    assert result.best.values[0] == max(values) > min(values)
    parents = [record.trial.genotype for record in result.records]
    assert any(sum(a != b for a, b in zip(parents[-1], other, strict=True)) == 1 for other in parents[:-1])


def test_a_session_takes_as_many_training_batches_as_asked_for_from_further_epochs_too(session, monkeypatch):
    seen = []
    wrapped = session.task.train_batches
    monkeypatch.setattr(session.task, "train_batches", lambda epoch: seen.append(epoch) or wrapped(epoch))
    PathEvaluator(session, recalibration=6).accuracy(CELL)
    assert session.task.steps == 4
    assert seen == [0, 1]
    assert PathEvaluator(session, recalibration=0).accuracy(CELL) >= 0
    assert seen == [0, 1]


# -------------------------------------------------------------------------------------------------------- best of some


@pytest.fixture
def asked(monkeypatch):
    """Architectures whose accuracy is asked for; a planted value takes its place."""
    seen = []
    value = planted(SPACE)
    monkeypatch.setattr(PathEvaluator, "accuracy", lambda self, genotype: seen.append(genotype) or value(genotype))
    return seen


def test_the_best_of_a_hundred_different_ones_is_taken(session, asked):
    found = BestOf(n=100).select(session)
    assert len(asked) == len(set(asked)) == 100
    assert found == max(asked, key=planted(SPACE))


def test_relaxations_that_propose_nothing_are_drawn_from_by_their_alphas(session, asked):
    session.relaxation = Softmax()
    with torch.no_grad():
        session.supernet.alphas["cell"][range(6), list(CELL)] = 4.0
    BestOf(n=50).select(session)
    counts = [Counter(genotype[edge] for genotype in asked) for edge in range(6)]
    assert all(count.most_common(1)[0][0] == gene for count, gene in zip(counts, CELL, strict=True))
    assert CELL in asked
    with torch.no_grad():
        session.supernet.alphas["cell"][range(6), list(CELL)] = 50.0
    asked.clear()
    assert BestOf(n=50).select(session) == CELL  # nothing else turns up
    assert asked == [CELL]


@pytest.mark.parametrize("options", [{"n": 0}, {"recalibration": -1}])
def test_best_of_nothing_is_refused(options):
    with pytest.raises(OptionError, match="expected n of at least 1"):
        BestOf(**options)


# ------------------------------------------------------------------------------------------------------------ evolution


def convolutions(genotype):
    return 1.0 + sum(gene in (2, 3) for gene in genotype)


def test_evolution_on_the_supernet_keeps_to_the_windows_and_asks_for_nothing_twice(session, asked):
    window = CostWindow("convolutions", convolutions, low=2.0, high=3.0)
    found = EvolveOnSupernet(population=20, generations=6, windows=(window,)).select(session)
    assert len(asked) == len(set(asked)) == 120
    assert {convolutions(genotype) for genotype in asked} == {2.0, 3.0}
    value = planted(SPACE)
    assert found == max(asked, key=value)
    allowed = sorted(value(g) for g in SPACE.genotypes() if 2 <= convolutions(g) <= 3)
    assert value(found) > allowed[-len(allowed) // 100]  # among the best hundredth; the draws are less than a sixtieth


def test_evolution_finds_better_ones_than_as_many_random_ones(session, asked):
    value, gains = planted(SPACE), []
    for seed in range(10):
        session.seed = seed
        evolved = EvolveOnSupernet(population=20, generations=5).select(session)
        with seeded(seed):
            gains.append(value(evolved) - value(BestOf(n=100).select(session)))
    assert len(asked) == 2000
    assert sum(gains) > 0
    assert sum(gain >= 0 for gain in gains) >= 8


@pytest.mark.parametrize("options", [{"population": 0}, {"generations": 0}, {"mutation": 2.0}, {"recalibration": -1}])
def test_an_evolution_out_of_range_is_refused_before_the_search(options):
    with pytest.raises(OptionError, match="expected population, generations and parents"):
        EvolveOnSupernet(**options)


def test_spos_keeps_to_its_window_in_training_and_in_evolution(parts, monkeypatch):
    trained, compared = [], []
    path, accuracy = UniformPath.path, PathEvaluator.accuracy
    monkeypatch.setattr(UniformPath, "path", lambda self, s: trained.append(path(self, s)) or trained[-1])
    monkeypatch.setattr(PathEvaluator, "accuracy", lambda self, g: compared.append(g) or accuracy(self, g))
    window = CostWindow("convolutions", convolutions, high=3.0)
    plan = get_plan("spos", batch_size=32, population=5, generations=2, recalibration=1, windows=(window,)).lasting(2)
    run_supernet_search(SPACE, *parts, plan, build=BUILD)
    assert (len(trained), len(compared)) == (8, 10)
    assert max(map(convolutions, trained + compared)) == 3.0
    assert plan.describe()["selection"]["windows"] == [
        {"": "CostWindow", "name": "convolutions", "low": None, "high": 3.0}
    ]


def test_an_evolution_in_a_constrained_space_keeps_to_its_limits(session, asked):
    space = ConstrainedSpace(SPACE, {"convolutions": 2.0}, {"convolutions": convolutions})
    with seeded(0):
        session.supernet = make_supernet(space, **BUILD)
    EvolveOnSupernet(population=10, generations=3).select(session)
    assert len(asked) == 30
    assert max(map(convolutions, asked)) == 2.0
