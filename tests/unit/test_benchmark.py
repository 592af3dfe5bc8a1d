"""What a benchmark answers, how its files are found, and how it refuses what is not sound."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from naswot.benchmark import Adapter, Benchmark, Column, Table, get_benchmark, register_benchmark
from naswot.errors import ArchitectureError, DataError, OptionError, RegistrationError, UnknownNameError
from naswot.space import get_space
from naswot.testing.benchmark_contract import BenchmarkContract

SPACE = get_space("nasbench201")
GENOTYPES = [(0, 0, 0, 0, 0, 1), (1, 2, 3, 4, 0, 1), (3, 3, 3, 3, 3, 3)]
COLUMNS = {
    Column("cifar10", "test_accuracy", 12, 7): [10.0, 50.0, 60.0],
    Column("cifar10", "test_accuracy", 200, 7): [10.0, 91.0, 93.0],
    Column("cifar10", "test_accuracy", 200, 8): [12.0, math.nan, 94.0],
    Column("cifar10", "params"): [1e5, 5e5, 1e6],
    Column("cifar100", "valid_accuracy", 200): [1.0, 60.0, math.nan],
}


@pytest.fixture
def benchmark():
    about = {"build": {"width": 8}, "images": {"data": "digits", "noise": 1.0}}
    return Benchmark("mine", SPACE, Table(GENOTYPES, COLUMNS, **about), source="test")


class TestContract(BenchmarkContract):
    """A benchmark made in memory keeps it."""

    @pytest.fixture
    def adapter(self):
        return Adapter("mine", read, "nasbench201", ("*.txt",), ("mine",), "a paper")

    @pytest.fixture
    def benchmark(self):
        return Benchmark("mine", SPACE, Table(GENOTYPES, COLUMNS))


def read(path):
    """What a file says, line by line."""
    lines = path.read_text().split("\n")
    return Table(
        [SPACE.parse(line.split()[0]) for line in lines], {Column("d", "x"): [line.split()[1] for line in lines]}
    )


def same(values, expected):
    return np.array_equal(values, expected, equal_nan=True)


def test_the_longest_training_and_the_mean_over_known_seeds(benchmark):
    assert same(benchmark.column("cifar10"), [11.0, 91.0, 93.5])
    assert same(benchmark.column("cifar10", epochs=12), [10.0, 50.0, 60.0])
    assert same(benchmark.column("cifar10", seed=8), [12.0, math.nan, 94.0])
    assert same(benchmark.column("cifar100", "valid_accuracy"), [1.0, 60.0, math.nan])
    assert benchmark.query(GENOTYPES[1], dataset="cifar10") == 91.0
    assert benchmark.query(GENOTYPES[2], dataset="cifar10") == 93.5
    assert math.isnan(benchmark.query(GENOTYPES[1], dataset="cifar10", seed=8))


def test_what_it_tells_of_itself(benchmark):
    assert benchmark.datasets == ("cifar10", "cifar100")
    assert benchmark.metrics("cifar10") == ("test_accuracy", "params")
    assert benchmark.seeds("cifar10") == (7, 8)
    assert benchmark.seeds("cifar10", epochs=12) == (7,)
    assert (benchmark.build, benchmark.images) == ({"width": 8}, {"data": "digits", "noise": 1.0})
    assert Benchmark("mine", SPACE, Table(GENOTYPES, COLUMNS)).images == {}
    assert repr(benchmark) == "<Benchmark mine: 3 architectures of nasbench201, cifar10, cifar100>"
    assert (0, 0, 0, 0, 0, 0) not in benchmark


def test_refuses_what_it_does_not_hold(benchmark):
    with pytest.raises(UnknownNameError, match="did you mean 'cifar100'"):
        benchmark.column("cifar-100")
    with pytest.raises(UnknownNameError, match="metric of mine on cifar10 'test_acc'"):
        benchmark.query(GENOTYPES[0], dataset="cifar10", metric="test_acc")
    with pytest.raises(DataError, match="no training 9 of test_accuracy on cifar10; there are: 7, 8"):
        benchmark.query(GENOTYPES[0], dataset="cifar10", seed=9)
    with pytest.raises(DataError, match="after 90 epochs; there are: 12, 200"):
        benchmark.column("cifar10", epochs=90)
    with pytest.raises(ArchitectureError, match=r"mine has no result of \|none~0\|"):
        benchmark.query((0,) * 6, dataset="cifar10")
    with pytest.raises(ArchitectureError, match="no genotype of nasbench201"):
        benchmark.query((9,) * 6, dataset="cifar10")


@pytest.mark.parametrize(
    ("genotypes", "columns", "message"),
    [
        ([], {}, "expected genotypes"),
        ([(1, 2)], {}, "expected genotypes of nasbench201 as \\(n, 6\\)"),
        ([(0, 0, 0, 0, 0, 9)], {}, "outside the choices"),
        ([(0,) * 6, (0,) * 6], {}, "1 architectures occur twice"),
        ([(0,) * 6], {Column("d", "m"): [1.0, 2.0]}, "has shape"),
        ([(0,) * 6], {Column("d", "m"): [10**400]}, "does not hold numbers"),
        ([(0.5,) * 6], {Column("d", "m"): [1.0]}, "genotypes of integers, but got float64"),
        ([(0,) * 6], {}, "no column of results that mine knows"),
    ],
)
def test_refuses_a_table_that_contradicts_itself(genotypes, columns, message):
    with pytest.raises(DataError, match=message):
        Benchmark("mine", SPACE, Table(genotypes, columns))


@pytest.fixture
def adapter():
    return Adapter("mine", read, "nasbench201", ("best*.txt", "second.txt"), ("mine", "mine/original"), "a paper")


LINE = "|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2| 3.5"


def test_finds_the_best_file_wherever_it_lies(adapter, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"none of best\*\.txt, second\.txt was found in"):
        adapter.find(tmp_path)
    (tmp_path / "mine" / "original").mkdir(parents=True)
    (tmp_path / "mine" / "second.txt").write_text(LINE)
    assert adapter.find(tmp_path) == tmp_path / "mine" / "second.txt"
    (tmp_path / "mine" / "original" / "best_2.txt").write_text(LINE)
    assert adapter.find(tmp_path).name == "best_2.txt"
    assert adapter.find(tmp_path / "mine" / "second.txt").name == "second.txt"
    monkeypatch.setenv("NASWOT_DATA", str(tmp_path))
    assert adapter.find(None).name == "best_2.txt"
    assert adapter.open().column("d", "x")[0] == 3.5
    assert adapter.open().source.endswith("best_2.txt")


def test_an_embedded_file_needs_no_data_root(adapter, tmp_path, monkeypatch):
    (tmp_path / "shipped.txt").write_text(LINE)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "second.txt").write_text(LINE.replace("3.5", "4.5"))
    own = dataclasses.replace(adapter, embedded=tmp_path / "shipped.txt")
    monkeypatch.delenv("NASWOT_DATA", raising=False)
    assert own.open().column("d", "x")[0] == 3.5
    assert own.open(tmp_path / "other").column("d", "x")[0] == 3.5
    assert own.open(tmp_path / "other" / "second.txt").column("d", "x")[0] == 4.5


def test_a_damaged_file_is_explained(adapter, tmp_path):
    (tmp_path / "second.txt").write_text("")
    with pytest.raises(DataError, match=r"second\.txt is no sound file of mine: it is damaged or of another version"):
        adapter.open(tmp_path)
    (tmp_path / "second.txt").write_text(LINE.replace("3.5", "three"))
    with pytest.raises(DataError, match="does not hold numbers"):
        adapter.open(tmp_path)


def test_whatever_a_table_breaks_becomes_an_error_that_names_the_file(adapter, tmp_path):
    (tmp_path / "second.txt").write_text(LINE)
    for genotypes in ([(0,) * 6, (0,)], [None], [{}]):
        table = Table(genotypes, {Column("d", "x"): [1.0] * len(genotypes)})
        with pytest.raises(DataError, match=r"second\.txt"):
            dataclasses.replace(adapter, read=lambda path, table=table: table).open(tmp_path)
    (tmp_path / "second.txt").write_text("|none~0| 3.5")
    with pytest.raises(DataError, match=r"second\.txt is no sound file of mine: .*ArchitectureError"):
        adapter.open(tmp_path)


def test_a_reader_needs_a_docstring():
    with pytest.raises(RegistrationError, match="has no docstring"):
        register_benchmark(space="nasbench201", files=("x",), reference="y")(lambda path: None)


def test_unknown_benchmark():
    with pytest.raises(UnknownNameError, match="nasbench201"):
        get_benchmark("nasbench20l")


def test_a_converted_file_gives_the_same_and_is_preferred(benchmark, adapter, tmp_path):
    benchmark.save(tmp_path / "mine.naswot.parquet")
    (tmp_path / "second.txt").write_text(LINE)
    again = adapter.open(tmp_path)
    assert again.source.endswith("mine.naswot.parquet")
    assert list(again.genotypes()) == GENOTYPES
    assert again.columns == benchmark.columns
    assert again.build == {"width": 8}
    assert again.images == {"data": "digits", "noise": 1.0}
    for column in benchmark.columns:
        assert same(again[column], benchmark[column])
    assert not list(tmp_path.glob("*.part"))
    assert len(adapter.open(tmp_path / "second.txt")) == 1
    assert adapter.open(tmp_path / "mine.naswot.parquet").query(GENOTYPES[2], dataset="cifar10") == 93.5


def test_a_converted_file_that_does_not_fit_is_refused(benchmark, adapter, tmp_path):
    path = tmp_path / "mine.naswot.parquet"
    with pytest.raises(OptionError, match=r"ends in \.naswot\.parquet"):
        benchmark.save(tmp_path / "mine.parquet")
    with pytest.raises(DataError, match="cannot write"):
        benchmark.save(tmp_path / "nowhere" / "mine.naswot.parquet")
    benchmark.save(path)
    with pytest.raises(DataError, match="space 'nasbench201', but format 1 and space 'nasbench_macro'"):
        dataclasses.replace(adapter, space="nasbench_macro").open(path)
    sound = path.read_bytes()
    path.write_bytes(sound[:-40])
    with pytest.raises(DataError, match="damaged, or was not written by"):
        adapter.open(path)


def test_every_flipped_bit_of_the_figures_of_a_converted_file_is_found(adapter, tmp_path):
    path = tmp_path / "mine.naswot.parquet"
    values = np.random.default_rng(0).random(125)
    genotypes = [genotype for number, genotype in enumerate(SPACE.genotypes()) if number % 125 == 0]
    Benchmark("mine", SPACE, Table(genotypes, {Column("d", "x"): values})).save(path)
    sound = path.read_bytes()
    raw = sound.index(values[50:60].tobytes())  # random numbers stay as they are under compression
    for bit in range(0, 640, 7):
        changed = bytearray(sound)
        changed[raw + bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(DataError, match="damaged, or was not written by"):
            adapter.open(path)


@pytest.mark.parametrize("column", [[1, "x", None, None], ["d", "x", "200", None], ["d", "x", None, True], ["d"], None])
def test_a_converted_file_with_odd_names_of_columns_is_refused(benchmark, adapter, tmp_path, column):
    from pyarrow import parquet

    path = tmp_path / "mine.naswot.parquet"
    benchmark.save(path)
    table = parquet.read_table(path)
    about = json.loads(table.schema.metadata[b"naswot"])
    about["columns"][0] = column
    parquet.write_table(table.replace_schema_metadata({"naswot": json.dumps(about)}), path)
    with pytest.raises(DataError, match="damaged, or was not written by"):
        adapter.open(path)
