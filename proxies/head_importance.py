r"""Head importance: how much the loss changes when a head is switched off, to first order.

Paper: Serianni and Kalita, Training-free Neural Architecture Search for RNNs and Transformers, ACL 2023,
arXiv:2306.00288, after Michel et al., Are Sixteen Heads Really Better than One?, NeurIPS 2019, arXiv:1905.10650, Eq. 2.
Original: aaronserianni/training-free-nas, ``BERT_metrics.ipynb``.

This is the papers' quantity, not the notebook's, which sums \|w * g\| over the weights of the attention layers, g for
the sum of the last hidden states. The loss is the cross-entropy. Not reproduced: the variant divided by the number of
layers, and state left on the model from call to call.
"""

from __future__ import annotations

import torch
from torch import Tensor

from naswot.errors import ShapeError
from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._attention import AttentionTap, no_attention
from proxies._copies import copy_with_graph, loss_of


@register_proxy(
    reference="Serianni and Kalita, Training-free NAS for RNNs and Transformers, ACL 2023, arXiv:2306.00288",
    needs=("scratch", "targets"),
    invariant_to=("order",),
    fits="models with softmax attention",
    own_cost="1 forward and backward",
)
def head_importance(seen: Seen, passes: Passes) -> Tensor:
    r"""Sum over heads of the mean over images of |A . dL/dA|, A the head's attention probabilities.

    .. math:: s = \sum_{l, h} \frac{1}{N} \sum_n \Bigl|
        \sum_{t, s} A^{(l)}_{n,h,t,s} \, \frac{\partial L_n}{\partial A^{(l)}_{n,h,t,s}} \Bigr|

    With L_n the image's part of the loss. Equal to Michel's :math:`|C_h \cdot \partial L / \partial C_h|` with the
    head's output C = A V, since both are the derivative in a factor before the head. Windows of one image add up.
    Frozen weights do not matter.

    Returns:
        () float64 in nats; undefined when the loss depends on no attention.
    References:
        Serianni and Kalita, ACL 2023, arXiv:2306.00288; Michel et al., NeurIPS 2019, Eq. 2, arXiv:1905.10650.
    """
    seen_calls: list[tuple[Tensor, Tensor]] = []
    with copy_with_graph(passes) as model:
        with AttentionTap(lambda probabilities, source: seen_calls.append((probabilities, source))):
            result = passes.own_forward(model, passes.batch.inputs)
        if not seen_calls:
            raise no_attention(passes)
        loss = loss_of(passes, result)
        sources = [source for _, source in seen_calls if source.requires_grad]
        passes.n_backwards += 1
        gradients = torch.autograd.grad(loss, sources, allow_unused=True) if sources and loss.requires_grad else ()
    found = {id(source): gradient for source, gradient in zip(sources, gradients, strict=bool(gradients))}
    with torch.no_grad():
        terms = [
            _importance(probabilities, gradient, passes.batch.n)
            for probabilities, source in seen_calls
            if (gradient := found.get(id(source))) is not None
        ]
    if not terms:
        return passes.undefined("the loss does not depend on any attention")
    return torch.stack(terms).sum()


def _importance(probabilities: Tensor, gradient: Tensor, n: int) -> Tensor:
    """Sum over heads and images of one layer; the gradient of the mean loss holds the 1/N."""
    if probabilities.shape[0] % n:
        raise ShapeError(f"attention probabilities {tuple(probabilities.shape)} do not count the {n} images first")
    products = probabilities.to(torch.float64) * gradient.reshape(probabilities.shape)
    heads = products.sum(dim=(2, 3))  # (N x windows, H)
    return heads.reshape(n, -1, heads.shape[1]).sum(dim=1).abs().sum()
