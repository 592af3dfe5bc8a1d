"""What the proxies cost in plain forward passes: alone, in groups over shared passes, and what sharing saves.

12 NAS-Bench-201 cells from the lightest to the heaviest, batch 64, 32 x 32, one thread, process CPU time, medians of
paired ratios; the floor is one forward pass without autograd. Run: python benchmarks/proxy_cost.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from common import LANGUAGE, REDUCED, VISION, label, reduced, spread_cells, write

import naswot
from naswot.catalogue import own_proxies
from naswot.preserve import preserve, set_mode
from naswot.proxy import Proxy
from naswot.seeding import torch_generator
from naswot.types import Batch

FORWARD = ("naswot", "naswot_size", "naswot_diversity", "lnwot", "swap", "reg_swap", "params", "flops")
FORWARD += ("trainable_layers",)


def groups() -> dict[str, tuple[str, ...]]:
    """Sets of proxies that share passes; the largest holds all that need no pass of their own and one backward."""
    shared = [name for name in own_proxies() if single_backward(name)]
    return {"forward": FORWARD, "forward and apd": (*FORWARD, "apd"), "single backward": tuple(shared)}


def single_backward(name: str) -> bool:
    """Whether a proxy needs nothing beyond one forward and one backward of the loss."""
    proxy = naswot.get_proxy(name)
    return proxy.cost in ("none", "forward", "forward + backward") and name not in LANGUAGE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--alone-cells", type=int, default=3, help="cells on which every proxy is timed alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch_generator(0)
    images = torch.randn(given.batch_size, 3, 32, 32, generator=generator)
    batch = Batch(images, torch.randint(10, (given.batch_size,), generator=generator))
    alone = {name: naswot.get_proxy(name) for name in VISION} | {label(name): reduced(name) for name in REDUCED}
    ratios: dict[str, list[float]] = {}
    space = naswot.get_space("nasbench201")
    cells = spread_cells(given.cells)
    alone_on = cells[:: max(1, given.cells // given.alone_cells)]
    for genotype in cells:
        model = space.build(genotype)
        contenders: dict[str, Sequence[str | Proxy]] = {f"group: {n}": members for n, members in groups().items()}
        if genotype in alone_on:  # those of N backwards take minutes: on the first cell only
            contenders |= {n: (p,) for n, p in alone.items() if genotype == cells[0] or "N " not in p.cost}
        for name, members in contenders.items():
            ratios.setdefault(name, []).append(cost(model, batch, members, given.pairs))
            print(space.format(genotype), name, round(ratios[name][-1], 3), flush=True)
    rows = []
    for name, found in ratios.items():
        row = {"what": name, "median": round(statistics.median(found), 3), "worst": round(max(found), 3)}
        rows.append(row | {"cells": len(found), "separate_runs": separate(name, ratios)})
    write("proxy_cost", rows, batch=given.batch_size, threads=1, pairs=given.pairs, unit="forward passes (CPU time)")


def separate(group: str, ratios: dict[str, list[float]]) -> float | str:
    """Sum of the separate runs of a group's members, for scale."""
    members = groups().get(group.removeprefix("group: "), ())
    return round(sum(statistics.median(ratios[name]) for name in members), 3) if members else ""


def cost(model: torch.nn.Module, batch: Batch, proxies: Sequence[str | Proxy], pairs: int) -> float:
    """Median ratio of measuring to one plain forward pass."""

    def floor() -> None:
        with torch.no_grad():
            model(batch.inputs)

    with preserve(model):
        set_mode(model, "train")
        timed(floor)
        pairs = pairs if timed(lambda: naswot.measure(model, batch, proxies)) < 20 * timed(floor) else 1
        return statistics.median(
            timed(lambda: naswot.measure(model, batch, proxies)) / timed(floor) for _ in range(pairs)
        )


def timed(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == "__main__":
    main()
