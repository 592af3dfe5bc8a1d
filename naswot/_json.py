"""Results as JSON, which knows neither NaN nor infinity."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def for_json(value: Any) -> Any:
    """The same with null for numbers that are not finite, within mappings and sequences too."""
    if isinstance(value, Mapping):
        return {key: for_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [for_json(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write a value as a readable file."""
    path.write_text(json.dumps(for_json(value), indent=2, allow_nan=False) + "\n", encoding="utf-8")
