"""What a pass may leave behind: compares a model, its inputs and the global random states before and after."""

from __future__ import annotations

import random
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")


class Traces:
    """Context that lists in ``left`` what differs when it is over.

    Args:
        model: every module's mode and hooks, every buffer (bits and identity), every parameter (bits, identity,
            ``requires_grad``, ``grad``) are compared.
        inputs: tensors that must keep their bits.

    Example:
        >>> layer = nn.BatchNorm1d(2)
        >>> with Traces(layer) as traces:
        ...     _ = layer(torch.ones(3, 2))
        >>> traces.left
        ['buffer running_mean', 'buffer running_var', 'buffer num_batches_tracked']
    """

    def __init__(self, model: nn.Module, *inputs: Tensor) -> None:
        self.left: list[str] = []
        self._model, self._inputs = model, inputs
        self._before: dict[str, Any] = {}

    def __enter__(self) -> Traces:
        self._before = self._state()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        after = self._state()
        names = dict.fromkeys([*self._before, *after])
        self.left = [name for name in names if not _same(self._before.get(name), after.get(name))]

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {}
        for name, module in self._model.named_modules(remove_duplicate=False):
            state[f"mode of {name or 'model'}"] = module.training
            for kind in _HOOKS:
                state[f"{kind} of {name or 'model'}"] = tuple(getattr(module, kind, None) or ())
            for key, buffer in module._buffers.items():
                state[f"buffer {name + '.' if name else ''}{key}"] = _kept(buffer)
        for name, parameter in self._model.named_parameters(remove_duplicate=False):
            state[f"parameter {name}"] = _kept(parameter)
            state[f"requires_grad of {name}"] = parameter.requires_grad
            state[f"grad of {name}"] = _kept(parameter.grad)
        for i, tensor in enumerate(self._inputs):
            state[f"input {i}"] = _kept(tensor)
        state["generator of torch"] = torch.get_rng_state().numpy().tobytes()
        state["generator of numpy"] = repr(np.random.get_state(legacy=False))  # noqa: NPY002
        state["generator of Python"] = random.getstate()
        state["torch.autograd.Function.apply"] = torch.autograd.Function.__dict__["apply"]
        state["gradients enabled"] = torch.is_grad_enabled()
        return state


class _Kept:
    """A tensor and a copy of its bits."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.copy = tensor, tensor.detach().clone()


def _kept(tensor: Tensor | None) -> _Kept | None:
    return None if tensor is None else _Kept(tensor)


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, _Kept) and isinstance(after, _Kept):
        return before.tensor is after.tensor and _bits(before.copy) == _bits(after.copy)
    return bool(before == after)


def _bits(tensor: Tensor) -> tuple[Any, ...]:
    tensor = tensor.contiguous()
    return tuple(tensor.shape), tensor.dtype, tensor.view(-1).view(torch.uint8).cpu().numpy().tobytes()
