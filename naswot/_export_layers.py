"""Layers of ``torch.nn`` as calls of their constructors.

``repr`` of a layer is no constructor (that of ``AvgPool2d`` leaves out ``count_include_pad``), so the arguments are
read from the layer's attributes by the constructor's signature, and every call is tried out before it is used.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn

from naswot.errors import InputError

_CONTAINERS: Final = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
_HOOKS: Final = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_layer(module: nn.Module) -> bool:
    """Whether a module is a layer of ``torch.nn`` itself, neither a container nor a subclass from elsewhere."""
    of_torch = type(module) is not nn.Module and type(module).__module__.startswith("torch.nn.modules.")
    return of_torch and not isinstance(module, _CONTAINERS)


def layer_source(layer: nn.Module, name: str) -> str:
    """A call of the constructor that makes such a layer, with the arguments that differ from the defaults.

    Args:
        layer: a layer of ``torch.nn``.
        name: what to call it in messages.
    Raises:
        InputError: if no call gives an equal layer.
    Example:
        >>> layer_source(nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), "pool")
        'nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)'
    """
    kind = type(layer).__name__
    if any(getattr(layer, hooks) for hooks in _HOOKS):
        raise InputError(f"layer {name} ({kind}) carries hooks, which cannot be written; remove them first")
    source = f"nn.{kind}({', '.join(_arguments(layer))})"
    try:
        with torch.device("meta"):  # no memory, no random numbers
            made = eval(source, {"nn": nn, "torch": torch})  # ours: a class of torch.nn and literals
    except Exception as error:
        raise InputError(f"layer {name} cannot be written: {source} raises {type(error).__name__}: {error}") from error
    difference = _difference(layer, made)
    if difference is not None:
        raise InputError(f"layer {name} cannot be written: {source} differs in {difference}")
    return source


def _arguments(layer: nn.Module) -> Iterable[str]:
    """Arguments of the constructor: those it asks for, and others where they differ from the default."""
    for key, parameter in inspect.signature(type(layer).__init__).parameters.items():
        if key in ("self", "device") or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = parameter.default
        value = _argument(layer, key, default)
        if default is parameter.empty:
            yield literal(value) if value is not default else "..."  # what is not known fails, with this in the message
        elif value is not default and value != default:
            yield f"{key}={literal(value)}"


def _argument(layer: nn.Module, key: str, default: Any) -> Any:
    """What a constructor was called with, as far as the layer still knows."""
    tensors = dict(layer.named_parameters())
    value = getattr(layer, key, default)
    if key == "dtype":
        kinds = {tensor.dtype for tensor in tensors.values()}
        return kinds.pop() if len(kinds) == 1 and kinds != {torch.float32} else default
    if key == "bias" and not isinstance(getattr(layer, "bias", None), bool):  # mostly the parameter itself
        return any("bias" in name for name in tensors)
    if isinstance(layer, nn.modules.conv._ConvNd) and isinstance(value, tuple) and len(set(value)) == 1:
        return value[0]
    return default if isinstance(value, Tensor | nn.Module) else value


def _difference(layer: nn.Module, made: nn.Module) -> str | None:
    """First attribute, parameter or buffer in which two layers differ, apart from the values of tensors."""
    hidden = {"training", "_parameters", "_buffers", "_modules", *_HOOKS}
    first, second = ({k: v for k, v in vars(m).items() if k not in hidden} for m in (layer, made))
    for key in sorted(first.keys() | second.keys()):
        if key not in first or key not in second or not _equal(first[key], second[key]):
            return f"{key}: {second.get(key, 'none')!r} for {first.get(key, 'none')!r}"
    for tensors in ("_parameters", "_buffers"):
        one, other = ({k: _form(t) for k, t in getattr(m, tensors).items()} for m in (layer, made))
        if one != other:
            return f"{tensors.strip('_')}: {other} for {one}"
    if layer._modules.keys() != made._modules.keys():
        return f"its parts: {list(made._modules)} for {list(layer._modules)}"
    for name, child in layer.named_children():
        inner = None if type(child) is type(made.get_submodule(name)) else "its type"
        inner = inner or _difference(child, made.get_submodule(name))
        if inner is not None:
            return f"{name}.{inner}"
    return None


def _equal(first: object, second: object) -> bool:
    return first is second or (type(first) is type(second) and bool(first == second))


def _form(tensor: Tensor | None) -> tuple[tuple[int, ...], torch.dtype] | None:
    return None if tensor is None else (tuple(tensor.shape), tensor.dtype)


def literal(value: Any) -> str:
    """A plain value as source.

    Raises:
        InputError: if it is none.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if value is Ellipsis:
        return "..."
    if value is None or isinstance(value, bool | int | float | str | torch.dtype):
        return repr(value)
    if isinstance(value, tuple | list | torch.Size):
        inner = ", ".join(map(literal, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    if isinstance(value, torch.device):
        return f'torch.device("{value}")'
    if isinstance(value, torch.memory_format | torch.layout):
        return str(value)
    raise InputError(f"a value of type {type(value).__name__} cannot be written as source: {value!r}")
