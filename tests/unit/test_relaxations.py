"""Relaxations other than the softmax: what is sampled, what is executed, and the gradients that come back."""

from __future__ import annotations

import itertools
import shutil
import time
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from naswot.data import get_data
from naswot.differentiable.gates import BinaryGates
from naswot.differentiable.gumbel import GumbelSoftmax, HardGumbel
from naswot.differentiable.plan import AlphaSteps
from naswot.differentiable.preset import get_plan
from naswot.differentiable.proximal import ProximalOneHot
from naswot.differentiable.relaxations import Clock, Softmax, masked, softmax_weights
from naswot.differentiable.searching import run_supernet_search
from naswot.differentiable.session import SearchSession
from naswot.differentiable.tasks import ImageTask
from naswot.errors import OptionError
from naswot.seeding import seeded
from naswot.space import get_space
from naswot.supernet import Group, MixedSupernet, list_supernets, make_supernet
from naswot.training.splits import three_way_split

BUILD = {"width": 4, "n_cells": 1}
SMALL = {
    "mobilenet": {"width_multiplier": 0.25},
    "ptb_rnn": {"width": 4, "n_classes": 11},
    "darts": {"width": 4, "n_cells": 3},
    "robustdarts_s3": {"width": 4, "n_cells": 3},
}
SAMPLING = [GumbelSoftmax(), HardGumbel(), BinaryGates("two"), BinaryGates("full")]
ALL = [*SAMPLING, ProximalOneHot(), ProximalOneHot(alpha_pass="chosen")]
CLOCK = Clock(1, 3)


def small(space, **options):
    with seeded(1):
        return make_supernet(space, **{**(SMALL.get(space) or BUILD), **options})


def with_alphas(supernet, relaxation=None, spread=1.0):
    with seeded(2):
        for group in supernet.groups:
            first = torch.zeros(group.shape) if relaxation is None else relaxation.initial(group)
            supernet.alphas[group.name].data.copy_(first + spread * torch.randn(group.shape))
    if relaxation is not None:
        relaxation.after_step(supernet)
    return supernet


def mask_of(groups):
    """Of each row but the first the first option is not allowed, and of every other row the last one."""
    masks = {group.name: group.present() for group in groups}
    for table in masks.values():
        many = table.sum(1) > 2
        table[1:, 0] &= ~many[1:]
        table[::2, -1] &= ~many[::2]
    return masks


@pytest.fixture(scope="module")
def parts():
    return three_way_split(get_data("digits").subset(torch.arange(256)), valid_fraction=0.5)


def session_of(parts, plan, space="nasbench201", **options):
    task = ImageTask(*parts, batch_size=32, label_smoothing=plan.label_smoothing)
    return SearchSession(get_space(space), task, plan, build={**BUILD, **SMALL.get(space, {}), **options})


# ----------------------------------------------------------------------------------------------------- what all keep to


@pytest.mark.parametrize("space", list_supernets())
def test_weights_are_on_the_simplex_and_options_not_allowed_are_never_taken(space):
    groups = small(space).groups
    allowed = mask_of(groups)
    model = small(space, allowed=allowed)
    for relaxation in ALL:
        check_weights(relaxation, with_alphas(model, relaxation, 3.0), groups, allowed)


def check_weights(relaxation, supernet, groups, allowed):
    with seeded(0):
        for make in [relaxation.for_weights, relaxation.for_architecture] * 3:
            mixing = make(supernet, CLOCK)
            assert set(mixing.weights) == {group.name for group in groups}
            for group in groups:
                weights = mixing.weights[group.name].detach()
                assert torch.all(weights >= 0)
                assert not weights[~allowed[group.name]].any()
                empty = isinstance(relaxation, ProximalOneHot) & (weights.sum(1) == 0)
                torch.testing.assert_close(weights.sum(1)[~empty], torch.ones(len(weights))[~empty])
                if mixing.active is not None and group.name in mixing.active:
                    for row, options in enumerate(mixing.active[group.name]):
                        assert allowed[group.name][row, list(options)].all()
                        assert not set(weights[row].nonzero()[:, 0].tolist()) - set(options)
    genotype = relaxation.genotype(supernet)
    for name, table in supernet.chosen(genotype).items():
        assert not table[~allowed[name]].any()


@pytest.mark.parametrize("relaxation", ALL, ids=repr)
def test_only_the_steps_of_the_architecture_carry_a_gradient(relaxation):
    supernet = with_alphas(small("nasbench1shot1_1"), relaxation)
    mixing = relaxation.for_weights(supernet, CLOCK)
    assert not any(weights.requires_grad for weights in mixing.weights.values())
    mixing = relaxation.for_architecture(supernet, CLOCK)
    assert all(weights.requires_grad for weights in mixing.weights.values())
    assert not any(weights.requires_grad for weights in relaxation.expected(supernet).values())


@pytest.mark.parametrize("relaxation", ALL, ids=repr)
@pytest.mark.parametrize("space", ["nasbench201", "darts", "nasbench1shot1_1", "robustdarts_s3", "mobilenet"])
def test_both_kinds_of_steps_run_with_edges_weighed_where_there_are_any(space, relaxation):
    options = {} if space == "mobilenet" else {"edge_normalisation": True}
    supernet = with_alphas(small(space, n_classes=3, **options), relaxation, 0.1)
    images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    for make in (relaxation.for_weights, relaxation.for_architecture):
        loss = F.cross_entropy(supernet(images, make(supernet, CLOCK)), labels)
        loss.backward()
        assert torch.isfinite(loss)
    assert all(torch.isfinite(alpha.grad).all() for alpha in supernet.architecture_parameters())


def test_bad_options_are_refused():
    for make in (
        lambda: GumbelSoftmax(end=0.0),
        lambda: HardGumbel(start=-1.0),
        lambda: BinaryGates("three"),
        lambda: ProximalOneHot(start=1.5),
        lambda: ProximalOneHot(alpha_pass="some"),
        lambda: get_plan("snas", resource="extreme"),
        lambda: get_plan("proxylessnas", reference=80.0),
    ):
        with pytest.raises(OptionError):
            make()


# ------------------------------------------------------------------------------------------------- how much is executed


def executed_by(supernet, run):
    """Of each mixed edge: how many of its operations ran, counted by hooks on every one of them."""
    edges = [module for module in supernet.modules() if hasattr(module, "operations")]
    counts = [0] * len(edges)

    def count(number):
        def hook(*_):
            counts[number] += 1

        return hook

    handles = [op.register_forward_hook(count(n)) for n, edge in enumerate(edges) for op in edge.operations.values()]
    run()
    for handle in handles:
        handle.remove()
    return {(edge.group, edge.row): n for edge, n in zip(edges, counts, strict=True)}, counts


@pytest.mark.parametrize(
    ("relaxation", "weights", "alphas"),
    [
        (HardGumbel(), 1, 1),
        (BinaryGates("two"), 1, 2),
        (BinaryGates("full"), 1, None),
        (GumbelSoftmax(), None, None),
    ],
    ids=["gdas", "proxylessnas two", "proxylessnas full", "snas"],
)
@pytest.mark.parametrize("space", ["nasbench201", "darts"])
def test_operations_executed_on_each_edge_are_counted_in_both_kinds_of_steps(space, relaxation, weights, alphas):
    supernet = with_alphas(small(space, n_classes=3), relaxation)
    total = supernet.operation_groups[0].shape[1]
    for make, wanted in ((relaxation.for_weights, weights), (relaxation.for_architecture, alphas)):
        mixing = make(supernet, CLOCK)
        _, counts = executed_by(supernet, lambda mixing=mixing: supernet(torch.rand(2, 3, 8, 8), mixing))
        assert set(counts) == {wanted or total}


@pytest.mark.parametrize("alpha_pass", ["all", "chosen"])
@pytest.mark.parametrize("space", ["nasbench201", "darts"])
def test_nasp_executes_one_operation_on_each_kept_edge_and_keeps_two_edges_of_a_node(space, alpha_pass):
    relaxation = ProximalOneHot(alpha_pass=alpha_pass)
    supernet = with_alphas(small(space, n_classes=3), relaxation, 0.3)
    images = torch.rand(2, 3, 8, 8)
    by_place, counts = executed_by(supernet, lambda: supernet(images, relaxation.for_weights(supernet, CLOCK)))
    chosen = supernet.chosen(relaxation.genotype(supernet))
    assert all(n == int(chosen[group][row].sum()) for (group, row), n in by_place.items())
    if space == "darts":
        assert sum(counts) == 3 * 4 * 2  # three cells of four nodes with two edges each
        nodes = [sum(by_place["normal", row] for row in rows) for rows in ([0, 1], [2, 3, 4], [5, 6, 7, 8])]
        assert nodes == [2, 2, 2]
    _, again = executed_by(supernet, lambda: supernet(images, relaxation.for_architecture(supernet, CLOCK)))
    total = supernet.operation_groups[0].shape[1]
    assert again == (counts if alpha_pass == "chosen" else [total] * len(counts))


def test_a_whole_step_of_gdas_executes_two_operations_on_each_edge(parts):
    with session_of(parts, get_plan("gdas")) as session:
        batch = next(session.task.train_batches(0))
        _, counts = executed_by(session.supernet, lambda: session.step(batch, 0))
    assert set(counts) == {2}  # one for the alphas, one for the weights


def test_weights_of_operations_outside_of_nasps_architecture_get_no_gradient(parts):
    with session_of(parts, get_plan("nasp"), "darts") as session:
        batch = next(session.task.train_batches(0))
        session.step(batch, 0)
        used = {}
        mixing = session.relaxation.for_weights(session.supernet, session.clock)
        session.supernet.zero_grad(set_to_none=True)
        session.loss(mixing, batch).backward()
        for edge in session.supernet.modules():
            for option, operation in getattr(edge, "operations", {}).items():
                taken = mixing.weights[edge.group][edge.row, int(option)] > 0
                for parameter in operation.parameters():
                    used.setdefault(bool(taken), set()).add(parameter.grad is not None)
    assert used == {True: {True}, False: {False}}


def test_a_step_of_the_weights_takes_a_fraction_of_the_time_of_one_at_the_softmax():
    supernet = with_alphas(make_supernet("darts", width=8, n_cells=3, n_classes=3))
    images = torch.rand(8, 3, 16, 16)

    def seconds(relaxation):
        times = []
        for _ in range(3):
            mixing = relaxation.for_weights(supernet, CLOCK)
            start = time.thread_time()
            supernet(images, mixing).sum().backward()
            times.append(time.thread_time() - start)
        return min(times)

    executed = sum(executed_by(supernet, lambda: supernet(images, ProximalOneHot().for_weights(supernet, CLOCK)))[1])
    every = sum(executed_by(supernet, lambda: supernet(images, Softmax().for_weights(supernet, CLOCK)))[1])
    assert executed * 14 == every  # 8 of 14 edges in a cell, 1 of 8 operations
    assert seconds(ProximalOneHot()) < 0.4 * seconds(Softmax())
    assert seconds(HardGumbel()) < 0.6 * seconds(Softmax())


# -------------------------------------------------------------------------------------------------------- SNAS and GDAS


def chance_of(counts, expected):
    """p-value of each row of counts by chi-square; rare options are taken together."""
    found = []
    for row, chances in zip(counts, expected, strict=True):
        wanted = chances * row.sum()
        often = wanted >= 5
        observed = torch.cat([row[often], row[~often].sum()[None]])
        wanted = torch.cat([wanted[often], wanted[~often].sum()[None]])
        kept = wanted > 0
        found.append(stats.chisquare(observed[kept].numpy(), wanted[kept].numpy()).pvalue)
    return found


@pytest.mark.parametrize("relaxation", [HardGumbel(), BinaryGates()], ids=["gdas", "proxylessnas"])
def test_options_are_drawn_as_often_as_the_softmax_says(relaxation):
    supernet = with_alphas(small("nasbench201"))
    with seeded(3):
        counts = sum(relaxation.for_weights(supernet, CLOCK).weights["cell"] for _ in range(3000)).double()
    chances = torch.softmax(supernet.alphas["cell"].detach().double(), dim=1)
    assert min(chance_of(counts, chances)) > 1e-3
    uniform = torch.full_like(chances, 0.2)
    assert max(chance_of(counts, uniform)) < 1e-3


def test_the_temperature_falls_linearly_and_the_samples_follow_the_concrete_distribution():
    supernet = with_alphas(small("nasbench201"))
    for relaxation, values in ((GumbelSoftmax(), (1.0, 0.515, 0.03)), (HardGumbel(), (10.0, 5.05, 0.1))):
        for epoch, temperature in zip((0, 50, 100), values, strict=True):
            with seeded(4):
                found = relaxation.for_architecture(supernet, Clock(epoch, 101)).weights["cell"]
            with seeded(4):
                noise = -torch.empty(6, 5).exponential_().log()
            wanted = torch.softmax((supernet.alphas["cell"] + noise) / temperature, dim=1)
            slopes = torch.arange(30.0).reshape(6, 5).sin()
            of_found, of_wanted = (
                torch.autograd.grad((slopes * w).sum(), supernet.alphas["cell"])[0] for w in (found, wanted)
            )
            torch.testing.assert_close(of_found, of_wanted, rtol=1e-3, atol=1e-6)
            if isinstance(relaxation, HardGumbel):
                wanted = F.one_hot(wanted.argmax(1), 5).float()
                assert torch.equal(found, wanted)
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)


def test_the_mean_sample_of_snas_goes_to_the_softmax_as_the_temperature_goes_to_0():
    supernet = with_alphas(small("nasbench201"), spread=2.0)
    softmax = softmax_weights(supernet)["cell"].detach()
    errors = []
    for temperature in (3.0, 0.3, 0.03):
        relaxation = GumbelSoftmax(temperature, temperature)
        with seeded(5):
            mean = sum(relaxation.for_weights(supernet, CLOCK).weights["cell"] for _ in range(3000)) / 3000
        errors.append(float((mean - softmax).abs().max()))
    assert errors[0] > 0.1
    assert errors[2] < 0.03
    assert errors == sorted(errors, reverse=True)


def test_the_locations_of_snas_begin_around_1():
    with seeded(6):
        first = GumbelSoftmax().initial(Group("cell", (("a", "b"),) * 5000))
    assert first.mean() == pytest.approx(1.0, abs=1e-3)
    assert first.std() == pytest.approx(0.01, rel=0.05)


def test_an_infinite_noise_is_drawn_again(monkeypatch):
    supernet = with_alphas(small("nasbench201"))
    draws = [torch.zeros(6, 5), torch.ones(6, 5)]
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self: self.copy_(draws.pop(0)))
    weights = HardGumbel().for_weights(supernet, CLOCK).weights["cell"]
    assert not draws
    assert torch.equal(weights.argmax(1), supernet.alphas["cell"].argmax(1))


def test_all_alphas_of_gdas_get_a_gradient_from_the_one_operation_executed():
    allowed = torch.ones(6, 5, dtype=torch.bool)
    allowed[:, 0] = False  # without none, behind which nothing flows
    supernet = with_alphas(small("nasbench201", n_classes=3, allowed={"cell": allowed}))
    mixing = HardGumbel().for_architecture(supernet, Clock(0, 2))
    mixing.weights["cell"].retain_grad()
    F.cross_entropy(supernet(torch.rand(6, 3, 8, 8), mixing), torch.tensor([0, 1, 2] * 2)).backward()
    assert torch.equal(supernet.alphas["cell"].grad != 0, allowed)
    others = mixing.weights["cell"].grad[0][1:][mixing.weights["cell"][0, 1:] == 0]
    assert others.abs().min() > 0  # as numbers those not executed take part too
    assert torch.all(others == others[0])


# --------------------------------------------------------------------------------------------------------- ProxylessNAS


class Toy(MixedSupernet):
    """One row of three operations that multiply by 2, -1 and 0.5; the loss is linear in the gates."""

    def __init__(self, alphas):
        super().__init__(get_space("nasbench201"), (Group("toy", (("a", "b", "c"),)),))
        self.weight = nn.Parameter(torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64))
        self.alphas["toy"] = nn.Parameter(torch.tensor([alphas], dtype=torch.float64))

    def forward(self, inputs, mixing):
        return (mixing.weights["toy"][0] * self.weight).sum() * inputs

    def derive(self, strengths):
        return (int(strengths["toy"].argmax()),)

    def chosen(self, genotype):
        return {"toy": F.one_hot(torch.tensor(genotype), 3).float()}


def slope_by_differences(function, point, step=1e-6):
    basis = torch.eye(point.numel(), dtype=point.dtype)
    return torch.stack([(function(point + step * e) - function(point - step * e)) / (2 * step) for e in basis])


@pytest.mark.parametrize("paths", ["full", "two"])
def test_the_gradient_of_gates_is_that_of_the_expected_loss(paths):
    toy = Toy([0.3, -0.2, 0.9])
    seen = set()
    with seeded(7):
        for _ in range(30):
            mixing = BinaryGates(paths).for_architecture(toy, CLOCK)
            taken = mixing.active["toy"][0]
            seen.add(taken)

            def expected_loss(alphas, taken=taken):
                chances = torch.softmax(alphas[list(taken)], 0)
                return (chances * 3.0 * toy.weight.detach()[list(taken)]).sum()

            (found,) = torch.autograd.grad(toy(3.0, mixing), toy.alphas["toy"])
            wanted = slope_by_differences(expected_loss, toy.alphas["toy"].detach()[0])
            torch.testing.assert_close(found[0], wanted, rtol=1e-6, atol=1e-9)
    assert seen == {(0, 1, 2)} if paths == "full" else len(seen) == 3


def test_pairs_are_drawn_without_replacement_and_the_open_gate_by_the_chances_within():
    toy = Toy([0.3, -0.2, 0.9])
    p = torch.softmax(toy.alphas["toy"].detach()[0], 0)
    pairs = list(itertools.combinations(range(3), 2))
    opened = {(pair, one): 0 for pair in pairs for one in pair}
    with seeded(8):
        for _ in range(3000):
            mixing = BinaryGates().for_architecture(toy, CLOCK)
            opened[mixing.active["toy"][0], int(mixing.weights["toy"][0].argmax())] += 1
    wanted = [p[i] * p[j] * (1 / (1 - p[i]) + 1 / (1 - p[j])) * p[one] / (p[i] + p[j]) for (i, j), one in opened]
    assert stats.chisquare(list(opened.values()), [3000 * float(w) for w in wanted]).pvalue > 1e-3


def test_a_step_of_two_paths_keeps_the_sum_of_their_exponentials_and_all_other_alphas():
    supernet = with_alphas(small("nasbench201", n_classes=3))
    relaxation, alphas = BinaryGates("two"), supernet.alphas["cell"]
    adam = torch.optim.Adam([alphas], 0.5, betas=(0.0, 0.999))
    with seeded(9):
        for _ in range(4):
            before = alphas.detach().clone()
            mixing = relaxation.for_architecture(supernet, CLOCK)
            loss = F.cross_entropy(supernet(torch.rand(6, 3, 8, 8), mixing), torch.tensor([0, 1, 2] * 2))
            (alphas.grad,) = torch.autograd.grad(loss, [alphas])
            relaxation.before_step(supernet)
            adam.step()
            relaxation.after_step(supernet)
            pair = torch.zeros_like(before).scatter_(1, torch.tensor(mixing.active["cell"]), 1.0).bool()
            assert torch.equal(alphas[~pair], before[~pair])
            moved = (alphas != before)[pair].reshape(6, 2)
            assert torch.equal(moved[:, 0], moved[:, 1])
            assert moved.any()
            torch.testing.assert_close((alphas.exp() * pair).sum(1), (before.exp() * pair).sum(1))


def test_a_row_of_one_option_takes_part_alone():
    allowed = torch.ones(6, 5, dtype=torch.bool)
    allowed[2, 1:] = False
    supernet = with_alphas(small("nasbench201", allowed={"cell": allowed}))
    mixing = BinaryGates("two").for_architecture(supernet, CLOCK)
    assert mixing.active["cell"][2] == (0,)
    assert mixing.weights["cell"][2].tolist() == [1, 0, 0, 0, 0]


def test_proxylessnas_warms_up_along_a_cosine_of_its_own(parts):
    plan = replace(get_plan("proxylessnas"), batch_size=32).lasting(8)
    result = run_supernet_search("nasbench201", *parts, plan, build=BUILD)
    rates = [row["learning_rate"] for row in result.history]
    assert rates[:2] == pytest.approx([0.05, 0.025])
    assert rates[2] == pytest.approx(0.025)
    assert rates[5] == pytest.approx(0.0125)
    assert rates[7] < 0.002


# ----------------------------------------------------------------------------------------------------------------- NASP


def test_alphas_of_nasp_stay_within_0_and_1(parts):
    plan = replace(get_plan("nasp"), alphas=AlphaSteps(learning_rate=0.2))
    with session_of(parts, plan) as session:
        assert session.supernet.alphas["cell"][:, 1:].eq(0.5).all()
        reached = set()
        for number, batch in enumerate([*session.task.train_batches(0), *session.task.train_batches(1)]):
            session.step(batch, number)
            alphas = session.supernet.alphas["cell"].detach()
            assert alphas.min() >= 0.0
            assert alphas.max() <= 1.0
            reached |= {float(alphas.min()), float(alphas.max())}
    assert reached >= {0.0, 1.0}  # so that the box was met on both sides


def test_nasp_applies_the_gradient_at_the_corner_to_the_alphas():
    supernet = with_alphas(small("nasbench201", n_classes=3), ProximalOneHot(), 0.3)
    relaxation = ProximalOneHot()
    images, labels = torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 2] * 2)
    found = torch.autograd.grad(
        F.cross_entropy(supernet(images, relaxation.for_architecture(supernet, CLOCK)), labels),
        supernet.alphas["cell"],
    )[0]
    corner = F.one_hot(supernet.alphas["cell"].argmax(1), 5).float().requires_grad_()
    mixing = replace(relaxation.for_architecture(supernet, CLOCK), weights={"cell": corner})
    assert relaxation.corner(supernet)["cell"].equal(corner.detach())
    (wanted,) = torch.autograd.grad(F.cross_entropy(supernet(images, mixing), labels), corner)
    torch.testing.assert_close(found, wanted)
    assert (found[:, 1:] != 0).sum() > 12  # far more than the six operations of the corner


def test_an_alpha_of_nasp_at_0_does_not_give_way_to_an_option_that_is_not_allowed():
    allowed = torch.ones(6, 5, dtype=torch.bool)
    allowed[:, :2] = False
    supernet = small("nasbench201", allowed={"cell": allowed})
    assert ProximalOneHot().genotype(supernet) == (2,) * 6


def test_nasp_begins_with_identities_and_leaves_them_at_once(parts):
    with session_of(parts, get_plan("nasp")) as session:
        assert session.relaxation.genotype(session.supernet) == (1,) * 6
        session.next_epoch()
        after = session.supernet.alphas["cell"].detach()
        assert len(after[:, 1:].unique()) > 12
        assert session.relaxation.genotype(session.supernet) != (1,) * 6


# -------------------------------------------------------------------------------------------------------------- presets


def test_presets_have_the_published_constants():
    snas, gdas, nasp, proxyless = map(get_plan, ("snas", "gdas", "nasp", "proxylessnas"))
    assert (snas.epochs, gdas.epochs, nasp.epochs, proxyless.epochs) == (150, 250, 50, 160)
    assert snas.architect.single_level
    assert not gdas.architect.single_level
    assert snas.resource is gdas.resource is nasp.resource is proxyless.resource is None
    assert (gdas.weights.nesterov, gdas.weights.weight_decay, gdas.alphas.learning_rate) == (True, 5e-4, 3e-4)
    alphas = proxyless.alphas
    assert (alphas.learning_rate, alphas.betas, alphas.weight_decay, alphas.every) == (1e-3, (0.0, 0.999), 0.0, 5)
    assert (proxyless.stages[0].warmup, proxyless.label_smoothing) == (40, 0.1)
    assert proxyless.weights.weight_decay == 4e-5
    assert proxyless.weights.nesterov


@pytest.mark.parametrize(
    ("preset", "options"),
    [
        ("snas", {}),
        ("snas", {"resource": "mild"}),
        ("gdas", {}),
        ("nasp", {}),
        ("nasp", {"penalty": 0.1, "alpha_pass": "chosen"}),
        ("proxylessnas", {}),
        ("proxylessnas", {"resource": "latency", "form": "add_linear"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_a_search_that_is_resumed_equals_one_that_was_not_interrupted(parts, tmp_path, preset, options):
    plan = replace(get_plan(preset, **options), batch_size=32).lasting(2)

    def search(name, **more):
        return run_supernet_search("nasbench201", *parts, plan, build=BUILD, checkpoint=tmp_path / name, **more)

    def as_if_stopped(row):
        if row["epoch"] == 1:
            shutil.copy(tmp_path / "whole", tmp_path / "stopped")

    whole, resumed = search("whole", on_epoch=as_if_stopped), search("stopped")
    assert whole.history == resumed.history
    assert len(whole.history) == 2
    assert whole.genotype == resumed.genotype
    for name, value in whole.supernet.state_dict().items():
        assert torch.equal(value, resumed.supernet.state_dict()[name]), name


def test_masked_alphas_are_what_the_softmax_sees():
    allowed = torch.ones(6, 5, dtype=torch.bool)
    allowed[0, 3] = False
    supernet = small("nasbench201", allowed={"cell": allowed})
    assert masked(supernet, supernet.groups[0])[0, 3] == -torch.inf
