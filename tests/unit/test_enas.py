"""ENAS: the controller learns a planted reward, its baseline helps, paths share their weights, epochs are in order."""

from __future__ import annotations

import copy
import io
import math
from dataclasses import replace
from itertools import product

import pytest
import torch

from naswot.data import get_data
from naswot.differentiable.controller import ControlledPath, ControllerSteps, Policy, reinforce_loss
from naswot.differentiable.plan import SearchPlan, WeightSteps
from naswot.differentiable.preset import get_plan
from naswot.differentiable.relaxations import Clock
from naswot.differentiable.session import SearchSession
from naswot.differentiable.tasks import ImageTask, Task
from naswot.errors import OptionError
from naswot.seeding import seeded
from naswot.space import get_space
from naswot.supernet import make_supernet
from naswot.supernets._edges import MixedEdge
from naswot.testing.toy_space import ToySpace
from naswot.training.splits import three_way_split

SPACE = ToySpace((3, 3, 3))
BEST = (2, 0, 1)
SMALL = ControllerSteps(hidden=16, steps=2, samples=3)
BUILD = {"width": 4, "n_cells": 1}


def hits(genotype):
    return sum(gene == best for gene, best in zip(genotype, BEST, strict=True)) / len(BEST)


def probability(policy, genotype):
    return float(policy.controller.evaluate([genotype]).log_probabilities.detach().exp())


def entropy(policy, space):
    everything = list(space.genotypes())
    logs = policy.controller.evaluate(everything).log_probabilities.detach().double()
    return float(-(logs.exp() * logs).sum())


@pytest.fixture(scope="module")
def parts():
    return three_way_split(get_data("digits", size=8).subset(torch.arange(256)), valid_fraction=0.5)


@pytest.fixture
def session(parts):
    plan = SearchPlan(relaxation=ControlledPath(steps=SMALL), architect=None, batch_size=32)
    with SearchSession(get_space("nasbench201"), ImageTask(*parts, batch_size=32), plan, build=BUILD) as session:
        yield session


# ------------------------------------------------------------------------------------------------------ the controller


def test_on_a_planted_reward_the_entropy_falls_and_the_best_has_nine_tenths_of_the_probability():
    relaxation = ControlledPath()  # with the constants of the paper: 30 steps an epoch
    with seeded(0):
        policy = Policy(SPACE, relaxation.steps, seed=0)
        before = entropy(policy, SPACE)
        assert before == pytest.approx(math.log(27), abs=0.01)
        assert probability(policy, BEST) < 0.05
        entropies = [before]
        for _ in range(8):
            relaxation.train(policy, SPACE, hits)
            entropies.append(entropy(policy, SPACE))
    assert probability(policy, BEST) > 0.9
    assert entropies[-1] < entropies[1] < entropies[0]
    assert entropies[-1] < 0.5
    assert policy.controller.greedy() == BEST


def test_the_baseline_lowers_the_variance_of_the_gradient():
    with seeded(0):
        policy = Policy(SPACE, ControllerSteps(), seed=0)
        gradients = {"without": [], "with": []}
        for _ in range(60):
            drawn = policy.draw(SPACE, 10)
            rewards = [0.8 + 0.1 * hits(genotype) for genotype in drawn]
            mean = 0.8 + 0.1 / 3
            for name, level in (("without", 0.0), ("with", mean)):
                policy.optimizer.zero_grad()
                logs = policy.controller.evaluate(drawn).log_probabilities
                reinforce_loss(logs, [reward - level for reward in rewards]).backward()
                slopes = [p.grad.flatten() for p in policy.controller.parameters() if p.grad is not None]
                gradients[name].append(torch.cat(slopes))
    variance = {name: float(torch.stack(found).var(0).sum()) for name, found in gradients.items()}
    assert variance["with"] < 0.05 * variance["without"]


def test_what_is_learned_from_is_the_reward_less_a_moving_average():
    policy = Policy(SPACE, ControllerSteps(samples=2, entropy_weight=0.0, baseline_momentum=0.5), seed=0)
    before = copy.deepcopy(policy.controller.state_dict())
    policy.learn([(0, 0, 0), (1, 1, 1)], [0.7, 0.7])  # equal to their own mean: nothing to learn
    assert all(torch.equal(before[name], value) for name, value in policy.controller.state_dict().items())
    assert policy.baseline.value == pytest.approx(0.7)
    old = probability(policy, (0, 0, 0))
    policy.learn([(0, 0, 0), (0, 0, 0)], [0.9, 0.9])  # better than before
    assert probability(policy, (0, 0, 0)) > old
    assert 0.7 < policy.baseline.value < 0.9


def test_the_entropy_of_the_decisions_is_added_to_the_reward():
    policy = Policy(SPACE, ControllerSteps(entropy_weight=0.1), seed=0)
    with torch.no_grad():
        policy.controller.heads[0].bias[0] = 50.0
    entropies = policy.controller.evaluate([BEST]).entropies.item()
    first = -sum(p * math.log(p) for p in torch.softmax(torch.tensor([2.5, 0.0, 0.0]), 0).tolist())
    assert entropies == pytest.approx(first + 2 * math.log(3), abs=0.02)
    policy.learn([BEST], [0.5])
    assert policy.baseline.value == pytest.approx(0.5 + 0.1 * entropies)


def test_no_option_is_ever_given_up_since_logits_are_bounded():
    policy = Policy(SPACE, ControllerSteps(), seed=0)
    with torch.no_grad():
        for head in policy.controller.heads:
            head.weight.mul_(1e4)
    logs = policy.controller.evaluate(list(product(range(3), repeat=3))).log_probabilities.tolist()
    least = 3 * math.log(math.exp(-2.5) / (2 * math.exp(2.5) + math.exp(-2.5)))
    assert min(logs) >= least - 1e-4
    assert min(logs) < -6  # and yet it may be far from even


def test_its_state_is_plain_and_goes_on_alike():
    first, second = (Policy(SPACE, SMALL, seed=seed) for seed in (0, 1))
    first.learn([(0, 0, 0), BEST], [0.1, 0.9])
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    second.load_state_dict(torch.load(buffer, weights_only=True))
    assert second.baseline.value == first.baseline.value
    for policy in (first, second):
        policy.learn([BEST, (1, 1, 1)], [0.8, 0.3])
    pairs = zip(first.controller.parameters(), second.controller.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    with seeded(0):
        drawn = first.draw(SPACE, 20)
    with seeded(0):
        assert second.draw(SPACE, 20) == drawn


def test_a_state_waits_until_the_space_is_known():
    supernet = make_supernet("nasbench201", **BUILD)
    with seeded(0):
        old = ControlledPath(steps=SMALL)
        old.policy(supernet).learn([(0,) * 6, (1,) * 6], [0.2, 0.4])
        state = old.state_dict()
        new = ControlledPath(steps=SMALL)
        new.load_state_dict(state)
        assert new.state_dict() == state
        before = torch.get_rng_state()
        new.policy(supernet)
        assert torch.equal(torch.get_rng_state(), before)  # nothing is drawn for weights that are replaced
    assert probability(new.policy(supernet), (1,) * 6) == probability(old.policy(supernet), (1,) * 6)


@pytest.mark.parametrize(
    "wrong",
    [{"hidden": 0}, {"samples": 0}, {"bound": 0.0}, {"temperature": -1.0}, {"baseline_momentum": 1.0}, {"steps": 0}],
)
def test_constants_out_of_range_are_refused(wrong):
    with pytest.raises(OptionError, match="expected hidden, n_layers, steps and samples of at least 1"):
        ControllerSteps(**wrong)


# ------------------------------------------------------------------------------------------------------ in a supernet


def executed_parameters(supernet, genotype, images):
    supernet.zero_grad()
    with supernet.activate(genotype) as path:
        path(images).square().sum().backward()
    edges = [edge for edge in supernet.modules() if isinstance(edge, MixedEdge)]
    return {
        (cell, edge.row, int(i)): [p for p in operation.parameters() if p.grad is not None]
        for cell, edge in enumerate(edges)
        for i, operation in edge.operations.items()
        if any(p.grad is not None for p in operation.parameters())
    }


def test_operations_that_two_architectures_share_have_the_same_storage():
    with seeded(0):
        supernet, images = make_supernet("nasbench201", **BUILD), torch.randn(4, 3, 8, 8)
        first = executed_parameters(supernet, (3, 2, 3, 3, 2, 3), images)
        second = executed_parameters(supernet, (3, 3, 3, 2, 2, 3), images)
    shared = first.keys() & second.keys()
    assert {row for _, row, _ in shared} == {0, 2, 4, 5}
    for key in shared:
        pairs = list(zip(first[key], second[key], strict=True))
        assert pairs
        assert all(a.data_ptr() == b.data_ptr() for a, b in pairs)
    own = {p.data_ptr() for key in first.keys() - shared for p in first[key]}
    assert own.isdisjoint(p.data_ptr() for ps in second.values() for p in ps)


def test_each_batch_trains_one_path_drawn_from_the_controller(session):
    with torch.no_grad():
        policy = session.relaxation.policy(session.supernet)
        for head in policy.controller.heads:
            head.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 100.0, 0.0]))
    drawn = [session.relaxation.for_weights(session.supernet, Clock(0, 1)) for _ in range(30)]
    assert all(len(row) == 1 for mixing in drawn for row in mixing.active["cell"])
    share = sum(row == (3,) for mixing in drawn for row in mixing.active["cell"]) / 180
    assert share == pytest.approx(math.exp(2.5) / (math.exp(2.5) + 4), abs=0.12)


def test_after_an_epoch_each_sample_is_rewarded_by_a_validation_batch_of_its_own(session, monkeypatch):
    asked, trained = [], []
    wrapped, step = session.task.valid_batch, SearchSession.step
    monkeypatch.setattr(session.task, "valid_batch", lambda number: asked.append(number) or wrapped(number))
    monkeypatch.setattr(SearchSession, "step", lambda self, *args: trained.append(len(asked)) or step(self, *args))
    row = session.next_epoch()
    assert asked == list(range(2 * 3))
    assert trained == [0] * session.task.steps  # only the weights learn within an epoch
    session.next_epoch()
    assert asked == list(range(12))
    assert session.valid_batches == 12
    assert session.space.is_valid(session.space.parse(row["arch"]))


def test_steps_of_the_controller_leave_the_supernet_as_it_is_and_normalise_by_the_batch(session, monkeypatch):
    session.next_epoch()
    for module in session.supernet.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.fill_(9.0)
    before = copy.deepcopy(session.supernet)
    told, modes = [], []
    reward = session.task.reward

    def spy(supernet, mixing, batch):
        modes.append({type(module) for module in supernet.modules() if module.training})
        told.append((supernet, mixing, batch, reward(supernet, mixing, batch)))
        return told[-1][-1]

    monkeypatch.setattr(session.task, "reward", spy)
    session.relaxation.after_epoch(session)
    state = session.supernet.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in before.state_dict().items())
    assert [m.training for m in session.supernet.modules()] == [m.training for m in before.modules()]
    assert modes == [{torch.nn.BatchNorm2d}] * 6
    session.supernet.train()
    for supernet, mixing, (images, labels), value in told:
        assert value == float((supernet(images, mixing).argmax(1) == labels).float().mean())


def test_a_left_out_option_is_never_drawn(parts):
    table = torch.tensor([[1, 1, 0, 1, 1]] * 6, dtype=torch.bool)
    supernet = make_supernet("nasbench201", allowed={"cell": table}, **BUILD)
    with seeded(0):
        relaxation = ControlledPath(steps=SMALL)
        drawn = [relaxation.candidate(supernet) for _ in range(50)]
        assert all(2 not in genotype for genotype in drawn)
        with torch.no_grad():
            for head in relaxation.policy(supernet).controller.heads:
                head.bias[2] = 100.0
        assert relaxation.genotype(supernet) is None  # the likeliest is none that is left


# ------------------------------------------------------------------------------------------------------- its schedule


def rates(weights, epochs):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], weights.learning_rate)
    schedule = weights.scheduler(optimizer, epochs)
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_the_cosine_begins_anew_after_10_20_and_40_epochs():
    found = rates(get_plan("enas").weights, 150)
    assert [epoch for epoch, rate in enumerate(found) if rate == 0.05] == [0, 10, 30, 70]
    lowest = [found[epoch - 1] for epoch in (10, 30, 70)] + [found[-1]]
    assert [round(rate, 4) for rate in lowest] == sorted((round(rate, 4) for rate in lowest), reverse=True)
    assert lowest[-1] == pytest.approx(0.0005, abs=5e-5)
    short = rates(get_plan("enas").lasting(15).weights, 15)
    assert [epoch for epoch, rate in enumerate(short) if rate == 0.05] == [0, 1, 3, 7]


def test_the_rate_of_spos_falls_along_a_line_to_nothing():
    found = rates(get_plan("spos").weights, 5)
    assert found == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize("wrong", [{"schedule": "step"}, {"cycles": 0}])
def test_other_schedules_are_refused(wrong):
    with pytest.raises(OptionError, match="expected a schedule of cosine, linear, cosine_restarts"):
        WeightSteps(**wrong)


def test_the_reward_of_any_other_task_is_its_inverse_perplexity(session):
    batch = session.task.valid_batch(0)
    mixing = session.supernet.mixing_of((3,) * 6)
    session.supernet.eval()
    loss = float(session.task.loss(session.supernet, mixing, batch).detach())
    assert Task.reward(session.task, session.supernet, mixing, batch) == pytest.approx(math.exp(-loss))


def test_enas_settles_on_what_its_supernet_is_good_at(parts, monkeypatch):
    monkeypatch.setattr(ImageTask, "reward", lambda self, s, mixing, batch: float(mixing.weights["cell"][:, 1].mean()))
    plan = get_plan("enas", steps=40, samples=10, hidden=32, controller_learning_rate=0.02)
    plan = replace(plan, batch_size=32).lasting(4)
    with SearchSession(get_space("nasbench201"), ImageTask(*parts, batch_size=32), plan, build=BUILD) as session:
        while not session.ended:
            row = session.next_epoch()
        assert row["arch"] == session.space.format((1,) * 6)
        drawn = [session.relaxation.candidate(session.supernet) for _ in range(50)]
    assert sum(gene == 1 for genotype in drawn for gene in genotype) > 250
