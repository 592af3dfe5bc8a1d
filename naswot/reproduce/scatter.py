"""Figure 3: the score of untrained networks against their accuracy when trained, with Kendall's tau.

Paper: Mellor et al., ICML 2021, arXiv:2006.04647; original code: BayesWatch/nas-without-training, plot_scores.py, which
leaves out networks of at most 15 % accuracy (NAS-Bench-101: 50 %) and scores that are no finite number, and draws
at most 1,000 of the rest. Although all axes read "validation accuracy", that code takes the test accuracy of
NAS-Bench-101 and NDS, and so do we.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from naswot.benchmark import Benchmark
from naswot.errors import DataError, MissingPackageError, UnknownNameError
from naswot.plots import new_figure
from naswot.reproduce.rows import Outcome, Row
from naswot.reproduce.scores import Scores, file_of, read_scores, sample_scores
from naswot.reproduce.setting import Setting, small_build
from naswot.seeding import derive_seed, numpy_generator
from naswot.statistics import kendall_interval

SHOWN = 1000  # networks in one panel of the paper


@dataclass(frozen=True)
class Panel:
    """One space and data set.

    Args:
        benchmark: name of the benchmark; its space is scored.
        dataset: data set of the accuracy.
        metric: the accuracy.
        images: where the batch comes from if networks are scored here.
        paper: the tau that the paper prints.
        paper_n: the number of networks it rests on.
        floor: networks of at most that accuracy are left out, percent.
        size: height and width of the images; None: their own.
    """

    benchmark: str
    dataset: str
    metric: str
    images: str
    paper: float
    paper_n: int = SHOWN
    floor: float = 15.0
    size: int | None = None

    @property
    def title(self) -> str:
        """Benchmark and data set."""
        return f"{self.benchmark}, {self.dataset}"


PANELS = (
    Panel("nasbench201", "cifar10-valid", "valid_accuracy", "cifar10", 0.574),
    Panel("nasbench201", "cifar100", "valid_accuracy", "cifar100", 0.611),
    Panel("nasbench201", "ImageNet16-120", "valid_accuracy", "imagenet16", 0.549),
    Panel("nds_darts", "cifar10", "test_accuracy", "cifar10", 0.467),
    Panel("nds_amoeba", "cifar10", "test_accuracy", "cifar10", 0.223, 900),
    Panel("nds_enas", "cifar10", "test_accuracy", "cifar10", 0.365, 749),
    Panel("nds_nasnet", "cifar10", "test_accuracy", "cifar10", 0.304),
    Panel("nds_pnas", "cifar10", "test_accuracy", "cifar10", 0.382, 973),
    Panel("nasbench101", "cifar10", "test_accuracy", "cifar10", 0.285, floor=50.0),
    # the paper scores it on Imagenette, which image_folder reads if it is the data root
    Panel("nds_darts_in", "imagenet", "test_accuracy", "image_folder", 0.535, 121, size=224),
)
"""The panels of Figure 3; another space is one more row."""


@dataclass(frozen=True)
class Cloud:
    """The points of a panel: accuracy in percent and score in nats, (n,) each, and tau."""

    panel: Panel
    accuracy: NDArray[np.float64]
    naswot: NDArray[np.float64]
    tau: float


def scatter(setting: Setting, panels: Sequence[Panel] = PANELS) -> Outcome:
    """Tau of every panel, as the paper filters and draws and over all that are scored, and the scatter plots."""
    rows: list[Row] = []
    clouds: list[Cloud] = []
    missing: dict[str, str] = {}
    for panel in panels:
        try:
            benchmark = setting.benchmark(panel.benchmark)
            accuracy = benchmark.column(panel.dataset, panel.metric)
            scores = scores_of(setting, panel, benchmark, accuracy)
        except (DataError, UnknownNameError, MissingPackageError) as error:
            missing[panel.title] = str(error)
            continue
        found, cloud = taus(panel, accuracy[scores.rows], scores, setting.seed)
        rows += found
        clouds.append(cloud)
    if not clouds:
        return Outcome(missing=missing)
    draw_clouds(clouds, setting.out / "scatter.png")
    return Outcome(tuple(rows), ("scatter.png",), missing)


def scores_of(setting: Setting, panel: Panel, benchmark: Benchmark, accuracy: NDArray[np.float64]) -> Scores:
    """Scores of a panel's networks from a file, or of a random sample of those with a known accuracy."""
    path = file_of(setting, panel.benchmark)
    if path is not None and not setting.quick:
        return read_scores(path, benchmark)
    if setting.quick and not small_build(benchmark.space):
        raise DataError(f"left out of a quick run: networks of {benchmark.space.name} have no small form")
    rng = numpy_generator(derive_seed(setting.seed, "scatter", panel.benchmark))
    known = np.flatnonzero(~np.isnan(accuracy))
    chosen = np.sort(rng.choice(known, min(setting.pick(SHOWN, 60), len(known)), replace=False))
    images = setting.images(panel.images, size=panel.size)
    evaluator = setting.evaluator(benchmark.space, images, like=images, batch_size=setting.pick(128, 32))
    return sample_scores(setting, benchmark, chosen, evaluator)


def taus(panel: Panel, accuracy: NDArray[np.float64], scores: Scores, seed: int) -> tuple[list[Row], Cloud]:
    """The rows of a panel and the points to draw.

    Args:
        panel: what the paper says of it.
        accuracy: (n,) percent, NaN where unknown, of the networks that ``scores`` hold.
        scores: of n networks.
        seed: of the draw of at most 1,000.
    """
    naswot = scores.naswot
    kept = np.flatnonzero((accuracy > panel.floor) & np.isfinite(naswot))
    if len(kept) > SHOWN:
        rng = numpy_generator(derive_seed(seed, "shown", panel.title))
        kept = np.sort(rng.choice(kept, SHOWN, replace=False))
    split = panel.metric.partition("_")[0]
    as_paper = kendall_interval(naswot[kept], accuracy[kept])
    everything = kendall_interval(naswot, accuracy)
    note = f"tau-b; {scores.source}"
    first = Row(
        what=f"{panel.benchmark}: tau as the paper filters (n networks; the paper {panel.paper_n:,})",
        dataset=panel.dataset,
        split=split,
        ours=as_paper.value,
        n=as_paper.n,
        seed=seed,
        low=as_paper.low,
        high=as_paper.high,
        paper=panel.paper,
        note=f"{note}; accuracy above {panel.floor:.0f} %, finite scores",
    )
    second = Row(
        what=f"{panel.benchmark}: tau over all that are scored",
        dataset=panel.dataset,
        split=split,
        ours=everything.value,
        n=everything.n,
        seed=seed,
        low=everything.low,
        high=everything.high,
        note=f"{note}; -inf ranked worst, tied with itself",
    )
    return [first, second], Cloud(panel, accuracy[kept], naswot[kept], as_paper.value)


def draw_clouds(clouds: Sequence[Cloud], path: Path) -> None:
    """Scores against accuracy, one panel each; the axis is stretched by 2^(a / 10) as in the paper, a in percent."""
    n_columns = min(3, len(clouds))
    n_rows = math.ceil(len(clouds) / n_columns)
    figure = new_figure(3.6 * n_columns, 3.3 * n_rows)
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axis in axes[len(clouds) :]:
        axis.set_axis_off()
    for axis, cloud in zip(axes, clouds, strict=False):
        axis.scatter(2 ** (cloud.accuracy / 10), cloud.naswot, s=6, alpha=0.5, c=cloud.accuracy, cmap="viridis")
        ticks = _ticks(cloud.accuracy)
        axis.set_xticks([2 ** (tick / 10) for tick in ticks], [f"{tick:.0f}" for tick in ticks])
        axis.set_title(f"{cloud.panel.title}\ntau {cloud.tau:.3f}, paper {cloud.panel.paper:.3f}", fontsize=9)
        axis.set_xlabel(f"{cloud.panel.metric.replace('_', ' ')} [%]", fontsize=8)
        axis.set_ylabel("log|K_H| [nats]", fontsize=8)
        axis.grid(alpha=0.25)
    figure.savefig(path, dpi=150)


def _ticks(accuracy: NDArray[np.float64]) -> list[float]:
    """Round accuracies that do not crowd on the stretched axis."""
    if len(accuracy) == 0:
        return []
    top = 5 * math.floor(accuracy.max() / 5)
    return [float(tick) for tick in (top - 40, top - 20, top - 10, top) if tick >= accuracy.min()]
