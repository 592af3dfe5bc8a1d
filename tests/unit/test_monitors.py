"""Monitors of a search: what they measure, that they leave nothing behind, and the landscape around its alphas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from naswot.data import get_data
from naswot.differentiable.landscape import landscape
from naswot.differentiable.monitors import (
    AccuracyMonitor,
    HessianMonitor,
    ProjectionMonitor,
    ShapeMonitor,
    default_monitors,
    has_collapsed,
    operations_of,
)
from naswot.differentiable.plan import SearchPlan
from naswot.differentiable.relaxations import Softmax
from naswot.differentiable.searching import run_supernet_search
from naswot.differentiable.session import SearchSession
from naswot.differentiable.spectrum import Curvature, session_curvature, spectrum, supernet_curvature
from naswot.differentiable.tasks import ImageTask
from naswot.errors import OptionError
from naswot.space import get_space
from naswot.supernet import Mixing, make_supernet
from naswot.training.splits import three_way_split

BUILD = {"width": 4, "n_cells": 1}
NONE, SKIP, CONV_1X1, CONV_3X3, POOL = range(5)


@pytest.fixture(scope="module")
def parts():
    few = get_data("digits").subset(torch.arange(64))
    return three_way_split(few, valid_fraction=0.5)


@pytest.fixture
def session(parts):
    with session_of(parts) as entered:
        entered.next_epoch()
        yield entered


def session_of(parts, plan=None, space="nasbench201", build=BUILD, **options):
    task = ImageTask(*parts, batch_size=16)
    return SearchSession(get_space(space), task, plan or SearchPlan(batch_size=16).lasting(4), build=build, **options)


def set_rows(session, options, strength=8.0):
    """Let the alphas of each edge say one option."""
    alpha = session.supernet.alphas["cell"]
    alpha.data.zero_()
    for row, option in enumerate(options):
        alpha.data[row, option] = strength


class Paths(Softmax):
    """Trains the strongest path only; remembers how often it was asked."""

    mixed = False

    def __init__(self):
        self.asked = 0

    def for_weights(self, supernet, clock):
        self.asked += 1
        drawn = int(torch.randint(5, ()))
        return supernet.mixing_of((drawn,) * 6)


class Told:
    """Stands in for the measuring of a task: gives numbers in turn, and keeps the mixings."""

    def __init__(self, *values):
        self.values, self.mixings = list(values), []

    def __call__(self, model):
        self.mixings.append(model.mixing)
        return {"accuracy": self.values.pop(0), "loss": 0.5}


# ------------------------------------------------------------------------------------------------------------ no trace


def test_a_search_with_monitors_is_the_search_without_them(parts):
    plan = SearchPlan(batch_size=16).lasting(2)
    plain, watched = (
        run_supernet_search("nasbench201", *parts, plan, build=BUILD, monitors=monitors)
        for monitors in ((), default_monitors())
    )
    state, other = plain.supernet.state_dict(), watched.supernet.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in state)
    assert plain.arch == watched.arch
    measured = {*watched.history[0]} - {*plain.history[0]}
    assert measured == {
        *("valid_accuracy", "valid_loss", "projected_accuracy", "discretisation_gap"),
        *("n_skips_cell", "entropy", "largest_weight", "eigenvalue", "frobenius_norm", "gradient_norm"),
    }
    assert all(
        row[name] == row_[name] for row, row_ in zip(plain.history, watched.history, strict=True) for name in row
    )


def test_a_measurement_repeats_and_leaves_modes_gradients_buffers_and_random_numbers(session):
    model = session.supernet
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, random = [m.training for m in model.modules()], torch.get_rng_state()
    for monitor in default_monitors():
        assert monitor.measure(session) == monitor.measure(session)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert modes == [m.training for m in model.modules()]
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.requires_grad and bool((p.grad == 1).all()) for p in model.parameters())


def test_a_network_that_draws_at_random_is_measured_with_the_same_numbers_each_time(parts):
    with session_of(parts, space="robustdarts_s4", build={"width": 4, "n_cells": 2}) as session:
        noisy = session.supernet.at(Mixing(session.relaxation.expected(session.supernet)))
        assert session.task.evaluate(noisy) != session.task.evaluate(noisy)
        found = []
        for _ in range(2):
            found.append(ProjectionMonitor().measure(session))
            torch.rand(1)
        assert found[0] == found[1]


def test_monitors_measure_every_so_many_epochs(parts):
    with session_of(parts, monitors=(ShapeMonitor(every=2),)) as session:
        rows = [session.next_epoch() for _ in range(4)]
    assert ["entropy" in row for row in rows] == [False, True, False, True]


# ------------------------------------------------------------------------------------------------------------- Hessian


def test_the_hessian_monitor_gives_the_spectrum_on_the_fixed_batch(session):
    with session_curvature(session, session.task.fixed_batch()) as curvature:
        wanted = spectrum(curvature)
    found = HessianMonitor().measure(session)
    assert found == {
        "eigenvalue": wanted.eigenvalue,
        "frobenius_norm": wanted.frobenius_norm,
        "gradient_norm": wanted.gradient_norm,
    }
    assert found["frobenius_norm"] >= found["eigenvalue"] > 0
    iterated = HessianMonitor(exact_up_to=0).measure(session)
    assert iterated["eigenvalue"] == pytest.approx(found["eigenvalue"], rel=1e-3)


def test_an_eigenvalue_that_does_not_converge_is_told_and_nothing_is_lost(parts, monkeypatch):
    crowded = np.diag(1.0 + 1e-9 * np.arange(30))
    monkeypatch.setattr(Curvature, "product", lambda self, vector: crowded @ vector.reshape(-1))
    hopeless = HessianMonitor(exact_up_to=0, tolerance=1e-16, max_iterations=1)
    with session_of(parts, monitors=(hopeless,)) as session:
        rows = [session.next_epoch() for _ in range(2)]
    for row in rows:
        assert "eigenvalue" not in row
        assert "did not converge" in row["hessian_warning"]
        assert "exact_up_to=30" in row["hessian_warning"]
    assert session.epoch == 2


def test_single_paths_have_no_curvature_unless_asked_for(parts):
    with session_of(parts, SearchPlan(relaxation=Paths(), batch_size=16)) as session:
        assert HessianMonitor().measure(session) == {}
        found = HessianMonitor(single_paths=True).measure(session)
        session.relaxation = Softmax()
        assert found == HessianMonitor().measure(session)


# ------------------------------------------------------------------------------------------ accuracy and its projection


def test_accuracy_is_that_of_the_expected_mixture(session, monkeypatch):
    told = Told(60.0)
    monkeypatch.setattr(session.task, "evaluate", told)
    assert AccuracyMonitor().measure(session) == {"valid_accuracy": 60.0, "valid_loss": 0.5}
    assert told.mixings[0].active is None
    torch.testing.assert_close(told.mixings[0].weights["cell"], torch.softmax(session.supernet.alphas["cell"], 1))


def test_accuracy_of_single_paths_is_a_mean_over_some_that_are_drawn_anew_each_epoch(parts, monkeypatch):
    with session_of(parts, SearchPlan(relaxation=Paths(), batch_size=16)) as session:
        told = Told(*range(0, 70, 10), *range(7), *range(7))
        monkeypatch.setattr(session.task, "evaluate", told)
        assert AccuracyMonitor(n_paths=7).measure(session) == {"valid_accuracy": 30.0, "valid_loss": 0.5}
        first = [mixing.active["cell"] for mixing in told.mixings]
        AccuracyMonitor(n_paths=7).measure(session)
        assert [mixing.active["cell"] for mixing in told.mixings[7:]] == first
        assert len(set(first)) > 1
        session.epoch += 1
        AccuracyMonitor(n_paths=7).measure(session)
        assert [mixing.active["cell"] for mixing in told.mixings[14:]] != first
        assert session.relaxation.asked == 0


def test_the_gap_is_what_the_mixture_has_above_its_architecture(session, monkeypatch):
    set_rows(session, (CONV_3X3,) * 6)
    told = Told(60.0, 45.0)
    monkeypatch.setattr(session.task, "evaluate", told)
    found = ProjectionMonitor().measure(session)
    assert found == {
        "valid_accuracy": 60.0,
        "valid_loss": 0.5,
        "projected_accuracy": 45.0,
        "discretisation_gap": 15.0,
    }
    assert told.mixings[1].weights["cell"].tolist() == [[0, 0, 0, 1, 0]] * 6
    assert told.mixings[1].active["cell"] == ((CONV_3X3,),) * 6


def test_there_is_no_gap_where_the_alphas_are_as_good_as_discrete(session):
    set_rows(session, (CONV_3X3, SKIP, CONV_1X1, POOL, CONV_3X3, CONV_1X1), strength=60.0)
    found = ProjectionMonitor().measure(session)
    assert found["discretisation_gap"] == 0.0
    assert found["valid_accuracy"] == found["projected_accuracy"] > 0


def test_what_tells_no_architecture_is_not_projected(parts, monkeypatch):
    class Silent(Softmax):
        def genotype(self, supernet):
            return None

    with session_of(parts, SearchPlan(relaxation=Silent(), batch_size=16)) as session:
        assert set(ProjectionMonitor().measure(session)) == {"valid_accuracy", "valid_loss"}
        assert set(ShapeMonitor().measure(session)) == {"entropy", "largest_weight"}


# --------------------------------------------------------------------------------------------------------------- shape


def test_skips_entropy_and_largest_weight_by_hand(session):
    set_rows(session, (SKIP, SKIP, CONV_3X3, SKIP, NONE, POOL), strength=0.0)
    found = ShapeMonitor().measure(session)
    assert found["entropy"] == pytest.approx(math.log(5))
    assert found["largest_weight"] == pytest.approx(0.2)
    set_rows(session, (SKIP, SKIP, CONV_3X3, SKIP, NONE, POOL), strength=math.log(16.0))
    found = ShapeMonitor().measure(session)
    assert found["n_skips_cell"] == 3
    assert found["largest_weight"] == pytest.approx(0.8)
    assert found["entropy"] == pytest.approx(-(0.8 * math.log(0.8) + 4 * 0.05 * math.log(0.05)))
    assert "warning" not in found


def test_skips_of_both_kinds_of_darts_cells_are_counted_among_eight(parts):
    build = {"width": 4, "n_cells": 2}
    with session_of(parts, space="darts", build=build) as session:
        names = session.supernet.groups[0].options[0]
        for alpha in session.supernet.architecture_parameters():
            alpha.data.zero_()
        session.supernet.alphas["normal"].data[:, names.index("skip_connect")] = 1.0
        session.supernet.alphas["reduce"].data[:, names.index("max_pool_3x3")] = 1.0
        session.supernet.alphas["reduce"].data[0, names.index("skip_connect")] = 2.0
        found = ShapeMonitor().measure(session)
    assert (found["n_skips_normal"], found["n_skips_reduce"]) == (8, 1)
    assert "collapsed in epoch 0: the normal operations of its architecture are skip_connect only" in found["warning"]


def test_a_collapse_is_told_once(parts):
    with session_of(parts, monitors=(ShapeMonitor(),)) as session:
        rows = []
        for options in ((SKIP, CONV_1X1, SKIP, SKIP, SKIP, SKIP), (SKIP,) * 6, (SKIP, NONE, POOL, SKIP, SKIP, SKIP)):
            set_rows(session, options)
            rows.append(session.next_epoch())
    assert [row["n_skips_cell"] for row in rows] == [5, 6, 4]
    assert ["warning" in row for row in rows] == [False, True, False]
    assert "collapsed in epoch 2" in rows[1]["warning"]


def test_collapse_is_judged_by_the_normal_cell_alone():
    for space, collapsed in (("nasbench201", (POOL, SKIP, NONE, SKIP, SKIP, SKIP)), ("nasbench201", (SKIP,) * 6)):
        supernet = make_supernet(space, **BUILD)
        assert has_collapsed(supernet, collapsed)
        assert not has_collapsed(supernet, (*collapsed[:5], CONV_1X1))
    supernet = make_supernet("robustdarts_s4", width=4, n_cells=2)
    noise, convolution = ({group.name: torch.eye(2)[[option] * 14] for group in supernet.groups} for option in (0, 1))
    for first, second in ((noise, convolution), (convolution, noise)):
        genotype = supernet.derive({"normal": first["normal"], "reduce": second["reduce"]})
        assert has_collapsed(supernet, genotype) == (first is noise)
        assert len(operations_of(supernet, genotype)["normal"]) == 8


# ------------------------------------------------------------------------------------------------------------ landscape


def test_the_landscape_has_the_loss_and_accuracy_of_the_alphas_in_its_middle(session):
    batch = session.task.fixed_batch()
    found = landscape(session.supernet, batch, n=3, span=2.0)
    model = session.supernet.at(Mixing(session.relaxation.expected(session.supernet))).eval()
    with torch.no_grad():
        logits = model(batch[0])
    session.supernet.train()
    assert found.offsets.tolist() == [-2.0, 0.0, 2.0]
    assert found.loss.shape == found.accuracy.shape == (3, 3)
    assert found.loss[1, 1] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, batch[1])), rel=1e-6)
    assert found.accuracy[1, 1] == pytest.approx(100 * float((logits.argmax(1) == batch[1]).double().mean()))
    assert len({*found.loss.round(6).ravel()}) > 5


def test_the_landscape_puts_the_alphas_back_bit_for_bit_even_after_an_error(session):
    model, batch = session.supernet, session.task.fixed_batch()
    model.alphas["cell"].data += 1e-3 * torch.pi
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, random = [m.training for m in model.modules()], torch.get_rng_state()
    landscape(model, batch, n=3)
    calls = []

    def failing(mixing):
        calls.append(mixing)
        if len(calls) == 4:
            raise ZeroDivisionError
        return torch.tensor(1.0)

    with pytest.raises(ZeroDivisionError):
        landscape(model, batch, n=3, loss=failing)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert modes == [m.training for m in model.modules()]
    assert torch.equal(random, torch.get_rng_state())


def test_the_loss_bends_along_the_eigenvectors_by_their_eigenvalues():
    """A quadratic loss of the softmax would not do; one of the logarithms of its ratios is quadratic in the alphas."""
    supernet = make_supernet("nasbench201", **BUILD)
    scales = torch.linspace(0.1, 3.0, 30, dtype=torch.float64).reshape(6, 5)

    def loss(mixing):
        logs = mixing.weights["cell"].double().log()
        return (scales * (logs - logs.mean(1, keepdim=True)) ** 2).sum() / 2

    with supernet_curvature(supernet, loss, mode="eval") as curvature:
        values, _ = curvature.dominant(2)
    found = landscape(supernet, (None, None), loss=loss, n=3, span=0.1, directions="eigenvectors")
    assert found.accuracy is None
    assert found.loss[2, 1] == pytest.approx(values[0] * 0.1**2 / 2, rel=1e-3)
    assert found.loss[1, 0] == pytest.approx(values[1] * 0.1**2 / 2, rel=1e-3)
    assert found.loss[0, 0] == pytest.approx(values.sum() * 0.1**2 / 2, rel=1e-3)
    random = landscape(supernet, (None, None), loss=loss, n=3, span=0.1, seed=1)
    assert random.loss.max() < found.loss.max()
    assert not np.array_equal(random.loss, landscape(supernet, (None, None), loss=loss, n=3, span=0.1, seed=2).loss)


def test_a_landscape_that_cannot_be_is_refused(session):
    batch = session.task.fixed_batch()
    with pytest.raises(OptionError, match="an odd n of at least 1 and a span above 0, but got n=4"):
        landscape(session.supernet, batch, n=4)
    with pytest.raises(OptionError, match="directions 'random' or 'eigenvectors', but got 'axes'"):
        landscape(session.supernet, batch, directions="axes")
    with pytest.raises(OptionError, match="Paths trains single paths"):
        landscape(session.supernet, batch, relaxation=Paths())
