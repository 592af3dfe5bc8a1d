"""Choose a score by the protocol of docs/recommended_score.md, from what study_features.py measured.

Writes results/study_choice.csv (for each set of trained results, the rule chosen without its space, that chosen with all,
and the baselines), results/study_rules.csv (the best candidates with their gains). Run:
NASWOT_DATA=... python benchmarks/study_choose.py
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import RESULTS, data_root
from numpy.typing import NDArray
from scipy.stats import rankdata
from study_features import TASKS, Task

from naswot.benchmark import get_benchmark
from naswot.correlating import datasets_with, orientation

Floats = NDArray[np.float64]
SPACES = {
    "nasbench201": "nasbench201",
    "nasbench201_digits": "nasbench201",
    "nasbench101": "nasbench101",
    "nasbench_macro": "nasbench_macro",
    "transnasbench101_micro": "transnasbench101_micro",
    **{f"nds_{name}_in": "nds_cells" for name in ("darts", "enas", "nasnet", "pnas", "amoeba")},
    **{f"nds_{name}_in": "nds_resnext" for name in ("resnext_a", "resnext_b")},
    **{f"nds_{name}_in": "nds_sweeps" for name in ("resnet_lr_wd", "vanilla_lr_wd", "darts_fix_w_d")},
}
METRICS = {"transnasbench101_micro": "best", "nasbench301": "surrogate_valid_accuracy"}
SIZES = ("params", "macs", "units", "layers", "depth")
DIVERSITIES = tuple(
    f"{kind}_{where}"
    for kind, wheres in {
        "div": ("mean", "units", "last", "joint"),
        "pair": ("mean", "units", "last", "joint"),
        "rank": ("mean", "last"),
    }.items()
    for where in wheres
)
GRADIENTS = {
    "grad_slope": (-1,),
    "grad_spread": (-1,),
    "jacobian_pair": (1,),
    "jacobian_div": (1,),
    "jacobian_norm": (1, -1),
}
C, D = (1.0, 2.0, 4.0, 8.0), (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Rule:
    """A weighted sum of terms, or of their log-ranks."""

    terms: tuple[tuple[str, float], ...]
    ranked: bool = False

    @property
    def name(self) -> str:
        words = " ".join(f"{w:+g} {t}" if w != 1 else f"+ {t}" for t, w in self.terms).removeprefix("+ ")
        return f"log-ranks of {words}" if self.ranked else words

    @property
    def backward(self) -> bool:
        return any(t.startswith(("grad", "jacobian")) for t, _ in self.terms)


@dataclass
class Space:
    """Architectures of one benchmark: their terms and trained results."""

    name: str
    space: str
    frame: pd.DataFrame
    terms: Mapping[str, Floats]
    truths: Mapping[str, Floats]

    def __post_init__(self) -> None:
        n = len(self.frame)
        self.first, self.second = np.triu_indices(n, 1)
        self.signs = {k: self.sign(y) for k, y in self.truths.items()}
        self.untied = {k: math.sqrt(float((s != 0).sum())) for k, s in self.signs.items()}
        self.logranks = {k: np.log(rankdata(v) / n) for k, v in self.terms.items()}

    def sign(self, x: Floats) -> NDArray[np.float32]:
        return np.sign(x[self.first] - x[self.second]).astype(np.float32)

    def taus(self, x: Floats) -> dict[str, float]:
        s = self.sign(np.nan_to_num(x, nan=-1e9, neginf=-1e9, posinf=1e9))
        untied = math.sqrt(float((s != 0).sum()))
        return {k: float(s @ t) / max(untied * self.untied[k], 1e-9) for k, t in self.signs.items()}

    def values(self, rule: Rule) -> Floats:
        of = self.logranks if rule.ranked else self.terms
        return np.sum([w * of[t] for t, w in rule.terms], axis=0)


def load(tasks: Sequence[Task] = TASKS, folder: Path = RESULTS / "study") -> list[Space]:
    """All spaces with their terms and trained results, the first repeat of each architecture."""
    return [_space(task, folder) for task in tasks if (folder / f"{task.benchmark}.csv.gz").exists()]


def _space(task: Task, folder: Path) -> Space:
    benchmark = get_benchmark(task.benchmark, data_root() / task.file)
    frame = pd.read_csv(folder / f"{task.benchmark}.csv.gz", comment="#")
    frame = frame[frame["repeat"] == 0].reset_index(drop=True)
    rows = [benchmark.row(tuple(map(int, genes.split("-")))) for genes in frame["genotype"]]
    metric = METRICS.get(task.benchmark, "test_accuracy")
    truths = {
        d: orientation(metric) * benchmark.column(d, metric)[rows]
        for d in datasets_with(benchmark, metric)
        if d != "cifar10-valid"
    }
    return Space(task.benchmark, SPACES.get(task.benchmark, task.benchmark), frame, terms_of(frame), truths)


def terms_of(frame: pd.DataFrame) -> dict[str, Floats]:
    """The terms of the protocol, (n,) each; of a network that depends on nothing the worst."""
    with np.errstate(divide="ignore"):
        sizes = {name: np.log(np.maximum(frame[f"f_{name}"].to_numpy(float), 1e-3)) for name in SIZES}
    diversities = {name: frame[f"f_live_{name}"].to_numpy(float) for name in DIVERSITIES}
    gradients = {n: s * frame[f"f_{n}"].to_numpy(float) for n, (s, *_) in GRADIENTS.items() if f"f_{n}" in frame}
    return {name: np.clip(v, -1e6, 1e6) for name, v in {**sizes, **diversities, **gradients}.items()}


def candidates(*, backward: bool) -> Iterator[Rule]:
    """All local rules of the protocol."""
    for k in (1, 2, 3):
        for sizes in itertools.combinations(SIZES, k):
            base = tuple((s, 1.0) for s in sizes)
            diversities: list[tuple[tuple[str, float], ...]] = [()]
            diversities += [((v, c),) for v in DIVERSITIES for c in C]
            gradients: list[tuple[tuple[str, float], ...]] = [()]
            if backward:
                signs = {n: tuple(s / of[0] for s in of) for n, of in GRADIENTS.items()}  # 1 is the sign of the term
                gradients += [((g, s * d),) for g in GRADIENTS for s in signs[g] for d in D]
            for diversity, gradient in itertools.product(diversities, gradients):
                yield Rule((*base, *diversity, *gradient))


def ranked_candidates(*, backward: bool) -> Iterator[Rule]:
    """All set-ranked rules of the protocol."""
    pool = (*SIZES, *DIVERSITIES, *(GRADIENTS if backward else ()))
    for k in (1, 2, 3, 4):
        for terms in itertools.combinations(pool, k):
            yield Rule(tuple((t, 1.0) for t in terms), ranked=True)


def table_of(rules: Sequence[Rule], spaces: Sequence[Space]) -> pd.DataFrame:
    """Taus, (rules, sets), columns (space, benchmark, set)."""
    columns = pd.MultiIndex.from_tuples([(s.space, s.name, d) for s in spaces for d in s.truths])
    rows = []
    for rule in rules:
        row: list[float] = []
        for space in spaces:
            row += space.taus(space.values(rule)).values()
        rows.append(row)
    return pd.DataFrame(rows, columns=columns)


def best_sizes(spaces: Sequence[Space]) -> Floats:
    """The better of params and FLOPs of the networks as they stand, (sets,)."""
    best: list[float] = []
    for space in spaces:
        both = [space.taus(space.frame[f"f_all_{name}"].to_numpy(float)) for name in ("params", "macs")]
        best += [max(both[0][d], both[1][d]) for d in space.truths]
    return np.array(best)


def gains(taus: pd.DataFrame, best: Floats) -> pd.DataFrame:
    """Gain by rule and space: tau, less what it lacks to the better of the sizes, the mean over the sets of a space."""
    gain = taus - np.maximum(0, best[None, :] - taus)
    return gain.T.groupby(level=0).mean().T


def choose(gain: pd.DataFrame, rules: Sequence[Rule]) -> int:
    """The rule of the protocol, its row in ``gain`` (rules, spaces)."""
    mean = gain.mean(axis=1).to_numpy()
    best = int(mean.argmax())
    difference = gain.to_numpy()[best] - gain.to_numpy()
    error = difference.std(axis=1, ddof=1) / math.sqrt(gain.shape[1])
    near = np.flatnonzero(mean[best] - mean <= error)
    return int(min(near, key=lambda r: (len(rules[r].terms), rules[r].backward, -mean[r])))


def leave_one_out(taus: pd.DataFrame, best: Floats, rules: Sequence[Rule]) -> dict[str, int]:
    """For each space the rule chosen without it, and under "all" that chosen with all."""
    gain = gains(taus, best)
    chosen = {space: choose(gain.drop(columns=space), rules) for space in gain.columns}
    return {**chosen, "all": choose(gain, rules)}
