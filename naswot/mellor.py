"""The authors' reading of "activation" (``taps="mellor"``).

Paper: Mellor et al., Neural Architecture Search without Training, ICML 2021, arXiv:2006.04647; original code
BayesWatch/nas-without-training. There every module whose class name contains "ReLU" is hooked, so that a container such
as ``ReLUConvBN`` counts its input once more; functional activations are not seen; a forward and a backward pass come
first, and modules that no gradient reached are left out.
Differs from it: a failing forward raises instead of leaving the kernel at zero.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from naswot.calls import CallReader
from naswot.errors import NoActivationError
from naswot.types import Batch


def named_relu(model: nn.Module) -> dict[nn.Module, str]:
    """Modules whose class name contains "ReLU", with their dotted names.

    Raises:
        NoActivationError: if there is none.
    """
    found = {module: name for name, module in model.named_modules() if "ReLU" in type(module).__name__}
    if not found:
        raise NoActivationError(
            "taps='mellor' reads modules whose class name contains 'ReLU', and this model has none; "
            "taps='all' sees functional activations too"
        )
    return found


class _Outputs:
    """Hooks that note which modules' outputs a gradient reaches."""

    def __init__(self) -> None:
        self.reached: set[nn.Module] = set()

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG002
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(lambda gradient: self.reached.add(module))


def reached_by_gradient(model: nn.Module, batch: Batch, run: Callable[[Batch], Tensor]) -> dict[nn.Module, str]:
    """The modules of :func:`named_relu` that the gradient of the sum of the logits reaches (zeros reach too).

    Args:
        model: in the mode in which it is scored.
        batch: the inputs.
        run: the model's logits on a batch.
    """
    modules = named_relu(model)
    noted = _Outputs()
    with ExitStack() as stack, torch.enable_grad():
        for module in modules:
            stack.callback(module.register_forward_hook(noted).remove)
        probe = batch.map(lambda t: t.detach().requires_grad_() if t.is_floating_point() else t)
        total = run(probe).sum()
        leaves = [t for t in [*probe.tensors(), *model.parameters()] if t.requires_grad]
        torch.autograd.grad(total, leaves, allow_unused=True)
    return {module: name for module, name in modules.items() if module in noted.reached}


class ModuleTap:
    """Context in which the input of every call of the given modules reaches ``reader``."""

    def __init__(self, modules: dict[nn.Module, str], reader: CallReader) -> None:
        self._modules, self._reader, self._stack = modules, reader, ExitStack()

    def __enter__(self) -> ModuleTap:
        for module in self._modules:
            self._stack.callback(module.register_forward_pre_hook(self._read, with_kwargs=True).remove)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _read(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensor = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(tensor, Tensor):
            run = type(module).forward.__get__(module)
            self._reader.read(tensor, type(module).__name__, 0.0, self._modules[module], run)
