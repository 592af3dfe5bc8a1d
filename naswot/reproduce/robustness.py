"""Figure 5: how much the score depends on images, initialisation and batch size.

Paper: Mellor et al., ICML 2021, arXiv:2006.04647, section 3.1: ten NAS-Bench-201 networks, one between each two of the
50th, 55th, ..., 100th percentile of CIFAR-100 accuracy, 20 draws of each ablation. The paper shows box plots and prints
no number; the agreements of the table are ours. In each ablation only that one thing is drawn anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naswot.plots import new_figure
from naswot.reproduce.cells import Cells, cells_of_quality, one_per_band
from naswot.reproduce.rows import Outcome, Row, mean_and_sd
from naswot.reproduce.scores import evaluate
from naswot.reproduce.setting import NoiseBatch, SameBatch, Setting
from naswot.seeding import derive_seed
from naswot.spaces.nasbench201 import NASBench201
from naswot.statistics import kendall

Floats = NDArray[np.float64]


def robustness(setting: Setting) -> Outcome:
    """Scores of ten networks under each ablation, as box plots and as rank agreement with the plain score."""
    cells = one_per_band(setting, cells_of_quality(setting, "cifar100"), np.linspace(0.5, 1.0, 11), "robustness")
    n = setting.pick(128, 32)
    sizes = setting.pick((32, 64, 128, 256), (8, 16, 32, 64))
    draws = setting.pick(20, 4)
    scores = {
        "mini-batches": by_batch(setting, cells, n, draws),
        "Gaussian noise for images": by_batch(setting, cells, n, draws, noise=True),
        "initialisations": by_initialisation(setting, cells, n, draws),
        **{f"batch size {size}": by_batch(setting, cells, size, draws) for size in sizes},
    }
    reference = scores["mini-batches"][:, 0]
    rows = [row for name, values in scores.items() for row in _rows(setting, cells, name, values, reference)]
    draw_boxes(scores, cells, setting.out / "robustness.png")
    note = (
        f"{draws} draws of each ablation ({setting.images('cifar100').name}); the reference is the first plain score."
    )
    return Outcome(tuple(rows), ("robustness.png",), notes=tuple(filter(None, (cells.note, note))))


def by_batch(setting: Setting, cells: Cells, n: int, draws: int, *, noise: bool = False) -> Floats:
    """Scores under different batches and one initialisation, (cells, draws)."""
    images = setting.images("cifar100")
    columns = []
    for draw in range(draws):
        seed = derive_seed(setting.seed, "noise" if noise else "images", draw)
        source = NoiseBatch(images.shape, seed) if noise else SameBatch(images, seed)
        evaluator = setting.evaluator(NASBench201(), source, like=images, batch_size=n)
        found = evaluate(setting, evaluator, cells.genotypes, name="robustness")
        columns.append([found[genotype, 0].scores["naswot"] for genotype in cells.genotypes])
    return np.array(columns, dtype=np.float64).T


def by_initialisation(setting: Setting, cells: Cells, n: int, draws: int) -> Floats:
    """Scores under different initialisations and one batch, (cells, draws)."""
    images = setting.images("cifar100")
    source = SameBatch(images, derive_seed(setting.seed, "images", 0))
    evaluator = setting.evaluator(NASBench201(), source, like=images, batch_size=n)
    found = evaluate(setting, evaluator, cells.genotypes, name="robustness", repeats=draws)
    scores = [[found[genotype, draw].scores["naswot"] for draw in range(draws)] for genotype in cells.genotypes]
    return np.array(scores, dtype=np.float64)


def agreement(scores: Floats, reference: Floats) -> Floats:
    """Tau of each draw's ranking of the networks with the reference, (draws,).

    Args:
        scores: (networks, draws).
        reference: (networks,).
    """
    return np.array([kendall(column, reference) for column in scores.T])


def relative_spread(scores: Floats) -> float:
    """Standard deviation within a network over that between networks: the noise in units of the signal.

    Args:
        scores: (networks, draws); networks with a score that is not finite are left out.
    """
    finite = scores[np.isfinite(scores).all(axis=1)]
    within = np.sqrt(finite.var(axis=1, ddof=1).mean())
    return float(within / finite.mean(axis=1).std(ddof=1))


def _rows(setting: Setting, cells: Cells, name: str, scores: Floats, reference: Floats) -> list[Row]:
    itself = np.array_equal(scores[:, 0], reference)  # the reference does not vote for itself
    taus = agreement(scores[:, 1:] if itself else scores, reference)
    tau, sd = mean_and_sd(taus)
    common = {"dataset": setting.images("cifar100").name, "split": "train", "seed": setting.seed}
    note = f"n draws, {len(cells.genotypes)} networks; the paper shows a picture only"
    return [
        Row(f"{name}: tau with the reference", ours=tau, n=len(taus), sd=sd, note=note, **common),  # type: ignore[arg-type]
        Row(
            f"{name}: spread within a network / between networks",
            ours=relative_spread(scores),
            n=scores.shape[1],
            note=note,
            **common,  # type: ignore[arg-type]
        ),
    ]


def draw_boxes(scores: Mapping[str, Floats], cells: Cells, path: Path) -> None:
    """Box plots as in Figure 5; the fourth panel divides by the least score of the same batch size."""
    figure = new_figure(9, 6.4)
    axes = figure.subplots(2, 2).ravel()
    style: Any = {"medianprops": {"color": "black"}, "flierprops": {"markersize": 3}}
    labels = [f"{quality:.4g}" for quality in cells.quality]
    sizes = [name for name in scores if name.startswith("batch size")]
    for axis, name in zip(axes, [name for name in scores if name not in sizes], strict=False):
        axis.boxplot(list(scores[name]), tick_labels=labels, widths=0.6, **style)
        axis.set_title(name, fontsize=9)
        axis.set_ylabel("log|K_H| [nats]", fontsize=8)
    for number, name in enumerate(sizes):
        places = np.arange(len(labels)) * (len(sizes) + 1) + number
        normalised = list(scores[name] / scores[name].min())
        boxes = axes[3].boxplot(normalised, positions=places, widths=0.8, patch_artist=True, **style)
        for box in boxes["boxes"]:
            box.set_facecolor(f"C{number}")
        axes[3].scatter([], [], color=f"C{number}", marker="s", label=name)
    axes[3].set_xticks(np.arange(len(labels)) * (len(sizes) + 1) + (len(sizes) - 1) / 2, labels)
    axes[3].set_title("batch sizes, divided by the least score of the size", fontsize=9)
    axes[3].legend(fontsize=7)
    for axis in axes:
        axis.set_xlabel(cells.label, fontsize=8)
        axis.tick_params(axis="x", labelrotation=45, labelsize=7)
        axis.grid(alpha=0.25)
    figure.savefig(path, dpi=150)
