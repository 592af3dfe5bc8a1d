"""Resource terms: what options cost, the expected cost and its gradient, and what it does to a search."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import naswot
from naswot.data import get_data
from naswot.differentiable.gates import BinaryGates
from naswot.differentiable.gumbel import GumbelSoftmax, HardGumbel
from naswot.differentiable.plan import AlphaSteps, SearchPlan, Stage
from naswot.differentiable.preset import get_plan
from naswot.differentiable.relaxations import Clock, Softmax, softmax_weights
from naswot.differentiable.resources import Costs, ExpectedCost, SquaredCost, cost_of_blocks, operation_costs
from naswot.differentiable.searching import run_supernet_search
from naswot.differentiable.session import SearchSession
from naswot.differentiable.tasks import ImageTask
from naswot.errors import OptionError
from naswot.latency import LatencyTable
from naswot.preserve import preserve_random_state
from naswot.seeding import numpy_generator, seeded
from naswot.space import get_space
from naswot.supernet import make_supernet
from naswot.training.splits import three_way_split

SIZES = {
    "nasbench201": {"width": 4, "n_cells": 1},
    "darts": {"width": 4, "n_cells": 3},
    "robustdarts_s1": {"width": 4, "n_cells": 3},
    "mobilenet": {"width_multiplier": 0.25},
}
SHAPE = (3, 8, 8)
CLOCK = Clock(0, 2)


def small(space, **options):
    with seeded(1):
        supernet = make_supernet(space, **{**SIZES[space], **options})
        for group in supernet.groups:
            supernet.alphas[group.name].data.normal_()
    return supernet


@pytest.fixture(scope="module")
def parts():
    return three_way_split(get_data("digits").subset(torch.arange(256)), valid_fraction=0.5)


def begun(resource, parts, supernet):
    resource.begin(supernet, ImageTask(*parts, batch_size=32))
    return resource


# -------------------------------------------------------------------------------------------------------- what it costs


@pytest.mark.parametrize("space", ["nasbench201", "darts", "robustdarts_s1", "mobilenet"])
def test_costs_add_up_to_the_scores_of_the_extracted_networks(space):
    supernet = small(space)
    params, flops = (operation_costs(supernet, SHAPE, measure=measure) for measure in ("params", "flops"))
    batch = naswot.Batch(torch.rand(2, *SHAPE), None)
    rng = numpy_generator(0)
    for _ in range(3):
        genotype = supernet.space.sample(rng)
        scores = naswot.measure(supernet.extract(genotype), batch, ["params", "flops"])
        assert params.of(supernet, genotype) == scores["params"]
        assert flops.of(supernet, genotype) == scores["flops"]


def test_partial_channels_and_masks_count_as_they_are():
    allowed = torch.ones(6, 5, dtype=torch.bool)
    allowed[:, 3] = False
    whole, masked = small("nasbench201"), small("nasbench201", allowed={"cell": allowed})
    whole, masked, partial = (
        operation_costs(s, SHAPE, measure="flops") for s in (whole, masked, small("nasbench201", partial=2))
    )
    assert torch.equal(masked.options["cell"], whole.options["cell"] * allowed)
    assert masked.fixed == whole.fixed
    assert torch.equal(partial.options["cell"] * 4, whole.options["cell"])


def test_latency_is_measured_on_every_option():
    costs = operation_costs(small("nasbench201", width=16), (3, 32, 32), measure="latency")
    table = costs.options["cell"]
    assert (table > 0).all()
    assert costs.fixed > 0
    assert (table[:, 3] > 2 * table[:, 1]).all()  # a convolution takes longer than an identity


@pytest.mark.parametrize("measure", ["params", "flops", "latency"])
def test_measuring_leaves_no_trace(measure):
    supernet = small("nasbench201").train()
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    with preserve_random_state():
        state = torch.get_rng_state()
        operation_costs(supernet, SHAPE, measure=measure)
        assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())
    assert supernet.training
    assert not any(module._forward_pre_hooks for module in supernet.modules())


def test_mean_and_least_cost_by_hand():
    supernet = small("nasbench201")
    table = torch.arange(30, dtype=torch.float64).reshape(6, 5)
    costs = Costs({"cell": table}, 7.0)
    assert costs.mean(supernet) == pytest.approx(7.0 + float(table.mean(1).sum()))
    assert costs.least(supernet) == pytest.approx(7.0 + float(table[:, 0].sum()))
    assert costs.of(supernet, (1, 0, 4, 2, 0, 3)) == pytest.approx(7.0 + 1 + 5 + 14 + 17 + 20 + 28)


def test_costs_looked_up_by_architectures_equal_those_measured():
    supernet = small("nasbench201")
    measured = operation_costs(supernet, SHAPE, measure="flops")
    found = cost_of_blocks(supernet, lambda genotype: measured.of(supernet, genotype))
    assert torch.equal(found.options["cell"], measured.options["cell"])
    assert found.fixed == measured.fixed
    with pytest.raises(OptionError, match="depends on other rows"):
        cost_of_blocks(small("darts"), lambda _: 0.0)


def test_a_latency_table_gives_the_milliseconds_of_whole_architectures(parts, tmp_path):
    space = get_space("mobilenet")
    table = LatencyTable.measure(space, width_multiplier=0.25, input_size=8, repeats=1)
    table.save(tmp_path / "table.csv")
    supernet = small("mobilenet")
    resource = begun(ExpectedCost("latency", table=str(tmp_path / "table.csv")), parts, supernet)
    rng = numpy_generator(3)
    for _ in range(3):
        genotype = space.sample(rng)
        assert resource.known().of(supernet, genotype) == pytest.approx(table.latency(genotype))
    with pytest.raises(OptionError, match="holds latencies of mobilenet, but nasbench201"):
        begun(ExpectedCost("latency", table=str(tmp_path / "table.csv")), parts, small("nasbench201"))


# ------------------------------------------------------------------------------------------------- how it enters a loss

FORMS = [
    ExpectedCost("params", "add", 1e-3),
    ExpectedCost("flops", "add_log", 0.3),
    ExpectedCost("params", "add_linear"),
    ExpectedCost("flops", "add_linear", 0.7, reference=5000.0),
    ExpectedCost("params", "mul_log", reference=900.0),
    ExpectedCost("flops", "mul_log", 0.5, power=0.6),
    SquaredCost(0.4),
]


@pytest.mark.parametrize("resource", FORMS, ids=repr)
def test_the_gradient_of_the_cost_matches_finite_differences(parts, resource):
    supernet = small("darts")
    begun(resource, parts, supernet)
    supernet.double()
    mixing = Softmax().for_weights(supernet, CLOCK)
    loss = torch.tensor(1.7, dtype=torch.float64)
    found = torch.autograd.grad(resource.add(loss, supernet, mixing), supernet.architecture_parameters())
    rng = numpy_generator(0)
    for alphas, slopes in zip(supernet.architecture_parameters(), found, strict=True):
        for row, option in zip(rng.integers(14, size=5), rng.integers(8, size=5), strict=True):
            values = []
            for step in (1e-5, -2e-5):
                alphas.data[row, option] += step
                values.append(float(resource.add(loss, supernet, mixing).detach()))
            alphas.data[row, option] += 1e-5
            assert float(slopes[row, option]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-9)
        assert slopes.abs().max() > 1e-6


def test_forms_by_hand():
    supernet = small("nasbench201")
    table = torch.tensor([[0.0, 0.2, 30.0, 270.0, 0.0]] * 6, dtype=torch.float64)
    weights = torch.softmax(supernet.alphas["cell"].detach(), 1).double()
    rows = (weights * table).sum(1)
    cost, loss = float(rows.sum()) + 50.0, torch.tensor(2.0)
    wanted = [
        (ExpectedCost("flops", "add", 0.1), 2.0 + 0.1 * cost),
        (ExpectedCost("flops", "add_log", 0.1), 2.0 + 0.1 * float(rows.clamp(min=1).log().sum())),
        (ExpectedCost("flops", "add_linear", reference=80.0), 2.0 + 0.1 * (cost - 80.0) / 80.0),
        (ExpectedCost("flops", "add_linear", 1.0), 2.0 + cost / (6 * 300.2 / 5 + 50.0) - 1.0),
        (ExpectedCost("flops", "mul_log", reference=80.0), 0.2 * 2.0 * (math.log(cost) / math.log(80.0)) ** 0.3),
    ]
    for resource, value in wanted:
        resource.costs = Costs({"cell": table}, 50.0)
        added = resource.add(loss, supernet, Softmax().for_weights(supernet, CLOCK))
        assert float(added.detach()) == pytest.approx(value, rel=1e-5)


def test_squared_cost_by_hand():
    supernet = small("nasbench201")
    resource = SquaredCost(0.5)
    resource.costs = Costs({"cell": torch.tensor([[0.0, 0.0, 10.0, 30.0, 0.0]] * 6, dtype=torch.float64)}, 0.0)
    alphas = supernet.alphas["cell"].detach()
    wanted = 1.0 + 0.5 * float((0.25 * alphas[:, 2] ** 2 + 0.75 * alphas[:, 3] ** 2).sum())
    added = resource.add(torch.tensor(1.0), supernet, Softmax().for_weights(supernet, CLOCK))
    assert float(added.detach()) == pytest.approx(wanted)


@pytest.mark.parametrize("relaxation", [HardGumbel(), BinaryGates()], ids=["gdas", "proxylessnas"])
def test_where_one_option_is_sampled_the_expectation_is_over_all_of_them(parts, relaxation):
    supernet = small("nasbench201")
    resource = begun(ExpectedCost("flops", "add", 1.0), parts, supernet)
    added = resource.add(torch.tensor(0.0), supernet, relaxation.for_architecture(supernet, CLOCK))
    assert float(added.detach()) == pytest.approx(float(resource.known().expected(softmax_weights(supernet)).detach()))
    (slopes,) = torch.autograd.grad(added, supernet.alphas["cell"])
    assert (slopes != 0).all()
    sampled = replace_over(resource, "sample")
    mixing = relaxation.for_architecture(supernet, CLOCK)
    chosen = tuple(mixing.weights["cell"].argmax(1).tolist())
    assert float(sampled.add(torch.tensor(0.0), supernet, mixing).detach()) == pytest.approx(
        resource.known().of(supernet, chosen)
    )


def replace_over(resource, over):
    other = replace(resource, over=over)
    other.costs = resource.costs
    return other


def test_the_cost_of_snas_follows_the_sample_that_the_network_is_run_with():
    supernet = small("nasbench201")
    resource = ExpectedCost("params", "add", 1.0, over="sample")
    resource.costs = Costs({"cell": torch.arange(30, dtype=torch.float64).reshape(6, 5)}, 0.0)
    mixing = GumbelSoftmax().for_architecture(supernet, CLOCK)
    wanted = (mixing.weights["cell"] * torch.arange(30.0).reshape(6, 5)).sum()
    added = resource.add(torch.tensor(0.0), supernet, mixing)
    torch.testing.assert_close(added, wanted)
    slopes = (torch.autograd.grad(value, supernet.alphas["cell"], retain_graph=True)[0] for value in (added, wanted))
    torch.testing.assert_close(*slopes)


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "energy"}, "unknown measure 'energy'; there are params, flops, latency"),
        ({"form": "mul"}, "unknown form 'mul'"),
        ({"over": "alphas"}, "unknown over"),
        ({"form": "add"}, "needs weight="),
        ({"form": "mul_log", "reference": 1.0}, "above 1 for 'mul_log', but got 1.0"),
        ({"reference": 0.0}, "above 0 for 'add_linear'"),
        ({"table": "x.csv"}, "the measure is 'params'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        ExpectedCost(**options)


def test_a_negative_penalty_is_refused():
    with pytest.raises(OptionError, match="at least 0, but got -1"):
        SquaredCost(-1.0)


def test_options_that_all_cost_the_same_are_refused(parts):
    allowed = torch.zeros(6, 5, dtype=torch.bool)
    allowed[:, :2] = True  # none and identity have no parameters
    with pytest.raises(OptionError, match="params of all options of nasbench201 are the same"):
        begun(ExpectedCost("params"), parts, small("nasbench201", allowed={"cell": allowed}))


def test_costs_below_1_have_no_place_under_a_logarithm(parts, monkeypatch):
    costs = Costs({"cell": 0.1 * torch.rand(6, 5, dtype=torch.float64)}, 0.0)
    monkeypatch.setattr("naswot.differentiable.resources.operation_costs", lambda *_, **__: costs)
    begun(ExpectedCost("latency", "add_linear"), parts, small("nasbench201"))
    with pytest.raises(OptionError, match="take form='add_linear'"):
        begun(ExpectedCost("latency", "mul_log"), parts, small("nasbench201"))


def test_only_images_are_measured_by_what_they_take():
    class Words:
        def fixed_batch(self):
            return torch.zeros(4, 7, dtype=torch.int64), torch.zeros(4)

    supernet = small("nasbench201")
    ExpectedCost("params").begin(supernet, Words())
    with pytest.raises(OptionError, match="which the inputs of this task are not"):
        ExpectedCost("flops").begin(supernet, Words())


def test_costs_are_not_known_before_they_are_measured():
    with pytest.raises(OptionError, match="before begin"):
        ExpectedCost("params").expected(small("nasbench201"))


def test_kept_costs_come_back(parts):
    supernet = small("nasbench201")
    first, second = begun(ExpectedCost("latency"), parts, supernet), begun(ExpectedCost("latency"), parts, supernet)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.known().options["cell"], second.known().options["cell"])
    assert first.known().fixed == second.known().fixed


# --------------------------------------------------------------------------------------------- what it does to a search


def found_by(parts, plan, epochs=3):
    plan = replace(plan, batch_size=32).lasting(epochs)
    result = run_supernet_search("nasbench201", *parts, plan, build=SIZES["nasbench201"])
    costs = operation_costs(result.supernet, SHAPE)
    return result.genotype, costs.of(result.supernet, result.genotype)


def test_a_larger_weight_of_the_cost_gives_fewer_parameters_in_snas(parts):
    def search(weight):
        plan = get_plan("snas", resource=weight)
        return found_by(parts, replace(plan, alphas=replace(plan.alphas, learning_rate=0.1)), 3)[1]

    none, some, much = search(None), search("moderate"), search(1.0)
    assert none > much
    assert none >= some >= much
    assert much == operation_costs(small("nasbench201"), SHAPE).fixed  # nothing with parameters is left


def test_a_small_reference_moves_proxylessnas_to_the_cheap_operations(parts):
    def search(reference):
        plan = get_plan("proxylessnas", resource="flops", form="add_linear", reference=reference)
        quick = AlphaSteps(learning_rate=0.1, betas=(0.0, 0.999), weight_decay=0.0)
        plan = replace(plan, alphas=quick, stages=(Stage(epochs=10),), hooks=())
        task = ImageTask(*parts, batch_size=32)
        with SearchSession(get_space("nasbench201"), task, plan, build=SIZES["nasbench201"]) as session:
            session.supernet.alphas["cell"].data[:, 3] += 1.0  # all begin with the largest convolution
            while not session.ended:
                session.next_epoch()
            return session.genotype_of_result()

    assert set(search(100.0)) <= {0, 1, 4}  # none, identity and pooling have no MACs
    assert search(1e12).count(3) >= 4


def test_the_penalty_of_nasp_leads_away_from_operations_with_parameters(parts):
    plan = get_plan("nasp", penalty=10.0)
    genotype, _ = found_by(parts, replace(plan, alphas=AlphaSteps(learning_rate=0.02)))
    assert not set(genotype) & {2, 3}
    genotype, _ = found_by(parts, replace(plan, resource=None, alphas=AlphaSteps(learning_rate=0.02)))
    assert set(genotype) & {2, 3}


def test_a_plan_can_be_used_twice_and_keeps_nothing(parts):
    plan = get_plan("nasp", penalty=1.0)
    found_by(parts, plan, 1)
    assert plan.resource.costs is None


def test_a_resource_without_an_architect_is_refused():
    with pytest.raises(OptionError, match="there is no architect"):
        SearchPlan(architect=None, resource=ExpectedCost())
