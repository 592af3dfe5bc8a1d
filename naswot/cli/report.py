"""``naswot report``."""

from __future__ import annotations

import json
from pathlib import Path

import click

_LARGE = 20_000_000  # bytes


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(file_okay=False))
@click.option("--out", type=click.Path(dir_okay=False), help="The page; by default report.html in RUN.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(folder: str, out: str | None, as_json: bool) -> None:
    """One web page about the run folder RUN: figures, pictures, tables, settings, where and when it was run.

    The page is one file that needs no network and can be sent on or printed. Any run folder will do, also one of a run
    that was stopped. For a folder of run folders every run gets its page, and RUN an index of them.

    \b
    Examples:
      naswot report runs/nasbench201-digits-seed0-1a2b3c
      naswot report runs/nasbench201-digits-seed0-1a2b3c --out results.html
      naswot report runs
    """
    from naswot._run_folder import runs_in
    from naswot.report import write_index, write_report

    target = None if out is None else Path(out)
    if target is not None and target.suffix not in (".html", ".htm"):
        raise click.BadParameter(f"expected the name of a page, such as report.html, but got {out}", param_hint="--out")
    reports: list[Path] = []
    if runs_in(Path(folder)):
        page, reports = write_index(Path(folder), target)
    else:
        page = write_report(Path(folder), target)
    for path in (page, *reports):
        if path.stat().st_size > _LARGE:
            click.echo(
                f"note: {path} has {path.stat().st_size / 1e6:.0f} MB; its tables or pictures are large", err=True
            )
    if as_json:
        click.echo(json.dumps({"page": str(page), "reports": [str(path) for path in reports]}, indent=2))
    else:
        click.echo(f"{page} and those of its runs: {len(reports)}" if reports else str(page))
