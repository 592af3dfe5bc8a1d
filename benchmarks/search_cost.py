"""What a search costs for each cell, and which share of it is not the forward pass.

The first figure is a whole `naswot search` by wall clock. The share comes from pairs in one process, one thread, CPU
time: evaluating a cell with the default proxies (building included) against a plain forward pass of the same network.
Run: NASWOT_DATA=... python benchmarks/search_cost.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from common import cifar10, write

import naswot
from naswot.cli.search import DEFAULT_PROXIES
from naswot.data import get_data
from naswot.evaluate import Evaluator
from naswot.options import PassOptions, fast_options
from naswot.preserve import preserve, set_mode
from naswot.run import sample_distinct
from naswot.workers import available_cores


def share_not_forward(evaluator: Evaluator, cells: int) -> tuple[float, float, float]:
    """Share of an evaluation that is not the forward pass, share of the building, and CPU seconds of an evaluation."""
    torch.set_num_threads(1)
    totals, floors, builds = [], [], []
    for genotype in sample_distinct(evaluator.space, cells + 2, seed=1):
        start = time.process_time()
        model = evaluator.model(genotype)
        builds.append(time.process_time() - start)
        floor = []
        images = evaluator.batch(0).inputs
        if evaluator.options.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with preserve(model), torch.no_grad(), torch.autocast("cpu", torch.bfloat16, evaluator.options.bfloat16):
            set_mode(model, "train")
            for _ in range(3):
                start = time.process_time()
                model(images)
                floor.append(time.process_time() - start)
        floors.append(statistics.median(floor))
        total = []
        for _ in range(3):
            start = time.process_time()
            evaluator(genotype)
            total.append(time.process_time() - start)
        totals.append(statistics.median(total))
    totals, floors, builds = totals[2:], floors[2:], builds[2:]  # the first two warm up
    return 1 - sum(floors) / sum(totals), sum(builds) / sum(totals), statistics.fmean(totals)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--cells", type=int, default=20)
    parser.add_argument("--fast-n", type=int, default=100, help="cells of the search with --fast")
    parser.add_argument("--out", help="keep the run folder of the N cells, for rank_accuracy.py --store")
    given = parser.parse_args()
    space = naswot.get_space("nasbench201")
    proxies = tuple(DEFAULT_PROXIES.split(","))
    rows = []
    for name, images, size, batch_size, number, fast in (
        ("cifar10", cifar10(), 32, 128, given.n, False),
        ("cifar10 --fast", cifar10(), 32, 128, given.fast_n, True),
        ("digits", get_data("digits"), 16, 64, 100, False),
    ):
        with tempfile.TemporaryDirectory() as scratch:
            folder = given.out if given.out and number == given.n else scratch
            words = ["search", "-n", str(number), "--data", name.split(" ")[0], "--batch-size", str(batch_size)]
            words += ["--train-epochs", "0", "--json", "--out", folder, *(["--fast"] if fast else [])]
            start = time.perf_counter()
            program = [sys.executable, "-c", "from naswot.cli import main; main()"]
            done = subprocess.run([*program, *words], check=True, capture_output=True, text=True)
            whole = time.perf_counter() - start
            screening = json.loads(done.stdout)["screening_seconds"]
        options = PassOptions(**(fast_options("cpu") if fast else {}))
        evaluator = Evaluator(space, images, proxies, batch_size=batch_size, options=options)
        share, build, seconds = share_not_forward(evaluator, given.cells)
        row = {"search": name, "size": size, "batch": batch_size, "cells": number, "workers": available_cores()}
        row |= {"whole_seconds": round(whole, 1), "screening_seconds": screening}
        row |= {"seconds_per_cell": round(screening / number, 4), "cpu_seconds_per_cell": round(seconds, 4)}
        row |= {"share_not_forward": round(share, 4), "share_building": round(build, 4), "pairs": given.cells}
        rows.append(row)
        print(row, flush=True)
    write("search_cost", rows)


if __name__ == "__main__":
    main()
