"""Number of linear regions that random inputs fall into.

Paper: Chen et al., Neural Architecture Search on ImageNet in Four GPU Hours: A Theoretically Inspired Perspective
(TE-NAS), ICLR 2021, arXiv:2102.11535. Original: VITA-Group/TENAS, which cuts 3 x 1,000 one-channel images of 3x3 pixels
out of the data and feeds them to a copy of the network one channel wide; ZenNAS's copy feeds Gaussian images.
Differs: Gaussian images, as many channels as the batch's, the network as it is, all in one pass (so BatchNorm sees
them together), one initialisation; every tapped activation call counts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from naswot.errors import OptionError
from naswot.observers import Activation, Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._features import observed_of_size, sized
from proxies._patterns import image_groups

_GROUPS = {"groups": Activation(image_groups)}


@register_proxy(
    reference="Chen et al., TE-NAS, ICLR 2021, arXiv:2102.11535",
    needs=("scratch",),
    invariant_to=("inputs", "order"),
    fits="models that take images of any size and have activations",
    own_cost="a forward of 3,000 images of 3x3 pixels",
)
def linear_regions(seen: Seen, passes: Passes, *, n_samples: int = 3000, size: int | None = 3) -> Tensor:
    """Number of distinct activation codes among random images.

    Networks of published size tell all of the images apart, so that their counts are all ``n_samples``; TE-NAS counts
    on copies one channel wide. Of a space, score such copies: ``Evaluator(..., build={"width": 1, "n_cells": 1})``.

    Args:
        seen: nothing.
        passes: gives the copy of the model and the number of channels.
        n_samples: images.
        size: their height and width; None for those of the batch's images, at which nearly every network tells all
            images apart and the count says nothing.

    Returns:
        () float64, a count, at most ``n_samples``.
    References:
        Chen et al., ICLR 2021, Section 3.1.2, arXiv:2102.11535.
    """
    if n_samples < 1:
        raise OptionError(f"expected at least 1 sample, but got n_samples={n_samples}")
    shape = sized(passes, "linear_regions", size)
    with passes.scratch() as model:
        images = torch.randn(n_samples, *shape)
        groups = observed_of_size(passes, "linear_regions", model, images, _GROUPS)["groups"]
    return torch.tensor(len(groups), dtype=torch.float64)
