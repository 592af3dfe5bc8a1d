"""The embedded benchmark: NAS-Bench-201 cells trained by this project on the digits that scikit-learn ships.

``naswot benchmark build`` with its defaults makes the table again; its comment lines tell versions and all options. The
cells are those of Dong and Yang, ICLR 2020, arXiv:2001.00326; the digits those of Alpaydin and Kaynak, Kybernetika 34,
1998.
"""

from __future__ import annotations

from pathlib import Path

from naswot.benchmark import Table, register_benchmark
from naswot.benchmark_csv import read_csv


@register_benchmark(
    space="nasbench201",
    embedded="tables/nasbench201_digits.naswot.csv.gz",
    reference="this project; cells of NAS-Bench-201 (arXiv:2001.00326), digits of Alpaydin & Kaynak 1998",
)
def nasbench201_digits(path: Path) -> Table:
    """NAS-Bench-201 on noisy digits, embedded: 640 small networks trained twice for a few epochs.

    No two of them compute the same function (the classes of ``space.exact``); they were drawn uniformly. The networks
    are narrow and shallow (``build``), the images have noise as large as the digits themselves (``images``), so that a
    short training tells cells apart. The two trainings differ in initialisation and order of the images; training
    images, noise and the 359 test images are the same. ``train_seconds`` are seconds of the processor.
    """
    return read_csv(path)
