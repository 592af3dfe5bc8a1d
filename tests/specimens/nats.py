"""NAS-Bench-201 and NATS-Bench."""

from __future__ import annotations

import bz2
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from specimens._base import of_benchmark, strings, values, write_parquet


def run(epochs: int) -> dict[str, Any]:
    """One training, as NATS-Bench and NAS-Bench-201 record it."""
    tests = {f"{split}@{epochs - 1}": np.float64(50.5) for split in ("ori-test", "x-valid", "x-test")}
    seconds = dict.fromkeys(range(epochs), 1.5)
    return {"epochs": epochs, "eval_acc1es": tests, "train_times": seconds, "params": 0.073, "flop": 7.78}


def record(epochs: int) -> dict[str, Any]:
    return {"all_results": {("cifar10-valid", 777): run(epochs), ("cifar100", 888): run(epochs)}, "arch_index": 0}


def single() -> dict[str, Any]:
    archs = strings("nasbench201", 4)
    infos = {number: {"less": record(3), "full": record(5)} for number in range(4)}
    return {"meta_archs": archs, "total_archs": 4, "arch2infos": infos, "evaluated_indexes": list(range(4))}


def nats_folder(path: Path, archs: list[str], lengths: dict[str, int]) -> Path:
    path.mkdir()
    parts = {"meta": {"meta_archs": archs, "total_archs": len(archs)}}
    parts |= {f"{n:06}": {name: record(epochs) for name, epochs in lengths.items()} for n in range(len(archs) - 1)}
    for name, part in parts.items():
        (path / f"{name}.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps(part, protocol=4)))
    return path


@of_benchmark("nasbench201", "folder")
def topologies(folder: Path) -> Path:
    return nats_folder(folder / "NATS-tss-v1_0-3ffb9-simple", strings("nasbench201", 4), {"12": 3, "200": 5})


@of_benchmark("natsbench_sss", "folder")
def sizes(folder: Path) -> Path:
    archs = ["64:64:64:64:64", "8:16:24:32:40", "8:8:8:8:8"]
    return nats_folder(folder / "NATS-sss-v1_0-50262-simple", archs, {"01": 1, "12": 3, "90": 5})


@of_benchmark("nasbench201", "bz2 pickle")
def nats_file(folder: Path) -> Path:
    path = folder / "NATS-tss-v1_0.pickle.pbz2"
    path.write_bytes(bz2.compress(pickle.dumps(single(), protocol=4)))
    return path


@of_benchmark("nasbench201", "torch")
def nasbench201_file(folder: Path) -> Path:
    torch.save(single(), folder / "NAS-Bench-201-v1_1.pth")
    return folder / "NAS-Bench-201-v1_1.pth"


@of_benchmark("nasbench201", "old torch")
def nasbench201_old_file(folder: Path) -> Path:
    torch.save(single(), folder / "NAS-Bench-201-v1_0.pth", _use_new_zipfile_serialization=False)
    return folder / "NAS-Bench-201-v1_0.pth"


@of_benchmark("nasbench201", "parquet")
def nasbench201_parquet(folder: Path) -> Path:
    names = ("c10_test_e200_mean", "c10_test_e200_seed0", "c100_val_e12", "params_M_c10")
    path = folder / "nb201_accuracy.parquet"
    return write_parquet(path, arch_str=strings("nasbench201", 30), **{name: values(30) for name in names})
