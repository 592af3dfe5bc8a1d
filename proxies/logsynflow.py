"""LogSynflow: SynFlow with damped gradients.

Paper: Cavagnero et al., FreeREA: Training-Free Evolution-based Architecture Search, WACV 2023, arXiv:2207.05135.
Original: NiccoloCavagnero/FreeREA (metrics/synflow.py).
Differs from it: the gradient enters by its size (there with its sign: the same where none is negative, as in ReLU
networks, and NaN below -1); absolute values are taken of the parameters alone, not of the buffers (masks of -inf would
turn into +inf); every batch norm is bypassed, functional ones too; see proxies/_saliency.py for the weights that count.
"""

from __future__ import annotations

from torch import Tensor

from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._saliency import checked, flow_of


@register_proxy(
    reference="Cavagnero et al., FreeREA, WACV 2023, arXiv:2207.05135",
    needs=("scratch",),
    invariant_to=("inputs", "order"),
    fits="models with float inputs and a convolution or linear layer",
    own_cost="forward and backward of one image in float64, shared by synflow and logsynflow",
)
def logsynflow(seen: Seen, passes: Passes) -> Tensor:
    r"""Sum over convolutions and linear layers of |weight| times log(1 + |gradient|) of a pass of ones, without data.

    .. math:: s = \sum_l \sum_{w \in W_l} |w| \log\Big(1 + \Big|\frac{\partial R}{\partial w}\Big|\Big),
        \quad R = \sum_k f_{|\theta|}(1)_k

    One image of ones goes through a copy in float64 whose parameters are all replaced by their absolute values and
    whose batch norms return their input; R is the sum of its logits. Frozen weights count; biases, normalisation
    layers, embeddings and ``in_proj_weight`` of attention do not. Meant for piecewise-linear activations: with GELU,
    LayerNorm or softmax it is computed all the same, but conserves no flow.

    Returns:
        () float64, in units of logits; 0 if every gradient vanishes; infinite, with the reason, if the pass overflows
        float64; undefined if it ends in NaN.
    Raises:
        InputError: if the inputs are integers, such as token ids.
    References:
        Cavagnero et al., WACV 2023, arXiv:2207.05135; Tanaka et al., NeurIPS 2020, arXiv:2006.05467.
    """
    flow = flow_of(passes)
    return checked(flow.log_saliency, flow, passes)
