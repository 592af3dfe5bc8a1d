"""Small searches with every kind of evaluator, for tests that kill one; run as a script it kills itself.

python searches.py KIND FOLDER PLACE N: search, and end by SIGKILL inside the N-th call of PLACE, a function that the
evaluation of KIND calls half-way.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from naswot.benchmark import get_benchmark
from naswot.data import get_data
from naswot.evaluate import Evaluator
from naswot.evaluators import AggregateEvaluator, CallableEvaluator, CombinedEvaluator, SupernetEvaluator
from naswot.searcher import get_searcher
from naswot.searching import Budget, run_search
from naswot.seeding import seeded
from naswot.space import get_space
from naswot.store import ResultStore
from naswot.table_evaluator import TableEvaluator
from naswot.training.evaluator import TrainingEvaluator
from naswot.training.recipe import get_recipe
from naswot.training.splits import three_way_split

BUILD = {"width": 2, "n_cells": 1}
SPACE = get_space("nasbench201")

PLACES = {
    "proxy": ("naswot.evaluate:run_proxies", 4),
    "aggregate": ("naswot.evaluators:aggregate_scores", 4),
    "table": ("naswot.benchmark:Benchmark.row", 4),
    "callable": ("reference.searches:half_way", 4),
    "supernet": ("naswot.training.evaluation:evaluate", 4),
    "combined": ("reference.searches:half_way", 4),
    "training": ("torch.optim:SGD.step", 23),
}
"""Where the evaluation of each kind is killed: a function, and in which of its calls."""


def images():
    return get_data("digits", size=8).subset(torch.arange(160))


def half_way() -> None:
    """Called in the middle of the function below."""


def a_function(genotype) -> float:
    half_way()
    return float(sum(genotype)) - 0.5 * genotype[0]


class Supernet:
    """Weights shared in the simplest way: the classifier of all sub-networks is one."""

    def __init__(self):
        self.space = SPACE
        with seeded(3):
            self.head = nn.Linear(8, 10)

    @contextlib.contextmanager
    def activate(self, genotype):
        model = self.extract(genotype)
        model.classifier = self.head if hasattr(model, "classifier") else None
        yield model

    def extract(self, genotype):
        with seeded(sum(genotype)):
            return SPACE.build(genotype, **BUILD)


def evaluator_of(kind: str, folder: Path):
    proxies = Evaluator(SPACE, images(), ("naswot", "params"), batch_size=8, build=BUILD)
    train, valid = three_way_split(images(), valid_fraction=0.25)
    return {
        "proxy": lambda: proxies,
        "aggregate": lambda: AggregateEvaluator(proxies, "log_rank", reference=5, proxies=("naswot", "params")),
        "table": lambda: TableEvaluator(get_benchmark("nasbench201_digits"), "digits", "test_accuracy"),
        "callable": lambda: CallableEvaluator(SPACE, a_function),
        "supernet": lambda: SupernetEvaluator(Supernet(), valid),
        "combined": lambda: CombinedEvaluator(proxies, CallableEvaluator(SPACE, a_function)),
        "training": lambda: TrainingEvaluator(
            SPACE, train, valid, get_recipe("quick", epochs=2, batch_size=32), build=BUILD, folder=folder
        ),
    }[kind]()


def search(kind: str, folder: Path, *, executor=None, parallel: int = 1, evaluations: int = 8):
    evaluator = evaluator_of(kind, folder)
    searcher = get_searcher("regularized_evolution", SPACE, population=3, sample=2, seed=1)
    with ResultStore(folder / "results.sqlite", options={"evaluator": evaluator.describe()}) as store:
        return run_search(
            searcher,
            evaluator,
            budget=Budget(evaluations=evaluations),
            store=store,
            executor=executor,
            parallel=parallel,
        )


def die_in(place: str, n: int) -> None:
    """From now on the ``n``-th call of that function ends this process by SIGKILL."""
    module, _, name = place.partition(":")
    owner = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original, calls = getattr(owner, last), [0]

    def deadly(*args, **options):
        calls[0] += 1
        if calls[0] == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **options)

    setattr(owner, last, deadly)


if __name__ == "__main__":
    from reference import searches  # the module that the evaluator's function looks half_way up in

    torch.set_num_threads(1)
    searches.die_in(sys.argv[3], int(sys.argv[4]))
    searches.search(sys.argv[1], Path(sys.argv[2]))
