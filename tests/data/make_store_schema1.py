"""Writes store_schema1.sqlite, the result store of schema 1 that must load in every later version.

It was run once, with the version that introduced the schema; it refuses to run with any other schema.
"""

import math
from pathlib import Path

from naswot._store_sqlite import SCHEMA
from naswot.store import ResultStore
from naswot.types import Evaluation

OPTIONS = {"space": "nasbench201", "batch_size": 64, "taps": "all", "proxies": {"snip": {"mode": "train"}}}
ENVIRONMENT = {"naswot": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "device": "cpu"}
EVALUATIONS = [
    Evaluation((0, 1), "a|0", {"naswot": 1681.3719843, "snip": -0.0}, {"build": 0.5, "score": 0.125}, 0),
    Evaluation((0, 1), "a|0", {"naswot": 0.1 + 0.2, "snip": 5e-324}, {"build": 0.25}, 0, repeat=1),
    Evaluation((2, 3), "b|é", {"naswot": -math.inf}, {}, 0, 0, {"naswot": "equal codes", "snip": "no gradient"}),
    Evaluation((4,), "c", {}, {"build": 1.0}, 0, error="ModelError: out of memory"),
]

if __name__ == "__main__":
    if SCHEMA != 1:
        raise SystemExit(f"this script writes schema 1, but this naswot writes schema {SCHEMA}")
    path = Path(__file__).with_name("store_schema1.sqlite")
    path.unlink(missing_ok=True)
    with ResultStore(path, options=OPTIONS, environment=ENVIRONMENT) as store:
        for evaluation in EVALUATIONS:
            store.append(evaluation)
