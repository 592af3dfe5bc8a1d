"""What a proxy may ask to see of a pass.

An observer reduces each event (an activation call, a module call, an operation, a gradient) to a small value at once;
the values of successive events are added with ``+``. So a tensor is summed up and a tuple collects, and nothing of the
size of the activations is kept. Two proxies that declare the same observer share it: equality is that of the function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from naswot.calls import ActivationCall, unwatched

Value = Any
"""Anything with ``+``: a tensor, a number, a tuple."""

Seen = Mapping[str, Value]
"""What the observers of one proxy saw, under the names the proxy declared; None where no event happened."""


@dataclass(frozen=True)
class Activation:
    """Every tapped activation call; ``reduce(call)``."""

    reduce: Callable[[ActivationCall], Value]


@dataclass(frozen=True)
class Module:
    """Every call of a module of that type or types; ``reduce(module, inputs, output)``."""

    type: type[nn.Module] | tuple[type[nn.Module], ...]
    reduce: Callable[[nn.Module, tuple[Any, ...], Any], Value]


@dataclass(frozen=True)
class Operation:
    """Every tensor operation at the level of torch's dispatcher; ``reduce(packet, args, kwargs, output)``.

    The operation is named by its overload packet, such as ``torch.ops.aten.convolution``. A ReLU that an observer of
    activations has computed itself does not reach the dispatcher; ask for activations by :class:`Activation`.

    Args:
        reduce: see above; None adds nothing.
        only: the packets to see; by default all.
    """

    reduce: Callable[[Any, tuple[Any, ...], Mapping[str, Any], Any], Value]
    only: frozenset[Any] | None = None


@dataclass(frozen=True)
class Gradient:
    """The loss's gradient of every trainable parameter; ``reduce(name, parameter, gradient)``.

    Parameters that the loss does not depend on have gradient None and are left out.
    """

    reduce: Callable[[str, nn.Parameter, Tensor], Value]


@dataclass(frozen=True)
class OutputGradient:
    """Every call of a module of that type or types, with the loss's gradient of its output, of the same shape.

    ``reduce(module, output, gradient)``, in the order of the forward pass. Calls that the loss does not depend on, and
    modules whose result is no tensor, are left out. Costs a copy of every such output.
    """

    type: type[nn.Module] | tuple[type[nn.Module], ...]
    reduce: Callable[[nn.Module, Tensor, Tensor], Value]


@dataclass(frozen=True)
class SampleGradient:
    """The gradients of every image by itself, one image after the other; ``reduce({parameter name: gradient})``.

    Args:
        reduce: see above.
        reading: ``"coupled"``: one forward of the whole batch in the chosen mode, so that BatchNorm ties the images
            together, and N backward passes; ``"single"``: N forward and backward passes of one image each, in the
            chosen mode; ``"eval"``: one forward with running statistics, and N backward passes.
        of: what is differentiated: the image's cross-entropy or the sum of its logits.
    """

    reduce: Callable[[Mapping[str, Tensor]], Value]
    reading: Literal["coupled", "single", "eval"]
    of: Literal["loss", "logits"] = "loss"


Observer = Activation | Module | Operation | Gradient | OutputGradient | SampleGradient


class Record:
    """Running values of a set of distinct observers during one pass."""

    def __init__(self, observers: list[Observer]) -> None:
        self.observers = list(dict.fromkeys(observers))
        self.values: dict[Observer, Value] = {}

    def of(self, kind: type[Any]) -> list[Any]:
        """The observers of one kind."""
        return [observer for observer in self.observers if isinstance(observer, kind)]

    def add(self, observer: Observer, value: Value) -> None:
        """Fold one more value into what ``observer`` has so far."""
        known = self.values.get(observer)
        self.values[observer] = value if known is None else known + value

    def activation(self, call: ActivationCall) -> None:
        """Show an activation call to all who asked for them."""
        for observer in self.of(Activation):
            self.add(observer, observer.reduce(call))


class OperationTap(TorchDispatchMode):
    """Context that shows every dispatched operation to the observers that asked for it."""

    def __init__(self, record: Record) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._record = record
        self._observers = record.of(Operation)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would import torch._dynamo, some seconds, at the first operation; nothing compiles in here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # where composite operations come whole
            with self:
                output = func.decompose(*args, **kwargs)
            if output is not NotImplemented:
                return output
        with torch._C.DisableTorchFunction():  # an activation tap would take this call for one of the model's
            output = func(*args, **kwargs)
        packet = func.overloadpacket
        for observer in self._observers:
            if observer.only is None or packet in observer.only:
                with unwatched():
                    value = observer.reduce(packet, args, kwargs, output)
                if value is not None:
                    self._record.add(observer, value)
        return output
