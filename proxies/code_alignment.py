r"""Code alignment: whether the layers of an untrained network group the images as the labels do.

The code of an image in one layer says which of its units lie above their threshold; two images agree on a share of it.
A layer that tells images apart has low agreement, and one whose agreements are all alike shows that it does so without
prejudice; a layer that suits the task has images of one class agree more than images of two. All three are in the
alignment (centred cosine, CKA) of the kernel of agreement with that of the labels, which is what this proxy measures.

Kernel and codes: Mellor et al., Neural Architecture Search without Training, ICML 2021, arXiv:2006.04647.
Alignment with labels: Cristianini et al., On Kernel-Target Alignment, NeurIPS 2001; centred: Cortes et al., JMLR 13
(2012). That of a *neural tangent* kernel was used for architectures by Mok et al., CVPR 2022, arXiv:2203.14577.
Differs from CKA: it is the value of a fixed batch of reference, 10 classes with 10 images each, from means over pairs of
images that do not depend on how many there are; and it is 1, not 0.3, where all pairs agree alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from naswot.calls import ActivationCall
from naswot.dependence import dependence_of
from naswot.errors import InputError
from naswot.observers import Activation, Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from naswot.scoring import agreement_counts

CLASSES, OF_EACH = 10, 10
"""The batch of reference."""


@dataclass(frozen=True, eq=False)
class LayerKernel:
    """Kernel of agreement of one pre-activation, (N, N) float64, integer-valued; calls that read it share this object."""

    counts: Tensor


def _kernel_of(call: ActivationCall) -> LayerKernel:
    return LayerKernel(agreement_counts(call))


def _note(call: ActivationCall) -> tuple[tuple[int, LayerKernel]]:
    return ((call.index, call.once(_kernel_of)),)


KERNELS = Activation(_note)
"""Observer whose value is a tuple of the number of each activation call and its kernel."""


def live_kernels(calls: tuple[tuple[int, LayerKernel], ...], passes: Passes) -> list[Tensor]:
    """Kernels that the output depends on, each pre-activation once; none that is the same for all images."""
    live = dependence_of(passes).calls
    kernels = dict.fromkeys(kernel for index, kernel in calls if index in live)
    return [kernel.counts for kernel in kernels if bool((kernel.counts != kernel.counts[0, 0]).any())]


def live_units_of(calls: tuple[tuple[int, LayerKernel], ...], passes: Passes) -> int:
    """Units, for one image, of the activation calls that the output depends on; each call counts."""
    live = dependence_of(passes).calls
    return sum(int(kernel.counts[0, 0]) for index, kernel in calls if index in live)


def same_class(passes: Passes) -> Tensor:
    """Which pairs of images are of one class, (N, N) bool.

    Raises:
        InputError: if there are no labels, or not both kinds of pairs.
    """
    targets = passes.batch.targets
    if targets is None:
        raise InputError("alignment with labels needs labels, but the batch has none; pass Batch(inputs, targets)")
    same = targets[:, None] == targets[None]
    if bool(same.all()) or int(same.sum()) == len(same):
        what = "of one class" if bool(same.all()) else "of different classes"
        raise InputError(
            f"alignment with labels needs pairs of images of one class and of two, but all {len(same)} images are {what}; "
            f"draw the batch from about {CLASSES} classes"
        )
    return same


def alignment(kernel: Tensor, same: Tensor) -> Tensor:
    r"""Alignment of a kernel of agreement with classes, for the batch of reference; () float64.

    .. math:: a = \frac{(1 - A) + m (A - B)}{\sqrt{(1 - \bar k)^2 + (n - 1) V}}, \quad n = 100,\ m = 10

    with A and B the mean agreement of two images of one class and of two, :math:`\bar k` that of all pairs, and V the
    mean square of the agreements of pairs after centring, by the unbiased estimator of Song et al. (JMLR 2012). For a
    batch of n images in equal classes of m it is the CKA of K / D and the labels, over that of the unit matrix and them.

    Args:
        kernel: (N, N), D on the diagonal.
        same: (N, N) bool.

    Example:
        >>> kernel = torch.tensor([[4.0, 2, 2, 2], [2, 4, 2, 2], [2, 2, 4, 2], [2, 2, 2, 4]], dtype=torch.float64)
        >>> same = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]).bool()
        >>> float(alignment(kernel, same))
        1.0
    """
    n_images = len(kernel)
    k = (kernel / kernel[0, 0]).fill_diagonal_(0)
    pairs = ~torch.eye(n_images, dtype=torch.bool, device=k.device)
    within, between = k[same & pairs].mean(), k[~same].mean()
    mean = k.sum() / (n_images * (n_images - 1))
    rows = k.sum(0)
    total = rows.sum() ** 2 / ((n_images - 1) * (n_images - 2))
    spread = ((k * k).sum() + total - 2 * (rows * rows).sum() / (n_images - 2)) / (n_images * (n_images - 3))
    signal = (1 - within) + OF_EACH * (within - between)
    return signal / ((1 - mean) ** 2 + (CLASSES * OF_EACH - 1) * spread.clamp(min=0)).sqrt()


def mean_alignment(calls: tuple[tuple[int, LayerKernel], ...], passes: Passes) -> Tensor:
    """Mean over the live layers, worked out once; () float64, undefined where there is none."""
    same = same_class(passes)
    kernels = passes.once("live kernels", lambda: live_kernels(calls, passes))
    if not kernels:
        return passes.undefined("the output depends on no activation that tells two images apart")
    return passes.once("alignment", lambda: torch.stack([alignment(kernel, same) for kernel in kernels]).mean())


@register_proxy(
    reference="this project, docs/recommended_score.md; kernel of Mellor et al., ICML 2021, arXiv:2006.04647",
    observe={"calls": KERNELS},
    needs=("scratch", "targets"),
    minimum_images=4,
    invariant_to=("order",),
    fits="any classifier with activations, on a batch with several images of a class",
    own_cost="forward and backward of 4 images",
)
def code_alignment(seen: Seen, passes: Passes) -> Tensor:
    r"""Alignment with the labels of the kernels of agreeing activation signs, the mean over the layers.

    .. math:: s = \frac{1}{L} \sum_l a(K_l, y)

    The layers are the pre-activations that the output depends on; one that several activations read counts once.
    1 where all pairs of images agree alike, more where those of one class agree more, less where images are alike for
    other reasons.

    Returns:
        () float64; its mean does not depend on the size of the batch.
    References:
        ``docs/recommended_score.md``; :func:`alignment`.
    """
    return mean_alignment(seen["calls"], passes)
