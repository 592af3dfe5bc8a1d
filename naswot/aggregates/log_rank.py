"""Sum of log-ranks of any list of proxies.

Paper: the aggregation of Lee and Ham, AZ-NAS, CVPR 2024, arXiv:2403.19232, apart from its components.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from naswot.ranking import Ranks, register_aggregate, sum_of_log_ranks


@register_aggregate(reference="aggregation of Lee and Ham, AZ-NAS, CVPR 2024, arXiv:2403.19232")
def log_rank(ranks: Ranks) -> NDArray[np.float64]:
    r"""Sum of log-ranks of the proxies you name.

    .. math:: s_i = \sum_k \log \frac{r_{ik}}{M}

    Returns:
        (M,) float64 in nats, at most 0; depends on the compared set.
    """
    return sum_of_log_ranks(ranks)
