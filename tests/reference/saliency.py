"""The slow twins of the saliency proxies: loops over single weights, differences instead of derivatives where it goes.

Shares no line with naswot or proxies: networks are deep copies in training mode, gradients come from ``backward``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The convolutions and linear layers."""
    return [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def loss_of(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Mean of the negative log-likelihoods, image by image."""
    log_p = torch.log_softmax(model(images), dim=1)
    return -sum(log_p[i, int(targets[i])] for i in range(len(targets))) / len(targets)


def differentiated(model: nn.Module, images: Tensor, targets: Tensor) -> nn.Module:
    """A copy in training mode, with ``.grad`` filled."""
    twin = copy.deepcopy(model).train()
    loss_of(twin, images, targets).backward()
    return twin


def slow_grad_norm(model: nn.Module, images: Tensor, targets: Tensor) -> float:
    """Sum over layers of the root of the sum of squares."""
    twin = differentiated(model, images, targets)
    return sum(math.sqrt(sum(g**2 for g in layer.weight.grad.flatten().tolist())) for layer in layers_of(twin))


def slow_products(model: nn.Module, images: Tensor, targets: Tensor) -> list[float]:
    """w * g of every single weight."""
    twin = differentiated(model, images, targets)
    pairs = [(layer.weight.flatten().tolist(), layer.weight.grad.flatten().tolist()) for layer in layers_of(twin)]
    return [w * g for weights, gradients in pairs for w, g in zip(weights, gradients, strict=True)]


def slow_mask_gradients(model: nn.Module, images: Tensor, targets: Tensor, step: float = 1e-5) -> list[float]:
    """dL/dm of a mask m on every single weight, by central differences: SNIP's own definition."""
    twin = copy.deepcopy(model).double().train()
    found = []
    for layer in layers_of(twin):
        flat = layer.weight.data.view(-1)
        for j, kept in enumerate(flat.tolist()):
            losses = []
            for mask in (1 + step, 1 - step):
                flat[j] = kept * mask
                losses.append(loss_of(twin, images.double(), targets).item())
            flat[j] = kept
            found.append((losses[0] - losses[1]) / (2 * step))
    return found


def slow_l2_norm(model: nn.Module) -> float:
    """Sum over layers of the root of the sum of squares."""
    return sum(math.sqrt(sum(w**2 for w in layer.weight.flatten().tolist())) for layer in layers_of(model))


def slow_fisher(model: nn.Module, images: Tensor, targets: Tensor) -> float:
    """Three loops: layers, channels, images; each channel once for every weight it has."""
    twin = copy.deepcopy(model).train()
    outputs: list[tuple[nn.Module, Tensor]] = []

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        output.retain_grad()
        outputs.append((layer, output))

    for layer in layers_of(twin):
        layer.register_forward_hook(keep)
    loss_of(twin, images, targets).backward()
    score = 0.0
    for layer, output in outputs:
        a, g = output.detach().double().numpy(), output.grad.double().numpy()
        for k in range(a.shape[1]):
            squares = [float(np.sum(a[i, k] * g[i, k])) ** 2 for i in range(a.shape[0])]
            score += layer.weight[k].numel() * 0.5 * sum(squares) / len(squares)
    return score


def slow_grasp(model: nn.Module, images: Tensor, targets: Tensor, step: float = 1e-5) -> float:
    """H g as the difference of two gradients, one step along g and one against it."""
    twin = copy.deepcopy(model).double().train()
    weights = [layer.weight for layer in layers_of(twin)]
    start = [w.detach().clone() for w in weights]

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(loss_of(twin, images.double(), targets), weights))

    direction = gradients()
    sides = []
    for sign in (1, -1):
        for w, w0, g in zip(weights, start, direction, strict=True):
            w.data.copy_(w0 + sign * step * g)
        sides.append(gradients())
    products = [(plus - minus) / (2 * step) for plus, minus in zip(*sides, strict=True)]
    return -sum(float((w0 * product).sum()) for w0, product in zip(start, products, strict=True))


def linearised(model: nn.Module) -> nn.Module:
    """A copy in float64 without batch norms and without signs."""
    twin = copy.deepcopy(model).double().eval()
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.Identity())
    for parameter in twin.parameters():
        parameter.data = parameter.data.abs()
    return twin


def slow_synflow(model: nn.Module, shape: tuple[int, ...]) -> float:
    """R is linear in each layer, so the sum of w * dR/dw over a layer is what R loses without that layer's weight."""
    twin = linearised(model)
    ones = torch.ones(1, *shape, dtype=torch.float64)
    with torch.no_grad():
        full, score = float(twin(ones).sum()), 0.0
        for layer in layers_of(twin):
            kept = layer.weight.data.clone()
            layer.weight.data.zero_()
            score += full - float(twin(ones).sum())
            layer.weight.data.copy_(kept)
    return score


def slow_flow(model: nn.Module, shape: tuple[int, ...], of: Callable[[float, float], float]) -> float:
    """Sum of ``of(|w|, dR/dw)`` over single weights, the derivative as the difference that one more unit makes."""
    twin = linearised(model)
    ones = torch.ones(1, *shape, dtype=torch.float64)
    with torch.no_grad():
        full, score = float(twin(ones).sum()), 0.0
        for layer in layers_of(twin):
            flat = layer.weight.data.view(-1)
            for j, kept in enumerate(flat.tolist()):
                flat[j] = kept + 1.0
                score += of(kept, float(twin(ones).sum()) - full)
                flat[j] = kept
    return score


def slow_logsynflow(model: nn.Module, shape: tuple[int, ...]) -> float:
    """Sum of |w| * log(1 + dR/dw)."""
    return slow_flow(model, shape, lambda w, g: w * math.log(1.0 + g))
