"""The mixed edge: all operations of one decision side by side, and what is common to the supernets of cells.

Papers: Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, arXiv:1806.09055 (mixed operations, without
learned scales in the normalisation); Xu et al., PC-DARTS: Partial Channel Connections for Memory-Efficient
Architecture Search, ICLR 2020, arXiv:1907.05737 (partial channels); Chen et al., Progressive DARTS, ICCV 2019,
arXiv:1904.12760 (dropout behind skip connections); Zela et al., Understanding and Robustifying Differentiable
Architecture Search, ICLR 2020, arXiv:1909.09656 (drop-path of mixed edges). Original codes: github.com/quark0/darts,
github.com/yuhuixu1993/PC-DARTS, github.com/chenxin061/pdarts, github.com/automl/RobustDARTS. Differences: an operation
that is not allowed or not executed costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naswot.errors import OptionError
from naswot.spaces._cell_network import drop_path
from naswot.supernet import Alternatives, Mixing


class MixedEdge(Alternatives):
    """The weighted sum of the operations of one row.

    In cells (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride)); without partial channels the operations may as
    well give other shapes, all the same.

    Args:
        place: group and row that hold its weights.
        names: of the options of the row.
        build: gives the module of a name for a number of channels and a stride.
        channels: C.
        stride: of all operations.
        allowed: (options,) bool; others are not built.
        partial: K; only the first C / K channels go through the operations, the others pass by.
    Attributes:
        drop_prob: probability with which the sum is dropped for an image in training.
        skip_dropout: dropout behind an identity in training.
    """

    def __init__(
        self,
        place: tuple[str, int],
        names: Sequence[str],
        build: Callable[[str, int, int], nn.Module],
        *,
        channels: int,
        stride: int = 1,
        allowed: Tensor | None = None,
        partial: int = 1,
    ) -> None:
        super().__init__()
        if channels % partial:
            raise OptionError(f"expected a width that is a multiple of partial={partial}, but got {channels} channels")
        self.group, self.row = place
        self.stride, self.partial = stride, partial
        self.drop_prob = self.skip_dropout = 0.0
        keeps = [allowed is None or bool(allowed[i]) for i in range(len(names))]
        self.operations = nn.ModuleDict(
            {str(i): build(name, channels // partial, stride) for i, name in enumerate(names) if keeps[i]}
        )

    def unused(self, mixing: Mixing) -> list[nn.Module]:
        """Operations that are not executed at a mixing."""
        _, active = mixing.row(self.group, self.row)
        return [op for i, op in self.operations.items() if active is not None and int(i) not in active]

    def forward(self, x: Tensor, mixing: Mixing) -> Tensor | None:
        """The sum; None where no operation of the row is executed at all."""
        weights, active = mixing.row(self.group, self.row)
        if active is not None and not active:
            return None
        through = x if self.partial == 1 else x[:, : x.shape[1] // self.partial]
        terms: list[Tensor] = []
        for i, operation in self.operations.items():
            if active is None or int(i) in active:
                terms.append(weights[int(i)] * self._run(operation, through))
        if active is not None and mixing.inactive_weights:
            terms[-1] = reduce(add, [weights[int(i)] for i in self.operations if int(i) not in active], terms[-1])
        result = reduce(add, terms)
        if self.partial > 1:
            result = self._joined(result, x)
        if self.training and self.drop_prob > 0.0:
            result = drop_path(result, self.drop_prob)
        return result

    def _run(self, operation: nn.Module, x: Tensor) -> Tensor:
        result: Tensor = operation(x)
        if self.training and self.skip_dropout > 0.0 and isinstance(operation, nn.Identity):
            result = F.dropout(result, self.skip_dropout)
        return result

    def _joined(self, result: Tensor, x: Tensor) -> Tensor:
        """What went through and what passed by, interleaved."""
        by = x[:, x.shape[1] // self.partial :]
        if self.stride > 1:
            by = F.max_pool2d(by, self.stride, self.stride, ceil_mode=True)
        return shuffled(torch.cat([result, by], dim=1), self.partial)


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channels of ``groups`` equal blocks interleaved: first of each block, second of each block and so on."""
    n, channels, height, width = x.shape
    return x.view(n, groups, channels // groups, height, width).transpose(1, 2).reshape(n, channels, height, width)


def node_sum(
    states: Sequence[Tensor], edges: Sequence[MixedEdge], mixing: Mixing, scales: Tensor | None = None
) -> Tensor:
    """Sum of mixed edges, one from each of some nodes; zeros of the right shape if none of them is executed.

    Args:
        states: (N, C, H, W) of each source.
        edges: one for each source.
        mixing: weights.
        scales: (sources,) weights of the edges; None: 1 each.
    """
    terms = [edge(state, mixing) for state, edge in zip(states, edges, strict=True)]
    found = [term if scales is None else scales[i] * term for i, term in enumerate(terms) if term is not None]
    if found:
        total: Tensor = reduce(add, found)
        return total
    stride = edges[-1].stride  # that of an edge inside of a reduction is 1, as its source is halved already
    return states[-1][:, :, ::stride, ::stride].mul(0.0)


def set_skip_dropout(supernet: nn.Module, probability: float) -> int:
    """Set ``skip_dropout`` of every mixed edge; how many these are."""
    found = [module for module in supernet.modules() if isinstance(module, MixedEdge)]
    for edge in found:
        edge.skip_dropout = probability
    return len(found)


def search_form(module: nn.Module) -> nn.Module:
    """The form that an operation has in a supernet: normalisation without learned scales and shifts.

    Args:
        module: changed in place.
    """
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.affine = False
            layer.register_parameter("weight", None)
            layer.register_parameter("bias", None)
    return module
