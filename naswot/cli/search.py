"""``naswot search``."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from naswot._json import for_json, write_json
from naswot.cli import _options as shared
from naswot.cli import _run as run
from naswot.cli import _settling as settling
from naswot.cli._search_options import is_preset, refuse_strategy_options, refuse_supernet_options, strategy_options

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from rich.progress import Progress

    from naswot.data.images import ImageSet
    from naswot.evaluate import Evaluator
    from naswot.replicating import Replication
    from naswot.run import Ranked
    from naswot.store import ResultStore
    from naswot.training.compare import Trained

DEFAULT_PROXIES = "naswot,naswot_size,naswot_diversity,params,flops,trainable_layers"

_HEADINGS = {"naswot": "score", "flops": "MACs", "trainable_layers": "layers"}


@click.command()
@click.option(
    "--space", default="nasbench201", show_default=True, type=shared.RegistryName("spaces"), help="What to search."
)
@click.option(
    "--number", "-n", default=100, show_default=True, type=click.IntRange(min=1), help="Architectures to score."
)
@click.option(
    "--proxies",
    default=DEFAULT_PROXIES,
    show_default=True,
    type=shared.RegistryName("proxies"),
    help="Comma-separated; zen(repeats=4) binds an option.",
)
@click.option("--rank-by", help="The score that decides; by default the first of --proxies.")
@click.option(
    "--repeats", default=1, show_default=True, type=click.IntRange(min=1), help="Batches and initialisations."
)
@click.option(
    "--settle-best",
    metavar="K",
    type=click.IntRange(min=1),
    help="Repeat only those whose place in or out of the best K is in doubt, up to --repeats times.",
)
@shared.data_options
@shared.pass_options
@click.option("--pruned", is_flag=True, help="Score without branches that reach nothing, once for each class.")
@click.option("--build", multiple=True, metavar="KEY=VALUE", help="Option of the space, such as width=8.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes; by default one for each core, on a GPU one.")
@click.option(
    "--train-epochs", default=6, show_default=True, type=click.IntRange(min=0), help="Of the winner and a random one."
)
@click.option(
    "--out", type=click.Path(file_okay=False), help="Run folder; by default one under runs/ named by the options."
)
@click.option("--top", default=10, show_default=True, type=click.IntRange(min=1), help="Rows to show.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@strategy_options
def command(**given: Any) -> None:
    """Screen a search space by scores of untrained networks, then train the winner and a random one to compare.

    With --train the search really trains: it screens --number architectures untrained, trains the best few briefly and
    the finalist fully, on one part of the training images and chosen by the other; then the finalist is trained on all
    of them and meets the test images once. --strategy searches in another way (`naswot list searchers`): with --train
    by real training, with --benchmark by looking trainings up, without either by the scores. --objective, --max-params
    and the like, budgets and --warm-up, --prescreen, --reject-below go with all of them. The strategies of `naswot list
    presets` (DARTS and its family, one-shot methods) train one supernet on half of the images for --search-epochs and
    choose by the other half; --seeds, --supernet and --hessian-every go with these.

    Results go to a run folder at once; the same command goes on where an earlier one was stopped, a larger --number
    adds to it, and of more --proxies only the new ones are worked out. table.csv and the picture (drawn where params is
    among the proxies) show the last command, results.sqlite all that was ever scored. The numbers depend on neither the
    order nor the number of workers.

    \b
    Examples:
      naswot search
      naswot search -n 1000 --data cifar10 --data-root ~/data --batch-size 128 --train-epochs 0
      naswot search -n 200 --repeats 3 --pruned --build width=8 --build n_cells=3
      naswot search -n 200 --repeats 8 --settle-best 10
      naswot search --train --build width=8 --build n_cells=1
      naswot search --train --strategy "regularized_evolution(population=5)" --evaluations 20 --warm-up 50 --keep 5
      naswot search --benchmark nasbench201_digits --strategy regularized_evolution --evaluations 50
      naswot search --strategy nsga2 --objective naswot --objective=-params -n 200
      naswot search --strategy sdarts_rs --supernet width=8 --supernet n_cells=1 --search-epochs 10
    """
    settling.check_settling(given)
    if given["strategy"] and is_preset(given["strategy"]):
        from naswot.cli._supernet import run_supernet

        return run_supernet(given)
    if given["train"] or given["strategy"] is not None or given["table"]:
        from naswot.cli._strategy import run_strategy

        refuse_supernet_options(click.get_current_context())
        return run_strategy(given)
    refuse_supernet_options(click.get_current_context())
    refuse_strategy_options(click.get_current_context())
    return _screen(given)


def _screen(given: dict[str, Any]) -> None:
    from naswot.space import get_space
    from naswot.workers import worker_pool

    images = run.images_of({"data": given["data"], "size": given["size"]}, given["data_root"])
    evaluator = run.evaluator_of(given, get_space(given["space"]), images, pruned=given["pruned"])
    folder = Path(given["out"] or Path("runs") / run.folder_name(evaluator))
    workers = given["workers"] or run.default_workers(evaluator)
    start = time.perf_counter()
    with (
        run.store_of(evaluator, folder) as store,
        run.progress(given["as_json"]) as progress,
    ):
        try:
            with worker_pool(workers) as executor:
                rows, found = _screened(evaluator, given, executor, store, progress)
                screened = time.perf_counter() - start
                summary = _summary(rows, [], evaluator, given, folder, screened, found)
                _write(rows, [], summary, evaluator, folder, found)
                trained = _compared(rows, images, evaluator, given, executor, store, progress)
        except KeyboardInterrupt:
            progress.stop()
            run.stopped(store, folder)
    summary = _summary(rows, trained, evaluator, given, folder, screened, found)
    _write(rows, trained, summary, evaluator, folder, found)
    if given["as_json"]:
        click.echo(json.dumps(summary, indent=2))
    else:
        _print(rows, trained, summary, given["top"], found)
    if all(row.error is not None for row in rows):
        sys.exit(1)


def _screened(
    evaluator: Evaluator, given: dict[str, Any], executor: Executor | None, store: ResultStore, progress: Progress
) -> tuple[list[Ranked], Replication | None]:
    from naswot.run import sample_distinct, screen

    genotypes = sample_distinct(evaluator.space, given["number"], seed=given["seed"])
    if given["settle_best"] is not None:
        return settling.settled(evaluator, genotypes, given, executor, store, progress)
    advance = run.advancing(progress, "scoring", len(genotypes) * given["repeats"])
    rows = screen(
        evaluator,
        genotypes,
        rank_by=given["rank_by"],
        repeats=given["repeats"],
        executor=executor,
        store=store,
        on_result=advance,
    )
    return rows, None


def _compared(
    rows: Sequence[Ranked],
    images: ImageSet,
    evaluator: Evaluator,
    given: dict[str, Any],
    executor: Executor | None,
    store: ResultStore,
    progress: Progress,
) -> list[Trained]:
    from naswot.data import get_data
    from naswot.training.compare import compare_by_training

    epochs = given["train_epochs"]
    if epochs == 0:
        return []
    held_out = get_data(given["data"], root=given["data_root"], size=given["size"], split="test")
    bar = progress.add_task(f"training two for {epochs} epochs", total=2, rate="")
    return compare_by_training(
        evaluator,
        rows,
        images,
        held_out,
        epochs=epochs,
        executor=executor,
        store=store,
        on_done=lambda: progress.advance(bar),
    )


def _summary(
    rows: Sequence[Ranked],
    trained: Sequence[Trained],
    evaluator: Evaluator,
    given: dict[str, Any],
    folder: Path,
    seconds: float,
    found: Replication | None,
) -> dict[str, Any]:
    winner = None
    if rows[0].error is None and math.isfinite(rows[0].mean[given["rank_by"] or evaluator.names[0]]):
        winner = {"arch": rows[0].arch, "scores": for_json(rows[0].mean)}
    return {
        "command": "search",
        "folder": str(folder),
        "options": evaluator.describe(),
        "rank_by": given["rank_by"] or evaluator.names[0],
        "repeats": given["repeats"],
        "architectures": len(rows),
        "singular": sum(math.isinf(next(iter(row.mean.values()), 0.0)) for row in rows),
        "failed": sum(row.error is not None for row in rows),
        "screening_seconds": round(seconds, 2),
        "winner": winner,
        "trained": [dataclasses.asdict(item) for item in trained],
        "train_epochs": given["train_epochs"],
        **settling.summary_of(found, given),
    }


def _write(
    rows: Sequence[Ranked],
    trained: Sequence[Trained],
    summary: dict[str, Any],
    evaluator: Evaluator,
    folder: Path,
    found: Replication | None,
) -> None:
    from naswot.plots import plot_scores

    names, more = evaluator.names, settling.columns_of(found)
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        header = [column for name in names for column in (name, f"{name}_spread")]
        writer.writerow(["arch", *header, *more.get(rows[0].arch, ()), "reason", "error"])
        for row in sorted(rows, key=lambda row: row.arch):
            cells = [cell for name in names for cell in (row.mean.get(name), row.spread.get(name))]
            reason = "; ".join(dict.fromkeys(row.reasons.values()))
            writer.writerow([row.arch, *cells, *more.get(row.arch, {}).values(), reason, row.error])
    write_json(folder / "summary.json", summary)
    picture = folder / "scores.png"
    picture.unlink(missing_ok=True)
    if "params" in names:
        marked = [item.arch for item in trained] or [rows[0].arch]
        title = f"{len(rows)} {evaluator.space.name} cells, untrained"
        plot_scores(rows, picture, x="params", y=summary["rank_by"], marked=marked, title=title)


def _print(
    rows: Sequence[Ranked],
    trained: Sequence[Trained],
    summary: dict[str, Any],
    top: int,
    found: Replication | None,
) -> None:
    from rich.table import Table

    console = shared.console()
    others = [name for name in rows[0].mean if name not in (summary["rank_by"], "naswot_size", "naswot_diversity")]
    shown = [summary["rank_by"], *others] if rows[0].mean else []
    table = Table("", box=None, pad_edge=False)
    for name in shown:
        table.add_column(_HEADINGS.get(name, name), justify="right", no_wrap=True)
    if found is not None:
        table.add_column("repeats", justify="right", no_wrap=True)
    table.add_column("arch", overflow="fold", min_width=30)
    for rank, row in enumerate(rows[:top], start=1):
        cells = [_with_spread(row, name) for name in shown] if row.error is None else [""] * len(shown)
        if found is not None:
            cells = settling.cells_of(found.estimates[rank - 1], row, shown)
        table.add_row(str(rank), *cells, row.arch if row.error is None else f"{row.arch} failed: {row.error}")
    console.print(table, "")
    singular = f", {summary['singular']} with a singular kernel (-inf)" if summary["singular"] else ""
    failed = f", {summary['failed']} failed (see the table)" if summary["failed"] else ""
    seconds = summary["screening_seconds"]
    console.print(f"{len(rows)} architectures in {seconds:.1f} s{singular}{failed}", soft_wrap=True)
    if found is not None:
        console.print(settling.sentence(found, summary["settled"]["best"]), soft_wrap=True)
    for item in trained:
        line = f"  {item.role}: {item.accuracy:.1f} % test accuracy after {summary['train_epochs']} epochs  {item.arch}"
        console.print(line, markup=False, soft_wrap=True)
    files = ", ".join(sorted(path.name for path in Path(summary["folder"]).iterdir() if "-" not in path.suffix))
    console.print(f"{summary['folder']}: {files}", soft_wrap=True)


def _with_spread(row: Ranked, name: str) -> str:
    spread = row.spread.get(name)
    return shared.number(row.mean[name]) + (f" ±{shared.number(spread)}" if spread else "")
