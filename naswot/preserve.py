"""Leave no trace: a model and the global state go back as they came."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from naswot.errors import OptionError
from naswot.seeding import preserve_random_state

Mode = Literal["train", "eval", "as_is"]


class Buffers:
    """The buffers of some modules as they are now, to be had again: same objects, same bits."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._saved = [(module, _snapshot(module)) for module in modules]
        pairs = [pair for _, saved in self._saved for pair in saved.values() if pair is not None]
        self._pairs = pairs
        self.counted = tuple(buffer for buffer, _ in pairs if not buffer.is_inference())

    def restore(self) -> None:
        """Put them back; a graph that saved one of them may go on trusting it."""
        with torch.autograd.grad_mode._unsafe_preserve_version_counter(self.counted):
            for module, saved in self._saved:
                _reinstate(module, saved)
            _write_back(self._pairs)


@contextmanager
def preserve(model: nn.Module) -> Iterator[Buffers]:
    """Put back, on leaving the block, everything a pass can change in ``model`` and around it.

    Every buffer (running statistics, spectral norm's vectors, caches) with its bits and its identity, the mode of
    every module, ``requires_grad`` and ``grad`` of every parameter, and the global random states; also when the block
    raises. Parameters keep their values because no pass of this package writes to them; a proxy that must, works on
    :meth:`~naswot.passes.Passes.scratch`. Gives the buffers, to be put back between two passes as well.
    """
    modules = modules_of(model)
    modes = [module.training for module in modules]
    buffers = Buffers(modules)
    own = dict.fromkeys(p for module in modules for p in module._parameters.values() if p is not None)
    parameters = [(p, p.requires_grad, p.grad, None if p.grad is None else p.grad.clone()) for p in own]
    # values come back bit for bit, so a graph that the caller holds may go on trusting the buffers it saved
    versions = torch.autograd.grad_mode._unsafe_preserve_version_counter(buffers.counted)
    with preserve_random_state(), versions:
        try:
            yield buffers
        finally:
            for module, mode in zip(modules, modes, strict=True):
                _set_training(module, mode)
            buffers.restore()
            for parameter, requires_grad, grad, value in parameters:
                if parameter.requires_grad != requires_grad:
                    parameter.requires_grad_(requires_grad)
                if parameter.grad is not grad:
                    parameter.grad = grad
                if grad is not None and value is not None and not torch.equal(grad, value):
                    grad.copy_(value)


_Saved = dict[str, tuple[Tensor, Tensor] | None]


def _snapshot(module: nn.Module) -> _Saved:
    """Name to (the buffer itself, a copy of its value)."""
    return {name: None if b is None else (b, b.detach().clone()) for name, b in module._buffers.items()}


def _reinstate(module: nn.Module, saved: _Saved) -> None:
    """Give the module the very buffers it had."""
    if isinstance(module, torch.jit.ScriptModule):
        return  # its buffers cannot be exchanged, neither by the model
    for name in [name for name in module._buffers if name not in saved]:
        del module._buffers[name]
    for name, pair in saved.items():
        buffer = None if pair is None else pair[0]
        if name not in module._buffers or module._buffers[name] is not buffer:
            module._buffers[name] = buffer


def _write_back(pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Write each value into its buffer, changed or not: batch norm and ``.data`` change it without a new version."""
    plain = []
    for buffer, value in pairs:
        if buffer.is_inference():
            with torch.inference_mode():
                buffer.copy_(value)
        elif buffer.shape != value.shape or buffer.dtype != value.dtype:
            buffer.data = value
        elif not _is_expanded(buffer):
            plain.append((buffer, value))
    if plain:
        with torch.no_grad():
            torch._foreach_copy_([buffer for buffer, _ in plain], [value for _, value in plain])


def _is_expanded(tensor: Tensor) -> bool:
    """Whether several elements share their memory; nobody can write to such a tensor."""
    if tensor.layout != torch.strided or tensor.is_contiguous():
        return False
    return any(stride == 0 and n > 1 for stride, n in zip(tensor.stride(), tensor.shape, strict=True))


def set_mode(model: nn.Module, mode: Mode) -> None:
    """Choose how the modules behave during a pass.

    Args:
        model: changed in place; call within :func:`preserve`.
        mode: ``"train"``: normalisation layers that keep running statistics use those of the batch, everything else
            (dropout, drop-path, auxiliary heads) behaves as in evaluation; ``"eval"``: everything as in evaluation;
            ``"as_is"``: as the caller left it, stochastic layers included.
    Raises:
        OptionError: for any other word.
    """
    if mode not in ("train", "eval", "as_is"):
        raise OptionError(f"expected mode 'train', 'eval' or 'as_is', but got {mode!r}")
    if mode == "as_is":
        return
    for module in modules_of(model):
        training = mode == "train" and normalises_by_batch(module)
        _set_training(module, training)


def _set_training(module: nn.Module, training: bool) -> None:
    if module.training == training:
        return
    if isinstance(module, torch.jit.ScriptModule):
        module.training = training
    else:
        module.__dict__["training"] = training  # what the assignment comes to; it is made for every module of a pass


@contextmanager
def in_mode(model: nn.Module, mode: Mode) -> Iterator[None]:
    """:func:`set_mode` for the length of a block."""
    modes = [(module, module.training) for module in modules_of(model)]
    try:
        set_mode(model, mode)
        yield
    finally:
        for module, training in modes:
            _set_training(module, training)


def normalises_by_batch(module: nn.Module) -> bool:
    """Whether a module normalises by statistics of the batch when training: batch norms and their look-alikes."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) or "running_mean" in module._buffers


def modules_of(model: nn.Module) -> list[nn.Module]:
    """All distinct modules of a model, in no promised order; several times as fast as ``model.modules()``."""
    found: dict[nn.Module, None] = {}
    waiting = [model]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module] = None
            waiting += [child for child in module._modules.values() if child is not None]
    return list(found)


def is_lazy(model: nn.Module) -> bool:
    """Whether some parameter or buffer still waits for its shape."""
    return any(isinstance(t, UninitializedTensorMixin) for t in _tensors(model))


def made_in_inference_mode(model: nn.Module) -> bool:
    """Whether some parameter or buffer is an inference tensor, which only inference mode may write to."""
    return any(t.is_inference() for t in _tensors(model) if not isinstance(t, UninitializedTensorMixin))


def _tensors(model: nn.Module) -> list[Tensor]:
    """Parameters and buffers of all modules, shared ones as often as they occur."""
    homes = [tensors for module in modules_of(model) for tensors in (module._parameters, module._buffers)]
    return [tensor for tensors in homes if tensors for tensor in tensors.values() if tensor is not None]


class _Eager:
    """Two switches of the process, set back when the last of those who hold them lets go, in whichever thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._switches = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._holders == 0:
                if "torch._dynamo.eval_frame" in sys.modules:
                    self._switches.enter_context(torch.compiler.set_stance("force_eager"))
                fused = torch.backends.mha.get_fastpath_enabled()
                self._switches.callback(torch.backends.mha.set_fastpath_enabled, fused)
                torch.backends.mha.set_fastpath_enabled(False)
            self._holders += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                self._switches.close()


_eager = _Eager()


def eager() -> AbstractContextManager[None]:
    """Run every layer as the plain calls it is made of, so that taps and counters see them, in whatever company.

    What ``torch.compile`` wrapped runs as the Python it was made from, and attention layers do not take their fused
    path, which would depend on whether a graph is kept. Costs nothing in a process that compiled nothing.
    """
    return _eager
