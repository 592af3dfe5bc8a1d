"""What the saliency proxies share: which weights count, sums over them, and the pass of synaptic flow.

Papers: Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021, arXiv:2101.08134; Tanaka et al., Pruning
neural networks without any data by iteratively conserving synaptic flow, NeurIPS 2020, arXiv:2006.05467.
Original: SamsungLabs/zero-cost-nas and, with the same formulas, automl/NASLib (scores of NAS-Bench-Suite-Zero).

What counts: the ``weight`` of every convolution (also 1-D, 3-D and transposed ones, which the original leaves out) and
every ``nn.Linear``, wherever in the model. What does not: biases, normalisation layers, embeddings, class tokens and
position tables, ``in_proj_weight`` of ``nn.MultiheadAttention`` (its ``out_proj`` is an ``nn.Linear`` and counts),
linear layers of other libraries under other names. A weight that several layers share counts once, and it counts if
one of them is a convolution or a linear layer, such as a head tied to an embedding; the original counts it per layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from naswot.errors import InputError
from naswot.observers import Gradient
from naswot.passes import Passes
from proxies._flow import flow_pass

ZERO_COST = "Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021, arXiv:2101.08134"

LAYERS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)
"""Types of the layers whose weights count."""


def counted_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of convolutions and linear layers by parameter name, each once, trainable or not.

    Raises:
        InputError: if there is none, or if a layer's weight is computed from other parameters.
    """
    weights = set()
    for name, module in model.named_modules():
        if isinstance(module, LAYERS):
            if module._parameters.get("weight") is None:
                raise InputError(
                    f"the weight of layer {name!r} is no parameter but computed from others (weight_norm, ...), so it "
                    f"has no saliency of its own; remove the parametrisation first"
                )
            weights.add(module.weight)
    if not weights:
        raise InputError("the model has no convolution or linear layer (nn.Conv*, nn.Linear) whose weights could count")
    return {name: parameter for name, parameter in model.named_parameters() if parameter in weights}


def trainable_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Those of :func:`counted_weights` that ask for a gradient.

    Raises:
        InputError: if there is none.
    """
    trainable = {name: weight for name, weight in counted_weights(model).items() if weight.requires_grad}
    if not trainable:
        raise InputError("every weight of a convolution or linear layer is frozen, so there is no gradient to take")
    return trainable


def total(values: Mapping[str, Tensor], passes: Passes) -> Tensor:
    """Sum of what was seen of the gradients of the weights that count; () float64, undefined if none has a gradient.

    Args:
        values: () float64 by parameter name; those that do not count are left out.
        passes: of the same model.
    """
    found = [values[name] for name in trainable_weights(passes.model) if name in values]
    return torch.stack(found).sum() if found else unreached(passes)


def unreached(passes: Passes) -> Tensor:
    """The undefined score of a model whose loss no weight can change."""
    return passes.undefined("the loss does not depend on the weight of any convolution or linear layer")


NamedNumbers = tuple[tuple[str, tuple[Tensor, ...]], ...]
"""What the reducers of gradients collect: parameter name and () float64 numbers; nothing for vectors."""


def norm_of_gradient(name: str, parameter: nn.Parameter, gradient: Tensor) -> NamedNumbers:
    """Euclidean norm of one gradient."""
    if parameter.dim() < 2:
        return ()
    return ((name, (torch.linalg.vector_norm(gradient.detach(), dtype=torch.float64),)),)


def products_of(name: str, parameter: nn.Parameter, gradient: Tensor) -> NamedNumbers:
    """Sum of w * g and sum of |w * g|: one for plain, one for SNIP."""
    if parameter.dim() < 2:
        return ()
    products = parameter.detach().to(torch.float64) * gradient.detach()
    return ((name, (products.sum(), products.abs().sum())),)


PRODUCTS = Gradient(products_of)
"""Observer of plain and SNIP."""


# --- synaptic flow ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flow:
    """Sums over the weights that count, from one pass of ones through the linearised model; () float64 each.

    Args:
        saliency: sum of |w * dR/dw|.
        log_saliency: sum of |w| * log(1 + |dR/dw|).
        outputs: R, the sum of the logits; infinite, or NaN where infinities met, if the pass overflows.
    """

    saliency: Tensor
    log_saliency: Tensor
    outputs: Tensor


def flow_of(passes: Passes) -> Flow:
    """The sums of synaptic flow, worked out once for all proxies of the same passes.

    Raises:
        InputError: if the model reads integers, such as token ids, where ones would have to go.
    """
    return passes.once("synaptic flow", lambda: _measured_flow(passes))


def checked(value: Tensor, flow: Flow, passes: Passes) -> Tensor:
    """A sum of the flow with its status: infinite if the pass overflows, undefined if it makes NaN otherwise."""
    if flow.outputs.isinf() or value.isinf():
        passes.remark("synaptic flow overflows float64: the sum of the outputs or a gradient is infinite")
        return torch.tensor(torch.inf, dtype=torch.float64)
    return passes.undefined("the pass of synaptic flow ends in NaN") if value.isnan() else value


def _measured_flow(passes: Passes) -> Flow:
    found = flow_pass(passes, counted_weights)
    if found is None:
        nan = torch.tensor(torch.nan, dtype=torch.float64)
        return Flow(nan, nan, nan)
    pairs, outputs = found
    zero = outputs.new_zeros(())
    saliency = sum(((w * g.abs()).sum() for w, g in pairs.values()), zero)
    return Flow(saliency, sum(((w * g.abs().log1p()).sum() for w, g in pairs.values()), zero), outputs)
