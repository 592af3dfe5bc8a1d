"""R-DARTS: its plans, drop-path and cutout that grow, and what the published logs say about weight decay."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean

import pytest
import torch

from naswot.data import get_data
from naswot.differentiable.architects import SecondOrder
from naswot.differentiable.plan import Hook, SearchPlan, Stage
from naswot.differentiable.preset import get_plan, get_plans
from naswot.differentiable.regularisers import DropPathRamp
from naswot.differentiable.searching import run_supernet_search
from naswot.differentiable.session import SearchSession
from naswot.differentiable.tasks import ImageTask
from naswot.errors import OptionError
from naswot.space import get_space
from naswot.supernets._edges import MixedEdge
from naswot.training.splits import three_way_split

BUILD = {"width": 4, "n_cells": 1}


@pytest.fixture(scope="module")
def parts():
    return three_way_split(get_data("digits").subset(range(128)), valid_fraction=0.5)


# ---------------------------------------------------------------------------------------------------------------- plans


def test_r_darts_l2_is_second_order_with_1_3_9_and_27_times_the_weight_decay():
    plans = get_plans("r_darts_l2")
    assert [plan.weights.weight_decay for plan in plans] == pytest.approx([3e-4 * factor for factor in (1, 3, 9, 27)])
    same = {repr(replace(plan, weights=get_plan("darts").weights)) for plan in plans}
    assert same == {repr(get_plan("darts_2nd"))}
    assert plans[0].architect == SecondOrder()


def test_r_darts_dp_is_second_order_with_four_maxima_of_drop_path():
    plans = get_plans("r_darts_dp")
    assert [plan.hooks for plan in plans] == [(DropPathRamp(p, 16, 1.0),) for p in (0.0, 0.2, 0.4, 0.6)]
    assert {repr(replace(plan, hooks=())) for plan in plans} == {repr(get_plan("darts_2nd"))}
    assert [plan.hooks[0].cutout for plan in get_plans("r_darts_dp", cutout=4)] == [4] * 4


# ----------------------------------------------------------------------------------------------------------------- ramp


@dataclass(frozen=True)
class Watch(Hook):
    """What the regulariser before it has set for each epoch, and the training images of it."""

    seen: list

    def before_epoch(self, session):
        edges = {module.drop_prob for module in session.supernet.modules() if isinstance(module, MixedEdge)}
        first, _ = next(iter(session.task.train_batches(session.epoch)))
        self.seen.append((*edges, session.task.cutout_probability, session.task.cutout, first))

    def __deepcopy__(self, memo):
        return self


def watched(parts, hook):
    seen = []
    plan = SearchPlan(hooks=(hook, Watch(seen)), stages=(Stage(epochs=5),), architect=None)
    task = ImageTask(*parts, batch_size=64)
    with SearchSession(get_space("nasbench201"), task, plan, build=BUILD) as session:
        while not session.ended:
            session.next_epoch()
    return seen, task


def test_drop_path_and_cutout_rise_along_a_line_from_nothing_to_the_maximum_in_the_last_epoch(parts):
    seen, _ = watched(parts, DropPathRamp(0.4, cutout=3, cutout_probability=0.8))
    assert [row[0] for row in seen] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert [row[1] for row in seen] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
    assert {row[2] for row in seen} == {3}


def test_squares_are_cut_out_of_more_and_more_training_images(parts):
    seen, task = watched(parts, DropPathRamp(0.4, cutout=3))
    shares = []
    for epoch, (*_, images) in enumerate(seen):
        plain = next(iter(task.train_batches(epoch)))[0]  # after the search nothing is cut
        shares.append(float((images != plain).flatten(1).any(1).float().mean()))
    assert shares[0] == 0.0
    assert all(a < b for a, b in pairwise(shares))
    assert shares[4] > 0.9  # a square of dark pixels changes nothing


def test_the_images_that_the_architecture_learns_from_stay_whole(parts):
    task = ImageTask(*parts, batch_size=64)
    before = task.valid_batch(0)[0].clone()
    task.cutout, task.cutout_probability = 3, 1.0
    assert torch.equal(before, task.valid_batch(0)[0])
    assert torch.equal(before, ImageTask(*parts, batch_size=64).valid_batch(0)[0])


def test_another_search_of_the_same_task_sees_whole_images(parts):
    _, task = watched(parts, DropPathRamp(0.4, cutout=3))
    fresh = ImageTask(*parts, batch_size=64)
    for (images, _), (wanted, _) in zip(task.train_batches(4), fresh.train_batches(4), strict=True):
        assert torch.equal(images, wanted)


def test_without_drop_path_nothing_is_cut_either(parts):
    seen, _ = watched(parts, DropPathRamp(0.0, cutout=3))
    assert {row[:3] for row in seen} == {(0.0, 0.0, 0)}


def test_edges_are_dropped_with_the_probability_of_the_epoch(parts):
    plan = SearchPlan(hooks=(DropPathRamp(0.6, cutout=0),), stages=(Stage(epochs=3),), architect=None)
    with SearchSession(get_space("nasbench201"), ImageTask(*parts, batch_size=64), plan, build=BUILD) as session:
        session.epoch = 2
        session.hooks[0].before_epoch(session)
        edge = session.supernet.train().cells[0].edges[0]
        mixing = session.relaxation.for_weights(session.supernet, session.clock)
        gone = edge(torch.rand(4000, 4, 2, 2), mixing).flatten(1).abs().sum(1) == 0
    assert float(gone.float().mean()) == pytest.approx(0.6, abs=0.03)


def test_resume_equals_uninterrupted_with_drop_path_and_cutout(parts, tmp_path):
    class Interrupted(Exception):
        pass

    def interrupt(row):
        if row["epoch"] == 1:
            raise Interrupted

    plan = replace(get_plans("r_darts_dp", cutout=3)[3].lasting(3), batch_size=32)
    whole = run_supernet_search("nasbench201", *parts, plan, build=BUILD)
    with pytest.raises(Interrupted):
        run_supernet_search("nasbench201", *parts, plan, build=BUILD, checkpoint=tmp_path / "c", on_epoch=interrupt)
    resumed = run_supernet_search("nasbench201", *parts, plan, build=BUILD, checkpoint=tmp_path / "c")
    assert resumed.history == whole.history
    first, second = whole.supernet.state_dict(), resumed.supernet.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_tasks_without_images_are_told(parts):
    class Other(ImageTask):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            del self.cutout_probability

        def _changed(self, images, generator):
            return images

    task = Other(*parts, batch_size=64)
    for hook, error in ((DropPathRamp(0.2, cutout=0), None), (DropPathRamp(0.2), "Other has no images to cut")):
        plan = SearchPlan(hooks=(hook,), stages=(Stage(epochs=1),), architect=None)
        with SearchSession(get_space("nasbench201"), task, plan, build=BUILD) as session:
            if error is None:
                session.next_epoch()
            else:
                with pytest.raises(OptionError, match=error):
                    session.next_epoch()


@pytest.mark.parametrize("options", [{"maximum": 1.0}, {"maximum": -0.1}, {"cutout": -1}, {"cutout_probability": 1.1}])
def test_numbers_that_do_not_fit_are_refused(options):
    with pytest.raises(OptionError, match="0 <= maximum < 1"):
        DropPathRamp(**options)


# --------------------------------------------------------------------------------------------------- the published logs
#
# Skips take over in tens of epochs on CIFAR-10 at the published width, far beyond a test on a CPU, so that skips fall
# as weight decay rises is held against the genotypes that the original searches ended with.


def skips_in_logs(data_root, place):
    """Skips of the normal cell by (drop-path, weight decay), one for each seed."""
    text = (data_root / "robustdarts_logs" / "results_arch.yaml").read_text()
    text = re.sub(r"\n {6,}", " ", text)  # genotypes are broken over lines
    blocks = dict(re.findall(r"^(\S+):\n((?: .*\n?)+)", text, re.M))
    found = {}
    for name, rows in re.findall(r"^  (\S+):\n((?: {4}.*\n?)+)", blocks[place], re.M):
        drop, decay = map(float, name.split("_"))
        cells = re.findall(r"normal=(\[.*?\]), normal_concat", rows)
        found[drop, decay] = [sum(op == "skip_connect" for op, _ in ast.literal_eval(cell)) for cell in cells]
    return found


def test_in_the_published_searches_skips_fall_as_weight_decay_rises(data_root):
    found = skips_in_logs(data_root, "s1_cifar10")
    by_decay = {plan.weights.weight_decay: found[0.0, plan.weights.weight_decay] for plan in get_plans("r_darts_l2")}
    assert by_decay[3e-4] == [7, 7, 7]
    assert by_decay[81e-4] == [2, 2, 2]
    means = [fmean(skips) for skips in by_decay.values()]
    assert means[0] > means[2] > means[3]
    assert fmean(found[0.0, 243e-4]) <= means[3]


def test_in_the_published_searches_too_much_weight_decay_collapses_again(data_root):
    found = skips_in_logs(data_root, "s3_svhn")
    means = {decay: fmean(skips) for (drop, decay), skips in sorted(found.items()) if drop == 0.0}
    assert found[0.0, 3e-4] == [8, 8, 8]
    assert min(means.values()) < 1.0
    assert means[0.0729] == 8.0
    assert min(means, key=means.get) == 81e-4  # the strongest that R-DARTS tries
