"""Anyone's tables: names of columns, gaps, comments, and what is refused."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from naswot.benchmark import Column
from naswot.errors import DataError
from naswot.tables import read_table

ONE = "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
TWO = "|nor_conv_1x1~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|skip_connect~2|"
CSV = f"""# made by hand
arch,cifar10/test_accuracy/e200/s0,cifar10/test_accuracy/e200/s1,accuracy,remark
{ONE},90.5,91.5,1,first
{TWO},93,,2,
"""


def write(folder, text, name="mine.csv"):
    path = folder / name
    path.write_text(text)
    return path


def test_names_of_columns_and_gaps(tmp_path):
    benchmark = read_table(write(tmp_path, CSV), space="nasbench201")
    accuracy = "cifar10", "test_accuracy", 200
    assert benchmark.columns == (Column(*accuracy, 0), Column(*accuracy, 1), Column("mine", "accuracy"))
    assert np.array_equal(benchmark.column("cifar10"), [91.0, 93.0])
    assert np.array_equal(benchmark[Column(*accuracy, 1)], [91.5, np.nan], equal_nan=True)
    assert [benchmark.space.format(g) for g in benchmark.genotypes()] == [ONE, TWO]
    assert benchmark.name == "mine"


def test_compressed_and_parquet_are_the_same(tmp_path):
    pandas = pytest.importorskip("pandas")
    plain = read_table(write(tmp_path, CSV), space="nasbench201")
    with gzip.open(tmp_path / "mine.csv.gz", "wt") as file:
        file.write(CSV)
    frame = pandas.read_csv(tmp_path / "mine.csv", comment="#")
    frame.to_parquet(tmp_path / "mine.parquet")
    for name in ("mine.csv.gz", "mine.parquet"):
        other = read_table(tmp_path / name, space="nasbench201")
        assert list(other.genotypes()) == list(plain.genotypes())
        assert other.columns == plain.columns
        assert all(np.array_equal(other[c], plain[c], equal_nan=True) for c in plain.columns)


def test_another_column_of_architectures(tmp_path):
    path = write(tmp_path, CSV.replace("arch,", "\N{ZERO WIDTH NO-BREAK SPACE}cell,", 1).partition("\n")[2])
    assert len(read_table(path, space="nasbench201", arch="cell")) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("arch,accuracy\n", "no rows"),
        (CSV.replace("arch,", "cell,"), "no column 'arch'.*cell"),
        (CSV.replace("nor_conv_1x1~0", "nor_conv_7x7~0"), "row 2.*nor_conv_7x7"),
        (CSV + f"{ONE},1,1,1,again\n", "occur twice"),
        (CSV + f"{ONE},1\n", "row 3: 2 cells under a header of 5"),
        (f"arch,remark\n{ONE},good\n", "no column of numbers"),
        (CSV.replace(",", ";"), "separated by semicolons"),
        (f"arch,a,a\n{ONE},1,2\n", "two columns 'a'"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path, text), space="nasbench201")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        read_table(tmp_path / "none.csv", space="nasbench201")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(CSV.encode())[:-20])
    with pytest.raises(DataError, match="truncated"):
        read_table(tmp_path / "cut.csv.gz", space="nasbench201")
    (tmp_path / "odd.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DataError, match="no parquet file"):
        read_table(tmp_path / "odd.parquet", space="nasbench201")
