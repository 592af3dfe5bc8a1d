"""``naswot search`` by a supernet: what it writes, how it goes on, what it refuses."""

from __future__ import annotations

import csv
import json

import pytest
import torch

from naswot.differentiable.preset import list_presets
from naswot.store import ResultStore

SMALL = ["--supernet", "width=2", "--supernet", "n_cells=1", "--search-epochs", "2", "--workers", "1"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def search(run):
    def call(*words, ok=True):
        code, out, err = run("search", *words)
        assert (code == 0) == ok, out + err
        return out if ok else out + err

    return call


def told(folder):
    return json.loads((folder / "summary.json").read_text())


def rows_of(folder):
    with (folder / "epochs.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_search_keeps_every_epoch_in_table_store_and_picture(search, tmp_path):
    out = tmp_path / "run"
    done = search("--strategy", "darts", *SMALL, "--out", str(out))
    rows = rows_of(out)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"train_loss", "valid_accuracy", "discretisation_gap", "eigenvalue", "entropy", "arch"} <= set(rows[0])
    assert (out / "epochs.png").stat().st_size > 10_000
    with ResultStore(out / "results.sqlite", read_only=True) as store:
        kept = {e.repeat: e for e in store}
    assert sorted(kept) == [1, 2]
    assert kept[2].arch == rows[1]["arch"] == told(out)["best"]["arch"]
    assert kept[2].scores["eigenvalue"] == pytest.approx(float(rows[1]["eigenvalue"]))
    assert told(out)["best"]["arch"] in done.replace("\n", "")


def test_the_same_command_adds_seeds_to_what_is_there(search, tmp_path):
    out = tmp_path / "run"
    words = ("--strategy", "darts", *SMALL, "--hessian-every", "0", "--brief-epochs", "1", "--out", str(out))
    search(*words, "--seeds", "2")
    first = told(out)
    times = {p.name: p.stat().st_mtime_ns for p in (out / "checkpoints").iterdir()}
    done = search(*words, "--seeds", "3")
    assert "± " in done
    assert "over 3 seeds; best of 3" in done
    assert told(out)["searches"][:2] == first["searches"]
    assert {name: (out / "checkpoints" / name).stat().st_mtime_ns for name in times} == times
    assert told(out)["mean"] == pytest.approx(sum(s["value"] for s in told(out)["searches"]) / 3)


def test_a_method_that_searches_four_times_keeps_the_best_by_a_brief_training(search, tmp_path):
    out = tmp_path / "run"
    search("--strategy", "r_darts_l2", *SMALL, "--hessian-every", "0", "--brief-epochs", "1", "--out", str(out))
    found = told(out)
    assert [one["plan"] for one in found["searches"]] == [0, 1, 2, 3]
    assert found["judged_by"] == "valid_accuracy"
    assert found["best"]["value"] == max(one["value"] for one in found["searches"])


def test_a_benchmark_judges_what_was_found(search, tmp_path):
    out = tmp_path / "run"
    done = search("--strategy", "gdas", *SMALL, "--benchmark", "nasbench201_digits", "--out", str(out), "--json")
    summary = json.loads(done)
    assert summary["judged_by"] == "test_accuracy"
    one = summary["searches"][0]
    assert (one["value"] is None) == (one["error"] is not None)


def test_the_winner_is_trained_and_tested_once(search, tmp_path):
    out = tmp_path / "run"
    words = (*SMALL, "--train", "--epochs", "1", "--build", "width=2", "--build", "n_cells=1", "--out", str(out))
    done = search("--strategy", "sdarts_rs", *words)
    assert "% test accuracy" in done
    assert f"naswot export '{told(out)['best']['arch']}'" in done.replace("\n", "")
    assert (out / "weights.pt").exists()


def test_options_of_a_preset_stand_in_brackets(search, tmp_path):
    words = (*SMALL, "--hessian-every", "0", "--out")
    search("--strategy", "darts_es(order=1)", *words, str(tmp_path / "a"))
    done = search("--strategy", "darts_es(speed=1)", *words, str(tmp_path / "b"), ok=False)
    assert "speed" in done
    assert "its options are" in done


def test_the_folder_has_pictures_of_what_the_search_ended_with(search, tmp_path):
    out = tmp_path / "run"
    search("--strategy", "darts", *SMALL, "--out", str(out))
    pictures = {path.name for path in out.glob("*.png")}
    assert pictures == {"epochs.png", "seed0-alphas.png", "seed0-landscape.png", "seed0-spectrum.png"}
    ends = json.loads((out / "seed0.json").read_text())
    assert len(ends["alphas"]["cell"]) == 6
    assert len(ends["eigenvalues"]) == 30


def test_what_is_shown_beside_an_architecture_is_its_own(search, tmp_path):
    words = (*SMALL, "--hessian-every", "0", "--select", "perturbation", "--out", str(tmp_path / "run"))
    done = search("--strategy", "darts", *words)
    row, best = rows_of(tmp_path / "run")[-1], told(tmp_path / "run")["best"]
    assert row["arch"] != best["arch"]  # it was read off in another way than by the alphas
    assert best["measured"]["valid_accuracy"] == pytest.approx(float(row["valid_accuracy"]))
    assert not {"discretisation_gap", "projected_accuracy", "n_skips_cell"} & set(best["measured"])
    assert "gap" not in done.splitlines()[0]


def test_nothing_need_be_trained(search, tmp_path):
    words = ("--supernet", "width=2", "--supernet", "n_cells=1", "--workers", "1", "--out", str(tmp_path / "run"))
    done = search("--strategy", "zero_cost_pt(proposals=1, validations=1)", *words, "--json")
    assert json.loads(done)["best"]["measured"] == {}


def test_a_batch_takes_the_learning_rate_along_where_the_method_says_so(search, tmp_path):
    name = "spos(population=2, generations=1, recalibration=1)"
    search("--strategy", name, *SMALL, "--batch-size", "64", "--out", str(tmp_path / "run"))
    plan = told(tmp_path / "run")["options"]["plans"][0]
    assert (plan["batch_size"], plan["weights"]["learning_rate"]) == (64, 0.5 * 64 / 1024)


def test_scores_help_by_name(search, tmp_path):
    helped = ("--prune-operations", "naswot=2", "--alpha-prior", "naswot", "--select", "best_scored_epoch")
    search("--strategy", "darts", *SMALL, "--hessian-every", "0", *helped, "--out", str(tmp_path / "run"))
    plan = told(tmp_path / "run")["options"]["plans"][0]
    assert [hook[""] for hook in plan["hooks"]] == ["PruneOperations", "AlphaPrior"]
    assert plan["selection"][""] == "BestScoredEpoch"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--strategy", "dartz"], "unknown search strategy 'dartz'; did you mean 'darts'?"),
        (["--strategy", "darts_rnn"], "darts_rnn is made for tokens"),
        (["--strategy", "darts", "--space", "ptb_rnn"], "ptb_rnn is made for tokens"),
        (
            ["--strategy", "pc_darts", "--space", "mobilenet", "--batch-size", "64"],
            "do not suit the supernet of mobilenet",
        ),
        (["--strategy", "darts", "--prune-operations", "naswot"], "expected PROXY=N"),
        (["--strategy", "darts", "--objective", "naswot"], "--objective does not go with a search by a supernet"),
        (["--strategy", "darts", "--proxies", "naswot"], "--proxies does not go with"),
        (["--strategy", "random", "--search-epochs", "3"], "--search-epochs goes with a search by a supernet"),
        (["--seeds", "3"], "--seeds goes with a search by a supernet"),
        (["--strategy", "darts", "--build", "width=4"], "of the supernet is --supernet"),
        (["--strategy", "darts", "--epochs", "3"], "of the supernet is --search-epochs"),
        (
            ["--strategy", "darts", "--space", "natsbench_sss"],
            "natsbench_sss has no supernet; these spaces have: darts",
        ),
        (["--strategy", "darts", *SMALL, "--batch-size", "1000"], "take a batch_size of at most"),
        (["--strategy", "p_darts", "--search-epochs", "2"], "one epoch for each of 3 stages"),
        (["--strategy", "darts", "--supernet", "depth=3"], "depth"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(words, message, search, tmp_path):
    assert message in search(*words, "--out", str(tmp_path / "run"), ok=False)


def test_presets_are_listed(run):
    _, out, _ = run("list", "presets", "--json")
    assert {row["name"] for row in json.loads(out)} == set(list_presets())
