"""Plain data that passes between the parts: genotype, batch, evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from naswot.errors import InputError, ShapeError

Genotype = tuple[int, ...]
"""One small integer per decision; ``space.choices`` gives the number of options at each position."""

ModelInputs = Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]
"""What a model is called with: ``model(x)``, ``model(*xs)`` or ``model(**xs)``."""


@dataclass(frozen=True)
class Batch:
    """N images (or token sequences) with optional labels.

    Args:
        inputs: tensors whose dimension ``batch_dim`` is N: images (N, C, H, W) float, token ids (N, T) int64,
            a tuple of positional or a mapping of keyword arguments.
        targets: (N,) int64 class labels, if known.
        batch_dim: which dimension of the inputs counts the images; 1 for sequence-first (T, N, C) models.
    Raises:
        InputError: if there is no tensor in ``inputs``.
        ShapeError: if an input has no dimension ``batch_dim``, there is no image, or the targets are not N.
    Example:
        >>> Batch(torch.zeros(4, 3, 8, 8)).n
        4
    """

    inputs: ModelInputs
    targets: Tensor | None = None
    batch_dim: int = 0

    def __post_init__(self) -> None:
        tensors = self.tensors()
        if not tensors:
            raise InputError(
                f"a batch needs at least one tensor, but got {type(self.inputs).__name__}; "
                "naswot.data.as_batch draws one from a Dataset or DataLoader"
            )
        if any(t.dim() <= self.batch_dim for t in tensors):
            shapes = [tuple(t.shape) for t in tensors]
            raise ShapeError(f"expected inputs with a batch dimension {self.batch_dim}, but got shapes {shapes}")
        n = tensors[0].shape[self.batch_dim]
        if n == 0:
            raise ShapeError(f"a batch needs at least one image, but got inputs of shape {tuple(tensors[0].shape)}")
        if self.targets is not None and not isinstance(self.targets, Tensor):
            raise InputError(f"expected targets as a tensor (N,) int64, but got {type(self.targets).__name__}")
        if self.targets is not None and tuple(self.targets.shape) != (n,):
            raise ShapeError(f"expected targets of shape ({n},), but got {tuple(self.targets.shape)}")

    @property
    def n(self) -> int:
        """Number of images N."""
        return int(self.tensors()[0].shape[self.batch_dim])

    def tensors(self) -> list[Tensor]:
        """The input tensors, in order."""
        if isinstance(self.inputs, Tensor):
            return [self.inputs]
        if not isinstance(self.inputs, Mapping | tuple | list):
            return []
        values = self.inputs.values() if isinstance(self.inputs, Mapping) else self.inputs
        return [value for value in values if isinstance(value, Tensor)]

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with ``change`` applied to every input tensor."""

        def apply(value: Tensor) -> Tensor:
            return change(value) if isinstance(value, Tensor) else value

        inputs: ModelInputs
        if isinstance(self.inputs, Tensor):
            inputs = apply(self.inputs)
        elif isinstance(self.inputs, Mapping):
            inputs = {key: apply(value) for key, value in self.inputs.items()}
        else:
            inputs = tuple(apply(value) for value in self.inputs)
        return dataclasses.replace(self, inputs=inputs)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on ``device``."""
        targets = None if self.targets is None else self.targets.to(device)
        return dataclasses.replace(self.map(lambda value: value.to(device)), targets=targets)

    def call(self, model: Callable[..., object]) -> object:
        """``model`` called with these inputs."""
        if isinstance(self.inputs, Tensor):
            return model(self.inputs)
        if isinstance(self.inputs, Mapping):
            return model(**self.inputs)
        return model(*self.inputs)


def to_batch(inputs: Batch | ModelInputs) -> Batch:
    """Inputs as a :class:`Batch` without targets; a batch as it is."""
    return inputs if isinstance(inputs, Batch) else Batch(inputs)


@dataclass(frozen=True)
class Evaluation:
    """Scores of one architecture under one repeat of the draw.

    Args:
        genotype: the architecture.
        arch: its canonical string.
        scores: raw proxy values by name; -inf is a value, NaN never is.
        seconds: what it cost, by stage (``build``, ``score``).
        seed: the run's seed; batch and initialisation derive from it and ``repeat``.
        repeat: which repetition, from 0.
        reasons: why a score is not finite, or why there is none, by name.
        error: message of the failure when nothing could be scored.
    """

    genotype: Genotype
    arch: str
    scores: Mapping[str, float]
    seconds: Mapping[str, float]
    seed: int
    repeat: int = 0
    reasons: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
