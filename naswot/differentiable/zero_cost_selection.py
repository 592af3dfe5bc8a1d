"""Selections by zero-cost scores: of single operations in an untrained supernet, and of the epochs' architectures.

Paper: Xiang et al., Zero-Cost Operation Scoring in Differentiable Architecture Search, AAAI 2023, arXiv:2106.06799
(Zero-Cost-PT). Original code: github.com/zerocostptnas/zerocost_operation_score, of which a copy was looked at. As
there, 10 proposals come from one untrained supernet, each with a random order of the rows and another batch for each
decision, and the best of them is that of largest mean score over 100 batches; the score called ``jacob`` there is
NASWOT. Differences: all options weigh exactly the same at first; normalisation layers use the statistics of the batch,
as this score otherwise does; operations that weigh 0 are not executed, and those that no architecture can take
(``none`` in the DARTS space) are not taken. :class:`BestScoredEpoch` is our own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from naswot.differentiable._untrained import BuildOptions, best, check_scorable, untrained_scores
from naswot.differentiable.decisions import Settled, decisions_of
from naswot.differentiable.operation_scores import DEFAULT_PROXY, as_proxy, batch_of, score_of, score_or_worst
from naswot.differentiable.perturbation_selection import rounds_of, settle
from naswot.differentiable.plan import Selection
from naswot.differentiable.relaxations import equal_weights
from naswot.errors import OptionError
from naswot.proxy import Proxy
from naswot.seeding import derive_seed, seeded
from naswot.supernet import MixedSupernet, Mixing
from naswot.types import Batch, Genotype

if TYPE_CHECKING:
    from naswot.differentiable.session import SearchSession


@dataclass(frozen=True)
class ZeroCostPerturbation(Selection):
    """Zero-Cost-PT: decides by scores of an untrained supernet, several times, and keeps the proposal of best score.

    Nothing is trained: the supernet of the search, if there was one, is not looked at. One proposal takes one pass of
    the proxy for each option and edge (2 x (14 x 7 + 12) for DARTS), and each distinct proposal ``validations`` passes.

    Args:
        proxy: see ``naswot list proxies``.
        proposals: architectures to choose from.
        validations: batches on which the untrained networks of the proposals are scored.
        build: options of ``space.build`` for these networks; where it shares options with the supernet, such as
            ``width``, these are the default.
    Raises:
        OptionError: if there is nothing to choose from, or by.
    """

    proxy: str | Proxy = DEFAULT_PROXY
    proposals: int = 10
    validations: int = 100
    build: BuildOptions = ()

    needs_search: ClassVar[bool] = False
    needs_alphas: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if min(self.proposals, self.validations) < 1:
            raise OptionError(
                "expected proposals and validations of at least 1 each, but got "
                f"{self.proposals} and {self.validations}"
            )

    def begin(self, session: SearchSession) -> None:
        """Refuse a proxy or options by which nothing can be scored."""
        check_scorable(session, self.proxy, self.build)

    def select(self, session: SearchSession) -> Genotype:
        """The proposal of best mean score; the first of several."""
        found = list(dict.fromkeys(self.proposed(session)))
        if len(found) == 1:
            return found[0]
        batches = [batch_of(session.task.valid_batch(step)) for step in range(self.validations)]
        return found[best(untrained_scores(session, found, self.proxy, batches=batches, build=self.build))]

    def proposed(self, session: SearchSession) -> Iterator[Genotype]:
        """The architectures that an untrained supernet proposes, one for each order of its rows."""
        with seeded(derive_seed(session.seed, "zero-cost perturbation")):
            supernet = session.build_supernet().to(session.device)
        decisions, proxy = decisions_of(supernet), as_proxy(self.proxy)
        weights = equal_weights(supernet)
        score_of(supernet.at(Mixing(weights)), batch_of(session.task.valid_batch(0)), proxy)  # or say why it has none
        step = 0
        for number in range(self.proposals):
            settled = Settled(decisions)
            for places in rounds_of(settled, derive_seed(session.seed, "zero-cost perturbation", number)):
                judge = _Score(supernet, batch_of(session.task.valid_batch(step)), proxy, session.seed)
                step += 1
                for place in places:
                    settle(settled, place, weights, judge)
            yield settled.genotype(supernet)


@dataclass(frozen=True)
class _Score:
    """The score of a supernet at a mixing, larger is better."""

    supernet: MixedSupernet
    batch: Batch
    proxy: Proxy
    seed: int

    def __call__(self, mixing: Mixing) -> tuple[float, ...]:
        found = score_or_worst(self.supernet.at(mixing), self.batch, self.proxy, seed=self.seed)
        return (found if self.proxy.higher_is_better else -found,)


@dataclass(frozen=True)
class BestScoredEpoch(Selection):
    """Of the architectures that the alphas told after the epochs, that of best score; of equal ones the latest.

    Args:
        proxy: see ``naswot list proxies``; scores are of untrained networks of their own, not of the supernet.
        build: options of ``space.build`` for these networks; where it shares options with the supernet, such as
            ``width``, these are the default.
    """

    proxy: str | Proxy = DEFAULT_PROXY
    build: BuildOptions = ()

    def begin(self, session: SearchSession) -> None:
        """Refuse a proxy or options by which nothing can be scored."""
        check_scorable(session, self.proxy, self.build)

    def select(self, session: SearchSession) -> Genotype:
        """The architecture; its last epoch becomes the one that counts."""
        last = {row["arch"]: row["epoch"] for row in session.history if row["arch"]}
        archs = sorted(last, key=lambda arch: last[arch], reverse=True)
        found = [session.space.parse(arch) for arch in archs]
        batches = [batch_of(session.task.fixed_batch())]
        first = best(untrained_scores(session, found, self.proxy, batches=batches, build=self.build))
        session.result_epoch = last[archs[first]]
        return found[first]
