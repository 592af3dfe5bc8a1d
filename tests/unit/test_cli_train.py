"""``naswot train``: what it prints and writes, how it goes on, what it refuses; and what is done after each epoch."""

from __future__ import annotations

import csv
import json
import sys

import pytest
import torch

from naswot.data import get_data
from naswot.data.images import ImageSet
from naswot.space import get_space
from naswot.training import loop
from naswot.training.callbacks import csv_history, each_of, read_history, tensorboard_history, write_history

SMALL = ("--size", 8, "--build", "width=4", "--build", "n_cells=1", "--epochs", 2)
ARCH = "|none~0|+|skip_connect~0|avg_pool_3x3~1|+|nor_conv_1x1~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def test_it_trains_tests_once_and_writes_everything(run, tmp_path, monkeypatch):
    tested = []
    monkeypatch.setattr(loop, "test_accuracy", lambda model, test: tested.append((model, test.split)) or 12.5)
    code, out, err = run("train", ARCH, *SMALL, "--out", tmp_path / "t", "--seed", 3)
    assert code == 0, err
    assert [split for _, split in tested] == ["test"]
    assert "test accuracy 12.50 %" in out
    assert out.index("validation accuracy") < out.index("test accuracy")
    summary = json.loads((tmp_path / "t" / "summary.json").read_text())
    assert summary["arch"] == ARCH
    assert summary["test_accuracy"] == 12.5
    assert summary["epochs"] == summary["recipe"]["epochs"] == 2
    with (tmp_path / "t" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["valid_accuracy"]) == summary["valid_accuracy"]
    weights = torch.load(tmp_path / "t" / "weights.pt", weights_only=True)
    model = get_space("nasbench201").build(get_space("nasbench201").parse(ARCH), width=4, n_cells=1)
    model.load_state_dict(weights)
    assert all(torch.equal(value, weights[name]) for name, value in tested[0][0].state_dict().items())
    monkeypatch.undo()
    assert loop.test_accuracy(model, get_data("digits", size=8, split="test")) > 15


def test_the_same_command_does_not_train_again(run, tmp_path):
    first = run("train", ARCH, *SMALL, "--out", tmp_path / "t", "--json")
    stamp = (tmp_path / "t" / "checkpoint.pt").stat().st_mtime_ns
    second = run("train", ARCH, *SMALL, "--out", tmp_path / "t", "--json")
    assert first[0] == second[0] == 0
    one, two = json.loads(first[1]), json.loads(second[1])
    assert {**one, "seconds": 0} == {**two, "seconds": 0}
    assert (tmp_path / "t" / "checkpoint.pt").stat().st_mtime_ns == stamp


def test_it_goes_on_after_ctrl_c(run, tmp_path, monkeypatch):
    expected = json.loads(run("train", ARCH, *SMALL, "--out", tmp_path / "whole", "--json")[1])
    write = csv_history(tmp_path / "t" / "history.csv")

    def interrupt(path):
        def call(epoch, metrics):
            write(epoch, metrics)
            raise KeyboardInterrupt

        return call

    with monkeypatch.context() as patch:
        patch.setattr("naswot.training.callbacks.csv_history", interrupt)
        code, out, err = run("train", ARCH, *SMALL, "--out", tmp_path / "t")
    assert code == 130
    assert "stopped; 1 epochs are kept in" in err
    assert "the same command goes on" in err
    assert "test accuracy" not in out
    assert not (tmp_path / "t" / "summary.json").exists()
    code, out, err = run("train", ARCH, *SMALL, "--out", tmp_path / "t", "--json")
    found = json.loads(out)
    assert {**found, "seconds": 0, "folder": ""} == {**expected, "seconds": 0, "folder": ""}
    assert len(read_history(tmp_path / "t" / "history.csv")) == 2


def test_another_training_does_not_get_into_the_folder(run, tmp_path):
    run("train", ARCH, *SMALL, "--out", tmp_path / "t")
    code, _, err = run("train", ARCH, *SMALL, "--out", tmp_path / "t", "--batch-size", 32)
    assert code == 1
    assert "holds a training with another recipe" in err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    code, _, err = run("train", ARCH, *SMALL, "--out", tmp_path / "other")
    assert code == 1
    assert "holds files but no training" in err
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.tex"]


def test_options_reach_the_training(run, tmp_path, monkeypatch):
    given = {}

    def note(model, train, valid, recipe, **options):
        given.update(options, model=model, train=train, valid=valid, recipe=recipe)
        return loop.TrainingResult(({"epoch": 1.0, "train_loss": 1.0, "valid_accuracy": 9.0},), 1.0)

    monkeypatch.setattr(loop, "train", note)
    monkeypatch.setattr(loop, "test_accuracy", lambda model, test: 1.0)
    words = ("--space", "darts", "--size", 32, "--build", "width=4", "--build", "n_cells=3", "--valid-fraction", 0.25)
    more = ("--lr", "0.3", "--precision", "bf16-mixed", "--set", "cutout=7", "--set", "precision=32-true")
    code, _, err = run(
        "train", "random", "--recipe", "darts_cifar", *words, *more, "-N", 9, "--devices", 2, "--out", tmp_path / "t"
    )
    assert code == 0, err
    recipe = given["recipe"]
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.cutout) == (600, 9, 0.3, 7)
    assert recipe.precision == "bf16-mixed"  # the option of its own wins
    assert given["devices"] == 2
    assert given["model"].auxiliary is not None  # the recipe counts a second classifier, so there is one
    assert len(given["valid"]) == round(0.25 * len(get_data("digits")))
    assert len(given["valid"]) + len(given["train"]) == len(get_data("digits"))
    assert given["valid"].split == given["train"].split == "train"


def test_random_is_a_seeds_own(run, tmp_path):
    archs = []
    for number, seed in enumerate((0, 0, 1)):
        words = (*SMALL[:-1], 1, "--seed", seed, "--out", tmp_path / str(number), "--json")
        archs.append(json.loads(run("train", "random", *words)[1])["arch"])
    assert archs[0] == archs[1] != archs[2]


def test_a_learning_rate_is_found_once(run, tmp_path, monkeypatch):
    words = ("train", ARCH, *SMALL, "--lr", "auto", "--out", tmp_path / "t")
    code, out, err = run(*words, "--json")
    assert code == 0, err
    found = json.loads((tmp_path / "t" / "learning_rate.json").read_text())
    assert 0.003 < found["suggestion"] < 3
    assert json.loads(out)["recipe"]["learning_rate"] == found["suggestion"]
    assert f"learning rate {found['suggestion']:.3g}, by a range test" in err
    monkeypatch.setattr("naswot.training.lr_finder.find_learning_rate", lambda *_, **__: pytest.fail("again"))
    assert run(*words)[0] == 0


@pytest.mark.parametrize(
    ("words", "rate"),
    [
        ((), 0.1 * 2**0.5),
        (("--lr", "0.3"), 0.3),
        (("--set", "learning_rate=0.3"), 0.3),
        (("--recipe", "darts_cifar", "--set", "final_learning_rate=0.02"), 0.1 * 2**0.5),
    ],
)
def test_a_learning_rate_among_the_genes_is_used_unless_one_is_given(run, tmp_path, monkeypatch, words, rate):
    used = []

    def note(model, train, valid, recipe, **options):
        used.append(recipe.learning_rate)
        return loop.TrainingResult(({"epoch": 1.0, "train_loss": 1.0, "valid_accuracy": 9.0},), 1.0)

    monkeypatch.setattr(loop, "train", note)
    monkeypatch.setattr(loop, "test_accuracy", lambda model, test: 1.0)
    code, out, err = run(
        "train", "lr0.1414", "--space", "evolved_graph", "--size", 8, *words, "--out", tmp_path / "t", "--json"
    )
    assert code == 0, err
    assert used == [pytest.approx(rate)]
    assert json.loads(out)["recipe"]["learning_rate"] == used[0]
    assert json.loads((tmp_path / "t" / "options.json").read_text())["recipe"]["learning_rate"] == used[0]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((ARCH, "--lr", "fast"), 2, "expected a number or auto, but got 'fast'"),
        ((ARCH, "--lr", "-1"), 1, "learning_rate above 0"),
        ((ARCH, "--recipe", "quik"), 1, "did you mean 'quick'"),
        ((ARCH, "--set", "cutuot=3"), 1, "a recipe has no 'cutuot'"),
        ((ARCH, "--build", "widht=3"), 1, "no build option 'widht'"),
        (("nonsense",), 1, "nonsense"),
        ((ARCH, "--device", "nowhere"), 2, "'nowhere' cannot be used here"),
        ((ARCH, "--valid-fraction", "1"), 2, "valid-fraction"),
        ((ARCH, "--precision", "16-mixed"), 1, "needs a GPU"),
    ],
)
def test_what_does_not_fit_is_explained(run, tmp_path, words, code, told):
    got, _, err = run("train", *words, "--size", 8, "--out", tmp_path / "t")
    assert got == code
    assert told in err


def test_a_diverged_training_is_explained(run, tmp_path):
    words = ("--lr", "1e30", "--set", "clip_norm=null", "--out", tmp_path / "t")
    code, _, err = run("train", ARCH, *SMALL, *words)
    assert code == 1
    assert "the training diverged" in err


def test_tensorboard_gets_each_quantity(run, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run("train", ARCH, *SMALL, "--out", tmp_path / "t", "--tensorboard")
    events = accumulator.EventAccumulator(str(tmp_path / "t" / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train_loss", "learning_rate", "valid_accuracy", "valid_loss"}
    rows = read_history(tmp_path / "t" / "history.csv")
    scalars = events.Scalars("valid_accuracy")
    assert [event.step for event in scalars] == [1, 2]
    assert [event.value for event in scalars] == pytest.approx([row["valid_accuracy"] for row in rows])


def test_a_missing_tensorboard_is_named(tmp_path, monkeypatch):
    from naswot.errors import MissingPackageError

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingPackageError, match=r"naswot\[tensorboard\]"), tensorboard_history(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_missing_fabric_is_named(monkeypatch):
    from naswot.errors import MissingPackageError
    from naswot.training.recipe import get_recipe

    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    data = ImageSet("two", torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), 2, (0.5,), (0.5,))
    with pytest.raises(MissingPackageError, match=r"naswot\[training\]"):
        loop.train(torch.nn.Flatten(), data, None, get_recipe("quick"))


def test_a_history_keeps_earlier_sessions_and_replaces_what_is_done_again(tmp_path):
    path, calls = tmp_path / "h.csv", []
    assert read_history(path) == []
    write_history(path, [{"epoch": 1.0, "train_loss": 0.1}, {"epoch": 2.0, "train_loss": 0.2}])
    call = each_of(csv_history(path), lambda epoch, metrics: calls.append(epoch))
    call(2, {"epoch": 2.0, "train_loss": 0.1 + 0.2, "valid_accuracy": 50.0})
    assert calls == [2]
    assert read_history(path) == [
        {"epoch": 1.0, "train_loss": 0.1},
        {"epoch": 2.0, "train_loss": 0.1 + 0.2, "valid_accuracy": 50.0},
    ]
    assert path.read_text().splitlines()[1] == "1,0.1,"
