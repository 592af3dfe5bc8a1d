"""AZ-NAS: three properties of the features and gradients of every block, and the size.

Paper: Lee and Ham, AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search, CVPR 2024, arXiv:2403.19232.
Original: cvlab-yonsei/AZ-NAS, `tss_general.ipynb` and `evolution_search_az.py`. In the search the authors rank a
candidate among all met so far; here the set is the one given. For vision transformers they leave progressivity out:
``log_rank`` with the other three proxies does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from naswot.ranking import Ranks, register_aggregate, sum_of_log_ranks


@register_aggregate(
    reference="Lee and Ham, AZ-NAS, CVPR 2024, arXiv:2403.19232",
    proxies=("az_expressivity", "az_progressivity", "az_trainability", "flops"),
)
def az_nas(ranks: Ranks) -> NDArray[np.float64]:
    r"""Sum of log-ranks of expressivity, progressivity, trainability and FLOPs.

    .. math:: s_i = \sum_{k \in \{E, P, T, C\}} \log \frac{r_{ik}}{M}

    Returns:
        (M,) float64 in nats, at most 0; depends on the compared set.
    References:
        Lee and Ham, CVPR 2024, Eq. 12, arXiv:2403.19232.
    """
    return sum_of_log_ranks(ranks)
