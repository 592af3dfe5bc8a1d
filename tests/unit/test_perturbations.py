"""Perturbations of SDARTS: radius, projection, attack, and that nothing but the mixing of one step changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch

from naswot.data import get_data
from naswot.differentiable import perturbations
from naswot.differentiable.architects import SingleLevel
from naswot.differentiable.perturbations import (
    Adversarial,
    RandomSmoothing,
    on_simplex,
    operation_tables,
    radius,
    smoothed,
    value_at,
    within,
)
from naswot.differentiable.plan import AlphaSteps, Perturbation, SearchPlan, Stage, WeightSteps
from naswot.differentiable.preset import get_plan
from naswot.differentiable.relaxations import Clock, Softmax
from naswot.differentiable.searching import run_supernet_search
from naswot.differentiable.session import SearchSession
from naswot.differentiable.tasks import ImageTask
from naswot.errors import OptionError
from naswot.preserve import in_mode
from naswot.seeding import seeded
from naswot.space import get_space
from naswot.supernet import Mixing, make_supernet
from naswot.training.splits import three_way_split

BUILD = {"width": 4, "n_cells": 1}
FIRST, LAST = Clock(0, 50), Clock(49, 50)
KINDS = {"rs": RandomSmoothing(), "adv": Adversarial()}


@pytest.fixture(scope="module")
def parts():
    return three_way_split(get_data("digits").subset(range(320)), valid_fraction=0.5)


@pytest.fixture(scope="module")
def session(parts):
    """A few epochs into a search, so that the weights and the running statistics mean something."""
    plan = SearchPlan(stages=(Stage(epochs=8),), weights=WeightSteps(learning_rate=0.1), edge_normalisation=True)
    task = ImageTask(*parts, batch_size=32)
    with SearchSession(get_space("nasbench201"), task, plan, build=BUILD) as found:
        while not found.ended:
            found.next_epoch()
        yield found


def loss_of(session):
    batch = session.task.fixed_batch()
    return lambda mixing: session.loss(mixing, batch)


def clean_of(session):
    return Softmax().for_weights(session.supernet, FIRST)


# -------------------------------------------------------------------------------------------------- radius, projection


def test_the_radius_is_003_in_the_first_epoch_and_rises_along_a_line_to_less_than_03():
    found = [radius(Clock(epoch, 50)) for epoch in range(50)]
    assert found[0] == 0.03
    assert found[25] == pytest.approx(0.165)
    assert found[49] == pytest.approx(0.2946)
    assert all(b - a == pytest.approx(0.27 / 50) for a, b in pairwise(found))
    assert max(found) < 0.3


def test_rows_are_cut_and_divided_by_their_sum():
    table = torch.tensor([[0.5, 0.7, -0.2], [1.5, 0.5, 0.0], [0.2, 0.2, 0.1]])
    wanted = [[0.5 / 1.2, 0.7 / 1.2, 0.0], [1 / 1.5, 0.5 / 1.5, 0.0], [0.4, 0.4, 0.2]]
    assert torch.allclose(on_simplex(table, torch.ones(3, 3, dtype=torch.bool)), torch.tensor(wanted))


def test_a_row_of_which_nothing_is_left_goes_to_what_was_largest():
    table = torch.tensor([[-0.3, -0.1, -0.2], [-0.3, -0.1, -0.2]])
    allowed = torch.tensor([[True, True, True], [True, False, True]])
    assert on_simplex(table, allowed).tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


def test_options_that_are_not_allowed_get_nothing():
    table = torch.tensor([[0.2, 0.9, 0.2]])
    assert on_simplex(table, torch.tensor([[True, False, True]])).tolist() == [[0.5, 0.0, 0.5]]


def test_nothing_is_further_from_the_centre_than_the_radius():
    centre = torch.tensor([[0.2, 0.3, 0.5]])
    assert torch.allclose(
        within(centre + torch.tensor([[0.4, -0.05, -0.4]]), centre, 0.1), torch.tensor([[0.3, 0.25, 0.4]])
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clock", [FIRST, LAST])
def test_rows_stay_on_the_simplex_and_edges_stay_clean(session, kind, clock):
    clean = clean_of(session)
    with seeded(0):
        found = KINDS[kind](clean, session.supernet, clock, loss_of(session))
    table = found.weights["cell"]
    assert table.min() >= 0.0
    assert torch.allclose(table.sum(1), torch.ones(6), atol=1e-6)
    assert not torch.equal(table, clean.weights["cell"])
    assert found.weights["inputs"] is clean.weights["inputs"]
    assert not table.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_only_allowed_options_are_perturbed(kind):
    allowed = torch.ones(6, 5, dtype=torch.bool)
    allowed[:, 2] = allowed[3, 1:] = False
    with seeded(0):
        net = make_supernet("nasbench201", in_channels=1, allowed={"cell": allowed}, **BUILD)
        clean = Softmax().for_weights(net, LAST)
        images = torch.rand(8, 1, 8, 8)
        found = KINDS[kind](clean, net, LAST, lambda mixing: net(images, mixing).square().mean())
    table = found.weights["cell"]
    assert not table[~allowed].any()
    assert table[3].tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert (table != clean.weights["cell"])[0].sum() == 4


# ---------------------------------------------------------------------------------------------------------------- noise


def test_noise_is_uniform_within_the_radius_and_drawn_anew(session):
    centre = operation_tables(clean_of(session), session.supernet)
    eps = 0.1  # smaller than all weights, so that nothing is cut
    with seeded(0):
        drawn = torch.stack([smoothed(centre, session.supernet, eps)["cell"] for _ in range(2000)])
    assert centre["cell"].min() > eps
    ratio = drawn[:, :, :1] / drawn  # what the division by the sum leaves
    moved = [centre["cell"][0, i] + torch.tensor([-eps, eps]) for i in (0, 1)]
    low, high = moved[0][0] / moved[1][1], moved[0][1] / moved[1][0]
    assert low < ratio[:, 0, 1].min() < low * 1.05
    assert high * 0.95 < ratio[:, 0, 1].max() < high
    assert len(torch.unique(drawn[:, 0, 0])) > 1900


# --------------------------------------------------------------------------------------------------------------- attack


def losses_at(session, clock, n=4):
    """Clean, attacked, mean of n random perturbations of the same radius, of each of four batches (eval mode)."""
    clean, net, found = clean_of(session), session.supernet, []
    with seeded(1), in_mode(net, "eval"):
        for number in range(4):
            batch = session.task.valid_batch(number)

            def loss(mixing, batch=batch):
                return session.loss(mixing, batch)

            attacked = value_at(Adversarial()(clean, net, clock, loss), loss)
            randoms = [value_at(RandomSmoothing()(clean, net, clock, loss), loss) for _ in range(n)]
            found.append([value_at(clean, loss), attacked, sum(randoms) / n])
    return torch.tensor(found).unbind(1)


@pytest.mark.parametrize("clock", [FIRST, Clock(25, 50), LAST])
def test_the_attack_ends_above_the_clean_loss_and_above_the_mean_of_random_ones(session, clock):
    clean, attacked, randoms = losses_at(session, clock)
    assert (attacked > clean).all()
    assert attacked.mean() > randoms.mean()


def test_a_larger_radius_makes_a_stronger_attack(session):
    found = [losses_at(session, Clock(epoch, 50), n=1) for epoch in (0, 10, 30)]
    gains = [float((attacked - clean).mean()) for clean, attacked, _ in found]
    assert gains[0] < gains[1] < gains[2]


def test_no_weight_is_moved_further_than_the_radius_before_it_is_divided_by_the_sum(session, monkeypatch):
    seen = []

    def watched(table, allowed):
        seen.append(table)
        return on_simplex(table, allowed)

    monkeypatch.setattr(perturbations, "on_simplex", watched)
    clean = clean_of(session)
    with seeded(0):
        Adversarial()(clean, session.supernet, LAST, loss_of(session))
    far = [float((table - clean.weights["cell"]).abs().max()) for table in seen]
    assert len(far) == 8  # a random start and seven steps
    assert max(far) <= radius(LAST) + 1e-6
    assert max(far[1:]) == pytest.approx(radius(LAST))  # which is reached


def test_steps_are_two_sevenths_of_the_radius_along_the_sign(session, monkeypatch):
    monkeypatch.setattr(perturbations, "smoothed", lambda tables, *_: {k: v.clone() for k, v in tables.items()})
    clean = Mixing({**clean_of(session).weights, "cell": torch.full((6, 5), 0.2)})
    slopes = torch.tensor([1.0, -1.0, 1.0, -1.0, 0.0])
    net = session.supernet

    def loss(mixing):
        return (mixing.weights["cell"] * slopes).sum()

    held = torch.tensor([0.23, 0.17, 0.23, 0.17, 0.2])  # one step of 0.06 is held at 0.03
    found = Adversarial(steps=1)(clean, net, FIRST, loss)
    assert torch.allclose(found.weights["cell"], held.expand(6, 5))
    found = Adversarial()(clean, net, FIRST, loss)
    assert torch.allclose(found.weights["cell"], held.expand(6, 5), atol=1e-6)  # seven steps arrive too
    seen = []
    Adversarial()(clean, net, FIRST, lambda mixing: seen.append(mixing.weights["cell"].detach()) or loss(mixing))
    after = [0.2 + 2 * 0.03 / 7 * number for number in range(4)]  # the clean loss is looked at first
    assert [float(table[0, 0]) for table in seen[1:5]] == pytest.approx(after)


@pytest.mark.parametrize("reached", [0.5, float("nan")])
def test_an_attack_that_fails_falls_back_to_the_clean_mixing(session, reached):
    clean = clean_of(session)

    def loss(mixing):  # largest where it began, whatever the gradient says
        at_start = mixing.weights["cell"] is clean.weights["cell"]
        return 0.0 * mixing.weights["cell"].sum() + (1.0 if at_start else reached)

    assert Adversarial()(clean, session.supernet, LAST, loss) is clean


def test_an_attack_that_gains_nothing_is_kept(session):
    clean = clean_of(session)
    found = Adversarial()(clean, session.supernet, LAST, lambda mixing: 0.0 * mixing.weights["cell"].sum())
    assert found is not clean


def test_the_attack_runs_in_evaluation_mode_and_leaves_no_trace(session):
    net = session.supernet.train()
    batch = session.task.fixed_batch()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = []

    def loss(mixing):
        modes.append(net.training)
        return session.loss(mixing, batch)

    for parameter in net.parameters():
        parameter.grad = None
    Adversarial()(clean_of(session), net, LAST, loss)
    assert modes == [False] * 9  # clean, seven steps, attacked
    assert all(module.training for module in net.modules())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


# ------------------------------------------------------------------------------------------------------------- a search


@dataclass(frozen=True)
class Watching(Perturbation):
    """Looks at the alphas and gradients around another perturbation."""

    inner: Perturbation
    seen: list = None

    def __call__(self, mixing, supernet, clock, loss):
        before = [alpha.detach().clone() for alpha in supernet.architecture_parameters()]
        found = self.inner(mixing, supernet, clock, loss)
        self.seen.append((clock.epoch, before))
        return found


@pytest.mark.parametrize("kind", KINDS)
def test_steps_of_the_weights_leave_the_alphas_bit_for_bit(parts, kind):
    seen = []
    plan = SearchPlan(perturbation=Watching(KINDS[kind], seen), architect=None, stages=(Stage(epochs=1),))
    with SearchSession(get_space("nasbench201"), ImageTask(*parts, batch_size=32), plan, build=BUILD) as session:
        first = session.supernet.alphas["cell"].detach().clone()
        weights = [w.detach().clone() for w in session.supernet.weight_parameters()]
        session.next_epoch()
        assert torch.equal(first, session.supernet.alphas["cell"])
        assert not all(map(torch.equal, weights, session.supernet.weight_parameters()))
        assert session.supernet.alphas["cell"].grad is None
    assert len(seen) == 5
    assert all(torch.equal(first, alphas[0]) for _, alphas in seen)


def test_alphas_learn_at_the_clean_mixing(parts):
    """A perturbation in its first epoch of the weights leaves the first step of the alphas as it is in DARTS."""
    found = []
    for perturbation in (None, RandomSmoothing(), Adversarial()):
        plan = SearchPlan(perturbation=perturbation, alphas=AlphaSteps(every=100), stages=(Stage(epochs=1),))
        with SearchSession(get_space("nasbench201"), ImageTask(*parts, batch_size=32), plan, build=BUILD) as session:
            session.next_epoch()
            found.append(
                (session.supernet.alphas["cell"].detach().clone(), session.supernet.classifier.weight.detach().clone())
            )
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][0], found[2][0])
    assert len({float(weight.sum()) for _, weight in found}) == 3


class Interrupted(Exception):
    pass


@pytest.mark.parametrize(("name", "space"), [("sdarts_rs", "nasbench201"), ("sdarts_adv", "nasbench201")])
def test_resume_equals_uninterrupted(parts, tmp_path, name, space):
    plan = replace(get_plan(name), batch_size=64).lasting(2)

    def interrupt(row):
        if row["epoch"] == 1:
            raise Interrupted

    whole = run_supernet_search(space, *parts, plan, build=BUILD)
    with pytest.raises(Interrupted):
        run_supernet_search(space, *parts, plan, build=BUILD, checkpoint=tmp_path / "c.pt", on_epoch=interrupt)
    resumed = run_supernet_search(space, *parts, plan, build=BUILD, checkpoint=tmp_path / "c.pt")
    assert resumed.history == whole.history
    first, second = whole.supernet.state_dict(), resumed.supernet.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_presets_are_darts_and_one_part():
    darts = get_plan("darts")
    for name, part in (("sdarts_rs", RandomSmoothing()), ("sdarts_adv", Adversarial())):
        assert get_plan(name) == replace(darts, perturbation=part)
        assert get_plan(f"pc_{name[1:]}") == replace(get_plan("pc_darts"), perturbation=part)
        assert get_plan(f"p_{name[1:]}") == replace(get_plan("p_darts"), perturbation=part)
    assert (part.start, part.end, part.steps) == (0.03, 0.3, 7)


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("make", [RandomSmoothing, Adversarial])
def test_a_negative_radius_is_refused(make):
    with pytest.raises(OptionError, match="radii of at least 0"):
        make(start=-0.1)


def test_an_attack_without_a_step_is_refused():
    with pytest.raises(OptionError, match=r"at least one step of the attack, but got 0\.03, 0\.3, 0 steps"):
        Adversarial(steps=0)


def test_one_level_is_not_perturbed():
    with pytest.raises(OptionError, match=r"RandomSmoothing perturbs the steps of the weights only.*SingleLevel"):
        SearchPlan(architect=SingleLevel(), perturbation=RandomSmoothing())
