"""Supernets of the three NAS-Bench-1Shot1 spaces: blocks that weigh both their operations and their inputs.

Paper: Zela, Siems & Hutter, NAS-Bench-1Shot1, ICLR 2020, arXiv:2001.10422, which follows Bender et al., Understanding
and Simplifying One-Shot Architecture Search, ICML 2018. Original code: github.com/automl/nasbench-1shot1,
``optimizers/darts/model_search.py``. All blocks of a cell have the same number of channels, unlike in NAS-Bench-101,
where it depends on the graph. Differences: poolings between stacks take odd sizes as in NAS-Bench-101; running
statistics move by a tenth, where the original hands on 0.997, what is kept in TensorFlow, as what is renewed; equal
weights of inputs go to the earlier ones.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn

from naswot.errors import OptionError
from naswot.spaces._cell_network import relu_conv_norm
from naswot.spaces._nasbench101_graph import OPERATIONS
from naswot.spaces._nasbench101_network import KERNELS, N_STACKS, ConvBNReLU
from naswot.supernet import Allowed, Alternatives, Group, MixedSupernet, Mixing, Weights, register_supernet
from naswot.supernets._edges import MixedEdge, search_form
from naswot.types import Genotype


@register_supernet("nasbench1shot1_1", "nasbench1shot1_2", "nasbench1shot1_3")
class NASBench1Shot1Supernet(MixedSupernet):
    """Groups ``blocks`` (operations), ``inputs`` (of the blocks that have a choice) and ``output`` (its parents).

    Args:
        space: one of the three.
        n_classes: K.
        in_channels: channels of the images.
        allowed: options by group; None: all.
        width: channels of each block of the first stack; the next two have 2 and 4 times as many. Published: 16.
        n_cells: cells of each of the three stacks. Published: 3.
        partial: K of partial channels, of the operations.
        edge_normalisation: taken for the sake of methods that ask for it; inputs are weighed in any case.
    """

    supports_partial = True

    def __init__(
        self,
        space: Any,
        *,
        n_classes: int = 10,
        in_channels: int = 3,
        allowed: Allowed | None = None,
        width: int = 16,
        n_cells: int = 3,
        partial: int = 1,
        edge_normalisation: bool = False,  # noqa: ARG002
    ) -> None:
        weighed = [block for block, n in enumerate(space.n_parents[:-1], start=1) if n < block]
        groups = (
            Group("blocks", (OPERATIONS,) * space.n_blocks),
            Group("inputs", tuple(_numbers(block) for block in weighed), "edge"),
            Group("output", (_numbers(space.n_blocks + 1),), "edge"),
        )
        super().__init__(space, groups, allowed)
        if min(n_classes, in_channels, width, n_cells, partial) < 1:
            raise OptionError(
                "expected n_classes, in_channels, width, n_cells and partial of at least 1, but got "
                f"{n_classes}, {in_channels}, {width}, {n_cells}, {partial}"
            )
        self.weighed, self.partial = weighed, partial
        self.stem = _unit(in_channels, width, 3)
        layers: list[nn.Module] = []
        before = width
        for stack in range(N_STACKS):
            channels = width << stack
            layers += [nn.MaxPool2d(2, ceil_mode=True)] if stack else []
            for _ in range(n_cells):
                layers.append(_Cell(before, channels, weighed, self.allowed("blocks"), partial))
                before = space.n_blocks * channels
        self.cells = nn.ModuleList(layers)
        self.last = search_form(relu_conv_norm(before, channels, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, n_classes)

    def forward(self, inputs: Tensor, mixing: Mixing) -> Tensor:
        """(N, in_channels, H, W) images to (N, K) logits."""
        x = self.stem(inputs)
        for layer in self.cells:
            x = layer(x, mixing) if isinstance(layer, _Cell) else layer(x)
        logits: Tensor = self.classifier(self.pool(self.last(x)).flatten(1))
        return logits

    def derive(self, strengths: Weights) -> Genotype:
        """The strongest operation of each block, the strongest inputs of each block and of the output."""
        space: Any = self._space
        operations = self.takeable(strengths, "blocks").argmax(1).tolist()
        parents = [tuple(range(block)) for block in range(1, space.n_blocks + 2)]
        for group, targets in (("inputs", self.weighed), ("output", [space.n_blocks + 1])):
            known = strengths if group in strengths else {group: self.allowed(group).float()}
            for target, row in zip(targets, self.takeable(known, group), strict=True):
                ranked = row[:target].argsort(descending=True, stable=True)
                parents[target - 1] = tuple(sorted(ranked[: space.n_parents[target - 1]].tolist()))
        genotype: Genotype = space.from_parents(operations, parents)
        return genotype

    def chosen(self, genotype: Genotype) -> dict[str, Tensor]:
        """An operation and the parents of each block that reaches the output, and the parents of the output."""
        space: Any = self._space
        tables = {group.name: torch.zeros(group.shape) for group in self.groups}
        parents = space.parents(genotype)
        for block in space.read_blocks(genotype):
            tables["blocks"][block - 1, genotype[block - 1]] = 1.0
            if block in self.weighed:
                tables["inputs"][self.weighed.index(block), list(parents[block - 1])] = 1.0
        tables["output"][0, list(parents[-1])] = 1.0
        return tables


class _Cell(Alternatives):
    """Blocks that read the input, each through a 1x1 convolution of its own, and earlier blocks.

    Args:
        before: channels of the input.
        channels: C of each block.
        weighed: blocks with a row in the group of inputs.
        allowed: (blocks, operations) bool.
        partial: K.
    """

    def __init__(self, before: int, channels: int, weighed: list[int], allowed: Tensor, partial: int) -> None:
        super().__init__()
        n_blocks = len(allowed)
        self.channels, self.output = channels, n_blocks + 1
        self.places = {block: ("inputs", row) for row, block in enumerate(weighed)} | {self.output: ("output", 0)}
        wide = [*[channels] * n_blocks, channels * n_blocks]
        self.projections = nn.ModuleList(_unit(before, after, 1) for after in wide)
        self.blocks = nn.ModuleList(
            MixedEdge(("blocks", row), OPERATIONS, _operation, channels=channels, allowed=allowed[row], partial=partial)
            for row in range(n_blocks)
        )

    def unused(self, mixing: Mixing) -> list[nn.Module]:
        """Projections of the input to where it is not read at a mixing."""
        return [
            projection
            for target, projection in enumerate(self.projections, start=1)
            if self._left_out(target, mixing) or 0 not in self._inputs(target, mixing)[1]
        ]

    def forward(self, x: Tensor, mixing: Mixing) -> Tensor:
        """(N, before, H, W) to (N, blocks * C, H, W)."""
        states: list[Tensor | None] = [x]
        for target, block in enumerate(self.blocks, start=1):
            if self._left_out(target, mixing):
                states.append(None)
                continue
            terms = self._terms(target, states, mixing)
            states.append(block(reduce(add, terms.values()) if terms else self._nothing(x), mixing))
        terms = self._terms(self.output, states, mixing)
        joined = torch.cat([terms.get(source, self._nothing(x)) for source in range(1, self.output)], dim=1)
        return joined + terms[0] if 0 in terms else joined

    def _left_out(self, target: int, mixing: Mixing) -> bool:
        return target != self.output and mixing.row("blocks", target - 1)[1] == ()

    def _inputs(self, target: int, mixing: Mixing) -> tuple[Tensor | None, tuple[int, ...]]:
        """Weights of all that a block or the output could read (None: 1 each), and what is executed of it."""
        place = self.places.get(target)
        if place is None or place[0] not in mixing.weights:
            return None, tuple(range(target))
        weights, active = mixing.row(*place)
        return weights, tuple(range(target)) if active is None else active

    def _terms(self, target: int, states: list[Tensor | None], mixing: Mixing) -> dict[int, Tensor]:
        """What is read, by its source, already weighed."""
        weights, executed = self._inputs(target, mixing)
        terms = {}
        for source in executed:
            state = states[source]
            if state is not None:
                term: Tensor = self.projections[target - 1](state) if source == 0 else state
                terms[source] = term if weights is None else weights[source] * term
        return terms

    def _nothing(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], self.channels, *x.shape[2:])


def _numbers(n: int) -> tuple[str, ...]:
    return tuple(map(str, range(n)))


def _unit(before: int, after: int, kernel: int) -> nn.Module:
    unit = ConvBNReLU(before, after, kernel)
    unit[1].momentum = 0.1  # type: ignore[assignment]
    return unit


def _operation(name: str, channels: int, stride: int) -> nn.Module:  # noqa: ARG001
    kernel = KERNELS.get(OPERATIONS.index(name))
    return nn.MaxPool2d(3, stride=1, padding=1) if kernel is None else _unit(channels, channels, kernel)
