"""Zen-score: how far features move when a Gaussian image does, with BatchNorm's scaling taken out.

Paper: Lin et al., Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition, ICCV 2021, arXiv:2102.01063.
Originals: idstcv/ZenNAS (32 repeats of 16 images in its scoring script, one repeat in its search), automl/NASLib (one
repeat, as many images as the batch); both look at the input of the global average pooling by a method of the network.
Differs: the features are found in the trace of the forward pass, in any model; the running statistics of every
BatchNorm start anew in each repeat, as in the originals' first, so that the score does not depend on the number of
repeats but for noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from naswot.errors import InputError, OptionError
from naswot.observers import Operation, OperationTap, Record, Seen
from naswot.passes import Passes
from naswot.preserve import set_mode
from naswot.proxy import register_proxy
from proxies._features import image_shape

_aten = torch.ops.aten
_POOLINGS = frozenset(
    {
        *(_aten.mean, _aten.sum, _aten.amax, _aten.avg_pool2d, _aten._adaptive_avg_pool2d, _aten.adaptive_max_pool2d),
        *(_aten.max_pool2d_with_indices, _aten.adaptive_avg_pool2d),
    }
)
_FLATTENINGS = frozenset({_aten.view, _aten._unsafe_view, _aten.reshape, _aten._reshape_alias, _aten.flatten})
_Norm = nn.modules.batchnorm._BatchNorm


class Latest:
    """The last of a series of values under ``+``."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def __add__(self, other: Latest) -> Latest:
        return other


def pooled_features(packet: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Latest | None:
    """What an operation pools to one value per channel, or, where it is more than that, flattens to vectors."""
    features = args[0] if args else None
    result = output[0] if isinstance(output, tuple) else output
    if not isinstance(features, Tensor) or features.dim() != 4 or not isinstance(result, Tensor):
        return None
    n, channels, height, width = features.shape
    if packet in _FLATTENINGS:
        wanted = height * width > 1 and result.shape == (n, features[0].numel())
    else:
        wanted = result.numel() == n * channels and result.shape[:2] == (n, channels)
    return Latest(features) if wanted else None


_FEATURES = Operation(pooled_features, _POOLINGS | _FLATTENINGS)


@register_proxy(
    reference="Lin et al., Zen-NAS, ICCV 2021, arXiv:2102.01063",
    needs=("scratch",),
    invariant_to=("inputs", "order", "weights"),
    fits="convolutional networks whose feature maps are pooled or flattened at the end",
    own_cost="64 forwards of 16 random images",
)
def zen(seen: Seen, passes: Passes, *, repeats: int = 32, n_images: int = 16, gamma: float = 0.01) -> Tensor:
    r"""Log distance that features move when Gaussian images do, plus log scales of BatchNorm, at N(0, 1) weights.

    .. math:: s = \mathrm{E}_{W, x, \epsilon} \left[ \log \frac{1}{B} \sum_i \| f(x_i) - f(x_i + \gamma \epsilon_i) \|_1
        + \sum_b \log \sqrt{\overline{\sigma^2_b}} \right]

    Args:
        seen: nothing.
        passes: gives the copy of the model and the shape of the images.
        repeats: draws of weights and images, over which the score is averaged.
        n_images: random images in each.
        gamma: how far they move.

    f is what the last pooling to one value per channel (or the last flattening of a map) reads. The scale of a
    BatchNorm is its mean running variance after the two passes, 0.81 + 0.19 of the batch's at the usual momentum.

    Returns:
        () float64 in nats; -inf where the features do not move at all; undefined where they overflow.
    References:
        Lin et al., ICCV 2021, Algorithm 1, arXiv:2102.01063.
    """
    if repeats < 1 or n_images < 1:
        raise OptionError(f"expected at least 1 repeat and 1 image, but got repeats={repeats}, n_images={n_images}")
    shape = image_shape(passes, "zen")
    if not any(isinstance(m, nn.modules.conv._ConvNd) for m in passes.model.modules()):
        raise InputError("zen draws the weights of convolutions, but the model has none")
    scores = []
    with passes.scratch() as model, torch.no_grad():
        model.to(torch.promote_types(_floating_type(model), torch.float32))
        set_mode(model, "train")
        for _ in range(repeats):
            _draw_weights(model)
            try:
                scores.append(_score(passes, model, (n_images, *shape), gamma))
            except _OverflowedError:
                return passes.undefined("the features overflow")
    value = torch.stack(scores).mean()
    if value == -math.inf:
        passes.remark("the features do not depend on the image")
    return value


class _OverflowedError(Exception):
    """The features of a repeat are not finite."""


def _score(passes: Passes, model: nn.Module, shape: tuple[int, ...], gamma: float) -> Tensor:
    device, kind = passes.batch.tensors()[0].device, _floating_type(model)
    images, noise = torch.randn(shape).to(device, kind), torch.randn(shape).to(device, kind)
    still, moved = (_features_of(passes, model, x) for x in (images, images + gamma * noise))
    distance = (still - moved).abs().flatten(1).sum(dim=1).mean().cpu()
    norms = [m for m in model.modules() if isinstance(m, _Norm) and m.running_var is not None]
    scales = [m.running_var.to(torch.float64).mean().cpu() for m in norms]  # type: ignore[union-attr]
    score = distance.log() + sum(scale.log() / 2 for scale in scales)
    if not distance.isfinite() or score.isnan() or score == math.inf:
        raise _OverflowedError
    return score


def _features_of(passes: Passes, model: nn.Module, images: Tensor) -> Tensor:
    record = Record([_FEATURES])
    with OperationTap(record):
        try:
            passes.own_forward(model, images)
        except InputError as error:  # NaN in the outputs
            raise _OverflowedError from error
    if _FEATURES not in record.values:
        raise InputError(
            "zen compares feature maps (N, C, H, W) before they are pooled or flattened; the model does neither"
        )
    features: Tensor = record.values[_FEATURES].value
    return features.to(torch.float64)


def _draw_weights(model: nn.Module) -> None:
    """Convolutions and linear layers N(0, 1) without bias, norms neutral with their running statistics reset."""
    for module in model.modules():
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            weight.copy_(torch.randn(weight.shape))  # type: ignore[union-attr]
        elif isinstance(module, _Norm | nn.GroupNorm):
            if weight is not None:
                weight.fill_(1)
        else:
            continue
        if bias is not None:
            bias.zero_()
        if isinstance(module, _Norm) and module.running_var is not None:
            module.reset_running_stats()


def _floating_type(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
