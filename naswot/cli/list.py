"""``naswot list``."""

from __future__ import annotations

import json

import click

from naswot.cli import _options as shared

_KINDS = ("proxies", "aggregates", "spaces", "data", "models")


def _rows(kind: str) -> list[dict[str, str]]:
    from naswot.data import data_sets
    from naswot.models import SOURCES
    from naswot.proxy import proxies
    from naswot.ranking import aggregates
    from naswot.space import spaces

    if kind == "proxies":
        return [
            {
                "name": name,
                "better": "higher" if proxy.higher_is_better else "lower",
                "forwards": "1, shared" if proxy.needs_forward else "0",
                "backwards": "1, shared" if proxy.needs_gradients else "0",
                "what": proxy.summary,
                "reference": proxy.reference,
            }
            for name, proxy in proxies
        ]
    if kind == "aggregates":
        return [
            {"name": name, "of": ", ".join(a.proxies) or "--proxies", "what": a.summary, "reference": a.reference}
            for name, a in aggregates
        ]
    if kind == "spaces":
        return [
            {"name": name, "architectures": f"{space.size:,}", "reference": space.reference} for name, space in spaces
        ]
    if kind == "data":
        return [{"name": name, "what": (load.__doc__ or "").partition("\n")[0]} for name, load in data_sets]
    return [{"name": source} for source in SOURCES]


@click.command()
@click.argument("kind", required=False, type=click.Choice(_KINDS))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(kind: str | None, as_json: bool) -> None:
    """List what is installed: proxies, aggregates of them, spaces, data sets, and the forms of a model's name.

    \b
    Examples:
      naswot list
      naswot list proxies --json
    """
    from rich.table import Table

    kinds = [kind] if kind else list(_KINDS)
    tables = {kind: _rows(kind) for kind in kinds}
    if as_json:
        click.echo(json.dumps(tables[kind] if kind else tables, indent=2))
        return
    console = shared.console()
    for title, rows in tables.items():
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for column in rows[0] if rows else []:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*row.values())
        console.print(table, "")
