"""CALM beside the baselines on every set of trained results, on the same architectures.

Writes results/study_report.csv: tau with interval, tau among the best tenth by truth, difference to the better of
params and FLOPs. Scores are what study_features.py kept (one batch, one initialisation); AZ-NAS and VKDNW_agg rank the
set. Where dear baselines are known of some architectures only, both stand there: ``scored`` tells which. Run:
NASWOT_DATA=... python benchmarks/study_report.py
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from common import RESULTS, data_root, write
from numpy.typing import NDArray
from study_choose import METRICS
from study_features import TASKS, Task

from naswot.benchmark import get_benchmark
from naswot.correlating import datasets_with, orientation
from naswot.proxy import get_proxy
from naswot.ranking import aggregate_scores, get_aggregate
from naswot.selection import tau_in_top
from naswot.statistics import compare, holm, kendall_interval

Floats = NDArray[np.float64]
OWN = ("calm", "code_evidence", "live_params", "live_units", "live_depth", "naswot", "params", "flops")
BASELINES = ("trainable_layers", "synflow", "jacov", "zico", "meco", "swap")
AGGREGATES = ("az_nas", "vkdnw_agg")
COMPONENTS = ("az_expressivity", "az_progressivity", "az_trainability", "vkdnw_entropy")


def main() -> None:
    rows: list[dict[str, object]] = []
    p_values: list[float] = []
    for task in TASKS:
        path = RESULTS / "study" / f"{task.benchmark}.csv.gz"
        frame = pd.read_csv(path, comment="#")
        frame = frame[(frame["repeat"] == 0) & frame["calm"].notna()].reset_index(drop=True)
        parts = {"all": (frame, oriented(frame, OWN))}
        if set(BASELINES + COMPONENTS) <= set(frame):
            some = frame[frame["zico"].notna() & frame["synflow"].notna()].reset_index(drop=True)
            if len(some) >= 50:
                parts["with baselines"] = (some, {**oriented(some, (*OWN, *BASELINES)), **ranked(some)})
        for scored, (of, scores) in parts.items():
            for dataset, truth in truths(task, of).items():
                told, p_value = table(task.benchmark, dataset, scored, scores, truth)
                rows += told
                p_values.append(p_value)
    corrected = iter(holm(p_values))
    for row in rows:
        row["p_value"] = f"{next(corrected):.2g}" if row["score"] == "calm" else ""
    write("study_report", rows, p_value="of CALM against the better of params and FLOPs, after Holm's correction")


def oriented(frame: pd.DataFrame, names: tuple[str, ...]) -> dict[str, Floats]:
    """Scores by name, higher is better, undefined ones last."""
    signs = {name: 1.0 if get_proxy(name).higher_is_better else -1.0 for name in names}
    return {name: finite(signs[name] * frame[name].to_numpy(float)) for name in names}


def ranked(frame: pd.DataFrame) -> dict[str, Floats]:
    """The set-ranked baselines."""
    found = {}
    for name in AGGREGATES:
        parts = get_aggregate(name).proxies
        directions = {part: get_proxy(part).higher_is_better for part in parts}
        columns = {part: frame[part].fillna(-np.inf).tolist() for part in parts}
        found[name] = aggregate_scores(columns, name, directions)
    return found


def finite(values: Floats) -> Floats:
    """Undefined values below all others."""
    known = values[np.isfinite(values)]
    clean: Floats = np.where(np.isfinite(values), values, known.min() - 1)
    return clean


def truths(task: Task, frame: pd.DataFrame) -> dict[str, Floats]:
    """Trained results of the architectures of a table."""
    benchmark = get_benchmark(task.benchmark, data_root() / task.file)
    rows = [benchmark.row(tuple(map(int, genes.split("-")))) for genes in frame["genotype"]]
    metric = METRICS.get(task.benchmark, "test_accuracy")
    known = [d for d in datasets_with(benchmark, metric) if d != "cifar10-valid"]
    return {d: orientation(metric) * benchmark.column(d, metric)[rows] for d in known}


def table(
    name: str, dataset: str, scored: str, scores: Mapping[str, Floats], truth: Floats
) -> tuple[list[dict[str, object]], float]:
    """One row for each score, and the p-value of CALM against the better size."""
    size = max(("params", "flops"), key=lambda each: kendall_interval(scores[each], truth).value)
    rows: list[dict[str, object]] = []
    for score, values in scores.items():
        tau, over = kendall_interval(values, truth), compare(values, scores[size], truth).difference
        few = len(truth) < 80
        rows.append(
            {
                "benchmark": name,
                "dataset": dataset,
                "scored": scored,
                "n": tau.n,
                "score": score,
                "tau": round(tau.value, 3),
                "low": round(tau.low, 3),
                "high": round(tau.high, 3),
                "tau_top_10": "" if few else round(tau_in_top(values, truth, 0.1), 3),
                "better_size": size,
                "over_size": "" if score == size else round(over.value, 3),
            }
        )
    return rows, compare(scores["calm"], scores[size], truth).p_value


if __name__ == "__main__":
    main()
