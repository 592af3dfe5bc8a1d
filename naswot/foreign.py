"""Code that no tap can look into: TorchScript and custom autograd functions. It is counted, not passed over."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import checkpoint as _checkpoint
from torch.utils._python_dispatch import TorchDispatchMode

from naswot.preserve import modules_of

OPAQUE = ("ScriptModule", "autograd.Function")
"""Beginnings of the names under which code is counted that no tap can look into."""

_lock = threading.Lock()
_listeners: list[tuple[int, Callable[[str], None]]] = []
_original: Any = None
_TRANSPARENT = frozenset({_checkpoint.CheckpointFunction})  # runs the module's own code, which is seen


def outermost_scripts(model: nn.Module) -> Counter[str]:
    """Number of ScriptModules in ``model`` that lie in no other, as ``{"ScriptModule": n}``."""
    found: list[str] = []
    if not any(isinstance(module, torch.jit.ScriptModule) for module in modules_of(model)):
        return Counter()
    for name, module in model.named_modules():
        inside = any(name.startswith(outer + "." if outer else "") for outer in found)
        if isinstance(module, torch.jit.ScriptModule) and not inside:
            found.append(name)
    return Counter({"ScriptModule": len(found)}) if found else Counter()


@contextmanager
def custom_functions_to(listener: Callable[[str], None]) -> Iterator[None]:
    """Tell ``listener`` the class name of every ``torch.autograd.Function`` applied by this thread within the block.

    Neither hooks nor function modes see ``apply``, so the one inherited method is replaced for the time. The first
    block installs the replacement and the last one removes it, whatever their order of leaving.
    """
    global _original  # noqa: PLW0603
    function = torch.autograd.Function
    entry = (threading.get_ident(), listener)
    with _lock:
        if not _listeners:
            _original = function.__dict__["apply"]
            function.apply = classmethod(_announcing(_original))  # type: ignore[assignment, method-assign]
        _listeners.append(entry)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(entry)
            if not _listeners:
                function.apply = _original  # type: ignore[method-assign]


def _announcing(original: Any) -> Callable[..., Any]:
    def apply(cls: type, *args: Any, **kwargs: Any) -> Any:
        for thread, listener in tuple(_listeners):
            if thread == threading.get_ident() and cls not in _TRANSPARENT:
                listener(cls.__name__)
        return original.__get__(None, cls)(*args, **kwargs)

    return apply


_ATEN_ACTIVATIONS = ("relu", "hardtanh", "leaky_relu", "_prelu_kernel", "threshold", "gelu", "silu", "mish", "elu")
_HIDDEN = {
    getattr(torch.ops.aten, name + end): name
    for name in _ATEN_ACTIVATIONS
    for end in ("", "_")
    if hasattr(torch.ops.aten, name + end)
}
_HIDDEN[torch.ops.aten._addmm_activation] = "linear layer with activation"


class HiddenActivations(TorchDispatchMode):
    """Context that counts the activations which run although no tapped function was called.

    So it is inside TorchScript and fused kernels. Costs some microseconds for each operation; for tables.

    Args:
        visible: whether a tapped function is running at the moment.
        counts: where to count.
    """

    def __init__(self, visible: Callable[[], bool], counts: Counter[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._visible, self._counts = visible, counts

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would import torch._dynamo, some seconds, at the first operation; nothing compiles in here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = _HIDDEN.get(func.overloadpacket)
        if name is not None and not self._visible():
            self._counts[f"{name} (inside TorchScript or a fused kernel)"] += 1
        with torch._C.DisableTorchFunction():  # the tap would take this call for one of the model's
            return func(*args, **(kwargs or {}))
