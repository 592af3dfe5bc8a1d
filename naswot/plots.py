"""Figures. matplotlib is imported inside the functions; nothing is ever shown on a screen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from naswot.run import Ranked


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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = [r for r in rows if math.isfinite(r.mean.get(x, math.nan)) and math.isfinite(r.mean.get(y, math.nan))]
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
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
