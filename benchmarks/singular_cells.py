"""Which NAS-Bench-201 cells have a singular kernel: the 201 known ones; pruned, exactly the 341 without a path.

Both as published and pruned: the 341 cells without a path, and 600 random ones; with --all, pruned, one cell of each of
the 5,731 classes of equal networks, so all 15,625. (The kernel of a published network is that
of its pruned one plus that of its dead branches, which is positive semidefinite: where the pruned one is not singular,
the published one is not either.)
Eight real images of 16 x 16. Run: NASWOT_DATA=... python benchmarks/singular_cells.py
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from common import data_root, write

import naswot
from naswot.data import get_data
from naswot.evaluate import Evaluator
from naswot.run import screen
from naswot.workers import available_cores, worker_pool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="prune and score all 15,625 cells, not a sample")
    given = parser.parse_args()
    space = naswot.get_space("nasbench201")
    images = get_data("cifar10", root=data_root(), size=16)
    every = list(space.genotypes())
    pathless = [g for g in every if not space.has_path(g)]
    others = [every[i] for i in np.random.default_rng(0).choice(len(every), 600, replace=False)]
    rows = []
    sample = every if given.all else sorted({*pathless, *others})
    for pruned, cells in ((False, sorted({*pathless, *others})), (True, sample)):
        evaluator = Evaluator(space, images, ("naswot",), batch_size=8, pruned=pruned)
        with worker_pool(available_cores()) as executor:
            scored = screen(evaluator, cells, executor=executor)
        singular = {row.genotype for row in scored if math.isinf(row.mean["naswot"])}
        known = {g for g in cells if (not space.has_path(g) if pruned else space.is_singular(g))}
        networks = len({evaluator.scored(g) for g in cells})
        row = {"network": "pruned" if pruned else "as published", "cells": len(cells), "networks_scored": networks}
        rows.append(row | {"singular": len(singular), "expected": len(known), "same_cells": singular == known})
        print(rows[-1], flush=True)
    write("singular_cells", rows, batch="8 CIFAR-10 training images at 16 x 16", seed=0)


if __name__ == "__main__":
    main()
