"""Figure 1(a): kernels of untrained NAS-Bench-201 networks in columns of trained accuracy.

Paper: Mellor et al., ICML 2021, arXiv:2006.04647. The paper does not print the bounds of its columns; these are ours.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import naswot
from naswot.evaluate import single_thread
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
        mean, sd = mean_and_sd([mean_similarity(kernel) for _, kernel in column])
        what = f"share of codes two images have in common, accuracy {low:.0f} to {high:.0f} %"
        note = "n networks; the paper shows pictures only: the better, the less similar"
        rows.append(Row(what, "cifar10-valid", "valid", mean, len(column), setting.seed, sd, note=note))
    draw_kernels(grid, setting.out / "kernels_by_accuracy.png")
    return Outcome(tuple(rows), ("kernels_by_accuracy.png",))


def normalised_kernel(evaluator: naswot.evaluate.Evaluator, genotype: Genotype) -> Kernel:
    """K_H / N_A of an untrained network, (N, N), ones on the diagonal."""
    with single_thread():
        kernel = naswot.hamming_kernel(evaluator.model(genotype), evaluator.batch(0)).numpy()
    return np.asarray(kernel / kernel[0, 0], dtype=np.float64)


def mean_similarity(kernel: Kernel) -> float:
    """Mean of a normalised kernel off its diagonal, within [0, 1]."""
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))


def draw_kernels(grid: list[tuple[str, list[tuple[float, Kernel]]]], path: Path) -> None:
    """One column of pictures for each band, dark where images share their codes.

    Args:
        grid: title of each band with (accuracy, kernel) of its networks.
        path: where the picture goes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_rows = max(len(column) for _, column in grid)
    figure = Figure(figsize=(1.6 * len(grid), 1.7 * n_rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
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
