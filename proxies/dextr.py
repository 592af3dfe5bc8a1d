"""Dextr: conditioning of feature maps, and curvature of the output as the input moves on a circle.

Paper: Asthana et al., Dextr: Zero-Shot Neural Architecture Search with Singular Value Decomposition and Extrinsic
Curvature, TMLR 2025, arXiv:2508.12977. Original: rohanasthana/Dextr.

Differs from the released code, which (1) hooks containers too, so that most maps count several times, and vectors,
each of which adds 1; (2) differentiates the sum of the logits at a single point, and the curvature of a number is zero
up to rounding, or NaN, in which case the code drops it; (3) returns 12345 for failures. Here modules without children
count, identities and dropout aside; and the curvature is the paper's, of the logits as a curve, in the mean over
points of the circle that pass together, so that BatchNorm sees them together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from naswot.errors import InputError, OptionError
from naswot.logits import logits_of
from naswot.observers import Module, Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._features import PASSES_ON, image_shape


def conditioning(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor:
    """(smallest over largest singular value, 1) of the first image's features; (0, 0) where they are no matrix.

    Features (C, H, W) are the matrix (C, H*W); those of a sequence, (T, D), are one already.
    """
    nothing = torch.zeros(2, dtype=torch.float64)
    if isinstance(module, PASSES_ON) or any(True for _ in module.children()):
        return nothing
    if not isinstance(output, Tensor) or output.dim() < 3 or not output.is_floating_point():
        return nothing
    features = output[0].flatten(1).to(torch.float64)
    if features.shape[1] < 2:
        return nothing
    if not torch.isfinite(features).all():
        return nothing + math.nan
    values = torch.linalg.svdvals(features)
    ratio = values[-1] / values[0] if values[0] > 0 else values[0]
    return torch.stack([ratio.cpu(), torch.ones((), dtype=torch.float64)])


def curvature(outputs: Tensor, angle: Tensor) -> Tensor:
    r"""Curvature of each row of (P, K) outputs as a curve in the common angle, (P,); NaN where it stands still.

    .. math:: \kappa = \frac{\sqrt{|v|^2 |a|^2 - (v \cdot a)^2}}{|v|^3}, \quad v = f'(\theta), \quad a = f''(\theta)

    Equal to sin(v, a) |a| / |v|^2, of which the rejection of a from v keeps more digits.
    """
    velocity = _derivative(outputs, angle)
    acceleration = _derivative(velocity, angle)
    squared = velocity.square().sum(dim=1, keepdim=True)
    along = (velocity * acceleration).sum(dim=1, keepdim=True) / squared * velocity
    bending: Tensor = (acceleration - along).norm(dim=1) / squared[:, 0]
    return bending.detach()


def _derivative(values: Tensor, angle: Tensor) -> Tensor:
    """Derivative of all values with respect to one number, by differentiating a backward pass by what it is fed."""
    weights = torch.zeros_like(values, requires_grad=True)
    options: dict[str, Any] = {"create_graph": True, "materialize_grads": True}
    (pulled,) = torch.autograd.grad((values * weights).sum(), angle, **options)
    (pushed,) = torch.autograd.grad(pulled, weights, **options)
    return pushed


class ElementaryNorms(TorchFunctionMode):
    """Context in which batch and layer norms are made of elementary operations, differentiable any number of times.

    torch's own are right twice; the derivative of their second derivative takes mean and variance for constants.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _ELEMENTARY.get(func, func)(*args, **(kwargs or {}))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    shape = [1, -1, *[1] * (input.dim() - 2)]
    mean, variance = running_mean, running_var
    if training or mean is None or variance is None:
        variance, mean = torch.var_mean(input, [d for d in range(input.dim()) if d != 1], correction=0)
    result = (input - mean.view(shape)) * (variance.view(shape) + eps).rsqrt()
    result = result if weight is None else result * weight.view(shape)
    return result if bias is None else result + bias.view(shape)


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    dims = list(range(-len(normalized_shape), 0))
    variance, mean = torch.var_mean(input, dims, correction=0, keepdim=True)
    result = (input - mean) * (variance + eps).rsqrt()
    result = result if weight is None else result * weight
    return result if bias is None else result + bias


_ELEMENTARY: Mapping[Any, Callable[..., Tensor]] = {
    F.batch_norm: _batch_norm,
    F.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
}


@register_proxy(
    reference="Asthana et al., Dextr, TMLR 2025, arXiv:2508.12977",
    observe={"conditioning": Module(nn.Module, conditioning)},
    needs=("scratch",),
    fits="models of images",
    own_cost="a forward of 8 images in float64 with its graph, and 4 backwards through it",
)
def dextr(seen: Seen, passes: Passes, *, n_points: int = 8) -> Tensor:
    r"""Half the harmonic mean of log conditioning of features and log curvature of the output along a circle.

    .. math:: s = \frac{A B}{A + B}, \quad B = \log(1 + \kappa), \quad
        A = \log\left(1 + \sum_l \frac{\sigma_{\min}(F_l)}{\sigma_{\max}(F_l)}\right)

    Args:
        seen: conditioning of the features of the first image of the batch.
        passes: gives the copy of the model and the shape of the images.
        n_points: points of the circle, evenly spaced, over which the curvature is averaged.

    Returns:
        () float64, without unit; undefined where the output stands still, or where A + B is 0.
    References:
        Asthana et al., TMLR 2025, arXiv:2508.12977. Which layers count, and at how many points, is not certain.
    """
    if n_points < 1:
        raise OptionError(f"expected at least 1 point, but got n_points={n_points}")
    shape = image_shape(passes, "dextr")
    conditions = seen["conditioning"]
    if conditions is None or conditions[1] == 0:
        raise InputError("dextr looks at features (N, C, H, W) or (N, T, D), but no module returns any")
    with passes.scratch() as model, torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        angle, images = _circle(shape, n_points, model.double(), passes)
        with ElementaryNorms():
            outputs = logits_of(passes.own_forward(model, images), passes.options.output)
        passes.n_backwards += 4
        kappa = curvature(outputs, angle).mean().cpu()
    first, second = torch.log1p(conditions[0]), torch.log1p(kappa)
    value = first * second / (first + second)
    if not torch.isfinite(value):
        return passes.undefined("the output does not move with the input, or neither part of the score is positive")
    result: Tensor = value
    return result


def _circle(shape: tuple[int, ...], n_points: int, model: nn.Module, passes: Passes) -> tuple[Tensor, Tensor]:
    """A common angle, (), and points on the unit circle of a random plane that turn with it, (P, C, H, W)."""
    device = passes.batch.tensors()[0].device
    plane = torch.linalg.qr(torch.randn(math.prod(shape), 2, dtype=torch.float64))[0].to(device)
    angle = torch.zeros((), dtype=torch.float64, device=device, requires_grad=True)
    angles = angle + torch.arange(n_points, dtype=torch.float64, device=device) * (2 * math.pi / n_points)
    points = torch.stack([angles.cos(), angles.sin()], dim=1) @ plane.t()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return angle, points.reshape(n_points, *shape)
