"""NAS-Bench-Macro: Su et al., CVPR 2021, arXiv:2103.11922; file of github.com/xiusu/NAS-Bench-Macro."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench_adapters._io import read_json, read_parquet, with_keys
from naswot.benchmark import Column, Table, register_benchmark
from naswot.space import get_space

_TRAININGS = 3
_KEYS = ("test_acc", "params", "flops")


@register_benchmark(
    space="nasbench_macro",
    files=("nas-bench-macro_cifar10.json", "nasbench_macro_cifar10.parquet"),
    reference="Su et al., CVPR 2021, arXiv:2103.11922",
)
def nasbench_macro(path: Path) -> Table:
    """NAS-Bench-Macro: 6,561 MobileNet-like networks trained on CIFAR-10 three times.

    Reads the official JSON and a compact table with columns ``arch``, ``test_acc_0`` and so on.
    """
    if path.suffix == ".parquet":
        names = [f"test_acc_{seed}" for seed in range(_TRAININGS)]
        frame = read_parquet(path, ["arch", "params", "flops", *names])
        archs, params, flops = list(frame["arch"]), frame["params"], frame["flops"]
        accuracies = np.stack([frame[name] for name in names], axis=1)
    else:
        content = with_keys(path, read_json(path), ())
        archs, rows = list(content), [with_keys(path, row, _KEYS) for row in content.values()]
        params, flops = (np.array([row[key] for row in rows], dtype=np.float64) for key in ("params", "flops"))
        accuracies = np.array([row["test_acc"] for row in rows], dtype=np.float64)
    space = get_space("nasbench_macro")
    columns = {Column("cifar10", "test_accuracy", seed=seed): accuracies[:, seed] for seed in range(_TRAININGS)}
    columns |= {Column("cifar10", "params"): params, Column("cifar10", "flops"): flops}
    return Table([space.parse(arch) for arch in archs], columns, images={"data": "cifar10"})
