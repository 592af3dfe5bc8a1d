"""Train 24 cells of NAS-Bench-201 on the digits, twice for a few epochs, and write digits.csv for ``naswot calibrate``.

python examples/train_24_cells.py && naswot calibrate digits.csv --space nasbench201 --build width=4 --build n_cells=1
"""

from __future__ import annotations

import csv
import sys

from naswot import get_space
from naswot.data import get_data
from naswot.evaluate import Evaluator
from naswot.run import sample_distinct
from naswot.training.brief import train_briefly


def main(path: str = "digits.csv", n_cells: int = 24, n_trainings: int = 2, epochs: int = 3) -> None:
    """Write a row for each cell: its string and the test accuracy of each training, percent."""
    space = get_space("nasbench201")
    train, test = get_data("digits"), get_data("digits", split="test")
    evaluator = Evaluator(space, train, build={"width": 4, "n_cells": 1, "n_classes": train.n_classes})
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", *(f"accuracy_{i}" for i in range(n_trainings))])
        for cell in sample_distinct(space, n_cells):
            trained = [
                train_briefly(evaluator.model(cell, repeat), train, test, epochs=epochs, seed=repeat)
                for repeat in range(n_trainings)
            ]
            writer.writerow([space.format(cell), *(training.accuracy for training in trained)])


if __name__ == "__main__":
    main(*sys.argv[1:2])
