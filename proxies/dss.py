r"""DSS: synaptic diversity of the attention weights plus synaptic saliency of all others.

Paper: Zhou et al., Training-free Transformer Architecture Search (TF-TAS), CVPR 2022, arXiv:2203.12217.
Original: decemberzhou/TF_TAS, ``indicators/dss.py``.

As in the code, not the paper: the patch embedding and the classifier count like the MLP; the gradients are those of
SynFlow (one image of ones, absolute weights, sum of the outputs, BatchNorm bypassed). Queries, keys and values in one
matrix count as one matrix, so splitting them changes the score. Differences: float64; attention is told by names
(original: AutoFormer's classes, or a square weight), see ``proxies/_attention.py``; buffers stay as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from naswot.errors import InputError
from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._attention import attention_weights
from proxies._flow import flow_gradients


@register_proxy(
    reference="Zhou et al., Training-free Transformer Architecture Search, CVPR 2022, arXiv:2203.12217",
    needs=("scratch",),
    invariant_to=("inputs", "order"),
    fits="vision transformers",
    own_cost="1 forward and backward of one image of ones",
)
def dss(seen: Seen, passes: Passes) -> Tensor:
    r"""Nuclear norms of attention weights times those of their gradients, plus |w . g| of all other weights.

    .. math::
        s = \sum_{W \in \mathrm{MSA}} \Bigl\|\frac{\partial R}{\partial W}\Bigr\|_* \|W\|_*
          + \sum_{W \notin \mathrm{MSA}} \sum_w \Bigl|w \frac{\partial R}{\partial w}\Bigr|

    Returns:
        () float64 in units of the output R; undefined when the pass overflows.
    References:
        Zhou et al., CVPR 2022, arXiv:2203.12217.
    """
    attention = attention_weights(passes.model)
    if not attention:
        raise InputError(
            f"DSS is defined for transformers, but the model {type(passes.model).__name__} has no attention weights: "
            f"no nn.MultiheadAttention and no module called attention or attn with weights"
        )
    flow = flow_gradients(passes)
    if flow is None:
        return passes.undefined("synaptic flow overflows: the network is too deep or wide without BatchNorm")
    diversity = [_nuclear(w) * _nuclear(g) for name, (w, g) in flow.items() if name in attention]
    saliency = [(w * g).abs().sum() for name, (w, g) in flow.items() if name not in attention]
    if not diversity:
        return passes.undefined("the outputs do not depend on any attention weight")
    return torch.stack(diversity + saliency).sum()


def _nuclear(weight: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.matrix_norm(weight.flatten(1), "nuc")
    return norm
