"""HW-NAS-Bench: Li et al., ICLR 2021, arXiv:2103.10584; devices of HELP: Lee et al., NeurIPS 2021.

Original code: github.com/GATECH-EIC/HW-NAS-Bench, github.com/HayeonLee/HELP. Tables that give no architectures follow
the official order of NAS-Bench-201.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bench_adapters._io import read_parquet, read_torch, with_keys
from bench_adapters._nats import official_order
from naswot.benchmark import Column, Table, register_benchmark
from naswot.data._safe_pickle import load_pickle
from naswot.errors import DataError
from naswot.space import get_space

_DATASETS = ("cifar10", "cifar100", "ImageNet16-120")
_METRICS = (
    "edgegpu_latency",
    "edgegpu_energy",
    "raspi4_latency",
    "edgetpu_latency",
    "pixel3_latency",
    "eyeriss_latency",
    "eyeriss_energy",
    "eyeriss_arithmetic_intensity",
    "fpga_latency",
    "fpga_energy",
)


@register_benchmark(
    space="nasbench201",
    files=("HW-NAS-Bench-v1_0.pickle", "hwnasbench_cifar10.parquet", "nb201_cifar10_latency.parquet", "*.pt"),
    folders=("hw_nas_bench", "hw_nas_bench/original"),
    reference="Li et al., ICLR 2021, arXiv:2103.10584; HELP: Lee et al., NeurIPS 2021, arXiv:2106.08630",
)
def hwnasbench(path: Path) -> Table:
    """HW-NAS-Bench: measured latency and energy of the 15,625 cells of NAS-Bench-201 on devices.

    Reads the official pickle (without the FBNet space), compact tables, and HELP's files of one device each, such as
    ``pixel2.pt``. Columns are ``DEVICE_latency`` in milliseconds and ``DEVICE_energy`` in millijoules, for one image or
    for a batch where the name ends in its size (``titan_rtx_256``). Values are as published: latencies of ``raspi4``
    and ``pixel3`` below 0.5 ms (some 250 cells each on CIFAR-10) are hundreds of times lower than those of isomorphic
    cells and most likely slips of the unit.
    """
    if path.suffix == ".parquet":
        return _compact(path)
    columns = _device(path) if path.suffix == ".pt" else _official(path)
    return Table(official_order(), columns)


def _official(path: Path) -> dict[Column, Any]:
    content = with_keys(path, load_pickle(path), ["nasbench201"])
    tables = with_keys(path, content["nasbench201"], _DATASETS)
    known = {dataset: with_keys(path, tables[dataset], _METRICS) for dataset in _DATASETS}
    return {Column(dataset, name): known[dataset][name] for dataset in _DATASETS for name in _METRICS}


def _device(path: Path) -> dict[Column, Any]:
    latencies = read_torch(path)
    if not isinstance(latencies, list):
        raise DataError(f"{path} holds a {type(latencies).__name__}, but a list of 15,625 latencies was expected")
    return {Column("cifar10", f"{path.stem}_latency"): latencies}


def _compact(path: Path) -> Table:
    frame = read_parquet(path, ["arch_str"])
    space = get_space("nasbench201")
    metrics = {name: re.sub("_ms$", "_latency", name) for name in frame if name in _METRICS or name.endswith("_ms")}
    columns = {Column("cifar10", metric): frame[name] for name, metric in metrics.items()}
    return Table([space.parse(arch) for arch in frame["arch_str"]], columns)
