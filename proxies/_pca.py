"""Entropy of the principal components of features, shared by expressivity and progressivity."""

from __future__ import annotations

import torch
from torch import Tensor

from naswot.passes import Passes
from proxies._blocks import blocks_of, rows_of, too_few

_ROUNDING = 1e-24  # variance of constant features relative to their mean square, in float64


def block_entropies(passes: Passes, *, n_needed: int) -> list[float] | str:
    """Entropies in nats at the ends of all blocks, of Gaussian inputs; in words why there are none otherwise.

    Raises:
        InputError: if the network has fewer blocks.
    """
    entropies = passes.once("block entropies", lambda: _block_entropies(passes))
    if not isinstance(entropies, str) and len(entropies) < n_needed:
        raise too_few(n_needed, len(entropies))
    return entropies


def _block_entropies(passes: Passes) -> list[float] | str:
    entropies: list[float] = []
    with blocks_of(passes, n_needed=1, values=True) as features:
        for number, feature in enumerate(features, start=1):
            assert feature.value is not None
            rows = rows_of(feature.value).to(torch.float64)
            if not bool(torch.isfinite(rows).all()):
                return f"the features of block {number} of {len(features)} are not finite"
            entropy = principal_entropy(rows)
            if entropy is None:
                return f"the features of block {number} of {len(features)} do not vary"
            entropies.append(float(entropy))
    return entropies or "the logits do not depend on the inputs"


def principal_entropy(rows: Tensor) -> Tensor | None:
    r"""Entropy of the normalised eigenvalues of the covariance of ``rows``, (R, C) float64; None if they do not vary.

    .. math:: -\sum_c \tilde\lambda_c \log \tilde\lambda_c, \quad \tilde\lambda_c = \lambda_c / \sum_k \lambda_k
    """
    centred = rows - rows.mean(dim=0)
    product = centred.T @ centred if rows.shape[0] >= rows.shape[1] else centred @ centred.T  # same eigenvalues > 0
    if float(product.trace()) <= _ROUNDING * float(rows.square().sum()):
        return None
    eigenvalues = torch.linalg.eigvalsh(product).clamp(min=0)
    entropy: Tensor = torch.special.entr(eigenvalues / eigenvalues.sum()).sum()
    return entropy
