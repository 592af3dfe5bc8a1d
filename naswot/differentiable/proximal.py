"""Proximal iterations: alphas in a box, weights on its corners (NASP).

Paper: Yao et al., Efficient Neural Architecture Search via Proximal Iterations, AAAI 2020, arXiv:1905.13577. Original
code: github.com/xujinfan/NASP-codes. Differences: the corner is the architecture that the space's rule reads off, which
is the original's rule (one operation on each edge, two edges to each node) in the DARTS space; operations are those of
the space, not the paper's own, among which there is no ``none``; weights of edges, where a supernet has them, are a
softmax.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import torch
from torch import Tensor

from naswot.differentiable.gumbel import executed, straight_through
from naswot.differentiable.relaxations import Clock, Relaxation, edge_weights
from naswot.errors import OptionError
from naswot.supernet import Group, MixedSupernet, Mixing

_HAIR: Final = 1e-6


@dataclass(frozen=True)
class ProximalOneHot(Relaxation):
    """The network is always one architecture; the gradient found there is applied to the alphas, kept within [0, 1].

    All alphas begin equal, so that the first architecture is that of the first options: identities in the original and
    in NAS-Bench-201, as ``none`` begins a hair below the others: a network of nothing else would never learn. In a step
    of the weights only the operations of the architecture are executed. In one of the alphas the original executes all
    of them, those outside of the architecture with weight 0, because their alphas learn from what they would add; that
    breaks the tie at the first step.

    Args:
        start: first value of all alphas.
        alpha_pass: what is executed in a step of the alphas. ``"all"``: see above. ``"chosen"``: the architecture
            alone; faster by about the number of operations, but an alpha then learns only while its operation is
            chosen, and an operation loses its place only when its own alpha has fallen below the others.
    Raises:
        OptionError: for a start outside of [0, 1] or another pass.
    References:
        Yao et al., AAAI 2020, arXiv:1905.13577, algorithm 2.
    """

    mixed: ClassVar[bool] = False
    start: float = 0.5
    alpha_pass: Literal["all", "chosen"] = "all"

    def __post_init__(self) -> None:
        if not 0.0 <= self.start <= 1.0 or self.alpha_pass not in ("all", "chosen"):
            raise OptionError(
                "expected start within [0, 1] and alpha_pass='all' or 'chosen', but got "
                f"{self.start} and {self.alpha_pass!r}"
            )

    def initial(self, group: Group) -> Tensor:
        """First values, (rows, options): all alike but for ``none``; of edges small and normal."""
        if group.kind == "edge":
            return super().initial(group)
        nothing = torch.zeros(group.shape)
        for row, options in zip(nothing, group.options, strict=True):
            row[: len(options)] = torch.tensor([name == "none" for name in options])
        return (self.start - _HAIR * nothing).clamp(min=0.0)

    def expected(self, supernet: MixedSupernet) -> dict[str, Tensor]:
        """The alphas themselves, which are in [0, 1] and not on a simplex; 0 where there is no option."""
        with torch.no_grad():
            return {g.name: _within(supernet, g) for g in supernet.operation_groups} | edge_weights(supernet)

    def corner(self, supernet: MixedSupernet) -> dict[str, Tensor]:
        """The nearest architecture as weights, (rows, options) float32 of 0 and 1 by group of operations."""
        chosen = supernet.chosen(supernet.derive(self.expected(supernet)))
        return {g.name: chosen[g.name].to(supernet.alphas[g.name].device) for g in supernet.operation_groups}

    def for_weights(self, supernet: MixedSupernet, clock: Clock) -> Mixing:  # noqa: ARG002
        """The nearest architecture, nothing else executed."""
        with torch.no_grad():
            corner = self.corner(supernet)
            active = {name: executed(table > 0) for name, table in corner.items()}
            return Mixing(corner | edge_weights(supernet), active)

    def for_architecture(self, supernet: MixedSupernet, clock: Clock) -> Mixing:  # noqa: ARG002
        """The nearest architecture, whose gradient is handed on to the alphas as it is."""
        corner = self.corner(supernet)
        weights = {g.name: straight_through(corner[g.name], _within(supernet, g)) for g in supernet.operation_groups}
        active = {name: executed(table > 0) for name, table in corner.items()} if self.alpha_pass == "chosen" else None
        return Mixing(weights | edge_weights(supernet), active)

    def after_step(self, supernet: MixedSupernet) -> None:
        """Back into the box."""
        for group in supernet.operation_groups:
            supernet.alphas[group.name].detach().clamp_(0.0, 1.0)


def _within(supernet: MixedSupernet, group: Group) -> Tensor:
    """(rows, options) alphas, 0 where there is no option."""
    alphas: Tensor = supernet.alphas[group.name]
    return alphas.masked_fill(~supernet.allowed(group.name), 0.0)
