"""Several proxies over shared passes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from naswot.errors import InputError, NaswotError, OptionError
from naswot.observers import Observer
from naswot.options import PassOptions, options_from
from naswot.passes import Passes
from naswot.proxy import Proxy, get_proxy
from naswot.types import Batch, ModelInputs, to_batch


@dataclass(frozen=True)
class Measurement:
    """Scores of one model with what it took to get them.

    Args:
        scores: raw values by proxy name; where the formula has none for this network, the worst infinity; never NaN.
        reasons: why a score is not finite, by proxy name.
        seconds: wall-clock seconds of all passes and proxies.
        n_forwards: forward passes run.
        n_backwards: backward passes run.
    """

    scores: Mapping[str, float]
    reasons: Mapping[str, str]
    seconds: float
    n_forwards: int
    n_backwards: int


def run_proxies(
    model: nn.Module,
    batch: Batch,
    proxies: Sequence[Proxy],
    *,
    seed: int = 0,
    options: PassOptions | None = None,
) -> Measurement:
    """Score ``model`` by every proxy, over the fewest passes that serve them all.

    The observers of all proxies watch one forward pass (none, if no proxy looks at it) and one backward pass if any of
    them needs the loss's gradient.

    Raises:
        InputError: if the batch or model cannot be scored.
        ModelError: if the model raises.
    """
    start = time.perf_counter()
    _check_names(proxies)
    observers: list[Observer] = [o for proxy in proxies for o in proxy.observe.values()]
    needs = {need for proxy in proxies for need in proxy.needs}
    if batch.targets is None and any(proxy.needs_targets for proxy in proxies):
        names = ", ".join(proxy.name for proxy in proxies if proxy.needs_targets)
        raise InputError(f"{names}: the loss needs labels, but the batch has none; pass Batch(inputs, targets)")
    for proxy in proxies:
        if batch.n < proxy.minimum_images:
            raise InputError(f"{proxy.name} needs at least {proxy.minimum_images} images, but the batch has {batch.n}")
    scores, reasons = {}, {}
    with Passes(model, batch, seed=seed, options=options) as passes:
        if any(proxy.needs_forward for proxy in proxies):
            passes.observe(observers, graph="gradients" in needs, jacobian="input_jacobian" in needs)
        for proxy in proxies:
            passes.remarks.clear()
            value = _value(proxy, passes)
            if not math.isfinite(value):
                default = "the score is not a number" if math.isnan(value) else "the value overflows float64"
                reasons[proxy.name] = "; ".join(passes.remarks) or passes.trouble or default
            if math.isnan(value):  # undefined: the worst there is, never a made-up number
                value = -math.inf if proxy.higher_is_better else math.inf
            scores[proxy.name] = value
        counts = passes.n_forwards, passes.n_backwards
    return Measurement(scores, reasons, time.perf_counter() - start, *counts)


def _check_names(proxies: Sequence[Proxy]) -> None:
    """Refuse two proxies of one name, whose scores would overwrite each other."""
    names = [proxy.name for proxy in proxies]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise OptionError(f"{double} is asked for {names.count(double)} times, but a result has one score of each name")


def _value(proxy: Proxy, passes: Passes) -> float:
    """What a proxy gives; its errors say whose they are."""
    try:
        value = proxy(passes.seen(proxy.observe), passes)
        return float(value.detach() if isinstance(value, Tensor) else value)
    except NaswotError as error:
        if str(error).startswith(proxy.name):
            raise
        raise type(error)(f"{proxy.name}: {error}") from error


def measure(
    model: nn.Module,
    batch: Batch | ModelInputs,
    proxies: str | Proxy | Sequence[str | Proxy],
    *,
    seed: int = 0,
    **options: Any,
) -> dict[str, float]:
    """Scores of an untrained model by several proxies over shared passes.

    Why a score is not finite, and how many passes it took, is told by :func:`run_proxies`, which this calls.

    Args:
        model: any module; comes back as it was.
        batch: a :class:`Batch`, or inputs alone where no proxy needs labels.
        proxies: names, see ``naswot list proxies``, or proxies with options bound.
        seed: start of everything random during the passes.
        options: fields of :class:`PassOptions`, such as ``taps="relu"``.
    Returns:
        The raw value by proxy name.
    Raises:
        UnknownNameError: for a name that no proxy or no option has.
        OptionError: for one proxy asked twice.
        InputError: if the batch or model cannot be scored.
        ModelError: if the model raises.
    Example:
        >>> import torch
        >>> measure(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()), torch.ones(1, 2), ["params"])
        {'params': 9.0}
    """
    proxies = [proxies] if isinstance(proxies, str | Proxy) else proxies
    chosen = [get_proxy(proxy) if isinstance(proxy, str) else proxy for proxy in proxies]
    return dict(run_proxies(model, to_batch(batch), chosen, seed=seed, options=options_from(**options)).scores)
