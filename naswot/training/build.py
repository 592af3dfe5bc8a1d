"""A benchmark of one's own: really train architectures of a space, each several times."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from naswot.benchmark import Column, Table
from naswot.data.images import ImageSet
from naswot.errors import OptionError
from naswot.evaluate import Evaluator, Store, batch_digest, single_thread
from naswot.run import sample_distinct
from naswot.seeding import derive_seed, torch_generator
from naswot.space import SearchSpace
from naswot.training.brief import train_briefly
from naswot.types import Batch, Evaluation, Genotype
from naswot.workers import results_of

_COUNTS = ("params", "flops")
_RESULTS = ("test_accuracy", "train_loss")


@dataclass(frozen=True)
class Recipe:
    """How architectures are trained: everything that determines the numbers.

    Training number s of an architecture starts from an initialisation of its own, derived from ``(seed, s,
    architecture)``, and takes the images in an order derived from ``(seed, s)``. Images and the noise on them are the
    same for all.

    Args:
        space: the search space.
        train: training images with labels; see :func:`choose_images`.
        held_out: images on which the accuracy is taken; nothing is selected by them.
        images: ``data`` and the options of ``get_data`` that gave them.
        build: keyword options of ``space.build`` beside the number of classes and channels.
        epochs: passes over the training images.
        batch_size: N.
        learning_rate: at the start; see :func:`naswot.training.brief.train_briefly` for the rest.
        seed: of everything random.
    """

    space: SearchSpace
    train: ImageSet
    held_out: ImageSet
    images: Mapping[str, Any] = field(default_factory=dict)
    build: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or not self.learning_rate > 0:
            got = f"epochs {self.epochs}, batch_size {self.batch_size}, learning_rate {self.learning_rate}"
            raise OptionError(
                f"expected epochs and batch_size of at least 1 and a positive learning_rate, but got {got}"
            )
        self.evaluator(0)

    def evaluator(self, number: int) -> Evaluator:
        """What builds the networks of a training, and counts their parameters and MACs."""
        build = {"n_classes": self.train.n_classes, "in_channels": self.train.shape[0], **self.build}
        seed = derive_seed(self.seed, "training", number)
        return Evaluator(self.space, self.train, _COUNTS, batch_size=1, seed=seed, build=build)

    def describe(self) -> dict[str, object]:
        """Everything that determines the numbers, for a store to compare."""
        return {
            "space": self.space.name,
            "build": dict(self.build),
            "images": dict(self.images),
            "train_images": len(self.train),
            "train_digest": batch_digest(Batch(*self.train.tensors())),
            "held_out_images": len(self.held_out),
            "held_out_digest": batch_digest(Batch(*self.held_out.tensors())),
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
        }


def distinct_networks(space: SearchSpace, n: int, *, seed: int = 0) -> list[Genotype]:
    """``n`` architectures drawn uniformly, of which no two are the same network by ``space.representative``.

    Of a class the member that was drawn first stays, with its dead parts if it has any; the first architectures do not
    depend on ``n``.

    Raises:
        OptionError: if the space has fewer, or the last ones are too rare to be met.
    """
    drawn = n
    while True:
        drawn = min(2 * drawn, space.size)
        first: dict[Genotype, Genotype] = {}
        for genotype in sample_distinct(space, drawn, seed=seed):
            first.setdefault(space.representative(genotype), genotype)
        if len(first) >= n:
            return list(first.values())[:n]
        if drawn == space.size:
            raise OptionError(f"expected at most {len(first):,} distinct networks of {space.name}, but got {n:,}")


def choose_images(data: ImageSet, n: int | None, *, seed: int = 0) -> ImageSet:
    """``n`` images drawn without replacement; None: all.

    Raises:
        OptionError: if there are fewer.
    """
    if n is None:
        return data
    if not 1 <= n <= len(data):
        raise OptionError(f"expected 1 to {len(data):,} images of {data.name} ({data.split}), but got {n:,}")
    return data.subset(torch.randperm(len(data), generator=torch_generator(derive_seed(seed, "images")))[:n])


def train_all(
    recipe: Recipe,
    genotypes: Sequence[Genotype],
    n_seeds: int,
    *,
    store: Store,
    executor: Executor | None = None,
    on_done: Callable[[Evaluation], None] = lambda evaluation: None,
) -> None:
    """Train every architecture ``n_seeds`` times, unless the store has it; results go there at once.

    Their ``seed`` is the number of the training. What cannot be run is kept with its error and tried again next time.

    Args:
        recipe: how they are trained.
        genotypes: the architectures.
        n_seeds: trainings of each.
        store: bound to ``recipe.describe()``.
        executor: runs the trainings, such as that of :func:`naswot.workers.worker_pool`; None: this process.
        on_done: called with every result, also those that were known.
    Raises:
        WorkerError: if a worker process died.
    """
    missing: list[tuple[Genotype, int]] = []
    for genotype in dict.fromkeys(genotypes):
        for number in range(n_seeds):
            known = store.get(recipe.space.format(genotype), number)
            if known is None or known.error is not None:
                missing.append((genotype, number))
            else:
                on_done(known)
    for result in _results(recipe, missing, executor):
        store.append(result)
        on_done(result)


def _results(recipe: Recipe, jobs: Sequence[tuple[Genotype, int]], executor: Executor | None) -> Iterable[Evaluation]:
    if executor is None:
        yield from (train_one(recipe, *job) for job in jobs)
        return
    yield from results_of(executor, train_one, ((recipe, *job) for job in jobs))


def train_one(recipe: Recipe, genotype: Genotype, number: int) -> Evaluation:
    """What a worker runs: train one network on one thread.

    Its ``seconds["train"]`` are those of the processor, so that others at work on the machine do not count.
    """
    evaluator = recipe.evaluator(number)
    counted = replace(evaluator(genotype), seconds={}, seed=number)
    if counted.error is not None:
        return counted
    with single_thread():
        start = time.process_time()
        trained = train_briefly(
            evaluator.model(genotype),
            recipe.train,
            recipe.held_out,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            seed=evaluator.seed,
        )
        seconds = {"train": time.process_time() - start}
    scores, reasons = {**counted.scores, "test_accuracy": trained.accuracy}, {}
    if math.isfinite(trained.loss):
        scores["train_loss"] = trained.loss
    else:
        reasons["train_loss"] = "the training diverged"
    return replace(counted, scores=scores, seconds=seconds, reasons=reasons)


def collect(recipe: Recipe, genotypes: Sequence[Genotype], n_seeds: int, store: Store) -> Table:
    """The table of what a store holds; NaN where a training failed.

    Columns: ``test_accuracy`` in percent after the last epoch, ``train_loss`` in nats and ``train_seconds`` of every
    training, ``params``, and ``flops`` in MACs.
    """
    dataset, epochs = recipe.train.name, recipe.epochs
    found = [[store.get(recipe.space.format(genotype), number) for genotype in genotypes] for number in range(n_seeds)]
    columns = {
        Column(dataset, metric, epochs, number): [_score(evaluation, metric) for evaluation in found[number]]
        for metric in _RESULTS
        for number in range(n_seeds)
    }
    for number, evaluations in enumerate(found):
        seconds = [math.nan if e is None else e.seconds.get("train", math.nan) for e in evaluations]
        columns[Column(dataset, "train_seconds", epochs, number)] = seconds
    columns |= {Column(dataset, count): [_score(evaluation, count) for evaluation in found[0]] for count in _COUNTS}
    return Table(genotypes, columns, recipe.build, recipe.images)


def _score(evaluation: Evaluation | None, name: str) -> float:
    return math.nan if evaluation is None else evaluation.scores.get(name, math.nan)
