"""Selections: by what a supernet loses, by scores of operations, of near-ties and of epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product

import pytest
import torch

from naswot import measure
from naswot.data import get_data
from naswot.data.images import ImageSet
from naswot.differentiable import score_guided, zero_cost_selection
from naswot.differentiable._untrained import untrained_scores
from naswot.differentiable.decisions import Edge, Settled, decisions_of
from naswot.differentiable.perturbation_selection import PerturbationSelection, rounds_of, settle
from naswot.differentiable.plan import AlphaSteps, Hook, Magnitude, SearchPlan, Selection, Stage, WeightSteps
from naswot.differentiable.preset import get_plan
from naswot.differentiable.relaxations import Softmax
from naswot.differentiable.score_guided import Pick, ScoreGuided, alternatives, largest_products
from naswot.differentiable.searching import run_search_of, run_supernet_search
from naswot.differentiable.session import SearchSession
from naswot.differentiable.tasks import ImageTask
from naswot.differentiable.zero_cost_selection import BestScoredEpoch, ZeroCostPerturbation
from naswot.errors import InputError, OptionError
from naswot.proxy import get_proxy
from naswot.seeding import derive_seed, numpy_generator, seeded, torch_generator
from naswot.space import get_space
from naswot.supernet import Group, MixedSupernet, list_supernets, make_supernet
from naswot.testing.toy_space import ToySpace
from naswot.training.splits import three_way_split
from naswot.types import Batch

BUILD = {"width": 4, "n_cells": 1}
USELESS, USEFUL, HARMFUL = range(3)
FLOPS = get_proxy("flops")


@pytest.fixture(scope="module")
def parts():
    few = get_data("digits").subset(torch.arange(256))
    return three_way_split(few, valid_fraction=0.5)


# --------------------------------------------------------------------------------------- a supernet whose alphas lie


class PlantedSupernet(MixedSupernet):
    """Three rows; each can tell one class from its channel (useful), or a constant, or the opposite.

    Each logit is normalised, so that it does not matter how small the weight of the useful operation is.
    """

    def __init__(self, space):
        super().__init__(space, [Group("rows", (("useless", "useful", "harmful"),) * 3)])
        self.gain = torch.nn.Parameter(torch.ones(4))
        self.norm = torch.nn.BatchNorm1d(4, affine=False)

    def forward(self, inputs, mixing):
        means = inputs.mean(dim=(2, 3))
        terms = [
            row[USELESS] + (row[USEFUL] - 0.05 * row[HARMFUL]) * means[:, i]
            for i, row in enumerate(mixing.weights["rows"])
        ]
        return self.gain * self.norm(torch.stack([*terms, means[:, 3]], dim=1))

    def derive(self, strengths):
        return tuple(self.takeable(strengths, "rows").argmax(1).tolist())

    def chosen(self, genotype):
        return {"rows": torch.eye(3)[list(genotype)]}


@dataclass(frozen=True)
class Lie(Hook):
    """Gives the useless operations the largest alphas."""

    def begin_stage(self, session):
        session.supernet.alphas["rows"].data.copy_(torch.tensor([[3.0, 0.0, -1.0]] * 3))


LYING = SearchPlan(
    hooks=(Lie(),),
    stages=(Stage(epochs=2),),
    batch_size=32,
    weights=WeightSteps(learning_rate=1e-3, final_learning_rate=1e-4),
    alphas=AlphaSteps(learning_rate=1e-3),
)


@pytest.fixture
def planted(monkeypatch):
    """Space and task of the planted supernet, which is what a session of that space builds."""
    images = torch.randn(256, 4, 2, 2, generator=torch_generator(0))
    labels = images.mean(dim=(2, 3)).argmax(1)
    train, valid = (
        ImageSet("planted", x, y, 4, (0.0,) * 4, (1.0,) * 4)
        for x, y in zip(images.split(128), labels.split(128), strict=True)
    )
    monkeypatch.setattr("naswot.differentiable.session.make_supernet", lambda space, **_: PlantedSupernet(space))
    return ToySpace((3, 3, 3)), ImageTask(train, valid, batch_size=32)


@pytest.mark.parametrize("criterion", ["accuracy", "loss"])
def test_perturbation_finds_the_useful_operations_where_the_alphas_lie_and_magnitude_does_not(planted, criterion):
    space, task = planted
    by_weight = run_search_of(space, task, replace(LYING, selection=Magnitude()))
    by_loss = run_search_of(space, task, replace(LYING, selection=PerturbationSelection(1, criterion)))
    assert by_weight.genotype == (USELESS,) * 3
    assert by_loss.genotype == (USEFUL,) * 3
    assert by_weight.history == by_loss.history


def test_without_training_in_between_the_supernet_stays_and_alphas_learn_only_if_asked(planted):
    space, task = planted
    moved = {}
    for name, how in (
        ("plain", Magnitude()),
        ("none", PerturbationSelection(epochs_between=0)),
        ("weights", PerturbationSelection(epochs_between=1, learns_alphas=False)),
        ("both", PerturbationSelection(epochs_between=1)),
    ):
        moved[name] = run_search_of(space, task, replace(LYING, selection=how)).supernet.state_dict()
    same = {name: {k for k, v in state.items() if torch.equal(v, moved["plain"][k])} for name, state in moved.items()}
    assert same["none"] == same["plain"]
    assert "alphas.rows" in same["weights"]
    assert "gain" not in same["weights"]
    assert "alphas.rows" not in same["both"]


def test_between_decisions_only_what_is_decided_is_executed_and_the_rest_keeps_its_weights(planted):
    space, task = planted
    seen = []

    class Watched(ImageTask):
        def loss(self, supernet, mixing, batch):
            if supernet.training:
                seen.append((mixing.weights["rows"].detach().clone(), mixing.active))
            return super().loss(supernet, mixing, batch)

    watched = Watched(*task._sets, batch_size=32)
    how = PerturbationSelection(epochs_between=1, learns_alphas=False)
    run_search_of(space, watched, replace(LYING, architect=None, selection=how))
    assert len(seen) == (2 + 2) * 4  # epochs of the search, then two pauses
    (before, none), (one, first), (two, second) = seen[7], seen[8], seen[12]
    assert none is None
    assert len([row for row in first["rows"] if row == (USEFUL,)]) == 1
    assert len([row for row in second["rows"] if row == (USEFUL,)]) == 2
    for table, active in ((one, first), (two, second)):
        for row, options in enumerate(active["rows"]):
            decided = options == (USEFUL,)
            assert torch.equal(table[row], torch.eye(3)[USEFUL] if decided else before[row])


def test_tuning_starts_at_a_tenth_of_the_learning_rate_and_falls_along_a_cosine(planted, monkeypatch):
    space, task = planted
    rates = []
    step = SearchSession.step

    def watched(session, batch, number):
        rates.append(session.weight_optimizer.param_groups[0]["lr"])
        return step(session, batch, number)

    monkeypatch.setattr(SearchSession, "step", watched)
    plan = replace(LYING, weights=WeightSteps(learning_rate=1.0, final_learning_rate=0.02))
    run_search_of(space, task, replace(plan, selection=PerturbationSelection(epochs_between=2)))
    assert rates[8::4] == pytest.approx([0.02 + 0.04 * (1 + math.cos(math.pi * i / 4)) for i in range(4)])


def test_the_session_is_as_it_was_but_for_the_tuned_supernet(planted):
    space, task = planted
    plan = replace(LYING, selection=PerturbationSelection(epochs_between=1))
    with SearchSession(space, task, plan) as session:
        while not session.ended:
            session.next_epoch()
        before = session.plan, session.relaxation, session.epoch, session.weight_optimizer
        plan.selection.select(session)
        assert (session.plan, session.relaxation, session.epoch, session.weight_optimizer) == before
        assert session.result_epoch == 2


def test_a_resumed_search_selects_what_an_uninterrupted_one_does(parts, tmp_path):
    plan = replace(get_plan("darts_pt", epochs_between=1).lasting(2), batch_size=32)
    first = run_supernet_search("nasbench201", *parts, plan, build=BUILD)

    class Interrupted(Exception):
        pass

    path = tmp_path / "search.pt"

    def stop(row):
        if row["epoch"] == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        run_supernet_search("nasbench201", *parts, plan, build=BUILD, checkpoint=path, on_epoch=stop)
    resumed = run_supernet_search("nasbench201", *parts, plan, build=BUILD, checkpoint=path)
    assert resumed.genotype == first.genotype
    mine, wanted = resumed.supernet.state_dict(), first.supernet.state_dict()
    assert all(torch.equal(mine[name], wanted[name]) for name in wanted)


def test_a_search_that_went_back_is_selected_from_the_state_it_went_back_to(planted):
    space, task = planted
    gains = []

    @dataclass(frozen=True)
    class GoBack(Hook):
        returns = 1

        def after_epoch(self, session):
            gains.append(session.supernet.gain.detach().clone())
            if session.epoch == 2:
                session.stop("enough", epoch=1)

    how = PerturbationSelection(epochs_between=0)
    back = run_search_of(space, task, replace(LYING, hooks=(Lie(), GoBack()), selection=how))
    assert back.epoch == 1
    assert torch.equal(back.supernet.gain, gains[0])
    assert not torch.equal(gains[0], gains[1])


def test_batch_statistics_judge_and_running_ones_are_left_alone(planted):
    space, task = planted
    with SearchSession(space, task, replace(LYING, selection=PerturbationSelection())) as session:
        useless = torch.tensor([-100.0, 0.0, 0.0, 0.0])
        session.supernet.norm.running_mean.copy_(useless)  # a model in evaluation mode would tell class 0 only
        mixing = Settled(decisions_of(session.supernet)).mixing(Softmax().expected(session.supernet))
        worth = session.plan.selection._worth(session, mixing)
        assert worth[0] > 90.0
        assert task.evaluate(session.supernet.at(mixing))["accuracy"] < 60.0
        assert torch.equal(session.supernet.norm.running_mean, useless)


# ----------------------------------------------------------------------------------------------------- order and rule


def judged(worth, supernet):
    """What a mixture is worth: the sum of planted worths by weight."""
    return lambda mixing: (sum(float((mixing.weights[name] * table).sum()) for name, table in worth.items()),)


@pytest.mark.parametrize("name", list_supernets())
def test_of_planted_worths_the_best_operations_and_edges_are_kept(name):
    options = {"mobilenet": {}, "ptb_rnn": {"width": 4, "n_classes": 7}}.get(name, {"width": 6, "n_cells": 1})
    supernet = make_supernet(name, **options)
    found = decisions_of(supernet)
    rng = torch_generator(4)
    groups = {group.name: group for group in found.groups}
    worth = {n: torch.rand(g.shape, generator=rng) + 0.1 for n, g in groups.items()}
    weights = {n: g.present().float() / g.present().sum(1, keepdim=True) for n, g in groups.items()}
    settled = Settled(found)
    for places in rounds_of(settled, 0):
        for place in places:
            settle(settled, place, weights, judged(worth, supernet))
    chosen = supernet.chosen(settled.genotype(supernet))
    # by hand: the option of largest worth of each row, the edges of largest worth of each node
    own = {
        (n, r): max(o, key=lambda i: worth[n][r, i]) for n, rows in found.options.items() for r, o in enumerate(rows)
    }
    for (group, row), option in own.items():
        taken = chosen[group][row].nonzero()[:, 0].tolist()
        assert taken in ([option], [])
    for node in found.nodes:
        value = {
            e: float(worth[e.group][e.row, own[e.group, e.row] if e.option is None else e.option]) for e in node.edges
        }
        kept = set(sorted(node.edges, key=lambda e: -value[e])[: node.n_kept])
        there = {e for e in node.edges if chosen[e.group][(e.row,) if e.option is None else (e.row, e.option)].any()}
        assert there in (kept, set())
        assert there or name.startswith("nasbench1shot1")


def test_ties_go_to_the_first_option_and_the_first_edges():
    supernet = make_supernet("robustdarts_s2", **BUILD)
    settled = Settled(decisions_of(supernet))
    for places in rounds_of(settled, 0):
        for place in places:
            settle(settled, place, {g.name: g.present().float() for g in supernet.groups}, lambda mixing: (1.0,))
    assert set(settled.taken.values()) == {0}
    assert {edge.row for edge in settled.dropped} == {4, 7, 8, 11, 12, 13}


def test_rows_come_in_an_order_of_the_seed_one_of_each_group_and_the_nodes_after_them():
    supernet = make_supernet("darts", **BUILD, allowed={"normal": torch.eye(8)[[3] * 14]})
    orders = []
    for seed in (0, 0, 1):
        settled = Settled(decisions_of(supernet))
        orders.append(rounds_of(settled, seed))
        assert {option for (group, _), option in settled.taken.items() if group == "normal"} == {3}
        assert len(settled.taken) == 14  # nothing to choose in the normal cell
    assert orders[0] == orders[1]
    rows, nodes = orders[0][:14], orders[0][14:]
    assert len({str(order[:14]) for order in (*orders, sorted(rows) + nodes)}) == 3
    assert orders[0][14:] != orders[2][14:]
    assert sorted(place for places in rows for place in places) == [("reduce", row) for row in range(14)]
    assert [len(places) for places in nodes] == [2, 2, 2]


def test_perturbation_is_refused_where_a_mixture_means_nothing_and_for_impossible_options():
    gdas = get_plan("gdas")
    with pytest.raises(OptionError, match=r"PerturbationSelection looks at the mixture of all options, which means"):
        replace(gdas, selection=PerturbationSelection())
    with pytest.raises(OptionError, match=r"but got -1 and 0\.1"):
        PerturbationSelection(epochs_between=-1)
    with pytest.raises(OptionError, match="'accuracy' or 'loss', but got 'f1'"):
        PerturbationSelection(criterion="f1")


def test_presets_have_the_constants_of_the_papers():
    assert PerturbationSelection() == PerturbationSelection(5, "accuracy", 0.1, True)
    assert get_plan("darts_pt") == SearchPlan(selection=PerturbationSelection(5, "accuracy", 0.1, True))
    zero = get_plan("zero_cost_pt")
    assert zero.selection == ZeroCostPerturbation("naswot", proposals=10, validations=100)
    assert zero.epochs == zero.lasting(7).epochs == 0


# -------------------------------------------------------------------------------------------------- zero-cost selection


class NothingIsTrained(ImageTask):
    def train_batches(self, epoch):
        raise AssertionError("a batch to train by")

    def loss(self, supernet, mixing, batch):
        raise AssertionError("a loss")


def test_zero_cost_selection_trains_nothing_and_keeps_what_costs_most_score(parts):
    task = NothingIsTrained(*parts, batch_size=16)
    found = run_search_of("nasbench201", task, get_plan("zero_cost_pt", proxy="flops", proposals=2), build=BUILD)
    assert found.genotype == (3,) * 6  # the 3x3 convolutions, without which most operations are lost
    assert (found.history, found.epoch, found.stopped) == ((), 0, None)


def test_zero_cost_selection_takes_the_proposal_of_best_mean_score_over_the_validations(parts, monkeypatch):
    space, task = get_space("nasbench201"), ImageTask(*parts, batch_size=16)
    given = [(3, 3, 3, 3, 3, 3), (1, 2, 3, 1, 2, 3), (3, 3, 3, 3, 3, 3), (2, 2, 0, 2, 1, 2)]
    how = ZeroCostPerturbation(validations=3)
    monkeypatch.setattr(ZeroCostPerturbation, "proposed", lambda self, session: iter(given))
    batches = []

    def scored(*args, **options):
        batches.extend(float(batch.inputs.sum()) for batch in options["batches"])
        return untrained_scores(*args, **options)

    monkeypatch.setattr(zero_cost_selection, "untrained_scores", scored)
    with SearchSession(
        space, task, SearchPlan(architect=None, stages=(Stage(epochs=0),), selection=how), build=BUILD, seed=4
    ) as session:
        found = how.select(session)
    means = {}
    for genotype in set(given):
        with seeded(derive_seed(4, space.format(genotype), 0)):
            model = space.build(genotype, n_classes=10, in_channels=3, width=4, n_cells=1)
        scores = [measure(model, Batch(*task.valid_batch(i)), "naswot", seed=4)["naswot"] for i in range(3)]
        means[genotype] = sum(scores) / 3
    assert len(set(means.values())) == 3
    assert found == max(means, key=means.get)
    wanted = [untrained_scores(session, [found], "naswot", batches=[Batch(*task.valid_batch(i))])[0] for i in range(3)]
    assert len(set(wanted)) == 3
    assert means[found] == pytest.approx(sum(wanted) / 3)
    assert batches == [float(task.valid_batch(i)[0].sum()) for i in range(3)]


def test_each_proposal_has_another_order_and_another_batch_for_each_decision(parts, monkeypatch):
    asked, judges, orders = [], [], []

    def ordered(settled, seed):
        orders.append(rounds_of(settled, seed))
        return orders[-1]

    monkeypatch.setattr(zero_cost_selection, "rounds_of", ordered)

    class Watched(ImageTask):
        def valid_batch(self, step):
            asked.append(step)
            return super().valid_batch(step)

    task = Watched(*parts, batch_size=16)
    how = ZeroCostPerturbation("grad_norm", proposals=3, validations=1)
    plan = SearchPlan(architect=None, stages=(Stage(epochs=0),), selection=how)
    with SearchSession(get_space("nasbench201"), task, plan, build=BUILD) as session:
        asked.clear()
        first = list(how.proposed(session))
        judges.append(list(asked))
        again = list(how.proposed(session))
    assert judges == [[0, *range(18)]]
    assert first == again
    assert len(set(first)) > 1
    assert len({str(order) for order in orders}) == 3


def test_lower_is_better_turns_the_rule(parts):
    cheap = replace(FLOPS, function=lambda seen, passes: FLOPS(seen, passes), higher_is_better=False)
    task = ImageTask(*parts, batch_size=16)
    plan = SearchPlan(architect=None, stages=(Stage(epochs=0),), selection=ZeroCostPerturbation(cheap, proposals=1))
    found = run_search_of("nasbench201", task, plan, build=BUILD)
    assert set(found.genotype) <= {0, 1, 4}
    assert found.genotype[0] == 0


def test_no_epochs_are_for_selections_that_need_none(parts):
    with pytest.raises(OptionError, match="at least one epoch each"):
        SearchPlan(stages=(Stage(epochs=0),))
    with pytest.raises(OptionError, match="at least one epoch each"):
        SearchPlan(stages=(Stage(epochs=0), Stage(epochs=0)), selection=ZeroCostPerturbation())
    with pytest.raises(OptionError, match="proposals and validations of at least 1 each, but got 0 and 100"):
        ZeroCostPerturbation(proposals=0)


# ------------------------------------------------------------------------------------------------------------ near-ties


def session_with(parts, weights, how, space="nasbench201", **build):
    """A session whose alphas tell these weights."""
    plan = SearchPlan(selection=how, batch_size=16, **({"edge_normalisation": True} if len(weights) > 2 else {}))
    session = SearchSession(get_space(space), ImageTask(*parts, batch_size=16), plan, build={**BUILD, **build}, seed=2)
    session.__enter__()
    for name, table in weights.items():
        session.supernet.alphas[name].data.copy_(table.log())
    return session


CLEAR = torch.tensor([[0.1, 0.1, 0.6, 0.1, 0.1]] * 6)


def with_rows(**rows):
    table = CLEAR.clone()
    for row, values in rows.items():
        table[int(row[1:])] = torch.tensor(values)
    return {"cell": table}


def test_clear_weights_leave_one_architecture_and_nothing_is_scored(parts, monkeypatch):
    session = session_with(parts, with_rows(), ScoreGuided(margin=0.4))
    monkeypatch.setattr(score_guided, "untrained_scores", None)
    try:
        assert session.plan.selection.select(session) == (2,) * 6
    finally:
        session.__exit__()


def test_open_architectures_come_by_product_of_weights_and_the_limit_cuts_the_smallest(parts):
    rows = with_rows(r1=(0.05, 0.05, 0.1, 0.38, 0.42), r4=(0.4, 0.3, 0.1, 0.1, 0.1))
    wanted = [(2, 4, 2, 2, 0, 2), (2, 3, 2, 2, 0, 2), (2, 4, 2, 2, 1, 2), (2, 3, 2, 2, 1, 2)]
    for margin, limit, found in (
        (0.11, 9, wanted),
        (0.11, 3, wanted[:3]),
        (0.05, 9, wanted[:2]),
        (0.03, 9, wanted[:1]),
    ):
        how = ScoreGuided(margin=margin, limit=limit)
        session = session_with(parts, rows, how)
        try:
            assert how.open(session) == found
        finally:
            session.__exit__()


def test_the_best_score_wins_and_of_equal_ones_the_larger_weights(parts, monkeypatch):
    how = ScoreGuided(margin=0.11)
    session = session_with(parts, with_rows(r1=(0.05, 0.05, 0.1, 0.38, 0.42), r4=(0.4, 0.3, 0.1, 0.1, 0.1)), how)
    first, second, third, last = how.open(session)
    try:
        for scores, wanted in (
            ([1.0, 3.0, 2.0, 0.0], second),
            ([1.0, 3.0, 3.0, 3.0], second),
            ([2.0, 2.0, 2.0, 2.0], first),
            ([-math.inf, -math.inf, -math.inf, 0.0], last),
            ([-math.inf] * 4, first),
            ([0.0, -1.0, 5.0, 4.0], third),
        ):
            monkeypatch.setattr(score_guided, "untrained_scores", lambda *_, scores=scores, **__: scores)
            assert how.select(session) == wanted
    finally:
        session.__exit__()


def test_scores_are_those_of_untrained_networks_and_not_of_the_supernet(parts):
    how = ScoreGuided(margin=1.0, limit=6)
    session = session_with(parts, with_rows(r0=(0.1, 0.1, 0.3, 0.3, 0.2)), how)
    try:
        found, task, space = how.select(session), session.task, session.space
        open_ones = how.open(session)
    finally:
        session.__exit__()
    scores = []
    for genotype in open_ones:
        with seeded(derive_seed(2, space.format(genotype), 0)):
            model = space.build(genotype, width=4, n_cells=1)
        scores.append(measure(model, Batch(*task.fixed_batch()), "naswot", seed=2)["naswot"])
    assert len(open_ones) == 6
    assert len(set(scores)) == 6
    assert found == open_ones[scores.index(max(scores))]


def darts_tables(edges=None):
    """S2 of RobustDARTS: the normal cell clear but for the edges of its second node, rows 5 to 8."""
    normal, reduce = torch.tensor([[0.2, 0.8]] * 14), torch.tensor([[0.1, 0.9]] * 14)
    for row in (4, 11, 12, 13):  # the edges that are clearly left out
        normal[row] = reduce[row] = torch.tensor([0.45, 0.55])
    for row in (7, 8):
        reduce[row] = torch.tensor([0.45, 0.55])
    for row, weight in (edges or {}).items():
        normal[row] = torch.tensor([1.0 - weight, weight])
    return {"normal": normal, "reduce": reduce}


def test_edges_within_the_margin_of_one_that_they_could_replace_are_open():
    supernet = make_supernet("robustdarts_s2", **BUILD)
    tables = darts_tables({5: 0.9, 6: 0.75, 7: 0.72, 8: 0.6})
    found = decisions_of(supernet)
    sizes = {}
    for margin in (0.02, 0.05, 0.16):
        picks = alternatives(found, tables, margin, 100)
        sizes[margin] = sorted(len(own) for own in picks)
        node = next(own for own in picks if any(Edge("normal", 8) in pick.dropped for pick in own))
        kept = [sorted({5, 6, 7, 8} - {edge.row for edge in pick.dropped}) for pick in node]
        assert kept[0] == [5, 6]
        assert kept[1:] == {0.02: [], 0.05: [[5, 7]], 0.16: [[5, 7], [5, 8]]}[margin]
        assert node[0].taken == {("normal", 5): 1, ("normal", 6): 1}
        assert node[0].weight == pytest.approx(0.9 * 0.75)
    assert sizes[0.02][-1] == 1
    assert sizes[0.05][-2:] == [1, 2]


def test_weights_of_edges_count_where_the_plan_normalises_them():
    supernet = make_supernet("robustdarts_s2", **BUILD, edge_normalisation=True)
    tables = darts_tables({5: 0.9, 6: 0.75, 7: 0.74, 8: 0.6})
    scales = {name: supernet.allowed(name).float() for name in ("normal_inputs", "reduce_inputs")}
    scales = {name: table / table.sum(1, keepdim=True) for name, table in scales.items()}
    scales["normal_inputs"][2] = torch.tensor([0.1, 0.2, 0.2, 0.5, 0.0])  # node of the rows 5 to 8
    picks = alternatives(decisions_of(supernet), {**tables, **scales}, 0.01, 100)
    node = next(own for own in picks if any(Edge("normal", 5) in pick.dropped for pick in own))
    kept = [sorted({5, 6, 7, 8} - {edge.row for edge in pick.dropped}) for pick in node]
    assert kept == [[6, 8], [7, 8]]
    assert node[0].weight == pytest.approx(0.2 * 0.75 * 0.5 * 0.6)


@pytest.mark.parametrize("name", ["nasbench201", "robustdarts_s3", "nasbench1shot1_2", "ptb_rnn"])
def test_the_first_open_architecture_is_that_of_the_space_for_random_weights(name):
    options = {"ptb_rnn": {"width": 4, "n_classes": 7}}.get(name, {"width": 6, "n_cells": 1})
    supernet = make_supernet(name, **options)
    found, rng = decisions_of(supernet), torch_generator(1)
    for _ in range(5):
        tables = {g.name: torch.rand(g.shape, generator=rng) * g.present() for g in supernet.groups}
        settled = Settled(found)
        for pick in largest_products(alternatives(found, tables, 0.3, 50), 50)[0]:
            settled.taken |= pick.taken
            settled.dropped |= pick.dropped
        assert settled.genotype(supernet) == supernet.derive(tables)


def test_largest_products_are_those_of_sorting_all_of_them():
    rng = numpy_generator(0)
    choices = [[Pick(float(w)) for w in sorted(rng.random(n).round(1), reverse=True)] for n in (3, 1, 4, 2)]
    everything = sorted(product(*choices), key=lambda picks: -math.prod(pick.weight for pick in picks))
    weights = [math.prod(pick.weight for pick in picks) for picks in largest_products(choices, 100)]
    assert len(weights) == 24
    assert weights == pytest.approx([math.prod(pick.weight for pick in picks) for picks in everything])
    assert weights[:5] == [math.prod(p.weight for p in picks) for picks in largest_products(choices, 5)]
    ties = largest_products(
        [[Pick(1.0, {("a", 0): i}) for i in range(2)], [Pick(1.0, {("b", 0): i}) for i in range(2)]], 9
    )
    assert [(a.taken["a", 0], b.taken["b", 0]) for a, b in ties] == [(0, 0), (0, 1), (1, 0), (1, 1)]


# --------------------------------------------------------------------------------------------------------------- epochs


def test_the_best_scored_epoch_is_that_of_brute_force(parts):
    plan = replace(get_plan("darts").lasting(5), batch_size=32, alphas=AlphaSteps(learning_rate=0.001))
    found = run_supernet_search("nasbench201", *parts, replace(plan, selection=BestScoredEpoch()), build=BUILD, seed=1)
    space, scores = get_space("nasbench201"), {}
    images = Batch(*ImageTask(*parts, batch_size=32).fixed_batch())
    for row in found.history:
        with seeded(derive_seed(1, row["arch"], 0)):
            model = space.build(space.parse(row["arch"]), width=4, n_cells=1)
        scores[row["arch"]] = measure(model, images, "naswot", seed=1)["naswot"]
    assert len(set(scores.values())) >= 3
    best = max(scores, key=scores.get)
    assert found.arch == best
    assert found.epoch == max(row["epoch"] for row in found.history if row["arch"] == best)
    assert best != found.history[-1]["arch"]  # otherwise this would not tell it from the last epoch


def test_of_equally_scored_epochs_the_latest_is_taken_and_each_architecture_scored_once(parts, monkeypatch):
    asked = []

    def scored(session, genotypes, *_, **__):
        asked.append(list(genotypes))
        return [{0: 1.0, 1: 2.0, 3: 2.0}[genotype[0]] for genotype in genotypes]

    monkeypatch.setattr(zero_cost_selection, "untrained_scores", scored)
    space, how = get_space("nasbench201"), BestScoredEpoch()
    with SearchSession(space, ImageTask(*parts, batch_size=16), SearchPlan(selection=how), build=BUILD) as session:
        for epoch, gene in enumerate((1, 3, 1, 3, 0), start=1):
            session.history.append({"epoch": epoch, "arch": space.format((gene,) * 6)})
        assert how.select(session) == (3,) * 6
        assert session.result_epoch == 4
    assert asked == [[(0,) * 6, (3,) * 6, (1,) * 6]]


@pytest.mark.parametrize("how", [ScoreGuided(), BestScoredEpoch()])
def test_selections_that_read_alphas_are_refused_where_these_tell_nothing(how):
    with pytest.raises(OptionError, match=f"{type(how).__name__} reads off what the alphas tell"):
        replace(get_plan("spos"), selection=how)
    assert replace(get_plan("spos"), selection=ZeroCostPerturbation()).selection == ZeroCostPerturbation()


# ------------------------------------------------------------------------------------------------ what cannot be scored


@pytest.mark.parametrize("how", [ScoreGuided, BestScoredEpoch, ZeroCostPerturbation])
def test_options_that_no_network_can_be_built_with_are_refused_before_the_first_epoch(parts, how):
    plan = replace(get_plan("darts").lasting(1), batch_size=16, selection=how(build=(("depth", 3),)))
    epochs = []
    with pytest.raises(
        InputError, match=r"no architecture can be scored by naswot.*unexpected keyword argument 'depth'"
    ):
        run_supernet_search("nasbench201", *parts, plan, build=BUILD, on_epoch=epochs.append)
    assert epochs == []


def test_networks_that_cannot_be_scored_come_last_and_build_options_go_before_those_of_the_supernet(parts):
    task = ImageTask(*parts, batch_size=16)
    naswot = get_proxy("naswot")

    def picky(seen, passes):
        width = next(p for p in passes.model.parameters()).shape[0]
        if width == 5:
            raise InputError("five")
        return torch.tensor(float(width))

    proxy = replace(naswot, function=picky, observe={})
    with SearchSession(get_space("nasbench201"), task, SearchPlan(), build=BUILD) as session:
        batches = [Batch(*task.fixed_batch())]

        def scores(chosen, **options):
            return untrained_scores(session, [(3,) * 6, (1,) * 6], chosen, batches=batches, **options)

        assert scores(proxy) == [4.0, 4.0]
        assert scores(replace(proxy, higher_is_better=False)) == [-4.0, -4.0]
        assert scores(proxy, build=(("width", 6),)) == [6.0, 6.0]
        with pytest.raises(InputError, match="five"):
            scores(proxy, build=(("width", 5),))
        singular = replace(naswot, function=lambda seen, passes: torch.tensor(math.nan), observe={})
        assert scores(singular) == [-math.inf, -math.inf]


def test_every_selection_is_part_of_what_a_checkpoint_is_bound_to():
    described = [
        SearchPlan(selection=how).describe()["selection"]
        for how in (PerturbationSelection(), ZeroCostPerturbation(), ScoreGuided(), BestScoredEpoch(), Magnitude())
    ]
    assert len({str(one) for one in described}) == 5
    assert all(issubclass(how, Selection) for how in (PerturbationSelection, ScoreGuided, BestScoredEpoch))
