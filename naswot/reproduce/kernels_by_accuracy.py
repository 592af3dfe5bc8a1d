"""Figure 1(a): kernels of untrained NAS-Bench-201 networks in columns of trained accuracy.

Paper: Mellor et al., ICML 2021, arXiv:2006.04647. The paper does not print the bounds of its columns; these are ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import naswot
from naswot.evaluate import Evaluator, single_thread
from naswot.kernels import log_determinant
from naswot.plots import new_figure
from naswot.reproduce.rows import Outcome, Row, mean_and_sd
from naswot.reproduce.setting import Setting
from naswot.seeding import derive_seed, numpy_generator
from naswot.types import Genotype

BANDS = ((0.0, 50.0), (50.0, 70.0), (70.0, 80.0), (80.0, 88.0), (88.0, 100.0))
"""Validation accuracy on CIFAR-10, percent; the lower end belongs to a band."""

Kernel = NDArray[np.float64]


def kernels_by_accuracy(setting: Setting) -> Outcome:
    """Normalised kernels of 128 images for some networks of each band, and how similar images are in the mean."""
    benchmark = setting.benchmark("nasbench201")
    accuracy = benchmark.column("cifar10-valid", "valid_accuracy")
    images = setting.images("cifar10")
    evaluator = setting.evaluator(benchmark.space, images, like=images, batch_size=setting.pick(128, 48))
    genotypes = list(benchmark.genotypes())
    rng = numpy_generator(derive_seed(setting.seed, "kernels"))
    grid, rows = [], []
    for low, high in BANDS:
        places = np.flatnonzero((accuracy >= low) & (accuracy < high))
        if len(places) == 0:
            continue
        chosen = rng.choice(places, min(setting.pick(5, 3), len(places)), replace=False)
        chosen = chosen[np.argsort(accuracy[chosen])]
        column = [(float(accuracy[place]), normalised_kernel(evaluator, genotypes[place])) for place in chosen]
        grid.append((f"{low:.0f} to {high:.0f} %", column))
        rows += _rows(f"accuracy {low:.0f} to {high:.0f} %", [kernel for _, kernel in column], setting.seed)
    draw_kernels(grid, setting.out / "kernels_by_accuracy.png")
    return Outcome(tuple(rows), ("kernels_by_accuracy.png",))


def normalised_kernel(evaluator: Evaluator, genotype: Genotype) -> Kernel:
    """K_H / N_A of an untrained network, (N, N), ones on the diagonal."""
    with single_thread():
        kernel = naswot.hamming_kernel(evaluator.model(genotype), evaluator.batch(0)).numpy()
    return np.asarray(kernel / kernel[0, 0], dtype=np.float64)


def mean_similarity(kernel: Kernel) -> float:
    """Mean of a normalised kernel off its diagonal, within [0, 1]."""
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))


def diversity(kernel: Kernel) -> float:
    """Log-determinant of a normalised kernel for each image, nats, at most 0; -inf where it is singular."""
    return log_determinant(torch.from_numpy(kernel)).value / len(kernel)


def _rows(band: str, kernels: list[Kernel], seed: int) -> list[Row]:
    """How alike images are in a band: the mean over its networks, and the median of what the determinant sees."""
    common: dict[str, Any] = {"dataset": "cifar10-valid", "split": "valid", "n": len(kernels), "seed": seed}
    note = "n networks; the paper shows pictures only"
    mean, sd = mean_and_sd([mean_similarity(kernel) for kernel in kernels])
    middle = float(np.median([diversity(kernel) for kernel in kernels]))
    return [
        Row(f"share of units on which two images agree, {band}", ours=mean, sd=sd, note=note, **common),
        Row(f"median of log|K_H / N_A| for each image [nats], {band}", ours=middle, note=note, **common),
    ]


def draw_kernels(grid: list[tuple[str, list[tuple[float, Kernel]]]], path: Path) -> None:
    """One column of pictures for each band, dark where images share their codes.

    Args:
        grid: title of each band with (accuracy, kernel) of its networks.
        path: where the picture goes.
    """
    n_rows = max(len(column) for _, column in grid)
    figure = new_figure(1.6 * len(grid), 1.7 * n_rows + 0.4)
    axes = figure.subplots(n_rows, len(grid), squeeze=False)
    for number, (title, column) in enumerate(grid):
        for place in range(n_rows):
            axis = axes[place, number]
            axis.set_axis_off()
            if place < len(column):
                accuracy, kernel = column[place]
                axis.imshow(kernel, cmap="gray_r", vmin=0.4, vmax=1.0, interpolation="nearest")
                axis.set_title((f"{title}\n" if place == 0 else "") + f"{accuracy:.1f}", fontsize=8)
    figure.suptitle("normalised kernels of untrained networks, by accuracy when trained", fontsize=9)
    figure.savefig(path, dpi=150)
