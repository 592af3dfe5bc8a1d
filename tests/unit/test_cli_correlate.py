"""``naswot correlate``: what it writes, what it takes, what it says when something does not fit."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from naswot.run import sample_distinct
from naswot.space import get_space
from naswot.statistics import kendall

SMALL = "--space nasbench201 --metric accuracy --data digits --size 8 -N 8 --build width=2 --build n_cells=1".split()
PROXIES = "naswot,params,flops"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Twelve cells of which the larger is the better."""
    space = get_space("nasbench201")
    path = tmp_path_factory.mktemp("data") / "mine.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["arch", "accuracy"])
        for cell in sample_distinct(space, 12, seed=5):
            rows.writerow([space.format(cell), 9 * cell.count(3) + cell.count(2)])
    return path


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_table_of_ones_own(run, table, tmp_path):
    folder = tmp_path / "run"
    words = ["correlate", table, *SMALL, "--proxies", PROXIES, "--workers", 1, "--out", folder]
    code, out, _ = run(*words)
    assert code == 0
    assert "12 architectures of mine" in out
    written = {path.name for path in folder.iterdir() if path.suffix in (".csv", ".png", ".json")}
    assert written == {
        *("table.csv", "scores.csv", "summary.json", "agreement.png", "correlations.png", "scatter_mine.png")
    }
    found = {row["proxy"]: row for row in rows_of(folder / "table.csv")}
    assert float(found["params"]["tau"]) > 0.9
    assert found["params"]["over_size"] == ""
    scores = rows_of(folder / "scores.csv")
    by_hand = kendall([float(r["naswot"]) for r in scores], [float(r["mine/accuracy"]) for r in scores])
    assert float(found["naswot"]["tau"]) == pytest.approx(by_hand)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["architectures"] == 12
    assert summary["costs"].keys() == {*PROXIES.split(","), "all"}
    assert summary["costs"]["params"] < summary["costs"]["naswot"]


def test_goes_on_and_gives_the_same_with_two_workers(run, table, tmp_path):
    words = ["correlate", table, *SMALL, "--proxies", PROXIES, "--json"]
    _, whole, _ = run(*words, "--out", tmp_path / "a", "--workers", 2)
    run(*words, "--out", tmp_path / "b", "--workers", 1, "-n", 5)
    code, continued, _ = run(*words, "--out", tmp_path / "b", "--workers", 1)
    assert code == 0
    first, second = json.loads(whole), json.loads(continued)
    for summary in (first, second):
        for row in summary["rows"]:
            row.pop("cost_forwards")
    assert first["rows"] == second["rows"]


def test_refusals(run, table, tmp_path):
    code, _, err = run("correlate", table)
    assert code == 2
    assert "--space says" in err
    code, _, err = run("correlate", table, *SMALL, "--metric", "acuracy", "--out", tmp_path / "r", "--no-costs")
    assert code == 1
    assert "did you mean 'accuracy'" in err
    code, _, err = run("correlate", "nasbench2001")
    assert code == 1
    assert "did you mean 'nasbench201'" in err


def test_scores_every_data_set_of_a_benchmark(run, data_root, tmp_path):
    words = ["--data", "digits", "--size", 8, "-N", 8, "--build", "width=2", "--build", "n_cells=1", "-n", 9]
    words += ["--data-root", data_root, "--proxies", "naswot,params", "--no-costs", "--workers", 1, "--json"]
    code, out, _ = run("correlate", "nasbench201", *words, "--out", tmp_path, "--datasets", "cifar10,cifar100")
    assert code == 0
    rows = json.loads(out)["rows"]
    assert sorted({row["dataset"] for row in rows}) == ["cifar10", "cifar100"]
    assert (tmp_path / "scatter_cifar100.png").exists()
    assert json.loads(out)["ceiling"].keys() == {"cifar10"}
    scores = rows_of(tmp_path / "scores.csv")
    accuracies = np.array([float(row["cifar10/test_accuracy"]) for row in scores])
    assert ((accuracies > 5) & (accuracies < 95)).all()
