"""Curvature in the architecture parameters: known matrices, known networks, published numbers, nothing left behind."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from naswot.data import get_data
from naswot.differentiable.landscape import classification_loss
from naswot.differentiable.plan import SearchPlan
from naswot.differentiable.relaxations import softmax_weights
from naswot.differentiable.session import SearchSession
from naswot.differentiable.spectrum import Curvature, session_curvature, spectrum, supernet_curvature
from naswot.differentiable.tasks import ImageTask
from naswot.errors import ConvergenceError, DivergedError, OptionError
from naswot.seeding import numpy_generator, seeded, torch_generator
from naswot.space import get_space
from naswot.supernet import Mixing, make_supernet
from naswot.training.splits import three_way_split


def symmetric(n=12, seed=0):
    half = numpy_generator(seed).standard_normal((n, n))
    return (half + half.T) / 2


def quadratic(matrix, slope=None, at=None, **options):
    """Curvature of x H x / 2 + b x, float64."""
    n = len(matrix)
    x = nn.Parameter(torch.zeros(n, dtype=torch.float64) if at is None else torch.as_tensor(at))
    h = torch.as_tensor(matrix, dtype=torch.float64)
    b = torch.zeros(n, dtype=torch.float64) if slope is None else torch.as_tensor(slope)
    return Curvature(lambda: x @ h @ x / 2 + b @ x, [x], **options)


def images(n=8, size=4, channels=3, seed=0):
    generator = torch_generator(seed)
    return torch.randn(n, channels, size, size, generator=generator), torch.randint(10, (n,), generator=generator)


def supernet(space="nasbench201", seed=0, **options):
    with seeded(seed):
        model = make_supernet(space, **{"width": 4, "n_cells": 1, **options})
        for alpha in model.architecture_parameters():
            alpha.data.normal_()
    return model.train()


# ------------------------------------------------------------------------------------------------------ known matrices


def test_a_quadratic_has_the_eigenvalues_and_norms_that_numpy_gives():
    matrix, slope, at = symmetric(), np.arange(12.0), np.ones(12)
    found = spectrum(quadratic(matrix, slope, at))
    assert found.exact
    assert found.n == 12
    np.testing.assert_allclose(found.eigenvalues, np.linalg.eigvalsh(matrix), rtol=1e-10, atol=1e-12)
    assert found.eigenvalue == pytest.approx(np.linalg.eigvalsh(matrix)[-1], rel=1e-10)
    assert found.frobenius_norm == pytest.approx(np.linalg.norm(matrix), rel=1e-10)
    assert found.gradient_norm == pytest.approx(np.linalg.norm(matrix @ at + slope), rel=1e-10)


def test_the_dominant_eigenvalue_is_the_largest_and_not_the_largest_in_size():
    found = quadratic(np.diag([-9.0, 1.0, 2.0, 0.5]))
    assert spectrum(found).eigenvalue == pytest.approx(2.0)
    assert spectrum(found, exact_up_to=0).eigenvalue == pytest.approx(2.0, rel=1e-3)


def test_lanczos_agrees_with_the_exact_eigenvalue_to_a_thousandth():
    for n in (3, 30, 120):
        found = quadratic(symmetric(n, seed=n))
        exact, iterated = spectrum(found), spectrum(found, exact_up_to=0)
        assert (exact.exact, iterated.exact, iterated.eigenvalues) == (True, False, None)
        assert iterated.eigenvalue == pytest.approx(exact.eigenvalue, rel=1e-3)


def test_several_dominant_eigenvectors_come_largest_first():
    values, vectors = quadratic(np.diag([3.0, 7.0, -1.0, 5.0, 0.0])).dominant(2)
    np.testing.assert_allclose(values, [7.0, 5.0], rtol=1e-4)
    np.testing.assert_allclose(np.abs(vectors).T.round(3), [[0, 1, 0, 0, 0], [0, 0, 0, 1, 0]], atol=1e-2)
    with pytest.raises(OptionError, match="k from 1 to 4, below the 5 parameters, but got 5"):
        quadratic(np.eye(5)).dominant(5)


def test_the_estimated_frobenius_norm_converges_to_the_exact_one():
    curvature = quadratic(symmetric(40))
    exact = spectrum(curvature).frobenius_norm
    assert spectrum(curvature, exact_up_to=0).frobenius_norm == pytest.approx(exact, rel=0.15)
    assert curvature.frobenius_estimate(2000) == pytest.approx(exact, rel=0.02)
    assert curvature.frobenius_estimate(4) == curvature.frobenius_estimate(4)
    assert curvature.frobenius_estimate(4, seed=1) != curvature.frobenius_estimate(4)


def test_weight_decay_stands_on_the_diagonal_and_in_the_gradient():
    matrix, at = symmetric(), np.ones(12)
    found = quadratic(matrix, at=at, weight_decay=0.25)
    np.testing.assert_allclose(found.hessian(), matrix + 0.25 * np.eye(12), atol=1e-12)
    np.testing.assert_allclose(found.gradient, matrix @ at + 0.25, atol=1e-12)
    decayed, plain = (spectrum(quadratic(matrix, weight_decay=d), exact_up_to=0).eigenvalue for d in (0.25, 0.0))
    assert decayed - plain == pytest.approx(0.25, rel=1e-3)


def test_only_the_entries_of_the_mask_count():
    matrix, mask = symmetric(6), torch.tensor([True, False, True, True, False, True])
    found = quadratic(matrix, masks=[mask])
    assert found.n == 4
    np.testing.assert_allclose(found.hessian(), matrix[np.ix_(mask.numpy(), mask.numpy())], atol=1e-12)


def test_a_loss_without_curvature_has_none():
    x, y = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    found = Curvature(lambda: x.sum(), [x, y])
    assert found.gradient.tolist() == [1, 1, 1, 0, 0]
    assert not found.hessian().any()


def test_the_example_of_the_published_logs_has_its_stored_eigenvalues(data_root):
    stored = json.loads((data_root / "robustdarts_logs" / "example_hessian.json").read_text())
    found = spectrum(quadratic(np.array(stored["H"])))
    assert found.n == 56
    np.testing.assert_allclose(found.eigenvalues, stored["eigenvalues"], atol=1e-12)
    assert found.eigenvalue == pytest.approx(0.5082562269022434, abs=1e-12)
    iterated = spectrum(quadratic(np.array(stored["H"])), exact_up_to=0)
    assert iterated.eigenvalue == pytest.approx(found.eigenvalue, rel=1e-3)


def test_the_second_difference_matrix_has_its_known_eigenvalues():
    n = 56
    matrix = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    known = 2 - 2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1))
    np.testing.assert_allclose(spectrum(quadratic(matrix)).eigenvalues, known, atol=1e-12)


# -------------------------------------------------------------------------------------------------- what does not work


def test_an_eigenvalue_that_does_not_converge_says_how_near_it_came_and_what_helps():
    crowded = np.diag(1.0 + 1e-9 * np.arange(90))
    with pytest.raises(ConvergenceError) as caught:
        spectrum(quadratic(crowded), exact_up_to=0, tolerance=1e-14, max_iterations=2)
    text = str(caught.value)
    assert "after 2 Lanczos iterations the best estimate is 1 with a residual of" in text
    assert "max_iterations" in text
    assert "exact_up_to=90" in text
    residual = float(text.split("residual of ")[1].split(",", maxsplit=1)[0])
    assert 0.0 < residual < 1e-8  # that of the best vector so far, not a mere number
    assert spectrum(quadratic(crowded), exact_up_to=90).eigenvalue == pytest.approx(1.0 + 89e-9, abs=1e-12)


def test_curvature_that_is_not_finite_is_refused():
    x = nn.Parameter(torch.zeros(2))
    with pytest.raises(DivergedError, match=r"the gradient with respect to .* not finite in 2 of 2 places"):
        Curvature(lambda: x.sqrt().sum(), [x])
    y = nn.Parameter(torch.tensor([0.0, 1.0]))
    found = Curvature(lambda: (y**1.5).sum(), [y])
    with pytest.raises(DivergedError, match=r"the Hessian with respect to .* not finite in"):
        found.hessian()


# --------------------------------------------------------------------------------------------------------- a supernet


def test_the_hessian_of_a_supernet_is_that_of_finite_differences_of_its_gradient():
    model = supernet().double()
    inputs, labels = images()
    batch = inputs.double(), labels
    loss = classification_loss(model, batch)
    with supernet_curvature(model, loss, mode="eval") as curvature:
        found = curvature.hessian()
    model.eval()
    alpha = model.alphas["cell"]

    def slope():
        return torch.autograd.grad(loss(Mixing(softmax_weights(model))), alpha)[0].reshape(-1)

    step = 1e-5
    for column in (0, 13, 29):
        start = alpha.detach().clone()
        moved = []
        for sign in (1, -1):
            alpha.data.copy_(start)
            alpha.data.view(-1)[column] += sign * step
            moved.append(slope())
        alpha.data.copy_(start)
        difference = ((moved[0] - moved[1]) / (2 * step)).numpy()
        np.testing.assert_allclose(found[:, column], difference, rtol=1e-4, atol=1e-8)


def test_only_options_that_a_row_has_count_as_dimensions():
    cases = {("nasbench201",): 30, ("darts",): 224}
    for (space,), wanted in cases.items():
        model = supernet(space, n_cells=1 if space == "nasbench201" else 2)
        with supernet_curvature(model, classification_loss(model, images(4)), mode="eval") as curvature:
            assert curvature.n == wanted
    two = torch.zeros(6, 5, dtype=torch.bool)
    two[:, [1, 3]] = True
    model = supernet(allowed={"cell": two})
    with supernet_curvature(model, classification_loss(model, images(4)), mode="eval") as curvature:
        assert curvature.n == 12
        assert np.isfinite(curvature.hessian()).all()


@pytest.mark.parametrize(("space", "wanted"), [("robustdarts_s1", 56), ("robustdarts_s3", 84)])
def test_the_robustdarts_spaces_have_as_many_dimensions_as_the_published_hessians(space, wanted):
    model = supernet(space, n_cells=2)
    with supernet_curvature(model, classification_loss(model, images(4)), mode="eval") as curvature:
        assert curvature.n == wanted


def test_the_curvature_follows_the_mode_of_the_normalisation():
    model, (inputs, labels) = supernet(), images()

    def along(mode=None, scale=1.0):
        loss = classification_loss(model, (scale * inputs, labels))
        with supernet_curvature(model, loss, **({} if mode is None else {"mode": mode})) as curvature:
            return curvature.product(np.arange(30.0) / 30)

    np.testing.assert_array_equal(along(), along("train"))
    assert not np.allclose(along("train"), along("eval"), rtol=0.01)
    # statistics of the batch undo the scale of the images, running ones do not
    np.testing.assert_allclose(along("train", 10.0), along("train", 100.0), rtol=0.02, atol=1e-5)
    assert not np.allclose(along("eval", 10.0), along("eval", 100.0), rtol=0.5)


def test_lanczos_agrees_with_the_exact_hessian_of_a_supernet():
    model = supernet()
    with supernet_curvature(model, classification_loss(model, images())) as curvature:
        exact, iterated = spectrum(curvature), spectrum(curvature, exact_up_to=0, n_samples=60)
    assert iterated.eigenvalue == pytest.approx(exact.eigenvalue, rel=1e-3)
    assert iterated.frobenius_norm == pytest.approx(exact.frobenius_norm, rel=0.2)


# ------------------------------------------------------------------------------------------------------------ a search


@pytest.fixture(scope="module")
def task():
    few = get_data("digits").subset(torch.arange(64))
    return ImageTask(*three_way_split(few, valid_fraction=0.5), batch_size=16)


def test_the_same_batch_gives_the_same_numbers_and_nothing_is_left_behind(task):
    with SearchSession(get_space("nasbench201"), task, SearchPlan(), build={"width": 4, "n_cells": 1}) as session:
        session.next_epoch()
        for parameter in session.supernet.parameters():
            parameter.grad = torch.ones_like(parameter)
        before = {name: value.clone() for name, value in session.supernet.state_dict().items()}
        modes = [module.training for module in session.supernet.modules()]
        random = torch.get_rng_state()
        found = []
        for _ in range(2):
            with session_curvature(session) as curvature:
                found.append(spectrum(curvature).eigenvalues)
        after = session.supernet.state_dict()
        assert np.array_equal(found[0], found[1])
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert modes == [module.training for module in session.supernet.modules()]
        assert torch.equal(random, torch.get_rng_state())
        assert all(p.requires_grad and bool((p.grad == 1).all()) for p in session.supernet.parameters())


def test_the_weight_decay_of_the_alphas_is_on_the_diagonal_as_published(task):
    with SearchSession(get_space("nasbench201"), task, SearchPlan(), build={"width": 4, "n_cells": 1}) as session:
        found = {}
        for decayed in (True, False):
            with session_curvature(session, decayed=decayed) as curvature:
                found[decayed] = spectrum(curvature).eigenvalues
        with session_curvature(session) as usual, session_curvature(session, mode="train", decayed=True) as published:
            np.testing.assert_array_equal(usual.gradient, published.gradient)
    np.testing.assert_allclose(found[True] - found[False], 1e-3, rtol=1e-5)
    # a softmax is not changed by what is added to a whole row: six flat directions, which the decay alone bends
    assert int(np.isclose(found[True], 1e-3, rtol=0.02).sum()) >= 6
