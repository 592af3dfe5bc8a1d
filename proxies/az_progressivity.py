"""AZ-NAS, second component: whether the features grow richer from every block to the next.

Paper: Lee and Ham, AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search, CVPR 2024, arXiv:2403.19232.
Original: cvlab-yonsei/AZ-NAS, `compute_az_nas_score.py`. Differs from it as :mod:`proxies.az_expressivity` does; the
authors leave this component out for vision transformers, whose width is the same everywhere.
"""

from __future__ import annotations

from itertools import pairwise

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
    fits="networks of two blocks or more before the classifier; token ids need torch.nn.Embedding",
    own_cost="1 forward of Gaussian images, shared by az_expressivity and az_progressivity",
)
def az_progressivity(seen: Seen, passes: Passes) -> Tensor:
    r"""Smallest increase of the expressivity from one block to the next.

    .. math:: s_P = \min_{1 < l \le L} \left( s_{E,l} - s_{E,l-1} \right)

    with the entropies of :func:`proxies.az_expressivity.az_expressivity`.

    Returns:
        () float64 in nats, of either sign; undefined if the features of a block do not vary.
    References:
        Lee and Ham, CVPR 2024, Sec. 3.1, arXiv:2403.19232.
    """
    entropies = block_entropies(passes, n_needed=2)
    if isinstance(entropies, str):
        return passes.undefined(entropies)
    return torch.tensor(min(after - before for before, after in pairwise(entropies)), dtype=torch.float64)
