"""A process pool whose workers use one thread, ignore Ctrl-C and end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing.managers import SyncManager
from typing import Any, TypeVar

import torch

from naswot.errors import WorkerError

Result = TypeVar("Result")

_WATCH_SECONDS = 0.5


def available_cores() -> int:
    """Number of processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def worker_pool(workers: int) -> Iterator[Executor | None]:
    """An executor of that many processes; None for one worker, which needs no process of its own.

    Leaving the block by an exception (Ctrl-C, say) drops what has not begun and waits only for what runs. Workers watch
    their parent and end with it even if it is killed.
    """
    if workers <= 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(os.getpid(),))
    try:
        yield pool
    except BaseException:
        _stop_now(pool)
        raise
    pool.shutdown(wait=True)


@contextmanager
def deaths_explained() -> Iterator[None]:
    """Turn the death of a worker process into a WorkerError that says what to do."""
    try:
        yield
    except BrokenExecutor as error:
        raise WorkerError(
            "a worker process died, perhaps for want of memory; what was finished is kept: run again, with fewer "
            f"workers or a smaller batch if it repeats ({error})"
        ) from error


@contextmanager
def message_queue() -> Iterator[Any]:
    """A queue by which the workers of any pool can tell something to this process while they run."""
    manager = SyncManager(ctx=multiprocessing.get_context("spawn"))
    manager.start(_begin_worker, (os.getpid(),))
    try:
        yield manager.Queue()
    finally:
        manager.shutdown()


def results_of(
    executor: Executor, function: Callable[..., Result], jobs: Iterable[tuple[Any, ...]]
) -> Iterator[Result]:
    """Results of ``function(*job)`` as they come; leaving early drops what has not begun.

    Raises:
        WorkerError: if a worker process died.
    """
    futures: list[Future[Result]] = []
    try:
        with deaths_explained():
            futures.extend(executor.submit(function, *job) for job in jobs)
            for future in as_completed(futures):
                yield future.result()
    finally:
        for future in futures:
            future.cancel()


def _stop_now(pool: ProcessPoolExecutor) -> None:
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _begin_worker(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)
