"""Supernet of the DARTS space: fourteen mixed edges in each of two kinds of cells.

Paper: Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, arXiv:1806.09055; edge normalisation is that of
Xu et al., PC-DARTS, ICLR 2020, arXiv:1907.05737. Original codes: github.com/quark0/darts,
github.com/yuhuixu1993/PC-DARTS. Differences: those of ``spaces/_cell_network.py``.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from naswot.errors import OptionError
from naswot.spaces._cell_network import OPERATIONS as MODULES
from naswot.spaces._cell_network import FactorisedReduction, cifar_stem, relu_conv_norm
from naswot.spaces.darts import EDGES, OPERATIONS, Rows
from naswot.supernet import Allowed, Group, MixedSupernet, Mixing, Weights, register_supernet
from naswot.supernets._edges import MixedEdge, node_sum, search_form
from naswot.types import Genotype

N_NODES: Final = 4


@register_supernet("darts")
class DARTSSupernet(MixedSupernet):
    """Groups ``normal`` and ``reduce`` of 14 rows; with edge normalisation also ``normal_inputs``, ``reduce_inputs``.

    Args:
        space: DARTS, or a space of the same cells that gives ``cells`` and ``from_cells``.
        n_classes: K.
        in_channels: channels of the images.
        allowed: options by group; None: all.
        width: channels of a node of the first cells. Published: 16.
        n_cells: number of cells, those after one and two thirds halve height and width. Published: 8.
        partial: K of partial channels.
        edge_normalisation: weigh the edges of a node against each other.
        affine: learn scales and shifts of the normalisation in the cells.
    """

    supports_partial = True
    options: ClassVar[tuple[Rows, Rows]] = ((("none", *OPERATIONS),) * len(EDGES),) * 2
    """Operations of each edge of the normal and of the reduction cell."""

    def __init__(
        self,
        space: Any,
        *,
        n_classes: int = 10,
        in_channels: int = 3,
        allowed: Allowed | None = None,
        width: int = 16,
        n_cells: int = 8,
        partial: int = 1,
        edge_normalisation: bool = False,
        affine: bool = False,
    ) -> None:
        names = ("normal", "reduce")
        groups = [Group(name, rows) for name, rows in zip(names, self.options, strict=True)]
        sources = tuple(tuple(map(str, range(node))) for node in range(2, 2 + N_NODES))
        groups += [Group(f"{name}_inputs", sources, "edge") for name in names] if edge_normalisation else []
        super().__init__(space, groups, allowed)
        if min(n_classes, in_channels, n_cells, partial) < 1 or width < 2 or width % 2:
            raise OptionError(
                "expected n_classes, in_channels, n_cells and partial of at least 1 and an even width, but got "
                f"{n_classes}, {in_channels}, {n_cells}, {partial}, {width}"
            )
        self.partial = partial
        self.stem = cifar_stem(in_channels, width)
        self.cells = nn.ModuleList()
        before = last = 3 * width
        channels, halved = width, False
        for place in range(n_cells):
            reduces = place in (n_cells // 3, 2 * n_cells // 3)
            channels *= 2 if reduces else 1
            kind = names[reduces]
            cell = _Cell(kind, self.options[reduces], self.allowed(kind), channels, reduces, partial, affine)
            cell.inputs = _inputs(before, last, channels, halved, affine)
            self.cells.append(cell)
            before, last, halved = last, N_NODES * channels, reduces
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, n_classes)

    def forward(self, inputs: Tensor, mixing: Mixing) -> Tensor:
        """(N, in_channels, H, W) images to (N, K) logits."""
        before = last = self.stem[0](inputs)
        for cell in self.cells:
            before, last = last, cell(before, last, mixing)
        logits: Tensor = self.classifier(self.pool(last).flatten(1))
        return logits

    def derive(self, strengths: Weights) -> Genotype:
        """Of each edge the strongest operation but none, of each node the two edges whose operations are strongest."""
        cells = [self._derive(group, strengths) for group in self.groups if group.kind == "operation"]
        genotype: Genotype = self._space.from_cells(*cells)  # type: ignore[attr-defined]
        return genotype

    def _derive(self, group: Group, strengths: Weights) -> list[tuple[str, int]]:
        found: list[list[tuple[float, int, str]]] = [[] for _ in range(N_NODES)]
        scales = strengths.get(f"{group.name}_inputs")
        rows = self.takeable(strengths, group.name).tolist()
        for (source, node), options, row in zip(EDGES, group.options, rows, strict=True):
            scale = 1.0 if scales is None else float(scales[node - 2, source])
            real = [i for i, name in enumerate(options) if name != "none"]
            best = max(real, key=lambda i: (row[i], -i))
            found[node - 2].append((-scale * row[best], source, options[best]))
        kept = [sorted(sorted(edges)[:2], key=lambda edge: edge[1]) for edges in found]
        return [(name, source) for edges in kept for _, source, name in edges]

    def chosen(self, genotype: Genotype) -> dict[str, Tensor]:
        """One operation on two edges of each node."""
        tables = {}
        for group, plan in zip(self.groups, self._space.cells(genotype), strict=False):  # type: ignore[attr-defined]
            table = torch.zeros(group.shape)
            for number, (name, source) in enumerate(plan.edges):
                row = EDGES.index((source, 2 + number // 2))
                table[row, group.options[row].index(name)] = 1.0
            tables[group.name] = table
        return tables


def _inputs(before: int, last: int, channels: int, halved: bool, affine: bool) -> nn.ModuleList:
    """Both inputs of a cell brought to its channels and the size of the later one."""
    align = FactorisedReduction(before, channels) if halved else relu_conv_norm(before, channels, 1)
    inputs = nn.ModuleList([align, relu_conv_norm(last, channels, 1)])
    return inputs if affine else nn.ModuleList(map(search_form, inputs))


class _Cell(nn.Module):
    inputs: nn.ModuleList

    def __init__(
        self, kind: str, options: Rows, allowed: Tensor, channels: int, reduces: bool, partial: int, affine: bool
    ) -> None:
        super().__init__()
        self.kind = kind

        def build(name: str, channels: int, stride: int) -> nn.Module:
            module = MODULES[name](channels, stride)
            if "pool" in name:
                module = nn.Sequential(module, nn.BatchNorm2d(channels))
            return module if affine else search_form(module)

        self.edges = nn.ModuleList(
            MixedEdge(
                (kind, row),
                options[row],
                build,
                channels=channels,
                stride=2 if reduces and source < 2 else 1,
                allowed=allowed[row],
                partial=partial,
            )
            for row, (source, _) in enumerate(EDGES)
        )

    def forward(self, before: Tensor, last: Tensor, mixing: Mixing) -> Tensor:
        """(N, before, H', W') and (N, last, H, W) to (N, 4 C, H / s, W / s), where s is 2 if the cell reduces."""
        states = [self.inputs[0](before), self.inputs[1](last)]
        scales = mixing.weights.get(f"{self.kind}_inputs")
        first = 0
        for node in range(N_NODES):
            edges = self.edges[first : first + len(states)]
            states.append(node_sum(states, edges, mixing, None if scales is None else scales[node]))  # type: ignore[arg-type]
            first += len(states) - 1
        return torch.cat(states[2:], dim=1)
