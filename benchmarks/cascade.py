"""Does the cascade pay? Against a random pick, and against random search, with the seconds that the cascade took.

For each seed: the cascade (screen, train the best few briefly and the finalist fully); a random cell trained as the
finalist is; the same cell trained for as many epochs as fit into the seconds of the cascade; random search by full
trainings within these seconds. Everything is chosen by validation images; the winner of each is then trained on all
training images and meets the test images once. One torch thread, one after the other, so that seconds compare.

``digits`` was fixed first, and turned out to be too easy: nearly every cell reaches 97 %. ``digits_short`` are the
networks of the embedded benchmark, five epochs at width 4, as they were published before: --epochs 5 --brief 2. There
NASWOT ranks backwards and SNIP does not, as the README said before: --proxy snip.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from common import data_root, write
from scipy.stats import t as student

from naswot.assisted import ProxyScorer
from naswot.data import get_data
from naswot.evaluate import Evaluator, single_thread
from naswot.searcher import Trial, get_searcher
from naswot.searching import Budget, Record, run_search
from naswot.space import get_space
from naswot.training.evaluator import TrainingEvaluator
from naswot.training.loop import test_accuracy, train
from naswot.training.recipe import get_recipe
from naswot.training.splits import three_way_split

SPACE = get_space("nasbench201")
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {"images": {"size": 16, "noise": 1.0}, "build": {"width": 8, "n_cells": 1}},
    "digits_short": {"data": "digits", "images": {"size": 16, "noise": 1.0}, "build": {"width": 4, "n_cells": 1}},
    "cifar10": {"images": {}, "build": {"width": 8, "n_cells": 1}, "recipe": {"flip": True, "crop_padding": 4}},
}


@dataclass(frozen=True)
class Task:
    """Images in three parts, and how networks are built and trained."""

    data: str
    seed: int
    epochs: int

    def images(self, split: str) -> Any:
        """The training or test images."""
        root = data_root() if self.data == "cifar10" else None
        name = SETTINGS[self.data].get("data", self.data)
        return get_data(name, root=root, split=split, **SETTINGS[self.data]["images"])

    def recipe(self, epochs: int) -> Any:
        """How networks are trained."""
        return get_recipe("quick", epochs=epochs, **SETTINGS[self.data].get("recipe", {}))

    def evaluator(self) -> TrainingEvaluator:
        """Trains and validates, on three quarters and one quarter of the training images."""
        parts = three_way_split(self.images("train"), valid_fraction=0.25, seed=self.seed)
        build = SETTINGS[self.data]["build"]
        return TrainingEvaluator(SPACE, *parts, self.recipe(self.epochs), seed=self.seed, build=build)

    def tested(self, record: Record, epochs: int) -> float:
        """Test accuracy of an architecture trained on all training images."""
        model = self.evaluator().model(Trial(0, record.trial.genotype))
        with single_thread():
            train(model, self.images("train"), None, self.recipe(epochs), seed=self.seed)
            return test_accuracy(model, self.images("test"))


def compare(task: Task, proxy: str, screened: int, kept: int, brief: int) -> list[dict[str, Any]]:
    """Rows of one seed."""
    evaluator = task.evaluator()
    proxies = Evaluator(SPACE, evaluator.train, (proxy,), seed=task.seed, build=evaluator.build)
    cascade = get_searcher(
        "cascade", SPACE, seed=task.seed, scorer=ProxyScorer(proxies), screened=screened, kept=kept, brief=brief
    )
    start = time.perf_counter()
    found = run_search(cascade, evaluator)
    budget = found.seconds
    rows = [row("cascade", task, found.records, found.best, task.tested(found.best, task.epochs), budget)]
    print(rows[-1], time.perf_counter() - start, flush=True)

    pick = get_searcher("random", SPACE, seed=task.seed)
    once = run_search(pick, evaluator, budget=Budget(evaluations=1))
    per_epoch = once.seconds / task.epochs
    rows.append(row("random pick", task, once.records, once.best, task.tested(once.best, task.epochs), once.seconds))
    print(rows[-1], flush=True)
    long = max(task.epochs, round(budget / per_epoch))
    accuracy = task.tested(once.best, long)
    rows.append(row("random pick, long", task, once.records, once.best, accuracy, long * per_epoch, long))
    print(rows[-1], flush=True)

    random = get_searcher("random", SPACE, seed=task.seed + 1000)
    many = run_search(random, evaluator, budget=Budget(seconds=budget))
    rows.append(row("random search", task, many.records, many.best, task.tested(many.best, task.epochs), many.seconds))
    print(rows[-1], flush=True)
    return rows


def row(
    what: str, task: Task, records: Any, best: Record, accuracy: float, seconds: float, epochs: int | None = None
) -> dict[str, Any]:
    """One line of the table."""
    return {
        "method": what,
        "seed": task.seed,
        "test_accuracy": round(accuracy, 3),
        "trained": len(records),
        "final_epochs": epochs or task.epochs,
        "search_seconds": round(seconds, 1),
        "arch": SPACE.format(best.trial.genotype),
    }


def differences(rows: list[dict[str, Any]], other: str) -> dict[str, Any]:
    """Mean paired difference of the cascade to another method, with its 95 % interval by Student's t."""
    ours, theirs = ([r["test_accuracy"] for r in rows if r["method"] == what] for what in ("cascade", other))
    d = np.subtract(ours, theirs)
    half = student.ppf(0.975, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d)) if len(d) > 1 else float("nan")
    low, high = round(d.mean() - half, 3), round(d.mean() + half, 3)
    return {"method": f"cascade - {other}", "test_accuracy": round(d.mean(), 3), "low": low, "high": high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=list(SETTINGS), default="digits")
    parser.add_argument("--proxy", default="naswot", help="by which the cascade screens")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--screened", type=int, default=100)
    parser.add_argument("--kept", type=int, default=8)
    parser.add_argument("--brief", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in range(given.seeds):
        rows += compare(Task(given.data, seed, given.epochs), given.proxy, given.screened, given.kept, given.brief)
    rows += [differences(rows, other) for other in ("random pick", "random pick, long", "random search")]
    about: dict[str, Any] = {"data": given.data, **SETTINGS[given.data], "screened": given.screened, "kept": given.kept}
    about |= {"proxy": given.proxy, "brief_epochs": given.brief, "epochs": given.epochs, "threads": 1}
    blank = dict.fromkeys((*rows[0], "low", "high"), "")
    name = f"cascade_{given.data}" + ("" if given.proxy == "naswot" else f"_{given.proxy}")
    write(name, [{**blank, **row} for row in rows], **about)


if __name__ == "__main__":
    main()
