"""The taps: which calls of a forward pass count as an activation, and what each one read.

A ``TorchFunctionMode`` sees every call of a torch function, whether made by a module, a function, a method or in place;
each activation call hands its pre-activation to a listener *before* it runs, so that in-place calls are seen too.

What counts: ``taps="relu"``, the piecewise-linear activations; ``taps="all"``, these and the smooth ones. The bit of a
unit is set when its pre-activation lies above the lowest kink: 0 (also for the smooth ones, and for hardswish, which
stands in for one of them), the value of ``threshold``, the minimum of ``hardtanh``.
"""

from __future__ import annotations

import functools
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from naswot.errors import OptionError, ShapeError
from naswot.foreign import HiddenActivations, custom_functions_to, outermost_scripts

T = TypeVar("T")
Taps = Literal["relu", "all", "mellor"]
Function = Callable[..., Any]


@dataclass(frozen=True)
class Rule:
    """How calls of one function are read: its name, its group and where its lowest kink lies."""

    name: str
    smooth: bool
    threshold: Callable[[tuple[Any, ...], Mapping[str, Any]], float | None]


def _zero(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float | None:  # noqa: ARG001
    return 0.0


def _argument(position: int, name: str, default: float | None) -> Callable[..., float | None]:
    def read(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float | None:
        value = args[position] if len(args) > position else kwargs.get(name, default)
        return None if value is None else float(value)

    return read


def _zero_minimum(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float | None:
    """0 for a clamp at 0 from below, however the minimum is passed; None for any other clamp."""
    minimum = args[1] if len(args) > 1 else kwargs.get("min")
    if isinstance(minimum, Tensor):
        return 0.0 if not bool(minimum.any()) else None
    return 0.0 if minimum == 0 else None


_PIECEWISE: dict[str, Callable[..., float | None]] = {
    **dict.fromkeys(("relu", "relu6", "leaky_relu", "prelu", "_prelu_kernel", "rrelu", "rrelu_with_noise"), _zero),
    "hardtanh": _argument(1, "min_val", -1.0),
    "threshold": _argument(1, "threshold", None),
    "_threshold": _argument(1, "threshold", None),
    "clamp": _zero_minimum,
    "clip": _zero_minimum,
    "clamp_min": _zero_minimum,
}
_SMOOTH = ("gelu", "silu", "mish", "elu", "celu", "selu", "softplus", "hardswish")
_UNTAPPED = (
    *("sigmoid", "hardsigmoid", "logsigmoid", "log_sigmoid", "tanh", "tanhshrink", "softsign", "hardshrink"),
    *("softshrink", "glu", "softmax", "log_softmax", "maximum", "minimum", "fmax", "fmin", "heaviside", "where", "pow"),
    *("square", "exp", "erf", "abs", "sin", "cos", "atan", "clamp_max", "rnn_relu", "rnn_tanh", "lstm", "gru"),
    *("rnn_relu_cell", "rnn_tanh_cell", "lstm_cell", "gru_cell", "scaled_dot_product_attention"),
    "multi_head_attention_forward",
)

COMPOSITES = frozenset(
    {
        # transformers
        *("NewGELUActivation", "FastGELUActivation", "QuickGELUActivation", "AccurateGELUActivation"),
        "QuickGELU",
        # EfficientNet ports, pytorchcv, timm, MobileNet ports
        *("Swish", "MemoryEfficientSwish", "SwishMe", "MishMe", "HardSwishMe", "HSwish", "HardSwish", "Hswish"),
    }
)
"""Classes of modules that compute one activation by several calls; tapped as a whole at their input, bit at 0."""


def _overloads(name: str) -> list[Function]:
    """Every form in which torch offers the function of that name: functional, method, in place, ``torch.ops``."""
    homes = (F, torch, Tensor, torch._C._nn, torch.special)
    forms = [getattr(home, n, None) for home in homes for n in (name, name + "_")]
    for n in (name, name + "_"):
        packet = getattr(torch.ops.aten, n, None)
        if packet is not None:
            forms += [packet, *(getattr(packet, overload) for overload in packet.overloads())]
    if name == "pow":
        forms += [Tensor.__pow__, Tensor.__rpow__, Tensor.__ipow__]
    if name == "sigmoid":
        forms += [torch.special.expit]
    return [form for form in forms if form is not None]


def _table() -> tuple[dict[Function, Rule], dict[Function, str]]:
    rules: dict[Function, Rule] = {}
    for name, threshold in _PIECEWISE.items():
        rules.update(dict.fromkeys(_overloads(name), Rule(name.lstrip("_"), False, threshold)))
    for name in _SMOOTH:
        rules.update(dict.fromkeys(_overloads(name), Rule(name, True, _zero)))
    untapped = {form: name for name in _UNTAPPED for form in _overloads(name)}
    return rules, untapped


_RULES, _NOT_TAPPED = _table()
_OF_TWO = {torch.max: "maximum", Tensor.max: "maximum", torch.min: "minimum", Tensor.min: "minimum"}
"""Reductions that are non-linearities where they are given a second tensor."""


def _untapped_name(func: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    if func in _OF_TWO:
        second = args[1] if len(args) > 1 else kwargs.get("other")
        return _OF_TWO[func] if isinstance(second, Tensor) else None
    return _NOT_TAPPED.get(func)


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
    """

    preactivation: Tensor
    function: str
    threshold: float
    n: int
    batch_dim: int
    index: int
    module: str | None
    run: Callable[[Tensor], Tensor]
    _shared: dict[object, object] = field(default_factory=dict, repr=False)

    @property
    def n_units(self) -> int:
        """Number of units D of the call, per image."""
        return self.preactivation.numel() // self.n

    def units(self) -> Tensor:
        """Pre-activations, (N, D), in the order in which they lie in memory: no copy for dense tensors."""
        values = self.preactivation.movedim(self.batch_dim, 0)
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

    def read(self, tensor: Tensor, function: str, threshold: float, module: str | None, run: Function) -> None:
        """Hand one pre-activation to the listener; tensors without images are counted as untapped."""
        if not tensor.is_floating_point() or tensor.dim() == 0 or tensor.numel() == 0:
            return
        if tensor.shape[0] == 1 and self._n > 1 and self._n not in tensor.shape:
            self.untapped[f"{function} (independent of the images)"] += 1
            return
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
            self._memo(tensor, threshold),
        )
        self.n_calls += 1
        with unwatched():
            self._listener(call)

    def _check_shape(self, tensor: Tensor, function: str) -> None:
        shape, n, dim = tuple(tensor.shape), self._n, self._batch_dim
        fits = dim < len(shape) and shape[dim] > 0 and shape[dim] % n == 0
        doubtful = dim == 0 and fits and shape[0] != n and len(shape) > 2 and shape[1] == n
        if fits and not doubtful:
            return
        which = "could be that of" if doubtful else "does not count"
        raise ShapeError(
            f"the input of {function} has shape {shape}, whose dimension {dim} {which} the {n} images; "
            f"pass batch_dim= to say which dimension of the activations does (1 for sequence-first (T, N, C) models)"
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


class FunctionTap(TorchFunctionMode):
    """Context in which every activation call of ``model`` reaches ``reader``.

    Args:
        model: needed for what functions do not show: composite activations, TorchScript, module names.
        reader: receives the pre-activations.
        smooth: whether the smooth activations count.
        names: follow which module is running (slower; for tables).
    """

    def __init__(self, model: nn.Module, reader: CallReader, *, smooth: bool, names: bool = False) -> None:
        super().__init__()
        self._model, self._reader, self._smooth, self._names = model, reader, smooth, names
        self._inside = 0  # depth of composite activations: their own calls are not looked at
        self._path: list[str] = []
        self._stack = ExitStack()

    def __enter__(self) -> FunctionTap:
        with ExitStack() as stack:
            for name, module in self._model.named_modules():
                if self._names and not isinstance(module, torch.jit.ScriptModule):
                    stack.callback(module.register_forward_pre_hook(self._entering(name)).remove)
                    stack.callback(module.register_forward_hook(self._leaving, always_call=True).remove)
                if type(module).__name__ in COMPOSITES and not any(module.children()):
                    stack.callback(module.register_forward_pre_hook(self._enter_composite, with_kwargs=True).remove)
                    stack.callback(module.register_forward_hook(self._leave_composite, always_call=True).remove)
            self._reader.untapped.update(outermost_scripts(self._model))
            stack.enter_context(custom_functions_to(self._count_custom))
            if self._names:
                stack.enter_context(HiddenActivations(lambda: self.inside, self._reader.untapped))
            super().__enter__()  # type: ignore[no-untyped-call]
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        self._stack.close()

    @property
    def inside(self) -> bool:
        """Whether a tapped function or a composite activation is running."""
        return self._inside > 0

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._inside:
            return func(*args, **kwargs)
        rule = _RULES.get(func)
        if rule is None:
            untapped = _untapped_name(func, args, kwargs)
            if untapped is not None:
                self._reader.untapped[untapped] += 1
            return func(*args, **kwargs)
        threshold = rule.threshold(args, kwargs)
        if threshold is None or (rule.smooth and not self._smooth):
            self._reader.untapped[rule.name] += 1
        else:
            self._read(func, rule.name, threshold, args, kwargs)
        self._inside += 1
        try:
            return func(*args, **kwargs)
        finally:
            self._inside -= 1

    def _read(
        self, func: Function, name: str, threshold: float, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        rest = {key: value for key, value in kwargs.items() if key not in ("input", "self", "out")}
        tensor = args[0] if args else kwargs.get("input", kwargs.get("self"))
        if isinstance(tensor, Tensor):
            module = self._path[-1] if self._path else None
            self._reader.read(tensor, name, threshold, module, lambda value: func(value, *args[1:], **rest))

    def _count_custom(self, name: str) -> None:
        if not self._inside:
            self._reader.untapped[f"autograd.Function {name}"] += 1

    def _enter_composite(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensor = args[0] if args else next(iter(kwargs.values()), None)
        if not self._inside and isinstance(tensor, Tensor):
            name = type(module).__name__
            if self._smooth:
                path = self._path[-1] if self._path else None
                self._reader.read(tensor, name, 0.0, path, type(module).forward.__get__(module))
            else:
                self._reader.untapped[name] += 1
        self._inside += 1

    def _leave_composite(self, module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG002
        self._inside -= 1

    def _entering(self, name: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, args: self._path.append(name)

    def _leaving(self, module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG002
        self._path.pop()


def check_taps(taps: str) -> Taps:
    """``taps`` if it is one of the three readings.

    Raises:
        OptionError: listing them, otherwise.
    """
    if taps not in ("relu", "all", "mellor"):
        raise OptionError(f"expected taps 'relu', 'all' or 'mellor', but got {taps!r}")
    return cast("Taps", taps)
