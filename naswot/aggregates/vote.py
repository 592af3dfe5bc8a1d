"""Vote: of two networks the one that most of three proxies prefer.

Paper: Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021, arXiv:2101.08134. Original:
SamsungLabs/zero-cost-nas, `nasbench201_correlations.ipynb`. The authors only compare pairs; a majority need be no order
(a may beat b, b beat c and c beat a), so a network's score here is the number of networks that it beats. There a proxy
that sees no difference votes for the second network; here it abstains, and an even vote beats nobody.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from naswot.ranking import Ranks, register_aggregate


@register_aggregate(
    reference="Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021, arXiv:2101.08134",
    proxies=("synflow", "jacov", "snip"),
)
def vote(ranks: Ranks) -> NDArray[np.float64]:
    r"""Number of networks beaten by a majority of synflow, jacov and snip.

    .. math:: s_i = \left| \left\{ j : \sum_k \mathrm{sign}(r_{ik} - r_{jk}) > 0 \right\} \right|

    Returns:
        (M,) float64 in [0, M - 1]; depends on the compared set.
    References:
        Abdelfattah et al., ICLR 2021, arXiv:2101.08134.
    """
    votes = np.zeros((len(ranks), len(ranks)))
    for column in ranks.T:
        votes += np.sign(column[:, None] - column[None, :])
    beaten: NDArray[np.float64] = (votes > 0).sum(axis=1).astype(np.float64)
    return beaten
