"""The recurrent controller against a twin in numpy, anchor points, and the clipping of PPO."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from reference.policy_toys import BEST, Deep, Layered, Toy, search

import naswot
from naswot.errors import OptionError
from naswot.search._controller import Controller, plan
from naswot.search.nasnet_ppo import clipped_objective
from naswot.searcher import get_searcher

# --------------------------------------------------------------------------------------------------------- controller


def test_plan_of_a_layered_space():
    steps, sizes = plan(Layered())
    assert [step.positions for step in steps] == [(0,), (1,), (), (2,), (3,), (4,), (5,), (6,), (7, 8)]
    assert [step.kind for step in steps] == [0, 1, None] * 3
    assert sizes == [2, 3]
    steps, sizes = plan(Toy())
    assert [step.kind for step in steps] == [0, 1, 2, 3]
    assert sizes == [4, 3, 5, 2]


def test_a_layer_ends_with_its_skips_whatever_comes_next():
    class Mixed(Toy):
        decisions = ("filter", "filter", "skip", "pool", "skip", "skip")
        choices = (3, 3, 2, 4, 2, 2)

    steps, sizes = plan(Mixed())
    assert [step.positions for step in steps] == [(0,), (), (1,), (2,), (3,), (4, 5)]
    assert sizes == [3, 4]


def test_the_space_of_the_paper_has_an_anchor_point_for_each_layer():
    space = naswot.get_space("layered_cnn")
    steps, sizes = plan(space)
    assert len(sizes) == len(set(space.decisions)) - 1
    assert [len(step.positions) for step in steps if step.kind is None] == list(
        range(space.decisions.count("n_filters"))
    )
    assert all(map(space.is_valid, search(get_searcher("zoph_le", space), 3, lambda genotype: float(sum(genotype)))))


def test_equal_kinds_share_a_softmax_and_others_do_not():
    assert [len(Controller(space, hidden=5, n_layers=1, seed=0).heads) for space in (Layered(), Toy())] == [2, 4]
    assert len(Controller(naswot.get_space("nds_vanilla"), hidden=5, n_layers=1, seed=0).heads) == 2  # depth and width


def test_a_layer_without_all_its_skips_is_refused():
    class Odd(Layered):
        name = "toy_odd"
        decisions = Layered.decisions[:-1]
        choices = Layered.choices[:-1]

    with pytest.raises(OptionError, match="layer 2 of toy_odd has 1 skip"):
        get_searcher("zoph_le", Odd())


def test_weights_start_within_008():
    weights = torch.cat([p.flatten() for p in Controller(Layered(), hidden=35, n_layers=2, seed=0).parameters()])
    assert weights.abs().max() <= 0.08
    assert weights.std().item() == pytest.approx(0.16 / math.sqrt(12), rel=0.03)


def wide_controller(space, *, n_layers=2):
    """Weights of size 1, so that every part matters."""
    controller = Controller(space, hidden=4, n_layers=n_layers, seed=7)
    with torch.no_grad():
        for parameter in controller.parameters():
            parameter.mul_(12)
    return controller


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class Twin:
    """The controller in numpy, one sequence at a time, anchors by the formula of the paper."""

    def __init__(self, controller):
        self.w = {name: value.detach().double().numpy() for name, value in controller.named_parameters()}
        self.n_layers, self.hidden = controller.n_layers, controller.hidden
        self.h = [np.zeros(self.hidden) for _ in range(self.n_layers)]
        self.c = [np.zeros(self.hidden) for _ in range(self.n_layers)]

    def lstm(self, x):
        for n in range(self.n_layers):
            w = {part: self.w[f"cells.{n}.{part}"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
            gates = w["weight_ih"] @ x + w["bias_ih"] + w["weight_hh"] @ self.h[n] + w["bias_hh"]
            i, f, g, o = np.split(gates, 4)
            self.c[n] = sigmoid(f) * self.c[n] + sigmoid(i) * np.tanh(g)
            x = self.h[n] = sigmoid(o) * np.tanh(self.c[n])
        return x

    def log_probability(self, genes, n_layers):
        """Of the layered toy: (height, count, anchor) for each layer."""
        genes, total, x, anchors = iter(genes), 0.0, self.w["start"], []
        for _ in range(n_layers):
            for kind in (0, 1):
                logits = self.w[f"heads.{kind}.weight"] @ self.lstm(x) + self.w[f"heads.{kind}.bias"]
                gene = next(genes)
                total += logits[gene] - np.log(np.exp(logits).sum())
                x = self.w[f"embeddings.{kind}.weight"][gene]
            state, chosen = self.lstm(x), []
            for earlier in anchors:
                mixed = np.tanh(self.w["previous.weight"] @ earlier + self.w["current.weight"] @ state)
                p = sigmoid(self.w["anchor.weight"][0] @ mixed)
                feeds = next(genes)
                total += np.log(p if feeds else 1 - p)
                chosen += [earlier] if feeds else []
            x = np.mean(chosen, axis=0) if chosen else np.zeros(self.hidden)
            anchors.append(state)
        return total


def test_layered_probabilities_follow_the_formulas():
    controller, rng = wide_controller(Deep()), np.random.default_rng(0)
    genotypes = [Deep().sample(rng) for _ in range(30)]
    found = controller.evaluate(genotypes).log_probabilities.detach().numpy()
    wanted = [Twin(controller).log_probability(genotype, 4) for genotype in genotypes]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert np.ptp(wanted) > 3


@pytest.mark.parametrize("space", [Toy(), Layered()])
def test_probabilities_of_all_genotypes_add_up_to_one(space):
    walk = wide_controller(space).evaluate(list(space.genotypes()))
    assert walk.log_probabilities.exp().sum().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("space", [Toy(), Layered()])
def test_draws_follow_the_probabilities_and_their_entropy(space):
    controller, n = wide_controller(space, n_layers=1), 20_000
    walk = controller.sample(n, np.random.default_rng(0))
    drawn = list(map(tuple, walk.genes.tolist()))
    again = controller.evaluate(drawn)
    torch.testing.assert_close(walk.log_probabilities, again.log_probabilities.detach())
    everything = list(space.genotypes())
    logp = controller.evaluate(everything).log_probabilities.detach().double()
    entropy = -(logp.exp() * logp).sum().item()
    assert walk.entropies.double().mean().item() == pytest.approx(entropy, rel=0.03)
    counts = Counter(drawn)
    for genotype, p in zip(everything, logp.exp().tolist(), strict=True):
        assert abs(counts[genotype] / n - p) < 5 * math.sqrt(p / n) + 1e-3


def test_zoph_le_learns_which_layer_feeds_which():
    def chain(genotype):  # of the skips 1<-0, 2<-0, 2<-1 the first and the last
        return 100.0 * (genotype[4] + (1 - genotype[7]) + genotype[8]) / 3

    searcher = get_searcher("zoph_le", Layered(), seed=0, learning_rate=0.0015)
    search(searcher, 2400, chain)
    drawn = searcher.controller.sample(500, np.random.default_rng(1)).genes.double().mean(0)
    assert drawn[4] > 0.9
    assert drawn[7] < 0.1
    assert drawn[8] > 0.9


# ---------------------------------------------------------------------------------------------------------------- ppo


def test_ratios_outside_the_clip_have_no_gradient():
    old = torch.full((6,), -2.0, dtype=torch.float64)
    ratio = torch.tensor([1.0, 1.1, 1.3, 1.3, 0.7, 0.7], dtype=torch.float64)
    gain = torch.tensor([2.0, 2.0, 2.0, -2.0, 2.0, -2.0], dtype=torch.float64)
    logp = (old + ratio.log()).requires_grad_()
    objective = clipped_objective(logp, old, gain, 0.2)
    np.testing.assert_allclose(objective.detach(), [2.0, 2.2, 2.4, -2.6, 1.4, -1.6])
    (gradient,) = torch.autograd.grad(objective.sum(), logp)
    np.testing.assert_allclose(gradient, [2.0, 2.2, 0.0, -2.6, 1.4, 0.0])


def test_the_first_step_is_that_of_the_plain_gradient():
    shared = {"batch": 20, "learning_rate": 0.01, "hidden": 12, "n_layers": 1, "baseline_momentum": 0.9}
    ppo = get_searcher("nasnet_ppo", Toy(), n_steps=1, entropy=0.0, **shared)
    plain = get_searcher("zoph_le", Toy(), reward_power=1.0, **shared)
    plain.controller.load_state_dict(ppo.controller.state_dict())
    start = {name: value.clone() for name, value in ppo.controller.state_dict().items()}
    genotypes = [Toy().sample(np.random.default_rng(seed)) for seed in range(40)]
    for searcher in (ppo, plain):
        searcher.enqueue(genotypes)
        search(searcher, 40)
    for name, value in plain.controller.state_dict().items():
        torch.testing.assert_close(ppo.controller.state_dict()[name], value)
    assert any((start[name] != value).any() for name, value in plain.controller.state_dict().items())


def test_the_clip_holds_the_policy_near_the_old_one():
    def largest_ratio(clip):
        searcher = get_searcher("nasnet_ppo", Toy(), batch=10, n_steps=40, clip=clip, learning_rate=0.003, hidden=20)
        genotypes = [BEST] * 5 + [(0, 1, 1, 0)] * 5
        old = searcher.controller.evaluate([BEST]).log_probabilities.item()
        searcher.enqueue(genotypes)
        search(searcher, 10)
        return math.exp(searcher.controller.evaluate([BEST]).log_probabilities.item() - old)

    assert largest_ratio(1e9) > 20
    assert 1.2 < largest_ratio(0.2) < 2  # momentum carries it on a little


def test_entropy_bonus_keeps_the_policy_open():
    def entropy(weight):
        searcher = get_searcher("nasnet_ppo", Toy(), seed=0, entropy=weight, learning_rate=0.005, hidden=20)
        search(searcher, 400)
        return searcher.controller.sample(100, np.random.default_rng(0)).entropies.mean().item()

    assert entropy(1.0) > 2 * entropy(1e-5)


def test_a_generation_waits_for_its_last_result():
    searcher = get_searcher("nasnet_ppo", Toy(), batch=3)
    trials = [searcher.ask() for _ in range(3)]
    assert searcher.ask() is None
    searcher.tell(trials[2], 1.0)
    searcher.tell(trials[0], None)
    assert searcher.ask() is None
    searcher.tell(trials[1], 2.0)
    assert searcher.ask().number == 3


def test_proposals_that_become_no_trial_do_not_count():
    searcher = get_searcher("nasnet_ppo", Toy(), batch=3)
    assert len(searcher.candidates(10)) == 10
    assert [searcher.ask() is None for _ in range(4)] == [False] * 3 + [True]


def test_a_batch_waits_until_it_is_full():
    searcher = get_searcher("zoph_le", Toy(), batch=3)
    start = searcher.controller.start.clone()
    search(searcher, 2)
    assert torch.equal(start, searcher.controller.start)
    search(searcher, 1)
    assert not torch.equal(start, searcher.controller.start)
