r"""NASWOT: the log-determinant of the kernel of agreeing codes, and what it is made of.

Paper: Mellor et al., Neural Architecture Search without Training, ICML 2021, arXiv:2006.04647.
Original: BayesWatch/nas-without-training.
Differs from the authors' code: one forward pass without autograd; each activation call counts once, functional ones
too (``taps="mellor"`` gives the authors' reading); a singular kernel scores -inf.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from naswot.activations import Taps
from naswot.calls import ActivationCall
from naswot.kernels import (
    LogDeterminant,
    agreement_kernel,
    can_sweep,
    codes,
    log_determinant,
    n_duplicate_codes,
    packed_agreement,
    packed_codes,
)
from naswot.observers import Activation, Seen
from naswot.options import PassOptions, device_of, fast_options, options_from
from naswot.passes import Passes
from naswot.preserve import Mode
from naswot.proxy import register_proxy
from naswot.types import Batch, ModelInputs, to_batch

_PAPER = "Mellor et al., Neural Architecture Search without Training, ICML 2021, arXiv:2006.04647"


def _words_of(call: ActivationCall) -> Tensor | None:
    values = call.units()
    prepared = call.empty_result() if can_sweep(values) else None
    if prepared is None:
        return packed_codes(values, call.threshold)
    call.result, output = prepared
    return packed_codes(values, output=output)


def _kernel_of(call: ActivationCall) -> Tensor:
    words = packed_units(call)
    return agreement_kernel(call.units(), call.threshold) if words is None else packed_agreement(words, call.n_units)


def packed_units(call: ActivationCall) -> Tensor | None:
    """Packed codes of one activation call, (N, ceil(D / 64)) uint64; None where they cannot be packed."""
    return call.once(_words_of)


def agreement_counts(call: ActivationCall) -> Tensor:
    """Hamming kernel of one activation call, (N, N) float64; calls on the very same tensor share the counting."""
    return call.once(_kernel_of)


AGREEMENT = Activation(agreement_counts)
"""Observer whose value is K_H, (N, N) float64, summed over all activation calls."""


@register_proxy(reference=_PAPER, observe={"agreement": AGREEMENT}, invariant_to=("order",))
def naswot(seen: Seen, passes: Passes) -> Tensor:
    r"""Log-determinant of the kernel of agreeing activation signs.

    .. math:: s = \log |\det K_H|, \quad K_H[i, j] = N_A - d_H(c_i, c_j)

    Returns:
        () float64 in nats; -inf when two images share all codes or the kernel is singular otherwise.
    References:
        Mellor et al., ICML 2021, Eq. 2 and 3, arXiv:2006.04647.
    """
    return _checked(log_determinant(seen["agreement"]), passes)


@register_proxy(reference=_PAPER, observe={"agreement": AGREEMENT}, invariant_to=("inputs", "weights", "order"))
def naswot_size(seen: Seen, passes: Passes) -> Tensor:  # noqa: ARG001
    r"""Size term of NASWOT: N log N_A, which only counts units.

    Returns:
        () float64 in nats.
    """
    kernel: Tensor = seen["agreement"]
    return kernel.shape[0] * kernel[0, 0].log()


@register_proxy(reference=_PAPER, observe={"agreement": AGREEMENT}, invariant_to=("order",))
def naswot_diversity(seen: Seen, passes: Passes) -> Tensor:
    r"""Diversity term of NASWOT: log|K_H / N_A|, what is left without the count of units; at most 0.

    Returns:
        () float64 in nats; -inf as for ``naswot``.
    """
    kernel: Tensor = seen["agreement"]
    return _checked(log_determinant(kernel), passes) - kernel.shape[0] * kernel[0, 0].log()


def _checked(result: LogDeterminant, passes: Passes) -> Tensor:
    if result.reason is not None:
        passes.remark(result.reason)
    return torch.tensor(result.value, dtype=torch.float64)


@dataclass(frozen=True)
class LayerUnits:
    """Units of one activation call: dotted name of the module that made it, the activation, units per image."""

    module: str
    function: str
    n_units: int


@dataclass(frozen=True)
class ScoreDetails:
    """The score taken apart.

    Args:
        log_det: the score log|K_H| in nats; -inf when singular.
        sign: sign of the determinant; 0 when singular.
        rank: numerical rank of K_H, of ``n_images``.
        reason: why the score is not finite; None when it is.
        n_images: N.
        n_units: N_A, code bits per image.
        size_term: N log N_A, nats.
        diversity_term: log|K_H / N_A|, nats.
        n_duplicate_codes: images whose code equals that of an earlier one.
        layers: units of every activation call, in order.
        untapped: non-linearities met and not tapped, by name with their number of calls.
    """

    log_det: float
    sign: int
    rank: int
    reason: str | None
    n_images: int
    n_units: int
    size_term: float
    diversity_term: float
    n_duplicate_codes: int
    layers: tuple[LayerUnits, ...]
    untapped: Mapping[str, int]


def pass_options(model: nn.Module, *, fast: bool = False, **options: Any) -> PassOptions:
    """Options of a pass from keywords; ``fast=True`` adds channels-last, and bfloat16 where the device has it."""
    if fast:
        options = {**fast_options(device_of(model)), **options}
    return options_from(**options)


def score(
    model: nn.Module,
    inputs: Batch | ModelInputs,
    *,
    seed: int = 0,
    taps: Taps = "all",
    mode: Mode = "train",
    fast: bool = False,
    **options: Any,
) -> float:
    r"""NASWOT score of an untrained model: log|K_H| in nats.

    .. math:: s = \log |\det K_H|, \quad K_H[i, j] = N_A - d_H(c_i, c_j)

    One forward pass without autograd. The model, its modes, buffers and gradients, and all global random states come
    back as they were.

    Args:
        model: any module, on any device.
        inputs: N images (N, C, H, W) float, token ids (N, T), a tuple or mapping of tensors, or a :class:`Batch`; moved
            to the model's device and floating type. Scores of different N do not compare.
        seed: start of the global generators during the pass.
        taps: which activations count: ``"relu"``: piecewise-linear; ``"all"``: these and smooth; ``"mellor"``: the
            authors' reading.
        mode: ``"train"``: batch statistics, stochastic layers off; ``"eval"``; ``"as_is"``.
        fast: channels-last, and bfloat16 where the device has it: about twice as fast, rounded differently.
        options: other fields of :class:`PassOptions`: ``batch_dim=0``, ``output=None``, ``stop_after=None``,
            ``channels_last=False``, ``bfloat16=False``.
    Returns:
        Nats; higher is better; -inf when the kernel is singular (:func:`explain` says why).
    Raises:
        InputError: for inputs that are integers, not finite or of the wrong shape, or no activation tapped.
        ModelError: if the model raises.
        UnknownNameError: for an option there is not.
    References:
        Mellor et al., Neural Architecture Search without Training, ICML 2021, Eq. 2 and 3, arXiv:2006.04647.
        Differs from the authors' code: counts every activation call once (``taps="mellor"`` gives their reading).
    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 8), torch.nn.ReLU())
        >>> torch.nn.init.eye_(model[1].weight), torch.nn.init.zeros_(model[1].bias)  # doctest: +ELLIPSIS
        (...)
        >>> images = torch.tensor([[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, 1.0, 1.0]]).reshape(2, 1, 2, 2)
        >>> round(score(model, images), 6) == round(math.log(8 * 8 - 6 * 6), 6)
        True
    """
    kernel = hamming_kernel(model, inputs, seed=seed, taps=taps, mode=mode, fast=fast, **options)
    return log_determinant(kernel).value


def hamming_kernel(
    model: nn.Module,
    inputs: Batch | ModelInputs,
    *,
    seed: int = 0,
    taps: Taps = "all",
    mode: Mode = "train",
    fast: bool = False,
    **options: Any,
) -> Tensor:
    """Kernel of agreeing code bits of an untrained model; arguments as for :func:`score`.

    Returns:
        (N, N) float64, symmetric, integer-valued, N_A on the diagonal, on the model's device.
    """
    with _open(model, inputs, seed, fast, {"taps": taps, "mode": mode, **options}) as passes:
        passes.observe([AGREEMENT])
        kernel: Tensor = passes.seen({"agreement": AGREEMENT})["agreement"]
        return kernel


def binary_codes(
    model: nn.Module,
    inputs: Batch | ModelInputs,
    *,
    seed: int = 0,
    taps: Taps = "all",
    mode: Mode = "train",
    fast: bool = False,
    **options: Any,
) -> Tensor:
    """Binary codes of the images; arguments as for :func:`score`. Memory grows with N x N_A.

    Returns:
        (N, N_A) bool; activation calls in order, units of each in row-major order.
    """
    observer = Activation(_codes_of)
    with _open(model, inputs, seed, fast, {"taps": taps, "mode": mode, **options}) as passes:
        passes.observe([observer])
        return torch.cat(passes.seen({"codes": observer})["codes"], dim=1)


def explain(
    model: nn.Module,
    inputs: Batch | ModelInputs,
    *,
    seed: int = 0,
    taps: Taps = "all",
    mode: Mode = "train",
    fast: bool = False,
    **options: Any,
) -> ScoreDetails:
    """The score split into its size and diversity terms, with units per layer; arguments as for :func:`score`."""
    layers = Activation(_layer_of)
    with _open(model, inputs, seed, fast, {"taps": taps, "mode": mode, **options, "names": True}) as passes:
        passes.observe([AGREEMENT, layers])
        seen = passes.seen({"agreement": AGREEMENT, "layers": layers})
        untapped = dict(sorted(passes.untapped.items()))
    kernel, result = seen["agreement"], log_determinant(seen["agreement"])
    n, n_units = kernel.shape[0], int(kernel[0, 0])
    size_term = n * math.log(n_units)
    return ScoreDetails(
        log_det=result.value,
        sign=result.sign,
        rank=result.rank,
        reason=result.reason,
        n_images=n,
        n_units=n_units,
        size_term=size_term,
        diversity_term=result.value - size_term,
        n_duplicate_codes=n_duplicate_codes(kernel),
        layers=seen["layers"],
        untapped=untapped,
    )


def _open(model: nn.Module, inputs: Batch | ModelInputs, seed: int, fast: bool, options: Mapping[str, Any]) -> Passes:
    return Passes(model, to_batch(inputs), seed=seed, options=pass_options(model, fast=fast, **options))


def _codes_of(call: ActivationCall) -> tuple[Tensor]:
    return (codes(call.ordered_units(), call.threshold),)


def _layer_of(call: ActivationCall) -> tuple[LayerUnits]:
    return (LayerUnits(call.module or "", call.function, call.n_units),)
