"""Choose a score by the protocol of docs/recommended_score.md, from what study_features.py measured.

Writes results/study_rules.csv (the best rules, and the best of each kind, with gain and Kendall's tau on every set of
trained results) and results/study_choice.csv (for each set the rule that is chosen without its space, its tau with
interval, and the difference to the better of params and FLOPs). Run:
NASWOT_DATA=... python benchmarks/study_choose.py
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from common import RESULTS, data_root, write
from numpy.typing import NDArray
from scipy.stats import rankdata
from study_features import TASKS, Task

from naswot.benchmark import get_benchmark
from naswot.correlating import datasets_with, orientation
from naswot.statistics import compare, holm, kendall_interval

Floats = NDArray[np.float64]
SPACES = {
    "nasbench201": "nasbench201",
    "nasbench201_digits": "nasbench201",
    **{f"nds_{name}_in": "nds_cells" for name in ("darts", "enas", "nasnet", "pnas", "amoeba")},
    **{f"nds_{name}_in": "nds_resnext" for name in ("resnext_a", "resnext_b")},
    **{f"nds_{name}_in": "nds_sweeps" for name in ("resnet_lr_wd", "vanilla_lr_wd", "darts_fix_w_d")},
}
"""Benchmarks of one space; the others are spaces of their own."""
METRICS = {"transnasbench101_micro": "best"}
SIZES = ("params", "macs", "units", "layers", "depth")
DIVERSITIES = (
    *(f"div_{where}" for where in ("mean", "units", "last", "joint")),
    *(f"pair_{where}" for where in ("mean", "units", "last", "joint")),
    *("rank_mean", "rank_last"),
)
ALIGNMENTS = ("alignment_mean", "alignment_late")
EVIDENCES = tuple(f"evidence{noise}_{where}" for noise in (0.03, 0.1, 0.3) for where in ("mean", "late"))
WEIGHTS: Mapping[str, Sequence[float]] = {
    **dict.fromkeys(DIVERSITIES, (1, 2, 4, 8)),
    **dict.fromkeys(ALIGNMENTS, (1, 2, 4, 6)),
    **dict.fromkeys(EVIDENCES, (4, 8, 16, 24)),
}
RECOMMENDED = "mean log(params, units) + 16 evidence0.1_mean"
SHOWN = 25


@dataclass(frozen=True)
class Rule:
    """The mean of the logs of some sizes, plus a weighted measure; or a sum of log-ranks."""

    sizes: tuple[str, ...]
    measure: str = ""
    weight: float = 0.0
    ranked: bool = False

    @property
    def name(self) -> str:
        """How the rule is written."""
        if self.ranked:
            return f"log-ranks of {', '.join(self.sizes)}"
        size = f"log {self.sizes[0]}" if len(self.sizes) == 1 else f"mean log({', '.join(self.sizes)})"
        return f"{size} + {self.weight:g} {self.measure}" if self.measure else size

    @property
    def kind(self) -> str:
        """Family of rules."""
        if self.ranked:
            return "log-ranks"
        return next(
            (k for k in ("evidence", "alignment") if k in self.measure), "diversity" if self.measure else "size"
        )


class Space:
    """Architectures of one benchmark: their terms and trained results.

    Args:
        name: of the benchmark.
        frame: features of the architectures.
        truths: (n,) by data set, higher is better.
    """

    def __init__(self, name: str, frame: pd.DataFrame, truths: Mapping[str, Floats]) -> None:
        self.name, self.space, self.frame, self.truths = name, SPACES.get(name, name), frame, truths
        self.terms = terms_of(frame)
        n = len(frame)
        self.first, self.second = np.triu_indices(n, 1)
        self.signs = {key: self.sign(truth) for key, truth in truths.items()}
        self.logranks = {key: np.log(rankdata(values) / n) for key, values in self.terms.items()}

    def sign(self, x: Floats) -> NDArray[np.float32]:
        """Signs of the differences of all pairs."""
        return np.sign(x[self.first] - x[self.second]).astype(np.float32)

    def taus(self, x: Floats) -> dict[str, float]:
        """Kendall's tau-b by data set."""
        s = self.sign(x)
        untied = max(1.0, float((s != 0).sum()))
        return {k: float(s @ t) / math.sqrt(untied * float((t != 0).sum())) for k, t in self.signs.items()}

    def values(self, rule: Rule) -> Floats:
        """The rule on all architectures."""
        of = self.logranks if rule.ranked else self.terms
        total: Floats = np.sum([of[size] for size in rule.sizes], axis=0)
        if rule.ranked:
            return total
        return total / len(rule.sizes) + (rule.weight * of[rule.measure] if rule.measure else 0.0)


def terms_of(frame: pd.DataFrame) -> dict[str, Floats]:
    """The terms of all rules, (n,) each; of a network that depends on nothing the worst."""

    def log(column: str) -> Floats:
        return np.log(np.maximum(frame[column].to_numpy(float), 1e-3))

    terms = {size: log(f"f_{size}") for size in SIZES}
    terms |= {name: frame[f"f_live_{name}"].to_numpy(float) for name in DIVERSITIES}
    terms |= {name: log(f"f_{name.replace('alignment', 'target')}") for name in ALIGNMENTS}
    terms |= {name: frame[f"f_{name}"].to_numpy(float) for name in EVIDENCES}
    return {name: np.clip(values, -1e3, 1e3) for name, values in terms.items()}


def load(folder: Path = RESULTS / "study") -> list[Space]:
    """All spaces: of each architecture the first repeat, if all features are known."""
    return [_space(task, folder) for task in TASKS if (folder / f"{task.benchmark}.csv.gz").exists()]


def _space(task: Task, folder: Path) -> Space:
    benchmark = get_benchmark(task.benchmark, data_root() / task.file)
    frame = pd.read_csv(folder / f"{task.benchmark}.csv.gz", comment="#")
    frame = frame[(frame["repeat"] == 0) & frame["f_target_mean"].notna()].reset_index(drop=True)
    rows = [benchmark.row(tuple(map(int, genes.split("-")))) for genes in frame["genotype"]]
    metric = METRICS.get(task.benchmark, "test_accuracy")
    known = [d for d in datasets_with(benchmark, metric) if d != "cifar10-valid"]
    return Space(task.benchmark, frame, {d: orientation(metric) * benchmark.column(d, metric)[rows] for d in known})


def candidates() -> Iterator[Rule]:
    """All rules: local ones, then sums of log-ranks."""
    for sizes in _subsets(SIZES, 3):
        yield Rule(sizes)
        for measure, weights in WEIGHTS.items():
            yield from (Rule(sizes, measure, weight) for weight in weights)
    pool = (*SIZES, "div_mean", "div_units", "pair_mean", "rank_mean", *ALIGNMENTS, "evidence0.1_mean")
    yield from (Rule(terms, ranked=True) for terms in _subsets(pool, 4))


def _subsets(of: Sequence[str], most: int) -> Iterator[tuple[str, ...]]:
    for k in range(1, most + 1):
        yield from itertools.combinations(of, k)


def table_of(rules: Sequence[Rule], spaces: Sequence[Space]) -> pd.DataFrame:
    """Taus, (rules, sets), columns (space, benchmark, set)."""
    columns = pd.MultiIndex.from_tuples([(s.space, s.name, d) for s in spaces for d in s.truths])
    rows = [[tau for space in spaces for tau in space.taus(space.values(rule)).values()] for rule in rules]
    return pd.DataFrame(rows, columns=columns)


def better_size(space: Space, dataset: str) -> Floats:
    """The better of params and MACs, as built, on one set; (n,)."""
    both = [space.frame[f"f_all_{name}"].to_numpy(float) for name in ("params", "macs")]
    return max(both, key=lambda size: space.taus(size)[dataset])


def gains(taus: pd.DataFrame, best: Floats) -> pd.DataFrame:
    """Gain by rule and space: tau, less what it lacks to the better of the sizes, the mean over the sets of a space."""
    gain = taus - np.maximum(0, best[None, :] - taus)
    return gain.T.groupby(level=0).mean().T


def main() -> None:
    spaces, rules = load(), list(candidates())
    taus = table_of(rules, spaces)
    best = np.array([s.taus(better_size(s, d))[d] for s in spaces for d in s.truths])
    gain = gains(taus, best)
    chosen = {space: int(gain.drop(columns=space).mean(axis=1).argmax()) for space in gain.columns}
    about = {"candidates": len(rules), "gain": "mean over spaces of tau less what is lacking to params or MACs"}
    write("study_rules", _best_rules(rules, taus, gain), **about)
    write("study_choice", _told(spaces, rules, chosen), **about, p_value="after Holm's correction over the sets")


def _best_rules(rules: Sequence[Rule], taus: pd.DataFrame, gain: pd.DataFrame) -> list[dict[str, object]]:
    """The best of all, and the three best of every kind."""
    order = [int(i) for i in gain.mean(axis=1).sort_values(ascending=False).index]
    kinds = dict.fromkeys(rule.kind for rule in rules)
    of_kinds = [i for kind in kinds for i in [j for j in order if rules[j].kind == kind][:3]]
    recommended = [i for i, rule in enumerate(rules) if rule.name == RECOMMENDED]
    single = [i for i, rule in enumerate(rules) if len(rule.sizes) == 1 and not rule.measure and not rule.ranked]
    rows = []
    for i in dict.fromkeys([*recommended, *order[:SHOWN], *of_kinds, *single]):
        sets = {f"{name}/{dataset}": round(tau, 3) for (_, name, dataset), tau in taus.loc[i].items()}
        rows.append({"rule": rules[i].name, "kind": rules[i].kind, "gain": round(gain.loc[i].mean(), 4), **sets})
    return rows


def _told(spaces: Sequence[Space], rules: Sequence[Rule], chosen: Mapping[str, int]) -> list[dict[str, object]]:
    """One row for each set of trained results."""
    recommended = next(rule for rule in rules if rule.name == RECOMMENDED)
    rows, p_values = [], []
    for space in spaces:
        rule = rules[chosen[space.space]]
        for dataset, truth in space.truths.items():
            tau, size = kendall_interval(space.values(rule), truth), better_size(space, dataset)
            over = compare(space.values(rule), size, truth)
            p_values.append(over.p_value)
            rows.append(
                {
                    "benchmark": space.name,
                    "dataset": dataset,
                    "n": tau.n,
                    "chosen_without_the_space": rule.name,
                    "tau": round(tau.value, 3),
                    "low": round(tau.low, 3),
                    "high": round(tau.high, 3),
                    "recommended_tau": round(kendall_interval(space.values(recommended), truth).value, 3),
                    "better_size_tau": round(kendall_interval(size, truth).value, 3),
                    "over_size": round(over.difference.value, 3),
                }
            )
    return [{**row, "p_value": f"{p:.2g}"} for row, p in zip(rows, holm(p_values), strict=True)]


if __name__ == "__main__":
    main()
