"""One call of an activation, and the reader that turns tensors about to be activated into such calls."""

from __future__ import annotations

import functools
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from naswot.errors import ShapeError

T = TypeVar("T")
Function = Callable[..., Any]


@dataclass(eq=False)
class ActivationCall:
    """One call of an activation, as an observer meets it, before the call runs.

    Args:
        preactivation: what the activation reads; its dimension ``batch_dim`` holds N images (or N x windows, image by
            image).
        function: name of the activation, such as ``"relu"``.
        threshold: the bit of a unit is set above this value.
        n: number of images N.
        batch_dim: dimension of ``preactivation`` that counts the images.
        index: number of the call within the pass, from 0.
        module: dotted name of the module that made the call, where names are followed; else None.
        run: computes the activation of a tensor.
        is_plain_relu: whether it is a ReLU out of place and without a graph, so that an observer that sweeps over its
            input anyway may compute it and leave it in ``result``; the call itself is then not made.
        result: what the activation returns, if an observer has computed it.
    """

    preactivation: Tensor
    function: str
    threshold: float
    n: int
    batch_dim: int
    index: int
    module: str | None
    run: Callable[[Tensor], Tensor]
    is_plain_relu: bool = False
    result: Tensor | None = None
    _shared: dict[object, object] = field(default_factory=dict, repr=False)

    @property
    def n_units(self) -> int:
        """Number of units D of the call, per image."""
        return self.preactivation.numel() // self.n

    def units(self) -> Tensor:
        """Pre-activations, (N, D), in the order in which they lie in memory: no copy for dense tensors."""
        return self._in_memory_order(self.preactivation)

    def empty_result(self) -> tuple[Tensor, Tensor] | None:
        """An empty tensor for ``result`` and its (N, D) view in the order of ``units``; None if that is no view."""
        values = self.preactivation
        if not self.is_plain_relu or values.shape[self.batch_dim] != self.n:
            return None
        result = torch.empty_like(values)
        if self.batch_dim == 0 and values.is_contiguous():
            return result, result.view(self.n, -1)
        units = self._in_memory_order(result)
        shares = units.data_ptr() == result.data_ptr() and result.stride() == values.stride()
        return (result, units) if shares else None

    def _in_memory_order(self, tensor: Tensor) -> Tensor:
        if self.batch_dim == 0 and tensor.is_contiguous():  # the usual case, without the bookkeeping
            return tensor.view(self.n, -1)
        values = tensor.movedim(self.batch_dim, 0)
        order = sorted(range(1, values.dim()), key=lambda d: -values.stride()[d])
        return values.permute(0, *order).reshape(self.n, -1)

    def ordered_units(self) -> Tensor:
        """Pre-activations, (N, D), units in row-major order of their dimensions."""
        return self.preactivation.movedim(self.batch_dim, 0).reshape(self.n, -1)

    def activated(self) -> Tensor:
        """What the activation makes of its input; computed anew, the input stays as it is."""
        return self.run(self.preactivation.clone())

    def once(self, compute: Callable[[ActivationCall], T]) -> T:
        """``compute(self)``, worked out once for all calls that read the very same tensor.

        ``compute`` must depend on nothing but ``units()``, ``threshold`` and ``n``.
        """
        if compute not in self._shared:
            self._shared[compute] = compute(self)
        return cast("T", self._shared[compute])


Listener = Callable[[ActivationCall], None]


@contextmanager
def unwatched() -> Iterator[None]:
    """Compute unseen by every tap and without a graph: what an observer works out is no part of the model."""
    with torch.no_grad(), torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
        yield


class CallReader:
    """Turns a tensor about to be activated into an :class:`ActivationCall` and hands it to the listener.

    Keeps, for every pre-activation still alive, what ``once`` worked out. The tensor is recognised by a weak reference
    and its version counter (addresses are reused, in-place changes keep the object).
    """

    def __init__(self, n: int, batch_dim: int, listener: Listener) -> None:
        self.untapped: Counter[str] = Counter()
        self.n_calls = 0
        self._n, self._batch_dim, self._listener = n, batch_dim, listener
        self._alive: dict[int, tuple[weakref.ref[Tensor], int, dict[float, dict[object, object]]]] = {}

    def read(
        self,
        tensor: Tensor,
        function: str,
        threshold: float,
        module: str | None,
        run: Function,
        *,
        is_plain_relu: bool = False,
    ) -> Tensor | None:
        """Hand one pre-activation to the listener; tensors without images are counted as untapped.

        Returns:
            The result of the activation, if an observer has computed it.
        """
        if not tensor.is_floating_point() or tensor.dim() == 0 or tensor.numel() == 0:
            return None
        if tensor.shape[0] == 1 and self._n > 1 and self._n not in tensor.shape:
            self.untapped[f"{function} (independent of the images)"] += 1
            return None
        self._check_shape(tensor, function)
        call = ActivationCall(
            tensor,
            function,
            threshold,
            self._n,
            self._batch_dim,
            self.n_calls,
            module,
            run,
            is_plain_relu,
            _shared=self._memo(tensor, threshold),
        )
        self.n_calls += 1
        with unwatched():
            self._listener(call)
        return call.result

    def _check_shape(self, tensor: Tensor, function: str) -> None:
        shape, n, dim = tuple(tensor.shape), self._n, self._batch_dim
        fits = dim < len(shape) and shape[dim] > 0 and shape[dim] % n == 0
        doubtful = dim == 0 and fits and shape[0] != n and len(shape) > 2 and shape[1] == n
        if fits and not doubtful:
            return
        which = "could be that of" if doubtful else "does not count"
        raise ShapeError(
            f"the input of {function} has shape {shape}, whose dimension {dim} {which} the {n} images; "
            f"pass batch_dim= to say which dimension of the activations does (1 for sequence-first (T, N, C) models); "
            f"a single image needs a batch dimension of its own: images[None]"
        )

    def _memo(self, tensor: Tensor, threshold: float) -> dict[object, object]:
        if tensor.is_inference():  # has no version counter
            return {}
        key = id(tensor)
        known = self._alive.get(key)
        if known is None or known[0]() is not tensor or known[1] != tensor._version:
            reference = weakref.ref(tensor, functools.partial(self._forget, key))
            known = self._alive[key] = (reference, tensor._version, {})
        return known[2].setdefault(threshold, {})

    def _forget(self, key: int, _: object) -> None:
        self._alive.pop(key, None)


def nothing_tapped(taps: str, untapped: Mapping[str, int]) -> str:
    """What to say when a pass met no activation that counts: what it met instead."""
    met = ", ".join(f"{name} ({n})" for name, n in sorted(untapped.items()))
    hint = "use taps='all' for smooth activations; " if taps == "relu" else ""
    return (
        f"the forward pass met no activation that taps={taps!r} counts"
        + (f"; met instead: {met}" if met else "")
        + f"; {hint}TorchScript and custom autograd functions cannot be looked into"
    )
