"""Which NAS-Bench-201 cells have a singular kernel: exactly the 201 known ones; pruned, exactly the 341 without a path.

Every class of isomorphic cells is scored once (6,466 as they are, 5,390 pruned) on 16 real images.
Run: NASWOT_DATA=... python benchmarks/singular_cells.py
"""

from __future__ import annotations

import math

from common import cifar10, write

import naswot
from naswot.evaluate import Evaluator
from naswot.run import screen
from naswot.workers import available_cores, worker_pool


def main() -> None:
    space = naswot.get_space("nasbench201")
    rows = []
    for pruned, key in ((False, space.canonical), (True, space.pruned)):
        members: dict[object, list[tuple[int, ...]]] = {}
        for genotype in space.genotypes():
            members.setdefault(key(genotype), []).append(genotype)
        first = {group[0]: group for group in members.values()}
        evaluator = Evaluator(space, cifar10(), ("naswot",), batch_size=16, pruned=pruned)
        with worker_pool(available_cores()) as executor:
            scored = screen(evaluator, list(first), executor=executor)
        singular = {g for row in scored if math.isinf(row.mean["naswot"]) for g in first[row.genotype]}
        known = {g for g in space.genotypes() if (not space.has_path(g) if pruned else space.is_singular(g))}
        rows.append(
            {
                "network": "pruned" if pruned else "as published",
                "classes": len(first),
                "singular": len(singular),
                "expected": len(known),
                "same_cells": singular == known,
            }
        )
    write("singular_cells", rows, batch="16 CIFAR-10 training images", seed=0)


if __name__ == "__main__":
    main()
