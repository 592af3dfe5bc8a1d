"""Single paths through a supernet: uniform, within limits, nothing else executed; the template; presets resume."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from naswot.constraints import ConstrainedSpace
from naswot.data import get_data
from naswot.differentiable.paths import CostWindow, OpenSpace, TemplatePath, UniformPath, open_space
from naswot.differentiable.picking import BestOf, PathEvaluator
from naswot.differentiable.plan import SearchPlan, Stage, WeightSteps
from naswot.differentiable.preset import get_plan
from naswot.differentiable.relaxations import Clock
from naswot.differentiable.searching import run_supernet_search
from naswot.differentiable.session import SearchSession
from naswot.differentiable.tasks import ImageTask
from naswot.errors import OptionError
from naswot.seeding import seeded
from naswot.space import SearchSpace, get_space
from naswot.supernet import Group, MixedSupernet, make_supernet, supernets
from naswot.supernets._edges import MixedEdge
from naswot.training.splits import three_way_split

BUILD = {"width": 4, "n_cells": 1}
CLOCK = Clock(0, 1)


def small(space="nasbench201", **options):
    with seeded(0):
        return make_supernet(space, in_channels=1, **{**BUILD, **options})


def paths(relaxation, supernet, n, seed=0):
    with seeded(seed):
        return [relaxation.path(supernet) for _ in range(n)]


def p_uniform(values, options):
    """Probability of so uneven counts, or more so, if all options are equally likely."""
    counts = Counter(values)
    return stats.chisquare([counts[option] for option in options]).pvalue


@pytest.fixture(scope="module")
def parts():
    return three_way_split(get_data("digits").subset(torch.arange(256)), valid_fraction=0.5)


# ------------------------------------------------------------------------------------------------------------- uniform


def test_frequencies_of_each_operation_on_each_edge_are_uniform_by_chi_square():
    drawn = paths(UniformPath(), small(), 2000)
    assert min(p_uniform([genotype[edge] for genotype in drawn], range(5)) for edge in range(6)) > 1e-4
    pairs = [(genotype[0], genotype[5]) for genotype in drawn]  # and edges are independent of each other
    assert p_uniform(pairs, [(a, b) for a in range(5) for b in range(5)]) > 1e-4


def test_frequencies_are_uniform_over_inputs_and_operations_of_darts():
    space = get_space("darts")
    drawn = paths(UniformPath(), small("darts", n_cells=3), 1500)
    ps = [p_uniform([g[i] for g in drawn], range(n)) for i, n in enumerate(space.choices) if n > 1]
    assert min(ps) > 1e-4


def test_options_that_were_left_out_are_never_taken_and_the_others_uniformly():
    allowed = {"cell": torch.tensor([[0, 1, 0, 1, 0], [1, 0, 0, 0, 0]] + [[0, 0, 1, 1, 1]] * 4, dtype=torch.bool)}
    supernet = small(allowed=allowed)
    drawn = paths(UniformPath(), supernet, 900)
    for edge in range(6):
        left = allowed["cell"][edge].nonzero()[:, 0].tolist()
        assert {genotype[edge] for genotype in drawn} == set(left)
        assert len(left) == 1 or p_uniform([genotype[edge] for genotype in drawn], left) > 1e-4
    space = open_space(supernet)
    assert space.is_valid(drawn[0])
    assert not space.is_valid((0, *drawn[0][1:]))
    mutants = [space.mutate(genotype, np.random.default_rng(0)) for genotype in drawn[:20]]
    assert all(map(space.is_valid, mutants))


def test_a_darts_supernet_of_two_operations_gives_paths_of_these():
    table = torch.zeros(14, 8, dtype=torch.bool)
    table[:, [0, 3, 4]] = True  # none, skip connection, separable 3x3
    supernet = small("darts", n_cells=3, allowed={"normal": table, "reduce": table})
    cells = [cell for genotype in paths(UniformPath(), supernet, 50) for cell in supernet.space.cells(genotype)]
    assert {name for cell in cells for name, _ in cell.edges} == {"skip_connect", "sep_conv_3x3"}


def test_paths_follow_the_state_of_torch_and_nothing_else():
    supernet, relaxation = small(), UniformPath()
    assert paths(relaxation, supernet, 5, seed=3) == paths(copy.deepcopy(relaxation), supernet, 5, seed=3)
    assert paths(relaxation, supernet, 5, seed=3) != paths(relaxation, supernet, 5, seed=4)
    with seeded(3):
        first = relaxation.path(supernet)
        state = torch.get_rng_state()
        second = relaxation.path(supernet)
        torch.set_rng_state(state)
        assert relaxation.path(supernet) == second != first


# ------------------------------------------------------------------------------------------------------- one path runs


def executed(supernet, run):
    """Places of the operations whose forward runs, with how often."""
    seen = Counter()
    hooks = [
        operation.register_forward_hook(lambda *_, key=(edge.group, edge.row, int(i)): seen.update([key]))
        for edge in supernet.modules()
        if isinstance(edge, MixedEdge)
        for i, operation in edge.operations.items()
    ]
    run()
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize(("space", "n_cells", "copies"), [("nasbench201", 1, 3), ("darts", 3, None)])
def test_exactly_the_chosen_operations_are_executed(space, n_cells, copies):
    supernet, images = small(space, n_cells=n_cells), torch.randn(2, 1, 8, 8)
    for seed in range(3):
        (genotype,) = paths(UniformPath(), supernet, 1, seed=seed)
        with seeded(seed):
            mixing = UniformPath().for_weights(supernet, CLOCK)
        seen = executed(supernet, lambda mixing=mixing: supernet(images, mixing))
        tables = supernet.chosen(genotype)
        chosen = {(name, row, i) for name, table in tables.items() for row, i in table.nonzero().tolist()}
        assert set(seen) == chosen
        assert copies is None or set(seen.values()) == {copies}


def test_a_step_of_a_search_trains_one_path_and_no_alpha(parts):
    still = WeightSteps(weight_decay=0.0)
    plan = SearchPlan(relaxation=UniformPath(), architect=None, selection=BestOf(), weights=still, batch_size=32)
    with SearchSession(get_space("nasbench201"), ImageTask(*parts, batch_size=32), plan, build=BUILD) as session:
        before = copy.deepcopy(session.supernet)
        batch = next(iter(session.task.train_batches(0)))
        seen = executed(session.supernet, lambda: session.step(batch, 0))
        assert sorted(row for _, row, _ in seen) == list(range(6))
        for old, new in zip(before.modules(), session.supernet.modules(), strict=True):
            if isinstance(new, MixedEdge):
                for i, operation in new.operations.items():
                    pairs = zip(old.operations[i].parameters(), operation.parameters(), strict=True)
                    changed = [not torch.equal(a, b) for a, b in pairs]
                    assert all(changed) if (new.group, new.row, int(i)) in seen else not any(changed)
        assert torch.equal(before.alphas["cell"], session.supernet.alphas["cell"])


def test_what_has_no_alphas_tells_no_architecture_and_wants_a_selection():
    with pytest.raises(OptionError, match="UniformPath has none that tell an architecture; take a selection"):
        SearchPlan(relaxation=UniformPath(), architect=None)


# ----------------------------------------------------------------------------------------------------------- the limits


def convolutions(genotype):
    return 1.0 + sum(gene in (2, 3) for gene in genotype)


def test_paths_never_leave_the_windows_and_costs_are_asked_once():
    asked = Counter()

    def cost(genotype):
        asked[genotype] += 1
        return convolutions(genotype)

    window = CostWindow("convolutions", cost, low=2.5, high=4.0)
    drawn = paths(UniformPath((window,)), small(), 300)
    assert {convolutions(genotype) for genotype in drawn} == {3.0, 4.0}
    assert max(asked.values()) == 1
    many = UniformPath((CostWindow("convolutions", convolutions, low=5.5),))
    assert {convolutions(genotype) for genotype in paths(many, small(), 20)} == {6.0, 7.0}


def test_windows_and_left_out_options_together():
    allowed = {"cell": torch.tensor([[0, 1, 0, 1, 0]] * 6, dtype=torch.bool)}
    window = CostWindow("convolutions", convolutions, high=3.0)
    drawn = paths(UniformPath((window,)), small(allowed=allowed), 100)
    assert {gene for genotype in drawn for gene in genotype} == {1, 3}
    assert {convolutions(genotype) for genotype in drawn} == {1.0, 2.0, 3.0}
    none = CostWindow("convolutions", convolutions, high=0.5)
    with pytest.raises(OptionError, match=r"none of 1,000 random .* of the options that are left .* <= 0\.5"):
        paths(UniformPath((none,)), small(allowed=allowed), 1)


def test_impossible_windows_tell_what_was_met():
    window = CostWindow("convolutions", convolutions, high=0.5)
    with pytest.raises(OptionError, match=r"convolutions <= 0\.5 \(least met 1\)"):
        paths(UniformPath((window,)), small(), 1)


@pytest.mark.parametrize("limits", [{}, {"low": 0.0}, {"high": -1.0}, {"low": 2.0, "high": 1.0}, {"high": np.nan}])
def test_windows_without_sense_are_refused(limits):
    with pytest.raises(OptionError, match="expected a window of flops"):
        CostWindow("flops", convolutions, **limits)


def test_a_constrained_space_constrains_the_paths(parts):
    space = ConstrainedSpace(get_space("nasbench201"), {"convolutions": 2.0}, {"convolutions": convolutions})
    assert max(map(convolutions, paths(UniformPath(), make_supernet(space, **BUILD), 100))) == 2.0
    plan = get_plan("random_ws", n=5, recalibration=1)
    found = run_supernet_search(space, *parts, replace(plan, batch_size=32).lasting(1), build=BUILD)
    assert convolutions(found.genotype) <= 2.0


def test_the_open_space_of_a_whole_supernet_is_its_space():
    supernet = small()
    assert open_space(supernet) is supernet.space
    assert OpenSpace(supernet).limits == {}


# --------------------------------------------------------------------------------------------------------- the template


def test_the_template_trains_paths_and_learns_from_all_options():
    supernet, relaxation = small(), TemplatePath()
    with seeded(0), torch.no_grad():
        supernet.alphas["cell"].copy_(torch.randn(6, 5))
        path = relaxation.for_weights(supernet, CLOCK)
    assert [len(row) for row in path.active["cell"]] == [1] * 6
    mixing = relaxation.for_architecture(supernet, CLOCK)
    assert mixing.active is None
    assert torch.equal(mixing.weights["cell"], torch.softmax(supernet.alphas["cell"], 1))
    supernet(torch.randn(4, 1, 8, 8), mixing).square().sum().backward()
    assert bool((supernet.alphas["cell"].grad != 0).all())
    assert relaxation.genotype(supernet) == tuple(supernet.alphas["cell"].argmax(1).tolist())


def test_alphas_of_the_template_begin_small_and_those_of_bare_paths_at_zero():
    group = Group("cell", (("a", "b"),) * 500)
    with seeded(0):
        values = TemplatePath().initial(group)
    assert float(values.std()) == pytest.approx(1e-3, rel=0.1)
    assert not UniformPath().initial(group).any()


def test_paths_of_the_template_are_uniform_whatever_the_alphas_say_and_candidates_follow_them():
    supernet, relaxation = small(), TemplatePath()
    with torch.no_grad():
        supernet.alphas["cell"][:] = torch.tensor([2.0, 0.0, 1.0, -1.0, 0.5])
    assert min(p_uniform([g[e] for g in paths(relaxation, supernet, 1000)], range(5)) for e in range(6)) > 1e-4
    with seeded(0):
        drawn = [relaxation.candidate(supernet) for _ in range(1000)]
    expected = 1000 * torch.softmax(supernet.alphas["cell"], 1)[0].double().detach().numpy()
    for edge in range(6):
        counts = Counter(genotype[edge] for genotype in drawn)
        assert stats.chisquare([counts[i] for i in range(5)], expected * 1000 / expected.sum()).pvalue > 1e-4


def test_candidates_of_the_template_keep_to_the_windows():
    supernet = small()
    window = CostWindow("convolutions", convolutions, high=2.0)
    with torch.no_grad():
        supernet.alphas["cell"][:, 3] = 1.0
    with seeded(0):
        assert max(convolutions(TemplatePath((window,)).candidate(supernet)) for _ in range(30)) <= 2.0
        supernet.alphas["cell"].data[:, 3] = 50.0
        with pytest.raises(OptionError, match="drawn from the alphas lies within"):
            TemplatePath((window,)).candidate(supernet)


# ------------------------------------------------------------------------------------------------- presets, and resume


PRESETS = {
    "random_ws": {"n": 6, "recalibration": 2},
    "spos": {"batch_size": 32, "population": 6, "generations": 2, "recalibration": 2},
    "setn": {"n": 6, "recalibration": 2},
    "enas": {"n": 4, "recalibration": 2, "steps": 2, "samples": 3, "hidden": 16},
}


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("name", PRESETS)
def test_a_resumed_search_equals_an_uninterrupted_one_bit_for_bit(name, parts, tmp_path):
    plan = replace(get_plan(name, **PRESETS[name]), batch_size=32).lasting(3)
    whole = run_supernet_search("nasbench201", *parts, plan, build=BUILD)

    def stop(row):
        if row["epoch"] == 2:
            raise Interrupted

    path = tmp_path / "search.pt"
    with pytest.raises(Interrupted):
        run_supernet_search("nasbench201", *parts, plan, build=BUILD, checkpoint=path, on_epoch=stop)
    for _ in range(2):  # in its midst, and when it was over already
        resumed = run_supernet_search("nasbench201", *parts, plan, build=BUILD, checkpoint=path)
        assert (resumed.genotype, resumed.history) == (whole.genotype, whole.history)
        states = whole.supernet.state_dict(), resumed.supernet.state_dict()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_constants_of_the_papers():
    spos, enas = get_plan("spos"), get_plan("enas")
    assert (spos.batch_size, spos.weights.learning_rate, spos.weights.schedule) == (1024, 0.5, "linear")
    assert (spos.weights.weight_decay, spos.label_smoothing) == (4e-5, 0.1)
    assert (spos.selection.population, spos.selection.generations, spos.selection.parents) == (50, 20, 10)
    assert get_plan("spos", batch_size=128).weights.learning_rate == 0.0625
    steps = enas.relaxation.steps
    assert (steps.steps, steps.samples, steps.learning_rate, steps.entropy_weight) == (30, 10, 0.0035, 1e-4)
    assert (steps.hidden, steps.bound, steps.temperature, steps.baseline_momentum) == (100, 2.5, 5.0, 0.99)
    assert (enas.weights.learning_rate, enas.weights.final_learning_rate, enas.epochs) == (0.05, 0.0005, 150)
    assert get_plan("random_ws").selection.n == get_plan("setn").selection.n == 100


# ------------------------------------------------------------------------------------ shared weights rank architectures


OPTIONS = ("pool", "skip", "convolution")


def block(name, channels, stride):
    if name == "pool":
        return nn.AvgPool2d(3, 1, 1)
    if name == "skip":
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())


class ThreeBlocks(SearchSpace):
    name, reference, choices = "three_blocks", "none: for this test", (3, 3, 3)

    def build(self, genotype, *, n_classes=10, in_channels=3):
        blocks = [block(OPTIONS[gene], 8, 1) for gene in genotype]
        stem = nn.Sequential(nn.Conv2d(in_channels, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, n_classes))

    def format(self, genotype):
        return "-".join(OPTIONS[gene] for gene in genotype)

    def parse(self, text):
        return tuple(map(OPTIONS.index, text.split("-")))


class ThreeBlocksSupernet(MixedSupernet):
    def __init__(self, space, *, n_classes, in_channels, allowed=None):
        super().__init__(space, [Group("blocks", (OPTIONS,) * 3)], allowed)
        self.stem = nn.Sequential(nn.Conv2d(in_channels, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.blocks = nn.ModuleList(MixedEdge(("blocks", row), OPTIONS, block, channels=8) for row in range(3))
        self.head = nn.Linear(8, n_classes)

    def forward(self, inputs, mixing):
        x = self.stem(inputs)
        for mixed in self.blocks:
            x = mixed(x, mixing)
        return self.head(x.mean((2, 3)))

    def derive(self, strengths):
        return tuple(strengths["blocks"].argmax(1).tolist())

    def chosen(self, genotype):
        return {"blocks": torch.eye(3)[list(genotype)]}


def trained_alone(space, genotype, task, epochs):
    with seeded(sum(3**i * gene for i, gene in enumerate(genotype))):
        model = space.build(genotype)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for epoch in range(epochs):
        for images, labels in task.train_batches(epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return task.evaluate(model)["accuracy"]


@pytest.mark.slow
def test_rank_correlation_to_networks_trained_alone_is_above_a_half(monkeypatch):
    monkeypatch.setitem(supernets._entries, "three_blocks", ThreeBlocksSupernet)
    task = ImageTask(*three_way_split(get_data("digits", size=8), valid_fraction=0.5))
    space = ThreeBlocks()
    plan = SearchPlan(
        relaxation=UniformPath(),
        architect=None,
        stages=(Stage(epochs=25),),
        selection=BestOf(n=27, recalibration=5),
        weights=WeightSteps(learning_rate=0.1),
    )
    with SearchSession(space, task, plan) as session:
        while not session.ended:
            session.next_epoch()
        evaluator = PathEvaluator(session, recalibration=5)
        shared = [evaluator.accuracy(genotype) for genotype in space.genotypes()]
        found = plan.selection.select(session)
    alone = [trained_alone(space, genotype, task, 4) for genotype in space.genotypes()]
    assert stats.spearmanr(shared, alone).statistic > 0.5
    everything = list(space.genotypes())
    assert found == everything[int(np.argmax(shared))]
    assert alone[everything.index(found)] > np.median(alone)
