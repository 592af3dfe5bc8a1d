"""The free graphs of Large-Scale Evolution, with at most eight vertices, from a linear model on.

Paper: Real et al., Large-Scale Evolution of Image Classifiers, ICML 2017, arXiv:1703.01041, Section 3. The code was not
published. Differences: the number of vertices is bounded and every number comes from a list, so that an architecture is
a tuple of integers; the learning rate spans 0.0125 to 0.8 in steps of a square root of two. The eleven mutations of the
paper are in ``_graph_mutations.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate, pairwise, product
from typing import ClassVar, Final, NamedTuple

import numpy as np
from torch import nn

from naswot.errors import ArchitectureError, OptionError
from naswot.space import SearchSpace, register_space
from naswot.spaces._evolved_graph_network import IMAGE, GraphNetwork, Vertex
from naswot.types import Genotype

KINDS: Final = ("absent", "conv", "conv-relu", "id", "id-relu")
"""Of a vertex: a convolution or nothing on its primary input; with ``-relu`` normalisation and ReLU at the end."""
FILTERS: Final = (1, 3, 5, 7)
CHANNELS: Final = (8, 12, 16, 24, 32, 48, 64, 96, 128)
STRIDES: Final = (1, 2, 4)
RATES: Final = tuple(0.1 * 2 ** (step / 2) for step in range(-6, 7))
"""Learning rates; number 6 is the 0.1 of the first models."""
_START_RATE: Final = 6
_N_GENES: Final = 5  # of a vertex, before its skips: kind, filter height and width, channels, stride
_ABSENT, _CONVOLVED = 0, (1, 2)
_VERTEX: Final = re.compile(
    r"v(\d{1,4}):(conv(?:-relu)?),(\d)x(\d),(\d{1,4}),s(\d)((?:,(?:image|v\d{1,4}))*)", re.ASCII
)
_SHORT: Final = re.compile(r"v(\d{1,4}):(id(?:-relu)?)((?:,(?:image|v\d{1,4}))*)", re.ASCII)


class Graph(NamedTuple):
    """A genotype spelt out.

    Args:
        rate: index of the learning rate in ``RATES``.
        vertices: those present, in order.
    """

    rate: int
    vertices: tuple[Vertex, ...] = ()


@register_space
class EvolvedGraph(SearchSpace):
    """Genes: the learning rate; of each slot its kind, filter height and width, channels, stride, and skips into it.

    A slot may hold a vertex; the vertices present form the backbone in the order of their slots. A skip adds the output
    of an earlier vertex, or the images, to what a vertex gets from the one before. The first skip gene of a slot is for
    the images, the others are for slots 0, 1, ... All genes of an absent vertex are 0, so are skips out of it and the
    four genes of a convolution where there is none. The same vertices in other slots are the same architecture, as
    :meth:`canonical` says.

    Args:
        n_slots: most vertices there can be; the registered space has eight.
    Raises:
        OptionError: if there is no slot.
    Example:
        >>> space = EvolvedGraph()
        >>> space.format(space.start())
        'lr0.1'
        >>> space.layer_names(space.parse("lr0.1|v2:conv-relu,3x3,16,s2|v5:id,image,v2"))
        ('vertices.v2', 'vertices.v5', 'classifier')
    """

    name: ClassVar[str] = "evolved_graph"
    reference: ClassVar[str] = "Real et al., ICML 2017, arXiv:1703.01041"

    def __init__(self, n_slots: int = 8) -> None:
        if n_slots < 1:
            raise OptionError(f"expected at least one slot, but got {n_slots}")
        self.n_slots = n_slots
        own = (len(KINDS), len(FILTERS), len(FILTERS), len(CHANNELS), len(STRIDES))
        slots = [(*own, *(2,) * (slot + 1)) for slot in range(n_slots)]
        self.choices = (len(RATES), *(n for slot in slots for n in slot))
        self.slot_slices: tuple[slice, ...] = tuple(
            slice(start, stop) for start, stop in pairwise(accumulate(map(len, slots), initial=1))
        )
        """The positions of each slot."""

    def build(self, genotype: Genotype, *, n_classes: int = 10, in_channels: int = 3) -> nn.Module:
        """Untrained network of ``genotype``, initialised from the global generator of torch.

        Args:
            genotype: the graph; its learning rate is no part of the network.
            n_classes: number of logits K.
            in_channels: channels of the images, which are (N, in_channels, H, W) with any H, W >= 1.
        Returns:
            A model that returns logits, (N, K).
        Raises:
            ArchitectureError: if the space does not contain ``genotype``.
            OptionError: if a number is below 1.
        """
        if min(n_classes, in_channels) < 1:
            raise OptionError(f"expected n_classes and in_channels of at least 1, but got {n_classes}, {in_channels}")
        return GraphNetwork(self.graph(genotype).vertices, n_classes, in_channels)

    def start(self) -> Genotype:
        """The first model of the paper's searches: linear, without any vertex, at a learning rate of 0.1."""
        return self.from_graph(Graph(_START_RATE))

    def propose_mutation(self, genotype: Genotype, rng: np.random.Generator) -> tuple[Genotype, bool]:
        """A child by one of the paper's mutations, and whether it inherits its parent's weights.

        Unlike :meth:`mutate`, which changes one gene, it keeps to changes that make sense of a graph.
        """
        from naswot.spaces._graph_mutations import mutate_graph  # it imports this module

        child = mutate_graph(self, self.check(genotype), rng)
        return child.genotype, child.inherits

    def learning_rate(self, genotype: Genotype) -> float:
        """Learning rate at which the architecture is to be trained."""
        return RATES[self.check(genotype)[0]]

    def layer_names(self, genotype: Genotype) -> tuple[str, ...]:
        """Prefixes of the parameters' names; a vertex keeps its own as long as it keeps its slot."""
        return (*(f"vertices.{vertex.layer}" for vertex in self.graph(genotype).vertices), "classifier")

    def graph(self, genotype: Genotype) -> Graph:
        """The genotype spelt out."""
        genotype = self.check(genotype)
        found = (_vertex(slot, genotype[positions]) for slot, positions in enumerate(self.slot_slices))
        return Graph(genotype[0], tuple(vertex for vertex in found if vertex is not None))

    def from_graph(self, graph: Graph) -> Genotype:
        """Genotype of a graph.

        Raises:
            ArchitectureError: if a number is no option, or a skip comes from no earlier vertex.
        """
        genes = [graph.rate, *(0 for _ in self.choices[1:])]
        slots = {vertex.slot for vertex in graph.vertices}
        if not slots <= set(range(self.n_slots)) or len(slots) < len(graph.vertices):
            raise ArchitectureError(
                f"vertices {[vertex.slot for vertex in graph.vertices]} do not fit: {self.name} has one for each slot "
                f"from 0 to {self.n_slots - 1}"
            )
        for vertex in graph.vertices:
            for source in vertex.sources:
                if source != IMAGE and (source not in slots or source >= vertex.slot):
                    raise ArchitectureError(f"{vertex.layer} reads v{source}, which is no vertex before it")
            genes[self.slot_slices[vertex.slot]] = _genes(vertex)
        return self.check(tuple(genes))

    def is_valid(self, genotype: Genotype) -> bool:
        """Whether every gene is in range and those without a meaning are 0."""
        if not super().is_valid(genotype):
            return False
        present: list[bool] = []
        for positions in self.slot_slices:
            kind, *numbers = genotype[positions][:_N_GENES]
            skips = genotype[positions][_N_GENES:]
            if kind not in _CONVOLVED and any(numbers):
                return False
            if any(skips) and kind == _ABSENT:
                return False
            if any(skip and not there for skip, there in zip(skips[1:], present, strict=True)):
                return False
            present.append(kind != _ABSENT)
        return True

    def genotypes(self) -> Iterator[Genotype]:
        """All valid genotypes in lexicographic order."""
        for rate in range(len(RATES)):
            for slots in self._slots(()):
                yield (rate, *slots)

    def _slots(self, present: tuple[bool, ...]) -> Iterator[Genotype]:
        """Genes of all slots from that one on which follows those whose presence is given."""
        slot = len(present)
        if slot == self.n_slots:
            yield ()
            return
        for kind in range(len(KINDS)):
            numbers = self.choices[self.slot_slices[slot]][1:_N_GENES] if kind in _CONVOLVED else (1,) * (_N_GENES - 1)
            skips = (1 + (there and kind != _ABSENT) for there in (True, *present))
            for genes in product((kind,), *map(range, (*numbers, *skips))):
                for later in self._slots((*present, kind != _ABSENT)):
                    yield (*genes, *later)

    def sample(self, rng: np.random.Generator) -> Genotype:
        """A genotype whose number of vertices is uniform, and all else given that.

        Of all genotypes nearly every one has every vertex: those drawn uniformly would never be small.
        """
        n = int(rng.integers(self.n_slots + 1))
        present = set(rng.permutation(self.n_slots)[:n].tolist())
        genes = [int(rng.integers(len(RATES)))]
        for slot, positions in enumerate(self.slot_slices):
            kind = int(rng.integers(1, len(KINDS))) if slot in present else _ABSENT
            options = self.choices[positions][1:_N_GENES]
            genes += [kind, *(int(rng.integers(n)) if kind in _CONVOLVED else 0 for n in options)]
            sources = (True, *(source in present for source in range(slot)))
            genes += [int(rng.integers(2)) if there and kind != _ABSENT else 0 for there in sources]
        return tuple(genes)

    def crossover(self, first: Genotype, second: Genotype, rng: np.random.Generator) -> Genotype:
        """A child that takes each position from either parent; those that belong together from the same.

        A vertex comes whole from one parent where the two differ in whether it is present or convolves. A skip that
        only one parent has is taken with probability one half if both its ends are there.
        """
        first, second = self.check(first), self.check(second)
        mixed = [a if take else b for a, b, take in zip(first, second, rng.random(len(first)) < 0.5, strict=True)]
        present: list[bool] = []
        for positions in self.slot_slices:
            pair = first[positions], second[positions]
            if len({(genes[0] == _ABSENT, genes[0] in _CONVOLVED) for genes in pair}) > 1:
                own = slice(positions.start, positions.start + _N_GENES)
                mixed[own] = pair[int(rng.integers(2))][:_N_GENES]
            there = mixed[positions.start] != _ABSENT
            skips = slice(positions.start + _N_GENES, positions.stop)
            ends = zip(mixed[skips], (True, *present), strict=True)
            mixed[skips] = [bit if source and there else 0 for bit, source in ends]
            present.append(there)
        return tuple(mixed)

    def canonical(self, genotype: Genotype) -> Genotype:
        """The genotype with its vertices in the first slots: shared by those that differ in empty slots only."""
        graph = self.graph(genotype)
        number = {IMAGE: IMAGE, **{vertex.slot: place for place, vertex in enumerate(graph.vertices)}}
        moved = (
            vertex._replace(slot=number[vertex.slot], sources=tuple(number[source] for source in vertex.sources))
            for vertex in graph.vertices
        )
        return self.from_graph(Graph(graph.rate, tuple(moved)))

    def representative(self, genotype: Genotype) -> Genotype:
        """The same as :meth:`canonical`."""
        return self.canonical(genotype)

    def format(self, genotype: Genotype) -> str:
        """Learning rate and vertices, such as ``lr0.1|v2:conv-relu,3x5,16,s2,image|v5:id,v2``.

        A vertex tells its kind, filter height x width, channels, stride, and what is added to it.
        """
        graph = self.graph(genotype)
        return "|".join([f"lr{RATES[graph.rate]:.4g}", *map(_text, graph.vertices)])

    def parse(self, text: str) -> Genotype:
        """Genotype of a string of :meth:`format`.

        Raises:
            ArchitectureError: naming the first thing that does not fit.
        """
        rate, *vertices = text.split("|")
        rates = [f"lr{value:.4g}" for value in RATES]
        if rate not in rates:
            raise ArchitectureError(f"{text!r} is no graph of {self.name}: it begins with none of {', '.join(rates)}")
        genotype = self.from_graph(Graph(rates.index(rate), tuple(map(_read, vertices))))
        if self.format(genotype) != text:
            raise ArchitectureError(
                f"{text!r} is no graph of {self.name}: expected vertices and what they add in order, as in "
                f"{self.format(genotype)!r}"
            )
        return genotype


def _vertex(slot: int, genes: Genotype) -> Vertex | None:
    """The vertex of a slot, if there is one."""
    kind, height, width, channels, stride = genes[:_N_GENES]
    if kind == _ABSENT:
        return None
    sources = tuple(source for source, bit in enumerate(genes[_N_GENES:], IMAGE) if bit)
    convolves, active = kind in _CONVOLVED, KINDS[kind].endswith("-relu")
    if not convolves:
        return Vertex(slot, convolves, active, sources=sources)
    return Vertex(
        slot, convolves, active, FILTERS[height], FILTERS[width], CHANNELS[channels], STRIDES[stride], sources
    )


def _kind(vertex: Vertex) -> str:
    return ("conv" if vertex.convolves else "id") + "-relu" * vertex.active


def _genes(vertex: Vertex) -> list[int]:
    """Genes of the slot that holds a vertex."""
    numbers = [0] * (_N_GENES - 1)
    if vertex.convolves:
        options = (FILTERS, FILTERS, CHANNELS, STRIDES)
        values = (vertex.height, vertex.width, vertex.channels, vertex.stride)
        for place, (value, allowed) in enumerate(zip(values, options, strict=True)):
            if value not in allowed:
                raise ArchitectureError(f"{value} in {_text(vertex)!r} is no option; expected one of {allowed}")
            numbers[place] = allowed.index(value)
    skips = [int(source in vertex.sources) for source in range(IMAGE, vertex.slot)]
    return [KINDS.index(_kind(vertex)), *numbers, *skips]


def _text(vertex: Vertex) -> str:
    numbers = [f"{vertex.height}x{vertex.width}", str(vertex.channels), f"s{vertex.stride}"]
    sources = ("image" if source == IMAGE else f"v{source}" for source in vertex.sources)
    return ",".join([f"{vertex.layer}:{_kind(vertex)}", *(numbers if vertex.convolves else ()), *sources])


def _read(text: str) -> Vertex:
    """The vertex of a part of a string."""
    found = _VERTEX.fullmatch(text) or _SHORT.fullmatch(text)
    if not found:
        raise ArchitectureError(f"{text!r} is no vertex such as 'v2:conv-relu,3x5,16,s2,image' or 'v5:id,v2'")
    slot, kind, *numbers, names = found.groups()
    height, width, channels, stride = map(int, numbers or 4 * "0")
    sources = tuple(IMAGE if name == "image" else int(name[1:]) for name in names.split(",")[1:])
    convolves, active = kind.startswith("conv"), kind.endswith("-relu")
    return Vertex(int(slot), convolves, active, height, width, channels, stride, sources)
