"""What ``naswot benchmark build`` writes."""

from __future__ import annotations

from pathlib import Path

from naswot.benchmark import Benchmark, Column, Table
from naswot.benchmark_csv import write_csv
from naswot.space import get_space
from specimens._base import cells, of_benchmark, values


@of_benchmark("nasbench201_digits", "csv.gz")
def built(folder: Path) -> Path:
    columns = {Column("digits", "test_accuracy", 5, seed): values(12) for seed in (0, 1)}
    table = Table(cells("nasbench201", 12), columns, {"width": 4}, {"data": "digits"})
    path = folder / "nasbench201_digits.naswot.csv.gz"
    write_csv(Benchmark("nasbench201_digits", get_space("nasbench201"), table), path, {"date": "2026-11-22"})
    return path
