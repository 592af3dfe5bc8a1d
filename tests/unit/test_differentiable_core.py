"""The search by a supernet as such: order of steps, what learns when, resume, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from naswot.data import get_data
from naswot.differentiable.architects import SingleLevel
from naswot.differentiable.plan import AlphaSteps, Hook, Perturbation, SearchPlan, Selection, Stage, WeightSteps
from naswot.differentiable.preset import get_plan, get_plans, list_presets, presets
from naswot.differentiable.relaxations import Clock, Softmax
from naswot.differentiable.searching import run_supernet_search
from naswot.differentiable.session import SearchSession
from naswot.differentiable.tasks import ImageTask
from naswot.errors import DivergedError, OptionError, StoreError, UnknownNameError
from naswot.seeding import torch_generator
from naswot.space import get_space
from naswot.supernet import Mixing, make_supernet
from naswot.training.splits import three_way_split

BUILD = {"width": 4, "n_cells": 1}


@pytest.fixture(scope="module")
def parts():
    few = get_data("digits").subset(torch.arange(256))
    return three_way_split(few, valid_fraction=0.5)


def task_of(parts, **options):
    return ImageTask(*parts, **{"batch_size": 32, **options})


def run(parts, plan, epochs=2, space="nasbench201", **options):
    plan = replace(plan, batch_size=32).lasting(epochs)
    return run_supernet_search(space, *parts, plan, build=BUILD, **options)


def values(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


class Interrupted(Exception):
    pass


# ------------------------------------------------------------------------------------------------------------- the loop


def test_alphas_learn_from_validation_batches_before_the_weights_do(parts):
    seen = []

    class Watched(ImageTask):
        def loss(self, supernet, mixing, batch):
            tracked = mixing.weights["cell"].requires_grad
            seen.append(("alphas" if tracked else "weights", batch[0].data_ptr(), float(batch[0].sum())))
            return super().loss(supernet, mixing, batch)

    task = Watched(*parts, batch_size=64)
    with SearchSession(get_space("nasbench201"), task, get_plan("darts"), build=BUILD) as session:
        session.next_epoch()
    assert [who for who, *_ in seen] == ["alphas", "weights"] * 2
    wanted = [float(task.valid_batch(i)[0].sum()) for i in range(2)]
    assert [total for who, _, total in seen if who == "alphas"] == wanted
    wanted = [float(images.sum()) for images, _ in task.train_batches(0)]
    assert [total for who, _, total in seen if who == "weights"] == wanted


def test_steps_of_the_weights_leave_the_alphas_and_the_other_way_round(parts):
    for frozen, plan in (
        ("alphas", SearchPlan(architect=None)),
        ("weights", SearchPlan(weights=WeightSteps(learning_rate=0.0, final_learning_rate=0.0))),
    ):
        with SearchSession(get_space("nasbench201"), task_of(parts), plan, build=BUILD) as session:
            net = session.supernet
            before = [p.clone() for p in net.weight_parameters()], [p.clone() for p in net.architecture_parameters()]
            session.next_epoch()
            after = net.weight_parameters(), net.architecture_parameters()
        stays = [all(map(torch.equal, old, new)) for old, new in zip(before, after, strict=True)]
        assert stays == [frozen == "weights", frozen == "alphas"]


def test_alphas_wait_for_the_end_of_the_warm_up(parts):
    plan = SearchPlan(stages=(Stage(epochs=3, warmup=2),))
    with SearchSession(get_space("nasbench201"), task_of(parts), plan, build=BUILD) as session:
        first = session.supernet.alphas["cell"].clone()
        moved = []
        for _ in range(3):
            session.next_epoch()
            moved.append(not torch.equal(first, session.supernet.alphas["cell"]))
    assert moved == [False, False, True]


def test_weight_decay_and_clipping_of_the_weights_do_not_reach_the_alphas(parts):
    plan = SearchPlan(architect=None, weights=WeightSteps(weight_decay=1.0, clip_norm=1e-9))
    with SearchSession(get_space("nasbench201"), task_of(parts), plan, build=BUILD) as session:
        optimised = {id(p) for group in session.weight_optimizer.param_groups for p in group["params"]}
        assert not optimised & {id(alpha) for alpha in session.supernet.architecture_parameters()}
        assert len(optimised) == len(list(session.supernet.parameters())) - 1


def test_the_learning_rate_goes_along_a_cosine_from_the_first_value_on(parts):
    rows = run(parts, SearchPlan(), epochs=4).history
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.025, 0.02148528, 0.013, 0.00451472])


def test_one_level_learns_both_from_the_training_loss(parts):
    losses = []

    class Counted(ImageTask):
        def loss(self, supernet, mixing, batch):
            losses.append(mixing.weights["cell"].requires_grad)
            return super().loss(supernet, mixing, batch)

    plan = SearchPlan(architect=SingleLevel())
    with SearchSession(get_space("nasbench201"), Counted(*parts, batch_size=64), plan, build=BUILD) as session:
        first = session.supernet.alphas["cell"].clone()
        session.next_epoch()
        assert losses == [True, True]  # one pass for each of two batches
        assert not torch.equal(first, session.supernet.alphas["cell"])


def test_alphas_every_few_steps(parts):
    plan = SearchPlan(alphas=AlphaSteps(every=3))
    with SearchSession(get_space("nasbench201"), task_of(parts), plan, build=BUILD) as session:
        session.next_epoch()
        assert session.valid_batches == 2  # of 4 batches the first and the fourth


def test_stages_go_on_with_the_largest_operations_and_begin_anew(parts):
    plan = SearchPlan(stages=(Stage(epochs=1, keep=2), Stage(epochs=1, more_cells=1, skip_dropout=0.3)))
    with SearchSession(get_space("nasbench201"), task_of(parts), plan, build=BUILD) as session:
        session.next_epoch()
        old, alphas = session.supernet, session.supernet.alphas["cell"].clone()
        session.next_epoch()
        kept = session.supernet.allowed("cell")
    assert kept.sum(1).tolist() == [2] * 6
    assert all(alphas[row][kept[row]].min() >= alphas[row][~kept[row]].max() for row in range(6))
    assert session.supernet is not old
    assert len(session.supernet.cells) == len(old.cells) + 3
    assert {m.skip_dropout for m in session.supernet.modules() if hasattr(m, "skip_dropout")} == {0.3}


def test_the_result_is_of_the_epoch_that_a_stopping_rule_names(parts):
    @dataclass(frozen=True)
    class StopAfter(Hook):
        epoch: int = 3

        def after_epoch(self, session):
            if session.epoch == self.epoch:
                session.stop("enough", epoch=1)

    result = run(parts, SearchPlan(hooks=(StopAfter(),), alphas=AlphaSteps(learning_rate=0.3)), epochs=5)
    assert (len(result.history), result.epoch, result.stopped) == (3, 1, "enough")
    assert result.arch == result.history[0]["arch"] != result.history[-1]["arch"]


def test_a_search_goes_back_to_a_state_it_kept_bit_for_bit(parts):
    class Keeps(Hook):
        keeps = 3

    plan = SearchPlan(hooks=(Keeps(),), stages=(Stage(epochs=4),))
    with SearchSession(get_space("nasbench201"), task_of(parts), plan, build=BUILD) as session:
        states = []
        for _ in range(3):
            session.next_epoch()
            states.append(values(session.supernet))
        session.rewind(2)
        assert session.epoch == 2
        assert same(states[1], session.supernet.state_dict())
        session.next_epoch()
        assert same(states[2], session.supernet.state_dict())  # the same batches and random numbers again
        with pytest.raises(OptionError, match=r"after epoch 0 was not kept, only those of \[1, 2, 3\]"):
            session.rewind(0)


def test_perturbed_weights_are_those_of_the_steps_of_the_weights_only(parts):
    @dataclass(frozen=True)
    class ToFirst(Perturbation):
        def __call__(self, mixing, supernet, clock, loss):
            assert loss(mixing).item() > 0
            return Mixing({"cell": torch.eye(5)[torch.zeros(6, dtype=torch.long)]})

    plain, perturbed = (run(parts, SearchPlan(perturbation=p), epochs=1) for p in (None, ToFirst()))
    assert perturbed.history[0]["train_loss"] > plain.history[0]["train_loss"]  # nothing gets through


# ----------------------------------------------------------------------------------------------------------- resumption


@pytest.mark.parametrize("after", [1, 2])
def test_resume_equals_uninterrupted(parts, tmp_path, after):
    def interrupt(row):
        if row["epoch"] == after:
            raise Interrupted

    whole = run(parts, SearchPlan(), epochs=3)
    path = tmp_path / "search.pt"
    with pytest.raises(Interrupted):
        run(parts, SearchPlan(), epochs=3, checkpoint=path, on_epoch=interrupt)
    rows = []
    resumed = run(parts, SearchPlan(), epochs=3, checkpoint=path, on_epoch=rows.append)
    assert [row["epoch"] for row in rows] == list(range(after + 1, 4))
    assert resumed.history == whole.history
    assert same(whole.supernet.state_dict(), resumed.supernet.state_dict())
    again = run(parts, SearchPlan(), epochs=3, checkpoint=path)  # nothing left to do
    assert again.history == whole.history
    assert again.arch == whole.arch


def test_resume_over_the_border_of_stages(parts, tmp_path):
    plan = SearchPlan(stages=(Stage(epochs=1, keep=2), Stage(epochs=2, more_cells=1)))

    def interrupt(row):
        if row["epoch"] == 2:
            raise Interrupted

    whole = run(parts, plan, epochs=3)
    with pytest.raises(Interrupted):
        run(parts, plan, epochs=3, checkpoint=tmp_path / "c.pt", on_epoch=interrupt)
    resumed = run(parts, plan, epochs=3, checkpoint=tmp_path / "c.pt")
    assert resumed.history == whole.history
    assert same(whole.supernet.state_dict(), resumed.supernet.state_dict())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"space": "darts"}, "its space is nasbench201, not darts"),
        ({"plan": SearchPlan(partial=2)}, "its partial is 1, not 2"),
        ({"seed": 1}, "its seed is 0, not 1"),
    ],
)
def test_a_checkpoint_of_another_search_is_refused_and_kept(parts, tmp_path, change, told):
    path = tmp_path / "search.pt"
    run(parts, SearchPlan(), epochs=1, checkpoint=path)
    before = path.read_bytes()
    options = {"plan": SearchPlan(), "space": "nasbench201", **change}
    with pytest.raises(StoreError, match=told):
        run(parts, epochs=1, checkpoint=path, **options)
    assert path.read_bytes() == before


def test_searches_leave_the_global_random_state_and_depend_on_the_seed_alone(parts):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = run(parts, SearchPlan())
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    assert same(first.supernet.state_dict(), run(parts, SearchPlan()).supernet.state_dict())
    assert not same(first.supernet.state_dict(), run(parts, SearchPlan(), seed=1).supernet.state_dict())


# ------------------------------------------------------------------------------------------------------ what is refused


def test_alphas_that_are_no_numbers_end_the_search_and_keep_the_checkpoint(parts, tmp_path):
    @dataclass(frozen=True)
    class Breaks(Softmax):
        def after_step(self, supernet):
            if torch.initial_seed() and self.counter[0] >= 4:
                supernet.alphas["cell"].data[0, 0] = float("nan")
            self.counter[0] += 1

        counter: list = None

    plan = SearchPlan(relaxation=Breaks(counter=[0]))
    path = tmp_path / "search.pt"
    with pytest.raises(DivergedError, match="architecture parameter is no finite number in epoch 2 of 3"):
        run(parts, plan, epochs=3, checkpoint=path)
    assert path.exists()


def test_a_loss_that_is_no_number_is_told(parts):
    plan = SearchPlan(weights=WeightSteps(learning_rate=1e18, clip_norm=None))
    with pytest.raises(DivergedError, match=r"smaller learning rate than 1e\+18"):
        run(parts, plan)


@pytest.mark.parametrize(("part", "purpose"), [(0, "weights"), (1, "architecture")])
def test_a_part_smaller_than_a_batch_is_refused(parts, part, purpose):
    few = [data.subset(range(10)) if i == part else data for i, data in enumerate(parts)]
    with pytest.raises(OptionError, match=f"one batch of 32 images for the {purpose}.*holds 10.*batch_size of at most"):
        run(few, SearchPlan())


def test_test_images_are_refused(parts):
    with pytest.raises(OptionError, match="searched by"):
        run((parts[0], get_data("digits", split="test")), SearchPlan())


def test_a_space_of_one_option_is_refused(parts):
    @dataclass(frozen=True)
    class OnlyOne(Hook):
        def allowed(self, session):
            return {"cell": torch.eye(5, dtype=torch.bool)[torch.full((6,), 3)]}

    with pytest.raises(OptionError, match="every decision of nasbench201 has one option only"):
        run(parts, SearchPlan(hooks=(OnlyOne(),)))


def test_spaces_without_a_supernet_and_unknown_options_are_told(parts):
    with pytest.raises(UnknownNameError, match="natsbench_sss"):
        run(parts, SearchPlan(), space="natsbench_sss")
    with pytest.raises(OptionError, match=r"supernet of nasbench201 cannot be built.*depth"):
        make_supernet("nasbench201", depth=3)
    with pytest.raises(OptionError, match="width that is a multiple of partial=3, but got 4"):
        make_supernet("nasbench201", width=4, partial=3)


def test_parts_that_do_not_go_together_are_refused():
    class Hard(Softmax):
        soft = False

    class Any(Perturbation):
        def __call__(self, mixing, supernet, clock, loss):
            return mixing

    with pytest.raises(OptionError, match=r"Any perturbs weights that are all positive.*Hard"):
        SearchPlan(relaxation=Hard(), perturbation=Any())


# ------------------------------------------------------------------------------------------------ plans, tasks, presets


@pytest.mark.parametrize("epochs", [3, 4, 10, 75, 200])
def test_a_plan_of_another_length_keeps_the_shares_of_its_stages(epochs):
    stages = tuple(Stage(epochs=25, warmup=10) for _ in range(3))
    shorter = SearchPlan(stages=stages).lasting(epochs)
    assert shorter.epochs == epochs
    assert max(s.epochs for s in shorter.stages) - min(s.epochs for s in shorter.stages) <= 1
    assert all(s.warmup < s.epochs for s in shorter.stages)
    assert all(abs(s.warmup - 0.4 * s.epochs) < 1 for s in shorter.stages)


def test_a_plan_shorter_than_its_stages_is_refused():
    with pytest.raises(OptionError, match="one epoch for each of 3 stages, but got 2"):
        SearchPlan(stages=(Stage(),) * 3).lasting(2)


def test_batches_follow_from_seed_and_number(parts):
    one, two, other = task_of(parts), task_of(parts), task_of(parts, seed=1)
    assert all(map(torch.equal, one.valid_batch(7), two.valid_batch(7)))
    assert not torch.equal(one.valid_batch(7)[0], other.valid_batch(7)[0])
    labels = torch.cat([one.valid_batch(i)[1] for i in range(len(parts[1]) // 32)])
    assert sorted(labels.tolist()) == sorted(parts[1].labels.tolist())  # all of them before any again
    epochs = [torch.cat([x for x, _ in one.train_batches(e)]) for e in (0, 0, 1)]
    assert torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[0], epochs[2])


def test_a_clock_reaches_the_end_in_the_last_epoch():
    assert [Clock(e, 5).linear(10.0, 0.0) for e in range(5)] == [10.0, 7.5, 5.0, 2.5, 0.0]
    assert Clock(0, 1).linear(10.0, 0.0) == 10.0


def test_presets_are_found_and_their_mistakes_told():
    assert "darts" in list_presets()
    assert all(preset.reference and preset.summary for _, preset in presets)
    with pytest.raises(UnknownNameError, match=r"did you mean 'darts'\?"):
        get_plan("dartz")
    with pytest.raises(OptionError, match=r"speed.*darts"):
        get_plans("darts", speed=3)


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_describes_itself_by_plain_values_without_its_memory(name):
    import json

    for plan in get_plans(name):
        text = json.dumps(plan.describe())
        assert text == json.dumps(get_plans(name)[get_plans(name).index(plan)].describe())
        assert "0x" not in text


def test_magnitude_needs_parameters_that_tell_something_and_says_so_at_once():
    @dataclass(frozen=True)
    class Silent(Softmax):
        tells: ClassVar[bool] = False

    with pytest.raises(OptionError, match="Magnitude reads off what the alphas tell, but Silent"):
        SearchPlan(relaxation=Silent())

    @dataclass(frozen=True)
    class Always(Selection):
        needs_alphas: ClassVar[bool] = False

        def select(self, session):
            return (3,) * 6

    assert SearchPlan(relaxation=Silent(), selection=Always()).epochs == 50


def test_a_selection_that_needs_the_state_gets_that_of_the_epoch_that_counts(parts):
    seen = {}

    @dataclass(frozen=True)
    class StopAfter(Hook):
        returns: ClassVar[int] = 2

        def after_epoch(self, session):
            seen[session.epoch] = values(session.supernet)
            if session.epoch == 4:
                session.stop("enough", epoch=2)

    @dataclass(frozen=True)
    class Looks(Selection):
        needs_state: ClassVar[bool] = True

        def select(self, session):
            session.go_to_result()
            seen["selected"] = values(session.supernet)
            return (3,) * 6

    run(parts, SearchPlan(hooks=(StopAfter(),), selection=Looks()), epochs=5)
    assert same(seen["selected"], seen[2])
    assert not same(seen[4], seen[2])


def test_a_weight_that_is_no_number_at_the_end_of_an_epoch_is_told_before_it_is_kept(parts, tmp_path):
    @dataclass(frozen=True)
    class Breaks(Softmax):
        def after_epoch(self, session):
            if session.epoch == 1:
                next(session.supernet.parameters()).data.fill_(float("inf"))

    path = tmp_path / "search.pt"
    with pytest.raises(DivergedError, match="a weight is no finite number in epoch 2"):
        run(parts, SearchPlan(relaxation=Breaks()), epochs=3, checkpoint=path)
    state = torch.load(path, weights_only=True)
    assert state["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in state["supernet"].values())


def test_stages_that_leave_nothing_to_choose_are_refused_beforehand():
    with pytest.raises(OptionError, match=r"at least 2 operations.*keep=\[1, None\]"):
        SearchPlan(stages=(Stage(keep=1), Stage()))


def test_methods_that_do_not_suit_a_space_are_refused(parts):
    with pytest.raises(OptionError, match=r"partial channels do not suit the supernet of mobilenet.*nasbench201"):
        run_supernet_search("mobilenet", *parts, replace(SearchPlan(partial=4), batch_size=32).lasting(1))


def test_a_fixed_supernet_takes_its_mixing_along():
    net = make_supernet("nasbench201", **BUILD)
    alone = net.extract((3, 1, 0, 2, 4, 3))
    assert "weights_cell" in alone.state_dict()
    assert alone.double().mixing.weights["cell"].dtype == torch.float64


def test_a_fixed_supernet_is_a_model_of_its_own():
    net = make_supernet("nasbench201", **BUILD).eval()
    mixing = net.mixing_of((3, 1, 0, 2, 4, 3))
    images = torch.randn(2, 3, 8, 8, generator=torch_generator(0))
    assert isinstance(net.at(mixing), nn.Module)
    assert torch.equal(net.at(mixing)(images), net(images, mixing))
