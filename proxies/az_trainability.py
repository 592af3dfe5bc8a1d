"""AZ-NAS, third component: how close every block comes to handing gradients on at their size.

Paper: Lee and Ham, AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search, CVPR 2024, arXiv:2403.19232.
Original: cvlab-yonsei/AZ-NAS, `compute_az_nas_score.py`, whose reading of the Jacobian is kept: the random signs at the
output of a block times the gradient they send to its input, averaged over positions and images; where a block halves
the resolution, the positions it merges become channels. Differs from it: the blocks are found in the data flow, see
:mod:`proxies._blocks`; the weights stay those of the model; no 1e-6 is added to the singular value; gradient maps whose
size is no multiple of the output's are cropped or padded by zeros evenly (15 to 8: padded to 16; 8 to 6 without padding
in the network: cropped), and blocks whose positions still cannot be paired (patches to patches with a class token,
upsampling) are left out; theirs fails on both.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from naswot.errors import InputError
from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._blocks import Feature, blocks_of, rows_of


@register_proxy(
    reference="Lee and Ham, AZ-NAS, CVPR 2024, arXiv:2403.19232",
    needs=("scratch",),
    invariant_to=("inputs", "order"),
    fits="networks of two blocks or more before the classifier; token ids need torch.nn.Embedding",
    own_cost="1 forward of Gaussian images, 1 backward in parts",
)
def az_trainability(seen: Seen, passes: Passes) -> Tensor:
    r"""Mean over the blocks of 2 - s - 1/s, with s the largest singular value of the block's Jacobian.

    .. math:: s_T = \frac{1}{L-1} \sum_{l=2}^L \left( 2 - \sigma_l - \frac{1}{\sigma_l} \right), \quad
              \sigma_l = \left\| \frac{1}{R} \sum_{r=1}^R (J_l^T v)_r v_r^T \right\|_2

    with signs v drawn evenly at all R positions of the block's output: the sum has the mean of the Jacobian as its
    expectation. At most 0, which is reached by :math:`\sigma_l = 1` everywhere.

    Returns:
        () float64 without unit; -inf where a block kills the gradient or hands it on unchanged; undefined if the logits
        do not depend on the inputs or a gradient overflows.
    References:
        Lee and Ham, CVPR 2024, Sec. 3.1, arXiv:2403.19232; the authors' code for convolutional networks gives -inf to
        a block that hands the gradient on unchanged (a skip connection alone), that for transformers passes over it.
    """
    with blocks_of(passes, n_needed=2) as features:
        if not features:
            return passes.undefined("the logits do not depend on the inputs")
        passes.n_backwards += 1  # those of the blocks add up to one
        gains = [_gain(before, after) for before, after in pairwise(features)]
    known = [gain for gain in gains if gain is not None]
    if not known:
        raise InputError("no block has an output whose positions can be paired with those of its input")
    for wrong, reason in ((0.0, "kills the gradient"), (math.inf, "hands the gradient on unchanged")):
        if wrong in known:
            passes.remark(f"block {gains.index(wrong) + 2} of {len(features)} {reason}")
            return torch.tensor(-math.inf, dtype=torch.float64)
    if any(math.isnan(gain) for gain in known):
        return passes.undefined("the gradient of a block is not finite")
    return torch.tensor([2 - gain - 1 / gain for gain in known], dtype=torch.float64).mean()


def _gain(before: Feature, after: Feature) -> float | None:
    """Largest singular value of a block: inf if it is the identity, NaN if not finite, None if it cannot be told."""
    signs = (torch.randint(2, after.shape) * 2 - 1).to(after.like)
    # the paths between two cut points are nobody else's, so their graph may go
    found = torch.autograd.grad(after.edge, before.edge, signs)[0]
    if found.shape == signs.shape and torch.equal(found, signs):
        return math.inf
    inner, outer = rows_of(_merged(found, after.shape)), rows_of(signs)
    if len(inner) != len(outer):
        return None
    jacobian = inner.double().T @ outer.double() / len(outer)
    if not bool(torch.isfinite(jacobian).all()):
        return math.nan
    return float(torch.linalg.matrix_norm(jacobian, ord=2))


def _merged(maps: Tensor, shape: torch.Size) -> Tensor:
    """Maps (N, C, H, W) with as many positions as ``shape`` has, (N, C * r * r', H', W'); as they are if unfit."""
    sizes, targets = maps.shape[2:], shape[2:]
    if maps.dim() != 4 or len(shape) != 4 or any(t >= 2 * s for s, t in zip(sizes, targets, strict=True)):
        return maps
    # the whole number nearest to the ratio; halves go down, as for a 3x3 convolution without padding on 6x6
    ratios = [max(1, math.ceil(s / t - 0.5)) for s, t in zip(sizes, targets, strict=True)]
    margins = [t * r - s for s, t, r in zip(sizes, targets, ratios, strict=True)]
    edges = [edge for margin in reversed(margins) for edge in (margin // 2, margin - margin // 2)]
    cells = F.pad(maps, edges).reshape(len(maps), -1, targets[0], ratios[0], targets[1], ratios[1])
    return cells.permute(0, 1, 3, 5, 2, 4).reshape(len(maps), -1, *targets)
