"""Codes to Hamming kernel to log-determinant. Pure tensors in, pure tensors out; no model is known here.

Reference: Mellor et al., Neural Architecture Search without Training, ICML 2021, arXiv:2006.04647, section 3.
"""

from __future__ import annotations

import functools
import importlib
import math
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from naswot.errors import InputError, OptionError, ShapeError

Backend = Literal["auto", "packed", "product"]

_MAX_PRODUCT_ELEMENTS = 1 << 22  # floats in one slice of the product path: 16 MiB, and far below 2**24 columns
_WELL_CONDITIONED = 1e-5  # smallest Cholesky pivot, relative to the largest, that leaves no doubt about the rank


def codes(values: Tensor, threshold: float = 0.0) -> Tensor:
    """Binary code of each image: which pre-activations lie above the threshold.

    Args:
        values: (N, D) pre-activations, any floating dtype; NaN counts as not above.
        threshold: the lowest kink of the activation.
    Returns:
        (N, D) bool.
    Example:
        >>> codes(torch.tensor([[-1.0, 0.0, 2.0]]))
        tensor([[False, False,  True]])
    """
    return values > threshold


def agreement_kernel(values: Tensor, threshold: float = 0.0, *, backend: Backend = "auto") -> Tensor:
    r"""Number of code bits on which each pair of images agrees: the Hamming kernel of one layer.

    .. math:: K_H[i, j] = D - d_H(c_i, c_j), \quad c_i = [x_i > t]

    Exact for any D: the packed path counts bits, the product path multiplies signs in slices so short that float32 is
    exact, and sums the slices in float64.

    Args:
        values: (N, D) pre-activations, any floating dtype and device. The order of the units does not matter.
        threshold: the lowest kink of the activation.
        backend: ``"packed"`` needs numba and a tensor on the CPU, ``"product"`` is pure PyTorch; ``"auto"`` takes the
            first that is possible.
    Returns:
        (N, N) float64, symmetric, integer-valued, D on the diagonal, on the device of ``values``.
    Raises:
        ShapeError: if ``values`` is not a matrix.
        InputError: if ``values`` lies on the meta device, which holds no numbers.
        OptionError: if the backend is unknown or not possible here.
    References:
        Mellor et al., ICML 2021, Eq. 2, arXiv:2006.04647.
    Example:
        >>> agreement_kernel(torch.tensor([[1.0, -1.0, 2.0], [1.0, 1.0, -2.0]]))
        tensor([[3., 1.],
                [1., 3.]], dtype=torch.float64)
    """
    if values.dim() != 2:
        raise ShapeError(f"expected values of shape (N, D), but got {tuple(values.shape)}")
    if values.device.type == "meta":
        raise InputError(
            "tensors on the meta device hold no numbers, so they have no codes; move the model to a real one"
        )
    possible = values.device.type == "cpu" and _compiled() is not None
    if backend == "packed" and not possible:
        raise OptionError(f"backend 'packed' needs numba and a CPU tensor, but this one is on {values.device}")
    if backend not in ("auto", "packed", "product"):
        raise OptionError(f"expected backend 'auto', 'packed' or 'product', but got {backend!r}")
    if possible and backend != "product":
        words = packed_codes(values, threshold)
        assert words is not None
        return packed_agreement(words, values.shape[1])
    return _product_agreement(values, threshold)


def packed_codes(values: Tensor, threshold: float = 0.0, *, output: Tensor | None = None) -> Tensor | None:
    """Codes with 64 bits to a word, the rest of the last word zero; None where only the pure PyTorch path works.

    Args:
        values: (N, D) pre-activations, any floating dtype.
        threshold: the lowest kink of the activation.
        output: (N, D), written in the same sweep: max(values, 0), NaN where there is NaN; for values for which
            :func:`can_sweep` holds, at threshold 0. Reading them a second time would cost most of what packing costs.
    Returns:
        (N, ceil(D / 64)) uint64 on the CPU.
    """
    compiled = _compiled()
    if compiled is None or values.device.type != "cpu":
        return None
    comparable, lower, upper = _comparable(values.detach(), threshold)
    words = torch.empty(values.shape[0], -(-values.shape[1] // 64), dtype=torch.uint64)
    if output is None:
        compiled.pack(comparable.contiguous().numpy(), lower, upper, words.numpy())
        return words
    # bfloat16 as integers: -128 is -infinity, above it lie the negative NaNs, then zero and all positive patterns
    floor = -128 if values.dtype == torch.bfloat16 else 0.0
    written = output.view(comparable.dtype).numpy()
    compiled.pack_relu(comparable.numpy(), lower, upper, floor, words.numpy(), written)
    return words


def packed_agreement(words: Tensor, d: int) -> Tensor:
    """Agreement kernel of codes of D bits packed by :func:`packed_codes`, (N, N) float64."""
    compiled = _compiled()
    assert compiled is not None
    kernel = torch.empty(words.shape[0], words.shape[0], dtype=torch.float64)
    compiled.agreement(words.numpy(), d, kernel.numpy())
    return kernel


def can_sweep(values: Tensor) -> bool:
    """Whether :func:`packed_codes` can write the ReLU of these (N, D) pre-activations as they lie."""
    right_type = values.dtype in (torch.float32, torch.float64, torch.bfloat16) and values.device.type == "cpu"
    return right_type and values.is_contiguous() and not values.requires_grad and _compiled() is not None


@functools.cache
def _compiled() -> ModuleType | None:
    try:
        return importlib.import_module("naswot._team")
    except ImportError:
        return None


def _comparable(values: Tensor, threshold: float) -> tuple[Tensor, float, float]:
    """Values that numpy can hold, and the interval (lower, upper] in which their bit is set."""
    if values.dtype in (torch.float32, torch.float64):
        if threshold == 0 or float(torch.tensor(threshold, dtype=values.dtype)) == threshold:
            return values, threshold, math.inf
    elif threshold == 0 and values.dtype == torch.bfloat16:
        # the bit pattern read as an integer: positive numbers are 1 ... infinity, NaN lies above, the rest below
        return values.view(torch.int16), 0, 0x7F80
    return codes(values, threshold).view(torch.uint8), 0, 1


def _product_agreement(values: Tensor, threshold: float) -> Tensor:
    n, d = values.shape
    total = torch.full((n, n), float(d), dtype=torch.float64, device=values.device)
    step = max(1, _MAX_PRODUCT_ELEMENTS // max(n, 1))
    with torch.autocast(values.device.type, enabled=False):  # a bfloat16 product rounds its integers
        for start in range(0, d, step):
            # sum of s_i s_j over +-1 signs = agreements - disagreements; with D = agreements + disagreements below
            signs = codes(values[:, start : start + step], threshold).to(torch.float32).mul_(2).sub_(1)
            total += (signs @ signs.t()).to(torch.float64)
    return total.mul_(0.5)


@dataclass(frozen=True)
class LogDeterminant:
    """Log-determinant of a kernel with what is needed to trust it.

    Args:
        value: log|det K| in nats; -inf when singular.
        sign: sign of the determinant: 1, -1, or 0 when singular.
        rank: numerical rank.
        reason: why the value is not finite; None when it is.
    """

    value: float
    sign: int
    rank: int
    reason: str | None = None


def log_determinant(kernel: Tensor) -> LogDeterminant:
    r"""Log-determinant of a symmetric kernel in float64, -inf when its numerical rank is below N.

    .. math:: s = \log |\det K|

    A Cholesky factor gives it when every pivot is far from zero; otherwise the eigenvalues decide, those below
    N eps max|lambda| counting as zero. (``slogdet`` alone returns finite values for singular kernels.)

    Args:
        kernel: (N, N), symmetric, finite.
    Returns:
        Value in nats, sign, rank and, for a singular kernel, the reason.
    Raises:
        ShapeError: if ``kernel`` is not square or is empty.
        InputError: if it is not finite or not symmetric.
    References:
        Mellor et al., ICML 2021, Eq. 3, arXiv:2006.04647.
    Example:
        >>> round(log_determinant(torch.eye(2, dtype=torch.float64) * 3).value, 12)
        2.197224577336
        >>> log_determinant(torch.ones(2, 2)).reason
        'all 2 images have the same code'
    """
    if kernel.dim() != 2 or kernel.shape[0] != kernel.shape[1] or kernel.shape[0] == 0:
        raise ShapeError(f"expected a kernel of shape (N, N), but got {tuple(kernel.shape)}")
    kernel = kernel.detach().to(torch.float64)
    if not torch.equal(kernel, kernel.t()):  # false for NaN too
        raise InputError("expected a finite symmetric kernel, but got one that differs from its transpose or holds NaN")
    n = kernel.shape[0]
    factor, failed = torch.linalg.cholesky_ex(kernel)
    pivots = factor.diagonal().square()
    if not failed.item() and (pivots.min() > _WELL_CONDITIONED * pivots.max()).item():
        return LogDeterminant(pivots.log().sum().item(), 1, n)
    if not torch.isfinite(kernel).all():
        raise InputError("expected a finite symmetric kernel, but got one that holds infinities")
    return _by_eigenvalues(kernel)


def _by_eigenvalues(kernel: Tensor) -> LogDeterminant:
    n = kernel.shape[0]
    eigenvalues = torch.linalg.eigvalsh(kernel)
    tolerance = n * torch.finfo(torch.float64).eps * eigenvalues.abs().max()
    rank = int((eigenvalues.abs() > tolerance).sum())
    if rank < n:
        return LogDeterminant(-math.inf, 0, rank, _why_singular(kernel, rank))
    sign = -1 if int((eigenvalues < 0).sum()) % 2 else 1
    return LogDeterminant(eigenvalues.abs().log().sum().item(), sign, n)


def _why_singular(kernel: Tensor, rank: int) -> str:
    n, duplicates = kernel.shape[0], n_duplicate_codes(kernel)
    if duplicates and duplicates == n - 1:
        return f"all {n} images have the same code"
    if duplicates:
        return f"{duplicates} of {n} images repeat the code of another; rank {rank}"
    return f"the codes are linearly dependent: rank {rank} of {n} (more images than the codes can tell apart)"


def n_duplicate_codes(kernel: Tensor) -> int:
    """Number of images whose whole code equals that of an earlier image.

    Args:
        kernel: (N, N) Hamming kernel: equal codes agree on as many bits as there are.
    Example:
        >>> n_duplicate_codes(torch.tensor([[3.0, 3.0, 1.0], [3.0, 3.0, 1.0], [1.0, 1.0, 3.0]]))
        1
    """
    same = kernel == kernel.diagonal()[:, None]  # agreement as large as the diagonal
    return int(torch.tril(same, diagonal=-1).any(dim=1).sum())
