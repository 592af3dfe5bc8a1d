"""TE-NAS: trainability by the condition number of the tangent kernel, expressivity by the number of linear regions.

Paper: Chen et al., Neural Architecture Search on ImageNet in Four GPU Hours: A Theoretically Inspired Perspective,
ICLR 2021, arXiv:2102.11535. Original: VITA-Group/TENAS, `prune_tenas.py`. The authors rank the operators of a supernet
by how both numbers change when one is taken out, with dense ranks from the worst to be kept; here whole networks are
ranked, as later papers do, with mean ranks for ties and M for the best.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from naswot.ranking import Ranks, register_aggregate


@register_aggregate(
    reference="Chen et al., TE-NAS, ICLR 2021, arXiv:2102.11535", proxies=("ntk_condition", "linear_regions")
)
def te_nas(ranks: Ranks) -> NDArray[np.float64]:
    r"""Sum of the ranks by NTK condition number and by number of linear regions.

    .. math:: s_i = r_i(\kappa) + r_i(R)

    The number of linear regions is the same for all networks that are not very narrow, see
    :func:`proxies.linear_regions.linear_regions`; the authors count on copies one channel wide.

    Returns:
        (M,) float64 in [2, 2 M]; depends on the compared set.
    References:
        Chen et al., ICLR 2021, arXiv:2102.11535.
    """
    total: NDArray[np.float64] = ranks.sum(axis=1)
    return total
