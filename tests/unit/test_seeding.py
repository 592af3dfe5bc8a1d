"""Derived seeds: the same in every process and on every platform."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from naswot.seeding import derive_seed, numpy_generator, preserve_random_state, seeded, torch_generator

PINNED = (4626719007405304989, 4618137159377664713, 8238016292129134938)


def test_derived_seeds_are_fixed_for_ever():
    """Kept results and published tables hang on these numbers; hash randomisation must not reach them."""
    assert derive_seed(0, "batch", 0) == PINNED[0]
    assert derive_seed(7, "|nor_conv_3x3~0|", 2) == PINNED[1]
    assert derive_seed() == PINNED[2]


def test_derived_seeds_differ_and_fit():
    parts = [(0,), (1,), ("0",), (0, 1), ("01",), (0, "1"), (1, 0), ("a", "b"), ("ab",), ("a\x1f'b'",), (None,), (0.0,)]
    seeds = [derive_seed(*p) for p in parts]
    assert len(set(seeds)) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_start_at_their_seed():
    assert torch.equal(torch.rand(3, generator=torch_generator(5)), torch.rand(3, generator=torch_generator(5)))
    assert numpy_generator(5).random() == numpy_generator(5).random() != numpy_generator(6).random()


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


@pytest.mark.parametrize("seed", [0, 1, 2**32 + 1, 2**63 - 1])
def test_seeded_blocks_repeat_and_leave_no_trace(seed):
    with preserve_random_state():
        with seeded(seed):
            first = draw()
        outside = draw()
        with seeded(seed):
            assert draw() == first
        assert outside not in (first, draw())


def test_states_come_back_after_an_error():
    with preserve_random_state():
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        with pytest.raises(ZeroDivisionError), seeded(9):
            draw()[0] / 0
        after = draw()
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        assert after == draw()
