"""Blocks of mobile networks: convolution with normalisation and ReLU6, inverted residual blocks.

Paper: Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018, arXiv:1801.04381; the epsilon
of the normalisation is that of Cai et al., ProxylessNAS, ICLR 2019, arXiv:1812.00332 (github.com/mit-han-lab/
proxylessnas).
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

_EPS: Final = 1e-3
_DIVISOR: Final = 8


def conv_norm(
    before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Sequential:
    """Convolution and normalisation, followed by ReLU6 where ``active``; (N, C, H, W) to (N, C', H / stride, ...)."""
    convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(after, eps=_EPS)]
    return nn.Sequential(*layers, nn.ReLU6(inplace=True)) if active else nn.Sequential(*layers)


class MBConv(nn.Module):
    """Widen by a 1x1 convolution, filter each channel, narrow; added to the input where the shapes agree.

    Args:
        before: channels of the input.
        after: channels of the output.
        kernel: height and width of the filters, odd.
        expansion: how many times wider the middle is; at 1 the first convolution is left out.
        stride: by which height and width are divided.
    """

    def __init__(self, before: int, after: int, *, kernel: int, expansion: int, stride: int = 1) -> None:
        super().__init__()
        hidden = expansion * before
        self.layers = nn.Sequential(
            *([conv_norm(before, hidden, 1)] if expansion > 1 else []),
            conv_norm(hidden, hidden, kernel, stride=stride, groups=hidden),
            conv_norm(hidden, after, 1, active=False),
        )
        self.adds = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H / stride, W / stride)."""
        result: Tensor = self.layers(x)
        return x + result if self.adds else result


def divisible(width: float) -> int:
    """The multiple of 8 nearest to ``width``, the next one where that loses more than a tenth; at least 8.

    Example:
        >>> divisible(24 * 0.5), divisible(32 * 0.35), divisible(1280)
        (16, 16, 1280)
    """
    near = max(_DIVISOR, int(width + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return near + _DIVISOR if near < 0.9 * width else near


def initialise(model: nn.Module) -> nn.Module:
    """Weights as in the original code of ProxylessNAS, from the global generator of torch: He by the outputs."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)
    return model
