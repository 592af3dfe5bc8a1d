"""Layer-wise NASWOT: the log-determinants of the kernels of single activation calls, added up.

Known as "lnwot" from the code of T-CET (Xiang et al., 2023) and of alethiometer; the kernel is that of NASWOT.
Differs from them: each activation call counts once, functional ones too; a singular layer makes the sum -inf, where
``slogdet`` returns whatever rounding leaves; ``jitter`` gives such layers a finite part.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from naswot.calls import ActivationCall
from naswot.errors import OptionError
from naswot.kernels import log_determinant
from naswot.observers import Activation, Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from naswot.scoring import agreement_counts

_FAR_FROM_SINGULAR = 1e-5  # smallest Cholesky pivot, relative to the largest


class LayerDeterminants:
    """Log-determinants of the regular layers, added up, and the eigenvalues of the singular ones.

    Args:
        regular: sum in nats.
        singular: (N,) float64 each.
        n_layers: layers in all.
    """

    def __init__(self, regular: float, singular: tuple[Tensor, ...] = (), n_layers: int = 1) -> None:
        self.regular, self.singular, self.n_layers = regular, singular, n_layers

    def __add__(self, other: LayerDeterminants) -> LayerDeterminants:
        return LayerDeterminants(
            self.regular + other.regular, self.singular + other.singular, self.n_layers + other.n_layers
        )


def _determinant_of(call: ActivationCall) -> LayerDeterminants:
    kernel = agreement_counts(call)
    factor, failed = torch.linalg.cholesky_ex(kernel)
    if not failed:
        low, high = factor.diagonal().aminmax()
        if low * low > _FAR_FROM_SINGULAR * high * high:
            return LayerDeterminants(2 * factor.diagonal().log().sum().item())
    result = log_determinant(kernel)
    if result.sign:
        return LayerDeterminants(result.value)
    return LayerDeterminants(0.0, (torch.linalg.eigvalsh(kernel).clamp_(min=0),))


def layer_determinant(call: ActivationCall) -> LayerDeterminants:
    """Log-determinant of the kernel of one activation call; calls on the very same tensor share the work."""
    return call.once(_determinant_of)


@register_proxy(
    reference="Mellor et al., ICML 2021, arXiv:2006.04647; by layer: T-CET, Xiang et al., 2023",
    observe={"layers": Activation(layer_determinant)},
    minimum_images=2,
    fits="any model with activations",
)
def lnwot(seen: Seen, passes: Passes, *, jitter: float = 0.0) -> Tensor:
    r"""Sum over activation calls of the log-determinant of the kernel of agreeing signs.

    .. math:: s = \sum_l \log |\det K_l|, \quad K_l[i, j] = D_l - d_H(c_i^l, c_j^l)

    Args:
        seen: determinants by layer.
        passes: receives the reason for -inf.
        jitter: added to the eigenvalues of the kernels that are singular, and only to these; 0 leaves them singular.
            A layer with fewer than N - 1 units is always singular, and so is one in which two images share their code.

    Returns:
        () float64 in nats; -inf when a layer's kernel is singular and ``jitter`` is 0. Calls that read the very same
        tensor count once each.
    References:
        Mellor et al., ICML 2021, Eq. 2 and 3, arXiv:2006.04647, applied to each layer. No paper defines the sum;
        T-CET uses its terms.
    """
    if jitter < 0:
        raise OptionError(f"expected a jitter of at least 0, but got {jitter}")
    layers: LayerDeterminants = seen["layers"]
    if layers.singular and jitter == 0:
        passes.remark(f"the kernels of {len(layers.singular)} of {layers.n_layers} activation calls are singular")
        return torch.tensor(-math.inf, dtype=torch.float64)
    repaired = sum(float((values + jitter).log().sum()) for values in layers.singular)
    return torch.tensor(layers.regular + repaired, dtype=torch.float64)
