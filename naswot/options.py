"""How a pass is run and read, and where its batch is placed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from naswot.activations import Taps, check_taps
from naswot.errors import InputError, OptionError, unknown_name
from naswot.logits import OutputRule
from naswot.preserve import Mode
from naswot.types import Batch


@dataclass(frozen=True)
class PassOptions:
    """How a pass is run and read; the defaults are the faithful ones.

    Args:
        taps: ``"relu"``: piecewise-linear activations; ``"all"``: these and the smooth ones; ``"mellor"``: the
            authors' reading.
        mode: ``"train"``, ``"eval"`` or ``"as_is"``, see :func:`naswot.preserve.set_mode`.
        batch_dim: dimension of the activations that counts the images.
        output: gives the logits, for models whose result does not show them by the rule of :func:`logits_of`.
        channels_last: lay images out with the channels innermost (rounding differs, the mathematics does not).
        bfloat16: run the pass under autocast to bfloat16.
        stop_after: leave the pass behind that many activation calls.
        names: follow module names (slower; for tables).
    """

    taps: Taps = "all"
    mode: Mode = "train"
    batch_dim: int = 0
    output: OutputRule | None = None
    channels_last: bool = False
    bfloat16: bool = False
    stop_after: int | None = None
    names: bool = False

    def __post_init__(self) -> None:
        check_taps(self.taps)
        if self.stop_after is not None and self.stop_after < 1:
            raise OptionError(f"expected stop_after of at least 1 activation call, but got {self.stop_after}")


def options_from(**options: Any) -> PassOptions:
    """:class:`PassOptions` from keywords.

    Raises:
        UnknownNameError: with the nearest option, for a keyword that is none.
    """
    known = [option.name for option in fields(PassOptions)]
    for name in options:
        if name not in known:
            raise unknown_name("option", name, known)
    return PassOptions(**options)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 by its own instructions."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def fast_options(device: torch.device | str) -> dict[str, bool]:
    """Fields of :class:`PassOptions` that speed a pass up: channels-last, and bfloat16 where the device has it."""
    return {"channels_last": True, "bfloat16": has_fast_bfloat16(torch.device(device))}


def device_of(model: nn.Module) -> torch.device:
    """Where the model lives: the device of its first parameter or buffer, else the CPU."""
    tensor = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def placed(batch: Batch, model: nn.Module, *, channels_last: bool = False) -> Batch:
    """The batch on the model's device and in its floating type, free of graphs and of inference tensors.

    Raises:
        InputError: for inputs on the meta device where the model has numbers.
    """
    device = device_of(model)
    floating = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)

    def place(tensor: Tensor) -> Tensor:
        if tensor.is_meta and not device.type == "meta":
            raise InputError("the inputs lie on the meta device, which holds no numbers; give them values first")
        tensor = (tensor.clone() if tensor.is_inference() else tensor).detach().to(device)
        if tensor.is_floating_point() and floating is not None:
            tensor = tensor.to(floating)
        if channels_last and tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    with torch.inference_mode(False):  # no inference tensor may enter a graph
        inputs = batch.map(place)
        targets = None if batch.targets is None else batch.targets.clone().to(device)
    return Batch(inputs.inputs, targets, batch.batch_dim)
