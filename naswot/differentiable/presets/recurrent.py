"""DARTS and SDARTS of recurrent cells: for the space ``ptb_rnn`` and a text, see ``text_task.py``.

Papers: Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, arXiv:1806.09055, appendix A.1.2; Chen &
Hsieh, Stabilizing Differentiable Architecture Search via Perturbation-based Regularization, ICML 2020,
arXiv:2002.05283.
Original codes: github.com/quark0/darts, ``rnn/train_search.py``; github.com/xiangning-chen/SmoothDARTS, ``sota/rnn``.
Differences: those of ``session.py``, ``architects.py`` and ``text_task.py``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from naswot.differentiable.architects import FirstOrder, SecondOrder
from naswot.differentiable.perturbations import RandomSmoothing
from naswot.differentiable.plan import AlphaSteps, SearchPlan, Stage, WeightSteps
from naswot.differentiable.preset import register_preset
from naswot.errors import OptionError

_CLIP: Final = 0.25
_ARCHITECTS: Final = {1: FirstOrder(), 2: SecondOrder(clip_norm=_CLIP)}


@register_preset("Liu et al., ICLR 2019, arXiv:1806.09055", "tokens")
def darts_rnn(*, order: int = 2) -> SearchPlan:
    """DARTS of recurrent cells, on text.

    Args:
        order: 2: the gradient at the weights after their next step; 1: at the weights as they are.
    Raises:
        OptionError: for another order.
    """
    if order not in _ARCHITECTS:
        raise OptionError(f"expected an order of 1 or 2, but got {order!r}")
    return SearchPlan(
        architect=_ARCHITECTS[order],
        stages=(Stage(epochs=50),),
        weights=WeightSteps(
            learning_rate=20.0, final_learning_rate=20.0, momentum=0.0, weight_decay=5e-7, clip_norm=_CLIP
        ),
        alphas=AlphaSteps(learning_rate=3e-3, betas=(0.9, 0.999), weight_decay=1e-3),
        batch_size=256,
    )


@register_preset("Chen & Hsieh, ICML 2020, arXiv:2002.05283", "tokens")
def sdarts_rs_rnn() -> SearchPlan:
    """SDARTS-RS of recurrent cells, on text: first order, with random noise on the weights of the activations."""
    return replace(darts_rnn(order=1), perturbation=RandomSmoothing())
