"""Cost of a score in plain forward passes, against the floor and against the authors' procedure.

12 NAS-Bench-201 cells from the lightest to the heaviest, batch 128, 32 x 32, process CPU time, alternating pairs in one
process after a warm-up, medians of paired ratios. The floor is one forward pass of the same network in the same mode
without autograd. Run: python benchmarks/speed.py [--threads 1 2] [--pairs 15] [--cells 12]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from authors_procedure import authors_score
from common import spread_cells, write
from memory import peak_bytes

import naswot
from naswot.preserve import preserve, set_mode
from naswot.seeding import torch_generator

Contender = Callable[[], object]


def plain_forward(model: torch.nn.Module, images: torch.Tensor) -> Contender:
    """The floor: batch statistics, no autograd, no taps."""

    def run() -> None:
        with torch.no_grad():
            model(images)

    return run


def paired(floor: Contender, others: dict[str, Contender], pairs: int) -> dict[str, tuple[float, float]]:
    """Median ratio to the floor of each contender, by CPU and by wall-clock time, over alternating pairs."""
    for warm_up in (floor, *others.values()):
        warm_up()
    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in others}
    for _ in range(pairs):
        for name, contender in others.items():
            base, measured = timed(floor), timed(contender)
            ratios[name].append((measured[0] / base[0], measured[1] / base[1]))
    return {name: (median(r[0] for r in rs), median(r[1] for r in rs)) for name, rs in ratios.items()}


def median(values: Sequence[float]) -> float:
    return statistics.median(list(values))


def timed(run: Contender) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--fast-pairs", type=int, default=7)
    parser.add_argument("--authors-pairs", type=int, default=3)
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=128)
    given = parser.parse_args()
    space = naswot.get_space("nasbench201")
    images = torch.randn(given.batch_size, 3, 32, 32, generator=torch_generator(0))
    rows = []
    for threads in given.threads:
        torch.set_num_threads(threads)
        for genotype in spread_cells(given.cells):
            model = space.build(genotype).train()
            with preserve(model):
                set_mode(model, "train")
                floor = plain_forward(model, images)
                ours = {"score": lambda model=model: naswot.score(model, images)}
                fast = {"fast": lambda model=model: naswot.score(model, images, fast=True)}
                theirs = {"authors": lambda model=model: authors_score(model.train(), images)}
                result = paired(floor, ours, given.pairs)
                result |= paired(floor, fast, given.fast_pairs) | paired(floor, theirs, given.authors_pairs)
                memory = peak_bytes(ours["score"]) / peak_bytes(floor)
            row = {"threads": threads, "arch": space.format(genotype), "forward_ms": round(1e3 * timed(floor)[1], 1)}
            row |= {f"{name}_cpu": round(cpu, 3) for name, (cpu, _) in result.items()}
            row |= {f"{name}_wall": round(wall, 3) for name, (_, wall) in result.items()}
            row["authors_to_score"] = round(result["authors"][0] / result["score"][0], 3)
            row["authors_to_fast"] = round(result["authors"][0] / result["fast"][0], 3)
            row["peak_memory"] = round(memory, 3)
            rows.append(row)
            print(row, flush=True)
    write(
        "speed", rows + summary(rows), pairs=given.pairs, batch=given.batch_size, size="32 x 32", unit="forward passes"
    )


def summary(rows: list[dict]) -> list[dict]:
    """Median, best and worst over the cells for each number of threads."""
    found = []
    for threads in sorted({row["threads"] for row in rows}):
        mine = [row for row in rows if row["threads"] == threads]
        for name, choose in (("median", median), ("min", min), ("max", max)):
            figures = {
                key: round(choose([row[key] for row in mine]), 3) for key in mine[0] if key not in ("threads", "arch")
            }
            found.append({"threads": threads, "arch": f"{name} of {len(mine)} cells", **figures})
    return found


if __name__ == "__main__":
    main()
