"""``naswot calibrate``, run in this process."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from naswot import get_space
from naswot.data import get_data
from naswot.evaluate import Evaluator
from naswot.run import sample_distinct
from naswot.store import ResultStore

SMALL = "--size 8 -N 8 --build width=4 --build n_cells=1 --workers 1 --proxies naswot,params,flops".split()
MODELS = """
from torch import nn

def build(arch):
    if arch == "no":
        raise ValueError("no such thing")
    width = int(arch.removeprefix("w"))
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36 * width, 10))

def text(arch):
    return arch
"""


def write(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def scored(tmp_path):
    """Forty architectures with scores: a good one, its opposite, size without a relation, words, an empty column."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(40):
        good = "" if i == 3 else "-inf" if i == 0 else i + rng.normal()
        rows.append([f"a{i}", i, good, -i, rng.normal(), "word", "", i + rng.normal(), i + rng.normal()])
    header = ["arch", "accuracy", "good", "loss", "params", "family", "later", "accuracy_1", "accuracy_0"]
    return write(tmp_path / "scored.csv", header, rows)


@pytest.fixture
def cells(tmp_path):
    """Ten cells whose accuracy is their number of 3x3 convolutions, more or less."""
    space = get_space("nasbench201")
    rows = [[space.format(g), 10 * g.count(3) + g.count(2) + i / 100] for i, g in enumerate(sample_distinct(space, 10))]
    return write(tmp_path / "cells.csv", ["arch", "accuracy"], rows)


def test_scores_in_the_table(run, scored, tmp_path):
    folder = tmp_path / "out"
    words = ["calibrate", scored, "--scores-in-table", "--lower-is-better", "loss", "--out", folder]
    code, out, err = run(*words, "--json")
    assert code == 0
    summary = json.loads(out)
    assert (summary["verdict"], summary["use"]) == ("proxies help", "loss")
    assert summary["n"] == 40
    assert summary["sizes"] == ["params"]
    by_name = {each["name"]: each for each in summary["proxies"]}
    assert set(by_name) == {"good", "loss", "params"}
    assert (by_name["good"]["tau"]["n"], by_name["good"]["n_finite"]) == (39, 38)
    assert by_name["loss"]["tau"] == {"value": 1.0, "low": None, "high": None, "n": 40}
    assert summary["ceiling"]["value"] > 0.9
    assert "'family' is left out: it holds 'word'" in err
    assert "'later' is left out: it is empty" in err
    assert json.loads((folder / "summary.json").read_text()) == summary
    table = read(folder / "table.csv")
    assert [row["score"] for row in table] == ["loss", "good", "params", "combination"]
    assert float(table[1]["tau"]) == by_name["good"]["tau"]["value"]
    assert float(table[1]["above_size_low"]) == by_name["good"]["above"]["difference"]["low"]
    assert table[2]["given_params"] == table[2]["above_size"] == ""
    assert (folder / "taus.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = run(*words)
    assert code == 0
    assert "Proxies help. Use loss: tau 1.000" in out
    assert "Between two trainings of the same architectures: tau 0.9" in out
    assert "given params" in out


def test_scores_of_a_run_can_be_judged_again(run, scored, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert run("calibrate", scored, "--scores-in-table", "--out", first)[0] == 0
    assert run("calibrate", first / "scores.csv", "--scores-in-table", "--out", second)[0] == 0
    assert (second / "table.csv").read_text() == (first / "table.csv").read_text()
    assert (second / "scores.csv").read_text() == (first / "scores.csv").read_text()
    assert len(read(first / "scores.csv")) == 40
    assert list(read(first / "scores.csv")[0]) == "arch accuracy accuracy_0 accuracy_1 good loss params".split()


def test_only_the_scores_that_are_asked_for(run, scored, tmp_path):
    words = ["calibrate", scored, "--scores-in-table", "--out", tmp_path / "out"]
    code, out, err = run(*words, "--json", "--proxies", "good", "--baselines", "good")
    assert code == 0
    summary = json.loads(out)
    assert (summary["verdict"], summary["use"], summary["baseline"]) == ("size alone is as good", "good", "good")
    assert "left out" not in err
    assert "'family' is no score: it holds 'word'" in run(*words, "--proxies", "family")[2]
    assert "did you mean 'good'" in run(*words, "--proxies", "goood")[2]
    assert "unknown score 'god'" in run(*words, "--lower-is-better", "god")[2]


def test_a_space_is_scored_as_a_search_would_and_goes_on(run, cells, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    words = ["calibrate", cells, "--space", "nasbench201", *SMALL, "--out", folder]
    code, out, err = run(*words, "--json")
    assert code == 0
    assert "10 architectures are few" in err
    summary = json.loads(out)
    assert {each["name"] for each in summary["proxies"]} == {"naswot", "params", "flops"}
    space = get_space("nasbench201")
    build = {"width": 4, "n_cells": 1, "n_classes": 10, "in_channels": 3}
    evaluator = Evaluator(space, get_data("digits", size=8), ("naswot", "params"), batch_size=8, build=build)
    rows = read(folder / "scores.csv")
    assert [row["arch"] for row in rows] == [row["arch"] for row in read(cells)]
    expected = evaluator(space.parse(rows[4]["arch"])).scores
    assert float(rows[4]["naswot"]) == expected["naswot"]
    assert float(rows[4]["params"]) == expected["params"]
    with ResultStore(folder / "results.sqlite", read_only=True) as store:
        assert len(store) == 10

    def never(*_):
        raise AssertionError("scored again")

    monkeypatch.setattr(Evaluator, "__call__", never)
    assert json.loads(run(*words, "--json")[1]) == summary
    with pytest.raises(AssertionError, match="scored again"):
        run(*words[:-3], "naswot,params,flops,l2_norm", "--out", folder)


def test_models_of_a_file(run, tmp_path):
    (tmp_path / "nets.py").write_text(MODELS)
    widths = [*range(1, 23), "no"]
    accuracies = [*(w + 0.5 * (-1) ** w * (w % 3) for w in range(1, 23)), 50]
    archs = ["no" if width == "no" else f"w{width}" for width in widths]
    table = write(tmp_path / "t.csv", ["name", "top1"], list(zip(archs, accuracies, strict=True)))
    words = ["calibrate", table, "--arch-column", "name", "--accuracy-column", "top1", "--size", 8, "-N", 4]
    words += ["--proxies", "params,l2_norm", "--out", tmp_path / "out"]
    code, out, err = run(*words, "--model", f"{tmp_path}/nets.py:build", "--json")
    assert code == 0
    summary = json.loads(out)
    assert summary["n"] == 22
    assert "build('no') raised ValueError: no such thing" in err
    assert list(summary["failed"]) == ["no"]
    assert (summary["verdict"], summary["use"]) == ("size alone is as good", "params")
    rows = read(tmp_path / "out" / "scores.csv")
    assert [float(row["params"]) for row in rows[:2]] == [28 + 370, 56 + 730]
    code, _, err = run(*words, "--model", f"{tmp_path}/nets.py:text")
    assert code == 1
    assert "no architecture could be scored; w1: " in err
    assert "gave a str; expected a torch.nn.Module" in err
    assert "did you mean 'build'" in run(*words, "--model", f"{tmp_path}/nets.py:bild")[2]
    assert "expected FILE.py:function" in run(*words, "--model", "nets")[2]


def test_accuracy_is_the_mean_over_trainings(run, tmp_path):
    rows = [[f"a{i}", i, "" if i == 2 else i + 1, i % 4] for i in range(12)]
    table = write(tmp_path / "t.csv", ["arch", "accuracy_0", "accuracy_1", "x"], rows)
    assert run("calibrate", table, "--scores-in-table", "--out", tmp_path / "out")[0] == 0
    assert [row["accuracy"] for row in read(tmp_path / "out" / "scores.csv")][:4] == ["0.5", "1.5", "2.0", "3.5"]


@pytest.mark.parametrize(
    ("header", "change", "message"),
    [
        (["cell", "accuracy", "x"], {}, "has no column 'arch'; name one of cell, accuracy, x by --arch-column"),
        (["arch", "acc", "x"], {}, "has no column 'accuracy'; name one of arch, acc, x by --accuracy-column"),
        (["arch", "accuracy", "accuracy"], {}, "2 columns 'accuracy'"),
        (["arch", "accuracy", "x"], {1: ["a0", 3, 4]}, "a0 stands there 2 times"),
        (["arch", "accuracy", "x"], {2: ["a2", "nan", 4]}, "accuracy of row 3 is 'nan'"),
        (["arch", "accuracy", "x"], {2: ["a2", "", 4]}, "accuracy of row 3 is ''"),
        (["arch", "accuracy", "x"], {2: ["a2", "9 %", 4]}, "accuracy of row 3 is '9 %'"),
        (["arch", "accuracy", "x"], {2: ["", "9", 4]}, "row 3 names no architecture"),
        (["arch", "accuracy", "x"], {2: ["a2", "9"]}, "line 4: expected 3 cells, but got 2"),
        (
            ["arch", "accuracy", "x"],
            dict.fromkeys(range(7, 12)),
            "at least 8 architectures, better 20 to 200, but got",
        ),
        (["arch", "accuracy", "x"], dict.fromkeys(range(12)), "holds no table"),
        (["arch", "accuracy"], {i: [f"a{i}", i] for i in range(12)}, "holds no score beside accuracy"),
    ],
)
def test_a_table_that_will_not_do(run, tmp_path, header, change, message):
    rows = {i: [f"a{i}", i, i % 5] for i in range(12)} | change
    table = write(tmp_path / "t.csv", header, [row for row in rows.values() if row is not None])
    code, out, err = run("calibrate", table, "--scores-in-table", "--out", tmp_path / "out", "--json")
    assert code == 1
    assert message in err
    assert message in json.loads(out)["message"]


def test_what_is_no_architecture_of_the_space(run, cells, tmp_path):
    words = ["--space", "nasbench201", *SMALL, "--out", tmp_path / "out"]
    rows = [[row["arch"], row["accuracy"]] for row in read(cells)]
    wrong = write(tmp_path / "wrong.csv", ["arch", "accuracy"], [*rows[:3], ["|conv~0|", 4], *rows[4:]])
    code, _, err = run("calibrate", wrong, *words)
    assert code == 1
    assert "wrong.csv, row 4: " in err


def test_where_scores_come_from_must_be_said_once(run, cells, tmp_path):
    for words in ([], ["--space", "nasbench201", "--scores-in-table"]):
        code, _, err = run("calibrate", cells, *words)
        assert code == 2
        assert "choose one of --space, --model and --scores-in-table" in err
    assert run("calibrate", cells, "--scores-in-table", "--workers", 2)[0] == 2
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    code, _, err = run("calibrate", cells, "--model", "x.py:f", "--out", tmp_path / "full")
    assert code == 1
    assert "holds files but no calibration" in err
