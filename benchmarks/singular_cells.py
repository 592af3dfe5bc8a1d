"""Which NAS-Bench-201 cells have a singular kernel: exactly the 201 known ones; pruned, exactly the 341 without a path.

As published, all 6,466 classes of isomorphic cells are scored on 8 real images of 16 x 16; pruned, all 341 cells
without a path and 1,000 random ones.
Run: NASWOT_DATA=... python benchmarks/singular_cells.py
"""

from __future__ import annotations

import math

import numpy as np
from common import data_root, write

import naswot
from naswot.data import get_data
from naswot.evaluate import Evaluator
from naswot.run import screen
from naswot.workers import available_cores, worker_pool


def main() -> None:
    space = naswot.get_space("nasbench201")
    images = get_data("cifar10", root=data_root(), size=16)
    every = list(space.genotypes())
    chosen = np.random.default_rng(0).choice(len(every), 1000, replace=False)
    pathless = [g for g in every if not space.has_path(g)]
    rows = []
    for pruned, cells in ((False, every), (True, sorted({*pathless, *(every[i] for i in chosen)}))):
        members: dict[object, list[tuple[int, ...]]] = {}
        for genotype in cells:
            members.setdefault(space.exact(genotype) if pruned else space.canonical(genotype), []).append(genotype)
        first = {group[0]: group for group in members.values()}
        evaluator = Evaluator(space, images, ("naswot",), batch_size=8, pruned=pruned)
        with worker_pool(available_cores()) as executor:
            scored = screen(evaluator, list(first), executor=executor)
        singular = {g for row in scored if math.isinf(row.mean["naswot"]) for g in first[row.genotype]}
        known = {g for g in cells if (not space.has_path(g) if pruned else space.is_singular(g))}
        row = {"network": "pruned" if pruned else "as published", "cells": len(cells), "networks_scored": len(first)}
        rows.append(row | {"singular": len(singular), "expected": len(known), "same_cells": singular == known})
        print(rows[-1], flush=True)
    write("singular_cells", rows, batch="8 CIFAR-10 training images at 16 x 16", seed=0)


if __name__ == "__main__":
    main()
