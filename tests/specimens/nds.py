"""Network Design Spaces: one small file of two trainings for each adapter, of the form its space has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from naswot.benchmark import benchmarks
from specimens._base import of_benchmark, write_json

CELLS = {"nds_darts": (4, True), "nds_enas": (5, False), "nds_nasnet": (5, False), "nds_pnas": (5, True)}
CELLS |= {"nds_amoeba": (5, False)}
"""Nodes of a cell, and whether all of them are its output."""
BLOCKS = {"vanilla": "double_plain_block", "resnet": "res_basic_block", "resnext": "res_bottleneck_block"}


def cells(space: str, width: int) -> dict[str, Any]:
    n_nodes, all_out = CELLS[space]
    edges = [["skip_connect", source] for node in range(2, 2 + n_nodes) for source in (node - 1, node - 2)]
    out = list(range(2, 2 + n_nodes)) if all_out else [1 + n_nodes]
    parts = {"normal": edges, "normal_concat": out, "reduce": edges, "reduce_concat": out}
    return {"aux": False, "depth": 14, "drop_prob": 0.0, "genotype": parts, "width": width}


def stages(space: str, width: int, on_imagenet: bool) -> dict[str, Any]:
    block = BLOCKS[space.split("_")[1]]
    if block == "res_bottleneck_block":
        net = {"ds": [1, 2, 2, 2], "ws": [64 if on_imagenet else 16, 64, 64 if width == 32 else 256, 128]}
        net |= {"ss": [8 if on_imagenet else 1, 1, 2, 2], "bot_muls": [1.0, 0.25, 0.5, 0.25], "num_gs": [1, 2, 4, 2]}
    elif on_imagenet:
        net = {"ds": [1, 5, 2, 3, 10], "ss": [4, 1, 2, 2, 2], "ws": [32, 32, 32, 4 * width, 128]}
    else:
        net = {"ds": [1, 2, 3, 3], "ss": [1, 1, 2, 2], "ws": [16, 32, 4 * width, 128]}
    return {"bot_muls": [], "num_gs": [], **net, "block_type": block}


def write(folder: Path, space: str, file: str) -> Path:
    def net(width: int) -> dict[str, Any]:
        return cells(space, width) if space in CELLS else stages(space, width, "_in" in file)

    training = {"optim": {"max_ep": 3}, "test_ep_top1": [40.0, 4.5, 5.0], "min_test_top1": 4.5, "rng_seed": 1}
    entries = [{**training, "net": net(width), "params": width, "flops": 9 * width} for width in (32, 48)]
    return write_json(folder / file, entries)


for name, adapter in benchmarks:
    if name.startswith("nds_"):
        of_benchmark(name, "json")(lambda folder, a=adapter: write(folder, a.space, a.files[0]))
