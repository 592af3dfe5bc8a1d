"""Figures of searches by a supernet: trajectories, weights of the options, spectra, landscapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from naswot.differentiable.landscape import Landscape
from naswot.differentiable.relaxations import softmax_weights
from naswot.errors import OptionError
from naswot.plots import new_figure
from naswot.statistics import Floats
from naswot.supernet import Group, MixedSupernet, Weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]

_LABELS: Final = {
    "valid_accuracy": "validation accuracy (%)",
    "projected_accuracy": "accuracy of the architecture (%)",
    "discretisation_gap": "discretisation gap (percentage points)",
    "valid_loss": "validation loss (nats)",
    "train_loss": "training loss (nats)",
    "eigenvalue": "dominant eigenvalue",
    "stopping_eigenvalue": "dominant eigenvalue",
    "frobenius_norm": "Frobenius norm",
    "gradient_norm": "gradient norm",
    "entropy": "entropy of the weights (nats)",
    "largest_weight": "largest weight",
    "loss": "loss (nats)",
    "accuracy": "accuracy (%)",
}
_STYLES: Final = ("-", "--", ":", "-.")


def plot_trajectories(
    runs: Mapping[str, Sequence[Sequence[Row]]],
    path: Path,
    *,
    title: str,
    above: Sequence[str] = ("valid_accuracy", "projected_accuracy"),
    below: Sequence[str] = ("eigenvalue", "frobenius_norm"),
) -> None:
    """What was measured by epoch, in two panels: each run thin, the mean of the runs of a method thick.

    Of an epoch that a search did twice, as it had gone back, the second time counts.

    Args:
        runs: histories by name of the method, one for each seed.
        path: where the picture goes, as PNG, SVG or PDF by its ending.
        title: heading.
        above: names of the upper panel, such as the accuracy; each its own kind of line.
        below: names of the lower panel, such as the eigenvalue.
    Raises:
        OptionError: if no run has measured any of them.
    """
    figure = new_figure(7.2, 6.4)
    panels = figure.subplots(2, 1, sharex=True)
    drawn = [_trajectories(axes, runs, names) for axes, names in zip(panels, (above, below), strict=True)]
    if not any(drawn):
        raise OptionError(
            f"no run has measured any of {', '.join([*above, *below])}; give the search monitors, such as "
            "default_monitors()"
        )
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=150)


def _trajectories(axes: Axes, runs: Mapping[str, Sequence[Sequence[Row]]], names: Sequence[str]) -> int:
    """Lines of one panel; how many there are."""
    n = 0
    for style, name in zip(_STYLES, names, strict=False):
        for number, (method, histories) in enumerate(runs.items()):
            lines = [line for line in (by_epoch(history, name) for history in histories) if line]
            for line in lines:
                axes.plot(list(line), list(line.values()), style, color=f"C{number}", alpha=0.35, linewidth=0.8)
            if lines:
                shared = sorted(set.intersection(*map(set, lines)))
                mean = [float(np.mean([line[epoch] for line in lines])) for epoch in shared]
                label = f"{method}: {_label(name)}" if len(names) > 1 else method
                axes.plot(shared, mean, style, color=f"C{number}", linewidth=1.8, label=label)
                n += 1
    axes.set_ylabel(_label(names[0]) if len(names) == 1 else "")
    axes.grid(alpha=0.25)
    if n:
        axes.legend(fontsize=7)
    return n


def by_epoch(history: Sequence[Row], name: str) -> dict[int, float]:
    """What was measured under a name, by epoch; the last time counts where a search went back.

    Args:
        history: rows of a search, in order.
        name: such as ``"eigenvalue"``.
    """
    found: dict[int, float] = {}
    for row in history:
        found = {epoch: value for epoch, value in found.items() if epoch < row["epoch"]}
        if name in row:
            found[row["epoch"]] = float(row[name])
    return found


def plot_alphas(supernet: MixedSupernet, path: Path, *, title: str, weights: Weights | None = None) -> None:
    """Weight of each option of each row, a map for each group on one scale; options that a row lacks stay blank.

    Args:
        supernet: of the search.
        path: where the picture goes, as PNG, SVG or PDF by its ending.
        title: heading.
        weights: by group, (rows, options); None: the softmax of the alphas.
    """
    tables = softmax_weights(supernet) if weights is None else weights
    groups = [group for group in supernet.groups if group.name in tables]
    rows = max(group.shape[0] for group in groups)
    found = [
        np.where(supernet.allowed(g.name).cpu().numpy(), tables[g.name].detach().cpu().double().numpy(), np.nan)
        for g in groups
    ]
    low, high = min(map(np.nanmin, found)), max(map(np.nanmax, found))  # a short search moves the weights but little
    figure = new_figure(1.2 + 3.6 * len(groups), 1.6 + 0.32 * rows)
    maps = figure.subplots(1, len(groups), squeeze=False)[0]
    for axes, group, shown in zip(maps, groups, found, strict=True):
        image = axes.imshow(shown, vmin=low, vmax=high, cmap="viridis", aspect="auto")
        _name_options(axes, group, shown, (low + high) / 2)
        axes.set_title(group.name, fontsize=9)
        axes.set_ylabel("row")
    figure.colorbar(image, ax=list(maps), label="weight")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=150)


def _name_options(axes: Axes, group: Group, shown: Floats, middle: float) -> None:
    """Names below the columns where all rows have the same options, else in each field."""
    axes.set_yticks(range(group.shape[0]))
    if len(set(group.options)) == 1:
        axes.set_xticks(range(group.shape[1]), group.options[0], rotation=60, ha="right", fontsize=7)
        return
    axes.set_xticks([])
    for row, options in enumerate(group.options):
        for column, name in enumerate(options):
            if np.isfinite(shown[row, column]):
                colour = "white" if shown[row, column] <= middle else "black"
                axes.text(column, row, name, ha="center", va="center", fontsize=5, color=colour)


def plot_spectrum(spectra: Mapping[str, Floats], path: Path, *, title: str, bins: int = 40) -> None:
    """Histogram of the eigenvalues of Hessians, over the same bins; the largest of each is marked.

    Args:
        spectra: (n,) eigenvalues by name of the search.
        path: where the picture goes, as PNG, SVG or PDF by its ending.
        title: heading.
        bins: of the histogram.
    """
    figure = new_figure(6.4, 4.0)
    axes = figure.add_subplot()
    edges = np.histogram_bin_edges(np.concatenate(list(spectra.values())), bins)
    for number, (name, values) in enumerate(spectra.items()):
        axes.hist(
            values, edges.tolist(), histtype="step", color=f"C{number}", label=f"{name}: largest {np.max(values):.3g}"
        )
        axes.axvline(float(np.max(values)), color=f"C{number}", linestyle=":", linewidth=1.0)
    axes.set_yscale("symlog", linthresh=1.0)  # most eigenvalues lie in one bin, around 0
    axes.set_xlabel("eigenvalue")
    axes.set_ylabel("number")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def plot_landscape(
    found: Landscape, path: Path, *, title: str, what: Literal["loss", "accuracy"] = "loss", levels: int = 20
) -> None:
    """Contours of loss or accuracy around the alphas, which are marked by a cross.

    Args:
        found: see :func:`naswot.differentiable.landscape.landscape`.
        path: where the picture goes, as PNG, SVG or PDF by its ending.
        title: heading.
        what: is drawn.
        levels: of the contours.
    Raises:
        OptionError: if there is no accuracy, or the grid is a single point.
    """
    values = found.loss if what == "loss" else found.accuracy
    if values is None or len(found.offsets) < 2:
        raise OptionError(f"this landscape of {len(found.offsets)} points a side has no {what} to draw contours of")
    figure = new_figure(5.6, 4.6)
    axes = figure.add_subplot()
    filled = axes.contourf(found.offsets, found.offsets, values.T, levels, cmap="viridis")
    axes.plot([0.0], [0.0], "x", color="white", markersize=8)
    kind = "eigenvector" if found.directions == "eigenvectors" else "random direction"
    axes.set_xlabel(f"distance along the first {kind}")
    axes.set_ylabel(f"distance along the second {kind}")
    axes.set_title(title, fontsize=10)
    figure.colorbar(filled, label=_label(what))
    figure.savefig(path, dpi=150)


def _label(name: str) -> str:
    return _LABELS.get(name, name.replace("_", " "))
