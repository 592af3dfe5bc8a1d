"""Latency: measured, looked up, and how the two agree; tables as files."""

from __future__ import annotations

import re
import statistics
import time

import pytest
import torch
from scipy import stats
from torch import nn

import naswot
from naswot.errors import DataError, OptionError, UnknownNameError
from naswot.latency import LatencyTable, measure_latency
from naswot.seeding import numpy_generator
from naswot.spaces.macro_chain import MacroChain

SMALL = MacroChain(n_stages=2, depths=(1, 2), widths=(8, 16), kernels=(3,))
KEY = ("convk3-8s1", (8, 8, 8))


class Busy(nn.Module):
    """Works for some seconds of processor time, the first calls longer."""

    def __init__(self, seconds, first=0.0):
        super().__init__()
        self.seconds, self.calls, self.first = seconds, 0, first
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.seen += len(x)
        self.modes = torch.is_grad_enabled(), self.training, torch.get_num_threads()
        end = time.thread_time() + (self.first if self.calls <= 2 else self.seconds)
        while time.thread_time() < end:
            pass
        return x


def table(genotypes=None, **options):
    return LatencyTable.measure(SMALL, genotypes, repeats=1, input_size=8, **options)


def test_milliseconds_are_those_of_the_work():
    assert measure_latency(Busy(0.004), (1,), repeats=3) == pytest.approx(4, rel=0.2)


def test_the_first_passes_do_not_count():
    model = Busy(0.001, first=0.05)
    assert measure_latency(model, (1,), repeats=1) < 20
    assert model.calls == 3


def test_a_model_goes_back_as_it_came():
    model = Busy(0.0).train()
    measure_latency(model, (1,), batch_size=4, repeats=1)
    assert model.modes == (False, False, 1)
    assert model.training
    assert model.seen == 0


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"repeats": 0}, {"warm_up": -1}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(OptionError, match="at least 1"):
        measure_latency(nn.Identity(), (3, 8, 8), **options)


def test_a_latency_is_the_sum_over_the_blocks():
    measured = table()
    times = {key: float(number) for number, key in enumerate(measured.milliseconds)}
    numbered = LatencyTable(SMALL, measured.options, times, {})
    genotype = SMALL.parse("d2w8k3conv-d1w16k3mb6")
    keys = [
        ("stem-8s1", (3, 8, 8)),
        ("convk3-8s1", (8, 8, 8)),
        ("convk3-8s1", (8, 8, 8)),
        ("mb6k3-16s2", (8, 8, 8)),
        ("head-10s1", (16, 4, 4)),
    ]
    assert numbered.latency(genotype) == sum(times[key] for key in keys)


def test_a_whole_space_is_covered_and_each_block_measured_once():
    measured = table()
    assert all(measured.latency(genotype) > 0 for genotype in SMALL.genotypes())
    assert len(measured.milliseconds) == 2 + 2 * 4 + 4 * 4 + 2 * 4 + 2  # stems, both stages, later blocks, heads


def test_a_block_that_was_not_measured_is_named():
    partial = table([SMALL.parse("d1w8k3conv-d1w8k3conv")])
    with pytest.raises(UnknownNameError, match=r"has no block 'mb3k3-16s2' for inputs of shape 8x8x8; measure"):
        partial.latency(SMALL.parse("d1w8k3conv-d1w16k3mb3"))


def test_a_file_holds_everything(tmp_path):
    measured = table(width=2.0)
    measured.save(tmp_path / "laptop.csv")
    loaded = LatencyTable.load(tmp_path / "laptop.csv", SMALL)
    assert loaded == measured
    assert loaded.options == {"input_size": 8, "width": 2.0}
    assert (loaded.about["threads"], loaded.about["batch_size"], loaded.about["device"]) == ("1", 1, "cpu")
    assert loaded.about["torch"] == torch.__version__


def test_a_file_is_read_for_the_registered_space(tmp_path):
    space = naswot.get_space("macro_chain")
    measured = LatencyTable.measure(space, [(0,) * 16], repeats=1, input_size=8)
    measured.save(tmp_path / "laptop.csv")
    assert LatencyTable.load(tmp_path / "laptop.csv").latency((0,) * 16) == measured.latency((0,) * 16)
    with pytest.raises(DataError, match="was measured for the space 'macro_chain'"):
        LatencyTable.load(tmp_path / "laptop.csv", naswot.get_space("mobilenet"))


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        (r"# format: 1\n", "", "does not begin with format 1"),
        (r"# options: .*", "# options: {", "damaged comment line"),
        (r"# options: .*", "# options: 3", "does not begin with format 1, space and options"),
        (r"block,", "blocks,", "has the header 'blocks,input_shape,milliseconds'"),
        (r"(?s)(milliseconds\n).*", r"\1", "and 0 rows"),
        (r"(?m)^stem.*$", "stem-8s1,3x8x8", r"line \d+ of .* is 'stem-8s1,3x8x8'; expected a block, a shape"),
        (r"(?m)^(stem.*),.*$", r"\1,nan", r"line \d+ of"),
        (r"(?m)^(stem.*),.*$", r"\1,-1.0", r"line \d+ of"),
        (r"(?m)^(stem[^,]*),[^,]*", r"\1,3x8x", r"line \d+ of"),
        (r"(?m)^(stem.*)$", r"\1\n\1", "lists a block twice"),
        (r"# space: .*", '# space: "nasbench201"', "was measured for the space 'nasbench201'"),
        (r"# space: .*", "# space: [1]", r"was measured for the space \[1\]"),
    ],
)
def test_a_damaged_file_is_refused_in_words(pattern, replacement, message, tmp_path):
    path = tmp_path / "laptop.csv"
    table([SMALL.parse("d1w8k3conv-d1w8k3conv")]).save(path)
    text = path.read_text()
    damaged = re.sub(pattern, replacement, text)
    assert damaged != text
    path.write_text(damaged)
    with pytest.raises(DataError, match=message):
        LatencyTable.load(path)


def test_a_missing_file_and_a_missing_folder_are_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*laptop.csv"):
        LatencyTable.load(tmp_path / "laptop.csv")
    with pytest.raises(DataError, match="choose another folder"):
        table([(0,) * 8]).save(tmp_path / "none" / "laptop.csv")


@pytest.mark.slow
def test_the_sum_over_blocks_tells_what_is_measured():
    space, rng, genotypes = naswot.get_space("mobilenet"), numpy_generator(0), []
    for step in range(8):  # random, with fewer and fewer blocks
        absent = rng.random(21) < step / 7
        pairs = zip(space.sample(rng), space.choices, absent, strict=True)
        genotypes.append(tuple(6 if gone and n == 7 else min(gene, 5) for gene, n, gone in pairs))
    looked_up = LatencyTable.measure(space, genotypes, repeats=7, batch_size=4)
    sums = [looked_up.latency(genotype) for genotype in genotypes]
    models = map(space.build, genotypes)
    measured = [measure_latency(model, (3, 32, 32), repeats=11, batch_size=4) for model in models]
    assert stats.spearmanr(sums, measured).statistic > 0.7
    assert 1 / 2 < statistics.median(ours / real for ours, real in zip(sums, measured, strict=True)) < 2
