"""Everything random is derived from a seed here; no other file touches a global generator."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def derive_seed(*parts: object) -> int:
    """Seed derived from a seed and the names of what it is for.

    Args:
        parts: integers and strings such as ``(seed, arch, repeat)``; their ``repr`` is hashed, so the result
            depends on nothing else (order of calls, number of workers, process, platform).
    Returns:
        An integer in [0, 2**63).
    Example:
        >>> derive_seed(0, "batch", 1) == derive_seed(0, "batch", 1) != derive_seed(0, "batch", 2)
        True
    """
    text = "\x1f".join(repr(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def torch_generator(seed: int) -> torch.Generator:
    """CPU generator of torch started at ``seed``."""
    return torch.Generator().manual_seed(seed)


def numpy_generator(seed: int) -> np.random.Generator:
    """Generator of numpy started at ``seed``."""
    return np.random.default_rng(seed)


class _Turn:
    """Whose turn it is in this process."""

    lock = threading.RLock()


def _begin_anew() -> None:
    """In a forked process: the other threads, one of which may have had its turn, are not there."""
    _Turn.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


@contextmanager
def in_turn() -> Iterator[None]:
    """Run a block in one thread at a time, for what belongs to the whole process; a thread within it may enter again.

    Within it a thread must not wait for another one that wants its turn, such as those of an executor.
    """
    with _Turn.lock:
        yield


@contextmanager
def preserve_random_state() -> Iterator[None]:
    """Put the global generators of Python, numpy and torch (all devices in use) back on leaving.

    There is one of each in a process, so threads take turns; see :func:`in_turn`.
    """
    with in_turn():
        python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
            torch.set_rng_state(cpu)
            if cuda is not None:
                torch.cuda.set_rng_state_all(cuda)


def random_state() -> dict[str, Any]:
    """Where the global generators of Python, numpy and torch (all GPUs in use) stand, as plain values and tensors."""
    state: Any = np.random.get_state()  # noqa: NPY002
    name, keys, *rest = state
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put the global generators where :func:`random_state` found them; use it within :func:`preserve_random_state`."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_initialized():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with all global generators started at ``seed``, and put them back afterwards.

    For code that only knows the global generators: building a model, a forward pass with hard-wired dropout. Threads
    take turns, so that each gets the numbers of its own seed: they compute the same as one thread, and no faster.
    Processes do not wait for each other.
    """
    with preserve_random_state():
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():  # before that, seeding would be kept for later and outlive the block
            torch.cuda.manual_seed_all(seed)
        yield
