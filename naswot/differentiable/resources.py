"""Resource terms: what the options of a supernet cost, and how that enters the loss of the architecture.

Papers: Xie et al., SNAS, ICLR 2019, arXiv:1812.09926, section 2.4 (expected cost of sampled architectures); Cai et al.,
ProxylessNAS, ICLR 2019, arXiv:1812.00332, section 3.3 (expected latency); Yao et al., Efficient Neural Architecture
Search via Proximal Iterations, AAAI 2020, arXiv:1905.13577 (penalty on the alphas of large operations). Original codes:
github.com/SNAS-Series/SNAS-Series, github.com/mit-han-lab/proxylessnas, github.com/xujinfan/NASP-codes. Differences:
costs are measured on the modules of the supernet itself; SNAS's mean of parameters, FLOPs and memory accesses is one of
them at a time; NASP's penalty is taken at the alphas, not at the architecture nearest to them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from naswot.differentiable._costs import Costs, Measure, cost_of_blocks, operation_costs
from naswot.differentiable.plan import Resource
from naswot.differentiable.relaxations import softmax_weights
from naswot.differentiable.tasks import Task
from naswot.errors import OptionError
from naswot.latency import LatencyTable
from naswot.supernet import MixedSupernet, Mixing, Weights

__all__ = ["Costs", "ExpectedCost", "SquaredCost", "cost_of_blocks", "operation_costs"]

Form = Literal["add", "add_log", "add_linear", "mul_log"]
_WEIGHTS = {"add_linear": 0.1, "mul_log": 0.2}  # ProxylessNAS's


class _Measured(Resource):
    """A resource that measures the options of each stage's supernet once and keeps what it found."""

    measure: Measure
    costs: Costs | None

    def begin(self, supernet: MixedSupernet, task: Task) -> None:
        """Measure what each option costs for one input of the task.

        Raises:
            OptionError: if no choice makes a difference.
        """
        self.costs = self._measured(supernet, task)
        if not self.costs.differ(supernet):
            raise OptionError(
                f"the {self.measure} of all options of {supernet.space.name} are the same, so that a resource term has "
                "nothing to choose from; leave it out or take another measure"
            )

    def _measured(self, supernet: MixedSupernet, task: Task) -> Costs:
        inputs, _ = task.fixed_batch()
        images = isinstance(inputs, Tensor) and inputs.ndim == 4
        if not images and self.measure != "params":
            raise OptionError(
                f"the {self.measure} of options are measured on images (N, C, H, W), which the inputs of this task are "
                "not; take measure='params'"
            )
        return operation_costs(supernet, tuple(inputs.shape[1:]) if images else (), measure=self.measure)

    def known(self) -> Costs:
        """What was measured.

        Raises:
            OptionError: if nothing was yet.
        """
        if self.costs is None:
            raise OptionError(f"{type(self).__name__} knows no costs before begin() has measured them")
        return self.costs

    def state_dict(self) -> dict[str, Any]:
        """The costs; a latency is never measured the same twice."""
        return {} if self.costs is None else {"options": dict(self.costs.options), "fixed": self.costs.fixed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the costs that were measured at first."""
        self.costs = Costs(state["options"], state["fixed"]) if state else None


@dataclass
class ExpectedCost(_Measured):
    r"""The expected cost E of an architecture drawn row by row.

    .. math::
        \mathrm{add}: L + w E, \quad
        \mathrm{add\_log}: L + w \sum_r \log \max(1, E_r), \quad
        \mathrm{add\_linear}: L + w (E - R) / R, \quad
        \mathrm{mul\_log}: w L (\log E / \log R)^p

    Args:
        measure: ``"params"``, ``"flops"`` (MACs of one input) or ``"latency"`` (milliseconds of one input).
        form: see above; E_r is that of one row, without what all architectures have in common. ``"add_log"`` is that of
            SNAS's code, the last two are ProxylessNAS's.
        weight: w; None: ProxylessNAS's, 0.1 and 0.2.
        reference: R, the cost to aim at; None: what a uniformly drawn architecture costs.
        power: p.
        over: ``"softmax"``: draws by the softmax of the alphas, whatever the network is run with. ``"sample"``: the
            weights of the mixing that it is run with, a single draw where these are samples.
        table: file of a :class:`~naswot.latency.LatencyTable` from which the milliseconds are taken; None: measured.
    Raises:
        OptionError: if there is no such measure or form, or a number is missing or out of range.
    """

    measure: Measure = "params"
    form: Form = "add_linear"
    weight: float | None = None
    reference: float | None = None
    power: float = 0.3
    over: Literal["softmax", "sample"] = "softmax"
    table: str | None = None
    costs: Costs | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self.measure, get_args(Measure), "measure")
        _check(self.form, get_args(Form), "form")
        _check(self.over, ("softmax", "sample"), "over")
        if self.table is not None and self.measure != "latency":
            raise OptionError(f"a latency table gives latencies, but the measure is {self.measure!r}")
        if self.weight is None and self.form not in _WEIGHTS:
            raise OptionError(f"the form {self.form!r} needs weight=, how much one unit of cost adds to the loss")
        least = 1.0 if self.form == "mul_log" else 0.0
        if self.reference is not None and not self.reference > least:
            raise OptionError(f"expected a reference above {least:g} for {self.form!r}, but got {self.reference}")

    def _measured(self, supernet: MixedSupernet, task: Task) -> Costs:
        found = super()._measured(supernet, task) if self.table is None else self._looked_up(supernet, self.table)
        least = found.least(supernet)
        if self.form == "mul_log" and not least > 1.0:
            raise OptionError(
                f"the form 'mul_log' takes logarithms of costs above 1, but the {self.measure} of an architecture may "
                f"be {least:.3g}; take form='add_linear'"
            )
        return found

    def _looked_up(self, supernet: MixedSupernet, path: str) -> Costs:
        table = LatencyTable.load(path)
        if table.space.name != supernet.space.name:
            raise OptionError(f"{path} holds latencies of {table.space.name}, but {supernet.space.name} is searched")
        return cost_of_blocks(supernet, table.latency)

    def expected(self, supernet: MixedSupernet, weights: Weights | None = None) -> Tensor:
        """() expected cost, with a graph; at the softmax of the alphas unless weights are given."""
        return self.known().expected(softmax_weights(supernet) if weights is None else weights)

    def add(self, loss: Tensor, supernet: MixedSupernet, mixing: Mixing) -> Tensor:
        """The loss with the expected cost in it, () with a graph."""
        costs = self.known()
        weights = mixing.weights if self.over == "sample" else softmax_weights(supernet)
        weight = _WEIGHTS[self.form] if self.weight is None else self.weight
        if self.form == "add_log":
            rows = torch.cat(list(costs.by_row(weights).values()))
            return loss + weight * rows.clamp(min=1.0).log().sum()
        cost = costs.expected(weights)
        if self.form == "add":
            return loss + weight * cost
        reference = costs.mean(supernet) if self.reference is None else self.reference
        if self.form == "add_linear":
            return loss + weight * (cost - reference) / reference
        return weight * loss * (cost.log() / math.log(reference)) ** self.power


@dataclass
class SquaredCost(_Measured):
    r"""NASP's penalty on large operations.

    .. math:: L + w \sum_{r, i} \alpha_{ri}^2 c_{ri} / \sum_j c_{rj}

    Args:
        weight: w.
        measure: c; see :class:`ExpectedCost`.
    Raises:
        OptionError: if there is no such measure, or the weight is negative.
    """

    weight: float
    measure: Measure = "params"
    costs: Costs | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self.measure, get_args(Measure), "measure")
        if not self.weight >= 0.0:
            raise OptionError(f"expected a weight of at least 0, but got {self.weight}")

    def add(self, loss: Tensor, supernet: MixedSupernet, mixing: Mixing) -> Tensor:  # noqa: ARG002
        """The loss with the penalty in it, () with a graph."""
        for name, table in self.known().options.items():
            share = table / table.sum(1, keepdim=True).clamp(min=torch.finfo(table.dtype).tiny)
            alphas = supernet.alphas[name]
            loss = loss + self.weight * (alphas.square() * share.to(alphas)).sum()
        return loss


def _check(value: str, known: tuple[str, ...], what: str) -> None:
    if value not in known:
        raise OptionError(f"unknown {what} {value!r}; there are {', '.join(known)}")
