"""VKDNW_agg: AZ-NAS with the entropy of the Fisher spectrum.

Paper: Tybl and Neumann, Training-free Neural Architecture Search through Variance of Knowledge of Deep Network Weights,
CVPR 2025, arXiv:2502.04975. Original: ondratybl/VKDNW.

Which components: the authors' evaluation of NAS-Bench-201 (`NB201/tss_utils.py`) takes FLOPs, expressivity,
`jacov`, trainability and its own term, and by turns the entropy alone or the pair of number of layers and entropy for
the last; as far as we know the published table is that one's, so it is the default. An older version of their search on
ImageNet has progressivity in the place of `jacov`:
``proxies=["flops", "az_expressivity", "az_progressivity", "az_trainability", "vkdnw_entropy"]`` gives it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from naswot.ranking import Ranks, register_aggregate, sum_of_log_ranks


@register_aggregate(
    reference="Tybl and Neumann, VKDNW, CVPR 2025, arXiv:2502.04975",
    proxies=("flops", "az_expressivity", "jacov", "az_trainability", "vkdnw_entropy"),
)
def vkdnw_agg(ranks: Ranks) -> NDArray[np.float64]:
    r"""Sum of log-ranks of FLOPs, expressivity, jacov, trainability and the entropy of the Fisher spectrum.

    .. math:: s_i = \sum_{k \in \{C, E, J, T, V\}} \log \frac{r_{ik}}{M}

    The paper sums the logarithms of the ranks themselves: a constant more.

    Returns:
        (M,) float64 in nats, at most 0; depends on the compared set.
    References:
        Tybl and Neumann, CVPR 2025, arXiv:2502.04975.
    """
    return sum_of_log_ranks(ranks)
