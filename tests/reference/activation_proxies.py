"""Slow twins of the proxies that look at activations and features: numpy, loops, hooks and derivatives of their own.

They are given models whose activations are ``nn.ReLU`` modules out of place, in the mode to be scored, and copies at
that: running statistics move.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from reference.slow_kernel import slow_kernel
from torch import Tensor, nn


def outputs_of(model: nn.Module, images: Tensor, wanted: Callable[[nn.Module], bool]) -> list[tuple[nn.Module, Tensor]]:
    """(module, output) of every call of the modules wanted, in order."""
    seen: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        m.register_forward_hook(lambda m, args, out: seen.append((m, out.detach().clone())))
        for m in model.modules()
        if wanted(m)
    ]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return seen


def relu_bits(model: nn.Module, images: Tensor) -> list[np.ndarray]:
    """(N, D) bool for every call of an ``nn.ReLU``: where its output is above zero."""
    calls = outputs_of(model, images, lambda m: isinstance(m, nn.ReLU))
    return [(out.numpy() > 0).reshape(len(images), -1) for _, out in calls]


def lnwot(model: nn.Module, images: Tensor) -> float:
    """Sum of log-determinants by numpy."""
    return sum(np.linalg.slogdet(slow_kernel([bits * 1.0], [0.5]))[1] for bits in relu_bits(model, images))


def swap(model: nn.Module, images: Tensor) -> int:
    """A set of tuples, one for each unit."""
    return len({tuple(unit) for bits in relu_bits(model, images) for unit in bits.T.tolist()})


def linear_regions(model: nn.Module, images: Tensor) -> int:
    """A set of tuples, one for each image."""
    return len({tuple(image) for image in np.concatenate(relu_bits(model, images), axis=1).tolist()})


def apd(model: nn.Module, images: Tensor) -> float:
    """Norms as numpy has them."""
    ranks = spreads = 0.0
    for _, out in outputs_of(model, images, lambda m: isinstance(m, nn.BatchNorm2d)):
        matrix = out.double().numpy().reshape(len(images), -1)
        ranks += np.linalg.norm(matrix) ** 2 / np.linalg.norm(matrix, 2) ** 2
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            weight = module.weight.detach().double().numpy().ravel()
            spreads += np.linalg.norm(weight, 1) / np.linalg.norm(weight)
    return ranks * spreads


def erank(matrix: np.ndarray) -> float:
    """exp of the entropy of the normalised singular values."""
    values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    return math.exp(-sum(p * math.log(p) for p in values / values.sum() if p > 0))


def near(model: nn.Module, images: Tensor) -> float:
    """One repeat at the model's weights; blocks start at random, drawn in the order in which the layers run."""
    total = 0.0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = outputs_of(model, images, lambda m: isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.Linear | nn.ReLU))
        for _, out in layers:
            step = out.shape[2] if out.dim() == 4 else 1
            rows = []
            for image in out.numpy():
                if image.ndim == 1:
                    rows.append(image)
                else:
                    rows += [image[:, i, j] for j in range(image.shape[2]) for i in range(image.shape[1])]
            channels = out.shape[1]
            start = step * int(torch.randint(max(1, (len(rows) - channels) // step + 1), ()))
            total += erank(np.stack(rows[start : start + channels]))
    return total


def meco(model: nn.Module, image: Tensor, *, containers: bool = False) -> float:
    """``np.corrcoef`` and ``np.linalg.eigvals``, as in the original, in float64."""
    total = 0.0
    for _, out in outputs_of(model, image, lambda m: containers or not list(m.children())):
        if out.dim() == 4:
            correlations = np.nan_to_num(np.corrcoef(out[0].double().numpy().reshape(out.shape[1], -1)))
            total += np.linalg.eigvals(np.atleast_2d(correlations)).real.min()
    return total


def conditioning(model: nn.Module, images: Tensor) -> float:
    """Sum of smallest over largest singular value of the first image's maps, by numpy."""
    total = 0.0
    for _, out in outputs_of(model, images, lambda m: not list(m.children())):
        if out.dim() == 4:
            values = np.linalg.svd(out[0].double().numpy().reshape(out.shape[1], -1), compute_uv=False)
            total += values.min() / values.max()
    return total


def curvature(model: nn.Module, plane: Tensor, shape: tuple[int, ...], n_points: int, step: float = 1e-4) -> float:
    """Mean curvature along the circle by central differences; (D, 2) plane."""

    def outputs(turn: float) -> np.ndarray:
        angles = [turn + 2 * math.pi * p / n_points for p in range(n_points)]
        points = [plane[:, 0] * math.cos(a) + plane[:, 1] * math.sin(a) for a in angles]
        with torch.no_grad():
            return model(torch.stack(points).reshape(n_points, *shape)).numpy()

    before, here, after = outputs(-step), outputs(0.0), outputs(step)
    bends = []
    for p in range(n_points):
        v = (after[p] - before[p]) / (2 * step)
        a = (after[p] - 2 * here[p] + before[p]) / step**2
        bends.append(math.sqrt(max(v @ v * (a @ a) - (v @ a) ** 2, 0.0)) / (v @ v) ** 1.5)
    return sum(bends) / n_points


def zen(
    model: nn.Module, features: nn.Module, shape: tuple[int, ...], *, repeats: int, n_images: int, gamma: float
) -> float:
    """Weights, images and noise drawn in turn; ``features`` is the module whose output is pooled."""
    scores = []
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for _ in range(repeats):
            norms = []
            for module in model.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    module.weight.copy_(torch.randn(module.weight.shape))
                    if module.bias is not None:
                        module.bias.zero_()
                if isinstance(module, nn.BatchNorm2d):
                    norms.append(module)
                    module.weight.fill_(1.0)
                    module.bias.zero_()
                    module.running_var.fill_(1.0)
            images, noise = torch.randn(n_images, *shape), torch.randn(n_images, *shape)
            dtype = next(model.parameters()).dtype
            images, noise = images.to(dtype), noise.to(dtype)
            pair = [outputs_of(model, x, lambda m: m is features)[0][1] for x in (images, images + gamma * noise)]
            difference = np.abs(pair[0].double().numpy() - pair[1].double().numpy())
            score = math.log(difference.reshape(n_images, -1).sum(axis=1).mean())
            scores.append(score + sum(math.log(math.sqrt(float(norm.running_var.mean()))) for norm in norms))
    return sum(scores) / repeats
