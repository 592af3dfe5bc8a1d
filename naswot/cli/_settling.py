"""``naswot search --settle-best``: repeats for contenders only, and what the table tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from naswot.cli import _options as shared
from naswot.cli import _run as run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from rich.progress import Progress

    from naswot.evaluate import Evaluator
    from naswot.replicating import Replication, ScoreEstimate
    from naswot.run import Ranked
    from naswot.store import ResultStore
    from naswot.types import Evaluation, Genotype


def check_settling(given: Mapping[str, Any]) -> None:
    """A usage error where ``--settle-best`` says nothing: outside a plain screening, or with one repeat."""
    if given["settle_best"] is None:
        return
    if given["train"] or given["strategy"] is not None or given["table"]:
        raise click.UsageError("--settle-best goes with a plain screening, without --train, --strategy and --benchmark")
    if given["repeats"] < 2:
        raise click.UsageError("--settle-best needs --repeats of at least 2, the most that one gets, such as 8")


def settled(
    evaluator: Evaluator,
    genotypes: Sequence[Genotype],
    given: Mapping[str, Any],
    executor: Executor | None,
    store: ResultStore,
    progress: Progress,
) -> tuple[list[Ranked], Replication]:
    """Rows, best first, whose deciding mean is that of the estimates, and the estimates in the same order."""
    from naswot.replicating import replicate
    from naswot.run import summarise

    advance = run.advancing(progress, "scoring, at most", len(genotypes) * given["repeats"])
    evaluations: dict[str, list[Evaluation]] = {}

    def keep(evaluation: Evaluation) -> None:
        evaluations.setdefault(evaluation.arch, []).append(evaluation)
        advance(evaluation)

    name = given["rank_by"] or evaluator.names[0]
    found = replicate(
        evaluator,
        genotypes,
        rank_by=name,
        best=given["settle_best"],
        repeats=given["repeats"],
        executor=executor,
        store=store,
        on_result=keep,
    )
    rows = []
    for each in found.estimates:
        row = summarise(sorted(evaluations[each.arch], key=lambda e: e.repeat), evaluator.names)
        rows.append(row if row.error else replace(row, mean={**row.mean, name: each.mean}))
    return rows, found


def summary_of(found: Replication | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the summary says of it; nothing without ``--settle-best``."""
    if found is None:
        return {}
    told = {"noise": found.noise, "passes": found.passes, "uniform": found.uniform, "undefined": found.undefined}
    contenders = [each.arch for each in found.contenders]
    return {"settled": {"best": given["settle_best"], **told, "contenders": contenders}}


def columns_of(found: Replication | None) -> dict[str, dict[str, Any]]:
    """More cells of table.csv by architecture; none without ``--settle-best``."""
    names = ("standard_error", "repeats", "contender")
    return {} if found is None else {e.arch: {name: getattr(e, name) for name in names} for e in found.estimates}


def cells_of(estimate: ScoreEstimate, row: Ranked, names: Sequence[str]) -> list[str]:
    """Cells of the shown table: the deciding score, which comes first, with its error; the others; the repeats."""
    mark = " ?" if estimate.contender else ""
    repeats = f"{estimate.repeats}{mark}"
    if row.error is not None:
        return [""] * len(names) + [repeats]
    error = estimate.standard_error
    first = shared.number(estimate.mean) + (f" ±{shared.number(error)}" if error else "")
    return [first, *(shared.number(row.mean[name]) for name in names[1:]), repeats]


def sentence(found: Replication, best: int) -> str:
    """What was spent, and what is still open."""
    n = len(found.contenders)
    spent = f"{found.passes:,} of {found.uniform:,} repeats (± is the standard error of the mean)"
    if n == 0:
        return f"{spent}; the best {best} are settled"
    return f"{spent}; whether {n} marked ? are among the best {best} is not settled: raise --repeats"
