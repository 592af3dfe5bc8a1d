"""``naswot search --settle-best``: only contenders are repeated, and the table tells errors and repeats."""

from __future__ import annotations

import csv
import json

import pytest

SMALL = "search --size 8 -N 8 --build width=4 --build n_cells=1 --workers 1 --train-epochs 0 -n 12".split()
SETTLING = [*SMALL, "--proxies", "naswot,params", "--repeats", 4, "--settle-best", 3]


def table_of(folder):
    with (folder / "table.csv").open() as file:
        return list(csv.DictReader(file))


def test_table_and_summary_tell_errors_repeats_and_what_is_open(run, tmp_path):
    code, out, _ = run(*SETTLING, "--out", tmp_path / "run", "--json")
    assert code == 0
    summary = json.loads(out)
    told, rows = summary["settled"], table_of(tmp_path / "run")
    repeats = [int(row["repeats"]) for row in rows]
    assert told["passes"] == sum(repeats) < told["uniform"] == 48
    assert told["best"] == 3
    assert min(repeats) == 2  # the pilot is everyone here
    assert max(repeats) == 4
    assert sorted(told["contenders"]) == [row["arch"] for row in rows if row["contender"] == "True"]
    assert {row["repeats"] for row in rows if row["contender"] == "True"} == {"4"}
    errors = {row["repeats"]: float(row["standard_error"]) for row in rows if row["standard_error"]}
    assert errors["4"] == pytest.approx(told["noise"] / 2)
    assert errors["2"] > errors["4"]
    best = max((row for row in rows if row["naswot"] != "-inf"), key=lambda row: float(row["naswot"]))
    assert summary["winner"]["arch"] == best["arch"]
    assert summary["winner"]["scores"]["naswot"] == float(best["naswot"])


def test_the_shown_table_marks_contenders(run, tmp_path):
    code, first, _ = run(*SETTLING, "--out", tmp_path / "run", "--top", 12)
    assert code == 0
    told = json.loads((tmp_path / "run" / "summary.json").read_text())["settled"]
    assert f"{told['passes']} of 48 repeats" in first
    assert sum(" 4 ?  " in line for line in first.splitlines()) == len(told["contenders"]) > 0
    assert f"whether {len(told['contenders'])} marked ? are among the best 3 is not settled" in first
    _, clear, _ = run(*SETTLING[:-1], 12, "--out", tmp_path / "run")
    assert "the best 12 are settled" in clear
    assert " ?  " not in clear


def test_without_it_nothing_is_told_of_it(run, tmp_path):
    code, out, _ = run(*SMALL, "--proxies", "naswot", "--repeats", 2, "--out", tmp_path / "run", "--json")
    assert code == 0
    assert "settled" not in json.loads(out)
    assert list(table_of(tmp_path / "run")[0]) == ["arch", "naswot", "naswot_spread", "reason", "error"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--settle-best", 3], "--repeats of at least 2"),
        (["--settle-best", 3, "--repeats", 3, "--train"], "plain screening"),
        (["--settle-best", 3, "--repeats", 3, "--strategy", "random"], "plain screening"),
        (["--settle-best", 3, "--repeats", 3, "--benchmark", "nasbench201_digits"], "plain screening"),
    ],
)
def test_it_is_refused_where_it_says_nothing(run, words, message):
    code, _, err = run("search", *words)
    assert code == 2
    assert message in err
