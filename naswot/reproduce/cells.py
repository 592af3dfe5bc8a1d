"""Which NAS-Bench-201 cells an experiment takes, and how accurate they are."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from naswot.errors import DataError, MissingPackageError
from naswot.reproduce.setting import Setting
from naswot.run import sample_distinct
from naswot.seeding import derive_seed, numpy_generator
from naswot.spaces.nasbench201 import NASBench201
from naswot.types import Genotype

_DRAWN = 400  # cells among which quantiles are taken where there are no accuracies


@dataclass(frozen=True)
class Cells:
    """Chosen cells, from the worst to the best.

    Args:
        genotypes: the cells.
        quality: (n,) what they are ordered by.
        dataset: whose accuracy that is, or ``-``.
        label: what ``quality`` is, for an axis.
        note: a sentence for the summary where it is no accuracy, else empty.
    """

    genotypes: list[Genotype]
    quality: NDArray[np.float64]
    dataset: str
    label: str
    note: str = ""


def cells_of_quality(setting: Setting, dataset: str) -> Cells:
    """All cells with their validation accuracy on a data set; where there is no benchmark, some with their parameters.

    The parameters stand in only where an experiment asks for networks from poor to good and uses no accuracy itself.
    """
    space = NASBench201()
    try:
        benchmark = setting.benchmark(space.name)
    except (DataError, MissingPackageError) as error:
        genotypes = sample_distinct(space, _DRAWN, seed=setting.seed)
        sizes = np.array([space.n_parameters(genotype) for genotype in genotypes], dtype=np.float64)
        note = f"Cells are chosen by parameters in the place of accuracy: {error}."
        return _sorted(genotypes, sizes, "-", "parameters", note)
    accuracy = benchmark.column(dataset, "valid_accuracy")
    known = ~np.isnan(accuracy)
    genotypes = [g for g, k in zip(benchmark.genotypes(), known, strict=True) if k]
    return _sorted(genotypes, accuracy[known], dataset, f"validation accuracy, {dataset} [%]", "")


def _sorted(genotypes: list[Genotype], quality: NDArray[np.float64], dataset: str, label: str, note: str) -> Cells:
    order = np.argsort(quality, kind="stable")
    return Cells([genotypes[i] for i in order], quality[order], dataset, label, note)


def take(cells: Cells, places: NDArray[np.int64]) -> Cells:
    """Those at ``places``, in that order."""
    return Cells([cells.genotypes[i] for i in places], cells.quality[places], cells.dataset, cells.label, cells.note)


def one_per_band(setting: Setting, cells: Cells, edges: NDArray[np.float64], name: str) -> Cells:
    """A random cell between each two quantiles of quality, such as those at 0.50, 0.55, ..., 1.

    Cells on which no score is defined, because no activation sees the image, are not taken.
    """
    rng = numpy_generator(derive_seed(setting.seed, "cells", name))
    space = NASBench201()
    ends = np.round(edges * len(cells.genotypes)).astype(np.int64)
    places = []
    for low, high in itertools.pairwise(ends):
        usable = [i for i in range(low, high) if not space.is_singular(cells.genotypes[i])]
        places.append(usable[int(rng.integers(len(usable)))])
    return take(cells, np.array(places, dtype=np.int64))
