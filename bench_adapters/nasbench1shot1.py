"""NAS-Bench-1Shot1: Zela, Siems & Hutter, ICLR 2020, arXiv:2001.10422; results are those of NAS-Bench-101's files."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from bench_adapters._nasbench101 import FILES, read_table
from naswot.benchmark import Benchmark, Table, register_benchmark
from naswot.errors import DataError
from naswot.space import get_space
from naswot.spaces import nasbench1shot1

_REFERENCE: Final = "Zela, Siems & Hutter, NAS-Bench-1Shot1, ICLR 2020, arXiv:2001.10422"
_FOLDERS: Final = ("nasbench101", "nasbench101/original")


@register_benchmark(space="nasbench1shot1_1", files=FILES, folders=_FOLDERS, reference=_REFERENCE)
def nasbench1shot1_1(path: Path) -> Table:
    """NAS-Bench-1Shot1, space 1: its 2,685 cells in NAS-Bench-101, from the files of that."""
    return _part(path, nasbench1shot1.NASBench1Shot1Space1())


@register_benchmark(space="nasbench1shot1_2", files=FILES, folders=_FOLDERS, reference=_REFERENCE)
def nasbench1shot1_2(path: Path) -> Table:
    """NAS-Bench-1Shot1, space 2: its 7,773 cells in NAS-Bench-101, from the files of that."""
    return _part(path, nasbench1shot1.NASBench1Shot1Space2())


@register_benchmark(space="nasbench1shot1_3", files=FILES, folders=_FOLDERS, reference=_REFERENCE)
def nasbench1shot1_3(path: Path) -> Table:
    """NAS-Bench-1Shot1, space 3: its 55,854 cells in NAS-Bench-101, from the files of that."""
    return _part(path, nasbench1shot1.NASBench1Shot1Space3())


def _part(path: Path, space: nasbench1shot1.NASBench1Shot1) -> Table:
    """One genotype for each cell of the space that the file holds."""
    whole = Benchmark("nasbench101", get_space("nasbench101"), read_table(path), source=str(path))
    places = ((genotype, whole.row(space.to_nasbench101(genotype))) for genotype in space.distinct())
    held = [(genotype, row) for genotype, row in places if row is not None]
    if not held:
        raise DataError(f"{path} holds no cell of {space.name}")
    rows = np.array([row for _, row in held])
    genotypes = np.array([genotype for genotype, _ in held], dtype=np.uint8)
    return Table(genotypes, {column: whole[column][rows] for column in whole.columns}, images={"data": "cifar10"})
