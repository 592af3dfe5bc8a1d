"""Evaluator, screening, workers: identical numbers for any order, worker count and interruption."""

from __future__ import annotations

import dataclasses
import math
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import naswot
from naswot.data import get_data
from naswot.errors import InputError, OptionError, StoreError, WorkerError
from naswot.evaluate import Evaluator, batch_digest
from naswot.proxy import get_proxy
from naswot.run import pick_contender, sample_distinct, screen, summarise
from naswot.store import ResultStore
from naswot.types import Evaluation
from naswot.workers import worker_pool

SPACE = naswot.get_space("nasbench201")
SMALL = {"width": 4, "n_cells": 1}


def make(**changes):
    options = {"proxies": ("naswot", "params"), "batch_size": 8, "build": SMALL}
    return Evaluator(SPACE, get_data("digits", size=8), **{**options, **changes})


def numbers(rows):
    return {row.arch: (dict(row.mean), dict(row.spread), row.error) for row in rows}


def test_score_is_that_of_the_public_function():
    evaluator = make()
    genotype = (3, 2, 1, 4, 0, 3)
    done = evaluator(genotype)
    assert done.scores["naswot"] == naswot.score(evaluator.model(genotype), evaluator.batch(0))
    assert done.scores["params"] == sum(p.numel() for p in evaluator.model(genotype).parameters())
    assert done.arch == SPACE.format(genotype)
    assert set(done.seconds) == {"build", "score"}


def test_order_repeats_and_workers_change_no_number():
    genotypes = sample_distinct(SPACE, 10, seed=3)
    alone = screen(make(), genotypes, repeats=2)
    shuffled = screen(make(), genotypes[::-1], repeats=2)
    torch.manual_seed(99)
    with worker_pool(2) as executor:
        parallel = screen(make(), genotypes, repeats=2, executor=executor)
    with ThreadPoolExecutor(1) as threads:  # any executor serves
        elsewhere = screen(make(), genotypes, repeats=2, executor=threads)
    assert numbers(alone) == numbers(shuffled) == numbers(parallel) == numbers(elsewhere)
    assert [row.arch for row in alone] == [row.arch for row in parallel]


def test_repeats_draw_other_images_and_other_weights():
    evaluator = make()
    first, second = evaluator.batch(0), evaluator.batch(1)
    assert not torch.equal(first.inputs, second.inputs)
    weights = [next(evaluator.model((3,) * 6, repeat).parameters()) for repeat in (0, 1)]
    assert not torch.equal(*weights)
    other = [next(evaluator.model(g).parameters()) for g in ((3,) * 6, (2,) * 6)]
    assert not torch.equal(*other)  # the stem has the same shape in both, but the seed names the architecture


def test_global_generator_is_not_touched():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    make()((3, 2, 1, 4, 0, 3))
    assert torch.equal(before, torch.get_rng_state())


def test_singular_cell_is_minus_infinity_with_its_reason_and_ranks_last():
    rows = screen(make(), [(0,) * 6, (3,) * 6, (1,) * 6])
    assert rows[-1].genotype == (0,) * 6
    assert rows[-1].mean["naswot"] == -math.inf
    assert "same code" in rows[-1].reasons["naswot"]
    assert rows[-1].error is None


def test_failing_model_is_recorded_and_the_others_go_on(monkeypatch):
    class Broken(torch.nn.Module):
        def forward(self, x):
            raise RuntimeError("no such kernel")

    build = type(SPACE).build

    def sometimes(self, genotype, **options):
        return Broken() if genotype[0] == 0 else build(self, genotype, **options)

    monkeypatch.setattr(type(SPACE), "build", sometimes)
    rows = screen(make(build={}), [(0, 1, 2, 3, 4, 1), (3, 1, 0, 1, 0, 0)])
    assert rows[0].error is None
    assert rows[-1].error is not None
    assert "no such kernel" in rows[-1].error
    assert "no such kernel" in rows[-1].error


def test_known_results_come_from_the_store(tmp_path):
    evaluator = make()
    genotypes = sample_distinct(SPACE, 4)
    with ResultStore(tmp_path / "s.sqlite", options=evaluator.describe()) as store:
        first = screen(evaluator, genotypes, store=store)
        assert len(store) == 4
        explode = dataclasses.replace(evaluator)
        object.__setattr__(explode, "model", lambda *_: pytest.fail("evaluated again"))
        assert numbers(screen(explode, genotypes, store=store)) == numbers(first)
        more = screen(dataclasses.replace(evaluator, proxies=("naswot", "flops")), genotypes, store=store)
        assert {row.arch: row.mean["naswot"] for row in more} == {row.arch: row.mean["naswot"] for row in first}
        assert {"naswot", "params", "flops"} <= set(store.get(more[0].arch, 0).scores)


def test_only_the_proxies_that_are_not_known_are_worked_out(tmp_path, monkeypatch):
    asked = []
    whole = Evaluator._run

    def run(self, jobs, executor):
        asked.append((self.names, len(jobs)))
        return whole(self, jobs, executor)

    monkeypatch.setattr(Evaluator, "_run", run)
    genotypes = sample_distinct(SPACE, 5)
    with ResultStore(tmp_path / "s.sqlite", options=make().describe()) as store:
        screen(make(proxies=("naswot",)), genotypes[:3], store=store)
        rows = screen(make(proxies=("naswot", "params")), genotypes, store=store)
        screen(make(proxies=("params", "naswot")), genotypes, store=store)
    assert asked == [(("naswot",), 3), (("params",), 3), (("naswot", "params"), 2)]
    assert numbers(rows) == numbers(screen(make(proxies=("naswot", "params")), genotypes))


def test_a_new_proxy_that_fails_is_told_and_what_is_known_stays(tmp_path):
    genotypes = sample_distinct(SPACE, 2)
    with ResultStore(tmp_path / "s.sqlite", options=make().describe()) as store:
        screen(make(proxies=("naswot",)), genotypes, store=store)
        rows = screen(make(proxies=("naswot", "dss")), genotypes, store=store)
        assert all("dss" in row.error for row in rows)
        assert all(store.get(row.arch, 0).scores["naswot"] for row in rows)


def test_pruned_scores_each_class_once():
    evaluator = make(pruned=True)
    dead_end = (3, 3, 0, 1, 0, 0)  # node 2 reads the input and reaches nothing
    clean = SPACE.representative(dead_end)
    assert clean != dead_end
    seen = []
    rows = screen(evaluator, [dead_end, clean], on_result=seen.append)
    assert len(seen) == 2
    assert rows[0].mean == rows[1].mean
    assert make()(dead_end).scores["naswot"] > rows[0].mean["naswot"]  # the dead branch adds units


def test_sample_is_distinct_seeded_and_grows_by_extension():
    short, long = sample_distinct(SPACE, 50, seed=1), sample_distinct(SPACE, 80, seed=1)
    assert long[:50] == short
    assert len(set(long)) == 80
    assert sample_distinct(SPACE, 50, seed=2) != short
    with pytest.raises(OptionError, match="15,625"):
        sample_distinct(SPACE, 15_626)


def test_summary_of_repeats():
    def one(repeat, value, error=None):
        scores = {} if error else {"naswot": value}
        return Evaluation((1,), "a", scores, {"build": 1.0, "score": 2.0}, 0, repeat, {}, error)

    row = summarise([one(0, 1.0), one(1, 2.0), one(2, 6.0)], ["naswot"])
    assert row.mean == {"naswot": 3.0}
    assert row.spread["naswot"] == pytest.approx(math.sqrt(7.0))
    assert row.seconds == 3.0
    infinite = summarise([one(0, 1.0), one(1, -math.inf)], ["naswot"])
    assert infinite.mean["naswot"] == -math.inf
    assert infinite.spread["naswot"] is None
    assert summarise([one(0, 1.0)], ["naswot"]).spread["naswot"] is None
    assert summarise([one(0, 0.0, "it broke")], ["naswot"]).error == "it broke"


def test_contender_is_a_scored_other():
    rows = screen(make(), sample_distinct(SPACE, 5))
    chosen = pick_contender(rows, seed=4)
    assert chosen is not None
    assert chosen.arch != rows[0].arch
    assert pick_contender(rows, seed=4) == chosen
    assert pick_contender(rows[:1]) is None


def test_bad_options_are_refused_before_the_first_architecture():
    with pytest.raises(OptionError, match="at least 1 image"):
        make(batch_size=0)
    with pytest.raises(InputError, match="distinct images"):
        make(batch_size=100_000)
    with pytest.raises(OptionError, match="no build option 'widht'"):
        make(build={"widht": 4})
    with pytest.raises(OptionError, match="rank_by"):
        screen(make(), [(1,) * 6], rank_by="zen")


def test_description_names_all_that_determines_the_numbers():
    base = make().describe()
    assert make().describe() == base
    for change in ({"seed": 1}, {"batch_size": 9}, {"pruned": True}, {"build": {"width": 8}}):
        assert make(**change).describe() != base
    assert batch_digest(make().batch(0)) != batch_digest(make(seed=1).batch(0))


KILLED = """
import signal, sys
from naswot.cli import main
sys.argv = ["naswot", *sys.argv[1:]]
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a shell inherits it ignored
    main()
"""


def children_of(pid):
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(status.parent.name))
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def search_command(tmp_path):
    script = tmp_path / "run_naswot.py"
    script.write_text(KILLED)
    options = "--size 8 --batch-size 8 --train-epochs 0 --workers 2 --build width=4 --build n_cells=1 -n 60"
    return [sys.executable, str(script), "search", *options.split()]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds worker processes through /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_run_resumes_to_the_identical_table(tmp_path, search_command, how):
    whole = tmp_path / "whole"
    subprocess.run([*search_command, "--out", str(whole)], check=True, capture_output=True)
    broken = tmp_path / "broken"
    process = subprocess.Popen(
        [*search_command, "--out", str(broken)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    workers = wait_until_begun(process, broken / "results.sqlite")
    os.kill(process.pid, how)
    stderr = process.communicate(timeout=60)[1].decode()
    assert process.returncode == (130 if how == signal.SIGINT else -9)
    if how == signal.SIGINT:
        assert "the same command goes on" in stderr
        assert "Traceback" not in stderr
    deadline = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, workers)), "workers outlived their parent"
    assert not (broken / "table.csv").exists()
    subprocess.run([*search_command, "--out", str(broken)], check=True, capture_output=True)
    assert (broken / "table.csv").read_bytes() == (whole / "table.csv").read_bytes()
    with ResultStore(broken / "results.sqlite", options=None, read_only=True) as store:
        assert len(store) == 60


def wait_until_begun(process, path):
    """Wait for the first stored results; return the workers at that moment."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists():
            try:
                with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
                    if connection.execute("select count(*) from evaluations").fetchone()[0] >= 4:
                        return children_of(process.pid)
            except sqlite3.OperationalError:
                pass
        time.sleep(0.02)
    return pytest.fail(f"no result before the run ended: {process.poll()}")


def die(*_):
    os._exit(9)


def test_a_worker_that_dies_is_explained(monkeypatch):
    monkeypatch.setattr("naswot.evaluate.evaluate_chunk", die)
    with worker_pool(2) as executor, pytest.raises(WorkerError, match="a worker process died"):
        screen(make(), sample_distinct(SPACE, 3), executor=executor)


def test_proxies_with_options_reach_workers_and_the_store(tmp_path):
    once, twice = (make(proxies=(get_proxy("flops"), get_proxy("zen", repeats=n))) for n in (1, 2))
    assert pickle.loads(pickle.dumps(once.proxies)) == once.proxies
    genotypes = sample_distinct(SPACE, 2)
    here = [once(genotype).scores for genotype in genotypes]
    with worker_pool(2) as executor:
        there = {done.genotype: done.scores for done in once.map(genotypes, executor=executor)}
    assert [there[genotype] for genotype in genotypes] == here
    with ResultStore(tmp_path / "r.sqlite", options=once.describe()):
        pass
    with pytest.raises(StoreError, match="proxy_options"):
        ResultStore(tmp_path / "r.sqlite", options=twice.describe())


def test_proxy_that_is_not_installed_is_pickled_whole():
    odd = dataclasses.replace(get_proxy("params"), name="mine", options={})
    assert pickle.loads(pickle.dumps(odd)) == odd
