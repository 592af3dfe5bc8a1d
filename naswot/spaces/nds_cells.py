"""The five NASNet-like families of Network Design Spaces (NDS): two cells, a width and a depth.

Paper: Radosavovic et al., On Network Design Spaces for Visual Recognition, ICCV 2019, arXiv:1905.13214. Original code:
github.com/facebookresearch/unnas; results: github.com/facebookresearch/nds. Parameter counts equal the published ones.
The families differ in operations, number of nodes and in which nodes make the output of a cell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from torch import nn

from naswot.errors import ArchitectureError
from naswot.space import SearchSpace, register_space
from naswot.spaces._cell_network import CellNetwork, CellPlan, intermediate_nodes, loose_ends, read_edges
from naswot.types import Genotype

WIDTHS: Final = (16, 24, 32, 48, 64, 80, 96)
"""Channels of a node of the first cells: up to 32 on CIFAR-10, from 32 on ImageNet."""

DEPTHS: Final = (4, 6, 8, 10, 12, 14, 16, 18, 20, 22)
"""Number of cells: multiples of 4 up to 20 on CIFAR-10, the others on ImageNet."""


class NDSCells(SearchSpace):
    """Genes: of each edge of the normal, then of the reduction cell, operation and input; index of width, of depth.

    A node adds two edges, which may have the same input. The output of a cell is all of its nodes, or those that no
    edge reads (``only_loose_ends``).
    """

    reference: ClassVar[str] = "Radosavovic et al., ICCV 2019, arXiv:1905.13214"
    operations: ClassVar[tuple[str, ...]]
    n_nodes: ClassVar[int] = 5
    only_loose_ends: ClassVar[bool] = False

    def __init__(self) -> None:
        of_cell = tuple(n for node in range(2, 2 + self.n_nodes) for n in 2 * (len(self.operations), node))
        self.choices: tuple[int, ...] = (*of_cell, *of_cell, len(WIDTHS), len(DEPTHS))

    def build(
        self,
        genotype: Genotype,
        *,
        n_classes: int = 10,
        in_channels: int = 3,
        stem: str = "cifar",
        auxiliary: bool = False,
        drop_prob: float = 0.0,
    ) -> nn.Module:
        """Untrained network of ``genotype``, initialised from the global generator of torch.

        Args:
            genotype: the architecture.
            n_classes: number of logits K.
            in_channels: channels of the images, which are (N, in_channels, H, W).
            stem: ``"cifar"`` for images of 32 x 32, ``"imagenet"`` (with ``n_classes=1000``) for 224 x 224.
            auxiliary: add a second classifier for training; none of the published networks has one.
            drop_prob: drop-path in training; published: 0.
        Returns:
            A model that returns logits, (N, K).
        """
        normal, reduce = self.cells(genotype)
        return CellNetwork(
            normal,
            reduce,
            n_classes=n_classes,
            in_channels=in_channels,
            width=WIDTHS[genotype[-2]],
            n_cells=DEPTHS[genotype[-1]],
            stem=stem,
            auxiliary=auxiliary,
            drop_prob=drop_prob,
        )

    def cells(self, genotype: Genotype) -> tuple[CellPlan, CellPlan]:
        """The normal and the reduction cell."""
        genes = self.check(genotype)[:-2]
        edges = [(self.operations[genes[i]], genes[i + 1]) for i in range(0, len(genes), 2)]
        half = len(edges) // 2
        return self._plan(edges[:half]), self._plan(edges[half:])

    def _plan(self, edges: Sequence[tuple[str, int]]) -> CellPlan:
        return CellPlan(tuple(edges), (loose_ends if self.only_loose_ends else intermediate_nodes)(edges))

    def canonical(self, genotype: Genotype) -> object:
        """Key that does not tell the order of the two edges of a node."""
        genes = self.check(genotype)
        edges = [genes[i : i + 2] for i in range(0, len(genes) - 2, 2)]
        return tuple(tuple(sorted(edges[i : i + 2])) for i in range(0, len(edges), 2)) + genes[-2:]

    def describe(self, genotype: Genotype) -> dict[str, Any]:
        """Width, depth and cells as the official files write them in ``net``."""
        cells: dict[str, Any] = {}
        for name, plan in zip(("normal", "reduce"), self.cells(genotype), strict=True):
            cells |= {name: [list(edge) for edge in plan.edges], f"{name}_concat": list(plan.concat)}
        return {"width": WIDTHS[genotype[-2]], "depth": DEPTHS[genotype[-1]], "genotype": cells}

    def from_description(self, net: Mapping[str, Any]) -> Genotype:
        """Genotype of an official description; what it says of the training (``aux``, ``drop_prob``) is not read.

        Raises:
            ArchitectureError: naming the first thing that does not fit.
        """
        genes: list[int] = []
        try:
            for name in ("normal", "reduce"):
                edges = read_edges(net["genotype"][name], self.operations, self.n_nodes)
                concat, derived = net["genotype"][f"{name}_concat"], list(self._plan(edges).concat)
                if concat != derived:
                    raise ArchitectureError(f"{name}_concat is {concat}, but the edges give {derived} in {self.name}")
                genes += [gene for operation, source in edges for gene in (self.operations.index(operation), source)]
            for name, options in (("width", WIDTHS), ("depth", DEPTHS)):
                if net[name] not in options:
                    raise ArchitectureError(f"{name} {net[name]!r} is none of {options}")
                genes.append(options.index(net[name]))
        except (KeyError, TypeError) as error:
            raise ArchitectureError(
                f"expected width, depth and genotype (normal, normal_concat, reduce, reduce_concat) of {self.name}; "
                f"{type(error).__name__}: {error}"
            ) from error
        return tuple(genes)

    def format(self, genotype: Genotype) -> str:
        """JSON of the architecture, with the fields of the official files."""
        return json.dumps(self.describe(genotype))

    def parse(self, text: str) -> Genotype:
        """Genotype of JSON with the fields of the official files.

        Raises:
            ArchitectureError: naming the first thing that does not fit.
        """
        try:
            net = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ArchitectureError(f"{text!r} is no JSON of a network of {self.name} ({error})") from error
        return self.from_description(net)


@register_space
class NDSDARTS(NDSCells):
    """Four nodes, all of them output. Unlike in DARTS, an edge may be none and a node may read one input twice."""

    name: ClassVar[str] = "nds_darts"
    n_nodes: ClassVar[int] = 4
    operations: ClassVar[tuple[str, ...]] = (
        "none",
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
    )


@register_space
class NDSENAS(NDSCells):
    """Five nodes; those that no edge reads are the output."""

    name: ClassVar[str] = "nds_enas"
    only_loose_ends: ClassVar[bool] = True
    operations: ClassVar[tuple[str, ...]] = (
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "avg_pool_3x3",
        "max_pool_3x3",
    )


@register_space
class NDSNASNet(NDSCells):
    """Five nodes; those that no edge reads are the output."""

    name: ClassVar[str] = "nds_nasnet"
    only_loose_ends: ClassVar[bool] = True
    operations: ClassVar[tuple[str, ...]] = (
        "skip_connect",
        "conv_3x1_1x3",
        "conv_7x1_1x7",
        "dil_conv_3x3",
        "avg_pool_3x3",
        "max_pool_3x3",
        "max_pool_5x5",
        "max_pool_7x7",
        "conv_1x1",
        "conv_3x3",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "sep_conv_7x7",
    )


@register_space
class NDSPNAS(NDSCells):
    """Five nodes, all of them output."""

    name: ClassVar[str] = "nds_pnas"
    operations: ClassVar[tuple[str, ...]] = (
        "sep_conv_3x3",
        "sep_conv_5x5",
        "sep_conv_7x7",
        "conv_7x1_1x7",
        "skip_connect",
        "avg_pool_3x3",
        "max_pool_3x3",
        "dil_conv_3x3",
    )


@register_space
class NDSAmoeba(NDSCells):
    """Five nodes; those that no edge reads are the output."""

    name: ClassVar[str] = "nds_amoeba"
    only_loose_ends: ClassVar[bool] = True
    operations: ClassVar[tuple[str, ...]] = (
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "sep_conv_7x7",
        "avg_pool_3x3",
        "max_pool_3x3",
        "dil_sep_conv_3x3",
        "conv_7x1_1x7",
    )
