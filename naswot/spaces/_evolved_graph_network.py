"""Networks of Large-Scale Evolution: a backbone of vertices, each adding reshaped outputs of earlier ones.

Paper: Real et al., Large-Scale Evolution of Image Classifiers, ICML 2017, arXiv:1703.01041, Section 3. The code was
not published. Where the paper leaves it open: the classifier reads averages over height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

IMAGE: Final = -1
"""Stands for the images where a vertex names its sources."""


class Vertex(NamedTuple):
    """One vertex of a graph.

    Args:
        slot: its place in the order, which also names its layer.
        convolves: whether its primary input goes through a convolution, or comes as it is.
        active: whether normalisation and ReLU follow, or nothing.
        height: of the filters, odd; 0 without convolution, as are the next three.
        width: of the filters, odd.
        channels: number of filters.
        stride: of the convolution.
        sources: slots whose outputs are added, or ``IMAGE``, in order; the primary input is not among them.
    """

    slot: int
    convolves: bool
    active: bool
    height: int = 0
    width: int = 0
    channels: int = 0
    stride: int = 0
    sources: tuple[int, ...] = ()

    @property
    def layer(self) -> str:
        """Name of its layer."""
        return f"v{self.slot}"


class GraphNetwork(nn.Module):
    """Vertices in order, each with the one before as primary input; then averages and a linear classifier.

    Layers are named by slot, so that they keep their names when others come and go.

    Args:
        vertices: in the order of their slots; without any, the classifier reads the averages of the images.
        n_classes: number of logits K.
        in_channels: channels of the images.
    """

    def __init__(self, vertices: Sequence[Vertex], n_classes: int, in_channels: int) -> None:
        super().__init__()
        self.plan = tuple(vertices)
        channels, layers = in_channels, {}
        for vertex in self.plan:
            layers[vertex.layer] = _VertexLayer(vertex, channels)
            channels = vertex.channels or channels
        self.vertices = nn.ModuleDict(layers)
        self.classifier = nn.Linear(channels, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to logits (N, K)."""
        outputs, x = {IMAGE: images}, images
        for vertex in self.plan:
            x = self.vertices[vertex.layer](x, [outputs[source] for source in vertex.sources])
            outputs[vertex.slot] = x
        logits: Tensor = self.classifier(x.mean((2, 3)))
        return logits


class _VertexLayer(nn.Module):
    """A convolution or nothing, the sum with other inputs, then normalisation and ReLU or nothing."""

    def __init__(self, vertex: Vertex, before: int) -> None:
        super().__init__()
        self.convolution = _convolution(vertex, before) if vertex.convolves else None
        self.norm = nn.BatchNorm2d(vertex.channels or before) if vertex.active else None

    def forward(self, primary: Tensor, others: Sequence[Tensor]) -> Tensor:
        """Inputs (N, C_i, H_i, W_i) to (N, C, H, W), the shape that the primary one leads to."""
        x = primary if self.convolution is None else self.convolution(primary)
        for other in others:
            x = x + fit(other, x)
        return x if self.norm is None else F.relu(self.norm(x))


def _convolution(vertex: Vertex, before: int) -> nn.Conv2d:
    size = (vertex.height, vertex.width)
    padding = (vertex.height // 2, vertex.width // 2)
    return nn.Conv2d(before, vertex.channels, size, vertex.stride, padding, bias=not vertex.active)


def fit(x: Tensor, like: Tensor) -> Tensor:
    """``x`` in the shape of ``like``: the nearest pixels, the first channels, zeros for those that it lacks."""
    if x.shape[2:] != like.shape[2:]:
        x = F.interpolate(x, like.shape[2:], mode="nearest")
    channels, wanted = x.shape[1], like.shape[1]
    return x[:, :wanted] if channels >= wanted else F.pad(x, (0, 0, 0, 0, 0, wanted - channels))
