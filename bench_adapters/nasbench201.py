"""NAS-Bench-201, which NATS-Bench calls its topology search space.

Papers: Dong and Yang, ICLR 2020, arXiv:2001.00326; Dong et al., NATS-Bench, TPAMI 2021, arXiv:2009.00437.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench_adapters._io import check_digest, read_parquet, read_torch, with_keys
from bench_adapters._nats import columns_of, read_folder, results_of
from naswot.benchmark import Column, Table, register_benchmark
from naswot.data._safe_pickle import load_pickle
from naswot.space import get_space

_SHORT = {"c10": "cifar10", "c100": "cifar100", "in16": "ImageNet16-120", "c10valid": "cifar10-valid"}
_IMAGES = {"data": "cifar10"}  # of the three data sets the one that most people have
_COMPACT = re.compile(r"(c10valid|c100|c10|in16)_(test|val)_e(12|200)(?:_mean|_seed([0-2]))?")


@register_benchmark(
    space="nasbench201",
    files=("NATS-tss-*-simple", "NATS-tss-*.pickle.pbz2", "NAS-Bench-201-v1_*.pth", "nb201_accuracy.parquet"),
    folders=("nasbench201",),
    reference="Dong & Yang, NAS-Bench-201, ICLR 2020, arXiv:2001.00326; NATS-Bench, TPAMI 2021, arXiv:2009.00437",
)
def nasbench201(path: Path) -> Table:
    """NAS-Bench-201: 15,625 cells trained on three data sets, up to three times.

    Reads the folder or single file of NATS-Bench's topology space, the single file of NAS-Bench-201, and a compact
    table with columns such as ``c10_test_e200_mean``. Data sets: ``cifar10`` (trained on all 50,000 images),
    ``cifar10-valid`` (on half of them, validated on the other), ``cifar100``, ``ImageNet16-120``; 12 and 200 epochs.
    """
    if path.is_dir():
        return replace(read_folder(path, get_space("nasbench201")), images=_IMAGES)
    return _compact(path) if path.suffix == ".parquet" else _single_file(path)


def _compact(path: Path) -> Table:
    frame = read_parquet(path, ["arch_str"])
    space = get_space("nasbench201")
    columns = {}
    for name, values in frame.items():
        found = _COMPACT.fullmatch(name)
        if found:
            short, split, epochs, seed = found.groups()
            metric = {"test": "test_accuracy", "val": "valid_accuracy"}[split]
            columns[Column(_SHORT[short], metric, int(epochs), None if seed is None else int(seed))] = values
    if "params_M_c10" in frame:
        columns[Column("cifar10", "params")] = np.round(1e6 * frame["params_M_c10"])
    return Table([space.parse(arch) for arch in frame["arch_str"]], columns, images=_IMAGES)


def _single_file(path: Path) -> Table:
    check_digest(path)
    content = read_torch(path) if path.suffix == ".pth" else load_pickle(path)
    with_keys(path, content, ["meta_archs", "arch2infos"])
    space = get_space("nasbench201")
    numbers = sorted(content["arch2infos"])
    rows = (results_of(content["arch2infos"][n].values()) for n in numbers)
    archs = dict(enumerate(content["meta_archs"]))
    genotypes = [space.parse(archs[n]) for n in numbers]
    return Table(genotypes, columns_of(rows, len(numbers)), images=_IMAGES)
