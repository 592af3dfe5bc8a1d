"""``naswot rank``."""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from naswot._json import for_json
from naswot.cli import _options as shared
from naswot.errors import DataError, NaswotError

if TYPE_CHECKING:
    from naswot.proxy import Proxy
    from naswot.ranking import Aggregate

_COLUMNS = ("naswot", "naswot_size", "naswot_diversity", "params", "flops", "trainable_layers")
_HEADINGS = ("score", "size term", "diversity", "params", "MACs", "layers")


@dataclass(frozen=True)
class _Row:
    model: str
    scores: dict[str, float]
    seconds: float
    reasons: dict[str, str] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class _Table:
    """What is measured, what is shown under which headings, and what decides."""

    proxies: tuple[Proxy, ...]
    columns: tuple[str, ...]
    headings: tuple[str, ...]
    by: str
    direction: float
    aggregate: Aggregate | None


@click.command()
@click.argument("models", nargs=-1, required=True)
@shared.data_options
@shared.pass_options
@click.option(
    "--aggregate", metavar="NAME", help="Rank by several proxies at once; scores then depend on the set of MODELS."
)
@click.option(
    "--proxies",
    type=shared.RegistryName("proxies"),
    help="Comma-separated, the first one decides; with --aggregate its components. zen(repeats=4) binds an option.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--out", type=click.Path(dir_okay=False), help="Write to this .csv or .json file too.")
def command(
    models: tuple[str, ...],
    data: str,
    data_root: str | None,
    size: int | None,
    batch_size: int,
    seed: int,
    taps: str,
    mode: str,
    fast: bool,
    device: str,
    aggregate: str | None,
    proxies: str | None,
    as_json: bool,
    as_csv: bool,
    out: str | None,
) -> None:
    """Rank several untrained MODELS by their score, with its two terms, params, MACs and seconds; or by other proxies.

    All models see the same images (language models: the same number of random token rows). A model that fails is shown
    with its error at the end; the others are ranked all the same. Exit code 1 if none could be scored.

    \b
    Examples:
      naswot rank models.py:small models.py:large
      naswot rank pytorchcv:resnet18 pytorchcv:mobilenet_w1 hf:vit --size 224 --batch-size 32
      naswot rank timm:resnet18 timm:vit_tiny_patch16_224 --size 224 --out table.csv
      naswot rank models.py:small models.py:large --proxies "synflow,zen(repeats=4),params"
      naswot rank models.py:small models.py:large models.py:deep --aggregate az_nas
      naswot rank models.py:small models.py:large --aggregate log_rank --proxies naswot,synflow
    """
    from naswot.data import get_data

    if as_json and as_csv:
        raise click.UsageError("choose one of --json and --csv")
    table = _table(aggregate, proxies)
    images = get_data(data, root=data_root, size=size)
    options = {"taps": taps, "mode": mode}
    checked = shared.checked_device(device)
    rows = [_scored(model, table, images, batch_size, seed, checked, fast, options) for model in models]
    rows = _aggregated(rows, table)
    worst = -table.direction * math.inf
    rows.sort(key=lambda row: (row.error is not None, -table.direction * row.scores.get(table.by, worst), row.model))
    records = [_record(row, table) for row in rows]
    if out is not None:
        _write(records, Path(out), table)
    for note in images.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        click.echo(json.dumps([_for_json(record, table) for record in records], indent=2))
    elif as_csv:
        _write_csv(records, sys.stdout)
    else:
        _print(rows, table)
    if all(row.error is not None for row in rows):
        sys.exit(1)


def _table(aggregate: str | None, proxies: str | None) -> _Table:
    from naswot.errors import OptionError
    from naswot.proxy import get_proxy
    from naswot.ranking import get_aggregate

    given = shared.proxies_of(proxies or "")
    rule = None if aggregate is None else get_aggregate(aggregate)
    words = given or (_COLUMNS if rule is None else rule.proxies)
    if not words:
        raise OptionError(f"aggregate {aggregate!r} has no components of its own; name some by --proxies")
    chosen = tuple(get_proxy(word) if isinstance(word, str) else word for word in words)
    names = tuple(proxy.name for proxy in chosen)
    columns = names if rule is None else (rule.name, *names)
    headings = _HEADINGS if names == _COLUMNS and rule is None else columns
    direction = 1.0 if rule is not None or chosen[0].higher_is_better else -1.0
    return _Table(chosen, columns, headings, columns[0], direction, rule)


def _aggregated(rows: list[_Row], table: _Table) -> list[_Row]:
    """The rows with the aggregate's score, where there is one; those that failed are no part of the compared set."""
    from naswot.ranking import aggregate_scores

    good = [row for row in rows if row.error is None]
    if table.aggregate is None or not good:
        return rows
    columns = {proxy.name: [row.scores[proxy.name] for row in good] for proxy in table.proxies}
    directions = {proxy.name: proxy.higher_is_better for proxy in table.proxies}
    scores = aggregate_scores(columns, table.aggregate, directions)
    placed = [replace(r, scores={**r.scores, table.by: float(s)}) for r, s in zip(good, scores, strict=True)]
    return [*placed, *(row for row in rows if row.error is not None)]


def _scored(
    name: str,
    table: _Table,
    images: Any,
    batch_size: int,
    seed: int,
    device: str,
    fast: bool,
    options: dict[str, str],
) -> _Row:
    from naswot.cli._loading import batch_for
    from naswot.measuring import run_proxies
    from naswot.models import load_model
    from naswot.scoring import pass_options

    start = time.perf_counter()
    try:
        model = load_model(name, n_classes=images.n_classes, size=images.shape[-1], seed=seed).to(device)
        batch = batch_for(model, images, batch_size, seed)
        result = run_proxies(model, batch, table.proxies, seed=seed, options=pass_options(model, fast=fast, **options))
    except NaswotError as error:
        return _Row(name, {}, time.perf_counter() - start, error=str(error))
    return _Row(name, dict(result.scores), time.perf_counter() - start, dict(result.reasons))


def _record(row: _Row, table: _Table) -> dict[str, Any]:
    values = {column: row.scores.get(column) for column in table.columns}
    reason = _reason(row, table)
    return {"model": row.model, **values, "seconds": row.seconds, "reason": reason, "error": row.error}


def _reason(row: _Row, table: _Table) -> str | None:
    if table.columns == _COLUMNS:
        return row.reasons.get("naswot")
    return "; ".join(f"{name}: {why}" for name, why in row.reasons.items()) or None


def _for_json(record: dict[str, Any], table: _Table) -> dict[str, Any]:
    return {**record, **for_json({column: record[column] for column in table.columns})}


def _write(records: list[dict[str, Any]], path: Path, table: _Table) -> None:
    if path.suffix not in (".csv", ".json"):
        raise click.BadParameter(f"expected a file that ends in .csv or .json, but got {path}", param_hint="--out")
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            if path.suffix == ".json":
                json.dump([_for_json(record, table) for record in records], file, indent=2)
            else:
                _write_csv(records, file)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}; choose another --out") from error


def _write_csv(records: list[dict[str, Any]], file: Any) -> None:
    writer = csv.DictWriter(file, list(records[0]))
    writer.writeheader()
    writer.writerows(records)


def _print(rows: list[_Row], table: _Table) -> None:
    from rich.table import Table

    console = shared.console()
    shown = Table("model", box=None, pad_edge=False)
    for heading in (*table.headings, "seconds"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        if row.error is None:
            cells = [shared.number(row.scores[column]) for column in table.columns]
            shown.add_row(row.model, *cells, f"{row.seconds:.2f}")
    console.print(shown)
    for row in rows:
        if row.reasons:
            console.print(f"{row.model}: {_reason(row, table) or ''}", markup=False, emoji=False, soft_wrap=True)
        if row.error is not None:
            console.print(f"{row.model}: failed: {row.error}", markup=False, emoji=False, soft_wrap=True)
