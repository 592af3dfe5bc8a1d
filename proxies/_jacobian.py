"""Correlation of the input Jacobians of images, shared by jacov and EPE-NAS."""

from __future__ import annotations

import torch
from torch import Tensor


def why_no_correlation(rows: Tensor) -> str | None:
    """Reason why the rows of a Jacobian, (N, D), have no correlation; None if they have."""
    if not torch.isfinite(rows).all():
        return "the gradient with respect to the inputs is not finite"
    n_constant = int((rows == rows[:, :1]).all(dim=1).sum())
    if n_constant:
        return f"the gradient with respect to {n_constant} of {len(rows)} images is zero or constant, so uncorrelatable"
    return None


def correlation(rows: Tensor) -> Tensor:
    """Pearson correlation of the rows of (n, D), (n, n) float64."""
    return torch.corrcoef(rows).reshape(len(rows), len(rows))
