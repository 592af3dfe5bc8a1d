"""``naswot benchmark``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from naswot.cli import _options as shared
from naswot.cli.benchmark_build import build

_ROOT = click.option("--data-root", envvar="NASWOT_DATA", type=click.Path(), help="Folder with the data, or the file.")


@click.group()
def command() -> None:
    """Trained results of architectures: what there is, what a file holds, compact copies, one of your own.

    \b
    Examples:
      naswot benchmark list
      naswot benchmark info nasbench201 --data-root ~/data
      naswot benchmark convert nasbench201 --data-root ~/data/NAS-Bench-201-v1_1-096897.pth --out ~/data
      naswot benchmark build
      naswot benchmark info runs/mine/nasbench201_digits.naswot.csv.gz
    """


command.add_command(build)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """Benchmarks and the files they are read from."""
    from rich.table import Table

    from naswot.benchmark import benchmarks

    rows = [
        {
            "name": name,
            "space": adapter.space,
            "files": ", ".join(adapter.files),
            "what": adapter.summary,
            "reference": adapter.reference,
        }
        for name, adapter in benchmarks
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table(*(rows[0] if rows else ["no benchmark is installed"]), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row.values())
    shared.console().print(table)


@command.command()
@click.argument("name", type=shared.RegistryName("benchmarks"))
@_ROOT
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(name: str, data_root: str | None, as_json: bool) -> None:
    """What the files of benchmark NAME hold: data sets, metrics, trainings, and the best of each.

    NAME may also be a file that `naswot benchmark build` wrote.
    """
    import numpy as np
    from rich.table import Table

    from naswot.benchmark import Column, get_benchmark

    benchmark = get_benchmark(name, data_root)
    rows = []
    for dataset, metric, epochs in dict.fromkeys(column[:3] for column in benchmark.columns):
        values = benchmark.column(dataset, metric, epochs=epochs)
        known = values[~np.isnan(values)]
        rows.append(
            {
                "dataset": dataset,
                "metric": metric,
                "epochs": epochs,
                "trainings": len(benchmark.seeds(dataset, metric, epochs=epochs)) or None,
                "mean": Column(dataset, metric, epochs) in benchmark.columns,
                "known": len(known),
                "least": float(known.min()),
                "most": float(known.max()),
            }
        )
    if as_json:
        about = {"name": name, "source": benchmark.source, "architectures": len(benchmark)}
        about |= {"build": benchmark.build, "images": benchmark.images, "columns": rows}
        click.echo(json.dumps(about, indent=2))
        return
    console = shared.console()
    title = f"{len(benchmark):,} architectures of {benchmark.space.name}, from {benchmark.source}"
    console.print(title, markup=False, soft_wrap=True)
    for what, options in (("networks", benchmark.build), ("images", benchmark.images)):
        if options:
            told = ", ".join(f"{key}={value}" for key, value in options.items())
            console.print(f"{what}: {told}", markup=False, soft_wrap=True)
    table = Table("data set", "metric", "epochs", "seeds", "known", "least", "most", box=None, pad_edge=False)
    for row in rows:
        ends = [shared.number(float(str(row[end]))) for end in ("least", "most")]
        seeds = row["trainings"] or ("mean only" if row["mean"] else "")
        cells = [row["dataset"], row["metric"], row["epochs"] or "", seeds, row["known"], *ends]
        table.add_row(*map(str, cells))
    console.print(table)


@command.command()
@click.argument("name", type=shared.RegistryName("benchmarks"))
@_ROOT
@click.option("--out", type=click.Path(file_okay=False), default=".", show_default=True, help="Folder of the copy.")
def convert(name: str, data_root: str | None, out: str) -> None:
    """Read the official files of benchmark NAME once and write NAME.naswot.parquet, which opens in a moment."""
    from naswot._benchmark_file import SUFFIX
    from naswot.benchmark import get_benchmark

    benchmark = get_benchmark(name, data_root)
    path = Path(out) / f"{name}{SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    benchmark.save(path)
    megabytes = path.stat().st_size / 1e6
    click.echo(f"{len(benchmark):,} architectures from {benchmark.source}: {path}, {megabytes:.1f} MB")
