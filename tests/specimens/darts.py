"""NAS-Bench-301, and the scores of NAS-Bench-Suite-Zero on its space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from specimens._base import of_benchmark, values, write_json, write_parquet
from specimens.tables import zero, zero_shard

_CELL = [(0, 0), (1, 5), (1, 1), (0, 1), (1, 3), (0, 3), (1, 3), (3, 2)]
COMPACT = [str([_CELL, _CELL]), str([_CELL, [(0, 3), (1, 3)] * 4])]


def training(budget: int) -> dict[str, Any]:
    """A result of NAS-Bench-301; edges are numbered over all nodes."""
    config: dict[str, Any] = {"layers": 8, "init_channels": 32}
    for cell in ("normal", "reduce"):
        config |= {f"inputs_node_{cell}_{node}": "0_1" for node in (3, 4, 5)}
        config |= {f"edge_{cell}_{edge}": "skip_connect" for edge in range(14)}
    last = {"val_accuracy": 93.5, "model_parameters": 1e6, "epochs": budget}
    named = {f"NetworkSelectorDatasetInfo:darts:{name}": value for name, value in config.items()}
    return {
        "optimized_hyperparamater_config": named,
        "budget": budget,
        "info": [last],
        "test_accuracy": 93.25,
        "runtime": 5000,
    }


@of_benchmark("nasbench301", "json")
def nasbench301_file(folder: Path) -> Path:
    return write_json(folder / "results_0.json", training(98))


@of_benchmark("nasbench301", "json in folders")
def nasbench301_folder(folder: Path) -> Path:
    for number in range(2):
        (folder / "nb_301_v13" / f"part_{number}").mkdir(parents=True)
        write_json(folder / "nb_301_v13" / f"part_{number}" / "results_0.json", training(100))
    return folder / "nb_301_v13"


@of_benchmark("nasbench301", "parquet")
def nasbench301_parquet(folder: Path) -> Path:
    return write_parquet(folder / "nb301_725_archs_x.parquet", arch=COMPACT, val_accuracy=values(2, 90.0))


of_benchmark("suite_zero_darts", "json")(lambda folder: zero(folder, "nasbench301", COMPACT, "cifar10"))
of_benchmark("suite_zero_darts", "shard")(lambda folder: zero_shard(folder, "nasbench301", COMPACT, "cifar10"))
