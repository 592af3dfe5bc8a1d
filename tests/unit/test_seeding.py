"""Derived seeds: the same in every process and on every platform."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from naswot.data.images import ImageSet
from naswot.evaluate import Evaluator
from naswot.seeding import derive_seed, in_turn, numpy_generator, preserve_random_state, seeded, torch_generator
from naswot.space import get_space

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


@pytest.fixture
def _many_switches():
    """Threads take turns after each few operations, unless something holds them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_many_switches")
def test_threads_take_turns():
    def one(seed):
        if seed % 5 == 0:
            with preserve_random_state():  # as what counts or times a network does
                random.seed(99), np.random.seed(99), torch.manual_seed(99)
                return draw()
        with seeded(seed):
            first = draw()
            with seeded(seed + 1):  # within a turn there is no waiting
                inner = draw()
            return first, inner, draw()

    before = next_draw()
    expected = [one(seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert list(pool.map(one, range(40))) == expected
    assert next_draw() == before


def next_draw():
    with preserve_random_state():
        return draw()


def test_an_evaluator_scores_the_same_in_threads():
    images = torch.rand(16, 3, 8, 8, generator=torch_generator(1))
    data = ImageSet("noise", images, torch.arange(16) % 4, 4, (0.5,) * 3, (0.5,) * 3)
    space = get_space("nasbench201")
    evaluator = Evaluator(space, data, ("zen",), batch_size=4, seed=3, build={"width": 4, "n_cells": 1})
    rng = numpy_generator(0)
    genotypes = [space.sample(rng) for _ in range(6)]
    expected = {answer.arch: answer.scores for answer in evaluator.map(genotypes)}
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            answers = list(evaluator.map(genotypes, executor=pool))
            assert [answer.error for answer in answers] == [None] * len(expected)
            assert {answer.arch: answer.scores for answer in answers} == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("own", [False, True])
def test_a_forked_process_does_not_wait_for_threads_it_has_not_got(own):
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with in_turn():
            entered.set()
            leave.wait(20)

    def forked():
        pid = os.fork()
        if pid == 0:
            signal.alarm(5)  # ends the child if it waits
            with seeded(0):
                random.random()
        return pid

    if own:
        with in_turn():
            pid = forked()
    else:
        thread = threading.Thread(target=hold)
        thread.start()
        assert entered.wait(20)
        pid = forked()
    if pid == 0:
        os._exit(0)
    leave.set()
    assert os.waitpid(pid, 0)[1] == 0


def test_one_thread_waits_for_another():
    times = []

    def hold():
        with in_turn():
            times.append(time.perf_counter())
            time.sleep(0.05)
            times.append(time.perf_counter())

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(hold) for _ in range(2)]:
            future.result()
    assert times == sorted(times)
    assert times[3] - times[0] >= 0.1
