"""``naswot reproduce``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from naswot._json import for_json
from naswot.cli import _options as shared
from naswot.cli import _run as run


@click.group()
def command() -> None:
    """Figures and tables of papers, run again with the paper's numbers beside ours."""


@command.command()
@click.option("--data-root", envvar="NASWOT_DATA", type=click.Path(), help="Folder with images and benchmarks.")
@click.option(
    "--scores",
    type=click.Path(file_okay=False),
    default="results",
    show_default=True,
    help="Folder with known scores of whole spaces: BENCHMARK_naswot.csv.gz.",
)
@click.option("--out", type=click.Path(file_okay=False), help="Run folder; by default one under runs/.")
@click.option("--only", multiple=True, metavar="ITEM", help="An item by name; may be given several times.")
@click.option(
    "--quick", is_flag=True, help="Few small networks on the embedded digits; minutes, and no number to quote."
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes; by default one for each core.")
@click.option("--seed", default=0, show_default=True, help="Everything random derives from it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def mellor2021(
    data_root: str | None,
    scores: str,
    out: str | None,
    only: tuple[str, ...],
    quick: bool,
    workers: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Neural Architecture Search without Training (Mellor et al., ICML 2021).

    Items: kernels_by_accuracy (Figure 1), scatter (Figure 3), robustness (Figure 5), during_training (Figure 6),
    search_table (Table 2 and Figure 7). Each leaves a table and pictures in the run folder; summary.json has all of it,
    and what was not possible with the data at hand. The same command goes on where it was stopped.

    \b
    Examples:
      naswot reproduce mellor2021 --quick
      naswot reproduce mellor2021 --data-root ~/data --only search_table --only scatter
    """
    from naswot.reproduce.mellor2021 import reproduce
    from naswot.reproduce.setting import Setting
    from naswot.workers import available_cores, worker_pool

    folder = Path(out or f"runs/mellor2021{'-quick' if quick else ''}-seed{seed}")
    options = {"reproduction": "mellor2021", "quick": quick, "seed": seed}
    try:
        with run.open_store(folder, options) as store:  # noqa: SIM117
            with worker_pool(workers or available_cores()) as executor:
                setting = Setting(folder, store, data_root, Path(scores), quick, seed, executor)
                summary = reproduce(setting, only, on_item=lambda name: click.echo(f"{name} ...", err=True))
    except KeyboardInterrupt:
        click.echo(f"naswot: stopped; scores are kept in {folder}; the same command goes on", err=True)
        sys.exit(130)
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **for_json(summary)}, indent=2))
    else:
        _print(summary, folder)


def _print(summary: Mapping[str, Any], folder: Path) -> None:
    from rich.table import Table

    console = shared.console()
    for name, item in summary["items"].items():
        title = f"{name} ({item['shows']}), {item['seconds']:.0f} s"
        table = Table(
            "", "data set", "split", "ours", "", "paper", "", "n", title=title, title_justify="left", box=None
        )
        for row in item["rows"]:
            ours, paper = (shared.number(row[key], digits=3) for key in ("ours", "paper"))
            between = f"[{row['low']:.3f}, {row['high']:.3f}]" if row["low"] is not None else _with_sign(row["sd"])
            split = row["dataset"], row["split"]
            table.add_row(row["what"], *split, ours, between, paper, _with_sign(row["paper_sd"]), f"{row['n']:,}")
        console.print(table, markup=False)
        for note in item["notes"]:
            console.print(note, markup=False, soft_wrap=True)
        console.print()
    console.print("not possible here:")
    for what, why in summary["not possible here"].items():
        console.print(f"  {what}: {why}", markup=False, soft_wrap=True)
    files = ", ".join(sorted(path.name for path in folder.iterdir() if "-" not in path.suffix))
    console.print(f"{folder}: {files}", markup=False, soft_wrap=True)


def _with_sign(value: float | None) -> str:
    return "" if value is None else f"±{shared.number(value, digits=3)}"
