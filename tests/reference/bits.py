"""Prints scores to the last bit, to be compared with another process: ``python -m reference.bits``."""

from __future__ import annotations

import json

import torch
from reference.tiny import CellNetwork, images, set_weights

import naswot


def bits() -> dict[str, object]:
    """Scores as hexadecimal floats."""
    torch.set_num_threads(1)
    model, x = set_weights(CellNetwork()), images(12)
    lazy = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(64), torch.nn.Dropout(), torch.nn.ReLU())
    batch = naswot.Batch(x, torch.arange(12) % 5)
    names = naswot.list_proxies(without=["dss", "head_confidence", "head_importance"])  # made for transformers
    return {
        "score": naswot.score(model, x).hex(),
        "lazy": naswot.score(lazy, x, mode="as_is", seed=11).hex(),
        "measured": {name: value.hex() for name, value in naswot.measure(model, batch, names).items()},
        "untapped": [*naswot.explain(model, x).untapped],
    }


if __name__ == "__main__":
    print(json.dumps(bits()))
