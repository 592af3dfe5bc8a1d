"""NATS-Bench, the size search space: Dong et al., TPAMI 2021, arXiv:2009.00437.

Files of github.com/D-X-Y/NATS-Bench. ``flops`` are MACs plus the bias of the classifier.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench_adapters._nats import read_folder
from naswot.benchmark import Table, register_benchmark
from naswot.space import get_space


@register_benchmark(
    space="natsbench_sss",
    files=("NATS-sss-*-simple",),
    reference="Dong et al., NATS-Bench, TPAMI 2021, arXiv:2009.00437",
)
def natsbench_sss(path: Path) -> Table:
    """NATS-Bench, size search space: 32,768 networks trained on three data sets, up to three times.

    Reads the official folder. Data sets: ``cifar10`` (trained on all 50,000 images), ``cifar10-valid`` (on half of
    them, validated on the other), ``cifar100``, ``ImageNet16-120``; 1, 12 (three trainings) and 90 epochs.
    """
    return replace(read_folder(path, get_space("natsbench_sss")), images={"data": "cifar10"})
