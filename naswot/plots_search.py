"""Figures of searches: the best value over the trials, and the front of several objectives."""

from __future__ import annotations

import math
from pathlib import Path

from naswot.plots import new_figure
from naswot.searching import SearchResult


def plot_search(result: SearchResult, path: Path, *, title: str) -> None:
    """Value of every trial and the best so far, by trial and by seconds.

    Args:
        result: of a search; the first objective is drawn.
        path: where the picture goes, as PNG, SVG or PDF by its ending.
        title: heading.
    """
    finite = [i for i, r in enumerate(result.records) if r.values is not None and math.isfinite(r.values[0])]
    values = [result.records[i].values or () for i in finite]
    best = result.best_so_far()
    figure = new_figure(8.4, 3.8)
    by_trial, by_time = figure.subplots(1, 2, sharey=True)
    seconds = [record.spent for record in result.records]
    for axes, places, label in ((by_trial, range(1, len(best) + 1), "trial"), (by_time, seconds, "seconds spent")):
        axes.scatter([places[i] for i in finite], [v[0] for v in values], s=14, alpha=0.6, label="trials")
        axes.step(list(places), [b if math.isfinite(b) else math.nan for b in best], where="post", label="best so far")
        axes.set_xlabel(label)
        axes.grid(alpha=0.25)
    by_trial.set_ylabel(result.objectives[0].text)
    by_trial.legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=150)


def plot_front(result: SearchResult, path: Path, *, title: str) -> None:
    """First two objectives of every trial, with the front that no other trial dominates.

    Args:
        result: of a search for at least two objectives.
        path: where the picture goes, as PNG, SVG or PDF by its ending.
        title: heading.
    """
    points = [r.values for r in result.records if r.values is not None and all(map(math.isfinite, r.values))]
    front = sorted(r.values for r in result.front if r.values is not None and all(map(math.isfinite, r.values)))
    figure = new_figure(6.0, 4.4)
    axes = figure.add_subplot()
    axes.scatter([p[0] for p in points], [p[1] for p in points], s=14, alpha=0.5, label="trials")
    axes.step([p[0] for p in front], [p[1] for p in front], where="pre", color="C1")
    axes.scatter([p[0] for p in front], [p[1] for p in front], s=40, color="C1", label="front")
    axes.set_xlabel(result.objectives[0].text)
    axes.set_ylabel(result.objectives[1].text)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
