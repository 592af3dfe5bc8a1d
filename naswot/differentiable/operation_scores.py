"""Scores of single operations: what an untrained supernet is worth without one of them, or with it alone.

Paper: Xiang et al., Zero-Cost Operation Scoring in Differentiable Architecture Search, AAAI 2023, arXiv:2106.06799
(scores of the supernet without an operation). Original code: github.com/zerocostptnas/zerocost_operation_score.
Differences: any proxy; an operation without weight is not executed at all, so that proxies which count what is executed
do not see it, and the others take over its share; also the score with one operation alone.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor, nn

from naswot.differentiable.relaxations import softmax_weights
from naswot.errors import InputError, NaswotError, OptionError
from naswot.evaluate import single_thread
from naswot.measuring import run_proxies
from naswot.proxy import Proxy, get_proxy
from naswot.supernet import Group, MixedSupernet, Mixing, Weights, only_chosen
from naswot.types import Batch

OperationMode = Literal["without", "only"]
"""``"without"``: all options of a row but one; ``"only"``: none but one."""

DEFAULT_PROXY: Final = "naswot"


def operation_scores(
    supernet: MixedSupernet,
    batch: Batch,
    proxy: str | Proxy = DEFAULT_PROXY,
    mode: OperationMode = "without",
    seed: int = 0,
    *,
    weights: Weights | None = None,
) -> dict[str, Tensor]:
    """Score of the supernet, as a model like any other, for each option of each row of operations.

    It costs one pass of the proxy (a forward pass, with a backward pass where the proxy asks for gradients) for each
    option, and one before: 2 x 14 x 8 + 1 = 225 for DARTS. All options see the same images and weights.

    Args:
        supernet: untrained or trained; comes back as it was.
        batch: images (N, C, H, W) and labels, where the supernet is.
        proxy: see ``naswot list proxies``; those that count all parameters there are tell nothing here.
        mode: ``"without"``: the option is removed, and the others of the row share its weight in proportion;
            ``"only"``: the option is the only one of its row.
        seed: of everything random during the passes.
        weights: by which all other rows are mixed; None: the softmax of the alphas, which is even at first.
    Returns:
        For each group of operations (rows, options) float64, raw scores: where a higher one is worse for the
        architecture depends on the proxy. Where the proxy has no value, or the supernet cannot be scored, it is the
        worst infinity. NaN where there is no such option, or where nothing were left without it.
    Raises:
        OptionError: for another mode.
        InputError, ModelError: if the supernet with all its options cannot be scored.
    """
    if mode not in get_args(OperationMode):
        raise OptionError(f"expected mode 'without' or 'only', but got {mode!r}")
    chosen = as_proxy(proxy)
    base = softmax_weights(supernet) if weights is None else dict(weights)
    base = {name: table.detach() for name, table in base.items()}
    score_of(supernet.at(only_chosen(base)), batch, chosen, seed=seed)
    found: dict[str, Tensor] = {}
    for group in supernet.operation_groups:
        allowed = supernet.allowed(group.name).cpu()
        table = torch.full(group.shape, math.nan, dtype=torch.float64)
        for row, option in allowed.nonzero().tolist():
            if mode == "only" or int(allowed[row].sum()) > 1:
                mixing = _changed(base, supernet.allowed(group.name), group, row, option, mode)
                table[row, option] = score_or_worst(supernet.at(mixing), batch, chosen, seed=seed)
        found[group.name] = table
    return found


def _changed(base: Weights, allowed: Tensor, group: Group, row: int, option: int, mode: OperationMode) -> Mixing:
    """The mixing where one row has all options but one, or none but one; all others are bit for bit as they were."""
    table = base[group.name].clone()
    alone = torch.zeros_like(table[row])
    alone[option] = 1.0
    if mode == "only":
        table[row] = alone
    else:
        left = table[row] * (1.0 - alone)
        # where all weight was on the option, the others share it evenly
        left = left if float(left.sum()) > 0.0 else allowed[row].to(left) * (1.0 - alone)
        table[row] = left / left.sum()
    return only_chosen({**base, group.name: table})


def score_of(model: nn.Module, batch: Batch, proxy: Proxy, *, seed: int = 0) -> float:
    """Raw score of a model by one proxy; torch runs on one thread.

    Raises:
        InputError, ModelError: if it cannot be scored.
    """
    with single_thread():
        return float(run_proxies(model, batch, [proxy], seed=seed).scores[proxy.name])


def score_or_worst(model: nn.Module, batch: Batch, proxy: Proxy, *, seed: int = 0) -> float:
    """Raw score of a model by one proxy; the worst infinity if it cannot be scored."""
    try:
        return score_of(model, batch, proxy, seed=seed)
    except NaswotError:
        return worst(proxy)


def as_proxy(proxy: str | Proxy) -> Proxy:
    """A proxy by name; one with options bound as it is."""
    return get_proxy(proxy) if isinstance(proxy, str) else proxy


def worst(proxy: Proxy) -> float:
    """The worst infinity."""
    return -math.inf if proxy.higher_is_better else math.inf


def importances(scores: Tensor, proxy: Proxy, mode: OperationMode) -> Tensor:
    """Scores of operations turned so that a larger number speaks for the operation; NaN stays.

    Args:
        scores: any shape, raw.
        proxy: tells which direction is good.
        mode: a good score *without* an operation speaks against it.
    """
    speaks_for = proxy.higher_is_better == (mode == "only")
    return scores if speaks_for else -scores


def batch_of(pair: tuple[Any, Any]) -> Batch:
    """A task's batch for a proxy.

    Raises:
        InputError: if these are no inputs and labels of images, of which there is one each.
    """
    inputs, targets = pair
    try:
        return Batch(inputs, targets)
    except InputError as error:
        raise InputError(f"the batches of this task cannot be scored by a proxy: {error}") from error
