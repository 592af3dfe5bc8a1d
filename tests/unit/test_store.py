"""ResultStore: what goes in comes out to the last bit, and nothing that happens to the process or disk loses it."""

import csv
import dataclasses
import importlib.util
import itertools
import json
import math
import os
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naswot import store as store_module
from naswot.errors import InputError, MissingPackageError, NaswotError, OptionError, StoreError, StoreSchemaError
from naswot.store import ResultStore, describe_environment
from naswot.types import Evaluation

OPTIONS = {"space": "nasbench201", "batch_size": 64, "proxies": {"snip": {"mode": "train"}}}
ENVIRONMENT = {"torch": "2.13.0"}
DATA = Path(__file__).parents[1] / "data"


def evaluation(arch="a", scores=None, *, seed=0, repeat=0, **fields):
    scores = {"naswot": 1.5} if scores is None else scores
    return Evaluation(
        **{"genotype": (1, 2), "seconds": {"score": 0.25}, **fields}, arch=arch, scores=scores, seed=seed, repeat=repeat
    )


def opened(path, **arguments):
    return ResultStore(path, **{"options": OPTIONS, "environment": ENVIRONMENT, **arguments})


def bits(value):
    return struct.pack("<d", value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "results.sqlite"


@pytest.fixture
def store(path):
    with opened(path) as made:
        yield made


def start(script, *arguments):
    """A Python process that runs ``script`` with these arguments."""
    prelude = "import sys\nfrom naswot.store import ResultStore\nfrom naswot.types import Evaluation\n"
    command = [sys.executable, "-c", prelude + script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


# --- what goes in comes out ---------------------------------------------------------------------------------------


def test_an_evaluation_comes_back_as_it_was(path):
    given_ = Evaluation(
        (0, 3, 1),
        "|nor_conv_3x3~0|",
        {"naswot": -math.inf, "snip": 0.1 + 0.2},
        {"build": 0.5},
        7,
        2,
        {"naswot": "equal codes", "zen": "no BatchNorm"},
    )
    with opened(path) as store:
        store.append(given_)
    with opened(path) as store:
        assert store.get(given_.arch, 7, 2) == given_
        assert list(store) == [given_]
        assert len(store) == 1
        assert (given_.arch, 7, 2) in store
        assert (given_.arch, 7, 0) not in store
        assert store.get("other", 7, 2) is None


def test_every_field_of_an_evaluation_is_stored():
    stored = {"genotype", "arch", "scores", "seconds", "seed", "repeat", "reasons", "error"}
    assert {field.name for field in dataclasses.fields(Evaluation)} == stored, "a new field needs a new schema number"


@pytest.mark.parametrize(
    "value",
    [0.0, -0.0, 5e-324, -2.2250738585072014e-308, 1.7976931348623157e308, 2.0**53, 0.1 + 0.2, math.inf, -math.inf],
)
def test_floats_keep_every_bit(path, value):
    with opened(path) as store:
        store.append(evaluation(scores={"x": value}, seconds={"s": 0.1 + 0.2}))
    with opened(path, read_only=True) as store:
        found = store.get("a", 0)
        assert bits(found.scores["x"]) == bits(value)
        assert bits(found.seconds["s"]) == bits(0.1 + 0.2)


def test_numpy_numbers_are_stored_as_numbers(store):
    store.append(
        evaluation(scores={"x": np.float32(0.1)}, seed=np.int64(3), repeat=np.int32(1), genotype=(np.int64(4),))
    )
    found = store.get("a", np.int64(3), np.int64(1))
    assert found == store.get("a", 3, 1) == next(iter(store))
    assert bits(found.scores["x"]) == bits(float(np.float32(0.1)))
    assert found.genotype == (4,)
    assert (type(found.seed), type(found.genotype[0])) == (int, int)


def test_odd_texts_survive(path):
    odd = evaluation("naïve\x00\n|'\";--", {"ñ": 1.0}, reasons={"z": "bytes \udcff in a path"})
    odd_path = path.with_name("ä b?#%20.sqlite")
    with opened(odd_path) as store:
        store.append(odd)
        assert odd_path.exists()
        found = next(iter(store))
    assert found.arch == odd.arch
    assert found.reasons == {"z": "bytes \\udcff in a path"}  # a failure is kept even if its message is no valid text


def test_iteration_is_by_key_whatever_the_page_size(store, monkeypatch):
    keys = list(itertools.product(["", "B", "a", "aa", "é", "\U0001f600"], [-5, 0, 10], [0, 1]))
    for arch, seed, repeat in random.Random(0).sample(keys, len(keys)):
        store.append(evaluation(arch, seed=seed, repeat=repeat))
    for size in (1, 7, len(keys), 1000):
        monkeypatch.setattr(store_module, "_PAGE", size)
        assert [(e.arch, e.seed, e.repeat) for e in store] == sorted(keys)


def test_appending_while_iterating(store, monkeypatch):
    monkeypatch.setattr(store_module, "_PAGE", 2)
    for arch in "abcd":
        store.append(evaluation(arch))
    for found in store:
        store.append(evaluation(found.arch, {"more": 2.0}))
    assert [dict(e.scores) for e in store] == [{"naswot": 1.5, "more": 2.0}] * 4


# --- merging ------------------------------------------------------------------------------------------------------


def test_other_scores_of_a_key_are_added(store):
    store.append(evaluation(scores={"naswot": 1.0}, seconds={"build": 1.0, "score": 0.5}))
    store.append(evaluation(scores={"snip": 2.0}, seconds={"build": 3.0, "score": 0.25}))
    assert store.get("a", 0).scores == {"naswot": 1.0, "snip": 2.0}
    assert store.get("a", 0).seconds == {"build": 3.0, "score": 0.5}
    assert len(store) == 1


def test_the_same_value_again_changes_nothing(store):
    store.append(evaluation(scores={"x": -math.inf, "y": 1.0}))
    before = list(store)
    store.append(evaluation(scores={"x": -math.inf}))
    assert list(store) == before


@pytest.mark.parametrize(("old", "new"), [(1.0, math.nextafter(1.0, 2)), (-math.inf, 3.5), (0.0, -0.0)])
def test_another_value_of_a_score_is_refused_naming_both(store, old, new):
    store.append(evaluation(scores={"x": old, "y": 1.0}))
    with pytest.raises(StoreError, match="score 'x' of 'a', seed 0, repeat 0") as caught:
        store.append(evaluation(scores={"x": new, "z": 2.0}))
    assert repr(old) in str(caught.value)
    assert repr(new) in str(caught.value)
    assert dict(store.get("a", 0).scores) == {"x": old, "y": 1.0}


def test_another_genotype_of_an_arch_is_refused(store):
    store.append(evaluation(genotype=(1,)))
    with pytest.raises(StoreError, match=r"genotype \(1,\), but now comes with \(2,\)"):
        store.append(evaluation(genotype=(2,)))


def test_a_success_replaces_an_error_and_not_the_other_way(store):
    failed = evaluation(scores={}, error="ModelError: out of memory")
    store.append(failed)
    assert store.get("a", 0) == failed
    store.append(evaluation())
    assert store.get("a", 0) == evaluation()
    store.append(failed)
    assert store.get("a", 0) == evaluation()


def test_a_score_replaces_its_failure_and_not_the_other_way(store):
    failed = evaluation(scores={"y": 1.0}, reasons={"x": "out of memory", "z": "no BatchNorm"})
    store.append(failed)
    assert store.get("a", 0).reasons == failed.reasons
    for again in (evaluation(scores={"x": 2.0}), failed):
        store.append(again)
        assert store.get("a", 0).scores == {"x": 2.0, "y": 1.0}
        assert store.get("a", 0).reasons == {"z": "no BatchNorm"}


VALUES = [-math.inf, math.inf, -0.0, 0.0, 5e-324, 0.1 + 0.2, -1e300]


@st.composite
def consistent_evaluations(draw):
    """Evaluations in which a score of a key always has the same value, as a deterministic program makes them."""
    arch, seed, repeat = draw(st.sampled_from("ab")), draw(st.sampled_from([0, -1])), draw(st.sampled_from([0, 1]))
    times = st.dictionaries(st.sampled_from(["build", "score"]), st.floats(0, 9))
    reasons = st.dictionaries(st.sampled_from("xyz"), st.sampled_from(["why", "because"]))
    error = draw(st.sampled_from([None, None, None, "out of memory", "timeout"]))
    names = [] if error else draw(st.lists(st.sampled_from("xyz"), unique=True))
    scores = {name: VALUES[sum(map(ord, f"{arch}{seed}{repeat}{name}")) % len(VALUES)] for name in names}
    return Evaluation((ord(arch),), arch, scores, draw(times), seed, repeat, draw(reasons), error)


def content(folder, evaluations):
    with opened(Path(folder) / "s.sqlite") as store:
        for each in evaluations:
            store.append(each)
        return [repr(e) for e in store]  # repr tells -0.0 from 0.0, and shows the order of mappings


@settings(max_examples=60, deadline=None)
@given(st.lists(consistent_evaluations(), max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_appends_leaves_no_trace(evaluations, rng):
    shuffled = rng.sample(evaluations * 2, 2 * len(evaluations))
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        assert content(one, evaluations) == content(two, shuffled)


@settings(max_examples=60, deadline=None)
@given(st.lists(consistent_evaluations(), max_size=8))
def test_all_scores_are_there_and_no_others(evaluations):
    expected = {}
    for e in evaluations:
        expected.setdefault((e.arch, e.seed, e.repeat), {}).update(e.scores)
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder) / "s.sqlite") as store:
        for e in evaluations:
            store.append(e)
        found = {(e.arch, e.seed, e.repeat): {**e.scores} for e in store}
        assert found == expected
        for e in store:
            key = (e.arch, e.seed, e.repeat)
            tries = [t for t in evaluations if (t.arch, t.seed, t.repeat) == key]
            assert (e.error is None) == any(t.error is None for t in tries)
            assert e.reasons.keys() - e.scores.keys() == {n for t in tries for n in t.reasons} - e.scores.keys()


# --- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scores": {"x": math.nan}}, "score 'x' of 'a' is NaN; .* reasons"),
        ({"seconds": {"build": math.inf}}, "seconds of stage 'build' of 'a' are inf"),
        ({"seconds": {"build": math.nan}}, "are nan"),
        ({"error": "failed"}, "has both scores and an error"),
        ({"seed": 2**63}, "64 bits"),
        ({"scores": {"seed": 1.0}}, "cannot be named 'seed'"),
        ({"reasons": {"seconds.x": ""}}, "cannot be named 'seconds.x'"),
        ({"arch": "\udcff"}, "lone surrogates"),
    ],
)
def test_what_cannot_be_stored_is_refused(store, fields, message):
    with pytest.raises(InputError, match=message):
        store.append(evaluation(**fields))
    assert len(store) == 0
    store.append(evaluation())


# --- options and provenance ---------------------------------------------------------------------------------------


def test_other_options_are_refused_naming_the_changes(path):
    opened(path).close()
    other = {"space": "nasbench201", "batch_size": 128, "proxies": {"snip": {"mode": "eval"}}, "seed": 1}
    with pytest.raises(StoreError) as caught:
        opened(path, options=other)
    message = str(caught.value)
    assert '(batch_size 64 -> 128; proxies.snip.mode "train" -> "eval"; seed absent -> 1)' in message
    assert "space" not in message
    assert str(path) in message
    assert "choose another folder" in message
    with pytest.raises(StoreError, match="batch_size 64 -> absent"):
        opened(path, options={"space": "nasbench201"}, read_only=True)


def test_equal_options_open_in_any_order(path):
    with opened(path) as first:
        digest = first.digest
    with opened(path, options=dict(reversed(OPTIONS.items()))) as again:
        assert again.digest == digest
        assert again.options == OPTIONS
    with ResultStore(path, read_only=True) as unknown:
        assert unknown.options == OPTIONS


@pytest.mark.parametrize("value", [{1, 2}, np.int64(3), math.nan, -math.inf, Path("x")])
def test_options_must_be_plain_json(path, value):
    with pytest.raises(OptionError, match="option 'x' of a result store must be plain JSON"):
        opened(path, options={"x": value})
    assert not path.exists()


def test_writing_needs_options(path):
    with pytest.raises(OptionError, match="pass options"):
        ResultStore(path)


def test_each_writing_session_leaves_its_environment(path):
    for torch_version in ("2.6.0", "2.13.0"):
        opened(path, environment={"torch": torch_version}).close()
    with opened(path, read_only=True) as store:
        assert store.environments() == [{"torch": "2.6.0"}, {"torch": "2.13.0"}]
    with ResultStore(path, options=OPTIONS) as store:
        assert store.environments()[2]["naswot"]


def test_the_environment_is_described():
    described = describe_environment("cpu")
    assert described["python"] == ".".join(map(str, sys.version_info[:3]))
    assert described.keys() >= {"naswot", "torch", "numpy", "platform", "threads", "started_at"}
    assert described["device"] == "cpu"
    assert describe_environment()["device"] == "unknown"
    assert all(isinstance(value, str) for value in described.values())


# --- tables and export --------------------------------------------------------------------------------------------


@pytest.fixture
def filled(store):
    store.append(
        Evaluation(
            (1,), "b,\n", {"naswot": -math.inf, "snip": 0.1 + 0.2}, {"build": 0.5}, 0, 0, {"naswot": "équal codes"}
        )
    )
    store.append(
        Evaluation((2,), "a", {"naswot": 2.0, "zen": math.inf}, {"score": 0.25}, 3, 1, {"snip": "no gradient"})
    )
    store.append(Evaluation((3,), "c", {}, {}, 0, 0, {}, "out of memory"))
    return store


COLUMNS = ["arch", "seed", "repeat", "naswot", "snip", "zen", "seconds.build", "seconds.score", "error", "reasons"]


def test_to_frame(filled):
    pytest.importorskip("pandas")
    frame = filled.to_frame()
    assert list(frame.columns) == COLUMNS
    assert list(frame["arch"]) == ["a", "b,\n", "c"]
    assert list(frame["naswot"][:2]) == [2.0, -math.inf]
    assert list(frame["naswot"].isna()) == [False, False, True]
    assert bits(frame["snip"][1]) == bits(0.1 + 0.2)
    assert frame["error"][2] == "out of memory"
    assert json.loads(frame["reasons"][0]) == {"snip": "no gradient"}
    assert [str(frame[name].dtype) for name in COLUMNS[1:8]] == ["int64"] * 2 + ["float64"] * 5


def test_to_frame_of_an_empty_store(store):
    pytest.importorskip("pandas")
    assert list(store.to_frame().columns) == ["arch", "seed", "repeat", "error", "reasons"]
    store.append(evaluation(scores={}, reasons={"x": "failed"}))
    assert str(store.to_frame()["x"].dtype) == "float64"


def test_to_frame_without_pandas(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPackageError, match=r"naswot\[pandas\]"):
        store.to_frame()


def test_export_to_csv(filled, tmp_path):
    filled.export(tmp_path / "out.csv")
    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    assert [row["naswot"] for row in rows] == ["2.0", "-inf", ""]
    assert bits(float(rows[1]["snip"])) == bits(0.1 + 0.2)
    assert [row["arch"] for row in rows] == ["a", "b,\n", "c"]
    assert json.loads(rows[1]["reasons"]) == {"naswot": "équal codes"}
    assert sorted(os.listdir(tmp_path)) == ["out.csv", "run"]


def test_export_to_json_lines(filled, tmp_path):
    def refuse(token):
        raise AssertionError(f"{token} is not JSON")

    filled.export(tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    rows = [json.loads(line, parse_constant=refuse) for line in lines]
    assert rows[0]["scores"] == {"naswot": 2.0, "snip": None, "zen": None}
    assert rows[0]["status"] == {"snip": "failed", "zen": "+inf"}
    assert rows[1]["status"] == {"naswot": "-inf"}
    assert bits(rows[1]["scores"]["snip"]) == bits(0.1 + 0.2)
    assert rows[1]["genotype"] == [1]
    assert rows[2]["error"] == "out of memory"


def test_export_elsewhere_is_refused(filled, tmp_path):
    with pytest.raises(OptionError, match=r"\.csv or \.jsonl"):
        filled.export(tmp_path / "out.xlsx")
    with pytest.raises(StoreError, match="cannot write"):
        filled.export(tmp_path / "missing" / "out.csv")


# --- files that are no store --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [b"hello", b"not a database, " * 400, b"SQLite format 3\0" + b"\1" * 600],
    ids=["short", "long", "header"],
)
def test_a_file_that_is_no_database_is_left_alone(tmp_path, garbage):
    file = tmp_path / "x.sqlite"
    file.write_bytes(garbage)
    for read_only in (False, True):
        with pytest.raises(StoreError, match=r"x\.sqlite is not a SQLite file.*choose another path"):
            opened(file, read_only=read_only)
    assert file.read_bytes() == garbage


def test_a_foreign_database_is_left_alone(tmp_path):
    file = tmp_path / "x.sqlite"
    with sqlite3.connect(file) as foreign:
        foreign.execute("CREATE TABLE evaluations (id)")
    foreign.close()
    before = file.read_bytes()
    with pytest.raises(StoreError, match=r"x\.sqlite is a SQLite database of another program.*choose another path"):
        opened(file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("found", [0, 2, 99])
def test_another_schema_is_refused(path, found):
    opened(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {found}")
    connection.close()
    with pytest.raises(
        StoreSchemaError, match=f"schema number {found}, but this naswot expects 1; open it with"
    ) as caught:
        opened(path)
    assert str(path) in str(caught.value)


def fill(path, n=200):
    with opened(path) as store:
        for index in range(n):
            store.append(evaluation(f"arch {index}", {f"proxy {k}": index + k / 7 for k in range(20)}))


def test_a_truncated_store_is_recognised(path):
    fill(path)
    whole = path.read_bytes()
    for size in (50, 1000, 4096, 8192, len(whole) // 2, len(whole) - 4096):
        path.write_bytes(whole[:size])
        with pytest.raises(StoreError, match=r"is damaged \(|header is damaged"):
            opened(path)
        assert path.read_bytes() == whole[:size]


@pytest.mark.parametrize("read_only", [False, True])
def test_a_malformed_page_is_found_on_opening(path, read_only):
    fill(path)
    whole = bytearray(path.read_bytes())
    whole[-8192:-4096] = b"\xaa" * 4096
    path.write_bytes(whole)
    with pytest.raises(StoreError, match=r"results\.sqlite is damaged \(.*choose another folder"):
        opened(path, read_only=read_only)


def test_damage_met_while_reading_is_a_store_error(path):
    fill(path, 20)
    whole = path.read_bytes()
    rng = random.Random(0)
    n_refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(20):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            with opened(path, read_only=True) as store:
                list(store)
                store.environments()
        except StoreError:
            n_refused += 1
    assert n_refused > 75  # a changed digit of a score cannot be noticed, most other damage is


def test_missing_and_misplaced_files(tmp_path):
    with pytest.raises(StoreError, match="there is no result store"):
        ResultStore(tmp_path / "none.sqlite", read_only=True)
    (tmp_path / "empty").touch()
    with pytest.raises(StoreError, match="is empty"):
        ResultStore(tmp_path / "empty", read_only=True)
    with pytest.raises(StoreError, match="it must be a file"):
        opened(tmp_path)
    with pytest.raises(StoreError, match="cannot make the folder"):
        opened(tmp_path / "empty" / "store.sqlite")
    with opened(tmp_path / "empty") as store:  # what a process killed at once leaves behind
        assert len(store) == 0


def test_the_store_of_schema_1_still_loads(tmp_path):
    specification = importlib.util.spec_from_file_location("make_store_schema1", DATA / "make_store_schema1.py")
    made = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(made)
    copy = tmp_path / "copy.sqlite"
    shutil.copy(DATA / "store_schema1.sqlite", copy)
    with ResultStore(copy, options=made.OPTIONS, environment={}) as store:
        assert list(map(repr, store)) == list(map(repr, made.EVALUATIONS))
        assert store.environments() == [made.ENVIRONMENT, {}]
        store.append(evaluation("new"))
        assert len(store) == len(made.EVALUATIONS) + 1


def test_another_layout_needs_another_schema_number(path, tmp_path):
    opened(path).close()
    assert store_module.SCHEMA == 1, "compare with the newest file in tests/data, and keep the test above for this one"
    shutil.copy(DATA / "store_schema1.sqlite", tmp_path / "old.sqlite")
    layouts = []
    for file in (path, tmp_path / "old.sqlite"):
        connection = sqlite3.connect(file)
        layouts.append(connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall())
        connection.close()
    assert layouts[0] == layouts[1]


# --- other processes, threads and disks ---------------------------------------------------------------------------


def test_a_locked_store_says_so_and_works_afterwards(store, path):
    other = sqlite3.connect(path, isolation_level=None)
    with opened(path, busy_timeout=0.1) as waiting:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"is locked: another process writes to it, and did so for 0\.1 s"):
            waiting.append(evaluation())
        with pytest.raises(StoreError, match="is locked"):
            opened(path, busy_timeout=0.1)
        assert len(waiting) == 0  # readers do not wait
        other.execute("ROLLBACK")
        waiting.append(evaluation())
    other.close()
    assert len(store) == 1


def test_another_thread_and_a_closed_store_are_refused(store):
    caught = []

    def use():
        try:
            store.append(evaluation())
        except NaswotError as error:
            caught.append(str(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert "opened in another thread" in caught[0]
    store.close()
    store.close()
    with pytest.raises(StoreError, match="is closed; open it again"):
        len(store)


def test_read_only_changes_nothing(path):
    fill(path, 3)
    before = path.read_bytes()
    with opened(path, read_only=True) as store:
        assert len(store) == 3
        with pytest.raises(StoreError, match="read-only; make them writable, choose another folder"):
            store.append(evaluation())
    assert path.read_bytes() == before


READ_ONLY_FOLDER = """
import os
if os.geteuid() == 0:
    os.seteuid(65534)  # the superuser may write anywhere
try:
    ResultStore(sys.argv[1], options={"x": 1})
except OSError as error:
    print(type(error).__name__, error)
with ResultStore(sys.argv[1], read_only=True) as store:
    print([e.arch for e in store])
try:
    ResultStore(sys.argv[1] + ".new", options={"x": 1})
except OSError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
def test_a_read_only_folder():
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "s.sqlite"
        with opened(file, options={"x": 1}) as store:
            store.append(evaluation())
        file.chmod(0o444)
        os.chmod(folder, 0o555)
        try:
            lines = start(READ_ONLY_FOLDER, file).communicate(timeout=120)[0].splitlines()
        finally:
            os.chmod(folder, 0o700)
    assert lines[0].startswith(f"StoreError result store {file} cannot be ")
    assert "choose another folder, or open it with read_only=True" in lines[0]
    assert lines[1] == "['a']"
    assert lines[2].startswith(f"StoreError result store {file}.new cannot be opened")


def test_a_full_database_keeps_what_it_has(path):
    with opened(path) as store:
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages + 10}")
        message = ""
        for n in range(1000):
            try:
                store.append(evaluation(f"{n:04}", {f"proxy {k}": k / 7 for k in range(50)}))
            except StoreError as error:
                message = str(error)
                break
        assert "the disk is full (database or disk is full); free some space and append again" in message
        assert [e.arch for e in store] == [f"{index:04}" for index in range(n)] != []
        store._connection.execute("PRAGMA max_page_count = 100000")
        store.append(evaluation("last"))
    with opened(path) as store:
        assert [e.arch for e in store] == [*(f"{index:04}" for index in range(n)), "last"]
        assert all(len(e.scores) == 50 for e in store if e.arch != "last")


LIMITED = """
import resource
store = ResultStore(sys.argv[1], options={"x": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    for n in range(10_000):
        store.append(Evaluation((n,), f"{n:05}", {f"proxy {k}": k / 7 for k in range(50)}, {}, 0))
except OSError as error:
    print(n, len(store), type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_full_disk_keeps_what_it_has(path):
    out = start(LIMITED, path).communicate(timeout=120)[0]
    n, n_readable, message = out.split(" ", 2)
    assert message.startswith(f"StoreError result store {path} cannot")
    assert "all that was stored before is kept" in message
    with opened(path, options={"x": 1}) as store:
        assert [e.arch for e in store] == [f"{index:05}" for index in range(int(n))]
        assert int(n) == int(n_readable) > 10
        assert all(len(e.scores) == 50 for e in store)
        store.append(evaluation("more"))


ENDLESS = """
store = ResultStore(sys.argv[1], options={"x": 1})
for n in range(10**9):
    store.append(Evaluation((n,), f"{n:09}", {f"proxy {k}": n + k / 7 for k in range(200)}, {"score": 0.5}, 0))
    print(n, flush=True)
"""


@pytest.mark.parametrize("round_", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
def test_kill_9_leaves_complete_evaluations_only(path, round_):
    process = start(ENDLESS, path)
    wait = random.Random(round_).randrange(1, 300)
    acknowledged = [int(process.stdout.readline()) for _ in range(wait)]
    process.kill()
    process.wait()
    rest = process.stdout.read().splitlines(keepends=True)
    acknowledged += [int(line) for line in rest if line.endswith("\n")]
    with opened(path, options={"x": 1}) as store:
        found = list(store)
        assert len(found) - len(acknowledged) in (0, 1)
        for n, e in enumerate(found):
            assert e == Evaluation((n,), f"{n:09}", {f"proxy {k}": n + k / 7 for k in range(200)}, {"score": 0.5}, 0)
        store.append(evaluation("goes on"))


TOGETHER = """
print("ready", flush=True)
sys.stdin.readline()
with ResultStore(sys.argv[1], options={"x": 1}) as store:
    for n in range(60):
        store.append(Evaluation((n,), f"{n:03}", {sys.argv[2]: float(n)}, {}, 0))
        assert sys.argv[2] in store.get(f"{n:03}", 0).scores
print("done", flush=True)
"""


@pytest.mark.slow
def test_several_processes_create_and_write_one_store(path):
    writers = [start(TOGETHER, path, name) for name in ("p", "q", "r")]
    assert [w.stdout.readline() for w in writers] == ["ready\n"] * 3
    for w in writers:
        w.stdin.write("\n")
        w.stdin.flush()
    lengths = []
    while any(w.poll() is None for w in writers):  # a reader meanwhile
        if path.exists() and path.stat().st_size > 4096:
            with ResultStore(path, read_only=True) as store:
                lengths.append(len(list(store)))
    assert [w.stdout.read() for w in writers] == ["done\n"] * 3
    assert lengths == sorted(lengths)
    with opened(path, options={"x": 1}) as store:
        assert [dict(e.scores) for e in store] == [dict.fromkeys("pqr", float(n)) for n in range(60)]
        assert len(store.environments()) == 4
