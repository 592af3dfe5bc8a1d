"""Every installed benchmark keeps the contract on the real files; a new adapter is covered without an edit here."""

from __future__ import annotations

import pytest

from naswot.benchmark import Benchmark, benchmarks, list_benchmarks
from naswot.errors import DataError
from naswot.testing.benchmark_contract import BenchmarkContract

_opened: dict[str, Benchmark] = {}


@pytest.mark.parametrize("name", list_benchmarks())
class TestBenchmarks(BenchmarkContract):
    """By name, in sorted order."""

    @pytest.fixture
    def adapter(self, name):
        return benchmarks.get(name)

    @pytest.fixture
    def benchmark(self, adapter, data_root):
        if adapter.name not in _opened:
            try:
                _opened[adapter.name] = adapter.open(data_root)
            except DataError as error:
                pytest.skip(str(error))
        return _opened[adapter.name]
