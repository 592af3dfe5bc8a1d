"""Fisher: how much the loss would feel the loss of each channel.

Papers: Theis et al., Faster gaze prediction with dense networks and Fisher pruning, 2018, arXiv:1801.05787; Turner et
al., BlockSwap, ICLR 2020, arXiv:1906.04113; as a proxy: Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR
2021, arXiv:2101.08134.
Original: SamsungLabs/zero-cost-nas, automl/NASLib (fisher.py). Code for pruning reads activations behind the ReLU,
this code the outputs of the layers. It spreads the value of a channel over all its weights before adding up, which the
papers do not say: each channel counts as often as it has weights, and so it does here.
Differs from them: the channels of a linear layer on tokens are its features, there the tokens; a layer called several
times adds what each call gives; the other convolutions count like the 2-D one.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from naswot.errors import InputError
from naswot.observers import OutputGradient, Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._saliency import LAYERS, counted_weights, unreached


def fisher_of_layer(layer: nn.Module, output: Tensor, gradient: Tensor) -> Tensor:
    """Fisher information of the channels of one call, each times its number of weights; () float64."""
    products = output.detach().to(torch.float64) * gradient.detach()
    channels = products if isinstance(layer, nn.Linear) else products.movedim(1, -1)
    n_channels = channels.shape[-1]
    of_channels = channels.reshape(len(channels), -1, n_channels).sum(dim=1).square().mean(dim=0) / 2
    weight = cast("Tensor", layer.weight)
    return of_channels.sum() * (weight.numel() // n_channels)


@register_proxy(
    reference="Theis et al., 2018, arXiv:1801.05787; as a proxy: Abdelfattah et al., ICLR 2021, arXiv:2101.08134",
    observe={"fisher": OutputGradient(LAYERS, fisher_of_layer)},
    fits="models with a convolution or linear layer",
)
def fisher(seen: Seen, passes: Passes) -> Tensor:
    r"""Sum over channels of convolutions and linear layers of their Fisher information, once for every weight.

    .. math:: s = \sum_l \frac{|W_l|}{K_l} \sum_{k=1}^{K_l} \frac{1}{2 N}
        \sum_i \Big( \sum_p a_{ikp} \frac{\partial L}{\partial a_{ikp}} \Big)^2

    a is the output of layer l, i counts the images, k its channels, p positions; L is the mean cross-entropy of the
    batch, BatchNorm on batch statistics. Images are counted by the first dimension of the output, so windows of a
    windowed attention count as images. A linear layer whose weight is used without a call, such as ``out_proj`` of
    ``nn.MultiheadAttention``, is not seen.

    Returns:
        () float64, in nats squared; 0 if every product vanishes; undefined if the loss depends on no such output.
    Raises:
        InputError: for sequence-first models (``batch_dim=1``).
    References:
        Theis et al., 2018, arXiv:1801.05787; Turner et al., ICLR 2020, arXiv:1906.04113; SamsungLabs/zero-cost-nas,
        measure "fisher".
    """
    if passes.options.batch_dim != 0:
        raise InputError("fisher counts the images by the first dimension of the layers' outputs, not by batch_dim=1")
    counted_weights(passes.model)
    return unreached(passes) if seen["fisher"] is None else seen["fisher"]
