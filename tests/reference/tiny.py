"""Tiny networks and batches for the tests; weights by a formula, so that no generator or torch version matters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from naswot.types import Batch


def wave(*shape: int, start: int = 0) -> Tensor:
    """Numbers without pattern in (-1, 1), by integer arithmetic and one division: the same bits everywhere."""
    n = 1
    for size in shape:
        n *= size
    k = torch.arange(start, start + n, dtype=torch.int64)
    mixed = (k * 2654435761 + 12345) % 4294967296
    mixed = ((mixed ^ (mixed >> 15)) * 2246822519) % 4294967296
    mixed = ((mixed ^ (mixed >> 13)) * 3266489917) % 4294967296
    return ((mixed % 20011).to(torch.float64) / 10005.0 - 1.0).to(torch.float32).reshape(shape)


def set_weights(model: nn.Module) -> nn.Module:
    """Fill every parameter by :func:`wave`, scaled by the square root of the fan-in; vectors near 1 or 0."""
    with torch.no_grad():
        for number, (name, parameter) in enumerate(model.named_parameters()):
            values = wave(*parameter.shape, start=7919 * number)
            if parameter.dim() > 1:
                parameter.copy_(values * (3.0 / parameter[0].numel()) ** 0.5)
            else:
                parameter.copy_(1.0 + 0.1 * values if name.endswith("weight") else 0.1 * values)
    return model


def images(n: int = 6, channels: int = 3, size: int = 8) -> Tensor:
    """(N, C, H, W) float32."""
    return wave(n, channels, size, size, start=100_003)


IMAGES = images()
TARGETS = torch.arange(6) % 5
BATCH = Batch(IMAGES, TARGETS)


class ReLUConvBN(nn.Sequential):
    """Container whose name misleads hooks by class name, as in NAS-Bench-201's code."""

    def __init__(self, c_in: int, c_out: int, *, stride: int = 1, inplace: bool = False) -> None:
        super().__init__(
            nn.ReLU(inplace=inplace),
            nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
        )


class CellNetwork(nn.Module):
    """Stem, one cell with three convolution edges (two of them reading one tensor), head with the only bare ReLU."""

    def __init__(self, width: int = 4, n_classes: int = 5, *, inplace: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.edge_a = ReLUConvBN(width, width, inplace=inplace)
        self.edge_b = ReLUConvBN(width, width, inplace=inplace)
        self.edge_c = ReLUConvBN(width, width, stride=2, inplace=inplace)
        self.head = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=inplace))
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, K)."""
        x = self.stem(x)
        x = self.edge_c(self.edge_a(x) + self.edge_b(x))
        logits: Tensor = self.classifier(self.head(x).mean(dim=(2, 3)))
        return logits


def plain_convnet(n_classes: int = 5) -> nn.Sequential:
    """Two convolutions without normalisation; 3 -> 4 -> 6 channels on 8x8 images."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, n_classes),
    )


def mlp(n_classes: int = 4) -> nn.Sequential:
    """10 -> 12 -> 9 -> K with a smooth and a piecewise-linear activation."""
    return nn.Sequential(nn.Linear(10, 12), nn.GELU(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, n_classes))


class Counting(nn.Module):
    """A network that counts its forward passes."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.n_forwards = inner, 0

    def forward(self, x: Tensor) -> Tensor:
        """As the inner network."""
        self.n_forwards += 1
        result: Tensor = self.inner(x)
        return result


def is_close(first: Tensor, second: Tensor) -> bool:
    """Whether these are the same sums in another order: float32 keeps about 6 digits."""
    return torch.allclose(first, second, rtol=2e-5, atol=1e-6)
