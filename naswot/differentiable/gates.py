"""Binary gates: paths are sampled, and only these are executed (ProxylessNAS).

Paper: Cai et al., ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware, ICLR 2019,
arXiv:1812.00332. Original code: github.com/mit-han-lab/proxylessnas. Differences: a row whose sampled option is an
identity learns like any other (in the original such a block is left out of that step, which therefore tells nothing of
its options); options that are not allowed are never sampled; the learning rate changes by epochs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from naswot.differentiable.gumbel import executed, noisy_logits, one_hot_of_largest, straight_through
from naswot.differentiable.plan import Hook
from naswot.differentiable.relaxations import Clock, Relaxation, edge_weights, masked
from naswot.errors import OptionError
from naswot.supernet import Group, MixedSupernet, Mixing

if TYPE_CHECKING:
    from naswot.differentiable.session import SearchSession


@dataclass
class BinaryGates(Relaxation):
    r"""A gate for each option, of which one of each row is open: that of a draw from the softmax of the alphas.

    .. math:: \frac{\partial L}{\partial \alpha_i} = \sum_j \frac{\partial L}{\partial g_j} p_j (\delta_{ij} - p_i)

    Args:
        paths: what is executed in a step of the alphas. ``"two"``: two options drawn without replacement, as if the
            row had no others; after the step both are shifted so that the sum of their exponentials is as before,
            which leaves all other probabilities alone, unless a resource term moves these. A row of a single option
            has no pair. ``"full"``: all options.
    Raises:
        OptionError: for other paths.
    References:
        Cai et al., ProxylessNAS, ICLR 2019, arXiv:1812.00332, sections 3.2.1 and 3.2.2, Eq. 4.
    """

    mixed: ClassVar[bool] = False
    paths: Literal["two", "full"] = "two"
    _before: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    _pairs: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.paths not in ("two", "full"):
            raise OptionError(f"expected paths='two' or 'full', but got {self.paths!r}")

    def for_weights(self, supernet: MixedSupernet, clock: Clock) -> Mixing:  # noqa: ARG002
        """One option of each row, drawn from the softmax."""
        with torch.no_grad():
            gates = {g.name: one_hot_of_largest(noisy_logits(supernet, g)) for g in supernet.operation_groups}
            active = {name: executed(gate > 0) for name, gate in gates.items()}
            return Mixing(gates | edge_weights(supernet), active)

    def for_architecture(self, supernet: MixedSupernet, clock: Clock) -> Mixing:  # noqa: ARG002
        """One open gate in each row, and the options executed that ``paths`` names."""
        weights, active = dict(edge_weights(supernet)), {}
        for group in supernet.operation_groups:
            taken = self._pairs[group.name] = self._taken(supernet, group)
            chances = torch.softmax(masked(supernet, group).masked_fill(~taken, -torch.inf), dim=1)
            draws = torch.where(taken, noisy_logits(supernet, group), -torch.inf)  # a draw from the chances
            weights[group.name] = straight_through(one_hot_of_largest(draws), chances)
            active[group.name] = executed(taken)
        return Mixing(weights, active)

    def _taken(self, supernet: MixedSupernet, group: Group) -> Tensor:
        """(rows, options) bool: what takes part in a step."""
        allowed = supernet.allowed(group.name)
        if self.paths == "full":
            return allowed
        draws = noisy_logits(supernet, group).detach()
        pair = draws.topk(min(2, draws.shape[1]), dim=1).indices
        return torch.zeros_like(allowed).scatter(1, pair, value=True) & allowed

    def before_step(self, supernet: MixedSupernet) -> None:
        """Remember the alphas."""
        self._before = {g.name: supernet.alphas[g.name].detach().clone() for g in supernet.operation_groups}

    def after_step(self, supernet: MixedSupernet) -> None:
        """Shift the pair of each row so that the sum of its exponentials is what it was."""
        if self.paths == "two":
            for name, before in self._before.items():
                alphas, pair = supernet.alphas[name].detach(), self._pairs[name]
                gain = _log_sum(alphas, pair) - _log_sum(before, pair)
                alphas.sub_(torch.where(pair, gain, 0.0))


def _log_sum(alphas: Tensor, which: Tensor) -> Tensor:
    """(rows, 1) log of the sum of the exponentials of some options."""
    return alphas.masked_fill(~which, -torch.inf).logsumexp(1, keepdim=True)


@dataclass(frozen=True)
class WarmupCosine(Hook):
    """Two half cosines in place of one: over the warm-up of a stage to 0, then from the plan's rate to its final one.

    Args:
        start: learning rate of the weights in the first epoch of the warm-up.
    """

    start: float = 0.05

    def before_epoch(self, session: SearchSession) -> None:
        """Set the learning rate of the epoch."""
        clock, warmup, how = session.clock, session.stage.warmup, session.plan.weights
        if clock.epoch < warmup:
            high, low, part = self.start, 0.0, clock.epoch / warmup
        else:
            high, low = how.learning_rate, how.final_learning_rate
            part = (clock.epoch - warmup) / (clock.epochs - warmup)
        for group in session.weight_optimizer.param_groups:
            group["lr"] = low + (high - low) * (1.0 + math.cos(math.pi * part)) / 2.0
