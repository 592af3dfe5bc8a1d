"""Checkpoints, and other files that appear whole: what several processes that write one do to each other."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from naswot._files import whole_file
from naswot.data.images import ImageSet
from naswot.errors import StoreError
from naswot.seeding import seeded, torch_generator
from naswot.training import checkpoint
from naswot.training.callbacks import read_history, write_history
from naswot.training.checkpoint import digest_of, read_checkpoint, write_checkpoint
from naswot.training.loop import train
from naswot.training.recipe import get_recipe

RECIPE = get_recipe("quick", epochs=20, batch_size=16, ema_decay=0.9)


def blobs():
    generator = torch_generator(0)
    labels = torch.arange(64) % 2
    images = 0.5 * torch.rand(64, 1, 4, 4, generator=generator) + 0.2 * labels.reshape(-1, 1, 1, 1)
    return ImageSet("blobs", images, labels, 2, (0.5,), (0.5,))


def network(seed):
    with seeded(seed):
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(0.4), nn.Linear(16, 2))


def test_a_file_that_is_written_twice_at_a_time_is_whole(tmp_path):
    path = tmp_path / "c.txt"
    with whole_file(path) as outer:
        outer.write_text("outer")
        with whole_file(path) as inner:
            assert str(os.getpid()) in inner.name
            inner.write_text("inner")
        assert path.read_text() == "inner"
    assert path.read_text() == "outer"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_file_that_could_not_be_written_leaves_the_old_one_and_nothing_else(tmp_path, error):
    path = tmp_path / "c.txt"
    path.write_text("old")

    def fail():
        with whole_file(path) as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_is_written_while_another_process_writes_it(tmp_path, monkeypatch):
    path, save = tmp_path / "c.pt", torch.save

    def interrupted(state, part):
        monkeypatch.setattr(torch, "save", save)
        save(state, part)
        write_checkpoint(path, {"seed": 0}, {"epoch": 2})

    monkeypatch.setattr(torch, "save", interrupted)
    write_checkpoint(path, {"seed": 0}, {"epoch": 1})
    assert read_checkpoint(path, {"seed": 0})["epoch"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_no_part_of_a_checkpoint(tmp_path, monkeypatch):
    def full(state, part):
        part.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StoreError, match=r"cannot write checkpoint .*no space left"):
        write_checkpoint(tmp_path / "c.pt", {}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_vanishes_is_none(tmp_path, monkeypatch):
    path, load = tmp_path / "c.pt", torch.load
    write_checkpoint(path, {}, {})
    assert read_checkpoint(path, {}) is not None

    def too_late(file, **options):
        file.unlink()  # by a process that has finished the same training
        return load(file, **options)

    monkeypatch.setattr(checkpoint.torch, "load", too_late)
    assert read_checkpoint(path, {}) is None
    assert read_checkpoint(tmp_path / "c.pt" / "below", {}) is None


def test_histories_are_written_by_two_at_a_time(tmp_path, monkeypatch):
    path = tmp_path / "h.csv"

    real = csv.DictWriter.writerows

    def meanwhile(writer, rows):
        monkeypatch.undo()
        write_history(path, [{"epoch": 1.0, "train_loss": 0.25}])
        real(writer, rows)

    monkeypatch.setattr(csv.DictWriter, "writerows", meanwhile)
    write_history(path, [{"epoch": 1.0, "train_loss": 0.5}])
    assert read_history(path) == [{"epoch": 1.0, "train_loss": 0.5}]
    assert list(tmp_path.iterdir()) == [path]


_BESIDE = """
    import json, sys, time
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from test_checkpoint import RECIPE, blobs, digest_of, network, train
    folder, number, save = Path({folder!r}), int(sys.argv[1]), torch.save
    def slow(state, part):
        save(state, part)
        time.sleep(0.01)  # so that the other process writes meanwhile
    torch.save = slow
    (folder / f"ready{{number}}").touch()
    while not (folder / f"ready{{1 - number}}").exists():
        time.sleep(0.001)
    for seed in range(3):
        path, model = folder / f"{{seed}}.pt", network(seed)
        result = train(model, blobs(), blobs(), RECIPE, seed=seed, checkpoint=path)
        path.unlink(missing_ok=True)  # as searches do
        print(json.dumps([digest_of(model), result.history]))
"""


@pytest.mark.slow
def test_two_processes_train_the_same_side_by_side(tmp_path):
    """Several seconds, most of it the start of the processes."""
    code = textwrap.dedent(_BESIDE.format(tests=os.path.dirname(__file__), folder=str(tmp_path)))
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(2)
    ]
    try:
        told = [process.communicate(timeout=60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0]
    expected = []
    for seed in range(3):
        model = network(seed)
        result = train(model, blobs(), blobs(), RECIPE, seed=seed)
        expected.append([digest_of(model), list(result.history)])
    for lines in told:
        assert [json.loads(line) for line in lines.splitlines()] == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ready0", "ready1"]
