"""Synaptic flow weight by weight: the pass of ones through the network of absolute weights.

Papers: Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic flow, NeurIPS 2020,
arXiv:2006.05467; Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021, arXiv:2101.08134.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from naswot.errors import InputError
from naswot.logits import logits_of
from naswot.passes import Passes
from proxies._copies import copy_with_graph, ones_like_one_image, weight_matrices


class WithoutBatchNorm(TorchFunctionMode):
    """Context in which batch normalisation returns its input, whichever module or function asks for it.

    What a module does beside normalising, such as the activation of a fused layer, stays.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (F.batch_norm, torch.batch_norm):
            return args[0] if args else kwargs["input"]
        return func(*args, **kwargs)


def flow_pass(
    passes: Passes, weights_of: Callable[[nn.Module], Mapping[str, nn.Parameter]]
) -> tuple[Mapping[str, tuple[Tensor, Tensor]], Tensor] | None:
    r"""Absolute weights with the gradient of the summed outputs in them, by parameter name, and that sum.

    .. math:: R = \sum_k f(1; |\theta|)_k, \quad (|W|, \partial R / \partial |W|)

    One image of ones, float64; batch normalisation is bypassed, buffers stay as they are. Weights that the outputs do
    not reach are left out.

    Args:
        passes: of the model.
        weights_of: which parameters count.
    Returns:
        None if infinities meet in the pass.
    Raises:
        InputError: if the model reads integers alone, or has weights that are not finite.
    """
    ones = ones_like_one_image(passes.batch)
    with copy_with_graph(passes) as model, WithoutBatchNorm():
        model.double()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    parameter.abs_()
        weights = weights_of(model)
        try:
            result = passes.own_forward(model, ones.inputs)
        except InputError:  # NaN outputs: those of finite weights come from infinities that met
            if all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
                return None
            raise
        passes.n_backwards += 1
        outputs = logits_of(result, passes.options.output).sum()
        gradients = torch.autograd.grad(outputs, list(weights.values()), allow_unused=True)
    found = zip(weights.items(), gradients, strict=True)
    return {name: (w.detach(), g) for (name, w), g in found if g is not None}, outputs.detach()


def flow_gradients(passes: Passes) -> Mapping[str, tuple[Tensor, Tensor]] | None:
    """As :func:`flow_pass`, of every weight matrix; None if the pass or a gradient overflows."""
    found = flow_pass(passes, weight_matrices)
    if found is None:
        return None
    pairs, outputs = found
    finite = bool(outputs.isfinite()) and all(bool(gradient.isfinite().all()) for _, gradient in pairs.values())
    return pairs if finite else None
