"""Readers meet damaged files, files of something else and planted code; ``benchmarks/fuzz_readers.py`` does it longer.

A new adapter needs a specimen for each of its patterns in ``tests/specimens/`` and nothing here.
"""

from __future__ import annotations

import json
import pickle
import zlib
from collections import Counter
from pathlib import PurePath

import pytest
from specimens import SPECIMENS

from naswot.benchmark import benchmarks
from naswot.data import list_data
from naswot.errors import DataError, UnsafePickleError
from naswot.seeding import numpy_generator
from naswot.space import list_spaces
from naswot.testing.damage import SOUND, Payload, damaged, is_wrong, of_something_else, outcomes, planted

ALL_CELLS = "nb101_all_accuracy_params.parquet"
"""Read only if it holds all 423,624 cells, which takes most of a minute: no small file is sound."""
READ_AS = {f"nasbench1shot1_{n}": "nasbench101" for n in (1, 2, 3)}
"""Adapters that hand their files to the reader of another one, and then look for thousands of cells."""
ALL = pytest.mark.parametrize("specimen", SPECIMENS, ids=str)


def files_of(path):
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


@ALL
def test_damaged_files_are_read_or_refused(specimen, tmp_path):
    (tmp_path / "sound").mkdir()
    specimen.read(specimen.write(tmp_path / "sound"))
    (tmp_path / "damaged").mkdir()
    n = 8 if specimen.reader.startswith("nds_") or specimen.kind == "converted" else 30  # many that one code reads
    found = Counter(outcomes(specimen.write, specimen.read, n=n, folder=tmp_path / "damaged"))
    assert not {name: count for name, count in found.items() if is_wrong(name)}
    assert found.total() - found[SOUND] > n / 6  # the damage is no decoration


@ALL
def test_planted_code_is_refused_and_does_not_run(specimen, tmp_path):
    trace = tmp_path / "trace"
    path = specimen.write(tmp_path)
    malicious = {file: planted(file.read_bytes(), Payload(trace)) for file in files_of(path)}
    for file, content in malicious.items():
        if content is not None:
            sound = file.read_bytes()
            file.write_bytes(content)
            with pytest.raises(UnsafePickleError, match=rf"{file.name}.*\bopen.*nothing of it was executed"):
                specimen.read(path)
            file.write_bytes(sound)
    assert not trace.exists()
    expected = specimen.kind in ("pickle", "bz2 pickle", "folder", "torch", "old torch")
    assert expected == any(content is not None for content in malicious.values())


@ALL
def test_a_file_of_something_else_is_refused_by_name(specimen, tmp_path):
    path = specimen.write(tmp_path)
    for file in files_of(path):
        other = of_something_else(file.read_bytes())
        if other is not None:
            file.write_bytes(other)
            with pytest.raises(DataError) as caught:
                specimen.read(path)
            assert file.name in str(caught.value) or path.name in str(caught.value)
            told = (
                "another version",
                "expected",
                "no architecture",
                "has no ",
                "was not written by",
                "malformed",
                "no sound",
            )
            assert any(words in str(caught.value) for words in told), caught.value


def test_every_file_an_adapter_reads_has_a_specimen(tmp_path):
    written = {}
    for number, specimen in enumerate(SPECIMENS):
        (tmp_path / str(number)).mkdir()
        written.setdefault(specimen.reader, []).append(PurePath(specimen.write(tmp_path / str(number)).name))
    own = [(name, adapter) for name, adapter in benchmarks if adapter.read.__module__.startswith("bench_adapters")]
    able = [(name, adapter) for name, adapter in own if adapter.space in list_spaces() and name not in READ_AS]
    patterns = [(name, pattern) for name, adapter in able for pattern in (*adapter.files, "*.naswot.parquet")]
    missing = [(name, want) for name, want in patterns if not any(p.match(want) for p in written.get(name, []))]
    assert {want for _, want in missing} <= {ALL_CELLS}, missing
    assert {name for name in list_data() if name != "digits"} <= set(written)  # digits come with scikit-learn


# ---- the tool itself


def write(folder):
    (folder / "file").write_bytes(pickle.dumps({"a": [1.0, 2.0], "b": {"c": "text"}}, protocol=2))
    return folder / "file"


@pytest.mark.parametrize(
    ("reader", "wrong"),
    [
        (lambda path: pickle.loads(path.read_bytes()), "ran code"),
        (lambda path: {}["gone"], "KeyError: 'gone'"),
        (lambda path: float("x" * bool(path)), "ValueError"),
    ],
)
def test_a_reader_that_runs_code_or_lets_errors_out_is_found(reader, wrong, tmp_path):
    found = Counter(outcomes(write, reader, n=200, folder=tmp_path))
    assert any(name.startswith(wrong) for name in found)
    assert all(is_wrong(name) for name in found if name.startswith(wrong))


def test_damage_follows_from_the_seed_and_undoes_itself(tmp_path):
    sums = [zlib.crc32(damaged(bytes(range(256)) * 4, numpy_generator(seed))) for seed in range(50)]
    assert sums == [zlib.crc32(damaged(bytes(range(256)) * 4, numpy_generator(seed))) for seed in range(50)]
    assert len(set(sums)) > 45
    list(outcomes(write, lambda path: None, n=20, folder=tmp_path))
    assert pickle.loads((tmp_path / "file").read_bytes()) == {"a": [1.0, 2.0], "b": {"c": "text"}}


def test_damage_changes_values_and_types_of_what_is_sound_json():
    content = json.dumps({"a": {"b": [1, 2, 3]}, "c": "text"}).encode()
    copies = [damaged(content, numpy_generator(seed)) for seed in range(200)]
    loaded = []
    for copy in copies:
        try:
            loaded.append(json.loads(copy))
        except ValueError:
            continue
    kinds = Counter(type(value["a"]).__name__ for value in loaded if isinstance(value, dict) and "a" in value)
    assert len(kinds) > 2
    assert 60 < len(loaded) < 190
