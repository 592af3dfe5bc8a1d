"""What each option of a supernet costs, measured on its own modules.

Counting rules are those of the scores ``params`` and ``flops``: parameters as they are in the supernet, and MACs of
convolutions, linear layers and matrix products by torch's own rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from naswot.differentiable.relaxations import equal_weights
from naswot.errors import OptionError
from naswot.latency import measure_latency
from naswot.preserve import preserve
from naswot.supernet import Active, Alternatives, MixedSupernet, Mixing, Weights
from naswot.types import Genotype

Measure = Literal["params", "flops", "latency"]
Place = tuple[str, int, int]
"""Group, row and option."""


@dataclass(frozen=True)
class Costs:
    """A cost that adds up over the options of an architecture.

    Args:
        options: of each option by group of operations, (rows, options) float64, summed over all cells in which the row
            occurs; 0 where there is no option.
        fixed: of what all architectures have in common.
    """

    options: dict[str, Tensor]
    fixed: float

    def by_row(self, weights: Weights) -> dict[str, Tensor]:
        """(rows,) expected cost of each row at some weights, with their graph."""
        return {name: (weights[name] * table.to(weights[name])).sum(1) for name, table in self.options.items()}

    def expected(self, weights: Weights) -> Tensor:
        """() expected cost in all, with the graph of the weights."""
        return torch.cat(list(self.by_row(weights).values())).sum() + self.fixed

    def of(self, supernet: MixedSupernet, genotype: Genotype) -> float:
        """Cost of one architecture."""
        return float(self.expected({name: table.double() for name, table in supernet.chosen(genotype).items()}))

    def mean(self, supernet: MixedSupernet) -> float:
        """Expected cost where all allowed options of a row are equally likely."""
        allowed = {name: supernet.allowed(name).cpu().double() for name in self.options}
        return float(self.expected({name: table / table.sum(1, keepdim=True) for name, table in allowed.items()}))

    def differ(self, supernet: MixedSupernet) -> bool:
        """Whether any row has options of different costs."""
        return self.mean(supernet) - self.least(supernet) > 1e-9 * self.mean(supernet)

    def least(self, supernet: MixedSupernet) -> float:
        """Expected cost of the cheapest option of each row."""
        tables = ((table, supernet.allowed(name).cpu()) for name, table in self.options.items())
        return self.fixed + sum(float(t.masked_fill(~a, torch.inf).min(1).values.sum()) for t, a in tables)


def operation_costs(supernet: MixedSupernet, input_shape: Sequence[int], *, measure: Measure = "params") -> Costs:
    """Measure every option of a supernet, which goes back as it came.

    Weights of edges, and the few operations by which options are mixed, are not counted; what an edge alone decides on
    counts as being there.

    Args:
        supernet: of images.
        input_shape: of one image, (C, H, W).
        measure: ``"params"``, ``"flops"`` (MACs of one image) or ``"latency"`` (milliseconds of one image in evaluation
            mode; on the CPU of one thread at work).
    """
    modules = _modules_by_option(supernet)
    tables = {g.name: torch.zeros(g.shape, dtype=torch.float64) for g in supernet.operation_groups}
    device = next(supernet.parameters()).device
    with preserve(supernet), torch.no_grad():
        supernet.eval()
        image = torch.zeros(1, *input_shape, device=device)
        shapes = {} if measure == "params" else _shapes(supernet, image, [m for some in modules.values() for m in some])
        for (group, row, option), some in modules.items():
            tables[group][row, option] = sum(_cost(m, shapes.get(id(m), []), measure, device) for m in some)
        example = supernet.derive({g.name: supernet.allowed(g.name).float() for g in supernet.groups})
        whole = supernet.at(supernet.mixing_of(example))
        costs = Costs(tables, 0.0)
        if measure == "params":
            inside = {id(p) for some in modules.values() for m in some for p in m.parameters()}
            return Costs(tables, float(sum(p.numel() for p in supernet.weight_parameters() if id(p) not in inside)))
        total = _cost(whole, [tuple(image.shape)], measure, device)
    return Costs(tables, max(0.0, total - costs.of(supernet, example)))


def cost_of_blocks(supernet: MixedSupernet, cost: Callable[[Genotype], float]) -> Costs:
    """Tables of a cost that adds up over the rows, from the costs of architectures that differ in one row.

    Args:
        supernet: of a space each of whose rows is a decision of its own.
        cost: of an architecture, such as :meth:`naswot.latency.LatencyTable.latency`.
    Raises:
        OptionError: if options of a row are not all to be had one by one.
    """
    first = {g.name: _one_hot(supernet.allowed(g.name).float().argmax(1), g.shape[1]) for g in supernet.groups}
    base = cost(supernet.derive(first))
    tables = {}
    for group in supernet.operation_groups:
        table = torch.zeros(group.shape, dtype=torch.float64)
        for row, option in supernet.allowed(group.name).nonzero().tolist():
            changed = {name: strengths.clone() for name, strengths in first.items()}
            changed[group.name][row] = _one_hot(torch.tensor(option), group.shape[1])
            genotype = supernet.derive(changed)
            if not supernet.chosen(genotype)[group.name][row, option]:
                raise OptionError(
                    f"option {group.options[row][option]!r} of row {row} of {group.name!r} in {supernet.space.name} "
                    "depends on other rows, so that its cost cannot be looked up; measure it on the supernet instead"
                )
            table[row, option] = cost(genotype) - base
        tables[group.name] = table
    lowest = {name: table.min(1, keepdim=True).values for name, table in tables.items()}
    fixed = base + sum(float(values.sum()) for values in lowest.values())
    allowed = {name: supernet.allowed(name).cpu() for name in tables}
    return Costs({n: torch.where(allowed[n], t - lowest[n], 0.0) for n, t in tables.items()}, fixed)


def _one_hot(option: Tensor, options: int) -> Tensor:
    return nn.functional.one_hot(option, options).float()


def _modules_by_option(supernet: MixedSupernet) -> dict[Place, list[nn.Module]]:
    """Modules, in all cells, that are executed where an option is and not where nothing of its row is."""
    found: dict[Place, list[nn.Module]] = {}
    parts = [module for module in supernet.modules() if isinstance(module, Alternatives)]
    nothing: Active = {g.name: tuple(() for _ in g.options) for g in supernet.operation_groups}
    without = [part.unused(_running(supernet, nothing)) for part in parts]
    for group, row, option in _places(supernet):
        rows = tuple((option,) if number == row else () for number in range(len(nothing[group])))
        mixing = _running(supernet, {**nothing, group: rows})
        for part, all_of_it in zip(parts, without, strict=True):
            rest = {id(module) for module in part.unused(mixing)}
            found.setdefault((group, row, option), []).extend(m for m in all_of_it if id(m) not in rest)
    return found


def _places(supernet: MixedSupernet) -> Iterator[Place]:
    for group in supernet.operation_groups:
        for row, option in supernet.allowed(group.name).nonzero().tolist():
            yield group.name, row, option


def _running(supernet: MixedSupernet, active: Active | None) -> Mixing:
    """All allowed options with equal weights, of which some are executed."""
    return Mixing(equal_weights(supernet), active)


def _shapes(supernet: MixedSupernet, image: Tensor, modules: list[nn.Module]) -> dict[int, list[tuple[int, ...]]]:
    """Shapes of what each module is given in one pass in which all options are executed, by id."""
    seen: dict[int, list[tuple[int, ...]]] = {}

    def look(module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.setdefault(id(module), []).append(tuple(args[0].shape))

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_pre_hook(look).remove)
        supernet(image, _running(supernet, None))
    return seen


def _cost(module: nn.Module, shapes: list[tuple[int, ...]], measure: Measure, device: torch.device) -> float:
    """Cost of the calls of a module on inputs of some shapes (N = 1); parameters are there once."""
    if measure == "params":
        return float(sum(p.numel() for p in module.parameters()))
    if measure == "flops":
        return sum(_macs(module, shape, device) for shape in shapes)
    return sum(measure_latency(module, shape[1:], device=str(device)) for shape in shapes)


def _macs(module: nn.Module, shape: tuple[int, ...], device: torch.device) -> float:
    counter = FlopCounterMode(display=False)
    with counter:
        module(torch.zeros(shape, device=device))
    return counter.get_total_flops() / 2  # two operations for each MAC
