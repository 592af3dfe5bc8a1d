"""NAS-Bench-101: Ying et al., ICML 2019, arXiv:1902.09635; files of github.com/google-research/nasbench."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench_adapters._nasbench101 import FILES, read_table
from naswot.benchmark import Table, register_benchmark


@register_benchmark(
    space="nasbench101", files=FILES, reference="Ying et al., NAS-Bench-101, ICML 2019, arXiv:1902.09635"
)
def nasbench101(path: Path) -> Table:
    """NAS-Bench-101: 423,624 cells trained on CIFAR-10 three times for each of 4, 12, 36 and 108 epochs.

    Reads the official record files (minutes; ``naswot benchmark convert`` writes a copy that opens in seconds), their
    JSON exports in the forms of arch2vec and CTNAS (means over the trainings of 108 epochs), and two compact tables.
    One has 1,250 cells with the test accuracy of one training, numbered 0. The other has mean test accuracy and
    parameters of all cells in the order of the official files, from which the cells are worked out in most of a minute;
    name it where both lie together, or convert it.
    """
    return replace(read_table(path), images={"data": "cifar10"})
