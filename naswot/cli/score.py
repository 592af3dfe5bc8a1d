"""``naswot score``."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING

import click

from naswot._json import for_json
from naswot.cli import _options as shared

if TYPE_CHECKING:
    from naswot.activations import Taps
    from naswot.preserve import Mode
    from naswot.scoring import ScoreDetails


@click.command()
@click.argument("model")
@shared.data_options
@shared.pass_options
@click.option("--layers/--no-layers", default=True, help="Show the units of every activation call.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    model: str,
    data: str,
    data_root: str | None,
    size: int | None,
    batch_size: int,
    seed: int,
    taps: Taps,
    mode: Mode,
    fast: bool,
    device: str,
    layers: bool,
    as_json: bool,
) -> None:
    """Score one untrained MODEL and show what its score is made of.

    MODEL is FILE.py:factory (a function that returns an nn.Module), or any name that `naswot list models` shows.

    \b
    Examples:
      naswot score my_models.py:make_net
      naswot score my_models.py:make_net --data cifar10 --data-root ~/data --batch-size 128
      naswot score 'nasbench201:|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|'
      naswot score hf:vit --size 224 --json
    """
    from naswot.cli._loading import batch_for
    from naswot.data import get_data
    from naswot.models import load_model
    from naswot.scoring import explain

    images = get_data(data, root=data_root, size=size)
    network = load_model(model, n_classes=images.n_classes, size=images.shape[-1], seed=seed)
    network.to(shared.checked_device(device))
    batch = batch_for(network, images, batch_size, seed)
    details = explain(network, batch, seed=seed, fast=fast, taps=taps, mode=mode)
    if as_json:
        record = dataclasses.asdict(details)
        record.update(for_json({k: v for k, v in record.items() if isinstance(v, float)}))
        click.echo(json.dumps({"model": model, **record}, indent=2))
        return
    for note in images.notes:
        click.echo(f"note: {note}", err=True)
    _print(model, details, layers)


def _print(model: str, details: ScoreDetails, layers: bool) -> None:
    from rich.table import Table

    console = shared.console()
    if layers:
        table = Table("module", "activation", "units", box=None, pad_edge=False)
        for layer in details.layers:
            table.add_row(layer.module, layer.function, f"{layer.n_units:,}")
        console.print(table, "")
    console.print(
        f"{model}: {details.n_images} images, {details.n_units:,} units", highlight=False, markup=False, soft_wrap=True
    )
    shown = f"{details.log_det:.4f}" if math.isfinite(details.log_det) else f"-inf ({details.reason})"
    console.print(f"  score      log|K_H|       {shown}")
    console.print(f"  size       N log N_A      {details.size_term:.4f}")
    if math.isfinite(details.log_det):
        console.print(f"  diversity  log|K_H / N_A| {details.diversity_term:.4f}")
    if details.untapped:
        met = ", ".join(f"{name} {n}x" for name, n in details.untapped.items())
        console.print(f"  not tapped {met}", highlight=False, markup=False, soft_wrap=True)
