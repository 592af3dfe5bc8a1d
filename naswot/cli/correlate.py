"""``naswot correlate``."""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from naswot._json import for_json, write_json
from naswot.cli import _options as shared
from naswot.cli import _run as run

if TYPE_CHECKING:
    from naswot.benchmark import Benchmark
    from naswot.correlating import Correlation, Row
    from naswot.evaluate import Evaluator
    from naswot.statistics import Estimate

DEFAULT_PROXIES = "naswot,synflow,jacov,snip,grad_norm,l2_norm,params,flops,trainable_layers"


@click.command()
@click.argument("benchmark", default="nasbench201_digits", type=shared.RegistryName("benchmarks"))
@click.option("--space", type=shared.RegistryName("spaces"), help="Of the architectures, where BENCHMARK is a file.")
@click.option("--datasets", help="Comma-separated; by default all that have the metric.")
@click.option("--metric", help="The truth that scores should rank.  [default: test_accuracy, or the only one]")
@click.option("--epochs", type=click.IntRange(min=0), help="Length of the training; by default the longest.")
@click.option(
    "--number", "-n", default=200, show_default=True, type=click.IntRange(min=3), help="Architectures, drawn at random."
)
@click.option("--all", "everything", is_flag=True, help="All architectures.")
@click.option(
    "--proxies",
    default=DEFAULT_PROXIES,
    show_default=True,
    type=shared.RegistryName("proxies"),
    help="Comma-separated; zen(repeats=4) binds an option. The first is drawn against the truth.",
)
@click.option(
    "--repeats", default=1, show_default=True, type=click.IntRange(min=1), help="Batches and initialisations."
)
@click.option("--data", type=shared.RegistryName("data"), help="Images to score on; by default those trained on.")
@click.option("--data-root", envvar="NASWOT_DATA", type=click.Path(), help="Folder with the data.")
@click.option("--size", type=click.IntRange(min=1), help="Height and width of the images.")
@click.option("--batch-size", "-N", default=64, show_default=True, type=click.IntRange(min=1), help="Images N.")
@click.option("--seed", default=0, show_default=True, help="Everything random derives from it.")
@shared.pass_options
@click.option("--build", multiple=True, metavar="KEY=VALUE", help="Option of the space, such as width=8.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes; by default one for each core, on a GPU one.")
@click.option("--no-costs", is_flag=True, help="Do not time the proxies before.")
@click.option("--out", type=click.Path(file_okay=False), help="Run folder; by default one under runs/.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(**given: Any) -> None:
    """How well scores of untrained networks rank the trained results of BENCHMARK.

    BENCHMARK is a name out of `naswot benchmark list` or a csv or parquet file of your own with a column `arch` and
    columns of results (then --space says what the strings mean). Without one it is the small benchmark that comes
    with naswot. The same command goes on where an earlier one was stopped; a larger --number adds to it. Tables and
    pictures show the last command, results.sqlite all that was ever scored.

    The table gives Kendall's tau-b with its 95 % interval; tau among the best tenth; how far a score is above the
    strongest of params, flops and trainable_layers, with a paired test (Holm's correction over the proxies); and its
    cost in plain forward passes. Undefined scores (-inf) rank last; table.csv has more measures.

    \b
    Examples:
      naswot correlate
      naswot correlate nasbench201 -n 1000 --batch-size 128 --data-root ~/data
      naswot correlate my_results.csv --space nasbench201 --metric accuracy --data digits
    """
    from naswot.correlating import correlate
    from naswot.workers import worker_pool

    benchmark = _opened(given)
    metric, datasets = _truth(benchmark, given)
    images = run.images_of(_source(benchmark, given), given["data_root"])
    evaluator = run.evaluator_of(given, benchmark.space, images, build=benchmark.build)
    truth = metric, datasets, given["epochs"]
    folder = Path(given["out"] or Path("runs") / _folder_name(benchmark, evaluator, truth))
    n = len(benchmark) if given["everything"] else min(given["number"], len(benchmark))
    start = time.perf_counter()
    with run.store_of(evaluator, folder) as store, run.progress(given["as_json"]) as progress:
        costs = {} if given["no_costs"] else _costs(evaluator, benchmark, folder)
        try:
            with worker_pool(given["workers"] or run.default_workers(evaluator)) as executor:
                found = correlate(
                    benchmark,
                    evaluator,
                    n=n,
                    datasets=datasets,
                    metric=metric,
                    epochs=given["epochs"],
                    repeats=given["repeats"],
                    executor=executor,
                    store=store,
                    on_result=run.advancing(progress, "scoring", n * given["repeats"]),
                )
        except KeyboardInterrupt:
            progress.stop()
            run.stopped(store, folder)
    summary = _summary(found, benchmark, evaluator.describe(), given, folder, costs)
    summary["seconds"] = round(time.perf_counter() - start, 2)
    _write(found, summary, folder)
    _draw(found, folder)
    if given["as_json"]:
        click.echo(json.dumps(summary, indent=2))
    else:
        _print(found, summary)
    if len(found.scores.errors) == len(found.scores.genotypes):
        sys.exit(1)


def _opened(given: Mapping[str, Any]) -> Benchmark:
    from naswot.benchmark import get_benchmark
    from naswot.tables import read_table

    name = given["benchmark"]
    if not name.endswith((".csv", ".csv.gz", ".parquet")) or ".naswot." in name:
        return get_benchmark(name, given["data_root"])
    if given["space"] is None:
        raise click.UsageError(f"{name} is a file: --space says what its architecture strings mean")
    return read_table(name, space=given["space"])


def _truth(benchmark: Benchmark, given: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Metric and data sets; a misspelt name is refused before anything is scored."""
    from naswot.correlating import datasets_with, main_metric

    metric = given["metric"] or main_metric(benchmark)
    datasets = given["datasets"].split(",") if given["datasets"] else datasets_with(benchmark, metric)
    for dataset in datasets:
        benchmark.column(dataset, metric, epochs=given["epochs"])
    return metric, datasets


def _folder_name(benchmark: Benchmark, evaluator: Evaluator, truth: tuple[object, ...]) -> str:
    """Another one for another table, metric or choice of data sets."""
    digest = blake2b(repr((benchmark.source, *truth)).encode(), digest_size=2).hexdigest()
    return run.folder_name(evaluator, prefix=f"correlate-{benchmark.name}-{digest}-")


def _source(benchmark: Benchmark, given: Mapping[str, Any]) -> dict[str, Any]:
    """Where images come from: as asked, or those on which the benchmark's networks were trained."""
    source: dict[str, Any] = dict(benchmark.images)
    if given["data"] is not None:
        source = {"data": given["data"]}
    elif not source:
        click.echo(f"note: {benchmark.name} does not tell its images; scored on digits (--data)", err=True)
        source = {"data": "digits"}
    return {**source, "size": given["size"] or source.get("size")}


def _costs(evaluator: Any, benchmark: Benchmark, folder: Path) -> dict[str, float]:
    """Costs in forward passes, from an earlier run of this folder where it timed these proxies."""
    from naswot.correlating import sample_of
    from naswot.costs import costs_in_forwards

    summary = folder / "summary.json"
    known = json.loads(summary.read_text(encoding="utf-8")).get("costs", {}) if summary.exists() else {}
    if {*evaluator.names, "all"} == set(known):
        return dict(known)
    return costs_in_forwards(evaluator, sample_of(benchmark, 3, seed=evaluator.seed))


def _summary(
    found: Correlation,
    benchmark: Benchmark,
    options: Mapping[str, object],
    given: Mapping[str, Any],
    folder: Path,
    costs: Mapping[str, float],
) -> dict[str, Any]:
    return {
        "command": "correlate",
        "folder": str(folder),
        "benchmark": found.benchmark,
        "source": benchmark.source,
        "metric": found.metric,
        "epochs": given["epochs"],
        "architectures": len(found.scores.genotypes),
        "repeats": given["repeats"],
        "failed": dict(found.scores.errors),
        "ceiling": dict(found.ceiling),
        "costs": {name: round(cost, 3) for name, cost in costs.items()},
        "rows": [for_json(_flat(row, costs)) for row in found.rows],
        "options": options,
    }


def _flat(row: Row, costs: Mapping[str, float]) -> dict[str, Any]:
    """One row of table.csv."""
    flat: dict[str, Any] = {"dataset": row.dataset, "proxy": row.proxy, "n": row.tau.n, "undefined": row.undefined}
    flat |= _ends("tau", row.tau)
    flat |= {"spearman": row.spearman, "pearson": row.pearson, "weighted_tau": row.weighted}
    flat |= {f"tau_top_{round(100 * share)}": value for share, value in row.top.items()}
    flat |= {"precision_top_10": row.precision, "best_rank_at_10": row.best_rank, "regret_at_1": row.regret}
    flat |= {"ndcg_top_10": row.ndcg}
    for base in ("params", "flops", "trainable_layers"):
        if base in row.given:
            flat |= _ends(f"tau_given_{base}", row.given[base])
        else:
            flat |= {f"tau_given_{base}{end}": None for end in ("", "_low", "_high")}
    over = row.over.difference if row.over else None
    flat |= {"over_size": over and over.value, "over_size_low": over and over.low, "over_size_high": over and over.high}
    flat |= {"p_value": row.p_value, "cost_forwards": costs.get(row.proxy)}
    return flat


def _ends(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _write(found: Correlation, summary: Mapping[str, Any], folder: Path) -> None:
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        rows = summary["rows"]
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with (folder / "scores.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        truths = [f"{dataset}/{found.metric}" for dataset in found.truth]
        table.writerow(["arch", *truths, *found.scores.values, "seconds"])
        columns = [*found.truth.values(), *found.scores.values.values(), found.scores.seconds]
        table.writerows(zip(found.scores.archs, *columns, strict=True))
    write_json(folder / "summary.json", summary)


def _draw(found: Correlation, folder: Path) -> None:
    from naswot.plots import plot_against_truth, plot_agreement, plot_correlations

    n = len(found.scores.genotypes)
    title = f"{n} architectures of {found.benchmark}"
    first = next(iter(found.scores.values))
    for dataset, truth in found.truth.items():
        tau = next(row.tau for row in found.rows if (row.dataset, row.proxy) == (dataset, first))
        name = "".join(c if c.isalnum() or c in "-_" else "_" for c in dataset)
        heading = f"{title}, tau = {tau}"
        truth_name = f"{found.metric} on {dataset}"
        picture = folder / f"scatter_{name}.png"
        plot_against_truth(found.scores.values[first], truth, picture, x=first, y=truth_name, title=heading)
    order = [row.proxy for row in found.rows if row.dataset == next(iter(found.truth))]
    taus = {d: {r.proxy: r.tau for r in found.rows if r.dataset == d} for d in found.truth}
    in_order = {dataset: {name: of[name] for name in order} for dataset, of in taus.items()}
    plot_correlations(in_order, folder / "correlations.png", title=f"{title}: {found.metric}")
    columns = {**{f"{d} {found.metric}": t for d, t in found.truth.items()}, **found.scores.values}
    plot_agreement(columns, folder / "agreement.png", title=title)


def _print(found: Correlation, summary: Mapping[str, Any]) -> None:
    from rich.table import Table

    console = shared.console()
    costs = summary["costs"]
    headings = ("data set", "proxy", "n", "tau", "95 % interval", "top 10 %", "over size", "p", "cost", "undefined")
    table = Table(*headings, box=None, pad_edge=False)
    for row in found.rows:
        over = f"{row.over.difference.value:+.3f}" if row.over else "baseline" if row.p_value is None else ""
        cells = [
            row.dataset,
            row.proxy,
            str(row.tau.n),
            _three(row.tau.value),
            f"{_three(row.tau.low)} to {_three(row.tau.high)}",
        ]
        cells += [_three(row.top[0.1]), over, "" if row.p_value is None else shared.number(row.p_value, digits=3)]
        cells += [shared.number(costs.get(row.proxy)), str(row.undefined or "")]
        table.add_row(*cells)
    console.print(table, "")
    every = f"; {shared.number(costs['all'])} forward passes for all of them together" if costs else ""
    n, seconds = len(found.scores.genotypes), summary["seconds"]
    line = f"{n} architectures of {found.benchmark} in {seconds:.1f} s{every}"
    console.print(line, soft_wrap=True)
    for dataset, tau in found.ceiling.items():
        console.print(f"two trainings on {dataset} agree with a tau of {tau:.3f}", soft_wrap=True)
    for dataset in found.truth:
        backwards = [row.proxy for row in found.rows if row.dataset == dataset and row.tau.high < 0]
        if backwards:
            console.print(f"rank {dataset} backwards: {', '.join(backwards)}", soft_wrap=True)
    console.print("over size: against the best baseline; p of that, corrected (Holm); cost in forward passes")
    for arch, error in list(found.scores.errors.items())[:3]:
        console.print(f"failed: {arch}: {error}", markup=False, soft_wrap=True)
    files = ", ".join(sorted(path.name for path in Path(summary["folder"]).iterdir() if "-" not in path.suffix))
    console.print(f"{summary['folder']}: {files}", soft_wrap=True)


def _three(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"
