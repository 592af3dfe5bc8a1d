"""The command line, run in this process where possible."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import pytest

from naswot.cli._options import number

MODELS = """
import torch
from torch import nn

def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))

class Larger(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 16, 3), nn.GELU(), nn.Flatten(), nn.Linear(16 * 36, 10))

class Raises(nn.Module):
    def forward(self, x):
        raise RuntimeError("no way through")

def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))

def fails():
    raise ValueError("bad recipe")

def text():
    return "not a model"

ready = small()
"""
SMALL_SEARCH = "search --size 8 -N 8 --build width=4 --build n_cells=1 --workers 1".split()


@pytest.fixture
def models(tmp_path):
    path = tmp_path / "models.py"
    path.write_text(MODELS)
    return str(path)


def test_search_writes_a_run_folder_and_trains_two(run, tmp_path):
    folder = tmp_path / "run"
    code, out, _ = run(*SMALL_SEARCH, "-n", 6, "--train-epochs", 1, "--repeats", 2, "--out", folder, "--json")
    assert code == 0
    summary = json.loads(out)
    assert summary["architectures"] == 6
    assert [item["role"] for item in summary["trained"]] == ["winner", "random"]
    assert all(0 <= item["accuracy"] <= 100 for item in summary["trained"])
    assert summary["trained"][0]["arch"] == summary["winner"]["arch"]
    assert (folder / "scores.png").read_bytes().startswith(b"\x89PNG")
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert [row["arch"] for row in rows] == sorted(row["arch"] for row in rows)
    finite = [float(row["naswot"]) for row in rows if row["naswot"] != "-inf"]
    assert max(finite) == pytest.approx(summary["winner"]["scores"]["naswot"])
    before = (folder / "table.csv").read_bytes()
    code, again, _ = run(*SMALL_SEARCH, "-n", 6, "--train-epochs", 1, "--repeats", 2, "--out", folder, "--json")
    assert code == 0
    assert json.loads(again)["trained"] == summary["trained"]
    assert (folder / "table.csv").read_bytes() == before


def test_search_shows_a_table_and_refuses_another_run_in_its_folder(run, tmp_path):
    folder = tmp_path / "run"
    code, out, _ = run(*SMALL_SEARCH, "-n", 5, "--train-epochs", 0, "--out", folder)
    assert code == 0
    assert "5 architectures in" in out
    assert "|nor_conv" in out
    code, _, err = run(*SMALL_SEARCH, "-n", 5, "--train-epochs", 0, "--out", folder, "--seed", 1)
    assert code == 1
    assert "seed" in err
    assert "Traceback" not in err


def test_score_explains(run, models):
    code, out, _ = run("score", f"{models}:small", "--size", 8, "-N", 4, "--json")
    assert code == 0
    details = json.loads(out)
    assert details["n_units"] == 4 * 36
    assert details["layers"][0] == {"module": "1", "function": "relu", "n_units": 144}
    assert details["log_det"] == pytest.approx(details["size_term"] + details["diversity_term"])
    code, out, _ = run("score", f"{models}:ready", "--size", 8, "-N", 4)
    assert code == 0
    assert "log|K_H|" in out


def test_rank_orders_models_and_keeps_the_failures(run, models, tmp_path):
    table = tmp_path / "table.csv"
    names = [f"{models}:{name}" for name in ("small", "Larger", "Raises", "linear", "fails")]
    code, out, _ = run("rank", *names, "--size", 8, "-N", 4, "--json", "--out", table)
    assert code == 0
    rows = json.loads(out)
    assert [row["model"].rpartition(":")[2] for row in rows[:2]] == ["Larger", "small"]
    assert {row["model"].rpartition(":")[2] for row in rows if row["error"]} == {"Raises", "linear", "fails"}
    assert rows[1]["params"] == 4 * 27 + 4 + 1440 + 10
    with table.open() as file:
        assert len(list(csv.DictReader(file))) == 5
    code, out, _ = run("rank", *names[:2], "--size", 8, "-N", 4, "--csv")
    assert code == 0
    assert out.startswith("model,naswot,naswot_size,naswot_diversity,params,flops,trainable_layers,seconds")
    code, out, _ = run("rank", *names, "--size", 8, "-N", 4)
    assert "no way through" in out
    assert run("rank", names[2], "--size", 8)[0] == 1


def test_rank_by_library_name(run):
    names = [
        "pytorchcv:resnet20_cifar10",
        "hf:bert_missing",
        "nasbench201:|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    ]
    code, out, _ = run("rank", *names, "--size", 32, "-N", 4, "--json")
    assert code == 0
    rows = {row["model"]: row for row in json.loads(out)}
    assert rows[names[0]]["naswot"] > 0
    assert "did you mean" in rows[names[1]]["error"]
    assert rows[names[2]]["naswot"] is None
    assert "same code" in rows[names[2]]["reason"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["score", "nowhere.py:net"], "there is no file nowhere.py"),
        (["score", "{models}:smal"], "did you mean 'small'"),
        (["score", "{models}:text"], "gave a str"),
        (["score", "{models}:fails"], "bad recipe"),
        (["score", "{models}:linear", "--size", "8"], "no activation"),
        (["score", "{models}:Raises", "--size", "8"], "no way through"),
        (["score", "tim:resnet18"], "did you mean 'timm'"),
        (["score", "resnet18"], "expected one of"),
        (["score", "{models}:small", "--data", "digts"], "did you mean 'digits'"),
        (["search", "--space", "nasbench20"], "did you mean 'nasbench201'"),
        (["search", "--proxies", "naswto", "-n", "1", "--train-epochs", "0"], "did you mean 'naswot'"),
        (["search", "-n", "20000"], "15,625"),
        (["search", "--proxies", ""], "at least one proxy"),
        (["search", "--build", "width=abc"], "cannot be built"),
        (["search", "--build", "width=0"], "at least 1"),
        (["search", "--out", "{folder}"], "holds files but no results"),
    ],
)
def test_errors_are_one_line_with_exit_code_1(run, models, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*[word.format(models=models, folder=tmp_path) for word in words])
    assert code == 1
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "words",
    [
        ["rank", "x.py:y", "--json", "--csv"],
        ["serach"],
        ["search", "--number", "0"],
        ["score"],
        ["search", "--device", "warp"],
        ["search", "--build", "width"],
    ],
)
def test_wrong_usage_is_exit_code_2(run, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*words)[0] == 2


def test_errors_are_json_too(run):
    code, out, _ = run("score", "nowhere.py:net", "--json")
    assert code == 1
    assert json.loads(out)["error"] == "DataError"


def test_list(run):
    code, out, _ = run("list", "--json")
    assert code == 0
    tables = json.loads(out)
    assert {"naswot", "params", "flops", "trainable_layers"} <= {row["name"] for row in tables["proxies"]}
    assert {"nasbench101", "nasbench201"} <= {row["name"] for row in tables["spaces"]}
    assert {"digits", "cifar10", "cifar100", "imagenet16", "image_folder"} <= {row["name"] for row in tables["data"]}
    code, out, _ = run("list", "proxies")
    assert code == 0
    assert "trainable_layers" in out


@pytest.mark.parametrize("command", ["search", "score", "rank", "list"])
def test_help_has_examples(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "Examples:" in out
    assert f"naswot {command}" in out


def test_completion_offers_names(tmp_path):
    words = "naswot search --space nas"
    environment = {"_NASWOT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "3", "PATH": "/usr/bin:/bin"}
    code = "from naswot.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert "plain,nasbench201" in done.stdout


def test_help_does_not_import_torch():
    code = "import sys, naswot.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_benchmarks_are_listed_told_and_converted(run, tmp_path):
    networks = {
        arch: {"test_acc": [90.0, 91.0, 92.0 + i], "params": 1000 + i, "flops": 5}
        for i, arch in enumerate(("00000000", "11111111", "22222222"))
    }
    (tmp_path / "nas-bench-macro_cifar10.json").write_text(json.dumps(networks))
    code, out, _ = run("benchmark", "list", "--json")
    assert code == 0
    assert {"nasbench201", "nasbench_macro"} <= {row["name"] for row in json.loads(out)}
    code, out, _ = run("benchmark", "info", "nasbench_macro", "--data-root", tmp_path, "--json")
    about = json.loads(out)
    assert (code, about["architectures"]) == (0, 3)
    first = about["columns"][0]
    assert (first["metric"], first["trainings"], first["least"], first["known"]) == ("test_accuracy", 3, 91.0, 3)
    assert "test_accuracy" in run("benchmark", "info", "nasbench_macro", "--data-root", tmp_path)[1]
    code, out, _ = run("benchmark", "convert", "nasbench_macro", "--data-root", tmp_path, "--out", tmp_path / "small")
    assert code == 0
    assert "3 architectures from" in out
    code, out, _ = run("benchmark", "info", "nasbench_macro", "--data-root", tmp_path / "small", "--json")
    assert json.loads(out)["columns"] == about["columns"]
    code, _, err = run("benchmark", "info", "nasbench_macro", "--data-root", tmp_path / "small" / "none")
    assert (code, "is no folder" in err) == (1, True)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((694.449, "694.45"), (1045466.0, "1,045,466"), (2.2843e53, "2.28e+53"), (-0.00142, "-0.00142")),
        *((0.0, "0.00"), (float("-inf"), "-inf"), (None, ""), (0.5, "0.50"), (-3.0, "-3")),
    ],
)
def test_numbers_keep_what_tells_them_apart(value, shown):
    assert number(value) == shown
