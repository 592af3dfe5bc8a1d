"""ProxylessNAS.

Paper: Cai et al., ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware, ICLR 2019,
arXiv:1812.00332. Original code: github.com/mit-han-lab/proxylessnas. Differences: those of ``gates.py``,
``resources.py`` and ``session.py`` of the package above; constants are those of the search on ImageNet, but for batches
of 64 and a tenth of the images held out, which suit smaller data (there: 256, and 50,000 images); the alphas learn from
the first epoch after the warm-up on, not from the second, and from the smoothed labels too; a step of the alphas stands
before the first of five steps of the weights.
"""

from __future__ import annotations

from typing import Literal

from naswot.differentiable._costs import Measure
from naswot.differentiable.gates import BinaryGates, WarmupCosine
from naswot.differentiable.plan import AlphaSteps, SearchPlan, Stage, WeightSteps
from naswot.differentiable.preset import register_preset
from naswot.differentiable.resources import ExpectedCost, Form
from naswot.errors import OptionError


@register_preset("Cai et al., ICLR 2019, arXiv:1812.00332")
def proxylessnas(
    resource: Measure | None = None,
    reference: float | None = None,
    latency_table: str | None = None,
    form: Form = "mul_log",
    paths: Literal["two", "full"] = "two",
) -> SearchPlan:
    """ProxylessNAS: one sampled path learns its weights; every fifth time two sampled paths vie for their alphas.

    Args:
        resource: cost in the loss of the alphas: ``"latency"`` (milliseconds), ``"flops"`` (MACs) or ``"params"``;
            None: none.
        reference: the cost to aim at; None: that of a uniformly drawn architecture.
        latency_table: file of a measured latency table; None: the supernet's own modules are measured.
        form: how the cost enters; see :class:`~naswot.differentiable.resources.ExpectedCost`.
        paths: executed in a step of the alphas: ``"two"``, as in the paper, or ``"full"``: all.
    Raises:
        OptionError: for a reference or a table without a resource.
    """
    if resource is None and (reference is not None or latency_table is not None):
        raise OptionError("a reference or a latency table needs resource='latency' or another cost it belongs to")
    cost = None if resource is None else ExpectedCost(resource, form, reference=reference, table=latency_table)
    return SearchPlan(
        relaxation=BinaryGates(paths),
        stages=(Stage(epochs=160, warmup=40),),
        hooks=(WarmupCosine(start=0.05),),
        resource=cost,
        weights=WeightSteps(final_learning_rate=0.0, nesterov=True, weight_decay=4e-5, clip_norm=None),
        alphas=AlphaSteps(learning_rate=1e-3, betas=(0.0, 0.999), weight_decay=0.0, every=5),
        valid_fraction=0.1,
        label_smoothing=0.1,
    )
