"""What scores cost, in the unit that every machine shares: one plain forward pass of the same network."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from naswot.evaluate import Evaluator, single_thread
from naswot.measuring import run_proxies
from naswot.proxy import Proxy, get_proxy
from naswot.types import Batch, Genotype

_LONG = 5.0  # seconds after which nothing is run twice


def costs_in_forwards(evaluator: Evaluator, genotypes: Sequence[Genotype]) -> dict[str, float]:
    """Time of each proxy alone and of all together (``"all"``), in forward passes; the median over the architectures.

    The forward pass is a plain one of the same network and batch: float32, no graph, batch statistics. Processor time
    on the CPU (one thread), elapsed time elsewhere; the first run is not counted unless it is long.
    """
    proxies = [get_proxy(proxy) if isinstance(proxy, str) else proxy for proxy in evaluator.proxies]
    asked: dict[str, Sequence[Proxy]] = {**{proxy.name: [proxy] for proxy in proxies}, "all": proxies}
    ratios: dict[str, list[float]] = {name: [] for name in asked}
    with single_thread():
        for genotype in genotypes:
            model, batch = evaluator.model(genotype), evaluator.batch(0)
            forward = _seconds(partial(_forward, model, batch), evaluator.device, repeats=3)
            for name, chosen in asked.items():
                work = partial(run_proxies, model, batch, chosen, options=evaluator.options)
                ratios[name].append(_seconds(work, evaluator.device) / forward)
    return {name: statistics.median(values) for name, values in ratios.items()}


def _forward(model: nn.Module, batch: Batch) -> None:
    with torch.no_grad():
        batch.to(next(model.parameters()).device).call(model)


def _seconds(work: Callable[[], object], device: str, *, repeats: int = 1) -> float:
    """Least time of some runs after a first one, which alone must do where it took long."""
    times = [_once(work, device)]
    if times[0] < _LONG:
        times = [_once(work, device) for _ in range(repeats)]
    return min(times)


def _once(work: Callable[[], object], device: str) -> float:
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    work()
    if device != "cpu":
        torch.accelerator.synchronize()
    return clock() - start
