"""Architects: where they lead on a problem worked out on paper, against a second derivative, and what they leave."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from naswot.data import get_data
from naswot.differentiable.architects import (
    Bilevel,
    FirstOrder,
    SecondOrder,
    SingleLevel,
    difference_product,
    exact_product,
)
from naswot.differentiable.preset import get_plan
from naswot.differentiable.relaxations import softmax_weights
from naswot.differentiable.session import SearchSession
from naswot.differentiable.tasks import ImageTask
from naswot.errors import OptionError
from naswot.seeding import seeded, torch_generator
from naswot.space import get_space
from naswot.supernet import Mixing, make_supernet
from naswot.training.splits import three_way_split

# ------------------------------------------------------------------------------------- a problem worked out on paper
#
# L_val = a w - 2 a + 1 and L_train = (w - a)^2. Where w = a, the gradient at fixed w is a - 2: it ends at (2, 2). One
# step of learning rate 1/2 leads from any w to w' = a, where L_val = (a - 1)^2: with its dependence it ends at (1, 1).


def scalar_problem(**options):
    alpha = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    w = nn.Parameter(torch.tensor(-2.0, dtype=torch.float64))
    problem = Bilevel(
        train_loss=lambda: w**2 - 2 * alpha * w + alpha**2,
        valid_loss=lambda: alpha * w - 2 * alpha + 1,
        weights=[w],
        alphas=[alpha],
        **{"learning_rate": 0.5, **options},
    )
    return problem, alpha, w


def settled(architect):
    problem, alpha, w = scalar_problem()
    for _ in range(600):
        (slope,), _ = architect.gradients(problem)
        with torch.no_grad():
            alpha -= 0.05 * slope
            w -= 0.1 * (2 * w - 2 * alpha)
    return alpha.item(), w.item()


@pytest.mark.parametrize("exact", [False, True])
def test_second_order_settles_at_one_where_first_order_settles_at_two(exact):
    assert settled(FirstOrder()) == pytest.approx((2.0, 2.0), abs=1e-6)
    assert settled(SecondOrder(exact=exact)) == pytest.approx((1.0, 1.0), abs=1e-6)


def test_gradients_of_the_scalar_problem_at_its_start():
    # by hand at (2, -2): w' = 2, so direct = w' - 2 = 0, v = alpha = 2, mixed derivative -2, in all 0 - 0.5 (-2) 2 = 2
    problem, *_ = scalar_problem()
    assert FirstOrder().gradients(problem) == ([torch.tensor(-4.0)], -7.0)
    (slope,), loss = SecondOrder().gradients(problem)
    assert (slope.item(), loss) == pytest.approx((2.0, 1.0))  # L_val at (2, 2)
    (slope,), loss = SingleLevel().gradients(problem)
    assert (slope.item(), loss) == (8.0, 16.0)


def test_momentum_and_weight_decay_belong_to_the_step():
    # w' = -2 - 0.5 (0.9 * 3 + (-8) + 0.1 (-2)) = 0.75: direct = -1.25, implicit = -0.5 (-2) 2
    problem, *_ = scalar_problem(momentum=0.9, weight_decay=0.1, buffers=[torch.tensor(3.0, dtype=torch.float64)])
    (slope,), loss = SecondOrder().gradients(problem)
    assert (slope.item(), loss) == pytest.approx((0.75, 2 * 0.75 - 3))
    problem = replace(problem, buffers=[None])  # before the first step of SGD
    assert SecondOrder().gradients(problem)[1] == pytest.approx(2 * (-2 - 0.5 * (-8 - 0.2)) - 3)


def test_a_learning_rate_of_nothing_is_first_order():
    problem, *_ = scalar_problem(learning_rate=0.0)
    assert SecondOrder().gradients(problem) == FirstOrder().gradients(problem)


# ------------------------------------------------------------------------------------------------------- a supernet


def smoothed(module):
    """Activations and pools without a kink, so that there is a second derivative everywhere."""
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU):
            setattr(module, name, nn.Softplus())
        elif isinstance(child, nn.MaxPool2d):
            setattr(module, name, nn.AvgPool2d(3, child.stride, 1))
        else:
            smoothed(child)
    return module


def supernet_problem(space="nasbench201", dtype=torch.float64, **options):
    generator = torch_generator(0)
    with seeded(0):
        net = smoothed(make_supernet(space, width=4, n_cells=1, n_classes=3, in_channels=1)).to(dtype)
        for alpha in net.architecture_parameters():
            alpha.data.normal_()
    batches = [
        (torch.randn(6, 1, 6, 6, generator=generator, dtype=dtype), torch.randint(3, (6,), generator=generator))
        for _ in range(2)
    ]

    def loss(batch):
        images, labels = batch
        return lambda: F.cross_entropy(net(images, Mixing(softmax_weights(net))), labels)

    weights = net.weight_parameters()
    buffers = [torch.randn(w.shape, generator=generator, dtype=dtype) for w in weights]
    problem = Bilevel(
        train_loss=loss(batches[0]),
        valid_loss=loss(batches[1]),
        weights=weights,
        alphas=net.architecture_parameters(),
        statistics=list(net.buffers()),
        buffers=buffers,
        **{"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 3e-4, **options},
    )
    return net, problem, batches


def flat(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors])


def relative(found, wanted):
    return float((flat(found) - flat(wanted)).norm() / flat(wanted).norm())


@pytest.mark.parametrize("space", ["nasbench201", "darts"])
def test_the_product_with_the_hessian_is_that_of_autograd_to_a_thousandth(space):
    _, problem, _ = supernet_problem(space)
    generator = torch_generator(1)
    v = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in problem.weights]
    slopes = torch.autograd.grad(problem.train_loss(), list(problem.weights), create_graph=True, allow_unused=True)
    along = sum((slope * part).sum() for slope, part in zip(slopes, v, strict=True) if slope is not None)
    wanted = torch.autograd.grad(along, list(problem.alphas), allow_unused=True, materialize_grads=True)
    assert flat(wanted).norm() > 1e-3
    assert relative(difference_product(problem, v), wanted) < 1e-3
    assert relative(exact_product(problem, v), wanted) < 1e-12


@pytest.mark.parametrize(("exact", "tolerance"), [(False, 1e-3), (True, 1e-10)])
def test_the_whole_gradient_is_that_of_differentiating_through_the_step(exact, tolerance):
    net, problem, batches = supernet_problem()
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    slopes = torch.autograd.grad(problem.train_loss(), list(problem.weights), create_graph=True)
    moved = {
        names[id(w)]: w - 0.1 * (0.9 * buffer + slope + 3e-4 * w)
        for w, slope, buffer in zip(problem.weights, slopes, problem.buffers, strict=True)
    }
    images, labels = batches[1]
    logits = torch.func.functional_call(net, moved, (images, Mixing(softmax_weights(net))))
    wanted = torch.autograd.grad(F.cross_entropy(logits, labels), list(problem.alphas))
    found, _ = SecondOrder(exact=exact).gradients(problem)
    assert relative(found, wanted) < tolerance
    assert relative(FirstOrder().gradients(problem)[0], wanted) > 0.05  # so that it matters


def test_weights_and_alphas_come_back_bit_for_bit_and_without_gradients():
    net, problem, _ = supernet_problem(dtype=torch.float32)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    SecondOrder().gradients(problem)
    assert all(map(torch.equal, before, net.parameters()))
    assert all(parameter.grad is None for parameter in net.parameters())


def test_weights_come_back_when_a_pass_fails():
    net, problem, _ = supernet_problem(dtype=torch.float32)
    before = {name: value.clone() for name, value in net.state_dict().items()}

    def fails():
        raise MemoryError

    with pytest.raises(MemoryError):
        SecondOrder().gradients(replace(problem, valid_loss=fails))
    after = net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name, _ in net.named_parameters())


@pytest.mark.parametrize(("exact", "passes"), [(False, 3), (True, 2)])
def test_running_statistics_see_the_training_batch_only(exact, passes):
    net, problem, _ = supernet_problem()
    SecondOrder(exact=exact).gradients(problem)
    assert net.stem[1].num_batches_tracked.item() == passes
    only, wanted, _ = supernet_problem()
    for _ in range(passes):
        wanted.train_loss()
    other, mixed, _ = supernet_problem()
    mixed.valid_loss()
    for _ in range(passes):
        mixed.train_loss()
    found, near, far = (model.stem[1].running_var for model in (net, only, other))
    assert (found - near).abs().max() < 0.1 * (far - near).abs().max()  # not equal: two are at w +- 0.01 v / |v|


def test_all_passes_drop_the_same_paths():
    net, problem, _ = supernet_problem()
    for module in net.modules():
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.4
    found = []
    for exact in (False, True):
        with seeded(3):
            found.append(SecondOrder(exact=exact).gradients(problem)[0])
    assert relative(*found) < 1e-3  # the difference of two other masks, divided by 0.02 / |v|, would be anything
    with seeded(3):
        SecondOrder().gradients(problem)
        first = torch.rand(4)
    with seeded(3):
        assert not torch.equal(first, torch.rand(4))  # what comes next sees other numbers


def test_a_gradient_of_nothing_has_a_product_of_nothing():
    _, problem, _ = supernet_problem()
    zeros = [torch.zeros_like(w) for w in problem.weights]
    assert not flat(difference_product(problem, zeros)).any()


def test_a_radius_that_is_not_positive_is_refused():
    with pytest.raises(OptionError, match=r"positive radius of the finite difference, but got 0\.0"):
        SecondOrder(radius=0.0)


# ----------------------------------------------------------------------------------------------------- in a search


def passes_of(name):
    """Passes of each kind in one epoch of two batches, and what the epoch measured."""
    seen = []

    class Counted(ImageTask):
        def loss(self, supernet, mixing, batch):
            seen.append(mixing.weights["cell"].requires_grad)
            return super().loss(supernet, mixing, batch)

    parts = three_way_split(get_data("digits").subset(range(160)), valid_fraction=0.5)
    task = Counted(*parts, batch_size=32)
    with SearchSession(get_space("nasbench201"), task, get_plan(name), build={"width": 4, "n_cells": 1}) as session:
        session.next_epoch()
        alphas = session.supernet.alphas["cell"].detach().clone()
    return len(seen), alphas


def test_second_order_costs_five_passes_where_first_order_costs_two():
    (first, plain), (second, unrolled) = passes_of("darts"), passes_of("darts_2nd")
    assert second / first == 5 / 2
    assert not torch.equal(plain, unrolled)
