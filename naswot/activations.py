"""The taps: which calls of a forward pass count as an activation, and what each one read.

A ``TorchFunctionMode`` sees every call of a torch function, whether made by a module, a function, a method or in place;
each activation call hands its pre-activation to a listener *before* it runs, so that in-place calls are seen too.

What counts: ``taps="relu"``, the piecewise-linear activations; ``taps="all"``, these and the smooth ones. The bit of a
unit is set when its pre-activation lies above the lowest kink: 0 (also for the smooth ones, and for hardswish, which
stands in for one of them), the value of ``threshold``, the minimum of ``hardtanh``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from naswot.calls import CallReader, Function
from naswot.errors import OptionError
from naswot.foreign import HiddenActivations, custom_functions_to, outermost_scripts

Taps = Literal["relu", "all", "mellor"]


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
_PLAIN_RELU = frozenset([F.relu, torch.relu, Tensor.relu, torch.ops.aten.relu, torch.ops.aten.relu.default])
_OF_TWO = {torch.max: "maximum", Tensor.max: "maximum", torch.min: "minimum", Tensor.min: "minimum"}
"""Reductions that are non-linearities where they are given a second tensor."""


def _untapped_name(func: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    if func in _OF_TWO:
        second = args[1] if len(args) > 1 else kwargs.get("other")
        return _OF_TWO[func] if isinstance(second, Tensor) else None
    return _NOT_TAPPED.get(func)


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
            result = self._read(func, rule.name, threshold, args, kwargs)
            if result is not None:
                return result
        self._inside += 1
        try:
            return func(*args, **kwargs)
        finally:
            self._inside -= 1

    def _read(
        self, func: Function, name: str, threshold: float, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor | None:
        rest = {key: value for key, value in kwargs.items() if key not in ("input", "self", "out")}
        tensor = args[0] if args else kwargs.get("input", kwargs.get("self"))
        if not isinstance(tensor, Tensor):
            return None
        in_place = any(each is True for each in args[1:]) or bool(kwargs.get("inplace"))
        return self._reader.read(
            tensor,
            name,
            threshold,
            self._path[-1] if self._path else None,
            lambda value: func(value, *args[1:], **rest),
            is_plain_relu=func in _PLAIN_RELU and not in_place and not torch.is_grad_enabled(),
        )

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
