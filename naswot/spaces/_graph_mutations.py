"""The eleven mutations of Large-Scale Evolution.

Paper: Real et al., Large-Scale Evolution of Image Classifiers, ICML 2017, arXiv:1703.01041, Section 3. The code was
not published. Differences: numbers come from the lists of the space, so that a convolution is inserted with the option
nearest to the channels of its input, and one that changes always takes another value; filters change by one step, as
within half to twice its size a 1x1 filter could never grow; a one-to-one vertex can be removed as well, without which
its insertion could not be undone; an insertion takes any free slot, and there is none once all are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

import numpy as np

from naswot.errors import OptionError, unknown_name
from naswot.spaces._evolved_graph_network import IMAGE, Vertex
from naswot.spaces.evolved_graph import CHANNELS, FILTERS, RATES, STRIDES, EvolvedGraph, Graph
from naswot.types import Genotype

T = TypeVar("T")
Number = TypeVar("Number", int, float)

RESET: Final = "reset_weights"
"""The mutation after which a child is trained from fresh weights; after every other it inherits its parent's."""
_IMAGE_CHANNELS: Final = 3


class Mutated(NamedTuple):
    """What a mutation gave.

    Args:
        genotype: the child.
        mutation: name of the mutation.
        inherits: whether the child starts from its parent's weights.
    """

    genotype: Genotype
    mutation: str
    inherits: bool


def mutate_graph(
    space: EvolvedGraph, genotype: Genotype, rng: np.random.Generator, *, names: Sequence[str] | None = None
) -> Mutated:
    """A child by one mutation, drawn uniformly until one can be applied.

    Args:
        space: the space of the parent.
        genotype: the parent.
        rng: what the mutation and its place are drawn from.
        names: mutations to draw from; None: all eleven.
    Raises:
        UnknownNameError: if there is no such mutation.
        OptionError: if none of them can be applied to this graph.
    Example:
        >>> space = EvolvedGraph()
        >>> mutate_graph(space, space.start(), np.random.default_rng(0), names=["remove_skip", "identity"]).mutation
        'identity'
    """
    left = list(MUTATIONS if names is None else names)
    while left:
        name = left.pop(int(rng.integers(len(left))))
        if name not in MUTATIONS:
            raise unknown_name("mutation", name, MUTATIONS)
        child = MUTATIONS[name](space, genotype, rng)
        if child is not None:
            return Mutated(child, name, name != RESET)
    raise OptionError(
        f"none of {', '.join(MUTATIONS if names is None else names)} can be applied to {space.format(genotype)!r}; "
        "'identity' and 'alter_learning_rate' always can"
    )


def alter_learning_rate(space: EvolvedGraph, genotype: Genotype, rng: np.random.Generator) -> Genotype:
    """Another learning rate of half to twice the present one."""
    graph = space.graph(genotype)
    rate = _near(RATES, RATES[graph.rate], rng)
    return space.from_graph(graph._replace(rate=RATES.index(rate)))


def identity(space: EvolvedGraph, genotype: Genotype, rng: np.random.Generator) -> Genotype:  # noqa: ARG001
    """The parent itself, which so is trained further."""
    return space.check(genotype)


def reset_weights(space: EvolvedGraph, genotype: Genotype, rng: np.random.Generator) -> Genotype:  # noqa: ARG001
    """The parent itself; :func:`mutate_graph` tells that its weights are not inherited."""
    return space.check(genotype)


def insert_convolution(space: EvolvedGraph, genotype: Genotype, rng: np.random.Generator) -> Genotype | None:
    """A 3x3 convolution of stride 1 or 2 in a free slot, as wide as its input; normalisation and ReLU may follow."""
    graph = space.graph(genotype)
    slot = _free_slot(space, graph, rng)
    if slot is None:
        return None
    before = next((v.channels for v in reversed(graph.vertices) if v.convolves and v.slot < slot), _IMAGE_CHANNELS)
    channels = min(CHANNELS, key=lambda option: abs(option - before))
    vertex = Vertex(slot, True, bool(rng.integers(2)), 3, 3, channels, STRIDES[int(rng.integers(2))])
    return _with(space, graph, vertex)


def insert_one_to_one(space: EvolvedGraph, genotype: Genotype, rng: np.random.Generator) -> Genotype | None:
    """A vertex in a free slot that takes its input as it is, with or without normalisation and ReLU."""
    graph = space.graph(genotype)
    slot = _free_slot(space, graph, rng)
    return None if slot is None else _with(space, graph, Vertex(slot, False, bool(rng.integers(2))))


def remove_convolution(space: EvolvedGraph, genotype: Genotype, rng: np.random.Generator) -> Genotype | None:
    """Without one of the vertices and the skips into and out of it."""
    graph = space.graph(genotype)
    gone = _one(graph.vertices, rng)
    if gone is None:
        return None
    kept = (
        vertex._replace(sources=tuple(source for source in vertex.sources if source != gone.slot))
        for vertex in graph.vertices
        if vertex != gone
    )
    return space.from_graph(graph._replace(vertices=tuple(kept)))


def alter_stride(space: EvolvedGraph, genotype: Genotype, rng: np.random.Generator) -> Genotype | None:
    """Half or twice the stride of a convolution."""
    graph = space.graph(genotype)
    vertex = _convolution(graph, rng)
    return vertex and _with(space, graph, vertex._replace(stride=_near(STRIDES, vertex.stride, rng)))


def alter_channels(space: EvolvedGraph, genotype: Genotype, rng: np.random.Generator) -> Genotype | None:
    """Another number of filters of a convolution, half to twice as many."""
    graph = space.graph(genotype)
    vertex = _convolution(graph, rng)
    return vertex and _with(space, graph, vertex._replace(channels=_near(CHANNELS, vertex.channels, rng)))


def filter_size(space: EvolvedGraph, genotype: Genotype, rng: np.random.Generator) -> Genotype | None:
    """The height or the width of a convolution's filters, smaller or larger by two."""
    graph = space.graph(genotype)
    vertex = _convolution(graph, rng)
    if vertex is None:
        return None
    high = bool(rng.integers(2))
    size = vertex.height if high else vertex.width
    near = [option for option in FILTERS if abs(option - size) == 2]
    chosen = near[int(rng.integers(len(near)))]
    return _with(space, graph, vertex._replace(height=chosen) if high else vertex._replace(width=chosen))


def add_skip(space: EvolvedGraph, genotype: Genotype, rng: np.random.Generator) -> Genotype | None:
    """One more vertex, or the images, added to what a later vertex gets."""
    graph = space.graph(genotype)
    earlier = (IMAGE, *(vertex.slot for vertex in graph.vertices))
    chosen = _one([(v, s) for v in graph.vertices for s in earlier if s < v.slot and s not in v.sources], rng)
    if chosen is None:
        return None
    vertex, source = chosen
    return _with(space, graph, vertex._replace(sources=tuple(sorted((*vertex.sources, source)))))


def remove_skip(space: EvolvedGraph, genotype: Genotype, rng: np.random.Generator) -> Genotype | None:
    """Without one of the skips."""
    graph = space.graph(genotype)
    chosen = _one([(vertex, source) for vertex in graph.vertices for source in vertex.sources], rng)
    if chosen is None:
        return None
    vertex, gone = chosen
    return _with(space, graph, vertex._replace(sources=tuple(s for s in vertex.sources if s != gone)))


MUTATIONS: Final[Mapping[str, Callable[[EvolvedGraph, Genotype, np.random.Generator], Genotype | None]]] = {
    "alter_learning_rate": alter_learning_rate,
    "identity": identity,
    RESET: reset_weights,
    "insert_convolution": insert_convolution,
    "remove_convolution": remove_convolution,
    "alter_stride": alter_stride,
    "alter_channels": alter_channels,
    "filter_size": filter_size,
    "insert_one_to_one": insert_one_to_one,
    "add_skip": add_skip,
    "remove_skip": remove_skip,
}
"""By name. Each takes the space, a genotype and a generator, and gives a child, or None where it cannot be applied."""


def _one(options: Sequence[T], rng: np.random.Generator) -> T | None:
    return options[int(rng.integers(len(options)))] if options else None


def _near(options: Sequence[Number], value: Number, rng: np.random.Generator) -> Number:
    """Another option of half to twice ``value``; there always is one in lists that grow at most by a factor of two."""
    low, high = value / 2.0001, value * 2.0001  # rates are rounded
    near = [option for option in options if low < option < high and option != value]
    return near[int(rng.integers(len(near)))]


def _convolution(graph: Graph, rng: np.random.Generator) -> Vertex | None:
    return _one([vertex for vertex in graph.vertices if vertex.convolves], rng)


def _free_slot(space: EvolvedGraph, graph: Graph, rng: np.random.Generator) -> int | None:
    taken = {vertex.slot for vertex in graph.vertices}
    return _one([slot for slot in range(space.n_slots) if slot not in taken], rng)


def _with(space: EvolvedGraph, graph: Graph, vertex: Vertex) -> Genotype:
    """Genotype of a graph with a vertex added to it, or put in the place of the one in its slot."""
    slots = {present.slot: present for present in graph.vertices}
    slots[vertex.slot] = vertex
    return space.from_graph(graph._replace(vertices=tuple(slots[slot] for slot in sorted(slots))))
