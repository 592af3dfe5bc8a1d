"""The slow twin of the Hamming kernel: plain numpy loops, and ways of its own to collect pre-activations.

Shares no line with naswot: no packing, no products of signs, no function modes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def as_rows(tensor: Tensor, n: int) -> np.ndarray[Any, Any]:
    """Pre-activations of n images as (n, D) float64; bfloat16 and float16 lose nothing on the way."""
    return tensor.detach().to(torch.float64).reshape(n, -1).numpy().copy()


def slow_kernel(layers: Sequence[np.ndarray[Any, Any]], thresholds: Sequence[float]) -> np.ndarray[Any, Any]:
    """K_H[i, j] = number of units, over all layers, whose bits agree; (N, N) int64, two loops and a comparison."""
    n = layers[0].shape[0]
    kernel = np.zeros((n, n), dtype=np.int64)
    for values, threshold in zip(layers, thresholds, strict=True):
        bits = np.zeros(values.shape, dtype=bool)
        with np.errstate(invalid="ignore"):
            bits[values > threshold] = True  # NaN compares false
        for i in range(n):
            kernel[i] += (bits[i] == bits).sum(axis=1)
    return kernel


def collect_relu_inputs(model: nn.Module, images: Tensor) -> list[np.ndarray[Any, Any]]:
    """Inputs of every call of every ``nn.ReLU``, in order, by forward pre-hooks; BatchNorm on batch statistics.

    The hooks copy at once, so an in-place ReLU has not yet overwritten anything. The model is put into training mode
    and left there, its running statistics move: hand in a copy.
    """
    seen: list[np.ndarray[Any, Any]] = []
    handles = [
        module.register_forward_pre_hook(lambda module, args: seen.append(as_rows(args[0], images.shape[0])))
        for module in model.modules()
        if isinstance(module, nn.ReLU)
    ]
    model.train()
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def slow_network_kernel(model: nn.Module, images: Tensor) -> np.ndarray[Any, Any]:
    """K_H of a network whose only activations are ``nn.ReLU`` modules; (N, N) int64."""
    layers = collect_relu_inputs(model, images)
    return slow_kernel(layers, [0.0] * len(layers))


def exact_determinant(matrix: Sequence[Sequence[int]]) -> int:
    """Determinant of an integer matrix by Bareiss' fraction-free elimination: every division below is exact."""
    rows = [list(map(int, row)) for row in matrix]
    n, sign, previous = len(rows), 1, 1
    for k in range(n - 1):
        if rows[k][k] == 0:
            pivot = next((i for i in range(k + 1, n) if rows[i][k] != 0), None)
            if pivot is None:
                return 0
            rows[k], rows[pivot], sign = rows[pivot], rows[k], -sign
        for i in range(k + 1, n):
            for j in range(k + 1, n):
                rows[i][j] = (rows[i][j] * rows[k][k] - rows[i][k] * rows[k][j]) // previous
        previous = rows[k][k]
    return sign * rows[n - 1][n - 1]
