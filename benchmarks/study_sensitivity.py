"""How far the recommended score depends on what is around the network: batch, inputs, labels, initialisation, mode.

Writes results/study_sensitivity.csv. Each variant differs from the default in one thing, is measured once on the same
random architectures of NAS-Bench-201 (CIFAR-10) and of the embedded digits, and is compared with the trained test
accuracy and with the default. Scores are kept in a store, so that the run goes on after an interruption; variants that
the time does not suffice for are named in the table and left out. Run:
NASWOT_DATA=... python benchmarks/study_sensitivity.py --store FOLDER [--only NAME:N,...] [--minutes M]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, data_root, write
from study_features import Task, source_of
from torch import Tensor, nn

from naswot.benchmark import Benchmark
from naswot.correlating import sample_of, scores_of
from naswot.data import get_data
from naswot.evaluate import Evaluator
from naswot.options import PassOptions
from naswot.seeding import derive_seed, torch_generator
from naswot.statistics import Floats, compare, kendall, kendall_interval
from naswot.store import ResultStore
from naswot.types import Batch, Genotype
from naswot.workers import worker_pool

SCORES = ("calm", "code_evidence", "naswot")
DEFAULT = "nasbench201_digits:200,nasbench201:150"
DATASETS = {"nasbench201": "cifar10", "nasbench201_digits": "digits"}
SIZES = {"nasbench201": (16, 32), "nasbench201_digits": (8, 16, 32)}
DEFAULT_SIZE = {"nasbench201": 32, "nasbench201_digits": 16}

Weights = Callable[[Tensor, torch.Generator], object]
INITIALISATIONS: dict[str, Weights] = {
    "kaiming_normal fan_out": lambda w, g: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu", generator=g),
    "xavier_uniform": lambda w, g: nn.init.xavier_uniform_(w, generator=g),
    "orthogonal": lambda w, g: nn.init.orthogonal_(w, generator=g),
    "weights x 2": lambda w, g: w.mul_(2),
    "weights x 0.5": lambda w, g: w.mul_(0.5),
}


@dataclass(frozen=True)
class Variant:
    """What differs from the default, in words and in the evaluator.

    Args:
        name: what is varied.
        value: to what.
        fields: fields of the evaluator.
        inputs: ``"real"`` or ``"noise"``.
        labels: ``"real"`` or ``"shuffled"``.
        draw: number of the noise or the permutation, of which there are several.
        size: height and width of the images, None for the benchmark's.
        weights: how weights are drawn, empty: as built.
    """

    name: str
    value: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    inputs: str = "real"
    labels: str = "real"
    draw: int = 0
    size: int | None = None
    weights: str = ""


@dataclass(frozen=True)
class Altered:
    """Images of which inputs or labels are replaced after the draw.

    Args:
        images: those that are drawn.
        inputs: ``"noise"`` puts standard Gaussian noise in the place of the images, whose labels stay.
        labels: ``"shuffled"`` permutes those of the batch.
        draw: number of the noise or permutation.
    """

    images: Any
    inputs: str
    labels: str
    draw: int

    def batch(self, n: int, *, generator: torch.Generator) -> Batch:
        """The same draw as without, altered."""
        batch = self.images.batch(n, generator=generator)
        own = torch_generator(derive_seed("sensitivity", self.inputs, self.labels, self.draw))
        if self.inputs == "noise":
            batch = batch.map(lambda t: torch.randn(t.shape, generator=own))
        order = torch.randperm(n, generator=own) if self.labels == "shuffled" else torch.arange(n)
        return replace(batch, targets=batch.targets[order])


@dataclass(frozen=True)
class Reweighted(Evaluator):
    """An evaluator that draws the weights of convolutions and linear layers anew after building."""

    weights: str = ""

    def model(self, genotype: Genotype, repeat: int = 0) -> nn.Module:
        """The network as built, with other weights from (seed, architecture, repeat); biases and norms stay."""
        model = super().model(genotype, repeat)
        generator = torch_generator(derive_seed(self.seed, self.space.format(genotype), repeat, "weights"))
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    INITIALISATIONS[self.weights](module.weight, generator)
        return model

    def describe(self) -> dict[str, object]:
        """With the way in which the weights were drawn."""
        return {**super().describe(), "weights": self.weights}


def variants(benchmark: str) -> Iterator[Variant]:
    """The default and all that differ from it in one thing, those that tell most first."""
    yield Variant("default", "64 images, seed 0")
    yield from (Variant("seed", str(seed), {"seed": seed}) for seed in (1, 2))
    yield from (Variant("inputs", f"real, labels shuffled ({i})", labels="shuffled", draw=i) for i in (1, 2))
    yield from (Variant("inputs", f"Gaussian noise ({i})", inputs="noise", draw=i) for i in (1, 2))
    yield from (Variant("batch size", str(n), {"batch_size": n}) for n in (16, 32))
    yield Variant("mode", "eval", {"options": PassOptions(mode="eval")})
    yield from (Variant("initialisation", name, weights=name) for name in INITIALISATIONS)
    for size in SIZES[benchmark]:
        if size != DEFAULT_SIZE[benchmark]:
            yield Variant("resolution", str(size), size=size)
    yield Variant("batch size", "128", {"batch_size": 128})
    yield Variant("options", "channels_last", {"options": PassOptions(channels_last=True)})
    fast = PassOptions(channels_last=True, bfloat16=True)
    yield Variant("options", "channels_last and bfloat16", {"options": fast})
    yield Variant("batch size", "256", {"batch_size": 256})


def evaluator_of(variant: Variant, benchmark: Benchmark, images: Any, build: Mapping[str, Any]) -> Evaluator:
    """What measures a variant."""
    if variant.size is not None:
        chosen = {**benchmark.images, "size": variant.size}
        images = get_data(chosen.pop("data"), root=data_root(), **chosen)
    if (variant.inputs, variant.labels) != ("real", "real"):
        images = Altered(images, variant.inputs, variant.labels, variant.draw)
    fields = {"batch_size": 64, "build": build, **variant.fields}
    if variant.weights:
        return Reweighted(benchmark.space, images, SCORES, weights=variant.weights, **fields)
    return Evaluator(benchmark.space, images, SCORES, **fields)


def rows_of(name: str, n: int, store: Path, executor: Executor | None, end: float) -> tuple[list[dict], list[str]]:
    """Rows of one benchmark, and the variants for which there was no time."""
    benchmark, images, build = source_of(Task(name))
    sample = sample_of(benchmark, n)
    truth = benchmark.column(DATASETS[name])[[benchmark.row(g) for g in sample]]
    rows: list[dict] = []
    left_out: list[str] = []
    default: Mapping[str, Floats] = {}
    for variant in variants(name):
        slug = f"{name}-{variant.name}-{variant.value}".replace(" ", "_")
        if time.monotonic() > end and not (store / f"{slug}.sqlite").exists():
            left_out.append(f"{name} {variant.name} {variant.value}")
            continue
        evaluator = evaluator_of(variant, benchmark, images, build)
        start = time.monotonic()
        with ResultStore(store / f"{slug}.sqlite", options=evaluator.describe()) as results:
            scores = scores_of(evaluator, sample, executor=executor, store=results)
        for arch, error in scores.errors.items():
            print(f"{slug} {arch}: {error}", flush=True)
        default = default or scores.values
        rows += [row_of(name, variant, score, scores.values[score], default[score], truth) for score in SCORES]
        print(f"{slug}: {time.monotonic() - start:.0f} s", flush=True)
    return rows, left_out


def row_of(name: str, variant: Variant, score: str, values: Floats, default: Floats, truth: Floats) -> dict[str, Any]:
    """One score of one variant, against the truth and against the default."""
    tau = kendall_interval(values, truth)
    change = compare(values, default, truth).difference
    finite = np.isfinite(values) & np.isfinite(default)
    shift = values[finite] - default[finite]
    numbers = {
        "tau": tau.value,
        "low": tau.low,
        "high": tau.high,
        "tau_less_default": change.value,
        "less_low": change.low,
        "less_high": change.high,
        "tau_to_default": kendall(values, default),
        "mean_shift": float(shift.mean()),
        "sd_shift": float(shift.std(ddof=1)),
        "sd": float(values[finite].std(ddof=1)),
    }
    rounded = {key: round(number, 4) + 0.0 for key, number in numbers.items()}
    undefined = int(np.isinf(values).sum())
    return {
        "benchmark": name,
        "variant": variant.name,
        "value": variant.value,
        "score": score,
        "n": tau.n,
        "undefined": undefined,
        **rounded,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, required=True, help="folder that keeps the scores")
    parser.add_argument("--only", default=DEFAULT, help="which benchmarks, and how many of each")
    parser.add_argument("--minutes", type=float, default=1e6, help="no variant is begun after that")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the table")
    given = parser.parse_args()
    given.store.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * given.minutes
    rows: list[dict] = []
    left_out: list[str] = []
    with worker_pool(given.workers) as executor:
        for part in given.only.split(","):
            name, _, n = part.partition(":")
            more, without = rows_of(name, int(n), given.store, executor, end)
            rows, left_out = rows + more, left_out + without
    write(
        "study_sensitivity",
        rows,
        out=given.out,
        default="64 training images, size 32 (CIFAR-10) or 16 (digits), weights as built, BatchNorm in training",
        repeats="one; seeds 1 and 2 draw another batch and another initialisation: the noise that one repeat has",
        tau="Kendall's tau-b with test accuracy, interval of 95% over architectures; tau_less_default is paired",
        shift="variant less default in units of the score, over architectures where both are finite; sd: of the score",
        digits_size="noise is added after the resizing, so that more pixels mean more signal",
        seen="many of these architectures took part in the choice of the score",
        left_out="; ".join(left_out) or "nothing",
    )


if __name__ == "__main__":
    main()
