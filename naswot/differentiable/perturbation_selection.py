"""DARTS-PT: keep the operations without which the supernet does worst, instead of those of largest weight.

Paper: Wang et al., Rethinking Architecture Selection in Differentiable NAS, ICLR 2021, arXiv:2108.04392, algorithm 1.
Original code: github.com/ruocwang/darts-pt, ``sota/cnn/projection.py`` and ``nasbench201/projection.py``. As there, an
option that is tried out weighs 0 while the others keep their weights, normalisation layers use the statistics of the
batch, one row of each group is decided before each tuning, the tuning starts at a tenth of the learning rate, and of a
node the edges are judged with all of them there. Differences: operations that no architecture of the space can take
(``none`` in the DARTS space) are never taken; equal accuracies are told apart by the loss, and then go to the first;
on NAS-Bench-201 too the learning rate falls along a cosine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from naswot.differentiable.decisions import Edge, Node, Settled, decisions_of
from naswot.differentiable.plan import Perturbation, Selection
from naswot.differentiable.relaxations import Clock, Relaxation
from naswot.errors import OptionError
from naswot.preserve import in_mode, preserve
from naswot.seeding import derive_seed, numpy_generator
from naswot.supernet import FixedSupernet, MixedSupernet, Mixing, Weights
from naswot.types import Genotype

if TYPE_CHECKING:
    from naswot.differentiable.session import SearchSession

Criterion = Literal["accuracy", "loss"]

Place = tuple[str, int] | Node
"""Group and row of a choice of an operation, or a node that chooses its edges."""

Judge = Callable[[Mixing], tuple[float, ...]]
"""How well the supernet does at a mixing: larger is better, compared in order."""


@dataclass(frozen=True)
class PerturbationSelection(Selection):
    """Decides one row after the other by what its options are worth to the trained supernet, and tunes in between.

    Rows come in random order. The option is kept without which the supernet does worst on the validation images; then
    of each node, in random order, the edges without which it does worst. It evaluates the supernet once for each option
    and each edge, and trains it for ``epochs_between`` epochs after each decision but the last: 2 x (14 x 7 + 12)
    evaluations and 5 x 16 epochs for DARTS. It works on the supernet of the epoch that counts. A selection that was
    interrupted starts again when the search is resumed, with the same result.

    Args:
        epochs_between: training after each decision.
        criterion: of how well the supernet does.
        learning_rate: share of that of the search at which the training in between starts.
        learns_alphas: let the alphas of what is not yet decided learn on in between; False: only the weights do.
    Raises:
        OptionError: for options outside their ranges.
    """

    epochs_between: int = 5
    criterion: Criterion = "accuracy"
    learning_rate: float = 0.1
    learns_alphas: bool = True

    needs_mixture: ClassVar[bool] = True
    needs_state: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.epochs_between < 0 or self.learning_rate <= 0.0:
            raise OptionError(
                "expected epochs_between of at least 0 and a learning_rate above 0, but got "
                f"{self.epochs_between} and {self.learning_rate:g}"
            )
        if self.criterion not in ("accuracy", "loss"):
            raise OptionError(f"expected the criterion 'accuracy' or 'loss', but got {self.criterion!r}")

    def select(self, session: SearchSession) -> Genotype:
        """The architecture that is left."""
        session.go_to_result()
        supernet, relaxation = session.supernet, session.relaxation
        settled = Settled(decisions_of(supernet))
        rounds = rounds_of(settled, derive_seed(session.seed, "perturbation selection"))
        with _tuning(session, self, settled, len(rounds) - 1) as tune:
            for number, places in enumerate(rounds):
                if number:
                    tune()
                weights = relaxation.expected(supernet)
                for place in places:
                    settle(settled, place, weights, lambda mixing: self._worth(session, mixing))
        return settled.genotype(supernet)

    def _worth(self, session: SearchSession, mixing: Mixing) -> tuple[float, ...]:
        supernet = session.supernet
        with preserve(supernet):
            found = session.task.evaluate(_ByBatchStatistics(supernet, mixing))
        by_loss = -found["loss"]
        return (by_loss,) if self.criterion == "loss" else (found["accuracy"], by_loss)


def rounds_of(settled: Settled, seed: int) -> list[list[Place]]:
    """What is decided together: a row of each group, in random order, and after all rows a node of each group.

    Args:
        settled: rows that have no choice are decided at once.
        seed: of the order.
    """
    decisions, rng = settled.decisions, numpy_generator(seed)
    rows: list[list[Place]] = []
    for group, options in decisions.options.items():
        settled.taken |= {(group, row): own[0] for row, own in enumerate(options) if len(own) == 1}
        free = [row for row, own in enumerate(options) if len(own) > 1]
        rows.append([(group, free[i]) for i in rng.permutation(len(free))])
    nodes: list[list[Place]] = []
    for group in (group.name for group in decisions.groups):
        own_nodes = [node for node in decisions.nodes if node.edges[0].group == group]
        nodes.append([own_nodes[i] for i in rng.permutation(len(own_nodes))])
    turns = [turn for by_group in (rows, nodes) for turn in zip_longest(*by_group)]
    return [[place for place in turn if place is not None] for turn in turns]


def settle(settled: Settled, place: Place, weights: Weights, judge: Judge) -> None:
    """Decide one row or node: keep that without which the supernet is worth least; ties go to the first.

    Args:
        settled: what is decided before; filled in.
        place: a row of operations, or a node.
        weights: of the mixture.
        judge: what the supernet is worth at a mixing.
    """
    if isinstance(place, Node):
        worth = {edge: judge(settled.mixing(weights, without=edge)) for edge in place.edges}
        ranked = sorted(place.edges, key=lambda edge: worth[edge])
        settled.dropped |= set(ranked[place.n_kept :])
        return
    group, row = place
    options = settled.decisions.options[group][row]
    without = {option: judge(settled.mixing(weights, without=Edge(group, row, option))) for option in options}
    settled.taken[place] = min(options, key=lambda option: without[option])


class _ByBatchStatistics(FixedSupernet):
    """A supernet at a mixing that normalises by the statistics of the batch also in evaluation mode.

    The running statistics are those of the mixture with all of its options, and would punish the lack of any.
    """

    def forward(self, inputs: Any) -> Any:
        """What the supernet gives."""
        with in_mode(self.supernet, "train"):
            return super().forward(inputs)


@dataclass(frozen=True)
class _Decided(Relaxation):
    """A relaxation where some rows are decided already."""

    inner: Relaxation
    settled: Settled = field(repr=False)

    def for_weights(self, supernet: MixedSupernet, clock: Clock) -> Mixing:
        """The mixing of the inner one with what is decided."""
        return _with_decided(self.inner.for_weights(supernet, clock), self.settled, supernet)

    def for_architecture(self, supernet: MixedSupernet, clock: Clock) -> Mixing:
        """The same, which a gradient reaches where nothing is decided."""
        return _with_decided(self.inner.for_architecture(supernet, clock), self.settled, supernet)

    def before_step(self, supernet: MixedSupernet) -> None:
        """What belongs to the inner one."""
        self.inner.before_step(supernet)

    def after_step(self, supernet: MixedSupernet) -> None:
        """What belongs to the inner one."""
        self.inner.after_step(supernet)


@dataclass(frozen=True)
class _Undecided(Perturbation):
    """A perturbation that leaves alone what is decided."""

    inner: Perturbation
    settled: Settled = field(repr=False)

    def __call__(
        self, mixing: Mixing, supernet: MixedSupernet, clock: Clock, loss: Callable[[Mixing], Tensor]
    ) -> Mixing:
        """What the inner one makes of it, with decided rows as they were."""

        def decided(other: Mixing) -> Mixing:
            return _with_decided(other, self.settled, supernet)

        return decided(self.inner(mixing, supernet, clock, lambda other: loss(decided(other))))


def _with_decided(mixing: Mixing, settled: Settled, supernet: MixedSupernet) -> Mixing:
    """A mixing where rows that are decided weigh 1 in their option and nothing else of them is executed."""
    decided = settled.tables({name: torch.ones_like(table) for name, table in mixing.weights.items()})
    given = mixing.active or {}
    weights, active = {}, {}
    for name, table in mixing.weights.items():
        fixed = torch.tensor([(name, row) in settled.taken for row in range(len(table))], device=table.device)
        weights[name] = torch.where(fixed[:, None], decided[name], table * decided[name])
        before = given.get(name) or [row.nonzero()[:, 0].tolist() for row in supernet.allowed(name)]
        kept = decided[name].bool().tolist()
        active[name] = tuple(tuple(i for i in row if kept[r][i]) for r, row in enumerate(before))
    return replace(mixing, weights=weights, active=active)


@contextmanager
def _tuning(
    session: SearchSession, how: PerturbationSelection, settled: Settled, times: int
) -> Iterator[Callable[[], None]]:
    """A function that trains for the epochs between two decisions, by the steps of the search itself."""
    plan, relaxation, epoch, optimizer = session.plan, session.relaxation, session.epoch, session.weight_optimizer
    rate = plan.weights.learning_rate * how.learning_rate
    session.weight_optimizer = tuned = plan.weights.optimizer(session.supernet.weight_parameters(), rate)
    least = min(rate, plan.weights.final_learning_rate)
    schedule = CosineAnnealingLR(tuned, max(1, times * how.epochs_between), eta_min=least)
    done = 0

    def tune() -> None:
        nonlocal done
        for _ in range(how.epochs_between):
            session.supernet.train()
            for number, batch in enumerate(session.task.train_batches(epoch + done)):
                session.step(batch, number)
            schedule.step()
            done += 1

    session.relaxation = _Decided(relaxation, settled)
    session.epoch = max(0, epoch - 1)  # what follows the epochs stays where it stood in the last one
    perturbation = None if plan.perturbation is None else _Undecided(plan.perturbation, settled)
    session.plan = replace(plan, perturbation=perturbation)
    for hook in session.hooks:
        hook.before_epoch(session)
    if not how.learns_alphas:
        session.plan = replace(session.plan, architect=None, resource=None)
    try:
        yield tune
    finally:
        session.plan, session.relaxation, session.epoch = plan, relaxation, epoch
        session.weight_optimizer = optimizer
