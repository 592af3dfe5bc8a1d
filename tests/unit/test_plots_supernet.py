"""Pictures of searches by a supernet: what is drawn, from which numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import naswot.plots_supernet as plots
from naswot.differentiable.landscape import Landscape
from naswot.errors import OptionError
from naswot.plots import new_figure
from naswot.supernet import make_supernet

PNG = b"\x89PNG"


@pytest.fixture
def figures(monkeypatch):
    """The figures that are made."""
    made = []

    def kept(width, height):
        made.append(new_figure(width, height))
        return made[-1]

    monkeypatch.setattr(plots, "new_figure", kept)
    return made


def history(values, name="eigenvalue", accuracy=90.0):
    return [{"epoch": e, name: v, "valid_accuracy": accuracy} for e, v in enumerate(values, start=1)]


def drawn(axes):
    """Points and labels of the thick lines."""
    lines = [line for line in axes.get_lines() if line.get_linewidth() > 1.5]
    return {line.get_label(): line.get_xydata().tolist() for line in lines}


def test_a_trajectory_has_the_mean_of_the_runs_and_each_run(figures, tmp_path):
    runs = {
        "darts": [history([1.0, 2.0, 3.0], accuracy=80.0), history([3.0, 4.0], accuracy=90.0)],
        "sdarts_rs": [history([0.5, 0.25, 0.1])],
    }
    path = tmp_path / "trajectories.png"
    plots.plot_trajectories(runs, path, title="S2", above=["valid_accuracy"], below=["eigenvalue"])
    assert path.read_bytes().startswith(PNG)
    above, below = figures[0].axes
    assert drawn(above)["darts"] == [[1, 85.0], [2, 85.0]]  # where all runs have a value
    assert drawn(below) == {"darts": [[1, 2.0], [2, 3.0]], "sdarts_rs": [[1, 0.5], [2, 0.25], [3, 0.1]]}
    assert len(below.get_lines()) == 5
    assert (above.get_ylabel(), below.get_ylabel()) == ("validation accuracy (%)", "dominant eigenvalue")


def test_several_quantities_of_a_panel_are_told_apart(figures, tmp_path):
    rows = [row | {"frobenius_norm": 7.0} for row in history([1.0, 2.0])]
    plots.plot_trajectories({"darts": [rows]}, tmp_path / "both.svg", title="both")
    labels = {"darts: dominant eigenvalue": "-", "darts: Frobenius norm": "--"}
    lines = {line.get_label(): line.get_linestyle() for line in figures[0].axes[1].get_lines()}
    assert lines.items() >= labels.items()
    assert "darts: validation accuracy (%)" in drawn(figures[0].axes[0])


def test_an_epoch_that_was_done_twice_counts_as_the_second_time():
    rows = [{"epoch": e, "eigenvalue": v} for e, v in ((1, 1.0), (2, 2.0), (3, 9.0), (2, 0.5))]
    assert plots.by_epoch(rows, "eigenvalue") == {1: 1.0, 2: 0.5}
    rows += [{"epoch": 3}, {"epoch": 4, "eigenvalue": 0.25}]
    assert plots.by_epoch(rows, "eigenvalue") == {1: 1.0, 2: 0.5, 4: 0.25}


def test_a_search_without_monitors_has_no_trajectory(tmp_path):
    with pytest.raises(OptionError, match="no run has measured any of valid_accuracy, projected_accuracy, eigenvalue"):
        plots.plot_trajectories({"darts": [[{"epoch": 1}]]}, tmp_path / "none.png", title="none")
    assert not (tmp_path / "none.png").exists()


def test_the_map_of_the_weights_leaves_out_what_a_row_does_not_have(figures, tmp_path):
    allowed = torch.ones(6, 5, dtype=torch.bool)
    allowed[2, 0] = False
    supernet = make_supernet("nasbench201", width=4, n_cells=1, allowed={"cell": allowed})
    supernet.alphas["cell"].data[0, 3] = 50.0
    plots.plot_alphas(supernet, tmp_path / "alphas.png", title="alphas")
    axes = figures[0].axes[0]
    shown = axes.get_images()[0].get_array()
    assert shown.mask.sum() == 1
    assert shown.mask[2, 0]
    np.testing.assert_allclose(shown[0], [0, 0, 0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(shown[2, 1:], [0.25] * 4, atol=1e-6)
    assert [label.get_text() for label in axes.get_xticklabels()] == list(supernet.groups[0].options[0])
    plots.plot_alphas(supernet, tmp_path / "a.svg", title="a", weights={"cell": torch.full((6, 5), 0.5)})
    assert float(figures[1].axes[0].get_images()[0].get_array()[0, 0]) == 0.5


def test_options_that_differ_from_row_to_row_are_named_in_their_fields(figures, tmp_path):
    supernet = make_supernet("robustdarts_s1", width=4, n_cells=2)
    plots.plot_alphas(supernet, tmp_path / "s1.png", title="S1")
    for axes, group in zip(figures[0].axes, supernet.groups, strict=False):
        assert axes.get_title() == group.name
        assert [text.get_text() for text in axes.texts] == [name for row in group.options for name in row]


def test_spectra_share_their_bins_and_the_largest_eigenvalue_is_told(figures, tmp_path):
    spectra = {"darts": np.array([-0.5, 0.0, 0.0, 2.0]), "sdarts_rs": np.array([0.0, 0.1])}
    plots.plot_spectrum(spectra, tmp_path / "spectrum.png", title="spectra", bins=5)
    axes = figures[0].axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["darts: largest 2", "sdarts_rs: largest 0.1"]
    assert sorted(line.get_xdata()[0] for line in axes.get_lines()) == [0.1, 2.0]
    bounds = {(patch.get_xy()[:, 0].min(), patch.get_xy()[:, 0].max()) for patch in axes.patches}
    assert bounds == {(-0.5, 2.0)}


def test_a_landscape_is_drawn_with_its_first_direction_to_the_right(figures, tmp_path, monkeypatch):
    offsets = np.linspace(-2, 2, 5)
    loss = np.add.outer(offsets**2, np.zeros(5))
    found = Landscape(offsets, loss, None, "eigenvectors")
    given = {}
    path = tmp_path / "landscape.png"
    from matplotlib.axes import Axes

    contourf = Axes.contourf

    def watched(self, x, y, z, *rest, **options):
        given.update(x=x, z=z)
        return contourf(self, x, y, z, *rest, **options)

    monkeypatch.setattr(Axes, "contourf", watched)
    plots.plot_landscape(found, path, title="loss around alpha")
    assert path.read_bytes().startswith(PNG)
    assert given["z"][0].tolist() == [4, 1, 0, 1, 4]  # matplotlib's rows go upwards
    axes = figures[0].axes[0]
    assert axes.get_xlabel() == "distance along the first eigenvector"
    assert figures[0].axes[1].get_ylabel() == "loss (nats)"
    with pytest.raises(OptionError, match="of 5 points a side has no accuracy"):
        plots.plot_landscape(found, path, title="", what="accuracy")
    with pytest.raises(OptionError, match="of 1 points a side has no loss"):
        plots.plot_landscape(Landscape(np.zeros(1), np.zeros((1, 1)), None, "random"), path, title="")
