"""Figure 6: the score of a network while it trains.

Paper: Mellor et al., ICML 2021, arXiv:2006.04647, section 3.1: ten NAS-Bench-201 networks of more than 90 % validation
accuracy on CIFAR-10, 100 epochs. Here the same networks at a size that two cores train in minutes: narrower, fewer
cells, smaller and fewer images, and ten epochs that together have about as many steps as the paper's first or second.
The paper draws curves and says that the score rises in the first few epochs, then stays, with a rather stable ranking;
the numbers of the table are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import naswot
from naswot.data.images import ImageSet
from naswot.evaluate import Evaluator, single_thread
from naswot.plots import new_figure
from naswot.reproduce.cells import Cells, cells_of_quality, take
from naswot.reproduce.rows import Outcome, Row, mean_and_sd
from naswot.reproduce.setting import Setting
from naswot.seeding import derive_seed, numpy_generator, torch_generator
from naswot.spaces.nasbench201 import NASBench201
from naswot.statistics import kendall
from naswot.training.brief import train_briefly
from naswot.types import Evaluation, Genotype

BUILD = {"width": 8, "n_cells": 2}
STEP = 64  # images in a step of training
ABOVE = 90.0  # validation accuracy of the paper's networks, percent

Trajectory = list[float]
"""The scores before the first epoch and after each, then the accuracy reached on held-out images, percent."""


def during_training(setting: Setting) -> Outcome:
    """Scores after each epoch, their ranking against that before training, and the curves."""
    epochs = setting.pick(10, 3)
    cells = good_cells(setting, setting.pick(10, 4))
    train, held_out = _images(setting)
    evaluator = setting.evaluator(NASBench201(), train, like=train, batch_size=setting.pick(128, 32), build=BUILD)
    found = np.array(_trajectories(setting, evaluator, cells.genotypes, train, held_out, epochs))
    scores, accuracy = found[:, :-1], found[:, -1]
    draw_curves(scores, cells, setting.out / "during_training.png")
    size = f"width {evaluator.build['width']}, {evaluator.build['n_cells']} cells a stage"
    notes = (
        f"{len(cells.genotypes)} networks ({size}) on {len(train):,} images of {train.name} {train.shape}, "
        f"{epochs} epochs of {len(train) // STEP} steps; accuracy {accuracy.min():.1f} to {accuracy.max():.1f} %.",
        *filter(None, [cells.note]),
    )
    rows = _rows(scores, train.name, setting.seed)
    return Outcome(tuple(rows), ("during_training.png",), notes=notes)


def good_cells(setting: Setting, n: int) -> Cells:
    """``n`` random cells of more than 90 % validation accuracy; without accuracies, of the largest tenth."""
    cells = cells_of_quality(setting, "cifar10-valid")
    floor = ABOVE if cells.dataset != "-" else float(np.quantile(cells.quality, 0.9))
    places = np.flatnonzero(cells.quality > floor)
    if len(places) < n:
        places = np.arange(len(cells.genotypes) - n, len(cells.genotypes))
    rng = numpy_generator(derive_seed(setting.seed, "training"))
    return take(cells, np.sort(rng.choice(places, n, replace=False)))


def follow(evaluator: Evaluator, genotype: Genotype, train: ImageSet, held_out: ImageSet, epochs: int) -> Trajectory:
    """What a worker runs: train one network on one thread and score it on the evaluator's batch after each epoch."""
    batch = evaluator.batch(0)
    with single_thread():
        model = evaluator.model(genotype)
        scores = [naswot.score(model, batch)]

        def note_score(epoch: int) -> None:  # noqa: ARG001
            scores.append(naswot.score(model, batch))

        reached = train_briefly(
            model, train, held_out, epochs=epochs, batch_size=STEP, seed=evaluator.seed, on_epoch=note_score
        )
    return [*scores, reached.accuracy]


def _trajectories(
    setting: Setting,
    evaluator: Evaluator,
    genotypes: Sequence[Genotype],
    train: ImageSet,
    held_out: ImageSet,
    epochs: int,
) -> list[Trajectory]:
    """One for each genotype, in order; known ones come from the store."""
    section = setting.section(f"training-{len(train)}-{epochs}", evaluator)
    names = [*(f"naswot_after_{epoch}" for epoch in range(epochs + 1)), "accuracy"]
    archs = {genotype: evaluator.space.format(genotype) for genotype in genotypes}
    known = {genotype: section.get(arch, setting.seed) for genotype, arch in archs.items()}
    jobs: dict[Genotype, Future[Trajectory]] = {}
    if setting.executor is not None:
        for genotype in (g for g, evaluation in known.items() if evaluation is None):
            jobs[genotype] = setting.executor.submit(follow, evaluator, genotype, train, held_out, epochs)
    result = []
    for genotype, evaluation in known.items():
        if evaluation is None:
            job = jobs.get(genotype)
            values = job.result() if job else follow(evaluator, genotype, train, held_out, epochs)
            evaluation = Evaluation(genotype, archs[genotype], dict(zip(names, values, strict=True)), {}, setting.seed)  # noqa: PLW2901
            section.append(evaluation)
        result.append([evaluation.scores[name] for name in names])
    return result


def _images(setting: Setting) -> tuple[ImageSet, ImageSet]:
    """Images to train on and to test on."""
    images = setting.images("cifar10", size=16)
    order = torch.randperm(len(images), generator=torch_generator(derive_seed(setting.seed, "images")))
    n_train, n_test = setting.pick((4000, 1000), (600, 200))
    return images.subset(order[:n_train]), images.subset(order[n_train : n_train + n_test])


def _rows(scores: NDArray[np.float64], dataset: str, seed: int) -> list[Row]:
    """For each epoch the change since initialisation and the agreement of the ranking with that at initialisation.

    Args:
        scores: (networks, 1 + epochs).
        dataset: where the images come from.
        seed: of the run.
    """
    rows = []
    note = "the paper: a sharp rise in the first few epochs, then nearly constant; a rather stable ranking"
    for epoch in range(1, scores.shape[1]):
        change, sd = mean_and_sd(scores[:, epoch] - scores[:, 0])
        n = len(scores)
        what = f"change of the score after epoch {epoch} [nats]"
        rows.append(Row(what, dataset, "train", change, n, seed, sd, note=note))
        tau = kendall(scores[:, epoch], scores[:, 0])
        rows.append(Row(f"tau of the ranking after epoch {epoch} with that before", dataset, "train", tau, n, seed))
    return rows


def draw_curves(scores: NDArray[np.float64], cells: Cells, path: Path) -> None:
    """One curve for each network, named by its published accuracy; on the left the first two epochs."""
    figure = new_figure(8.4, 3.8)
    left, right = figure.subplots(1, 2, width_ratios=(1, 2))
    for number, curve in enumerate(scores):
        label = f"{cells.quality[number]:.4g}"
        left.plot(range(min(3, len(curve))), curve[:3], marker="o", markersize=3, color=f"C{number}")
        right.plot(range(len(curve)), curve, marker="o", markersize=3, color=f"C{number}", label=label)
    for axis in (left, right):
        axis.set_xlabel("epochs")
        axis.set_ylabel("log|K_H| [nats]")
        axis.grid(alpha=0.25)
    right.legend(title=cells.label, fontsize=7, title_fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=150)
