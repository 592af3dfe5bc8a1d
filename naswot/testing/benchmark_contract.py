"""The contract of a benchmark adapter: what every one keeps, whoever wrote it.

Example:
    A test file of a few lines covers a plug-in::

        from naswot.testing.benchmark_contract import BenchmarkContract
        class TestMine(BenchmarkContract):
            name = "my_benchmark"
            root = "folder/with/its/files"
"""

from __future__ import annotations

import math
import re
from typing import ClassVar

import numpy as np
import pytest

from naswot.benchmark import Adapter, Benchmark, Column, benchmarks
from naswot.errors import ArchitectureError, DataError, UnknownNameError
from naswot.seeding import numpy_generator


class BenchmarkContract:
    """Subclass with ``name`` and ``root``, or override the fixtures ``adapter`` and ``benchmark``."""

    name: ClassVar[str]
    root: ClassVar[str | None] = None
    n_queries: ClassVar[int] = 30

    @pytest.fixture
    def adapter(self) -> Adapter:
        """The adapter under test."""
        return benchmarks.get(self.name)

    @pytest.fixture
    def benchmark(self, adapter: Adapter) -> Benchmark:
        """What it reads."""
        return adapter.open(self.root)

    def test_declaration(self, adapter: Adapter) -> None:
        """Name, reference, summary and the files it reads."""
        assert re.fullmatch(r"[a-z][a-z0-9_]*", adapter.name)
        assert adapter.reference
        assert adapter.summary
        assert adapter.files

    def test_architectures_are_those_of_the_space(self, benchmark: Benchmark) -> None:
        """All distinct and valid; their strings read back."""
        genotypes = list(benchmark.genotypes())
        assert len(genotypes) == len(benchmark) == len(set(genotypes)) > 0
        for row in numpy_generator(0).integers(len(genotypes), size=self.n_queries):
            genotype = genotypes[row]
            assert genotype in benchmark
            assert benchmark.space.is_valid(genotype)
            assert benchmark.space.parse(benchmark.space.format(genotype)) == genotype

    def test_columns_and_queries_agree(self, benchmark: Benchmark) -> None:
        """A query is an entry of the column; every column has one entry for each architecture, and some are known."""
        genotypes = list(benchmark.genotypes())
        rows = numpy_generator(1).integers(len(genotypes), size=self.n_queries)
        for column in benchmark.columns:
            dataset, metric, epochs, seed = column
            values = benchmark[column]
            assert values.shape == (len(benchmark),)
            assert values.dtype == np.float64
            assert not np.isnan(values).all()
            assert np.array_equal(values, benchmark.column(dataset, metric, epochs=epochs, seed=seed), equal_nan=True)
            for row in rows:
                found = benchmark.query(genotypes[row], dataset=dataset, metric=metric, epochs=epochs, seed=seed)
                assert found == values[row] or (math.isnan(found) and math.isnan(values[row]))

    def test_accuracies_are_percent_and_counts_positive(self, benchmark: Benchmark) -> None:
        """So that figures of several benchmarks may stand in one table."""
        for column in benchmark.columns:
            values = benchmark[column]
            known = values[~np.isnan(values)]
            if column.metric.endswith("accuracy"):
                assert 0 <= known.min() <= known.max() <= 100
                assert known.max() > 1
            if column.metric in ("params", "flops", "train_seconds"):
                assert known.min() >= 0

    def test_no_seed_means_the_mean_over_seeds(self, benchmark: Benchmark) -> None:
        """Over those that are known of each architecture, where the source does not give a mean of its own."""
        for dataset, metric, epochs, _ in benchmark.columns:
            seeds = benchmark.seeds(dataset, metric, epochs=epochs)
            if seeds and Column(dataset, metric, epochs) not in benchmark.columns:
                each = np.stack([benchmark[Column(dataset, metric, epochs, seed)] for seed in seeds])
                mean = benchmark.column(dataset, metric, epochs=epochs)
                known = ~np.isnan(mean)
                assert (known == ~np.isnan(each).all(axis=0)).all()
                assert np.allclose(mean[known], np.nanmean(each[:, known], axis=0))

    def test_what_is_not_there_is_refused_by_name(self, benchmark: Benchmark) -> None:
        """With what there is instead."""
        first = benchmark.columns[0]
        with pytest.raises(UnknownNameError, match=re.escape(benchmark.datasets[0])):
            benchmark.column("no such data set")
        with pytest.raises(UnknownNameError, match=first.metric):
            benchmark.column(first.dataset, "no such metric")
        with pytest.raises(DataError, match="there are"):
            benchmark.column(first.dataset, first.metric, epochs=first.epochs, seed=10**9)
        with pytest.raises(DataError, match="there are"):
            benchmark.column(first.dataset, first.metric, epochs=10**9)
        with pytest.raises(ArchitectureError):
            benchmark.query((10**6,), dataset=first.dataset, metric=first.metric)
