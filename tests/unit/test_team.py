"""The compiled loops dealt out to torch's threads: the same integers for any number of them."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from naswot import _popcount, _team
from naswot.kernels import agreement_kernel, packed_agreement, packed_codes

SHAPES = [(1, 3), (2, 64), (3, 65), (7, 1), (8, 200), (33, 130), (128, 1000)]
needs_team = pytest.mark.skipif(_team._team() is None, reason="torch's OpenMP offers no GOMP_parallel here")


@pytest.fixture(params=[1, 2, 3, 5])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernel_is_the_same_for_any_number_of_threads(threads, shape, dtype):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    values[0, 0] = math.nan
    assert torch.equal(
        agreement_kernel(values, backend="packed"), agreement_kernel(values.clone(), backend="product")
    ), threads


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sweep_is_the_same_for_any_number_of_threads(threads, shape, dtype):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    values[-1, -1] = -math.inf
    output = torch.full_like(values, math.nan)
    words = packed_codes(values, output=output)
    kernel = packed_agreement(words, values.shape[1])
    assert torch.equal(kernel, agreement_kernel(values, backend="product")), threads
    assert torch.equal(output, values.relu())


@needs_team
def test_every_thread_of_the_team_takes_its_share(threads, monkeypatch):
    values = np.ones((12, 64), np.float32)
    rows = np.zeros((12, 1), np.uint64)
    n = torch.get_num_threads()
    # the share of each thread alone, by the serial loop, adds up to the work of the team
    for me in range(n):
        _popcount.pack(values, 0.0, math.inf, rows, me * 12 // n, (me + 1) * 12 // n)
    words = np.zeros((12, 1), np.uint64)
    _team.pack(values, 0.0, math.inf, words)
    assert (words == rows).all()
    assert (words == np.uint64(2**64 - 1)).all()
    assert _team.n_threads() == threads
    monkeypatch.setattr(_team, "_team", lambda: None)
    assert _team.n_threads() == 1


@needs_team
def test_team_is_called_with_torchs_number_of_threads(threads, monkeypatch):
    asked = []
    original = _team._together
    monkeypatch.setattr(
        _team, "_together", lambda entry, **task: asked.append(task["threads"]) or original(entry, **task)
    )
    agreement_kernel(torch.randn(9, 70), backend="packed")
    assert asked == ([] if threads == 1 else [threads, threads])


def test_without_a_team_the_loops_run_on_the_caller(threads, monkeypatch):
    monkeypatch.setattr(_team, "_team", lambda: None)
    monkeypatch.setattr(_team, "_together", lambda *a, **k: pytest.fail("there is no team"))
    values = torch.randn(9, 70)
    assert torch.equal(agreement_kernel(values, backend="packed"), agreement_kernel(values, backend="product")), threads


def test_callers_on_threads_of_their_own(threads):
    def kernels(seed):
        values = torch.randn(40, 3000, generator=torch.Generator().manual_seed(seed))
        return agreement_kernel(values, backend="packed"), agreement_kernel(values, backend="product")

    with ThreadPoolExecutor(4) as pool:
        for packed, product in pool.map(kernels, range(24)):
            assert torch.equal(packed, product), threads
