"""GraSP: what removing each weight would do to the flow of the gradient.

Papers: Wang et al., Picking Winning Tickets Before Training by Preserving Gradient Flow, ICLR 2020, arXiv:2002.07376;
as a proxy: Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021, arXiv:2101.08134.
Original: SamsungLabs/zero-cost-nas, automl/NASLib (grasp.py), whose reading this is: the whole batch once (one
iteration), temperature 1 (the pruning code divides the logits by 200) and the sign below (that of the paper; the
pruning code has the opposite one, there the lowest are kept).
Differs from them: the gradient is taken once and not twice, which gives the same product; see proxies/_saliency.py for
the weights that count; frozen ones are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from naswot.errors import InputError
from naswot.logits import cross_entropy, logits_of
from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._saliency import trainable_weights, unreached


@register_proxy(
    reference="Wang et al., GraSP, ICLR 2020, arXiv:2002.07376; as a proxy: Abdelfattah et al., arXiv:2101.08134",
    needs=("gradients", "scratch"),
    fits="models with a convolution or linear layer that can be differentiated twice",
    own_cost="a backward and the backward of that (with fused attention also a forward)",
)
def grasp(seen: Seen, passes: Passes) -> Tensor:
    r"""Sum over convolutions and linear layers of minus weight times Hessian-gradient product of the loss.

    .. math:: s = - \sum_l \sum_{w \in W_l} w \, (H g)_w, \quad g = \nabla_W L, \quad H = \nabla_W^2 L

    L is the mean cross-entropy of the batch, BatchNorm on batch statistics; g and H are those of the weights W that
    count, without biases, normalisation layers, embeddings and ``in_proj_weight`` of attention.

    Returns:
        () float64, in nats squared per squared unit of weight, of either sign; 0 if every gradient vanishes; undefined
        if the loss depends on no such weight.
    Raises:
        InputError: if some operation of the model cannot be differentiated twice.
    References:
        Wang et al., ICLR 2020, arXiv:2002.07376; SamsungLabs/zero-cost-nas, measure "grasp".
    """
    weights = list(trainable_weights(passes.model).values())
    try:
        products = hessian_gradient(passes.loss(), weights, passes)
    except RuntimeError as error:
        if not _is_once_only(error):
            raise
        return _without_fused_attention(passes)
    return _score(weights, products, passes)


def hessian_gradient(loss: Tensor, weights: Sequence[Tensor], passes: Passes) -> tuple[Tensor | None, ...] | None:
    """Hessian of ``loss`` times its gradient, both in ``weights``; None if no weight reaches the loss."""
    passes.n_backwards += 1
    gradients = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
    products = [(gradient.detach() * gradient).sum() for gradient in gradients if gradient is not None]
    if not products:
        return None
    square = torch.stack(products).sum()
    _check_graph(square)
    passes.n_backwards += 1
    return torch.autograd.grad(square, weights, retain_graph=True, allow_unused=True)


def _check_graph(tensor: Tensor) -> None:
    """Refuse what autograd would pass over in silence when asked for some gradients: functions with one derivative."""
    waiting, known = [tensor.grad_fn], {tensor.grad_fn}
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        if node.name() == "torch::autograd::Error":
            raise RuntimeError("a custom function is marked once_differentiable")
        new = {following for following, _ in node.next_functions} - known
        known |= new
        waiting += new


def _score(weights: Sequence[Tensor], products: Sequence[Tensor | None] | None, passes: Passes) -> Tensor:
    if products is None:
        return unreached(passes)
    pairs = ((w.detach().to(torch.float64), p) for w, p in zip(weights, products, strict=True) if p is not None)
    return -sum(((weight * product).sum() for weight, product in pairs), torch.zeros((), dtype=torch.float64))


def _is_once_only(error: RuntimeError) -> bool:
    return "is not implemented" in str(error) or "once_differentiable" in str(error)


def _without_fused_attention(passes: Passes) -> Tensor:
    """The same over a forward pass of its own, in which attention is made of operations that have two derivatives."""
    with passes.scratch() as model, torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        weights = list(trainable_weights(model).values())
        result = passes.own_forward(model, passes.batch.inputs)
        targets = cast("Tensor", passes.batch.targets)
        loss = cross_entropy(logits_of(result, passes.options.output), targets, "mean")
        try:
            return _score(weights, hessian_gradient(loss, weights, passes), passes)
        except RuntimeError as error:
            if not _is_once_only(error):
                raise
            raise InputError(
                f"grasp differentiates twice, which some operation of the model forbids: {error}"
            ) from error
