"""AZ-NAS, first component: how evenly the features of every block spread over their principal directions.

Paper: Lee and Ham, AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search, CVPR 2024, arXiv:2403.19232.
Original: cvlab-yonsei/AZ-NAS, `compute_az_nas_score.py` of each search space.
Differs from the authors' code: the blocks are found in the data flow, see :mod:`proxies._blocks`; the weights stay
those of the model, where the authors first draw them anew (Kaiming normal, fan-in); float64; 0 log 0 is 0, where they
add 1e-8 under the logarithm.
"""

from __future__ import annotations

import torch
from torch import Tensor

from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._pca import block_entropies


@register_proxy(
    reference="Lee and Ham, AZ-NAS, CVPR 2024, arXiv:2403.19232",
    needs=("scratch",),
    invariant_to=("inputs", "order"),
    fits="networks with a weight layer before the classifier; token ids need torch.nn.Embedding",
    own_cost="1 forward of Gaussian images, shared by az_expressivity and az_progressivity",
)
def az_expressivity(seen: Seen, passes: Passes) -> Tensor:
    r"""Sum over the blocks of the entropy of the normalised PCA eigenvalues of their features.

    .. math:: s_E = \sum_{l=1}^L -\sum_c \tilde\lambda_{l,c} \log \tilde\lambda_{l,c}

    with the eigenvalues :math:`\lambda_l` of the covariance of the channels over all positions and images, divided by
    their sum. At most :math:`\sum_l \log C_l`, so it grows with depth and width.

    Returns:
        () float64 in nats; undefined if the features of a block do not vary.
    References:
        Lee and Ham, CVPR 2024, Sec. 3.1, arXiv:2403.19232.
    """
    entropies = block_entropies(passes, n_needed=1)
    if isinstance(entropies, str):
        return passes.undefined(entropies)
    return torch.tensor(sum(entropies), dtype=torch.float64)
