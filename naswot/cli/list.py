"""``naswot list``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from naswot.cli import _options as shared

if TYPE_CHECKING:
    from rich.console import Console

    from naswot.searcher import Searcher

_SHORT = {
    "proxies": ("name", "passes", "what"),
    "searchers": ("name", "objectives", "what"),
    "presets": ("name", "what"),
}
_KINDS = ("proxies", "aggregates", "spaces", "searchers", "presets", "data", "models")


def _rows(kind: str) -> list[dict[str, str]]:
    from naswot.catalogue import proxy_rows
    from naswot.data import data_sets
    from naswot.differentiable.preset import presets
    from naswot.models import SOURCES
    from naswot.ranking import aggregates
    from naswot.searcher import searchers
    from naswot.space import spaces
    from naswot.supernet import list_supernets

    if kind == "proxies":
        return proxy_rows()
    if kind == "aggregates":
        return [
            {"name": name, "of": ", ".join(a.proxies) or "--proxies", "what": a.summary, "reference": a.reference}
            for name, a in aggregates
        ]
    if kind == "spaces":
        with_supernet = list_supernets()
        return [
            {
                "name": name,
                "architectures": f"{space.size:,}",
                "supernet": "yes" if name in with_supernet else "",
                "reference": space.reference,
            }
            for name, space in spaces
        ]
    if kind == "searchers":
        return [_searcher_row(name, cls) for name, cls in searchers]
    if kind == "presets":
        return [
            {
                "name": name,
                "what": preset.summary,
                "options": ", ".join(f"{option}={value!r}" for option, value in preset.options.items()),
                "reference": preset.reference,
            }
            for name, preset in presets
        ]
    if kind == "data":
        return [{"name": name, "what": (load.__doc__ or "").partition("\n")[0]} for name, load in data_sets]
    return [{"name": source} for source in SOURCES]


def _searcher_row(name: str, cls: type[Searcher]) -> dict[str, str]:
    from naswot.searcher import searcher_options

    options = {k: v for k, v in searcher_options(name).items() if k != "scorer"}
    return {
        "name": name,
        "what": (cls.__doc__ or "").partition("\n")[0],
        "objectives": "several" if cls.multi_objective else "one",
        "options": ", ".join(f"{option}={value!r}" for option, value in options.items()),
        "reference": cls.reference,
    }


@click.command()
@click.argument("kind", required=False, type=click.Choice(_KINDS))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(kind: str | None, as_json: bool) -> None:
    """List what is installed: proxies, aggregates, spaces, strategies, presets, data sets, forms of a model's name.

    Searchers ask for architectures and are told what these are worth; presets are methods that train a supernet.

    \b
    Examples:
      naswot list
      naswot list proxies
      naswot list proxies --json
    """
    kinds = [kind] if kind else list(_KINDS)
    tables = {kind: _rows(kind) for kind in kinds}
    if as_json:
        click.echo(json.dumps(tables[kind] if kind else tables, indent=2))
        return
    console = shared.console()
    if kind in _AT_LENGTH:
        for row in tables[kind]:
            _AT_LENGTH[kind](console, row)
        return
    for title, rows in tables.items():
        shown = _SHORT.get(title)
        _print_table(console, title, [{key: row[key] for key in shown} for row in rows] if shown else rows)


def _print_proxy(console: Console, row: dict[str, str]) -> None:
    """Everything about one proxy, at any width of the screen."""
    from rich.padding import Padding
    from rich.text import Text

    console.print(Text.assemble((row["name"], "bold"), "  ", row["what"]))
    facts = [f"{row['better']} is better", f"passes: {row['passes']}", f"{row['images']} images"]
    facts += ["needs labels"] if row["labels"] == "yes" else []
    facts += [f"does not depend on {row['does not depend on']}"] if row["does not depend on"] else []
    facts += [f"fits {row['fits']}"]
    facts += [f"options {row['options']}"] if row["options"] else []
    console.print(Padding(Text("; ".join(facts)), (0, 0, 0, 4)))
    console.print(Padding(Text(row["reference"], style="dim"), (0, 0, 1, 4)))


def _print_strategy(console: Console, row: dict[str, str]) -> None:
    """Everything about one strategy, at any width of the screen."""
    from rich.padding import Padding
    from rich.text import Text

    console.print(Text.assemble((row["name"], "bold"), "  ", row["what"]))
    several = "; several objectives" if row.get("objectives") == "several" else ""
    console.print(Padding(Text(f"{row['options'] or 'no options'}{several}"), (0, 0, 0, 4)))
    console.print(Padding(Text(row["reference"], style="dim"), (0, 0, 1, 4)))


_AT_LENGTH = {"proxies": _print_proxy, "searchers": _print_strategy, "presets": _print_strategy}


def _print_table(console: Console, title: str, rows: list[dict[str, str]]) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in rows[0] if rows else []:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    console.print(table, "")
