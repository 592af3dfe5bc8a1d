"""Tools of the contract of a supernet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from naswot.seeding import seeded, torch_generator
from naswot.space import SearchSpace
from naswot.supernet import MixedSupernet, Mixing, Weights


class Build(Protocol):
    """Makes the supernet under test, untrained, with small options; ``more`` go before them."""

    def __call__(self, *, seed: int = 0, **more: Any) -> MixedSupernet:
        """The supernet."""
        ...


def logits(model: nn.Module, inputs: Any, *mixing: Mixing) -> Tensor:
    """(N, K) of a forward without gradient, whose random numbers, if any, are always the same."""
    with seeded(0), torch.no_grad():
        result: Tensor = model(inputs, *mixing)
    return result


def example_inputs(space: SearchSpace, n: int, *, n_classes: int, size: int, in_channels: int = 3) -> Any:
    """(n, in_channels, size, size) random images, or what a space without images gives as an example."""
    if space.input_kind == "images":
        return torch.randn(n, in_channels, size, size, generator=torch_generator(0))
    return space.example_inputs(n, n_classes=n_classes, generator=torch_generator(0))


def random_strengths(supernet: MixedSupernet, seed: int = 0) -> dict[str, Tensor]:
    """(rows, options) by group, uniform from 0 to 1, 0 for what cannot be taken."""
    generator = torch_generator(seed)
    return {g.name: torch.rand(g.shape, generator=generator) * supernet.allowed(g.name) for g in supernet.groups}


def without(options: Sequence[str], supernet: MixedSupernet, tables: Weights) -> dict[str, Tensor]:
    """The same tables with 0 for options of these names."""
    found = {name: table.clone() for name, table in tables.items()}
    for group in supernet.groups:
        for row, names in enumerate(group.options):
            for column, name in enumerate(names):
                if name in options:
                    found[group.name][row, column] = 0.0
    return found


def taken_by(supernet: MixedSupernet, tables: Sequence[Weights]) -> dict[str, Tensor]:
    """(rows, options) bool by group of operations: what some architectures take, all where they take nothing."""
    found = {}
    for group in supernet.operation_groups:
        taken = torch.stack([table[group.name] for table in tables]).bool().any(0)
        found[group.name] = torch.where(taken.any(1, keepdim=True), taken, group.present())
    return found


def on_simplex(table: Tensor) -> Tensor:
    """(rows, options), none negative, such that each row adds up to 1."""
    return table / table.sum(1, keepdim=True)


def number_of(parameters: Iterable[Tensor]) -> int:
    """Of all elements, those of a tensor that comes twice once."""
    return sum({id(parameter): parameter.numel() for parameter in parameters}.values())


def same_tables(first: Weights, second: Weights) -> bool:
    """Whether tensors have the same names and values."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def executed(supernet: MixedSupernet, model: nn.Module, inputs: Any) -> set[int]:
    """Identities of the modules of the supernet that a forward of a model calls."""
    seen: set[int] = set()
    with ExitStack() as hooks:
        for module in supernet.modules():
            handle = module.register_forward_hook(lambda called, *_: seen.add(id(called)))
            hooks.callback(handle.remove)
        logits(model, inputs)
    return seen
