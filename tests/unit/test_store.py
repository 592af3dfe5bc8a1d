"""ResultStore: what goes in comes out to the last bit, in one order, under one set of options."""

import csv
import dataclasses
import itertools
import json
import math
import os
import random
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naswot import store as store_module
from naswot.errors import InputError, MissingPackageError, OptionError, StoreError
from naswot.store import ResultStore, describe_environment
from naswot.types import Evaluation

OPTIONS = {"space": "nasbench201", "batch_size": 64, "proxies": {"snip": {"mode": "train"}}}
ENVIRONMENT = {"torch": "2.13.0"}


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
