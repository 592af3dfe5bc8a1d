"""Supernet of NAS-Bench-201: six mixed edges in every cell.

Paper: Dong & Yang, NAS-Bench-201, ICLR 2020, arXiv:2001.00326, section 5. Original code:
github.com/D-X-Y/AutoDL-Projects. Differences: those of ``spaces/_nasbench201_network.py``; fewer cells by default.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from naswot.errors import OptionError
from naswot.space import SearchSpace
from naswot.spaces._nasbench201_network import EDGES, OPERATIONS, STAGE_FACTORS, Reduction, make_edge
from naswot.supernet import Allowed, Group, MixedSupernet, Mixing, Weights, register_supernet
from naswot.supernets._edges import MixedEdge, node_sum, search_form
from naswot.types import Genotype

_TARGETS: Final = (1, 2, 3)
_INCOMING: Final = {target: [e for e, edge in enumerate(EDGES) if edge[1] == target] for target in _TARGETS}


@register_supernet("nasbench201")
class NASBench201Supernet(MixedSupernet):
    """One group ``cell`` of six rows; with edge normalisation another one, ``inputs``, of three.

    Args:
        space: NAS-Bench-201.
        n_classes: K.
        in_channels: channels of the images.
        allowed: options by group; None: all.
        width: channels of the first stage; the next two have 2 and 4 times as many. Published: 16.
        n_cells: cells of each stage. Published: 5.
        partial: K of partial channels.
        edge_normalisation: weigh the edges of a node against each other.
        affine: learn scales and shifts of the normalisation in the cells.
    """

    supports_partial = True

    def __init__(
        self,
        space: SearchSpace,
        *,
        n_classes: int = 10,
        in_channels: int = 3,
        allowed: Allowed | None = None,
        width: int = 16,
        n_cells: int = 5,
        partial: int = 1,
        edge_normalisation: bool = False,
        affine: bool = False,
    ) -> None:
        inputs = Group("inputs", tuple(tuple(map(str, range(target))) for target in _TARGETS), "edge")
        cell = Group("cell", (OPERATIONS,) * len(EDGES))
        super().__init__(space, (cell, inputs) if edge_normalisation else (cell,), allowed)
        if min(n_classes, in_channels, width, n_cells, partial) < 1:
            raise OptionError(
                "expected n_classes, in_channels, width, n_cells and partial of at least 1, but got "
                f"{n_classes}, {in_channels}, {width}, {n_cells}, {partial}"
            )
        self.partial = partial
        self.stem = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        layers: list[nn.Module] = []
        for factor in STAGE_FACTORS:
            channels = width * factor
            if layers:
                layers.append(Reduction(channels // 2, channels))
            layers += [_Cell(channels, self.allowed("cell"), partial, affine) for _ in range(n_cells)]
        self.cells = nn.ModuleList(layers)
        self.last = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=False))
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
        """The strongest operation of each edge, none included."""
        return tuple(self.takeable(strengths, "cell").argmax(1).tolist())

    def chosen(self, genotype: Genotype) -> dict[str, Tensor]:
        """One operation for each edge."""
        return {"cell": torch.eye(len(OPERATIONS))[list(genotype)]}


class _Cell(nn.Module):
    def __init__(self, channels: int, allowed: Tensor, partial: int, affine: bool) -> None:
        super().__init__()

        def build(name: str, channels: int, stride: int) -> nn.Module:  # noqa: ARG001
            module = make_edge(OPERATIONS.index(name), channels)
            return module if affine else search_form(module)

        self.edges = nn.ModuleList(
            MixedEdge(("cell", e), OPERATIONS, build, channels=channels, allowed=allowed[e], partial=partial)
            for e in range(len(EDGES))
        )

    def forward(self, x: Tensor, mixing: Mixing) -> Tensor:
        """(N, C, H, W) in and out."""
        nodes = [x]
        scales = mixing.weights.get("inputs")
        for row, target in enumerate(_TARGETS):
            edges = [self.edges[e] for e in _INCOMING[target]]
            nodes.append(node_sum(nodes, edges, mixing, None if scales is None else scales[row]))  # type: ignore[arg-type]
        return nodes[-1]
