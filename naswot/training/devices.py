"""Where a training runs: one device, several, or several machines, by Lightning Fabric."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.multiprocessing.spawn import ProcessException

from naswot.errors import DivergedError, OptionError, TrainingError, missing_package
from naswot.training.recipe import Precision

if TYPE_CHECKING:
    from lightning_fabric import Fabric

OnEpoch = Callable[[int, Mapping[str, float]], None]
"""Called with the number of each finished epoch, from 1, and what was measured."""


def make_fabric(device: str, *, devices: int, num_nodes: int, precision: Precision) -> Fabric:
    """The Fabric for a place, ready to launch.

    One process runs on one device, here. More are spawned, or, under ``torchrun`` and on other clusters that Fabric
    knows, joined; each then holds a copy of the network and takes its share of every batch.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, ...
        devices: number of processes on each machine.
        num_nodes: number of machines.
        precision: numbers in the passes.
    Raises:
        OptionError: if there is no such device, or it does not know the precision.
        MissingPackageError: if Lightning Fabric is not installed.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError as error:
        raise missing_package("lightning-fabric", "training", "training") from error
    place = _checked_device(device, devices, num_nodes)
    if precision == "16-mixed" and place.type == "cpu":
        raise OptionError("precision '16-mixed' needs a GPU, but device is 'cpu'; take 'bf16-mixed' or '32-true'")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    alone = devices == num_nodes == 1 and not _is_launched()
    strategy: Any = "auto"
    if not alone:
        # a static graph may leave parameters unused, such as those of edges that reach no output
        strategy = DDPStrategy(start_method="popen" if _is_launched() else "spawn", static_graph=True)
    chosen = [place.index] if place.index is not None else devices
    return Fabric(accelerator=place.type, devices=chosen, num_nodes=num_nodes, precision=precision, strategy=strategy)


def _checked_device(device: str, devices: int, num_nodes: int) -> torch.device:
    if devices < 1 or num_nodes < 1:
        raise OptionError(f"expected devices and num_nodes of at least 1, but got {devices} and {num_nodes}")
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f"device {device!r} cannot be used here: {reason}; 'cpu' always can") from error
    if place.index is not None and devices > 1:
        raise OptionError(f"device {device!r} is a single one, but devices is {devices}; take {place.type!r}")
    there = torch.cuda.device_count() if place.type == "cuda" else devices
    if devices > there:
        raise OptionError(f"expected devices from 1 to {there}, of which there are no more here, but got {devices}")
    return place


def _is_launched() -> bool:
    """Whether ``torchrun`` started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_spawning(fabric: Fabric) -> bool:
    """Whether launching starts other processes, so that this one's objects stay as they are."""
    return fabric.strategy.launcher is not None and not _is_launched()


def launch(fabric: Fabric, function: Callable[..., Any], job: Any, on_epoch: OnEpoch) -> Any:
    """``function(fabric, job, on_epoch)`` on every device; what the first one gives.

    Args:
        fabric: see :func:`make_fabric`.
        function: importable by name; gives tensors and plain values.
        job: its argument; must be picklable if processes are spawned.
        on_epoch: called in this process.
    Raises:
        NaswotError: whatever ``function`` raised, if it ran here.
        DivergedError: as raised in the processes.
        TrainingError: if a process died of anything else.
    """
    if not is_spawning(fabric):
        return fabric.launch(function, job, on_epoch)
    with tempfile.TemporaryDirectory() as folder, _relay(on_epoch) as send:
        answer = Path(folder) / "answer.pt"
        try:
            start: Callable[..., Any] = fabric.launch
            error = start(_guarded, function, job, send, answer)
        except ProcessException as died:
            last = str(died).strip().splitlines()[-1]
            raise TrainingError(f"a process of the training ended early: {last}; see the cause above") from died
        if error is not None:
            raise error
        return torch.load(answer, weights_only=True)


def _guarded(
    fabric: Fabric, function: Callable[..., Any], job: Any, send: _Sender, answer: Path
) -> DivergedError | None:
    """Run in a spawned process; an error that all of them meet is given back, as only text comes out of raising.

    Any other is raised, so that the launcher ends the processes that would wait for this one for ever. What the
    function gives goes to a file, as tensors would be gone from a queue once the process has ended.
    """
    try:
        result = function(fabric, job, send)
    except DivergedError as error:
        _part(fabric)
        return error
    if fabric.is_global_zero:
        torch.save(result, answer)
    _part(fabric)
    return None


def _part(fabric: Fabric) -> None:
    """End what connects the processes while all of them are there: at their exit its threads would abort them."""
    fabric.barrier()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class _Sender:
    """Hands what an epoch measured to the parent process."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._queue.put((epoch, dict(metrics)))


@contextmanager
def _relay(on_epoch: OnEpoch) -> Iterator[_Sender]:
    """A sender for other processes, whose messages reach ``on_epoch`` from a thread of this one."""
    queue = torch.multiprocessing.get_context("spawn").SimpleQueue()
    raised: list[Exception] = []

    def listen() -> None:
        while (message := queue.get()) is not None:
            try:
                on_epoch(*message)
            except Exception as error:
                raised.append(error)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield _Sender(queue)
    finally:
        queue.put(None)
        listener.join()
    if raised:
        raise raised[0]
