"""P-DARTS: stages, the dropout behind skips, and how many skips remain."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch

from naswot.data import get_data
from naswot.differentiable.plan import AlphaSteps, Hook, SearchPlan, Stage
from naswot.differentiable.preset import get_plan
from naswot.differentiable.progressive import RestrictSkips, SkipDropoutDecay, skip_dropout, skips_taken
from naswot.differentiable.relaxations import Softmax
from naswot.differentiable.searching import run_supernet_search
from naswot.differentiable.session import SearchSession
from naswot.differentiable.tasks import ImageTask
from naswot.errors import OptionError
from naswot.seeding import seeded
from naswot.space import get_space
from naswot.spaces.darts import EDGES
from naswot.supernet import Mixing, make_supernet
from naswot.supernets._edges import MixedEdge
from naswot.training.splits import three_way_split


@pytest.fixture(scope="module")
def parts():
    return three_way_split(get_data("digits").subset(range(80)), valid_fraction=0.5)


def probabilities(session):
    return {module.skip_dropout for module in session.supernet.modules() if isinstance(module, MixedEdge)}


def small(plan, **options):
    """The same method, small enough for seconds."""
    stages = tuple(replace(stage, more_cells=n // 2) for n, stage in enumerate(plan.stages))
    return replace(plan, stages=stages, batch_size=32, **options)


# --------------------------------------------------------------------------------------------------------------- stages


def test_the_published_constants():
    plan = get_plan("p_darts")
    wanted = [(25, 10, 0, 5, 0.1), (25, 10, 6, 3, 0.4), (25, 10, 12, None, 0.7)]
    assert [(s.epochs, s.warmup, s.more_cells, s.keep, s.skip_dropout) for s in plan.stages] == wanted
    assert (plan.batch_size, plan.build, plan.selection) == (96, (("n_cells", 5),), RestrictSkips(2))
    assert (plan.weights.learning_rate, plan.weights.final_learning_rate) == (0.025, 0.0)
    assert (plan.alphas.learning_rate, plan.alphas.weight_decay, plan.alphas.clip_norm) == (6e-4, 1e-3, 5.0)
    other = get_plan("p_darts", skip_dropout=(0.0, 0.4, 0.7), max_skips=3)
    assert other.stages[0].skip_dropout == 0.0
    assert other.selection == RestrictSkips(3)


@pytest.mark.slow
def test_stages_have_5_11_and_17_cells_of_8_5_and_3_operations_of_which_one_is_taken(parts):
    plan = replace(get_plan("p_darts"), batch_size=40)
    plan = replace(plan, stages=tuple(replace(stage, epochs=1, warmup=1) for stage in plan.stages))
    with SearchSession(get_space("darts"), ImageTask(*parts, batch_size=40), plan, build={"width": 2}) as session:
        cells, operations, seen = [], [], []
        for number in range(3):
            if number:
                session.epoch = number
                session._end_stage()
            net = session.supernet
            cells.append(len(net.cells))
            operations.append([net.allowed(kind).sum(1).tolist() for kind in ("normal", "reduce")])
            assert {len(m.operations) for m in net.modules() if isinstance(m, MixedEdge)} == {(8, 5, 3)[number]}
            seen.append([alpha.detach().clone() for alpha in net.architecture_parameters()])
            for alpha in net.architecture_parameters():
                alpha.data.normal_()
        taken = net.chosen(net.derive(session.relaxation.expected(net)))
    assert cells == [5, 11, 17]
    assert operations == [[[n] * 14] * 2 for n in (8, 5, 3)]
    assert [int(table.sum()) for table in taken.values()] == [8, 8]
    assert all(float(table.sum(1).max()) == 1.0 for table in taken.values())
    assert all((table.bool() <= net.allowed(kind)).all() for kind, table in taken.items())
    assert all(alpha.abs().max() < 0.01 for alphas in seen for alpha in alphas)  # small again in each stage
    assert len({float(alphas[0][0, 0]) for alphas in seen}) == 3  # and others


def test_operations_that_are_kept_are_the_strongest_of_those_that_were_there(parts):
    plan = SearchPlan(stages=tuple(Stage(epochs=1, keep=keep) for keep in (3, 2, None)), alphas=AlphaSteps(every=99))
    with SearchSession(get_space("nasbench201"), ImageTask(*parts, batch_size=32), plan, build=TINY) as session:
        session.supernet.alphas["cell"].data.copy_(torch.tensor([1.0, 5.0, 3.0, 2.0, 4.0]).expand(6, 5))
        session.epoch = 1
        session._end_stage()
        assert session.supernet.allowed("cell").tolist() == [[False, True, True, False, True]] * 6
        # the largest alpha is that of an option which is gone: it must not come back
        session.supernet.alphas["cell"].data.copy_(torch.tensor([1.0, 3.0, 2.0, 9.0, 4.0]).expand(6, 5))
        session.epoch = 2
        session._end_stage()
        assert session.supernet.allowed("cell").tolist() == [[False, True, False, False, True]] * 6


TINY = {"width": 4, "n_cells": 1}


def test_weights_alphas_and_optimizers_begin_anew_and_alphas_wait_in_each_stage(parts):
    stages = (Stage(epochs=2, warmup=1, keep=3), Stage(epochs=2, warmup=1))
    with SearchSession(
        get_space("nasbench201"), ImageTask(*parts, batch_size=32), SearchPlan(stages=stages), build=TINY
    ) as session:
        moved, rates = [], []
        for epoch in range(4):
            before = session.supernet.alphas["cell"].detach().clone() if epoch % 2 else None
            rates.append(session.next_epoch()["learning_rate"])
            alphas = session.supernet.alphas["cell"]
            moved.append(bool(session.alpha_optimizer.state) if before is None else not torch.equal(before, alphas))
    assert moved == [False, True, False, True]
    assert rates[:2] == rates[2:]


@dataclass(frozen=True)
class Recorded(Softmax):
    """Remembers how long the gradient of the alphas was that the optimizer got."""

    seen: list

    def before_step(self, supernet):
        self.seen.append(float(supernet.alphas["cell"].grad.norm()))

    def __deepcopy__(self, memo):
        return self


def test_gradients_of_the_alphas_are_clipped_at_five(parts):
    class Loud(ImageTask):
        def loss(self, supernet, mixing, batch):
            return 1e4 * super().loss(supernet, mixing, batch)

    lengths = []
    for task in (ImageTask, Loud):
        plan = replace(get_plan("p_darts"), relaxation=Recorded([]), stages=(Stage(epochs=1),))
        with SearchSession(get_space("nasbench201"), task(*parts, batch_size=40), plan, build=TINY) as session:
            session.next_epoch()
        lengths += plan.relaxation.seen
    assert lengths[0] < 1.0
    assert lengths[1] == pytest.approx(5.0, rel=1e-5)


# ------------------------------------------------------------------------------------------- dropout behind skips


def test_skip_dropout_falls_along_a_line_in_the_warm_up_and_exponentially_from_the_start_again_afterwards():
    stage = get_plan("p_darts").stages[1]
    found = [skip_dropout(stage, epoch) for epoch in range(25)]
    assert found[:10] == pytest.approx([0.4 * (24 - epoch) / 25 for epoch in range(10)])
    assert found[10] == 0.4
    assert found[15] == pytest.approx(0.4 * math.exp(-1.0))
    assert found[24] == pytest.approx(0.4 * math.exp(-2.8))


def test_skip_dropout_is_set_in_each_epoch_of_each_stage(parts):
    seen = []

    @dataclass(frozen=True)
    class Watch(Hook):
        def after_epoch(self, session):
            (value,) = probabilities(session)
            seen.append(value)

    stages = (Stage(epochs=3, warmup=1, skip_dropout=0.1), Stage(epochs=2, warmup=1, skip_dropout=0.7))
    plan = SearchPlan(stages=stages, hooks=(SkipDropoutDecay(), Watch()), batch_size=32)
    run_supernet_search("nasbench201", *parts, plan, build=TINY)
    decay = math.exp(-0.2)
    assert seen == pytest.approx([0.1 * 2 / 3, 0.1, 0.1 * decay, 0.7 / 2, 0.7])


def only(column):
    """The mixing at which nothing but one operation of the DARTS space is executed on every edge."""
    table = torch.eye(8)[torch.full((14,), column)]
    active = ((column,),) * 14
    return Mixing({"normal": table, "reduce": table}, {"normal": active, "reduce": active})


def test_only_identities_are_dropped_and_in_training_only():
    with seeded(0):
        net = make_supernet("darts", width=4, n_cells=3)
    edge, halving = net.cells[0].edges[0], net.cells[1].edges[0]
    assert (edge.stride, halving.stride) == (1, 2)

    def run(edge, column, probability):
        edge.skip_dropout = probability
        with seeded(1):
            x = torch.rand(4, edge.operations["4"][1].in_channels, 6, 6)
            return x, edge(x, only(column))

    x, dropped = run(edge.train(), 3, 0.5)
    zeros = dropped == 0.0
    assert 0.4 < zeros.float().mean() < 0.6
    assert torch.equal(dropped[~zeros], 2.0 * x[~zeros])
    assert torch.equal(run(edge.eval(), 3, 0.5)[1], x)
    edge.train()
    assert torch.equal(run(edge, 4, 0.5)[1], run(edge, 4, 0.0)[1])  # a convolution
    assert torch.equal(run(halving, 3, 0.5)[1], run(halving, 3, 0.0)[1])  # a skip that halves is no identity


# ---------------------------------------------------------------------------------------------------------- fewer skips


def session_at(strengths, space="darts", **options):
    """What a selection looks at, when the search is over."""
    with seeded(0):
        net = make_supernet(space, width=4, n_cells=1, **options)
    for name, table in strengths.items():
        net.alphas[name].data.copy_(table.clamp(min=1e-9).log())
    return SimpleNamespace(supernet=net, relaxation=Softmax(), go_to_result=lambda: None)


def skip_heavy():
    """Skips lead on every edge of both kinds of cells, by different strengths; the second is sep_conv_3x3."""
    table = torch.full((14, 8), 0.01)
    table[:, 3] = torch.arange(14) * 0.02 + 0.5
    table[:, 4] = 0.2
    return {"normal": table / table.sum(1, keepdim=True), "reduce": table / table.sum(1, keepdim=True)}


@pytest.mark.parametrize("limit", [0, 1, 2, 5, 8])
def test_the_normal_cell_has_at_most_so_many_skips_and_the_other_as_many_as_it_has(limit):
    session = session_at(skip_heavy())
    net = session.supernet
    genotype = RestrictSkips(limit).select(session)
    normal, reduce = net.operation_groups
    assert len(skips_taken(net, normal, genotype)) == limit
    assert len(skips_taken(net, reduce, genotype)) == 8
    plain = net.derive(session.relaxation.expected(net))
    assert len(skips_taken(net, normal, plain)) == 8
    assert (genotype == plain) == (limit == 8)


def test_the_weakest_of_the_skips_that_are_taken_go_first_and_edges_are_ranked_anew():
    # Rows 0, 1 lead to node 2 and rows 2, 3, 4 to node 3, which takes 2 and 3 at first. When the skip of row 2, the
    # weakest, is struck, its convolution of 0.3 is weaker than that of row 4. Nodes 4 and 5 take no skips.
    table = torch.full((14, 8), 0.001)
    table[:, 4] = 0.3
    table[:4, 3] = torch.tensor([0.6, 0.55, 0.4, 0.5])
    table[4, 4] = 0.35
    table[5:, 5] = 0.6
    table[:, 0] = 1.0 - table[:, 1:].sum(1)
    session = session_at({"normal": table})
    net = session.supernet
    group = net.operation_groups[0]
    rows = []
    for limit in (4, 3, 2, 1, 0):
        genotype = RestrictSkips(limit).select(session)
        rows.append([row for row, _ in skips_taken(net, group, genotype)])
    assert rows == [[0, 1, 2, 3], [0, 1, 3], [0, 1], [0], []]
    taken = [
        {
            row
            for row, _ in net.chosen(RestrictSkips(limit).select(session))["normal"].nonzero().tolist()
            if row in (2, 3, 4)
        }
        for limit in (4, 3)
    ]
    assert taken == [{2, 3}, {3, 4}]


def test_the_supernet_and_its_alphas_stay_as_they_are():
    session = session_at(skip_heavy())
    tables = {name: table.clone() for name, table in skip_heavy().items()}
    session.relaxation = SimpleNamespace(expected=lambda net: tables)  # not a copy, as a relaxation may give
    before = session.supernet.alphas["normal"].detach().clone()
    RestrictSkips(0).select(session)
    assert torch.equal(before, session.supernet.alphas["normal"])
    assert torch.equal(tables["normal"], skip_heavy()["normal"])


def test_options_that_are_gone_do_not_come_back_in_the_place_of_skips():
    allowed = torch.zeros(14, 8, dtype=torch.bool)
    allowed[:, [0, 3, 6]] = True
    session = session_at(skip_heavy(), allowed={"normal": allowed})
    genotype = RestrictSkips(2).select(session)
    names = {name for name, _ in session.supernet.space.cells(genotype)[0].edges}
    assert names == {"skip_connect", "dil_conv_3x3"}
    assert len(skips_taken(session.supernet, session.supernet.operation_groups[0], genotype)) == 2


def test_edges_that_have_nothing_but_a_skip_end_the_striking():
    allowed = torch.zeros(14, 8, dtype=torch.bool)
    allowed[:, 3] = True
    allowed[[row for row, (_, node) in enumerate(EDGES) if node == 5], 4] = True  # only node 5 has something else
    session = session_at(skip_heavy(), allowed={"normal": allowed})
    genotype = RestrictSkips(0).select(session)
    assert len(skips_taken(session.supernet, session.supernet.operation_groups[0], genotype)) == 6


def test_a_space_of_one_kind_of_cell_is_restricted_too():
    table = torch.full((6, 5), 0.1)
    table[:, 1] = 0.5
    table[:, 3] = 0.2
    session = session_at({"cell": table}, "nasbench201")
    assert session.supernet.derive(session.relaxation.expected(session.supernet)) == (1,) * 6
    assert sorted(RestrictSkips(2).select(session)) == [1, 1, 3, 3, 3, 3]


def test_the_alphas_of_the_epoch_that_counts_are_looked_at():
    session = session_at(skip_heavy())
    alphas = session.supernet.alphas["normal"].data

    def go():
        alphas[:, 3] = -9.0  # there the skips were weak

    session.go_to_result = go
    genotype = RestrictSkips(8).select(session)
    assert not skips_taken(session.supernet, session.supernet.operation_groups[0], genotype)


def test_a_negative_limit_is_refused():
    with pytest.raises(OptionError, match="limit of at least 0 skips, but got -1"):
        RestrictSkips(-1)


# ------------------------------------------------------------------------------------------------------- whole searches


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def whole(parts):
    plan = small(get_plan("p_darts").lasting(5))
    assert [stage.epochs for stage in plan.stages] == [
        2,
        1,
        2,
    ]  # borders after epochs 2 and 3, fewer operations after 3
    return plan, run_supernet_search("nasbench201", *parts, plan, build=TINY)


@pytest.mark.parametrize("after", [1, 4])
def test_resume_equals_uninterrupted_over_the_border_of_a_stage(parts, whole, tmp_path, after):
    def interrupt(row):
        if row["epoch"] == after:
            raise Interrupted

    plan, result = whole
    path = tmp_path / "search.pt"
    with pytest.raises(Interrupted):
        run_supernet_search("nasbench201", *parts, plan, build=TINY, checkpoint=path, on_epoch=interrupt)
    rows = []
    resumed = run_supernet_search("nasbench201", *parts, plan, build=TINY, checkpoint=path, on_epoch=rows.append)
    assert [row["epoch"] for row in rows] == list(range(after + 1, 6))
    assert resumed.history == result.history
    assert resumed.arch == result.arch
    first, second = result.supernet.state_dict(), resumed.supernet.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [row["stage"] for row in result.history] == [0, 0, 1, 2, 2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["p_darts", "p_darts_rs", "p_darts_adv"])
def test_the_presets_search_the_darts_space(parts, name):
    plan = small(get_plan(name).lasting(3))
    result = run_supernet_search("darts", *parts, plan, build={"width": 4, "n_cells": 3})
    net = result.supernet
    assert {len(m.operations) for m in net.modules() if isinstance(m, MixedEdge)} == {3}
    assert len(net.cells) == 4
    assert len(skips_taken(net, net.operation_groups[0], result.genotype)) <= 2
