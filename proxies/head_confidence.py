r"""Head confidence: how much of its attention a head gives to one token.

Paper: Serianni and Kalita, Training-free Neural Architecture Search for RNNs and Transformers, ACL 2023,
arXiv:2306.00288, after Voita et al., Analyzing Multi-Head Self-Attention, ACL 2019, arXiv:1905.09418.
Original: aaronserianni/training-free-nas, ``BERT_metrics.ipynb``.

This is the paper's quantity, not the notebook's: there the maximum is over the tokens of the outputs of the query, key
and value layers ("head confidence"), or over the heads of the probabilities ("softmax confidence"). Not reproduced: the
variant divided by the number of layers, and hooks left on the model from call to call, by which the repeats of one
network grow one to ten times in the authors' tables.
"""

from __future__ import annotations

import torch
from torch import Tensor

from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._attention import AttentionTap, no_attention
from proxies._copies import copy_with_graph


@register_proxy(
    reference="Serianni and Kalita, Training-free NAS for RNNs and Transformers, ACL 2023, arXiv:2306.00288",
    needs=("scratch",),
    invariant_to=("order",),
    fits="models with softmax attention",
    own_cost="1 forward",
)
def head_confidence(seen: Seen, passes: Passes) -> Tensor:
    r"""Sum over attention layers of the mean over heads, images and queries of the greatest attention weight.

    .. math:: s = \sum_l \frac{1}{H_l N T} \sum_{h, n, t} \max_s A^{(l)}_{n,h,t,s}

    Queries at padded places count like all others. A layer that runs several times counts every time.

    Returns:
        () float64, no unit: between 0 and the number of attention layers.
    References:
        Serianni and Kalita, ACL 2023, arXiv:2306.00288.
    """
    means = []

    def see(probabilities: Tensor, source: Tensor) -> None:
        means.append(probabilities.amax(dim=-1).to(torch.float64).mean())

    with copy_with_graph(passes) as model, torch.no_grad(), AttentionTap(see):
        passes.own_forward(model, passes.batch.inputs)
    if not means:
        raise no_attention(passes)
    return torch.stack(means).sum()
