"""What CALM and its parts share: kernels of activation calls, and the evidence of labels; see ``code_evidence``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from naswot.calls import ActivationCall
from naswot.dependence import dependence_of
from naswot.errors import InputError
from naswot.observers import Activation
from naswot.passes import Passes
from naswot.scoring import agreement_counts
from naswot.seeding import torch_generator

NOISE = 0.1
"""Variance of the noise, that of the process being 1."""
BLOCK = 64
"""Images that are looked at together (up to twice as many where they do not divide): what one image tells of another
depends on how many there are, and so blocks make batches of 64 comparable with larger ones."""


@dataclass(frozen=True, eq=False)
class LayerKernel:
    """Kernel of agreement of one pre-activation, (N, N) float64, integer-valued; all calls that read it share this."""

    counts: Tensor


def _kernel_of(call: ActivationCall) -> LayerKernel:
    return LayerKernel(agreement_counts(call))


def _note(call: ActivationCall) -> tuple[tuple[int, LayerKernel]]:
    return ((call.index, call.once(_kernel_of)),)


Calls = tuple[tuple[int, LayerKernel], ...]
"""Number of each activation call, and its kernel."""
KERNELS = Activation(_note)
"""Observer of these."""


def live_units_of(calls: Calls, passes: Passes) -> int:
    """Units, for one image, of the activation calls that the output depends on; each call counts."""
    live = dependence_of(passes).calls
    return sum(int(kernel.counts[0, 0]) for index, kernel in calls if index in live)


def evidence(kernels: Tensor, classes: Tensor, *, noise: float = NOISE) -> Tensor:
    r"""Log marginal likelihood of the classes by each kernel, for each image and class, less that of pure noise.

    .. math:: e = \frac{1}{2} \log \frac{\mathrm{tr}\, Y^\top Y}{\mathrm{tr}\, Y^\top G^{-1} Y} - \frac{1}{2n} \log |G|,
        \quad G = \frac{n}{\mathrm{tr}\, \bar K} \bar K + \varepsilon I

    Y is (n, C), one column for each class, and K the kernel, both centred; the process has its likeliest variance.

    Args:
        kernels: (..., n, n) float64; none of them constant.
        classes: (n,) integers, of at least two kinds; which number stands for which does not matter.
        noise: epsilon.
    Returns:
        (...) float64 in nats. A kernel that finds nothing in common between any two images has
        log(1 + n / (n - 1) / noise) / 2n, or 0.019 for 64, as the constant that centring takes away is not paid for.

    Example:
        >>> same = torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], dtype=torch.float64)
        >>> right, wrong = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
        >>> float(evidence(same, right)) > 0 > float(evidence(same, wrong))
        True
    """
    n = len(classes)
    centre = torch.eye(n, dtype=torch.float64, device=kernels.device) - 1 / n
    kinds = classes.unique(return_inverse=True)[1]
    labels = centre @ torch.nn.functional.one_hot(kinds).to(torch.float64)
    centred = centre @ kernels @ centre
    scale = n / centred.diagonal(dim1=-2, dim2=-1).sum(-1)
    factor = torch.linalg.cholesky(
        scale[..., None, None] * centred + noise * torch.eye(n, dtype=torch.float64, device=kernels.device)
    )
    whitened = torch.linalg.solve_triangular(factor, labels.expand(*factor.shape[:-1], -1), upper=False)
    fit = labels.square().sum().log() - whitened.square().sum((-2, -1)).log()
    values: Tensor = fit / 2 - factor.diagonal(dim1=-2, dim2=-1).log().mean(-1)
    return values


def blocks_of(targets: Tensor) -> list[Tensor]:
    """Numbers of the images of each block: one of all, or several of ``BLOCK`` or a few more, dealt at random.

    The deal is the same for every batch of that size; labels may come sorted, or in turn.

    Raises:
        InputError: if a block has no two images of one class, or none of two.
    """
    count = max(1, len(targets) // BLOCK)
    deal = torch.arange(len(targets)) if count == 1 else torch.randperm(len(targets), generator=torch_generator(0))
    blocks = [deal[first::count].to(targets.device) for first in range(count)]
    for block in blocks:
        kinds = len(targets[block].unique())
        if kinds in (1, len(block)):
            what = "one class" if kinds == 1 else "as many classes"
            raise InputError(
                f"the evidence of labels needs several images of each of several classes, but {len(block)} images are "
                f"of {what}; draw the batch from about ten classes"
            )
    return blocks


def mean_evidence(calls: Calls, passes: Passes) -> Tensor:
    """Mean over the live layers and the blocks, worked out once; () float64, undefined where there is no layer."""
    targets = passes.batch.targets
    if targets is None:
        raise InputError("the evidence of labels needs labels, but the batch has none; pass Batch(inputs, targets)")
    blocks = blocks_of(targets)

    def compute() -> Tensor | None:
        live = dependence_of(passes).calls
        distinct = dict.fromkeys(kernel for index, kernel in calls if index in live)
        values = []
        for block in blocks:
            parts = [kernel.counts[block][:, block] / kernel.counts[0, 0] for kernel in distinct]
            varied = [part for part in parts if bool((part < 1).any())]
            if varied:
                values.append(evidence(torch.stack(varied), targets[block]).mean())
        return torch.stack(values).mean() if values else None

    found = passes.once("code evidence", compute)
    return (
        passes.undefined("the output depends on no activation that tells two images apart") if found is None else found
    )
