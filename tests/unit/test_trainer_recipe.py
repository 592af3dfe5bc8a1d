"""Recipes, augmentation, and what a recipe does to the network: each value has its effect."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from naswot.constraints import ConstrainedSpace
from naswot.data.images import ImageSet
from naswot.errors import OptionError, UnknownNameError
from naswot.logits import logits_of
from naswot.seeding import derive_seed, numpy_generator, seeded, torch_generator
from naswot.space import get_space
from naswot.spaces._cell_network import CellPlan, _Cell
from naswot.training._session import both_logits, schedule_of, set_drop_path
from naswot.training.augment import augment, cutout, random_crop, random_flip
from naswot.training.loop import train
from naswot.training.recipe import RECIPES, TrainingRecipe, get_recipe, recipe_for


def blobs(n=64):
    generator = torch_generator(0)
    targets = torch.arange(n) % 2
    images = 0.1 * torch.rand(n, 1, 4, 4, generator=generator) + 0.8 * targets.reshape(-1, 1, 1, 1)
    return ImageSet("blobs", images, targets, 2, (0.5,), (0.5,))


def linear(seed=0):
    with seeded(seed):
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))


def cell_network(**options):
    space = get_space("darts")
    with seeded(0):
        return space.build(space.sample(numpy_generator(0)), n_classes=10, **{"width": 4, "n_cells": 3, **options})


def test_named_recipes_say_what_was_published():
    darts = get_recipe("darts_cifar")
    assert (darts.epochs, darts.batch_size, darts.learning_rate, darts.final_learning_rate) == (600, 96, 0.025, 0.0)
    assert (darts.momentum, darts.nesterov, darts.weight_decay, darts.clip_norm) == (0.9, False, 3e-4, 5.0)
    assert (darts.cutout, darts.drop_path, darts.auxiliary_weight, darts.cosine) == (16, 0.2, 0.4, "epoch")
    assert (darts.crop_padding, darts.flip) == (4, True)
    quick = get_recipe("quick")
    assert (quick.batch_size, quick.learning_rate, quick.weight_decay, quick.nesterov) == (64, 0.05, 5e-4, True)
    assert (quick.flip, quick.crop_padding, quick.cutout, quick.cosine) == (False, 0, 0, "step")
    assert not get_recipe("augmented").flip  # a mirrored digit is another one or none
    assert get_recipe("quick", epochs=9) == dataclasses.replace(quick, epochs=9)


def test_a_space_may_set_the_learning_rate_of_a_recipe():
    recipe = get_recipe("quick", epochs=9, final_learning_rate=0.04)
    evolved = get_space("evolved_graph")
    plain = get_space("nasbench201")
    assert recipe_for(plain, plain.sample(numpy_generator(0)), recipe) is recipe
    faster = recipe_for(evolved, evolved.parse("lr0.4"), recipe)
    assert faster == dataclasses.replace(recipe, learning_rate=0.4)
    slower = recipe_for(evolved, evolved.parse("lr0.025"), recipe)  # it cannot end above its start
    assert slower == dataclasses.replace(recipe, learning_rate=0.025, final_learning_rate=0.025)
    limited = ConstrainedSpace(evolved, {"size": 9}, {"size": lambda genotype: 1})
    assert recipe_for(limited, evolved.parse("lr0.4"), recipe) == faster


@pytest.mark.parametrize("name", RECIPES)
def test_a_description_gives_the_recipe_back(name):
    recipe = get_recipe(name)
    assert TrainingRecipe(**json.loads(json.dumps(recipe.describe()))) == recipe


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"epochs": 0}, "epochs of at least 1, but got 0"),
        ({"epochs": 2.5}, "a whole number as epochs, but got 2.5"),
        ({"epochs": True}, "a whole number as epochs"),
        ({"batch_size": 0}, "batch_size of at least 1"),
        ({"learning_rate": 0.0}, "learning_rate above 0"),
        ({"learning_rate": math.nan}, "a finite learning_rate, but got nan"),
        ({"final_learning_rate": 1.0}, "final_learning_rate to be at most the learning_rate of 0.05"),
        ({"momentum": 1.0}, "momentum from 0 to below 1"),
        ({"momentum": 0.0}, "nesterov needs a momentum"),
        ({"weight_decay": -1.0}, "weight_decay of at least 0"),
        ({"clip_norm": 0.0}, "clip_norm above 0, or None"),
        ({"label_smoothing": 1.0}, "label_smoothing from 0 to below 1"),
        ({"cutout": -1}, "cutout of at least 0"),
        ({"drop_path": 1.0}, "drop_path from 0 to below 1"),
        ({"ema_decay": 1.0}, "ema_decay from 0 to below 1"),
        ({"warmup_epochs": 5}, "warmup_epochs from 0 to 4, below epochs, but got 5"),
        ({"precision": "16"}, "precision to be one of 32-true, bf16-mixed, 16-mixed, but got '16'"),
        ({"cosine": "batch"}, "cosine to be one of step, epoch"),
        ({"learning_rat": 1.0}, "a recipe has no 'learning_rat'; it has epochs, batch_size"),
    ],
)
def test_what_does_not_fit_is_named(values, told):
    with pytest.raises(OptionError, match=told):
        get_recipe("quick", **values)


def test_an_unknown_recipe_is_named():
    with pytest.raises(UnknownNameError, match="did you mean 'darts_cifar'"):
        get_recipe("darts_cfar")


def numbered(n, height, width, channels=2):
    """Images whose values are all different and not 0."""
    return torch.arange(1, n * channels * height * width + 1).float().reshape(n, channels, height, width)


def test_cutout_clears_one_square_clipped_at_the_borders():
    images = numbered(2000, 10, 7)
    result = cutout(images, 4, generator=torch_generator(0))
    cleared = result == 0
    assert torch.equal(result[~cleared], images[~cleared])
    assert torch.equal(cleared[:, 0], cleared[:, 1])
    rows, columns = cleared[:, 0].any(2), cleared[:, 0].any(1)
    assert torch.equal(cleared[:, 0], rows[:, :, None] & columns[:, None, :])  # a rectangle
    heights, widths = rows.sum(1), columns.sum(1)
    # centre y in 0..9 clears rows y-2 to y+1: 2 at 0, 3 at 1 and at 9, else 4
    assert heights.bincount(minlength=5).tolist()[:2] == [0, 0]
    assert (heights.bincount(minlength=5)[2:] / 2000).tolist() == pytest.approx([0.1, 0.2, 0.7], abs=0.035)  # 3 sigma
    assert (widths.bincount(minlength=5)[2:] / 2000).tolist() == pytest.approx([1 / 7, 2 / 7, 4 / 7], abs=0.035)
    top = rows.int().argmax(1)
    assert sorted(set(top.tolist())) == list(range(8))
    starts_clipped = heights[top == 0]
    assert sorted(set(starts_clipped.tolist())) == [2, 3, 4]


def test_a_darts_cutout_has_the_published_area():
    cleared = (cutout(torch.ones(3000, 3, 32, 32), 16, generator=torch_generator(1)) == 0).sum(dim=(1, 2, 3)) / 3
    assert int(cleared.max()) == 256
    assert int(cleared.min()) >= 64  # a corner: 8 x 8
    mean = (sum(min(32, c + 8) - max(0, c - 8) for c in range(32)) / 32) ** 2  # rows and columns are independent
    assert float(cleared.mean()) == pytest.approx(mean, rel=0.02)


def test_an_odd_side_keeps_its_size_inside():
    cleared = (cutout(torch.ones(500, 1, 9, 9), 3, generator=torch_generator(0)) == 0)[:, 0].sum(dim=(1, 2))
    assert set(cleared.tolist()) == {4, 6, 9}


def test_a_crop_is_a_window_of_the_padded_image():
    images = numbered(300, 5, 4)
    result = random_crop(images, 2, generator=torch_generator(0))
    assert result.shape == images.shape
    assert result.is_contiguous()
    padded = F.pad(images, (2, 2, 2, 2))
    seen = set()
    for before, after in zip(padded, result, strict=True):
        places = [(y, x) for y in range(5) for x in range(5) if torch.equal(before[:, y : y + 5, x : x + 4], after)]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) == 25


def test_a_flip_mirrors_half_of_the_images():
    images = numbered(400, 3, 4)
    result = random_flip(images, generator=torch_generator(0))
    kept = (result == images).all(dim=(1, 2, 3))
    mirrored = (result == images.flip(-1)).all(dim=(1, 2, 3))
    assert bool((kept ^ mirrored).all())
    assert 160 < int(mirrored.sum()) < 240  # 4 sigma


def test_augmentation_does_what_the_recipe_says_and_no_more():
    images = numbered(8, 4, 4)
    generator = torch_generator(0)
    assert augment(images, get_recipe("quick"), generator=generator) is images
    assert torch.equal(generator.get_state(), torch_generator(0).get_state())
    result = augment(images, get_recipe("quick", flip=True, cutout=2), generator=torch_generator(3))
    drawn = torch_generator(3)
    assert torch.equal(result, cutout(random_flip(images, generator=drawn), 2, generator=drawn))


def rates_of(recipe, steps):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], recipe.learning_rate)
    schedule = schedule_of(optimizer, recipe, steps)
    rates = []
    for _ in range(recipe.epochs * (steps if recipe.cosine == "step" else 1)):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return [*rates, optimizer.param_groups[0]["lr"]]


def test_a_cosine_goes_from_one_end_to_the_other():
    recipe = get_recipe("darts_cifar", epochs=10, final_learning_rate=0.001)
    rates = rates_of(recipe, 7)
    assert len(rates) == 11
    expected = [0.001 + 0.024 * (1 + math.cos(math.pi * epoch / 10)) / 2 for epoch in range(11)]
    assert rates == pytest.approx(expected)
    by_step = rates_of(get_recipe("quick", epochs=3), 5)
    assert by_step == pytest.approx([0.05 * (1 + math.cos(math.pi * step / 15)) / 2 for step in range(16)])
    assert by_step[-1] == pytest.approx(0.0, abs=1e-12)


def test_a_warm_up_rises_linearly_before_the_cosine():
    rates = rates_of(get_recipe("quick", epochs=6, warmup_epochs=2, learning_rate=0.3, cosine="epoch"), 5)
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert rates[2:] == pytest.approx([0.15 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(5)])
    steps = rates_of(get_recipe("quick", epochs=3, warmup_epochs=1, learning_rate=0.3), 5)
    assert steps[:6] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25, 0.3])


def test_the_history_tells_the_rate_of_an_epochs_last_step():
    by_epoch = train(linear(), blobs(), None, get_recipe("quick", epochs=2, batch_size=16, cosine="epoch"))
    assert [row["learning_rate"] for row in by_epoch.history] == pytest.approx([0.05, 0.025])
    by_step = train(linear(), blobs(), None, get_recipe("quick", epochs=2, batch_size=16))
    expected = [0.025 * (1 + math.cos(math.pi * step / 8)) for step in (3, 7)]
    assert [row["learning_rate"] for row in by_step.history] == pytest.approx(expected)


def test_drop_path_grows_with_the_epochs_and_is_put_back():
    model = cell_network(drop_prob=0.11)
    seen = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append((module.training, module.drop_prob)))
    images = ImageSet("noise", torch.rand(8, 3, 8, 8), torch.arange(8) % 2, 10, (0.5,) * 3, (0.5,) * 3)
    train(model, images, images, get_recipe("quick", epochs=4, batch_size=8, drop_path=0.2))
    assert [p for training, p in seen if training] == pytest.approx([0.0, 0.05, 0.1, 0.15])
    assert model.drop_prob == 0.11
    seen.clear()
    train(model, images, None, get_recipe("quick", epochs=1, batch_size=8))  # None leaves it as it is built
    assert seen == [(True, 0.11)]


def test_drop_path_keeps_the_mean_and_spares_identities():
    model = cell_network()
    assert set_drop_path(model, 0.3) == 1
    assert set_drop_path(linear(), 0.3) == 0
    with seeded(0):
        plan = CellPlan((("skip_connect", 0), ("avg_pool_3x3", 1)), (2,))
        cell = _Cell(plan, 2, 2, 2, reduces=False, halved=False).train()
        for module in cell.inputs:
            module[2].eval()  # a normalisation by the batch would hide what is dropped
        x = torch.rand(4000, 2, 4, 4)
        whole, identity = cell(x, x, 0.0), cell.inputs[0](x)
        dropped = cell(x, x, 0.3)
    pooled = whole - identity
    kept = (dropped - identity).abs().amax(dim=(1, 2, 3)) > 1e-6
    has_signal = pooled.abs().amax(dim=(1, 2, 3)) > 1e-3
    assert float(kept[has_signal].float().mean()) == pytest.approx(0.7, abs=0.03)  # 4 sigma
    gone = dropped[has_signal & ~kept]
    assert torch.allclose(gone, identity[has_signal & ~kept], atol=1e-6)  # the identity is there all the same
    assert torch.allclose(dropped[kept] - identity[kept], pooled[kept] / 0.7, atol=1e-5)


def test_a_second_classifier_counts_in_training_only():
    model = cell_network(auxiliary=True, n_cells=3)
    images = torch.rand(4, 3, 32, 32)
    model.train()
    first, second = both_logits(model, model(images))
    assert first.shape == second.shape == (4, 10)
    assert logits_of(model.eval()(images)).shape == (4, 10)
    assert both_logits(model, model(images)).second is None
    assert both_logits(linear(), (torch.zeros(4, 9), first)).second is None  # features and logits
    assert both_logits(linear(), (torch.zeros(4, 9), first)).first is first
    data = ImageSet("noise", images, torch.arange(4), 10, (0.5,) * 3, (0.5,) * 3)
    heads, losses, mains = [], [], []
    for weight in (0.0, 0.4):
        trained = cell_network(auxiliary=True, n_cells=3)
        before = trained.auxiliary[-1].weight.clone()
        recipe = get_recipe("quick", epochs=1, batch_size=4, auxiliary_weight=weight, weight_decay=0.0)
        losses.append(train(trained, data, None, recipe).train_loss)
        heads.append(torch.equal(trained.auxiliary[-1].weight, before))
        mains.append(trained.stem[0][0].weight.detach())
    assert heads == [True, False]  # it learns only if it counts
    assert losses[0] == losses[1]  # what is told is the loss of the first classifier
    assert not torch.equal(*mains)  # and what it learns reaches the stem


def one_step(**values):
    """The weights' change in one step on one batch, and the gradient of the plain loss."""
    model = linear()
    before = [p.detach().clone() for p in model.parameters()]
    recipe = get_recipe(
        "quick", **{"epochs": 1, "batch_size": 64, "weight_decay": 0.0, "momentum": 0.0, "nesterov": False, **values}
    )
    train(model, blobs(), None, recipe)
    return [(old - new.detach()) / recipe.learning_rate for old, new in zip(before, model.parameters(), strict=True)]


def gradients(smoothing=0.0):
    model = linear()
    images, labels = blobs().tensors()
    loss = F.cross_entropy(model(images), labels, label_smoothing=smoothing)
    return torch.autograd.grad(loss, list(model.parameters()))


def close(first, second):
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(first, second, strict=True))


def test_smoothing_clipping_and_decay_have_their_effect():
    assert close(one_step(clip_norm=None), gradients())
    assert close(one_step(clip_norm=None, label_smoothing=0.2), gradients(0.2))
    assert not close(gradients(), gradients(0.2))
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients()))
    clipped = one_step(clip_norm=norm / 4)
    assert close(clipped, [g / 4 for g in gradients()])
    assert close(one_step(clip_norm=4 * norm), gradients())
    decayed = one_step(clip_norm=None, weight_decay=0.5)
    assert close(decayed, [g + 0.5 * p.detach() for g, p in zip(gradients(), linear().parameters(), strict=True)])


def test_the_running_mean_of_the_weights_is_what_is_kept_and_validated():
    recipe = get_recipe("quick", epochs=3, batch_size=16, ema_decay=0.8)
    weights = []

    def note(module, inputs):
        if module.training:
            weights.append(module[1].weight.detach().clone())

    plain = linear()
    train(plain, blobs(), None, get_recipe("quick", epochs=3, batch_size=16))
    followed = linear()
    followed.register_forward_pre_hook(note)
    train(followed, blobs(), None, get_recipe("quick", epochs=3, batch_size=16))
    seen = [*weights[1:], plain[1].weight.detach()]  # after each step
    mean = seen[0]
    for weight in seen[1:]:
        mean = 0.8 * mean + 0.2 * weight
    averaged = linear()
    result = train(averaged, blobs(), blobs(), recipe)
    assert torch.allclose(averaged[1].weight, mean, atol=1e-6)
    assert not torch.allclose(plain[1].weight, mean, atol=1e-3)
    images, labels = blobs().tensors()
    loss = F.cross_entropy(averaged(images), labels).item()
    assert result.history[-1]["valid_loss"] == pytest.approx(loss, rel=1e-5)


def test_channels_last_changes_the_layout_and_not_the_result():
    def convolution():
        with seeded(0):
            return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

    colour = blobs()
    data = ImageSet("blobs", colour.images.repeat(1, 3, 1, 1), colour.labels, 2, (0.5,) * 3, (0.5,) * 3)
    layouts = []
    results = []
    for last in (False, True):
        model = convolution()
        model[0].register_forward_pre_hook(
            lambda module, inputs: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
        )
        results.append(train(model, data, None, get_recipe("quick", batch_size=16, epochs=2, channels_last=last)))
        assert model[0].weight.is_contiguous()
    assert layouts == [False] * 8 + [True] * 8
    assert results[0].train_loss == pytest.approx(results[1].train_loss, rel=1e-4)


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_weights():
    types = []
    model = linear()
    model[1].register_forward_hook(lambda module, inputs, result: types.append(result.dtype))
    result = train(model, blobs(), blobs(), get_recipe("quick", epochs=3, batch_size=16, precision="bf16-mixed"))
    assert set(types) == {torch.bfloat16}
    assert model[1].weight.dtype == torch.float32
    assert result.valid_accuracy > 90
    with pytest.raises(OptionError, match="'16-mixed' needs a GPU"):
        train(linear(), blobs(), None, get_recipe("quick", precision="16-mixed"))


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(OptionError, match="device 'nowhere' cannot be used here"):
        train(linear(), blobs(), None, get_recipe("quick"), device="nowhere")
    with pytest.raises(OptionError, match="devices and num_nodes of at least 1, but got 0"):
        train(linear(), blobs(), None, get_recipe("quick", batch_size=4), devices=0)
    with pytest.raises(OptionError, match="that 3 devices can share alike, but got 64 images; take 63"):
        train(linear(), blobs(), None, get_recipe("quick"), devices=3)


def test_the_order_of_the_images_is_drawn_anew_each_epoch_from_the_seed():
    seen = []
    model = linear()
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].sum(dim=(1, 2, 3))))
    train(model, blobs(), None, get_recipe("quick", epochs=2, batch_size=24), seed=5)
    order = torch_generator(derive_seed(5, "order"))
    sums = blobs().tensors()[0].sum(dim=(1, 2, 3))
    expected = [part for _ in range(2) for part in sums[torch.randperm(64, generator=order)[:48]].split(24)]
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))


def test_images_change_in_another_way_each_epoch():
    ramp = torch.arange(1.0, 17.0).reshape(1, 1, 4, 4).repeat(64, 1, 1, 1) / 16
    data = ImageSet("ramps", ramp, torch.arange(64) % 2, 2, (0.0,), (1.0,))
    seen = []
    for seed in (0, 0, 1):
        model = linear()
        model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
        train(model, data, None, get_recipe("quick", epochs=2, crop_padding=1, cutout=2), seed=seed)
    assert not torch.equal(seen[0], seen[1])
    assert all(torch.equal(seen[epoch], seen[2 + epoch]) for epoch in range(2))
    assert not torch.equal(seen[0], seen[4])
