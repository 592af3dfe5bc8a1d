r"""T-CET: expressivity of every layer's codes times the signal-to-noise ratio of its saliency.

Paper: Xiang et al., Exploiting Network Compressibility and Topology in Zero-Cost NAS, AutoML 2023 (OpenReview
y7rbX884LZrX); read from the code alone.
Original: alethiometer (iViolinSolo/zero-cost-proxies), ``t_cet`` = ``tcet_syn_none``, and ``tcet_snip_none``.

The matching is by module: a layer is a convolution or ``nn.Linear`` that ran and whose weight is a parameter of its
own; its codes are the signs of its *output* (not of what an activation reads), its saliency that of its weight. The
original pairs two lists by position, which slip against each other where a layer does not run.

Further differences: codes come from batch statistics (original: running ones); a layer that runs several times adds
its kernels; kernels are singular by numerical rank (original: where ``slogdet`` happens to return -inf); saliencies
without spread have no ratio, so that their layer is left out (original: divided by 1 instead, a number of another
scale).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from naswot.errors import InputError, OptionError, ShapeError
from naswot.kernels import agreement_kernel, log_determinant
from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._copies import copy_with_graph, loss_of
from proxies._flow import flow_gradients

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_NO_SPREAD = 1e-12  # standard deviation, relative to the mean, that is rounding


@register_proxy(
    reference="Xiang et al., Exploiting Network Compressibility and Topology in Zero-Cost NAS, AutoML 2023",
    needs=("scratch",),
    minimum_images=2,
    fits="convolutions and nn.Linear on images; token models with saliency='snip'",
    own_cost="1 forward of the batch; 1 forward and backward of one image (of ones)",
)
def tcet(seen: Seen, passes: Passes, *, saliency: str = "synflow") -> Tensor:
    r"""Sum over layers of log|K_H| of the layer's output signs times sum/std of its weights' saliencies.

    .. math:: s = \sum_l \log |K_l| \, \frac{\sum_w a_l(w)}{\sigma(a_l)}, \quad a_l = |w \, \partial R / \partial w|

    The ratio is that of the sum, as in the code: n times mean over standard deviation (with n - 1). Layers whose K is
    singular add nothing, as in the code; a classifier with fewer outputs than there are images always is.

    Options:
        saliency: ``"synflow"``: R is the sum of the outputs for an image of ones, weights absolute, BatchNorm bypassed;
            ``"snip"``: R is the cross-entropy of the batch, for which labels are needed.
    Returns:
        () float64, nats times a ratio without unit; undefined when no layer has both factors or the flow overflows.
    References:
        Xiang et al., AutoML 2023.
    """
    if saliency not in ("synflow", "snip"):
        raise OptionError(f"expected saliency 'synflow' or 'snip', but got {saliency!r}")
    kernels, ratios = _look(passes, snip=saliency == "snip")
    if not kernels:
        raise InputError("T-CET needs convolutions or nn.Linear layers with weights of their own, but none ran")
    if saliency == "synflow":
        flow = flow_gradients(passes)
        if flow is None:
            return passes.undefined("synaptic flow overflows: the network is too deep or wide without BatchNorm")
        ratios = _ratios(flow)
    names = _weight_names(passes.model)
    terms = []
    for layer, kernel in kernels.items():
        determinant, ratio = log_determinant(kernel), ratios.get(names[layer])
        if determinant.reason is None and ratio is not None:
            terms.append(determinant.value * ratio)
    if not terms:
        return passes.undefined("no layer has both a regular kernel and saliencies that differ")
    return torch.stack(terms).sum()


def _weight_names(model: nn.Module) -> dict[str, str]:
    """Names of the weight parameters by names of the layers."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    layers = {name: module for name, module in model.named_modules() if isinstance(module, _LAYERS)}
    weights = {name: module._parameters.get("weight") for name, module in layers.items()}
    return {name: names[weight] for name, weight in weights.items() if weight is not None}


def _look(passes: Passes, *, snip: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Kernels of the outputs by layer and, for SNIP, the ratios by weight, from one pass of the batch."""
    kernels: dict[str, Tensor] = {}

    def see(layer: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        with torch.no_grad():
            kernel = agreement_kernel(_rows(output.detach(), passes))
        kernels[layer] = kernels[layer] + kernel if layer in kernels else kernel

    with copy_with_graph(passes) as model, torch.set_grad_enabled(snip), ExitStack() as stack:
        for layer in _weight_names(model):
            hook = functools.partial(see, layer)
            stack.callback(model.get_submodule(layer).register_forward_hook(hook).remove)
        result = passes.own_forward(model, passes.batch.inputs)
        if not snip:
            return kernels, {}
        loss = loss_of(passes, result)
        passes.n_backwards += 1
        weights = {name: model.get_parameter(name) for name in dict.fromkeys(_weight_names(model).values())}
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    found = zip(weights.items(), gradients, strict=True)
    return kernels, _ratios({name: (weight.detach(), g) for (name, weight), g in found if g is not None})


def _rows(output: Tensor, passes: Passes) -> Tensor:
    """Output as (N, D); windows of an image side by side."""
    n, dim = passes.batch.n, passes.options.batch_dim
    if output.dim() <= dim or output.shape[dim] % n:
        raise ShapeError(f"a layer's output {tuple(output.shape)} does not count the {n} images in dimension {dim}")
    return output.movedim(dim, 0).reshape(n, -1)


def _ratios(pairs: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Sum over standard deviation of |w g| by weight, () float64; none where all are equal."""
    ratios = {}
    for name, (weight, gradient) in pairs.items():
        values = (weight.to(torch.float64) * gradient.to(torch.float64)).abs().flatten()
        if values.numel() > 1 and values.std() > _NO_SPREAD * values.mean():
            ratios[name] = values.sum() / values.std()
    return ratios
