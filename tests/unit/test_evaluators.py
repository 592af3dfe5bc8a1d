"""Evaluators: tables with seconds, aggregates, supernets, callables, mixtures, real training."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from reference import searches

from naswot.benchmark import Benchmark, Column, Table, get_benchmark
from naswot.data import get_data
from naswot.errors import DataError, OptionError, StoreError, UnknownNameError
from naswot.evaluate import Evaluator
from naswot.evaluators import AggregateEvaluator, CallableEvaluator, CombinedEvaluator, SupernetEvaluator, portable
from naswot.ranking import rank
from naswot.run import sample_distinct
from naswot.searcher import Trial
from naswot.space import get_space
from naswot.table_evaluator import FlopsClock, TableEvaluator
from naswot.training.evaluator import TrainingEvaluator
from naswot.training.recipe import get_recipe
from naswot.training.splits import three_way_split

SPACE = get_space("nasbench201")
CELLS = [(3, 3, 3, 3, 3, 3), (1, 2, 3, 4, 1, 2), (2, 2, 2, 2, 2, 2)]


def toy():
    return Benchmark(
        "toy",
        SPACE,
        Table(
            CELLS,
            {
                Column("d", "valid_accuracy", 12): [50.0, 60.0, 70.0],
                Column("d", "valid_accuracy", 200): [80.0, 90.0, math.nan],
                Column("d", "train_seconds", 12): [1.0, 2.0, math.nan],
                Column("d", "flops"): [1e6, 2e6, 4e6],
            },
        ),
    )


# --------------------------------------------------------------------------------------------------------------- tables


def test_a_table_answers_by_length_of_training():
    evaluator = TableEvaluator(toy(), "d")
    assert evaluator.epochs == 200
    assert evaluator.evaluate(Trial(0, CELLS[1])).scores == {"valid_accuracy": 90.0}
    short = evaluator.evaluate(Trial(0, CELLS[1], epochs=12))
    assert (short.scores, short.seconds) == ({"valid_accuracy": 60.0}, {"train": 2.0})
    assert TableEvaluator(toy(), "d", epochs=12).evaluate(Trial(0, CELLS[0])).scores == {"valid_accuracy": 50.0}


def test_seconds_that_the_table_does_not_tell_are_estimated_and_say_so():
    clock = FlopsClock(images=1000, per_image=1e-3, per_mac=1e-9)
    evaluator = TableEvaluator(toy(), "d", epochs=12, clock=clock)
    assert evaluator.evaluate(Trial(0, CELLS[2])).seconds == {"train_estimated": 12 * 1000 * (1e-3 + 4e-3)}


def test_the_estimate_meets_the_three_official_records():
    macs_and_seconds = [(15_647_370, 86.7), (113_951_370, 149.5), (11_715_210, 58.5)]
    estimates = [FlopsClock().seconds(macs, 12) for macs, _ in macs_and_seconds]
    measured = [seconds for _, seconds in macs_and_seconds]
    assert np.max(np.abs(np.log(np.array(estimates) / measured))) < 0.25
    assert np.mean(estimates) == pytest.approx(np.mean(measured), rel=0.02)  # a fit by least squares with a constant


def test_what_is_not_in_the_table_fails_with_the_reason():
    evaluator = TableEvaluator(toy(), "d")
    assert evaluator.evaluate(Trial(0, (0, 0, 0, 0, 0, 0))).error == "toy has no result of it"
    assert evaluator.evaluate(Trial(0, CELLS[2])).reasons == {"valid_accuracy": "toy has no value of it"}
    with pytest.raises(UnknownNameError, match="valid_accuracy"):
        TableEvaluator(toy(), "d", "valid_acuracy")
    with pytest.raises(DataError, match="after 50 epochs"):
        TableEvaluator(toy(), "d", epochs=50)


def test_flops_are_counted_in_the_network_where_nobody_tells_them():
    bench = get_benchmark("nasbench201_digits")
    asked = []
    evaluator = TableEvaluator(bench, "digits", "test_accuracy", flops=lambda g: asked.append(g) or 1e6)
    genotype = next(iter(bench.genotypes()))
    found = evaluator.evaluate(Trial(0, genotype))
    assert found.seconds["train"] == bench.query(genotype, dataset="digits", metric="train_seconds")
    assert asked == []


# ------------------------------------------------------------------------------------------------------ everything else


def test_callables_may_take_genotype_string_or_model():
    genotype = CELLS[1]
    plain = CallableEvaluator(SPACE, lambda g: float(sum(g)))
    by_arch = CallableEvaluator(SPACE, len, takes="arch")
    by_model = CallableEvaluator(
        SPACE,
        lambda model: {"p": float(sum(p.numel() for p in model.parameters())), "q": 2.0},
        takes="model",
        names=("p", "q"),
        build={"width": 4},
    )
    assert plain.evaluate(Trial(0, genotype)).scores == {"value": 13.0}
    assert by_arch.evaluate(Trial(0, genotype)).scores == {"value": float(len(SPACE.format(genotype)))}
    assert by_model.evaluate(Trial(0, genotype)).scores == {"p": SPACE.n_parameters(genotype, width=4), "q": 2.0}
    with pytest.raises(OptionError, match="takes to be genotype, arch or model"):
        CallableEvaluator(SPACE, len, takes="network")


def test_an_aggregate_score_is_that_of_the_set_with_the_reference():
    images = get_data("digits", size=8)
    proxies = Evaluator(SPACE, images, ("params",), batch_size=4, build=searches.BUILD)
    evaluator = AggregateEvaluator(proxies, "log_rank", reference=12, proxies=("naswot", "flops"))
    reference = sample_distinct(SPACE, 12, seed=0)
    newcomer = next(g for g in CELLS if g not in reference)
    rows = rank([*reference, newcomer], aggregate="log_rank", proxies=("naswot", "flops"), evaluator=proxies)
    expected = next(row.score for row in rows if row.genotype == newcomer)
    assert evaluator.evaluate(Trial(0, newcomer)).scores == {"log_rank": expected}


def test_evaluators_travel_light_and_ready():
    images = get_data("digits", size=8)
    proxies = Evaluator(SPACE, images, ("params",), batch_size=4, build=searches.BUILD)
    aggregate = AggregateEvaluator(proxies, "log_rank", reference=6, proxies=("naswot", "flops"))
    both = CombinedEvaluator(proxies, aggregate)
    sent = pickle.dumps(portable(both))
    assert len(sent) < len(pickle.dumps(both)) / 5
    arrived = pickle.loads(sent)
    arrived.parts[1]._reference_columns = None  # known already, so not worked out again
    assert arrived.evaluate(Trial(0, CELLS[0])).scores == both.evaluate(Trial(0, CELLS[0])).scores


def test_a_supernet_is_asked_with_its_shared_weights_and_never_by_test_images():
    supernet = searches.Supernet()
    _, valid = three_way_split(searches.images(), valid_fraction=0.5)
    evaluator = SupernetEvaluator(supernet, valid)
    before = evaluator.evaluate(Trial(0, CELLS[0])).scores["supernet_accuracy"]
    with torch.no_grad():
        supernet.head.weight.zero_()
        supernet.head.bias.copy_(torch.eye(10)[3])  # everything is a three
    after = evaluator.evaluate(Trial(0, CELLS[0])).scores["supernet_accuracy"]
    assert after == pytest.approx(100.0 * float((valid.labels == 3).double().mean()))
    assert before != after
    with pytest.raises(OptionError, match="must not select"):
        SupernetEvaluator(supernet, get_data("digits", size=8, split="test"))


def test_a_mixture_has_all_scores_and_stops_at_the_first_failure():
    first = CallableEvaluator(SPACE, lambda g: float(g[0]), names=("first",))
    second = CallableEvaluator(SPACE, lambda g: 1.0 / g[1], names=("second",))
    third = CallableEvaluator(SPACE, lambda g: pytest.fail("not reached"), names=("third",))
    both = CombinedEvaluator(first, second)
    assert both.evaluate(Trial(0, (2, 4, 0, 0, 0, 0))).scores == {"first": 2.0, "second": 0.25}
    failed = CombinedEvaluator(first, second, third).evaluate(Trial(0, (2, 0, 0, 0, 0, 0)))
    assert failed.error == "ZeroDivisionError: float division by zero"
    assert failed.scores == {}
    for parts in ((first, first), (), (first, CallableEvaluator(get_space("nasbench_macro"), sum, names=("x",)))):
        with pytest.raises(OptionError, match="evaluators of one space"):
            CombinedEvaluator(*parts)


# ------------------------------------------------------------------------------------------------------------- training


def training(tmp_path=None, **options):
    train, valid = three_way_split(searches.images(), valid_fraction=0.25)
    recipe = get_recipe("quick", epochs=2, batch_size=32, **options.pop("recipe", {}))
    return TrainingEvaluator(SPACE, train, valid, recipe, build=searches.BUILD, folder=tmp_path, **options)


def test_training_depends_on_seed_and_architecture_alone():
    evaluator = training()
    first, second = (evaluator.evaluate(Trial(number, CELLS[0])) for number in (0, 7))
    assert first.scores == second.scores
    assert set(first.scores) == {"valid_accuracy", "train_loss"}
    assert training(seed=1).evaluate(Trial(0, CELLS[0])).scores != first.scores
    assert evaluator.evaluate(Trial(0, CELLS[0], epochs=1)).scores != first.scores


def test_what_is_trained_is_the_network_that_is_scored():
    scored = Evaluator(SPACE, searches.images(), ("params",), batch_size=2, seed=4, build=searches.BUILD)
    for genotype in CELLS:
        ours = training(seed=4).model(Trial(3, genotype)).state_dict()
        theirs = scored.model(genotype).state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


class Moody(type(SPACE)):
    """A space some of whose architectures cannot be built."""

    def build(self, genotype, *, n_classes=10, in_channels=3, width=16, n_cells=5):
        if genotype[0] == 3:
            raise ValueError("no such layer")
        return SPACE.build(genotype, n_classes=n_classes, in_channels=in_channels, width=width, n_cells=n_cells)


def test_an_architecture_that_cannot_be_built_fails_alone():
    train, valid = three_way_split(searches.images(), valid_fraction=0.25)
    recipe = get_recipe("quick", epochs=1)
    trained = TrainingEvaluator(Moody(), train, valid, recipe, build=searches.BUILD)
    scored = Evaluator(Moody(), train, ("params",), batch_size=2, build=searches.BUILD)
    for evaluator in (trained, scored):
        assert "cannot be built: ValueError: no such layer" in evaluator.evaluate(Trial(0, CELLS[0])).error
        assert evaluator.evaluate(Trial(1, CELLS[1])).error is None


def test_what_no_architecture_is_to_blame_for_ends_the_search(tmp_path, monkeypatch):
    with pytest.raises(OptionError, match="no build option 'widht'"):
        TrainingEvaluator(SPACE, *three_way_split(searches.images(), valid_fraction=0.25), build={"widht": 2})
    with pytest.raises(OptionError, match="cannot be used here"):
        training(device="cuda:7")
    with pytest.raises(OptionError, match="warmup_epochs"):
        training(recipe={"warmup_epochs": 1}).evaluate(Trial(0, CELLS[0], epochs=1))
    monkeypatch.setattr("naswot.training.evaluator.train", lambda *_, **__: (_ for _ in ()).throw(StoreError("full")))
    with pytest.raises(StoreError, match="full"):
        training(tmp_path).evaluate(Trial(0, CELLS[0]))


def test_the_learning_rate_may_be_a_gene():
    space = get_space("evolved_graph")
    train, valid = three_way_split(searches.images(), valid_fraction=0.25)
    evaluator = TrainingEvaluator(space, train, valid, get_recipe("quick"))
    assert evaluator.recipe_for(Trial(0, space.parse("lr0.4"), epochs=3)).learning_rate == pytest.approx(0.4)
    assert evaluator.recipe_for(Trial(0, space.parse("lr0.4"), epochs=3)).epochs == 3


def test_divergence_is_a_failed_evaluation():
    found = training(recipe={"learning_rate": 1e18, "clip_norm": None}).evaluate(Trial(0, CELLS[0]))
    assert found.scores == {}
    assert found.error.startswith("DivergedError")


def test_want_of_memory_is_a_failed_evaluation_that_suggests_a_smaller_batch(monkeypatch):
    def exhausted(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("torch.nn.functional.cross_entropy", exhausted)
    found = training().evaluate(Trial(0, CELLS[0]))
    assert found.scores == {}
    assert "batch_size" in found.error
    assert "16" in found.error  # half of 32


def test_test_images_are_refused():
    train, _ = three_way_split(searches.images(), valid_fraction=0.25)
    with pytest.raises(OptionError, match="nothing may be chosen by them"):
        TrainingEvaluator(SPACE, train, get_data("digits", size=8, split="test"))


def test_children_begin_with_their_parents_weights(tmp_path):
    evaluator = training(tmp_path, inherits=True)
    evaluator.evaluate(Trial(0, CELLS[0]))
    trained = torch.load(tmp_path / "weights" / "0.pt", weights_only=True)
    child, stranger = evaluator.model(Trial(1, CELLS[0], parent=0)), evaluator.model(Trial(1, CELLS[0]))
    assert all(torch.equal(value, trained[name]) for name, value in child.state_dict().items())
    assert not torch.equal(stranger.state_dict()["stem.0.weight"], trained["stem.0.weight"])
    with pytest.raises(StoreError, match="pass folder="):
        training(inherits=True)
    with pytest.raises(StoreError, match="that a trial inherits"):
        evaluator.evaluate(Trial(3, CELLS[0], parent=2))
