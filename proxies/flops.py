"""Baseline: multiply-accumulate operations for one image, by torch's own counting rules.

What NAS-Bench-201 and fvcore call "FLOPs" are MACs: one fused multiply and add is one. Normalisation, activations,
pooling and additions are not counted. The published counts of NAS-Bench-Suite-Zero add normalisation and pooling, so
that cells that tie here differ there: Spearman 0.996 on NAS-Bench-201.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from naswot.observers import Operation, Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy


def operation_flops(packet: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> int | None:
    """Floating-point operations of one dispatched operation: two for each MAC; None where torch has no rule."""
    rule = flop_registry.get(packet)
    return None if rule is None else int(rule(*args, **kwargs, out_val=output))


@register_proxy(
    reference="baseline; see Ning et al., NeurIPS 2021, arXiv:2008.03064",
    observe={"flops": Operation(operation_flops, frozenset(flop_registry))},
    invariant_to=("inputs", "weights", "order"),
)
def flops(seen: Seen, passes: Passes) -> Tensor:
    """Multiply-accumulate operations (MACs) of convolutions, linear layers and matrix products, for one image.

    Returns:
        () float64, a count; 0 where the model has none of them.
    """
    return torch.tensor((seen["flops"] or 0) / (2 * passes.batch.n), dtype=torch.float64)
