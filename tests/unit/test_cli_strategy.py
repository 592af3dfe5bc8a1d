"""``naswot search`` by strategies: what it prints and writes, resume, limits, wrong words."""

from __future__ import annotations

import csv
import json

import pytest
import torch

TINY = ("--build", "width=2", "--build", "n_cells=1", "--size", 8, "-N", 8, "--workers", 1)


def table(folder):
    with (folder / "trials.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_training_is_a_cascade_by_default_and_tests_once(run, tmp_path):
    words = ["search", "--train", *TINY, "-n", 6, "--kept", 2, "--brief-epochs", 1, "--epochs", 2]
    code, out, _ = run(*words, "--out", tmp_path / "a")
    assert code == 0
    assert "winner, trained on all images for 2 epochs: " in out
    rows = table(tmp_path / "a")
    assert [row["epochs"] for row in rows] == ["1", "1", "2"]
    assert rows[2]["arch"] in (rows[0]["arch"], rows[1]["arch"])
    assert {row["scored_untrained"] for row in rows} == {"6"}
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert summary["winner"]["arch"] == rows[2]["arch"]
    assert summary["final"]["epochs"] == 2
    assert 0 <= summary["final"]["test_accuracy"] <= 100
    assert summary["options"]["evaluator"]["n_valid"] == round(0.25 * 1438)
    weights = torch.load(tmp_path / "a" / "weights.pt", weights_only=True)
    assert weights["stem.0.weight"].shape[0] == 2
    again, out_again, _ = run(*words, "--out", tmp_path / "a")
    assert again == 0
    assert table(tmp_path / "a") == rows
    assert "test accuracy" in out_again
    code, out, _ = run("report", tmp_path / "a")
    assert code == 0


def test_a_benchmark_of_a_part_of_its_space_is_searched_in_that_part(run, tmp_path):
    words = ["search", "--benchmark", "nasbench201_digits", "--strategy", "regularized_evolution(population=5)"]
    code, out, _ = run(*words, "--evaluations", 12, "--workers", 1, "--out", tmp_path / "b", "--json")
    assert code == 0
    summary = json.loads(out)
    assert (summary["trials"], summary["failed"], summary["stopped"]) == (12, 0, "budget")
    rows = table(tmp_path / "b")
    assert float(summary["winner"]["scores"]["test_accuracy"]) == max(float(row["test_accuracy"]) for row in rows)
    assert (tmp_path / "b" / "search.png").stat().st_size > 1000


def test_several_objectives_give_a_front(run, tmp_path):
    words = ["search", "--strategy", "random", *TINY, "-n", 12, "--objective", "naswot", "--objective=-params"]
    code, out, _ = run(*words, "--out", tmp_path / "c", "--json")
    assert code == 0
    front = json.loads(out)["front"]
    points = [(point["scores"]["naswot"], -point["scores"]["params"]) for point in front]
    assert points == sorted(points, reverse=True)
    assert [p[1] for p in points] == sorted(p[1] for p in points)
    assert (tmp_path / "c" / "front.png").exists()


def test_limits_hold_and_help_is_counted(run, tmp_path):
    words = ["search", "--strategy", "regularized_evolution", *TINY, "--evaluations", 8, "--objective", "params"]
    code, out, _ = run(
        *words, "--max-params", 2200, "--warm-up", 10, "--keep", 4, "--prescreen", 2, "--out", tmp_path / "d", "--json"
    )
    assert code == 0
    assert json.loads(out)["scored_untrained"] >= 10
    assert max(float(row["params"]) for row in table(tmp_path / "d")) <= 2200


def test_more_evaluations_go_on_and_the_new_winner_is_trained(run, tmp_path):
    words = ["search", "--train", "--strategy", "random", *TINY, "--epochs", 1, "--out", tmp_path / "g"]
    winners = set()
    for n in (1, 3, 5):
        code, out, err = run(*words, "--evaluations", n, "--json")
        assert code == 0, err
        winners.add(json.loads(out)["winner"]["arch"])
        assert "test_accuracy" in json.loads(out)["final"]
        assert len(table(tmp_path / "g")) == n
    assert len(winners) > 1


def test_latency_may_be_an_objective_in_workers_and_at_several_lengths(run, tmp_path):
    words = ["search", "--train", *TINY, "-n", 3, "--kept", 2, "--brief-epochs", 1, "--epochs", 2, "--workers", 2]
    code, _, err = run(
        *words, "--objective", "valid_accuracy - 0.01*latency", "--max-latency", 1e6, "--out", tmp_path / "h", "--json"
    )
    assert code == 0, err
    rows = table(tmp_path / "h")
    by_arch = {row["arch"]: row["latency"] for row in rows}
    assert all(float(row["latency"]) > 0 and row["latency"] == by_arch[row["arch"]] for row in rows)


def test_the_number_of_workers_plays_no_part_and_open_trials_do(run, tmp_path):
    words = ["search", "--strategy", "regularized_evolution(population=3)", *TINY[:-2], "--evaluations", 8]
    for folder, more in (("one", ["--workers", 1]), ("two", ["--workers", 2])):
        assert run(*words, "--parallel", 2, *more, "--out", tmp_path / folder)[0] == 0
    archs = [[row["arch"] for row in table(tmp_path / folder)] for folder in ("one", "two")]
    assert archs[0] == archs[1]
    code, _, err = run(*words, "--parallel", 3, "--workers", 1, "--out", tmp_path / "one")
    assert code == 1
    assert "parallel 2 -> 3" in err


def test_lengths_of_training_are_those_of_the_benchmark(run, tmp_path):
    for strategy in ("cascade", "successive_halving(n=3, rounds=1)", "hyperband(rounds=1)"):
        words = ["search", "--benchmark", "nasbench201_digits", "--strategy", strategy, "-n", 6, "--kept", 2]
        code, out, err = run(*words, "--evaluations", 3, "--out", tmp_path / strategy[:7], "--workers", 1, "--json")
        assert code == 0, err
        assert json.loads(out)["winner"]["epochs"] == 5
        assert "the search chooses by test_accuracy" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-params", 5], "--max-params goes with --train, --strategy or --benchmark"),
        (["--strategy", "randm"], "did you mean 'random'"),
        (["--strategy", "random(p=1)"], "random has no option 'p'"),
        (["--strategy", ""], "`naswot list searchers` shows all"),
        (["--strategy", "nsga2(population=abc)"], "is a number (int), but got 'abc'"),
        (["--strategy", "predictor(model='tree')"], "expected model forest or gp"),
        (["--strategy", "random", "--objective", "a*b"], "no weighted sum"),
        (["--strategy", "random", "--objective", "accuracy"], "needs 'accuracy'"),
        (["--strategy", "random", "--max-params", 5, *TINY], "impossible constraint"),
        (["--strategy", "random", "--objective", "naswot", "--objective", "params", "--reject-below", 2], "quantile"),
        (["--train", "--benchmark", "nasbench201_digits"], "give one of them"),
        (["--benchmark", "nasbench201_digits", "--space", "darts"], "is about the space nasbench201"),
        (["--benchmark", "nasbench201_digits/digit"], "digit"),
        (["--train", "--recipe", "quik", *TINY], "did you mean 'quick'"),
        (["--train", "--valid-fraction", 1.5, *TINY], "fraction"),
    ],
)
def test_wrong_words_are_explained(run, tmp_path, words, message):
    code, _, err = run("search", *words, "--out", tmp_path / "e")
    assert code in (1, 2)
    assert message in err


def test_other_options_do_not_mix_in_one_folder(run, tmp_path):
    words = ["search", "--strategy", "random", *TINY, "-n", 2, "--out", tmp_path / "f"]
    assert run(*words)[0] == 0
    code, _, err = run(*words, "--seed", 1)
    assert code == 1
    assert "holds results of other options" in err


def test_strategies_are_listed(run):
    code, out, _ = run("list", "searchers", "--json")
    assert code == 0
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["regularized_evolution"]["options"] == "population=10, sample=3, replace=True"
    assert rows["nsga2"]["objectives"] == "several"
