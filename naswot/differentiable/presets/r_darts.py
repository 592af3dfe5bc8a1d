"""R-DARTS: the same search with more and more regularisation of the weights, of which the best result is kept.

Paper: Zela et al., Understanding and Robustifying Differentiable Architecture Search, ICLR 2020, arXiv:1909.09656.
Original code: github.com/automl/RobustDARTS. Differences: those of ``regularisers.py`` and ``architects.py``.
"""

from __future__ import annotations

from dataclasses import replace

from naswot.differentiable.plan import SearchPlan
from naswot.differentiable.preset import register_preset
from naswot.differentiable.presets.darts import darts_2nd
from naswot.differentiable.regularisers import DropPathRamp

_REFERENCE = "Zela et al., ICLR 2020, arXiv:1909.09656"


@register_preset(_REFERENCE)
def r_darts_l2() -> tuple[SearchPlan, ...]:
    """Second-order DARTS with 1, 3, 9 and 27 times the weight decay."""
    plan = darts_2nd()
    decays = (3e-4, 9e-4, 27e-4, 81e-4)
    return tuple(replace(plan, weights=replace(plan.weights, weight_decay=decay)) for decay in decays)


@register_preset(_REFERENCE)
def r_darts_dp(cutout: int = 16) -> tuple[SearchPlan, ...]:
    """Second-order DARTS with drop-path up to 0, 0.2, 0.4 and 0.6, and cutout where there is drop-path.

    Args:
        cutout: height and width of the squares in pixels; published for images of 32 x 32.
    """
    return tuple(replace(darts_2nd(), hooks=(DropPathRamp(drop, cutout),)) for drop in (0.0, 0.2, 0.4, 0.6))
