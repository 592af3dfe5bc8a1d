"""GradSign: on how many weights the images pull in the same direction.

Paper: Zhang and Jia, GradSign: Model Performance Inference with Theoretical Insights, ICLR 2022, arXiv:2110.08616.
Original code: cmu-catalyst/GradSign. As there: every image passes alone (so BatchNorm, in training mode, takes the
statistics of that one image), weights of convolutions and linear layers, a sum over weights (one of the authors'
scripts takes the mean instead). Differences: convolutions of one and three dimensions and transposed ones count too;
signs are added up image by image, so memory does not grow with N.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from naswot.observers import SampleGradient, Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._per_sample import layer_weights


class SignSums(dict[str, Tensor]):
    """Sums of signs by parameter name; ``+`` adds entry by entry, a name that one side lacks counts as zero there."""

    def __add__(self, other: SignSums) -> SignSums:
        """Both together."""
        both = {name: self[name] + other[name] for name in self if name in other}
        return SignSums({**self, **other, **both})


def signs(gradients: Mapping[str, Tensor]) -> SignSums:
    """Signs of one image's gradient, float32, in which sums of 16 million images are exact; NaN stays NaN."""
    matrices = {name: g.float() for name, g in gradients.items() if g.dim() > 1}
    return SignSums({name: torch.where(g.isnan(), g, g.sign()) for name, g in matrices.items()})


def n_nonzero(gradients: Mapping[str, Tensor]) -> Tensor:
    """Number of entries of one image's gradient that are not zero, ()."""
    return torch.stack([g.count_nonzero() for g in gradients.values()]).sum()


@register_proxy(
    reference="Zhang and Jia, GradSign: Model Performance Inference with Theoretical Insights, ICLR 2022, "
    "arXiv:2110.08616",
    observe={
        "signs": SampleGradient(signs, reading="single", of="loss"),
        "n_nonzero": SampleGradient(n_nonzero, reading="single", of="loss"),
    },
    minimum_images=2,
    invariant_to=("order",),
    fits="models with convolutions or linear layers",
)
def gradsign(seen: Seen, passes: Passes) -> Tensor:
    r"""Agreement of the signs of the images' gradients, summed over the weights.

    .. math:: s = \sum_w \left| \sum_i \mathrm{sign} \frac{\partial \ell_i}{\partial w} \right|

    Returns:
        () float64, a count: at most N for each weight; undefined when every gradient is zero or one is not a number.
    References:
        Zhang and Jia, ICLR 2022, arXiv:2110.08616.
    """
    sums: Mapping[str, Tensor] = seen["signs"]
    chosen = [sums[name] for name in layer_weights(passes.model) if name in sums]
    if not chosen or seen["n_nonzero"] == 0:
        return passes.undefined("every gradient is zero")
    total = torch.stack([s.double().abs().sum() for s in chosen]).sum()
    return passes.undefined("a gradient is not a number") if torch.isnan(total) else total
