"""What a step of each method costs, in plain forward and backward passes of the supernet that it trains.

The unit is one training step's forward and backward pass of the softmax mixture on the same batch, nothing perturbed,
no alphas, no optimizer; both are timed in turns within one process on one thread, and the medians are compared.
Memory is what autograd keeps for the backward pass of the weights (bytes of saved tensors, each storage once), relative
to the mixture's. Methods whose alphas do not learn in every step are charged their share.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from common import write

from naswot.data import get_data
from naswot.differentiable.plan import SearchPlan
from naswot.differentiable.preset import get_plans, list_presets
from naswot.differentiable.relaxations import Softmax
from naswot.differentiable.session import SearchSession
from naswot.differentiable.tasks import ImageTask
from naswot.space import get_space
from naswot.training.splits import three_way_split

SPACE, BUILD, BATCH, SIZE = "nasbench201", {"width": 16, "n_cells": 1}, 32, 16
LEFT_OUT = ("darts_rnn", "sdarts_rs_rnn", "zero_cost_pt")


def task() -> ImageTask:
    """Digits of 16 x 16."""
    parts = three_way_split(get_data("digits", size=SIZE), valid_fraction=0.5)
    return ImageTask(*parts, batch_size=BATCH)


def saved_bytes(loss: Callable[[], torch.Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass, each storage once."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss()
    value.backward()
    return sum(kept.values())


def measure(name: str, plan: SearchPlan, rounds: int) -> dict[str, Any]:
    """One row."""
    space, data = get_space(SPACE), task()
    plan = plan.lasting(plan.epochs)
    with (
        SearchSession(space, data, SearchPlan(architect=None), build=BUILD) as plain,
        SearchSession(space, data, plan, build=BUILD) as session,
    ):
        session.epoch = session.stage.warmup  # where the alphas learn
        batch = next(data.train_batches(0))
        mixing = Softmax().for_weights(plain.supernet, plain.clock)
        times: dict[str, list[float]] = {"plain": [], "step": []}
        every = plan.alphas.every
        for _ in range(rounds):
            times["plain"].append(seconds(lambda: plain.loss(mixing, batch).backward()))
            times["step"].append(seconds(lambda: [session.step(batch, number) for number in range(every)]) / every)
        unit = saved_bytes(lambda: plain.loss(mixing, batch))
        session.supernet.train()
        own = saved_bytes(lambda: session.loss(session.relaxation.for_weights(session.supernet, session.clock), batch))
    floor, step = statistics.median(times["plain"]), statistics.median(times["step"])
    return {
        "method": name,
        "step": round(step / floor, 2),
        "memory": round(own / unit, 2),
        "plain_ms": round(1e3 * floor, 2),
        "step_ms": round(1e3 * step, 2),
    }


def seconds(run: Callable[[], object]) -> float:
    """Processor time of a call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--methods", nargs="+", default=[n for n in list_presets() if n not in LEFT_OUT])
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in given.methods:
        rows.append(measure(name, get_plans(name)[0], given.rounds))
        print(rows[-1], flush=True)
    write("supernet_cost", rows, space=SPACE, build=BUILD, batch=f"{BATCH} images of {SIZE} x {SIZE}", threads=1)


if __name__ == "__main__":
    main()
