"""SDARTS: weights that learn at perturbed mixings.

Paper: Chen & Hsieh, Stabilizing Differentiable Architecture Search via Perturbation-based Regularization, ICML 2020,
arXiv:2002.05283. Original code: github.com/xiangning-chen/SmoothDARTS. Differences: those of ``perturbations.py``; the
operation ``none`` stays in the DARTS space, from which the original takes it.
"""

from __future__ import annotations

from dataclasses import replace

from naswot.differentiable.perturbations import Adversarial, RandomSmoothing
from naswot.differentiable.plan import SearchPlan
from naswot.differentiable.preset import register_preset
from naswot.differentiable.presets.darts import darts

_REFERENCE = "Chen & Hsieh, ICML 2020, arXiv:2002.05283"


@register_preset(_REFERENCE)
def sdarts_rs() -> SearchPlan:
    """First-order DARTS with random smoothing of the weights of operations."""
    return replace(darts(), perturbation=RandomSmoothing())


@register_preset(_REFERENCE)
def sdarts_adv() -> SearchPlan:
    """First-order DARTS with an adversarial attack on the weights of operations."""
    return replace(darts(), perturbation=Adversarial())
