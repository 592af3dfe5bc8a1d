"""DARTS-PT and Zero-Cost-PT: other ways to read an architecture off a supernet than by the largest weights.

Papers: Wang et al., Rethinking Architecture Selection in Differentiable NAS, ICLR 2021, arXiv:2108.04392; Xiang et al.,
Zero-Cost Operation Scoring in Differentiable Architecture Search, AAAI 2023, arXiv:2106.06799. Original codes:
github.com/ruocwang/darts-pt, github.com/zerocostptnas/zerocost_operation_score. Differences: those of
``perturbation_selection.py`` and ``zero_cost_selection.py``.
"""

from __future__ import annotations

from naswot.differentiable.operation_scores import DEFAULT_PROXY
from naswot.differentiable.perturbation_selection import Criterion, PerturbationSelection
from naswot.differentiable.plan import SearchPlan, Stage
from naswot.differentiable.preset import register_preset
from naswot.differentiable.zero_cost_selection import ZeroCostPerturbation


@register_preset("Wang et al., ICLR 2021, arXiv:2108.04392")
def darts_pt(*, epochs_between: int = 5, criterion: Criterion = "accuracy") -> SearchPlan:
    """DARTS whose operations are kept by what the trained supernet loses without them.

    Args:
        epochs_between: training after each decision.
        criterion: ``"accuracy"`` or ``"loss"`` on the validation images.
    """
    return SearchPlan(selection=PerturbationSelection(epochs_between=epochs_between, criterion=criterion))


@register_preset("Xiang et al., AAAI 2023, arXiv:2106.06799")
def zero_cost_pt(*, proxy: str = DEFAULT_PROXY, proposals: int = 10, validations: int = 100) -> SearchPlan:
    """The best-scored of some architectures that an untrained supernet proposes; nothing is trained.

    Args:
        proxy: see ``naswot list proxies``.
        proposals: architectures to choose from.
        validations: batches on which they are scored.
    """
    selection = ZeroCostPerturbation(proxy=proxy, proposals=proposals, validations=validations)
    return SearchPlan(architect=None, stages=(Stage(epochs=0),), selection=selection)
