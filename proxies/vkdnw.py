"""VKDNW for single networks: depth first, and the evenness of the Fisher information's spectrum among equals.

Paper: Tybl and Neumann, Training-free Neural Architecture Search through Variance of Knowledge of Deep Network Weights
(VKDNW), CVPR 2025, arXiv:2502.04975. Original code: ondratybl/VKDNW. What is certain and what is not about the entropy,
and how this differs from their code, stands in ``_fisher_spectrum.py``. The paper calls the count that is added the
number of layers with weights; their code counts parameter tensors (a convolution with bias is two), and so does this.
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
def vkdnw(seen: Seen, passes: Passes, *, n_images: int | None = None, n_parameters: int = 128) -> Tensor:
    r"""Number of trainable parameter tensors plus the entropy of the Fisher information's spectrum.

    .. math:: s = \aleph + \text{vkdnw\_entropy}

    The entropy is below log 9 = 2.2, so it only decides between networks of about the same depth.

    Options:
        n_images: number of random images; by default as many as the batch has.
        n_parameters: largest number of parameter tensors sampled.
    Returns:
        () float64, a count plus nats; undefined as for ``vkdnw_entropy``.
    References:
        Tybl and Neumann, CVPR 2025, arXiv:2502.04975.
    """
    n_tensors = sum(p.requires_grad for p in passes.model.parameters())
    return n_tensors + entropy_of(passes, n_images, n_parameters)
