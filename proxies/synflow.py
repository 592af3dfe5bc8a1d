"""SynFlow: flow of ones through the linearised model, without data.

Papers: Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic flow, NeurIPS 2020,
arXiv:2006.05467; as a proxy: Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021, arXiv:2101.08134.
Original: SamsungLabs/zero-cost-nas, automl/NASLib (synflow.py).
Differs from them: NASLib reports the logarithm of the sum, this is the sum itself; absolute values are taken of the
parameters alone, not of the buffers (masks of -inf would turn into +inf); every batch norm is bypassed, functional ones
too; see proxies/_saliency.py for the weights that count.
"""

from __future__ import annotations

from torch import Tensor

from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._saliency import checked, flow_of


@register_proxy(
    reference="Tanaka et al., NeurIPS 2020, arXiv:2006.05467; as a proxy: Abdelfattah et al., arXiv:2101.08134",
    needs=("scratch",),
    invariant_to=("inputs", "order"),
    fits="models with float inputs and a convolution or linear layer",
    own_cost="forward and backward of one image in float64, shared by synflow and logsynflow",
)
def synflow(seen: Seen, passes: Passes) -> Tensor:
    r"""Sum over convolutions and linear layers of |weight times gradient| of a pass of ones, without data.

    .. math:: s = \sum_l \sum_{w \in W_l} \Big| w \, \frac{\partial R}{\partial w} \Big|,
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
        Tanaka et al., NeurIPS 2020, arXiv:2006.05467, Algorithm 1; SamsungLabs/zero-cost-nas, measure "synflow".
    """
    flow = flow_of(passes)
    return checked(flow.saliency, flow, passes)
