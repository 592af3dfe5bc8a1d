"""Synaptic flow weight by weight: the pass of ones through the network of absolute weights.

Papers: Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic flow, NeurIPS 2020,
arXiv:2006.05467; Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021, arXiv:2101.08134.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from naswot.errors import InputError
from naswot.logits import logits_of
from naswot.passes import Passes
from proxies._copies import copy_with_graph, ones_like_one_image, run, weight_matrices
from proxies._saliency import WithoutBatchNorm


def flow_gradients(passes: Passes) -> Mapping[str, tuple[Tensor, Tensor]] | None:
    r"""Absolute weights and the gradient of the summed outputs in them, by parameter name; float64, one image of ones.

    .. math:: R = \sum_k f(1; |\theta|)_k, \quad (|W|, \partial R / \partial |W|)

    Batch normalisation is bypassed, buffers stay as they are. Weights that the outputs do not reach are left out.

    Returns:
        None if the pass overflows.
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
        weights = weight_matrices(model)
        try:
            result = run(passes, model, ones)
        except InputError:  # NaN outputs: those of finite weights come from infinities that met
            if all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
                return None
            raise
        passes.n_backwards += 1
        outputs = logits_of(result, passes.options.output).sum()
        gradients = torch.autograd.grad(outputs, list(weights.values()), allow_unused=True)
    pairs = {
        name: (weight.detach(), gradient)
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
        if gradient is not None
    }
    finite = bool(outputs.isfinite()) and all(bool(gradient.isfinite().all()) for _, gradient in pairs.values())
    return pairs if finite else None
