"""`naswot benchmark build`: the same table for any order, number of workers and interruption; the file it writes."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from naswot.benchmark import Benchmark, Column, Table, get_benchmark
from naswot.benchmark_csv import open_csv, read_csv, write_csv
from naswot.data import get_data
from naswot.errors import DataError, OptionError
from naswot.space import get_space
from naswot.store import ResultStore
from naswot.training import build
from naswot.training.build import Recipe, choose_images, collect, distinct_networks, train_all
from naswot.workers import worker_pool

SPACE = get_space("nasbench201")
IMAGES = {"data": "digits", "size": 8, "noise": 1.0}
TINY = "benchmark build -n 3 --epochs 1 --images 128 --size 8 --build width=2 --build n_cells=1 --workers 1".split()


def make_recipe(**changes):
    train, held_out = (get_data("digits", size=8, noise=1.0, split=split) for split in ("train", "test"))
    train = choose_images(train, 128)
    made = Recipe(SPACE, train, held_out, images=IMAGES, build={"width": 2, "n_cells": 1}, epochs=1)
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="module")
def recipe():
    return make_recipe()


def built(recipe, path, genotypes, *, order=1, executor=None, n_seeds=2):
    """Table of the genotypes, trained in that order."""
    with ResultStore(path, options=recipe.describe()) as store:
        train_all(recipe, genotypes[::order], n_seeds, store=store, executor=executor)
        return collect(recipe, genotypes, n_seeds, store)


def assert_same(first, second):
    """Everything but the seconds, to the last bit."""
    assert list(first.genotypes) == list(second.genotypes)
    assert first.columns.keys() == second.columns.keys()
    for column, values in first.columns.items():
        if column.metric != "train_seconds":
            assert np.array_equal(values, second.columns[column], equal_nan=True), column


def test_neither_order_nor_workers_change_a_number(recipe, tmp_path):
    genotypes = distinct_networks(SPACE, 3, seed=5)
    table = built(recipe, tmp_path / "a", genotypes)
    assert_same(built(recipe, tmp_path / "b", genotypes, order=-1), table)
    with worker_pool(2) as executor:
        assert_same(built(recipe, tmp_path / "c", genotypes, executor=executor), table)
    assert table.build == {"width": 2, "n_cells": 1}
    assert table.images == IMAGES
    assert [c[1:] for c in table.columns] == [
        *(("test_accuracy", 1, seed) for seed in (0, 1)),
        *(("train_loss", 1, seed) for seed in (0, 1)),
        *(("train_seconds", 1, seed) for seed in (0, 1)),
        ("params", None, None),
        ("flops", None, None),
    ]
    n_parameters = [SPACE.n_parameters(g, n_classes=10, in_channels=3, width=2, n_cells=1) for g in genotypes]
    assert table.columns[Column("digits", "params")] == n_parameters


def test_the_trainings_of_a_network_differ_but_not_their_images(recipe):
    first, second = recipe.evaluator(0).model((3,) * 6), recipe.evaluator(1).model((3,) * 6)
    assert not np.array_equal(first.stem[0].weight.detach(), second.stem[0].weight.detach())
    losses = [build.train_one(recipe, (3,) * 6, number).scores["train_loss"] for number in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]
    assert make_recipe().describe() == recipe.describe()


def test_what_is_known_is_not_trained_again(recipe, tmp_path, monkeypatch):
    genotypes = distinct_networks(SPACE, 3, seed=5)
    built(recipe, tmp_path / "a", genotypes[:2], n_seeds=1)
    trained, train_one = [], build.train_one

    def record(*job):
        trained.append(job[1:])
        return train_one(*job)

    monkeypatch.setattr(build, "train_one", record)
    built(recipe, tmp_path / "a", genotypes)
    assert trained == [(genotypes[0], 1), (genotypes[1], 1), (genotypes[2], 0), (genotypes[2], 1)]


def test_a_training_that_diverges_keeps_its_accuracy(tmp_path):
    genotypes = [(3,) * 6]
    table = built(make_recipe(learning_rate=1e30), tmp_path / "a", genotypes, n_seeds=1)
    assert math.isnan(table.columns[Column("digits", "train_loss", 1, 0)][0])
    assert 0 <= table.columns[Column("digits", "test_accuracy", 1, 0)][0] <= 30


def test_all_that_determines_the_numbers_is_described(recipe):
    with pytest.raises(OptionError, match="positive learning_rate, but got epochs 0"):
        make_recipe(epochs=0)
    with pytest.raises(OptionError, match="has no build option 'depth'"):
        make_recipe(build={"depth": 1})
    described = recipe.describe()
    changes = [{"seed": 1}, {"epochs": 2}, {"learning_rate": 0.1}, {"batch_size": 32}, {"build": {"width": 4}}]
    changes += [{"train": choose_images(recipe.train, 127)}, {"held_out": choose_images(recipe.held_out, 9)}]
    for change in changes:
        assert make_recipe(**change).describe() != described, change


def test_networks_are_distinct_and_do_not_depend_on_their_number():
    drawn = distinct_networks(SPACE, 300, seed=1)
    assert len({SPACE.exact(genotype) for genotype in drawn}) == 300
    assert distinct_networks(SPACE, 20, seed=1) == drawn[:20]
    assert distinct_networks(SPACE, 20, seed=2) != drawn[:20]
    assert any(SPACE.representative(genotype) != genotype for genotype in drawn)  # as drawn, dead edges and all
    with pytest.raises(OptionError, match="at most 5,731 distinct networks"):
        distinct_networks(SPACE, 5732)


def test_images_are_chosen_once(recipe):
    digits = get_data("digits", size=8)
    assert choose_images(digits, None) is digits
    assert choose_images(digits, 64).images.equal(choose_images(digits, 64).images)
    assert not choose_images(digits, 64).images.equal(choose_images(digits, 64, seed=1).images)
    with pytest.raises(OptionError, match=r"1 to 1,438 images of digits \(train\), but got 1,439"):
        choose_images(digits, 1439)


# ---------------------------------------------------------------------------------------------------------- the command


KILLED = """
import os, signal, sys
from naswot.cli import main
from naswot.training import build

left, train_one = 4, build.train_one

def die_in_the_fourth(*job):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return train_one(*job)

build.train_one = die_in_the_fourth
sys.argv = ["naswot", *sys.argv[1:]]
main()
"""


def table_of(folder):
    """Lines of the table without the seconds, and its comments without what was measured in seconds."""
    lines = gzip.decompress((folder / "nasbench201_digits.naswot.csv.gz").read_bytes()).decode().splitlines()
    rows = [line.split(",") for line in lines if not line.startswith("#")]
    kept = [position for position, name in enumerate(rows[0]) if "seconds" not in name]
    return [line for line in lines if line.startswith("#") and "seconds" not in line], [
        [row[position] for position in kept] for row in rows
    ]


def test_a_stopped_build_goes_on_to_the_same_table(run, tmp_path, monkeypatch):
    broken, whole, train_one, jobs = tmp_path / "broken", tmp_path / "whole", build.train_one, []
    killed = subprocess.run([sys.executable, "-c", KILLED, *TINY, "--out", broken], capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert not list(broken.glob("*.gz"))

    def stop_in_the_second(*job):
        jobs.append(job[1:])
        if len(jobs) == 2:
            raise KeyboardInterrupt
        return train_one(*job)

    monkeypatch.setattr(build, "train_one", stop_in_the_second)
    code, _, err = run(*TINY, "--out", broken)
    assert code == 130
    assert "4 results are kept in" in err  # three before the kill, one more now
    monkeypatch.setattr(build, "train_one", train_one)
    code, out, _ = run(*TINY, "--out", broken, "--json")
    assert code == 0
    assert json.loads(out)["trainings"] == 6
    assert run(*TINY, "--out", whole)[0] == 0
    assert table_of(broken) == table_of(whole)


def test_a_built_file_is_a_benchmark(run, tmp_path):
    code, out, _ = run(*TINY, "--seeds", 1, "--out", tmp_path)
    assert code == 0
    path = tmp_path / "nasbench201_digits.naswot.csv.gz"
    assert str(path) in out
    code, out, _ = run("benchmark", "info", path, "--json")
    told = json.loads(out)
    assert (told["architectures"], told["build"]) == (3, {"width": 2, "n_cells": 1})
    assert told["images"] == IMAGES
    assert "networks: width=2, n_cells=1" in run("benchmark", "info", path)[1]
    assert len(get_benchmark(str(path))) == 3


def test_a_folder_of_other_files_or_options_is_refused(run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    code, _, err = run(*TINY, "--out", tmp_path)
    assert (code, "holds files but no results of a run" in err) == (1, True)
    run(*TINY, "--seeds", 1, "--out", tmp_path / "run")
    code, _, err = run(*TINY, "--seeds", 1, "--out", tmp_path / "run", "--noise", 0.5)
    assert (code, "images.noise 1.0 -> 0.5" in err) == (1, True)


# ---------------------------------------------------------------------------------------------------------------- files


@pytest.fixture
def benchmark():
    columns = {
        Column("digits", "test_accuracy", 5, 0): [78.55153, math.nan],
        Column("digits", "train_loss", 5, 0): [0.012345678, 1e-9],
        Column("digits", "flops"): [123_456_789_012, 7],
    }
    table = Table([(0, 1, 2, 3, 4, 0), (3,) * 6], columns, {"width": 4}, IMAGES)
    return Benchmark("mine", SPACE, table)


def test_a_file_gives_back_what_it_holds(benchmark, tmp_path):
    path = tmp_path / "mine.naswot.csv.gz"
    write_csv(benchmark, path, {"command": "naswot benchmark build: all"})
    again = open_csv(path)
    assert (again.name, again.space, again.source) == ("mine", SPACE, str(path))
    assert list(again.genotypes()) == list(benchmark.genotypes())
    assert (again.build, again.images, again.columns) == (benchmark.build, benchmark.images, benchmark.columns)
    assert np.array_equal(again.column("digits"), [78.5515, math.nan], equal_nan=True)
    assert again.column("digits", "train_loss").tolist() == [0.0123457, 1e-9]
    assert again.column("digits", "flops").tolist() == [123_456_789_012, 7]
    before = path.read_bytes()
    write_csv(benchmark, path, {"command": "naswot benchmark build: all"})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]
    with pytest.raises(DataError, match="cannot write"):
        write_csv(benchmark, tmp_path / "none" / "mine.naswot.csv.gz", {})


def test_a_damaged_file_is_explained(benchmark, tmp_path):
    path = tmp_path / "mine.naswot.csv.gz"
    with pytest.raises(DataError, match="there is no file"):
        read_csv(path)
    write_csv(benchmark, path, {})
    sound = path.read_bytes()
    text = gzip.decompress(sound)
    swapped = sound[:40] + bytes([sound[40] ^ 255]) + sound[41:]
    short = gzip.compress(text.rsplit(b",", 2)[0])
    for damaged in (sound[:-20], swapped, b"", b"arch,x", short, gzip.compress(text.replace(b"78.", b"seven"))):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"mine\.naswot\.csv\.gz (is damaged|has format None)"):
            read_csv(path)
    path.write_bytes(gzip.compress(text.replace(b"# format: 1", b"# format: 2")))
    with pytest.raises(DataError, match="has format 2, but format 1 is expected"):
        read_csv(path)
