"""DARTS with an eye on the dominant eigenvalue: stop before the collapse, or regularise against it.

Paper: Zela et al., Understanding and Robustifying Differentiable Architecture Search, ICLR 2020, arXiv:1909.09656.
Original code: github.com/automl/RobustDARTS, ``scripts/``. Differences: those of ``stopping.py``.
"""

from __future__ import annotations

from typing import Literal

from naswot.differentiable.architects import FirstOrder, SecondOrder
from naswot.differentiable.plan import SearchPlan
from naswot.differentiable.preset import register_preset
from naswot.differentiable.stopping import EigenvalueAdapt, EigenvalueStop
from naswot.errors import OptionError

_REFERENCE = "Zela et al., ICLR 2020, arXiv:1909.09656"

Order = Literal[1, 2]


@register_preset(_REFERENCE)
def darts_es(order: Order = 2) -> SearchPlan:
    """DARTS-ES: DARTS that stops when the dominant eigenvalue of the Hessian rises."""
    return SearchPlan(architect=_architect(order), hooks=(EigenvalueStop(),))


@register_preset(_REFERENCE)
def darts_ada(order: Order = 2, factor: float = 10.0, cap: float = 0.03) -> SearchPlan:
    """DARTS-ADA: DARTS that goes back and takes more weight decay when the dominant eigenvalue rises."""
    return SearchPlan(architect=_architect(order), hooks=(EigenvalueAdapt(factor=factor, cap=cap),))


def _architect(order: Order) -> FirstOrder | SecondOrder:
    if order not in (1, 2):
        raise OptionError(f"expected order 1 or 2, but got {order!r}")
    return FirstOrder() if order == 1 else SecondOrder()
