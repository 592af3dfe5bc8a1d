"""PC-DARTS: a part of the channels goes through the operations, and edges are weighed against each other.

Papers: Xu et al., PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search, ICLR 2020,
arXiv:1907.05737; Chen & Hsieh, ICML 2020, arXiv:2002.05283 (perturbed). Original code: github.com/yuhuixu1993/PC-DARTS;
of the perturbed forms none is public. Differences: the constants are those of CIFAR-10, with the learning rate down to
0 as in the paper; weights of edges are not perturbed.
"""

from __future__ import annotations

from dataclasses import replace

from naswot.differentiable.perturbations import Adversarial, RandomSmoothing
from naswot.differentiable.plan import AlphaSteps, SearchPlan, Stage, WeightSteps
from naswot.differentiable.preset import register_preset
from naswot.differentiable.presets.darts import darts

_REFERENCE = "Xu et al., ICLR 2020, arXiv:1907.05737"
_PERTURBED = "Chen & Hsieh, ICML 2020, arXiv:2002.05283"


@register_preset(_REFERENCE)
def pc_darts() -> SearchPlan:
    """DARTS with a quarter of the channels in the operations and edge normalisation."""
    return replace(
        darts(),
        partial=4,
        edge_normalisation=True,
        stages=(Stage(epochs=50, warmup=15),),
        weights=WeightSteps(learning_rate=0.1, final_learning_rate=0.0),
        alphas=AlphaSteps(learning_rate=6e-4),
        batch_size=256,
    )


@register_preset(_PERTURBED)
def pc_darts_rs() -> SearchPlan:
    """PC-DARTS with random smoothing of the weights of operations."""
    return replace(pc_darts(), perturbation=RandomSmoothing())


@register_preset(_PERTURBED)
def pc_darts_adv() -> SearchPlan:
    """PC-DARTS with an adversarial attack on the weights of operations."""
    return replace(pc_darts(), perturbation=Adversarial())
