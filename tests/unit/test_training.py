"""The few epochs of real training that follow a screening."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import naswot
from naswot.data import get_data
from naswot.data.images import ImageSet
from naswot.errors import InputError
from naswot.evaluate import Evaluator
from naswot.run import sample_distinct, screen
from naswot.seeding import torch_generator
from naswot.store import ResultStore
from naswot.training.brief import accuracy, train_briefly
from naswot.training.compare import compare_by_training
from naswot.workers import worker_pool


def blobs(n=64, labels=True):
    """Images of two classes that differ by their mean: any network learns them."""
    generator = torch_generator(0)
    targets = torch.arange(n) % 2
    images = 0.1 * torch.rand(n, 1, 4, 4, generator=generator) + 0.8 * targets.reshape(-1, 1, 1, 1)
    return ImageSet("blobs", images, targets if labels else None, 2, (0.5,), (0.5,))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))


def test_training_learns_and_is_reproducible():
    first, second = network(), network()
    nn.init.zeros_(first[3].weight), nn.init.zeros_(second[3].weight)  # at first every image looks alike
    before = accuracy(first, blobs())
    results = [train_briefly(model, blobs(), blobs(), epochs=5, batch_size=16, seed=3) for model in (first, second)]
    assert before == 50.0
    assert results[0].accuracy > 90
    assert results[0].accuracy == results[1].accuracy
    assert results[0].loss == results[1].loss < math.log(2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_another_seed_takes_another_order():
    first, second = network(), network()
    train_briefly(first, blobs(), blobs(), epochs=1, batch_size=16, seed=0)
    train_briefly(second, blobs(), blobs(), epochs=1, batch_size=16, seed=1)
    assert not torch.equal(first[1].weight, second[1].weight)


def test_accuracy_by_hand():
    constant = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    nn.init.zeros_(constant[1].weight)
    constant[1].bias.data = torch.tensor([1.0, 0.0])  # always says class 0
    assert accuracy(constant, blobs(n=10), batch_size=3) == 50.0


def test_labels_are_needed():
    with pytest.raises(InputError, match="needs labels"):
        train_briefly(network(), blobs(labels=False), blobs(), epochs=1)


def test_comparison_trains_winner_and_another_once(tmp_path, monkeypatch):
    digits, held_out = get_data("digits", size=8), get_data("digits", size=8, split="test")
    build = {"width": 4, "n_cells": 1}
    evaluator = Evaluator(naswot.get_space("nasbench201"), digits, ("naswot",), batch_size=8, build=build)
    small = digits.subset(range(128))
    with ResultStore(tmp_path / "s.sqlite", options=evaluator.describe()) as store:
        rows = screen(evaluator, sample_distinct(evaluator.space, 5), store=store)
        ticks = []
        arguments = {"epochs": 1, "store": store, "on_done": lambda: ticks.append(1)}
        first = compare_by_training(evaluator, rows, small, held_out, **arguments)
        assert [item.role for item in first] == ["winner", "random"]
        assert first[0].arch == rows[0].arch != first[1].arch
        assert store.get(rows[0].arch, 0).scores["trained_accuracy_1_epochs"] == first[0].accuracy
        with worker_pool(2) as executor:  # in other processes, not from the store
            again = compare_by_training(evaluator, rows, small, held_out, epochs=1, executor=executor)
        assert again == first
        monkeypatch.setattr("naswot.training.compare.train_cell", lambda *_: pytest.fail("trained again"))
        assert compare_by_training(evaluator, rows, small, held_out, **arguments) == first
        assert len(ticks) == 4
        assert compare_by_training(evaluator, rows, small, held_out, epochs=0) == []
        assert compare_by_training(evaluator, rows[:1], small, held_out, epochs=1) == []
