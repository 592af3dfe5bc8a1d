"""Figures. matplotlib is imported inside the functions; nothing is ever shown on a screen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import gaussian_kde

from naswot.run import Ranked
from naswot.statistics import Estimate, Floats, kendall

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches, which no window will show."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plot_scores(rows: Sequence[Ranked], path: Path, *, x: str, y: str, marked: Sequence[str], title: str) -> None:
    """Scatter of one score against another, finite values only, with some architectures marked.

    Args:
        rows: screened architectures, best first.
        path: where the picture goes, as PNG, SVG or PDF by its ending.
        x: score on the horizontal axis (logarithmic where all are positive).
        y: score on the vertical axis.
        marked: architecture strings to mark.
        title: heading.
    """
    points = [r for r in rows if math.isfinite(r.mean.get(x, math.nan)) and math.isfinite(r.mean.get(y, math.nan))]
    figure = new_figure(6.4, 4.4)
    axes = figure.add_subplot()
    axes.scatter([r.mean[x] for r in points], [r.mean[y] for r in points], s=14, alpha=0.6, label="screened")
    for number, arch in enumerate(marked):
        found = [r for r in points if r.arch == arch]
        if found:
            at = found[0].mean
            axes.scatter([at[x]], [at[y]], s=90, facecolors="none", edgecolors=f"C{number + 1}", linewidths=2)
            axes.annotate(f"{number + 1}", (at[x], at[y]), xytext=(7, 5), textcoords="offset points")
    if points and all(r.mean[x] > 0 for r in points):
        axes.set_xscale("log")
    left_out = len(rows) - len(points)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title + (f"  ({left_out} not finite, left out)" if left_out else ""), fontsize=10)
    axes.grid(alpha=0.25)
    figure.savefig(path, dpi=150)


def plot_against_truth(score: Floats, truth: Floats, path: Path, *, x: str, y: str, title: str) -> None:
    """Scatter of truth against score coloured by density, with a histogram along each axis; finite pairs only.

    Args:
        score: (n,).
        truth: (n,).
        path: where the picture goes.
        x: name of the score.
        y: name of the truth, with its unit.
        title: heading.
    """
    finite = np.isfinite(score) & np.isfinite(truth)
    left_out = int(len(score) - finite.sum())
    points = np.stack([score[finite], truth[finite]])
    density = _density(points)
    order = np.argsort(density)  # the densest on top
    figure = new_figure(6.0, 5.6)
    grid = figure.add_gridspec(2, 2, width_ratios=(5, 1), height_ratios=(1, 5))
    axes = figure.add_subplot(grid[1, 0])
    axes.scatter(points[0, order], points[1, order], c=density[order], s=9, cmap="viridis")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    bins = min(50, max(10, points.shape[1] // 20))
    above = figure.add_subplot(grid[0, 0], sharex=axes)
    beside = figure.add_subplot(grid[1, 1], sharey=axes)
    above.hist(points[0], bins=bins, color="C0", alpha=0.7)
    beside.hist(points[1], bins=bins, color="C0", alpha=0.7, orientation="horizontal")
    for margin in (above, beside):
        margin.axis("off")
    above.set_title(title + (f"  ({left_out} not finite, left out)" if left_out else ""), fontsize=10)
    figure.savefig(path, dpi=150)


def _density(points: Floats) -> Floats:
    """Relative density at each of (2, n) points, by a Gaussian kernel over 2,000 of them at most."""
    n = points.shape[1]
    if n < 5 or (np.ptp(points, axis=1) == 0).any():
        return np.ones(n)
    kernel = gaussian_kde(points[:, :: max(1, n // 2000)])
    found: Floats = kernel(points)
    return found


def plot_correlations(taus: Mapping[str, Mapping[str, Estimate]], path: Path, *, title: str) -> None:
    """Horizontal bars of tau with intervals, one group for each score and one colour for each data set.

    Args:
        taus: by data set, then by score; the order of the first data set is kept, the first on top.
        path: where the picture goes.
        title: heading.
    """
    datasets = list(taus)
    names = list(taus[datasets[0]])
    height = 0.8 / len(datasets)
    figure = new_figure(7.0, 1.2 + 0.3 * len(names) * max(1.0, 0.45 * len(datasets)))
    axes = figure.add_subplot()
    for number, dataset in enumerate(datasets):
        found = [taus[dataset][name] for name in names]
        values = np.array([e.value for e in found])
        places = np.arange(len(names)) + (number - (len(datasets) - 1) / 2) * height
        axes.barh(places, np.nan_to_num(values), height=height * 0.9, color=f"C{number}", alpha=0.75, label=dataset)
        ends = np.array([[e.value - e.low, e.high - e.value] for e in found]).T
        axes.errorbar(values, places, xerr=np.nan_to_num(ends), fmt="none", ecolor="0.2", elinewidth=1, capsize=2)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.axvline(0, color="0.2", linewidth=0.8)
    axes.set_xlabel("Kendall's tau-b, 95 % interval")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.25, axis="x")
    if len(datasets) > 1:
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def plot_agreement(columns: Mapping[str, Floats], path: Path, *, title: str) -> None:
    """Heat map of tau between every two of some columns, (n,) each, such as scores and truths."""
    names = list(columns)
    taus = np.array([[kendall(columns[a], columns[b]) for b in names] for a in names])
    side = 2.2 + 0.42 * len(names)
    figure = new_figure(side + 0.8, side)
    axes = figure.add_subplot()
    image: Any = axes.imshow(taus, cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    for row, column in np.ndindex(taus.shape):
        shade = "white" if abs(taus[row, column]) > 0.6 else "black"
        axes.text(column, row, f"{taus[row, column]:.2f}", ha="center", va="center", fontsize=6, color=shade)
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, label="Kendall's tau-b", fraction=0.04)
    figure.savefig(path, dpi=150)


def plot_taus(
    rows: Sequence[tuple[str, Estimate]], path: Path, *, ceiling: Estimate | None, useful: float, title: str
) -> None:
    """Bars of tau with accuracy, with their intervals.

    Args:
        rows: names and taus, from the top down; undefined taus are left out.
        path: where the picture goes, as PNG, SVG or PDF by its ending.
        ceiling: tau between two trainings, drawn as a line if known.
        useful: the smallest tau that counts as useful, drawn as a line.
        title: heading.
    """
    shown = [(name, tau) for name, tau in rows if not math.isnan(tau.value)][::-1]
    figure = new_figure(6.4, 1.6 + 0.28 * len(shown))
    axes = figure.add_subplot()
    colours = ["C0" if not tau.low < 0 < tau.high else "0.7" for _, tau in shown]
    axes.barh([name for name, _ in shown], [tau.value for _, tau in shown], color=colours, alpha=0.8)
    for place, (_, tau) in enumerate(shown):
        if not math.isnan(tau.low):
            axes.plot([tau.low, tau.high], [place, place], color="black", linewidth=1.2)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.axvline(useful, color="C2", linestyle=":", label=f"useful: {useful:g}")
    if ceiling is not None and not math.isnan(ceiling.value):
        axes.axvline(ceiling.value, color="C3", linestyle="--", label=f"between trainings: {ceiling.value:.2f}")
    axes.set_xlabel("Kendall's tau with accuracy, 95 % interval")
    axes.set_title(title, fontsize=10)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    axes.grid(axis="x", alpha=0.25)
    figure.savefig(path, dpi=150)
