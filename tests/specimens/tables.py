"""NAS-Bench-Macro, TransNAS-Bench-101, HW-NAS-Bench, NAS-Bench-Suite-Zero, and anyone's tables."""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path

import torch

from naswot.tables import read_table
from specimens._base import SPECIMENS, Specimen, of_benchmark, strings, values, write_json, write_parquet

# ---- NAS-Bench-Macro, TransNAS-Bench-101


@of_benchmark("nasbench_macro", "json")
def macro_json(folder: Path) -> Path:
    rows = {arch: {"test_acc": [90.1, 90.2, 90.3], "mean_acc": 90.2, "params": 1.5e6, "flops": 1e8} for arch in MACRO}
    return write_json(folder / "nas-bench-macro_cifar10.json", rows)


@of_benchmark("nasbench_macro", "parquet")
def macro_parquet(folder: Path) -> Path:
    columns = {name: values(len(MACRO)) for name in ("test_acc_0", "test_acc_1", "test_acc_2", "params", "flops")}
    return write_parquet(folder / "nasbench_macro_cifar10.parquet", arch=MACRO, **columns)


MACRO = strings("nasbench_macro", 20)
TRANS = strings("transnasbench101_micro", 6)
SCORES = {"top1": 40.0, "neg_loss": -0.6, "mIoU": 20.0, "acc": 90.0, "ssim": 0.5, "loss": 1.0}
TASKS = ("class_object", "class_scene", "jigsaw", "room_layout", "segmentsemantic", "normal", "autoencoder")


@of_benchmark("transnasbench101_micro", "torch")
def trans_file(folder: Path) -> Path:
    """The official layout: data, search space, architecture, task, metrics by epoch."""
    metrics = {
        f"{split}_{name}": [score - 0.2, score, score - 0.1]
        for split in ("train", "valid", "test")
        for name, score in SCORES.items()
    }
    task = {"total_epochs": 3, "model_info": {"model_params": 1.0}, "metrics": metrics}
    data = {"micro": {arch: dict.fromkeys(TASKS, task) for arch in TRANS}, "macro": {"64-1111-basic": {}}}
    names = {name: list(metrics) for name in TASKS}
    content = {"metrics_dict": names, "info_names": ["model_params"], "task_list": list(TASKS), "data": data}
    torch.save(content, folder / "transnas-bench_v10141024.pth")
    return folder / "transnas-bench_v10141024.pth"


@of_benchmark("transnasbench101_micro", "parquet")
def trans_parquet(folder: Path) -> Path:
    columns = {f"{task}_{kind}": values(len(TRANS)) for task in TASKS for kind in ("best", "valfinal_naslib")}
    return write_parquet(folder / "tnb101_micro_performance.parquet", arch_str=TRANS, **columns)


# ---- HW-NAS-Bench

HW_METRICS = (
    *("edgegpu_latency", "edgegpu_energy", "raspi4_latency", "edgetpu_latency", "pixel3_latency", "eyeriss_latency"),
    *("eyeriss_energy", "eyeriss_arithmetic_intensity", "fpga_latency", "fpga_energy"),
)


@of_benchmark("hwnasbench", "pickle")
def hw_pickle(folder: Path) -> Path:
    figures = values(15_625, 1.0).tolist()  # one list for all keys: a pickle stores it once
    tables = {name: dict.fromkeys(HW_METRICS, figures) for name in ("cifar10", "cifar100", "ImageNet16-120")}
    content = {"nasbench201": tables, "fbnet": {"edgegpu_latency": {"FC_Cin1984_Cout1000": 0.1}}}
    (folder / "HW-NAS-Bench-v1_0.pickle").write_bytes(pickle.dumps(content, protocol=2))
    return folder / "HW-NAS-Bench-v1_0.pickle"


@of_benchmark("hwnasbench", "parquet")
def hw_parquet(folder: Path) -> Path:
    columns = {name: values(30) for name in HW_METRICS}
    return write_parquet(folder / "hwnasbench_cifar10.parquet", arch_str=strings("nasbench201", 30), **columns)


@of_benchmark("hwnasbench", "parquet of devices")
def hw_devices(folder: Path) -> Path:
    columns = {f"{device}_ms": values(30) for device in ("titan_rtx_256", "pixel2")}
    return write_parquet(folder / "nb201_cifar10_latency.parquet", arch_str=strings("nasbench201", 30), **columns)


@of_benchmark("hwnasbench", "torch")
def hw_device(folder: Path) -> Path:
    torch.save(values(15_625, 1.0).tolist(), folder / "eyeriss.pt")
    return folder / "eyeriss.pt"


# ---- NAS-Bench-Suite-Zero

ZERO = {"idx": "7", "arch": "", "nwot": {"score": 400.5, "time": 0.5}, "params": {"score": 0.5}, "val_accuracy": 85.2}


def zero(folder: Path, name: str, keys: list[str], dataset: str) -> Path:
    return write_json(folder / f"zc_{name}.json", {dataset: {key: {**ZERO, "arch": key} for key in keys}})


def zero_shard(folder: Path, name: str, keys: list[str], dataset: str) -> Path:
    rows = [{**ZERO, "arch": key} for key in keys]
    return write_json(folder / f"benchmark--{name}--{dataset}--0.json", rows)


ZERO_SPACES = {
    "suite_zero_nasbench201": ("nasbench201", ["(0, 2, 3, 2, 3, 1)", "(4, 4, 4, 1, 2, 0)"], "cifar10"),
    "suite_zero_transnasbench101_micro": (
        "transbench101_micro",
        ["(1, 0, 0, 2, 1, 0)", "(3, 3, 3, 3, 2, 1)"],
        "jigsaw",
    ),
}
for reader, about in ZERO_SPACES.items():
    of_benchmark(reader, "json")(lambda folder, about=about: zero(folder, *about))
    of_benchmark(reader, "shard")(lambda folder, about=about: zero_shard(folder, *about))


# ---- anyone's tables


def read_own(path: Path) -> object:
    table = read_table(path, space="nasbench201")
    return [table[column] for column in table.columns]


def write_csv(folder: Path, name: str, compress: Callable[[bytes], bytes]) -> Path:
    rows = [f"{arch},{number}.5,{10 * number}" for number, arch in enumerate(strings("nasbench201", 8))]
    text = "\n".join(["# trained here", "arch,cifar10/test_accuracy/e200/s1,params", *rows])
    (folder / name).write_bytes(compress(text.encode()))
    return folder / name


def own_parquet(folder: Path) -> Path:
    return write_parquet(folder / "mine.parquet", arch=strings("nasbench201", 8), accuracy=values(8))


SPECIMENS += [
    Specimen("tables", "csv", lambda folder: write_csv(folder, "mine.csv", bytes), read_own),
    Specimen("tables", "csv.gz", lambda folder: write_csv(folder, "mine.csv.gz", gzip.compress), read_own),
    Specimen("tables", "parquet", own_parquet, read_own),
]
