"""The entropy inside VKDNW, without the count of layers.

Paper: Tybl and Neumann, Training-free Neural Architecture Search through Variance of Knowledge of Deep Network Weights
(VKDNW), CVPR 2025, arXiv:2502.04975. Original code: ondratybl/VKDNW. What is certain and what is not, and how this
differs from their code, stands in ``_fisher_spectrum.py``.
"""

from __future__ import annotations

from torch import Tensor

from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._fisher_spectrum import entropy_of


@register_proxy(
    reference="Tybl and Neumann, Training-free NAS through Variance of Knowledge of Deep Network Weights, CVPR 2025, "
    "arXiv:2502.04975",
    needs=("scratch",),
    fits="any classifier; token ids are taken from the batch, as they have no normal counterpart",
    own_cost="N forwards and N K backwards of one random image (K classes), shared by vkdnw and vkdnw_entropy",
)
def vkdnw_entropy(seen: Seen, passes: Passes, *, n_images: int | None = None, n_parameters: int = 128) -> Tensor:
    r"""Entropy of the deciles of the spectrum of the Fisher information of sampled weights.

    .. math:: s = -\sum_{k=1}^{9} \tilde\lambda_k \log \tilde\lambda_k, \quad
        \tilde\lambda_k = \frac{\lambda_k}{\sum_j \lambda_j}, \quad \lambda_k = k\text{-th decile of } \mathrm{eig}(F),
        \quad F = \frac{1}{N} \sum_n J_n^\top (\mathrm{diag}\, p_n - p_n p_n^\top) J_n

    J holds the derivatives of the logits by one scalar of each sampled parameter tensor, p the softmax mixed with 5 %
    of the uniform; a copy of the model in evaluation mode with fresh Kaiming weights, on standard normal inputs.

    Options:
        n_images: number of random images; by default as many as the batch has.
        n_parameters: largest number of parameter tensors sampled.
    Returns:
        () float64 in nats, between 0 and log 9; undefined when nine tenths of the eigenvalues are zero.
    References:
        Tybl and Neumann, CVPR 2025, arXiv:2502.04975.
    """
    return entropy_of(passes, n_images, n_parameters)
