"""``naswot rank``."""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from naswot.cli import _options as shared
from naswot.errors import DataError, NaswotError

_COLUMNS = ("naswot", "naswot_size", "naswot_diversity", "params", "flops", "trainable_layers")
_HEADINGS = ("score", "size term", "diversity", "params", "MACs", "layers")


@dataclass(frozen=True)
class _Row:
    model: str
    scores: dict[str, float]
    seconds: float
    reasons: dict[str, str] = field(default_factory=dict)
    error: str | None = None


@click.command()
@click.argument("models", nargs=-1, required=True)
@shared.data_options
@shared.pass_options
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
    as_json: bool,
    as_csv: bool,
    out: str | None,
) -> None:
    """Rank several untrained MODELS by their score, with its two terms, params, MACs and seconds.

    All models see the same images (language models: the same number of random token rows). A model that fails is shown
    with its error at the end; the others are ranked all the same. Exit code 1 if none could be scored.

    \b
    Examples:
      naswot rank models.py:small models.py:large
      naswot rank pytorchcv:resnet18 pytorchcv:mobilenet_w1 hf:vit --size 224 --batch-size 32
      naswot rank timm:resnet18 timm:vit_tiny_patch16_224 --size 224 --out table.csv
    """
    from naswot.data import get_data

    if as_json and as_csv:
        raise click.UsageError("choose one of --json and --csv")
    images = get_data(data, root=data_root, size=size)
    options = {"taps": taps, "mode": mode}
    checked = shared.checked_device(device)
    rows = [_scored(model, images, batch_size, seed, checked, fast, options) for model in models]
    rows.sort(key=lambda row: (row.error is not None, -row.scores.get("naswot", -math.inf), row.model))
    records = [_record(row) for row in rows]
    if out is not None:
        _write(records, Path(out))
    for note in images.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        click.echo(json.dumps([_for_json(record) for record in records], indent=2))
    elif as_csv:
        _write_csv(records, sys.stdout)
    else:
        _print(rows)
    if all(row.error is not None for row in rows):
        sys.exit(1)


def _scored(
    name: str, images: Any, batch_size: int, seed: int, device: str, fast: bool, options: dict[str, str]
) -> _Row:
    from naswot.cli._loading import batch_for
    from naswot.measuring import run_proxies
    from naswot.models import load_model
    from naswot.proxy import get_proxy
    from naswot.scoring import pass_options

    start = time.perf_counter()
    try:
        model = load_model(name, n_classes=images.n_classes, size=images.shape[-1], seed=seed).to(device)
        batch = batch_for(model, images, batch_size, seed)
        chosen = [get_proxy(proxy) for proxy in _COLUMNS]
        result = run_proxies(model, batch, chosen, seed=seed, options=pass_options(model, fast=fast, **options))
    except NaswotError as error:
        return _Row(name, {}, time.perf_counter() - start, error=str(error))
    return _Row(name, dict(result.scores), time.perf_counter() - start, dict(result.reasons))


def _record(row: _Row) -> dict[str, Any]:
    values = {column: row.scores.get(column) for column in _COLUMNS}
    reason = row.reasons.get("naswot")
    return {"model": row.model, **values, "seconds": row.seconds, "reason": reason, "error": row.error}


def _for_json(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, **shared.plain({column: record[column] for column in _COLUMNS})}


def _write(records: list[dict[str, Any]], path: Path) -> None:
    if path.suffix not in (".csv", ".json"):
        raise click.BadParameter(f"expected a file that ends in .csv or .json, but got {path}", param_hint="--out")
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            if path.suffix == ".json":
                json.dump([_for_json(record) for record in records], file, indent=2)
            else:
                _write_csv(records, file)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}; choose another --out") from error


def _write_csv(records: list[dict[str, Any]], file: Any) -> None:
    writer = csv.DictWriter(file, list(records[0]))
    writer.writeheader()
    writer.writerows(records)


def _print(rows: list[_Row]) -> None:
    from rich.table import Table

    console = shared.console()
    table = Table("model", box=None, pad_edge=False)
    for heading in (*_HEADINGS, "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        if row.error is None:
            cells = [shared.number(row.scores[column]) for column in _COLUMNS]
            table.add_row(row.model, *cells, f"{row.seconds:.2f}")
    console.print(table)
    for row in rows:
        if row.reasons:
            console.print(f"{row.model}: {row.reasons.get('naswot', '')}", markup=False, soft_wrap=True)
        if row.error is not None:
            console.print(f"{row.model}: failed: {row.error}", markup=False, soft_wrap=True)
