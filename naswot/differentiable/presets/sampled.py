"""Methods that sample by Gumbel noise: SNAS and GDAS.

Papers: Xie et al., SNAS: Stochastic Neural Architecture Search, ICLR 2019, arXiv:1812.09926; Dong & Yang, Searching for
a Robust Neural Architecture in Four GPU Hours, CVPR 2019, arXiv:1910.04465, with the constants of its authors' search
of NAS-Bench-201. Original codes: github.com/SNAS-Series/SNAS-Series, github.com/D-X-Y/AutoDL-Projects. Differences:
those of ``gumbel.py``, ``resources.py`` and ``session.py``; no drop-path in SNAS's search; GDAS without the fixed
reduction cell, and with the step of the alphas before that of the weights.
"""

from __future__ import annotations

from typing import Final

from naswot.differentiable._costs import Measure
from naswot.differentiable.architects import SingleLevel
from naswot.differentiable.gumbel import GumbelSoftmax, HardGumbel
from naswot.differentiable.plan import AlphaSteps, SearchPlan, Stage, WeightSteps
from naswot.differentiable.preset import register_preset
from naswot.differentiable.resources import ExpectedCost
from naswot.errors import OptionError

LEVELS: Final = {"mild": 1e-3, "moderate": 1e-2, "aggressive": 1e-1}
"""Weights of the resource term by the paper's names; it gives no numbers for them. The code's own is ``moderate``."""


@register_preset("Xie et al., ICLR 2019, arXiv:1812.09926")
def snas(resource: str | float | None = None, measure: Measure = "params") -> SearchPlan:
    """SNAS: one soft sample for all cells; weights and alphas learn from one backward pass of the training loss.

    All images but a tenth, which is only measured on, are training images.

    Args:
        resource: weight of the expected cost in the loss, a number or ``"mild"``, ``"moderate"``, ``"aggressive"``;
            None: no such term.
        measure: what it costs: ``"params"``, ``"flops"`` or ``"latency"``.
    Raises:
        OptionError: for another level.
    """
    if isinstance(resource, str) and resource not in LEVELS:
        raise OptionError(
            f"unknown level {resource!r} of the resource term; there are {', '.join(LEVELS)}, or a number"
        )
    weight = LEVELS[resource] if isinstance(resource, str) else resource
    cost = None if weight is None else ExpectedCost(measure, "add_log", weight, over="sample")
    return SearchPlan(
        relaxation=GumbelSoftmax(),
        architect=SingleLevel(),
        stages=(Stage(epochs=150),),
        resource=cost,
        alphas=AlphaSteps(clip_norm=10.0),
        valid_fraction=0.1,
    )


@register_preset("Dong & Yang, CVPR 2019, arXiv:1910.04465")
def gdas() -> SearchPlan:
    """GDAS: one operation of each edge is drawn and executed; the alphas learn through the soft sample."""
    return SearchPlan(
        relaxation=HardGumbel(), stages=(Stage(epochs=250),), weights=WeightSteps(nesterov=True, weight_decay=5e-4)
    )
