"""P-DARTS: three stages, each deeper than the one before and with fewer operations to choose from.

Papers: Chen et al., Progressive Differentiable Architecture Search: Bridging the Depth Gap between Search and
Evaluation, ICCV 2019, arXiv:1904.12760; Chen & Hsieh, ICML 2020, arXiv:2002.05283 (perturbed). Original code:
github.com/chenxin061/pdarts; of the perturbed forms none is public. Differences: the dropout behind skips is that of
the command in its README, not 0; the radius of a perturbation rises in each stage anew.
"""

from __future__ import annotations

from dataclasses import replace

from naswot.differentiable.perturbations import Adversarial, RandomSmoothing
from naswot.differentiable.plan import AlphaSteps, SearchPlan, Stage, WeightSteps
from naswot.differentiable.preset import register_preset
from naswot.differentiable.presets.darts import darts
from naswot.differentiable.progressive import RestrictSkips, SkipDropoutDecay

_REFERENCE = "Chen et al., ICCV 2019, arXiv:1904.12760"
_PERTURBED = "Chen & Hsieh, ICML 2020, arXiv:2002.05283"

Three = tuple[float, float, float]


@register_preset(_REFERENCE)
def p_darts(skip_dropout: Three = (0.1, 0.4, 0.7), max_skips: int = 2) -> SearchPlan:
    """Progressive DARTS: 5, 11 and 17 cells, of 8, 5 and 3 operations, and few skips at the end.

    Where a supernet counts its cells by stages of the network (NAS-Bench-201, NAS-Bench-1Shot1), these are the cells of
    each of its three stages.

    Args:
        skip_dropout: behind identities at the beginning of each stage.
        max_skips: in the normal cell of the architecture.
    """
    plans = zip((0, 6, 12), (5, 3, None), skip_dropout, strict=True)
    return replace(
        darts(),
        stages=tuple(
            Stage(epochs=25, warmup=10, more_cells=cells, keep=keep, skip_dropout=dropout)
            for cells, keep, dropout in plans
        ),
        hooks=(SkipDropoutDecay(),),
        selection=RestrictSkips(max_skips),
        weights=WeightSteps(final_learning_rate=0.0),
        alphas=AlphaSteps(learning_rate=6e-4, clip_norm=5.0),
        batch_size=96,
        build=(("n_cells", 5),),
    )


@register_preset(_PERTURBED)
def p_darts_rs(skip_dropout: Three = (0.1, 0.4, 0.7), max_skips: int = 2) -> SearchPlan:
    """P-DARTS with random smoothing of the weights of operations in every stage; arguments as there."""
    return replace(p_darts(skip_dropout, max_skips), perturbation=RandomSmoothing())


@register_preset(_PERTURBED)
def p_darts_adv(skip_dropout: Three = (0.1, 0.4, 0.7), max_skips: int = 2) -> SearchPlan:
    """P-DARTS with an adversarial attack on the weights of operations in every stage; arguments as there."""
    return replace(p_darts(skip_dropout, max_skips), perturbation=Adversarial())
