"""A random gradient sent back through the graph that autograd kept, and what it tells of every node."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

_LEAST, _MOST = 1e-6, 1e6  # sizes between which a gradient is left as it is
_LOOKUPS = ("Embedding", "Index", "Gather")  # nodes by which integers become numbers


class _Operand(NamedTuple):
    """An operand of a node: what made it, the tensor if it is a leaf, whether it gets a gradient, and its form."""

    source: Any
    leaf: Tensor | None
    flows: bool
    is_flat: bool


class _Chains(NamedTuple):
    """The chains that lead to a node: layers on the longest, layers in the mean, logarithm of their number."""

    longest: int
    mean: float
    number: float


class GradientFlow:
    """The nodes behind an output, in the order in which they were made, and where a gradient passes that is not zero.

    Args:
        output: the last tensor, of any shape; must have a graph.
        inputs: leaves at which chains begin.
        parameters: leaves of which is told whether the output depends on them.
        layers: numbers of the nodes that are layers.
        shifts: parameters that are added to what they meet.
    """

    def __init__(
        self,
        output: Tensor,
        *,
        inputs: Collection[Tensor],
        parameters: Collection[Tensor],
        layers: Collection[int],
        shifts: Collection[Tensor],
    ) -> None:
        self._root, self._layers, self._shifts = output.grad_fn, set(layers), set(shifts)
        self._inputs, self._parameters = set(inputs), set(parameters)
        self._numbers = _nodes(self._root)
        self._operands = self._flow(output)
        self.live_layers = {
            number for node, number in self._numbers.items() if number in layers and self._is_live(node)
        }

    def passes(self) -> set[int]:
        """Numbers of the nodes that pass a gradient on."""
        return {number for node, number in self._numbers.items() if any(o.flows for o in self._operands[node])}

    def live_parameters(self) -> set[Tensor]:
        """Parameters with a gradient; a shift counts with what it is added to.

        So the shift of a normalisation that reads only zeros is as dead as its scale.
        """
        live: set[Tensor] = set()
        for node, operands in self._operands.items():
            shifts = [self._is_shift(node, operand) for operand in operands]
            for operand, is_shift in zip(operands, shifts, strict=True):
                counts = self._is_live(node) if is_shift and not all(shifts) else operand.flows
                if counts and operand.leaf in self._parameters:
                    live.add(operand.leaf)
        return live

    def depths(self, *, lookups: bool) -> tuple[int, float] | None:
        """Live layers on the longest chain to the output and, in the mean, on all chains; None where there is none.

        Args:
            lookups: whether chains begin not only at the inputs, but also where a table is read by integers and at
                live layers that read something without a graph.
        """
        chains: dict[Any, _Chains] = {}
        for node, operands in self._operands.items():
            before = [chains[o.source] for o in operands if o.flows and o.source in chains]
            begins = any(o.flows and o.leaf in self._inputs for o in operands)
            if begins or (lookups and not before and self._looks_up(node)):
                before.append(_Chains(0, 0.0, 0.0))
            if before:
                chains[node] = _joined(before, by=self._numbers[node] in self.live_layers)
        found = chains.get(self._root)
        return None if found is None else (found.longest, found.mean)

    def _flow(self, output: Tensor) -> dict[Any, list[_Operand]]:
        flows: dict[Any, list[tuple[bool, bool]]] = {}
        hooks = [node.register_hook(partial(_note, flows, node)) for node in self._numbers]
        leaves = [leaf for leaf in (*self._parameters, *self._inputs) if leaf.requires_grad]
        # random weights: of the plain sum of a softmax, say, the gradient would be zero; a gradient given to
        # torch.autograd.grad would have it import a system for algebra
        scalar = (output * torch.randn_like(output)).sum()
        try:
            torch.autograd.grad(scalar.real if scalar.is_complex() else scalar, leaves, allow_unused=True)
        finally:
            for hook in hooks:
                hook.remove()
        return {
            node: [
                _Operand(source, _leaf(source), *flow)
                for (source, _), flow in zip(node.next_functions, flows.get(node, ()), strict=False)
                if source is not None
            ]
            for node in self._numbers
        }

    def _is_live(self, node: Any) -> bool:
        """Whether a gradient passes to every operand that was computed and, if there are parameters, to one of them.

        That of a shift does not count: it flows whatever the others hold.
        """
        operands = [operand for operand in self._operands[node] if not self._is_shift(node, operand)]
        computed = [operand.flows for operand in operands if operand.leaf is None]
        leaves = [operand.flows for operand in operands if operand.leaf is not None]
        return all(computed) and any(leaves or computed)

    def _is_shift(self, node: Any, operand: _Operand) -> bool:
        return operand.leaf in self._shifts or (operand.is_flat and self._is_layer(node))

    def _is_layer(self, node: Any) -> bool:
        return self._numbers[node] in self._layers

    def _looks_up(self, node: Any) -> bool:
        if not any(operand.flows and operand.leaf is not None for operand in self._operands[node]):
            return False
        reads_unknown = any(source is None for source, _ in node.next_functions)
        is_live_layer = self._numbers[node] in self.live_layers
        return type(node).__name__.startswith(_LOOKUPS) or (is_live_layer and reads_unknown)


def _nodes(root: Any) -> dict[Any, int]:
    """The nodes that compute something, with their numbers, in the order in which they were made."""
    found, waiting = {root}, [root]
    while waiting:
        for node, _ in waiting.pop().next_functions:
            if node is not None and node not in found and _leaf(node) is None:
                found.add(node)
                waiting.append(node)
    numbers = {node: int(node._sequence_nr()) for node in found}
    return dict(sorted(numbers.items(), key=lambda item: item[1]))


def _leaf(node: Any) -> Tensor | None:
    is_leaf = type(node).__name__ == "AccumulateGrad"
    return node.variable if is_leaf else None


def _note(
    flows: dict[Any, list[tuple[bool, bool]]], node: Any, gradients: tuple[Tensor | None, ...], _: Any
) -> tuple[Tensor | None, ...] | None:
    """Note which gradients are not zero, and bring those to size one that could vanish or overflow further on."""
    sizes = [0.0 if gradient is None else _size(gradient) for gradient in gradients]
    flats = [gradient is not None and gradient.dim() < 2 for gradient in gradients]
    flows[node] = [(size > 0, flat) for size, flat in zip(sizes, flats, strict=True)]
    if all(size == 0 or _LEAST < size < _MOST for size in sizes):
        return None
    return tuple(
        gradient if gradient is None or size == 0 else _of_size_one(gradient, size)
        for gradient, size in zip(gradients, sizes, strict=True)
    )


def _size(gradient: Tensor) -> float:
    """Its largest absolute value; infinite where it is not finite."""
    values = gradient._values() if gradient.is_sparse else gradient
    size = float(values.abs().amax()) if values.numel() else 0.0
    return size if math.isfinite(size) else math.inf


def _of_size_one(gradient: Tensor, size: float) -> Tensor:
    return gradient / size if math.isfinite(size) else torch.randn_like(gradient)


def _joined(before: list[_Chains], *, by: int) -> _Chains:
    """Chains that meet in one node, which adds ``by`` layers to each."""
    top = max(each.number for each in before)
    shares = [math.exp(each.number - top) for each in before]
    mean = sum(share * each.mean for share, each in zip(shares, before, strict=True)) / sum(shares)
    return _Chains(max(each.longest for each in before) + by, mean + by, top + math.log(sum(shares)))
