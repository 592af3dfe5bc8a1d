"""Where the blocks of any network end, for the component proxies of AZ-NAS.

The authors' networks hand out the features they mean: of NAS-Bench-201 the outputs of stem and cells, of MobileNetV2
those of the activations behind each block, of transformers the residual stream. A module that somebody brings has no
such method, so the boundaries are read off its data flow:

* A *cut point* is a tensor read or returned by some module through which every path from the input to the logits goes.
  Inside a residual block or between parallel branches there is none; behind their sum there is.
* A *unit* is a composite element of an ``nn.Sequential`` or ``nn.ModuleList``, other than these, that holds no further
  unit: a cell, a residual block, a transformer layer. Its output counts if it is a cut point, whether or not it has
  weights, and nothing inside it does.
* Elsewhere, of the cut points with no weight matrix between them the last counts: convolution, normalisation and
  activation make one feature. So does what another composite computes itself, such as a residual sum; what follows a
  composite without weights of its own (the normalisation in front of the classifier) does not.
* The logits, what comes before the first weights and, where a network has maps or tokens, vectors behind their pooling
  do not count.

On NAS-Bench-201 these are the stem and the cells, reductions included, as in the authors' code. Differs from it: of a
vision transformer the embedded patches and the layers count, where theirs takes the sums behind attention and behind
MLP; other networks may be cut finer or coarser than their makers would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from naswot.errors import InputError
from naswot.logits import logits_of
from naswot.passes import Passes
from naswot.types import Batch

Place = tuple[Any, int]
"""A tensor's place in the autograd graph: the node that made it and the number among that node's outputs."""


@dataclass(frozen=True)
class Feature:
    """A tensor at the end of a block.

    Args:
        edge: its place in the autograd graph, for torch's functions.
        like: an empty tensor of its type on its device.
        shape: (N, C, ...) for four and more dimensions, (..., C) for fewer.
        value: a copy of it, if asked for.
        n_weights: calls of modules with weight matrices begun before it was seen.
        is_composite: whether it is the output of a unit, or computed by a module that holds others.
    """

    edge: GradientEdge
    like: Tensor
    shape: torch.Size
    value: Tensor | None
    n_weights: int
    is_composite: bool


@contextmanager
def blocks_of(passes: Passes, *, n_needed: int, values: bool = False) -> Iterator[list[Feature]]:
    """Features of Gaussian inputs at the ends of the blocks of a private copy of the model, in order, with their graph.

    Floating inputs are replaced by standard normal draws of their shape; token ids stay, and the data flow is then
    followed from the embeddings. Empty if the logits do not depend on the inputs.

    Args:
        passes: the model and the shape of its inputs.
        n_needed: smallest number of features that makes sense.
        values: keep copies of them.
    Raises:
        InputError: if there are fewer features.
    """
    if torch.is_inference_mode_enabled():
        raise InputError("the model was made in inference mode, which keeps no graph to follow the data through")
    with passes.scratch() as model, torch.enable_grad():
        batch = passes.batch.map(_gaussian)
        watch = _Watch(model, [t for t in batch.tensors() if t.is_floating_point()], values=values)
        with watch:
            result = passes.own_forward(model, batch.inputs)
        if not watch.sources:
            raise InputError(
                "the inputs are integers and no torch.nn.Embedding reads them, so their way to the logits is not known"
            )
        features = watch.chain(logits_of(result, passes.options.output), batch)
        if features is not None and len(features) < n_needed:
            raise too_few(n_needed, len(features))
        yield features or []


def too_few(n_needed: int, found: int) -> InputError:
    """The error for a network of fewer blocks than a formula needs."""
    return InputError(
        f"expected a network of at least {n_needed} blocks with weights before its classifier, "
        f"but found {found} place(s) through which all data flows"
    )


def rows_of(tensor: Tensor) -> Tensor:
    """Positions by channels, (R, C): channels are dimension 1 of four and more dimensions, else the last."""
    channels_last = tensor.movedim(1, -1) if tensor.dim() > 3 else tensor
    return channels_last.reshape(-1, channels_last.shape[-1])


def _n_positions(shape: torch.Size) -> int:
    """Number of rows R of :func:`rows_of`."""
    return shape.numel() // shape[1 if len(shape) > 3 else -1]


def _gaussian(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    draws = torch.randn(tensor.shape, dtype=torch.float64)  # on the CPU, so that all devices and types see the same
    return draws.to(tensor).requires_grad_()


def _units(model: nn.Module) -> set[nn.Module]:
    """Composite elements of sequences and lists that hold no further ones."""
    lists = (nn.Sequential, nn.ModuleList)
    elements = {e for home in model.modules() if isinstance(home, lists) for e in home if e._modules}
    units = {element for element in elements if not isinstance(element, (*lists, nn.ModuleDict))}
    return {unit for unit in units if units.isdisjoint(set(unit.modules()) - {unit})}


class _Watch:
    """Hooks that note every tensor that modules read or return, and the leaves from which the data flows."""

    def __init__(self, model: nn.Module, sources: list[Tensor], *, values: bool) -> None:
        self.sources = sources
        self._embeds = not sources
        self._model, self._values, self._units = model, values, _units(model)
        self._features: list[Feature] = []
        self._met: set[Place] = set()
        self._n_weights = self._depth = 0
        self._stack = ExitStack()

    def __enter__(self) -> _Watch:
        for module in self._model.modules():
            self._stack.callback(module.register_forward_pre_hook(self._before, with_kwargs=True).remove)
            self._stack.callback(module.register_forward_hook(self._after).remove)
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        for value in (*args, *kwargs.values()):
            self._note(value)
        self._depth += module in self._units
        self._n_weights += any(p is not None and p.dim() > 1 for p in module._parameters.values())

    def _after(self, module: nn.Module, args: Any, output: Any) -> Any:  # noqa: ARG002
        if self._embeds and isinstance(module, nn.Embedding | nn.EmbeddingBag):
            self.sources.append(output.detach().requires_grad_())
            return self.sources[-1].clone()
        is_unit = module in self._units
        self._depth -= is_unit
        first = output[0] if is_unit and isinstance(output, tuple) and output else output
        self._note(first, is_unit=is_unit, is_composite=bool(module._modules) and module is not self._model)
        return output

    def _note(self, value: Any, *, is_unit: bool = False, is_composite: bool = False) -> None:
        if not isinstance(value, Tensor) or value.dim() < 2 or not value.requires_grad or self._depth:
            return
        edge = get_gradient_edge(value)
        place = (edge.node, edge.output_nr)
        if place not in self._met or is_unit:
            self._met.add(place)
            kept = value.detach().clone() if self._values else None  # what follows may write in place
            like = value.detach().new_empty(0)
            self._features.append(Feature(edge, like, value.shape, kept, self._n_weights, is_composite))

    def chain(self, logits: Tensor, batch: Batch) -> list[Feature] | None:
        """The features that count, in order; None if the logits do not depend on the inputs."""
        if not logits.requires_grad:
            return None
        cuts = _cut_points(get_gradient_edge(logits), {get_gradient_edge(leaf).node for leaf in self.sources})
        if cuts is None:
            return None
        inner = (f for f in self._features if 0 < f.n_weights < self._n_weights)
        found = [f for f in inner if (f.edge.node, f.edge.output_nr) in cuts]
        maps = [feature for feature in found if _n_positions(feature.shape) > batch.n]
        chosen: list[Feature] = []
        for feature in maps or found:
            if not chosen or feature.is_composite or feature.n_weights != chosen[-1].n_weights:
                chosen.append(feature)
            elif not chosen[-1].is_composite:
                chosen[-1] = feature
        return chosen


def _cut_points(end: GradientEdge, sources: set[Any]) -> set[Place] | None:
    """Places that lie on every path from a source to ``end``, found by counting paths; None if there is no path."""
    order = _from_leaves(end.node)
    below: dict[Any, int] = {}  # number of paths from the sources to a node
    for node in order:
        below[node] = 1 if node in sources else sum(below[n] for n, _ in node.next_functions if n is not None)
    if below[end.node] == 0:
        return None
    above: Counter[Any] = Counter({end.node: 1})  # number of paths from a node to the end
    through: Counter[Place] = Counter({(end.node, end.output_nr): 1})
    for node in reversed(order):
        for n, output in node.next_functions:
            if n is not None:
                above[n] += above[node]
                through[n, output] += above[node]
    return {place for place, n in through.items() if n * below[place[0]] == below[end.node]}


def _from_leaves(end: Any) -> list[Any]:
    """All nodes of the graph behind ``end``, each after those it leads to."""
    order: list[Any] = []
    met = {end}
    waiting = [(end, iter(end.next_functions))]
    while waiting:
        node, following = waiting[-1]
        for n, _ in following:
            if n is not None and n not in met:
                met.add(n)
                waiting.append((n, iter(n.next_functions)))
                break
        else:
            order.append(node)
            waiting.pop()
    return order
