"""NASP.

Paper: Yao et al., Efficient Neural Architecture Search via Proximal Iterations, AAAI 2020, arXiv:1905.13577. Original
code: github.com/xujinfan/NASP-codes. Differences: those of ``proximal.py``, ``resources.py`` and ``session.py`` of the
package above.
"""

from __future__ import annotations

from typing import Literal

from naswot.differentiable.plan import SearchPlan
from naswot.differentiable.preset import register_preset
from naswot.differentiable.proximal import ProximalOneHot
from naswot.differentiable.resources import SquaredCost


@register_preset("Yao et al., AAAI 2020, arXiv:1905.13577")
def nasp(penalty: float = 0.0, alpha_pass: Literal["all", "chosen"] = "all") -> SearchPlan:
    """NASP: alphas in [0, 1] follow the gradient at the architecture nearest to them, the only one that is trained.

    Args:
        penalty: on the alphas of operations with many parameters; 0: none, as in the original search.
        alpha_pass: operations that are executed in a step of the alphas; see
            :class:`~naswot.differentiable.proximal.ProximalOneHot`.
    """
    return SearchPlan(
        relaxation=ProximalOneHot(alpha_pass=alpha_pass), resource=SquaredCost(penalty) if penalty else None
    )
