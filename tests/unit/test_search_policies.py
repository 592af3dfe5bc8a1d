"""Learned policies: gradients against autograd, planted rewards, baselines, clipping, and the real table."""

from __future__ import annotations

import gc
import math
import weakref

import numpy as np
import pytest
import torch
from reference.policy_toys import BEST, Even, Nothing, Toy, planted, search

import naswot
from naswot.errors import OptionError
from naswot.search._policy import MovingAverage, Rewards, advantages, require_drawable
from naswot.searcher import get_searcher

POLICIES = ("reinforce", "zoph_le", "nasnet_ppo")


# ------------------------------------------------------------------------------------------------------- shared parts


def test_moving_average_is_that_of_what_was_seen():
    average = MovingAverage(0.9)
    assert average.value is None
    assert average.update(80.0) == pytest.approx(80.0)
    assert average.update(90.0) == pytest.approx((0.09 * 80 + 0.1 * 90) / 0.19)
    with pytest.raises(OptionError, match=r"momentum in \[0, 1\)"):
        MovingAverage(1.0)


def test_a_batch_is_compared_with_those_before_it_and_the_first_with_itself():
    baseline = MovingAverage(0.5)
    assert advantages([1.0, 3.0], baseline) == [-1.0, 1.0]
    assert baseline.value == pytest.approx((0.25 * 1 + 0.5 * 3) / 0.75)
    level = baseline.value
    assert advantages([5.0], baseline) == [5.0 - level]


def test_rewards_are_powers_and_failures_get_the_worst():
    rewards = Rewards(0.01, 3)
    assert rewards(None) is None
    assert rewards((90.0,)) == pytest.approx(0.729)
    assert rewards((50.0,)) == pytest.approx(0.125)
    assert rewards((80.0,)) == pytest.approx(0.512)
    assert rewards(None) == rewards((-math.inf,)) == pytest.approx(0.125)
    assert Rewards(1.0, 0.5)((-4.0,)) == -2.0


def test_a_space_is_drawn_from_once_and_not_kept():
    class Counting(Even):
        asked = 0

        def is_valid(self, genotype):
            Counting.asked += 1
            return super().is_valid(genotype)

    space = Counting()
    require_drawable(space, "reinforce")
    asked = Counting.asked
    require_drawable(space, "zoph_le")
    assert Counting.asked == asked > 0
    require_drawable(Counting(), "zoph_le")
    assert Counting.asked == 2 * asked
    with pytest.raises(OptionError, match="none of 2,000 uniform draws"):
        require_drawable(Nothing(), "zoph_le")
    kept = weakref.ref(space)
    del space
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("name", POLICIES)
def test_planted_reward_is_found(name):
    rate = {"reinforce": 0.05, "zoph_le": 0.005, "nasnet_ppo": 0.0035}[name]
    searcher = get_searcher(name, Toy(), seed=1, learning_rate=rate)
    start = math.log(math.prod(Toy.choices))
    search(searcher, 800)
    if name == "reinforce":
        shares = [row[best] for row, best in zip(searcher.probabilities(), BEST, strict=True)]
        assert min(shares) > 0.9
        assert searcher.entropy() < start / 5
    else:
        assert searcher.controller.evaluate([BEST]).log_probabilities.exp().item() > 0.9
        assert searcher.controller.sample(100, np.random.default_rng(0)).entropies.mean().item() < start / 5


@pytest.mark.parametrize("name", POLICIES)
def test_searches_follow_from_seed_and_told_values(name):
    runs = [search(get_searcher(name, Toy(), seed=seed, learning_rate=0.02), 120) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]
    other = search(get_searcher(name, Toy(), seed=0, learning_rate=0.02), 120, lambda g: -planted(g))
    assert other != runs[0]


@pytest.mark.parametrize("name", POLICIES)
def test_results_may_come_in_any_order(name):
    def run(order):
        searcher = get_searcher(name, Toy(), seed=3, learning_rate=0.05)
        asked = []
        for _ in range(15):
            trials = [searcher.ask() for _ in range(4)]
            asked += [trial.genotype for trial in trials]
            for place in order:
                searcher.tell(trials[place], planted(trials[place].genotype))
        return asked

    assert run((0, 1, 2, 3)) == run((3, 1, 2, 0))


@pytest.mark.parametrize("name", POLICIES)
def test_global_generators_are_left_alone(name):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    search(get_searcher(name, Toy(), seed=3), 45)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()


@pytest.mark.parametrize("name", POLICIES)
def test_enqueued_come_first_and_are_learned_from(name):
    searcher = get_searcher(name, Toy(), seed=0, learning_rate=0.02)
    other = (0, 1, 1, 0)
    searcher.enqueue([BEST, other] * 20)
    assert search(searcher, 40) == [BEST, other] * 20
    if name == "reinforce":
        shares = [row[best] for row, best in zip(searcher.probabilities(), BEST, strict=True)]
        assert all(share > 1 / n for share, n in zip(shares, Toy.choices, strict=True))
    else:
        good, bad = searcher.controller.evaluate([BEST, other]).log_probabilities
        assert good > bad + 0.1


@pytest.mark.parametrize("name", POLICIES)
def test_invalid_draws_are_drawn_again(name):
    searcher = get_searcher(name, Even(), seed=0)
    assert all(sum(genotype) % 2 == 0 for genotype in search(searcher, 60))
    with pytest.raises(OptionError, match="none of 2,000 uniform draws is an architecture of toy_nothing; random and"):
        get_searcher(name, Nothing())


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_settled_on_what_is_invalid_still_proposes(name):
    searcher = get_searcher(name, Even(), seed=0)
    if name == "reinforce":
        searcher.logits[:, 1] = 1e6  # (1, 1, 1, 0) or so
        searcher.logits[3] = -np.inf, 1e6, -np.inf, -np.inf, -np.inf
        searcher.logits[0] = 1e6, *[-np.inf] * 4
        searcher._refresh()
    else:
        with torch.no_grad():
            for head in searcher.controller.heads:
                head.weight.zero_()
                head.bias.copy_(torch.tensor([-1e6, 1e6, *[-1e6] * (head.bias.numel() - 2)]))
            searcher.controller.heads[0].bias[:2] = torch.tensor([1e6, -1e6])
    assert all(sum(genotype) % 2 == 0 for genotype in search(searcher, 2))


@pytest.mark.parametrize("name", ["zoph_le", "nasnet_ppo"])
def test_what_the_old_policy_drew_is_forgotten(name):
    searcher = get_searcher(name, Even(), seed=0, batch=2, learning_rate=1e-9)
    trials = [searcher.ask(), searcher.ask()]
    with torch.no_grad():
        for head in searcher.controller.heads:
            head.weight.zero_()
            head.bias.copy_(torch.tensor([1e6, *[0.0] * (head.bias.numel() - 1)]))
    for trial, value in zip(trials, (1.0, 2.0), strict=True):
        searcher.tell(trial, value)
    assert search(searcher, 2) == [(0, 0, 0, 0)] * 2


@pytest.mark.parametrize("name", POLICIES)
def test_nothing_is_learned_when_all_fails(name):
    searcher = get_searcher(name, Toy(), seed=0)

    def state():
        weights = searcher.logits if name == "reinforce" else searcher.controller.start.detach().numpy()
        return weights.copy()

    before = state()
    search(searcher, 40, lambda _: None)
    assert (before == state()).all()
    search(searcher, 40)
    assert (before != state()).any()


@pytest.mark.parametrize("name", POLICIES)
def test_nasbench101_can_be_searched(name):
    space = naswot.get_space("nasbench101")
    asked = search(get_searcher(name, space, seed=0), 5, lambda genotype: float(sum(genotype)))
    assert all(map(space.is_valid, asked))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("reinforce", {"learning_rate": 0.0}),
        ("reinforce", {"baseline_momentum": 1.0}),
        ("reinforce", {"reward_scale": -1.0}),
        ("zoph_le", {"batch": 0}),
        ("zoph_le", {"reward_power": 0.0}),
        ("nasnet_ppo", {"clip": 0.0}),
        ("nasnet_ppo", {"entropy": -0.1}),
    ],
)
def test_options_outside_their_range_are_refused(name, options):
    with pytest.raises(OptionError, match=next(iter(options)).split("_")[-1]):
        get_searcher(name, Toy(), **options)


# ---------------------------------------------------------------------------------------------------------- reinforce


def test_reinforce_steps_as_torch_does():
    searcher = get_searcher("reinforce", Toy(), seed=5, learning_rate=0.05, init_std=0.5)
    heads = [torch.tensor(row[:n], requires_grad=True) for row, n in zip(searcher.logits, Toy.choices, strict=True)]
    optimizer, baseline = torch.optim.Adam(heads, lr=0.05), MovingAverage(0.9)
    for _ in range(50):
        trial = searcher.ask()
        reward = planted(trial.genotype)
        logp = sum(torch.log_softmax(head, 0)[gene] for head, gene in zip(heads, trial.genotype, strict=True))
        for head, row in zip(
            torch.autograd.grad(logp, heads, retain_graph=True), searcher.score_function(trial.genotype), strict=True
        ):
            np.testing.assert_allclose(row[: len(head)], head, atol=1e-12)
            assert not row[len(head) :].any()
        optimizer.zero_grad()
        (-logp * (reward - baseline.update(reward))).backward()
        optimizer.step()
        searcher.tell(trial, reward)
        for head, row in zip(heads, searcher.logits, strict=True):
            np.testing.assert_allclose(row[: len(head)], head.detach(), atol=1e-9)


def test_reinforce_draws_follow_its_probabilities():
    searcher = get_searcher("reinforce", Toy(), seed=5, init_std=1.0)
    drawn = np.array([searcher.propose().genotype for _ in range(4000)])
    for position, probabilities in enumerate(searcher.probabilities()):
        shares = np.bincount(drawn[:, position], minlength=len(probabilities)) / len(drawn)
        assert np.abs(shares - probabilities).max() < 4 * 0.5 / math.sqrt(len(drawn))


def test_the_baseline_lowers_the_variance_of_the_gradient():
    searcher, with_it, without = get_searcher("reinforce", Toy(), seed=2, learning_rate=1e-9), [], []
    for _ in range(400):
        trial = searcher.ask()
        reward = 50 + planted(trial.genotype) / 4
        direction = searcher.score_function(trial.genotype)
        searcher.tell(trial, reward)
        with_it.append(direction * (reward - searcher.baseline.value))
        without.append(direction * reward)
    assert np.var(with_it, axis=0).sum() < 0.1 * np.var(without, axis=0).sum()
    assert (np.mean(with_it, 0) * searcher.score_function(BEST)).sum() > 0  # and it still points to what is planted


def test_the_unit_of_the_reward_does_not_matter():
    percent = search(get_searcher("reinforce", Toy(), seed=4, learning_rate=0.05), 200)
    fraction = search(get_searcher("reinforce", Toy(), seed=4, learning_rate=0.05, reward_scale=0.01), 200)
    assert percent == fraction


def test_reinforce_on_the_real_table(data_root):
    """100 evaluations of 12-epoch accuracy; published after about as many: 93.85 +- 0.37, random search 93.70 +- 0.36.

    Over 500 runs random search has 93.72, REINFORCE 93.74 with a rate of 0.01 and 93.91 with 0.05.
    """
    table = naswot.get_benchmark("nasbench201", data_root)
    valid = table.column("cifar10-valid", "valid_accuracy", epochs=12)
    test = table.column("cifar10", "test_accuracy", epochs=200)

    def mean_test(name, **options):
        found = []
        for seed in range(100):
            searcher = get_searcher(name, table.space, seed=seed, **options)
            rows = [table.row(genotype) for genotype in search(searcher, 100, lambda g: float(valid[table.row(g)]))]
            found.append(test[max(rows, key=lambda row: valid[row])])
        return float(np.mean(found))

    random = mean_test("random")
    assert random == pytest.approx(93.70, abs=0.12)
    assert mean_test("reinforce") == pytest.approx(93.85, abs=0.2)
    assert mean_test("reinforce", learning_rate=0.05) > random + 0.1
