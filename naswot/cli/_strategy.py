"""``naswot search`` by a strategy: with real training, on a benchmark, or by scores."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from naswot._json import for_json, write_json
from naswot.cli import _options as shared
from naswot.cli import _run as run
from naswot.cli import _search_options as asked
from naswot.cli._search_parts import benchmark_of, print_finalist, source_of, table_of, train_finalist

if TYPE_CHECKING:
    from rich.progress import Progress

    from naswot.constraints import StoredCost
    from naswot.data.images import ImageSet
    from naswot.evaluate import Evaluator
    from naswot.evaluators import TrialEvaluator
    from naswot.searching import Record, SearchResult
    from naswot.space import SearchSpace
    from naswot.training.evaluator import TrainingEvaluator
    from naswot.types import Evaluation


def run_strategy(given: dict[str, Any]) -> None:
    """Search, write the run folder, print the best; with ``--train`` train the winner on all images and test it."""
    from naswot.assisted import ProxyScorer
    from naswot.objectives import Objective, check_names
    from naswot.searching import run_search
    from naswot.space import get_space
    from naswot.workers import worker_pool

    if given["strategy"] == "":
        raise click.BadParameter("expected a name; `naswot list searchers` shows all", param_hint="--strategy")
    given = {**given, "strategy": given["strategy"] or ("cascade" if given["train"] else "random")}
    if given["train"] and given["table"]:
        raise click.UsageError("--train trains really, --benchmark looks trainings up: give one of them")
    benchmark = benchmark_of(given) if given["table"] else None
    space = get_space(given["space"]) if benchmark is None else benchmark.space
    source = source_of(given, benchmark)
    images = run.images_of(source, given["data_root"])
    build = {} if benchmark is None else benchmark.build
    proxies = run.evaluator_of(given, space, images, build=build, pruned=given["pruned"])
    limited, latency = asked.constrained(given, space, images, proxies.build, benchmark)
    folder = Path(given["out"] or Path("runs") / _folder_name(given, proxies))
    training = _training(given, proxies, images, folder) if given["train"] else None
    table = None if benchmark is None else table_of(given, benchmark)
    evaluator = _with_more_scores(given, training or table or proxies, proxies, latency)
    objectives = [Objective.parse(text) for text in given["objective"] or evaluator.names[:1]]
    options = {"evaluator": evaluator.describe(), "scores": proxies.describe(), "search": _identity(given)}
    check_names(objectives, evaluator.names)
    scorer = ProxyScorer(proxies, given["rank_by"])
    lengths = () if table is None else table.lengths
    searcher = asked.searcher_of(given, limited, scorer, len(objectives), lengths)
    workers = given["workers"] or run.default_workers(proxies)
    with (
        run.open_store(folder, options, given["device"]) as store,
        run.progress(given["as_json"]) as progress,
        worker_pool(workers) as executor,
    ):
        try:
            scorer.store, scorer.executor, latency.store = store, executor, store
            budget = asked.budget_of(given, searcher)
            scorer.on_scored, advance = _bars(progress, searcher.planned if budget is None else budget.evaluations)
            result = run_search(
                searcher,
                evaluator,
                budget=budget,
                objectives=objectives,
                store=store,
                executor=executor if table is None else None,
                parallel=asked.parallel_of(given),
                on_record=advance,
            )
            summary = _summary(given, result, space, folder, options)
            _write(result, space, summary, folder)
            if training is not None and result.best is not None:
                found = result.best.trial.genotype
                summary["final"] = train_finalist(given, found, training, images, source, folder, progress)
                write_json(folder / "summary.json", summary)
        except KeyboardInterrupt:
            progress.stop()
            run.stopped(store, folder)
    _print(result, space, summary, given)
    if result.best is None:
        sys.exit(1)


def _bars(progress: Progress, trials: int | None) -> tuple[Callable[[Evaluation], None], Callable[[Record], None]]:
    """What moves the bar of scores, which appears with the first, and that of trials."""
    scores = progress.add_task("scoring untrained", total=None, rate="", visible=False)
    bar = progress.add_task("trials", total=trials, rate="")

    def scored(evaluation: Evaluation) -> None:  # noqa: ARG001
        progress.update(scores, advance=1, visible=True)

    best = [-math.inf]

    def tried(record: Record) -> None:
        best[0] = max(best[0], record.values[0] if record.values else -math.inf)
        progress.update(bar, advance=1, rate=f"best {best[0]:.5g}")

    return scored, tried


def _identity(given: Mapping[str, Any]) -> dict[str, object]:
    """What makes another search of it: not budgets, workers, or where files lie."""
    names = (
        *("strategy", "objective", "number", "kept", "brief_epochs", "epochs", "rank_by", "warm_up", "keep"),
        *("prescreen", "reject_below", "max_params", "max_flops", "max_latency", "table", "train", "valid_fraction"),
    )
    plain = {name: list(given[name]) if isinstance(given[name], tuple) else given[name] for name in names}
    table = given["latency_table"]
    digest = None if table is None else blake2b(Path(table).read_bytes(), digest_size=8).hexdigest()
    return {**plain, "parallel": asked.parallel_of(given), "latency_table": digest}


def _folder_name(given: Mapping[str, Any], proxies: Evaluator) -> str:
    about = json.dumps([_identity(given), given["recipe"], proxies.describe()], sort_keys=True)
    name = asked.named_with_options(given["strategy"])[0]
    digest = blake2b(about.encode(), digest_size=3).hexdigest()
    return f"{name}-{given['space']}-{given['data']}-seed{given['seed']}-{digest}"


# ---------------------------------------------------------------------------------------------------------- evaluation


def _with_more_scores(
    given: Mapping[str, Any], main: TrialEvaluator, proxies: Evaluator, latency: StoredCost
) -> TrialEvaluator:
    """The main evaluator, with those of further scores that the objectives name."""
    from naswot.evaluators import CallableEvaluator, CombinedEvaluator
    from naswot.objectives import Objective
    from naswot.proxy import list_proxies

    names = dict.fromkeys(name for text in given["objective"] for name in Objective.parse(text).weights)
    missing = tuple(name for name in names if name not in main.names and name in list_proxies())
    extra: list[TrialEvaluator] = [replace(proxies, proxies=missing)] if missing else []
    if "latency" in names:
        extra.append(CallableEvaluator(proxies.space, latency, names=("latency",), seed=given["seed"]))
    return CombinedEvaluator(*extra, main) if extra else main


def _training(given: Mapping[str, Any], proxies: Evaluator, images: ImageSet, folder: Path) -> TrainingEvaluator:
    from naswot.training.evaluator import TrainingEvaluator
    from naswot.training.recipe import get_recipe
    from naswot.training.splits import three_way_split

    train, valid = three_way_split(images, valid_fraction=given["valid_fraction"], seed=given["seed"])
    recipe = get_recipe(given["recipe"], epochs=asked.full_epochs(given))
    strategy = asked.named_with_options(given["strategy"])[0]
    return TrainingEvaluator(
        proxies.space,
        train,
        valid,
        recipe,
        seed=given["seed"],
        build=shared.key_values(given["build"]),
        device=given["device"],
        folder=folder,
        inherits=strategy == "large_scale_evolution",
    )


# --------------------------------------------------------------------------------------------------------------- output


def _summary(
    given: Mapping[str, Any],
    result: SearchResult,
    space: SearchSpace,
    folder: Path,
    options: Mapping[str, object],
) -> dict[str, Any]:
    def told(record: Record) -> dict[str, Any]:
        scores = for_json(dict(record.evaluation.scores))
        return {"arch": space.format(record.trial.genotype), "epochs": record.epochs or None, "scores": scores}

    return {
        "command": "search",
        "strategy": given["strategy"],
        "folder": str(folder),
        "options": options,
        "objectives": [objective.text for objective in result.objectives],
        "trials": len(result.records),
        "failed": sum(record.values is None for record in result.records),
        "scored_untrained": result.n_scored,
        "seconds": round(result.seconds, 2),
        "stopped": result.stopped,
        "winner": None if result.best is None else told(result.best),
        "front": [told(record) for record in result.front] if len(result.objectives) > 1 else [],
        "final": {},
    }


def _write(result: SearchResult, space: SearchSpace, summary: dict[str, Any], folder: Path) -> None:
    from naswot.plots_search import plot_front, plot_search

    names = list(dict.fromkeys(name for record in result.records for name in record.evaluation.scores))
    texts = [objective.text for objective in result.objectives]
    shown = [text for text in texts if text not in names]
    with (folder / "trials.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "arch", "epochs", *shown, *names, "seconds", "spent", "scored_untrained", "error"])
        for record in result.records:
            values = dict(zip(texts, record.values or [None] * len(texts), strict=True))
            scores = [record.evaluation.scores.get(name) for name in names]
            cost = round(sum(record.evaluation.seconds.values()), 4), round(record.spent, 4)
            head = [record.trial.number, space.format(record.trial.genotype), record.epochs or ""]
            row = [*head, *(values[text] for text in shown), *scores, *cost, record.n_scored, record.error]
            writer.writerow(row)
    write_json(folder / "summary.json", summary)
    plot_search(result, folder / "search.png", title=f"{summary['strategy']} on {space.name}")
    if len(result.objectives) > 1:
        plot_front(result, folder / "front.png", title=f"{summary['strategy']} on {space.name}")


def _print(result: SearchResult, space: SearchSpace, summary: dict[str, Any], given: Mapping[str, Any]) -> None:
    if given["as_json"]:
        click.echo(json.dumps(summary, indent=2))
        return
    from rich.table import Table

    console = shared.console()
    rows = result.front if len(result.objectives) > 1 else _best_first(result)
    table = Table("", box=None, pad_edge=False)
    for objective in result.objectives:
        table.add_column(objective.text, justify="right", no_wrap=True)
    trained = any(record.epochs for record in rows)
    if trained:
        table.add_column("epochs", justify="right")
    table.add_column("arch", overflow="fold", min_width=30)
    for rank, record in enumerate(rows[: given["top"]], start=1):
        cells = [shared.number(value) for value in record.values or ()]
        epochs = [str(record.epochs)] if trained else []
        table.add_row(str(rank), *cells, *epochs, space.format(record.trial.genotype))
    console.print(table, "")
    failed = f", {summary['failed']} failed (see trials.csv)" if summary["failed"] else ""
    scored = f", {summary['scored_untrained']} architectures scored untrained" if summary["scored_untrained"] else ""
    seconds = f"{summary['seconds']:,.1f} s" + (" of training, by the table" if given["table"] else "")
    what = f"a front of {len(rows)} out of " if len(result.objectives) > 1 else ""
    console.print(f"{what}{summary['trials']} trials in {seconds}{scored}{failed}", soft_wrap=True)
    if summary["final"]:
        print_finalist(console, summary["final"], summary["winner"]["arch"], space.name, given)
    files = ", ".join(sorted(p.name for p in Path(summary["folder"]).iterdir() if p.is_file() and "-" not in p.suffix))
    console.print(f"{summary['folder']}: {files}", soft_wrap=True)


def _best_first(result: SearchResult) -> list[Record]:
    key: Callable[[Record], tuple[float, ...]] = lambda r: (-r.epochs, *(-value for value in r.values or ()))  # noqa: E731
    good = {r.trial.genotype: r for r in sorted(result.records, key=lambda r: r.epochs) if r.values is not None}
    return sorted(good.values(), key=key)
