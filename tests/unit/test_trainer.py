"""The training loop: what it learns, from what it goes on, what it refuses."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from torch import nn

from naswot.data import get_data
from naswot.data.images import ImageSet
from naswot.errors import (
    DivergedError,
    InputError,
    MemoryShortageError,
    OptionError,
    StoreError,
    TrainingError,
)
from naswot.seeding import seeded, torch_generator
from naswot.space import get_space
from naswot.training.brief import train_briefly
from naswot.training.loop import test_accuracy as accuracy_on_test
from naswot.training.loop import train
from naswot.training.recipe import get_recipe
from naswot.training.splits import LabelledImages, three_way_split

QUICK = get_recipe("quick", epochs=2, batch_size=16)


def blobs(n=64, *, split="train", labels=True):
    """Images of two classes that differ by their mean: any network learns them."""
    generator = torch_generator(0)
    targets = torch.arange(n) % 2
    images = 0.1 * torch.rand(n, 1, 4, 4, generator=generator) + 0.8 * targets.reshape(-1, 1, 1, 1)
    return ImageSet("blobs", images, targets if labels else None, 2, (0.5,), (0.5,), split=split)


def network(seed=0, *, dropout=0.0):
    with seeded(seed):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(16, 2)
        )


def same(first, second):
    one, two = first.state_dict(), second.state_dict()
    return all(torch.equal(one[name], two[name]) for name in one)


def test_digits_are_learned_in_three_epochs():
    train_set, valid = three_way_split(get_data("digits", size=8), valid_fraction=0.2, seed=0)
    with seeded(0):
        model = get_space("nasbench201").build((3, 1, 1, 1, 1, 3), width=8, n_cells=1)
    result = train(model, train_set, valid, get_recipe("quick", epochs=3), seed=0)
    assert result.valid_accuracy > 80
    assert accuracy_on_test(model, get_data("digits", size=8, split="test")) > 80
    assert result.epochs == 3
    assert result.train_losses[2] < result.train_losses[0] / 2
    assert result.train_loss == result.train_losses[-1]
    assert result.valid_accuracies[result.best_epoch - 1] == max(result.valid_accuracies)
    assert [row["epoch"] for row in result.history] == [1, 2, 3]
    assert result.history[-1]["valid_loss"] < result.history[0]["valid_loss"] < math.log(10)
    assert result.seconds > 0


def test_the_quick_recipe_is_the_brief_training_to_the_last_bit():
    """So that accuracies of ``naswot search`` and of ``benchmark build`` are those of ``naswot train``."""
    images = get_data("digits", size=8).subset(range(300))
    models = []
    for _ in range(2):
        with seeded(0):
            models.append(get_space("nasbench201").build((3, 1, 2, 1, 4, 3), width=4, n_cells=1))
    brief = train_briefly(models[0], images, images, epochs=2, seed=7)
    result = train(models[1], images, images, get_recipe("quick", epochs=2), seed=7)
    assert (brief.loss, brief.accuracy) == (result.train_loss, result.valid_accuracy)
    assert same(*models)


def test_images_stay_bytes_and_are_normalised_by_the_batch():
    data = get_data("digits", size=8)
    raw = ImageSet("bytes", (255 * data.images).to(torch.uint8), data.labels, 10, data.mean, data.std)
    held = LabelledImages(raw, "cpu")
    images, labels = raw.tensors()
    taken = list(held.batches(100))
    assert torch.equal(torch.cat([x for x, _ in taken]), images)
    assert torch.equal(torch.cat([y for _, y in taken]), labels)
    assert max(len(y) for _, y in taken) == 100
    parts = [[y for _, y in held.batches(100, share=share, of=3)] for share in range(3)]
    assert all(torch.equal(torch.cat(part), labels[share::3]) for share, part in enumerate(parts))
    assert all(len(y) <= 100 for part in parts for y in part)
    chosen = torch.tensor([5, 2, 900])
    assert torch.equal(held.batch(chosen)[0], images[chosen])


def test_only_the_seed_decides():
    results = []
    for seed, noise in ((1, 5), (1, 6), (2, 5)):
        torch.manual_seed(noise), np.random.seed(noise), random.seed(noise)
        states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        model = network(dropout=0.3)
        train(model, blobs(), blobs(), QUICK, seed=seed)
        assert torch.equal(torch.get_rng_state(), states[0])
        assert np.array_equal(np.random.get_state()[1], states[1])
        assert random.getstate() == states[2]
        results.append(model)
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_test_images_are_refused_until_the_end():
    test = blobs(split="test")
    with pytest.raises(OptionError, match="test images of blobs cannot be trained or validated on"):
        train(network(), blobs(), test, QUICK)
    with pytest.raises(OptionError, match="test images"):
        train(network(), test, None, QUICK)
    with pytest.raises(OptionError, match="test images"):
        three_way_split(test, valid_fraction=0.5)
    with pytest.raises(OptionError, match="expected test images, but got the train part"):
        accuracy_on_test(network(), blobs())
    constant = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    nn.init.zeros_(constant[1].weight)
    constant[1].bias.data = torch.tensor([1.0, 0.0])
    assert accuracy_on_test(constant, blobs(10, split="test")) == 50.0


def test_a_split_is_disjoint_complete_and_by_seed():
    data = get_data("digits", size=8)
    parts = [three_way_split(data, valid_fraction=0.25, seed=seed) for seed in (0, 0, 1)]
    train_set, valid = parts[0]
    assert len(valid) == round(0.25 * len(data))
    rows = [image.numpy().tobytes() for part in (train_set, valid) for image in part.images]
    assert sorted(rows) == sorted(image.numpy().tobytes() for image in data.images)
    assert torch.equal(valid.images, parts[1][1].images)
    assert not torch.equal(valid.images, parts[2][1].images)


def test_without_validation_images_there_is_no_accuracy():
    result = train(network(), blobs(), None, QUICK)
    assert result.valid_accuracies == ()
    with pytest.raises(InputError, match="no validation images"):
        result.valid_accuracy  # noqa: B018
    with pytest.raises(InputError, match="needs labels"):
        train(network(), blobs(labels=False), None, QUICK)


def test_a_loss_that_is_not_finite_ends_the_training_at_once():
    model, steps = network(), []
    model.register_forward_hook(lambda module, inputs, result: steps.append(1))
    recipe = get_recipe("quick", epochs=3, batch_size=16, learning_rate=1e30, clip_norm=None)
    with pytest.raises(DivergedError, match=r"step \d of 4 of epoch 1, at a learning rate of .*e\+\d\d") as caught:
        train(model, blobs(), blobs(), recipe)
    assert isinstance(caught.value, TrainingError)
    assert len(steps) <= 3


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_too_little_memory_names_a_smaller_batch(error, monkeypatch):
    model = network()

    def forward(x):
        raise error

    monkeypatch.setattr(model[0], "forward", forward)
    with pytest.raises(MemoryShortageError, match=r"batch_size=16 .* does not fit into memory; take batch_size=8$"):
        train(model, blobs(), None, QUICK)


def test_other_errors_of_a_model_are_its_own(monkeypatch):
    model = network()
    with pytest.raises(RuntimeError, match="expected input"):
        train(nn.Conv2d(3, 2, 3), blobs(), None, QUICK)
    with pytest.raises(InputError, match="do not fit the network Sequential"):
        train(model, blobs(), None, QUICK, initial_state={"0.weight": torch.zeros(1)})


def test_an_initial_state_is_where_training_begins():
    model = network(1)
    train(model, blobs(), None, QUICK, initial_state=network(0).state_dict())
    expected = network(0)
    train(expected, blobs(), None, QUICK)
    assert same(model, expected)


class _Stop(Exception):
    pass


def stop_after(last):
    def on_epoch(epoch, metrics):
        if epoch == last:
            raise _Stop

    return on_epoch


FULL = get_recipe(
    "augmented", epochs=5, batch_size=16, ema_decay=0.9, warmup_epochs=2, drop_path=0.3, flip=True, cutout=2
)


@pytest.mark.parametrize("cosine", ["step", "epoch"])
@pytest.mark.parametrize("last", [1, 2, 4, 5])
def test_going_on_gives_the_same_bits(tmp_path, last, cosine):
    recipe = get_recipe("augmented", **{**FULL.describe(), "cosine": cosine})
    whole, model, again = (network(dropout=0.4) for _ in range(3))
    expected = train(whole, blobs(), blobs(), recipe, seed=3)
    path = tmp_path / "folder" / "c.pt"
    with pytest.raises(_Stop):
        train(model, blobs(), blobs(), recipe, seed=3, checkpoint=path, on_epoch=stop_after(last))
    epochs = []
    result = train(
        again, blobs(), blobs(), recipe, seed=3, checkpoint=path, on_epoch=lambda epoch, _: epochs.append(epoch)
    )
    assert epochs == list(range(last + 1, 6))
    assert result.history == expected.history
    assert same(again, whole)
    assert not list(path.parent.glob("*.part"))


_KILLED = """
    import sys
    sys.path.insert(0, {folder!r})
    import torch
    torch.set_num_threads(1)
    from pathlib import Path
    from test_trainer import FULL, blobs, network, train
    from torch import nn
    model = network(dropout=0.4)
    steps = []
    def tick(*_):
        if model.training:
            steps.append(1)
            if len(steps) == 11:  # the third step of the third epoch
                print("middle", flush=True)
                import time; time.sleep(60)
    model.register_forward_hook(tick)
    train(model, blobs(), blobs(), FULL, seed=3, checkpoint=Path({path!r}))
"""


def test_a_killed_process_loses_only_the_epoch_it_was_in(tmp_path):
    path = tmp_path / "c.pt"
    code = textwrap.dedent(_KILLED.format(folder=os.path.dirname(__file__), path=str(path)))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "middle\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    whole, again = network(dropout=0.4), network(dropout=0.4)
    expected = train(whole, blobs(), blobs(), FULL, seed=3)
    epochs = []
    result = train(
        again, blobs(), blobs(), FULL, seed=3, checkpoint=path, on_epoch=lambda epoch, _: epochs.append(epoch)
    )
    assert epochs == [3, 4, 5]
    assert result.history == expected.history
    assert result.seconds > 0
    assert same(again, whole)


def test_a_finished_training_is_not_run_again(tmp_path):
    path, model, again = tmp_path / "c.pt", network(), network()
    first = train(model, blobs(), blobs(), QUICK, checkpoint=path)
    start = time.perf_counter()
    second = train(again, blobs(), blobs(), QUICK, checkpoint=path, on_epoch=stop_after(1))
    assert second.history == first.history
    before = torch.load(path, weights_only=True)["seconds"]
    assert 0 < before <= second.seconds <= before + time.perf_counter() - start
    assert same(model, again)


def test_another_trainings_checkpoint_is_refused(tmp_path):
    path = tmp_path / "c.pt"
    train(network(), blobs(), blobs(), QUICK, checkpoint=path)

    def go_on(model=None, data=None, valid=None, recipe=QUICK, seed=0):
        train(model or network(), data or blobs(), valid or blobs(), recipe, seed=seed, checkpoint=path)

    go_on()
    with pytest.raises(StoreError, match=r"another training: its epochs is 2, not 3, its cutout is 0, not 2; choose"):
        go_on(recipe=get_recipe("quick", epochs=3, batch_size=16, cutout=2))
    with pytest.raises(StoreError, match=r"its seed is 0, not 1"):
        go_on(seed=1)
    with pytest.raises(StoreError, match="its network or first weights differ"):
        go_on(model=network(1))
    with pytest.raises(StoreError, match="its training images differ"):
        go_on(data=blobs(62))
    with pytest.raises(StoreError, match="its validation images differ"):
        go_on(valid=blobs(62))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file", None, "other"])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "c.pt"
    train(network(), blobs(), None, QUICK, checkpoint=path)
    if content is None:
        path.write_bytes(path.read_bytes()[:-1000])
    elif content == "other":
        torch.save({"weight": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=r"c\.pt .*delete it"):
        train(network(), blobs(), None, QUICK, checkpoint=path)


@pytest.mark.slow
def test_two_processes_learn_the_same_as_one_and_go_on(tmp_path):
    """Several seconds, most of it the start of the processes."""
    recipe = get_recipe("augmented", epochs=3, batch_size=16, ema_decay=0.5)
    alone, together = (nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.Linear(2, 2)) for _ in range(2))
    together.load_state_dict(alone.state_dict())
    expected = train(alone, blobs(), blobs(), recipe, seed=1)
    path, told = tmp_path / "c.pt", []
    first = {name: value.clone() for name, value in together.state_dict().items()}
    with pytest.raises(_Stop):
        train(together, blobs(), blobs(), recipe, seed=1, checkpoint=path, on_epoch=stop_after(1))
    together.load_state_dict(first)
    options = {"seed": 1, "devices": 2, "checkpoint": path}
    result = train(together, blobs(), blobs(), recipe, **options, on_epoch=lambda _, metrics: told.append(metrics))
    assert result.history[1:] == tuple(told)
    with pytest.raises(StoreError, match="another training"):
        train(alone, blobs(), blobs(), recipe, **options)
    for name, value in alone.state_dict().items():
        assert torch.allclose(value, together.state_dict()[name], atol=1e-6)  # the sum of two halves is rounded apart
    for one, two in zip(expected.history, result.history, strict=True):
        assert one == pytest.approx(two, rel=1e-5)


def test_chance_within_the_model_is_the_seeds_own():
    """All images and labels are the same, so that their order does not matter."""
    images = ImageSet("grey", torch.ones(16, 1, 4, 4), torch.ones(16, dtype=torch.int64), 2, (0.5,), (0.5,))
    models = [network(dropout=0.5) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        train(model, images, None, QUICK, seed=seed)
    assert same(models[0], models[1])
    assert not same(models[0], models[2])
