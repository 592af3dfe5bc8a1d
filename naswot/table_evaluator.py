"""A benchmark in the place of training: results are looked up, seconds are simulated."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from naswot.benchmark import Benchmark
from naswot.searcher import Trial
from naswot.space import SearchSpace
from naswot.types import Evaluation, Genotype


@dataclass(frozen=True)
class FlopsClock:
    r"""Seconds of training estimated from MACs, for benchmarks that do not tell them.

    .. math:: t = E \, n (a + b \, \mathrm{MACs})

    The defaults are a least-squares fit to the three official NATS-Bench records of cells 0, 11 and 284 (12 epochs on
    25,000 images of 32 x 32; 15.6, 114.0 and 11.7 million MACs took 86.7, 149.5 and 58.5 s on a GTX 1080 Ti).

    Args:
        images: n, training images in an epoch.
        per_image: a, seconds.
        per_mac: b, seconds, forward and backward pass.
    """

    images: int = 25_000
    per_image: float = 2.06e-4
    per_mac: float = 2.58e-12

    def seconds(self, macs: float, epochs: int) -> float:
        """Estimate for ``epochs`` epochs."""
        return epochs * self.images * (self.per_image + self.per_mac * macs)


class TableEvaluator:
    """Looks results up in a benchmark, as if the architecture were trained.

    Seconds are the benchmark's own (``train``) or, where it has none, estimated from FLOPs (``train_estimated``).

    Args:
        benchmark: the table.
        dataset: one of its data sets.
        metric: what is looked up, such as ``valid_accuracy``; its name is that of the score.
        epochs: length of training; None: the longest.
        training: number of one training; None: the mean over all.
        flops: MACs of an architecture; None: the benchmark's own, or else counted in the built network.
        clock: of the estimate.
    Raises:
        UnknownNameError: if the benchmark has no such data set or metric.
        DataError: if it has no such training.
    """

    inherits = False
    seed = 0

    def __init__(
        self,
        benchmark: Benchmark,
        dataset: str,
        metric: str = "valid_accuracy",
        *,
        epochs: int | None = None,
        training: int | None = None,
        flops: Callable[[Genotype], float] | None = None,
        clock: FlopsClock | None = None,
    ) -> None:
        self.benchmark, self.space, self.dataset, self.metric = benchmark, benchmark.space, dataset, metric
        self.training, self.clock = training, clock or FlopsClock()
        self._values: dict[int | None, np.ndarray[Any, Any]] = {}
        self._seconds: dict[int | None, np.ndarray[Any, Any] | None] = {}
        self._flops, self._macs = flops, dict[Genotype, float]()
        told = {c.epochs for c in benchmark.columns if (c.dataset, c.metric) == (dataset, metric)}
        self.lengths = tuple(sorted(n for n in told if n is not None))  # of training, in epochs
        self.epochs = epochs if epochs is not None else max(self.lengths, default=None)
        self.names = (metric,)
        self.stages = ("train", "train_estimated")
        self.by_epochs = (metric, "train", "train_estimated")
        self._column(epochs)  # what is not there is refused now

    def evaluate(self, trial: Trial) -> Evaluation:
        """The value of the table."""
        epochs = trial.epochs or self.epochs
        genotype, arch = trial.genotype, self.space.format(trial.genotype)
        row = self.benchmark.row(genotype)
        if row is None:
            return Evaluation(genotype, arch, {}, {}, self.seed, error=f"{self.benchmark.name} has no result of it")
        value = float(self._column(epochs)[row])
        reasons = {self.metric: f"{self.benchmark.name} has no value of it"} if math.isnan(value) else {}
        scores = {} if reasons else {self.metric: value}
        return Evaluation(genotype, arch, scores, self._cost(genotype, row, epochs), self.seed, reasons=reasons)

    def describe(self) -> dict[str, object]:
        """The benchmark and what is asked of it."""
        return {
            "benchmark": self.benchmark.name,
            "dataset": self.dataset,
            "metric": self.metric,
            "epochs": self.epochs,
            "training": self.training,
            "clock": [self.clock.images, self.clock.per_image, self.clock.per_mac],
        }

    def _column(self, epochs: int | None) -> np.ndarray[Any, Any]:
        if epochs not in self._values:
            found = self.benchmark.column(self.dataset, self.metric, epochs=epochs, seed=self.training)
            self._values[epochs] = found
        return self._values[epochs]

    def _cost(self, genotype: Genotype, row: int, epochs: int | None) -> dict[str, float]:
        if epochs not in self._seconds:
            told = any(c[:3] == (self.dataset, "train_seconds", epochs) for c in self.benchmark.columns)
            column = self.benchmark.column(self.dataset, "train_seconds", epochs=epochs) if told else None
            self._seconds[epochs] = column
        known = self._seconds[epochs]
        if known is not None and not math.isnan(known[row]):
            return {"train": float(known[row])}
        if epochs is None:
            return {}
        return {"train_estimated": self.clock.seconds(self._macs_of(genotype, row), epochs)}

    def _macs_of(self, genotype: Genotype, row: int) -> float:
        if genotype not in self._macs:
            if self._flops is not None:
                self._macs[genotype] = self._flops(genotype)
            elif "flops" in self.benchmark.metrics(self.dataset):
                self._macs[genotype] = float(self.benchmark.column(self.dataset, "flops")[row])
            else:
                self._macs[genotype] = _count_macs(self.space, genotype, self.benchmark.build)
        return self._macs[genotype]


def _count_macs(space: SearchSpace, genotype: Genotype, build: Mapping[str, Any]) -> float:
    from naswot.constraints import network_costs
    from naswot.data import get_data

    return network_costs(space, get_data("digits", size=space.input_size), build=build)["flops"](genotype)
