"""The notebooks run from top to bottom, at a small size, cell by cell in this process."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from pathlib import Path

import pytest
import torch
from reference.planted import write_planted

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


def cells_of(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def run_cells(path):
    """Execute the code cells in order in one name space, which is returned."""
    import matplotlib

    matplotlib.use("Agg")
    names = {"__name__": "__main__"}
    for number, cell in enumerate(cells_of(path)):
        if cell["cell_type"] == "code":
            code = compile("".join(cell["source"]), f"{path.name}[{number}]", "exec")
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*non-interactive.*")  # plt.show() without a screen
                exec(code, names)
    matplotlib.pyplot.close("all")
    return names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs_and_explain_every_step(path):
    cells = cells_of(path)
    assert cells[0]["cell_type"] == "markdown"
    assert len({cell["id"] for cell in cells}) == len(cells)
    for before, cell in itertools.pairwise(cells):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            assert before["cell_type"] == "markdown", f"{cell['id']} stands without a word before it"


def test_there_are_notebooks():
    names = {path.stem for path in NOTEBOOKS}
    assert names >= {"first_scores", "mellor2021", "searches", "collapse", "recommended_score"}


def test_first_scores(monkeypatch, capsys):
    monkeypatch.setenv("NASWOT_SMALL", "1")
    names = run_cells(next(path for path in NOTEBOOKS if path.stem == "first_scores"))
    out = capsys.readouterr().out
    assert names["codes"].shape == (64, 2 * 8 * 256)
    assert names["n_regions"] > 12  # twelve lines in general position make more regions than lines
    assert names["singular"].log_det == float("-inf")
    assert "by log-ranks of NASWOT and SynFlow: " in out
    assert len(names["rows"]) == 8


@pytest.mark.slow
def test_mellor2021(monkeypatch, capsys, tmp_path):
    root = write_planted(tmp_path)
    monkeypatch.setenv("NASWOT_DATA", str(root))
    monkeypatch.setenv("NASWOT_SCORES", str(root))
    monkeypatch.setenv("NASWOT_NOTEBOOK_OUT", str(tmp_path / "run"))
    names = run_cells(next(path for path in NOTEBOOKS if path.stem == "mellor2021"))
    out = capsys.readouterr().out
    for rows in ("kernels", "taus", "robust", "curves", "table"):
        assert names[rows], f"no rows of {rows}"
    assert names["assisted"] == pytest.approx(20 / 21, abs=0.01)
    assert "unknown benchmark" in out or "none of" in out  # panels of Figure 3 whose tables the planted root lacks
    assert "noise  0.0   N=1: 0." in out


def test_searches(monkeypatch, capsys):
    monkeypatch.setenv("NASWOT_SMALL", "1")
    names = run_cells(next(path for path in NOTEBOOKS if path.stem == "searches"))
    best = names["bench"].column("digits").max()
    assert names["found"].best.values[0] > 85
    assert all((curve[1:] >= curve[:-1]).all() and curve[-1] <= best for curve in names["curves"].values())
    assert min(names["reached"]) > 60
    accuracies, sizes = zip(*(record.values for record in names["front"]), strict=True)
    assert sorted(accuracies, reverse=True) == list(accuracies)
    assert sorted(sizes) == list(sizes)
    assert "s of training, had it been real" in capsys.readouterr().out


def test_collapse(monkeypatch, capsys):
    monkeypatch.setenv("NASWOT_SMALL", "1")
    names = run_cells(next(path for path in NOTEBOOKS if path.stem == "collapse"))
    out = capsys.readouterr().out
    assert set(names["methods"]) == {"darts", "darts_es", "sdarts_rs", "sdarts_adv", "gdas", "pc_darts"}
    assert len(names["curves"]) == 18
    assert torch.allclose(names["weights"].sum(1), torch.ones(14))
    assert out.count("eigenvalue 0.") == 3
    archs = {row["arch"] for row in names["by_score"].history}
    assert names["by_score"].arch in archs


@pytest.mark.slow
def test_recommended_score(monkeypatch, capsys):
    monkeypatch.setenv("NASWOT_SMALL", "1")
    names = run_cells(next(path for path in NOTEBOOKS if path.stem == "recommended_score"))
    out = capsys.readouterr().out
    assert names["cell_sizes"]["live_params"] < names["cell_sizes"]["params"]
    early, last = names["contrasts"]
    assert early > last + 0.1  # "they fade"
    assert names["apart"] == sorted(names["apart"])  # what the log-determinant likes, the evidence does not
    assert names["plausible"] == sorted(names["plausible"], reverse=True)
    assert names["layers"]["skips and pools"].mean() > names["layers"]["all convolutions"].mean()
    assert names["taus"]["naswot"].high < 0 < names["taus"]["calm"].low
    assert names["table"].shape == (10, 3)
    assert names["found"]["calm"] == pytest.approx(
        (math.log(names["found"]["live_params"]) + math.log(names["found"]["live_units"])) / 2
        + 16 * names["found"]["code_evidence"]
    )  # the formula of the text
    assert out.count("without a score") == 4
