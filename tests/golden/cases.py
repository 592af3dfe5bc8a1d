"""The networks of the goldens: weights and images by a formula, in float64, so that no machine rounds a sign away."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import torch
from reference.tiny import CellNetwork, images, mlp, plain_convnet, set_weights, wave
from torch import nn

import naswot
from naswot.errors import InputError
from naswot.measuring import run_proxies
from naswot.proxy import get_proxy, list_proxies
from naswot.testing.networks import VisionTransformer
from naswot.types import Batch

FILE = Path(__file__).with_name("scores.json")
CELL = (3, 2, 0, 1, 4, 3)


def _nasbench201() -> nn.Module:
    return naswot.get_space("nasbench201").build(CELL, width=4, n_cells=1, n_classes=5)


def networks() -> dict[str, tuple[nn.Module, Batch]]:
    """Name to (model, batch); eight images each, classes in turn."""
    targets = torch.arange(8) % 4
    made = {
        "cell_network": (CellNetwork(), images(8)),
        "plain_convnet": (plain_convnet(), images(8)),
        "mlp": (mlp(), wave(8, 10)),
        "nasbench201_cell": (_nasbench201(), images(8)),
        "vision_transformer": (VisionTransformer().eval(), images(8)),
    }
    return {name: (set_weights(model).double(), Batch(x.double(), targets)) for name, (model, x) in made.items()}


def compute() -> dict[str, Any]:
    """The goldens as they are now: integer kernels by network, values by proxy and network."""
    cases = networks()
    kernels = {name: naswot.hamming_kernel(model, batch).long().tolist() for name, (model, batch) in cases.items()}
    scores: dict[str, Any] = {}
    for name in list_proxies():
        proxy = get_proxy(name)
        values = {}
        for case, (model, batch) in cases.items():
            with contextlib.suppress(InputError):  # not made for such a network
                values[case] = repr(run_proxies(model, batch, [proxy]).scores[name])
        scores[name] = {"version": proxy.version, "values": values}
    return {"kernels": kernels, "scores": scores}


def load() -> dict[str, Any]:
    """The goldens as they are kept."""
    kept: dict[str, Any] = json.loads(FILE.read_text())
    return kept


def save(goldens: dict[str, Any]) -> None:
    """Write them, one line for each row of a kernel."""
    kernels = {
        name: "[\n" + ",\n".join("   " + json.dumps(row) for row in rows) + "\n  ]"
        for name, rows in goldens["kernels"].items()
    }
    body = ",\n".join(f'  "{name}": {rows}' for name, rows in kernels.items())
    scores = json.dumps(goldens["scores"], indent=1, sort_keys=True).replace("\n", "\n ")
    FILE.write_text(f'{{\n "kernels": {{\n{body}\n }},\n "scores": {scores}\n}}\n')
