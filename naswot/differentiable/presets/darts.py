"""DARTS.

Paper: Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, arXiv:1806.09055. Original code:
github.com/quark0/darts. Differences: those of ``session.py`` and ``architects.py``.
"""

from __future__ import annotations

from dataclasses import replace

from naswot.differentiable.architects import SecondOrder
from naswot.differentiable.plan import SearchPlan
from naswot.differentiable.preset import register_preset

_REFERENCE = "Liu et al., ICLR 2019, arXiv:1806.09055"


@register_preset(_REFERENCE)
def darts() -> SearchPlan:
    """First-order DARTS: the gradient of the validation loss at the weights as they are."""
    return SearchPlan()


@register_preset(_REFERENCE)
def darts_2nd() -> SearchPlan:
    """Second-order DARTS: the gradient at the weights after their next step."""
    return replace(darts(), architect=SecondOrder())
