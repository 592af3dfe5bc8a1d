"""What zero-cost scores say before a search: first values of the alphas, and operations that are not tried at all.

Papers: Xiang et al., Zero-Cost Operation Scoring in Differentiable Architecture Search, AAAI 2023, arXiv:2106.06799
(scores of operations); Mellor et al., Neural Architecture Search without Training, ICML 2021, arXiv:2006.04647 (the
score). Differences: both uses are our own; the paper selects by these scores and searches no further.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from naswot.differentiable.decisions import decisions_of
from naswot.differentiable.operation_scores import (
    DEFAULT_PROXY,
    OperationMode,
    as_proxy,
    batch_of,
    importances,
    operation_scores,
)
from naswot.differentiable.plan import Hook
from naswot.errors import OptionError
from naswot.proxy import Proxy
from naswot.seeding import derive_seed, seeded
from naswot.supernet import MixedSupernet

if TYPE_CHECKING:
    from naswot.differentiable.session import SearchSession


@dataclass(frozen=True)
class AlphaPrior(Hook):
    """Starts each stage with alphas that lean towards operations of good score.

    Args:
        proxy: that scores the untrained supernet.
        strength: alphas rise by so much for each standard deviation of the scores of their row.
        mode: how an operation is scored.
    """

    proxy: str | Proxy = DEFAULT_PROXY
    strength: float = 1.0
    mode: OperationMode = "without"

    def begin_stage(self, session: SearchSession) -> None:
        """Add ``strength`` times the standardised scores to the alphas of operations; those of edges stay."""
        supernet = session.supernet
        for name, table in _importances(session, supernet, self.proxy, self.mode).items():
            alphas = supernet.alphas[name].data
            alphas += self.strength * standardised(table).to(alphas)


@dataclass(frozen=True)
class PruneOperations(Hook):
    """Leaves out, before the search, the operations of each row whose scores are worst.

    Scores are those of an untrained supernet of the session on its fixed batch. An operation that an architecture can
    take, so not one that only serves the mixture, is always left in each row.

    Args:
        proxy: that scores the untrained supernet.
        keep: operations of each row that stay; a row of fewer keeps all. Ties stay in the order of the options.
        mode: how an operation is scored.
    Raises:
        OptionError: if nothing is kept.
    """

    proxy: str | Proxy = DEFAULT_PROXY
    keep: int = 4
    mode: OperationMode = "without"

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise OptionError(f"expected to keep at least 1 operation of each row, but got keep={self.keep}")

    def allowed(self, session: SearchSession) -> dict[str, Tensor]:
        """(rows, options) bool of each group of operations."""
        with seeded(derive_seed(session.seed, "prune operations")):
            supernet = session.build_supernet().to(session.device)
        found = {}
        takeable = decisions_of(supernet).options
        for name, table in _importances(session, supernet, self.proxy, self.mode).items():
            present = supernet.allowed(name).cpu()
            rows = zip(table, present, takeable[name], strict=True)
            found[name] = torch.stack([_best(row, there, real, self.keep) for row, there, real in rows])
        return found


def standardised(table: Tensor) -> Tensor:
    """Rows with mean 0 and standard deviation 1, the order within a row unchanged.

    Args:
        table: (rows, options) float64; NaN where there is no option. Infinite values count as one standard deviation
            beyond the finite ones, which alone give mean and deviation.
    Returns:
        (rows, options) float64: 0 in rows whose values are all the same, and where there is no option.
    """
    return torch.stack([_standardised_row(row) for row in table])


def _standardised_row(row: Tensor) -> Tensor:
    finite = row[row.isfinite()]
    found = torch.zeros_like(row)
    if len(finite) and float(finite.max() - finite.min()) > 0.0:
        found = (row - finite.mean()) / finite.std(correction=0)
    low, high = (found[row.isfinite()].min(), found[row.isfinite()].max()) if len(finite) else (0.0, 0.0)
    found = torch.where(row == -torch.inf, low - 1.0, torch.where(row == torch.inf, high + 1.0, found))
    if not len(finite) and bool((row == -torch.inf).any()) != bool((row == torch.inf).any()):
        found = torch.zeros_like(row)  # all the same
    return torch.where(row.isnan(), 0.0, found)


def _importances(
    session: SearchSession, supernet: MixedSupernet, proxy: str | Proxy, mode: OperationMode
) -> dict[str, Tensor]:
    """(rows, options) float64 by group of operations: larger speaks for an operation; NaN where there is none."""
    chosen = as_proxy(proxy)
    batch = batch_of(session.task.fixed_batch())
    seed = derive_seed(session.seed, "operation scores")
    found = operation_scores(supernet, batch, chosen, mode, seed)
    return {name: importances(table, chosen, mode) for name, table in found.items()}


def _best(row: Tensor, present: Tensor, takeable: tuple[int, ...], keep: int) -> Tensor:
    """(options,) bool: the ``keep`` best of a row among those there are, one at least of those that can be taken."""
    ranked = row.nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf).argsort(descending=True, stable=True).tolist()
    ranked = [option for option in ranked if bool(present[option])]
    kept = ranked[:keep]
    if takeable and not set(kept) & set(takeable):
        kept[-1] = next(option for option in ranked if option in takeable)
    found = torch.zeros_like(present)
    found[kept] = True
    return found
