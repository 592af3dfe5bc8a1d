"""Zero-cost help for any search strategy: scores of untrained networks choose what is worth a training.

Sources: the start of AREA (Mellor et al., ICML 2021, arXiv:2006.04647, Algorithm 2); warm-up pools and move proposals
(Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021, arXiv:2101.08134, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import ClassVar

import numpy as np

from naswot.errors import OptionError
from naswot.evaluate import Evaluator, Store
from naswot.proxy import get_proxy
from naswot.run import sample_distinct
from naswot.searcher import Proposal, Scorer, Searcher, Trial, Values
from naswot.space import SearchSpace
from naswot.types import Evaluation, Genotype


class ProxyScorer:
    """Scores architectures by a proxy, each one once.

    Args:
        evaluator: what is scored and how.
        proxy: name of the score that counts, by default the evaluator's first.
        store: known scores come from it, new ones go to it.
        executor: runs the evaluations; None: this process.
        on_scored: called with every evaluation, for a progress bar.
    Raises:
        OptionError: if the evaluator gives no such score.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        proxy: str | None = None,
        *,
        store: Store | None = None,
        executor: Executor | None = None,
        on_scored: Callable[[Evaluation], None] = lambda evaluation: None,
    ) -> None:
        self.evaluator, self.proxy = evaluator, proxy or evaluator.names[0]
        if self.proxy not in evaluator.names:
            raise OptionError(f"expected one of the scores {', '.join(evaluator.names)}, but got {self.proxy!r}")
        self._sign = 1.0 if get_proxy(self.proxy).higher_is_better else -1.0
        self.store, self.executor, self.on_scored = store, executor, on_scored
        self._known: dict[Genotype, float] = {}
        self.seconds = 0.0

    @property
    def n_scored(self) -> int:
        """Different architectures scored so far."""
        return len(self._known)

    def __call__(self, genotypes: Sequence[Genotype]) -> list[float]:
        """One score for each, higher is better; -inf for what cannot be scored."""
        unknown = [genotype for genotype in dict.fromkeys(genotypes) if genotype not in self._known]
        for found in self.evaluator.map(unknown, store=self.store, executor=self.executor):
            value = found.scores.get(self.proxy)
            self._known[found.genotype] = -math.inf if value is None else self._sign * value
            self.on_scored(found)
            self.seconds += found.seconds.get("build", 0.0) + found.seconds.get("score", 0.0)
        return [self._known[genotype] for genotype in genotypes]


class TableScorer:
    """Scores that are known beforehand, each with the seconds it took.

    Args:
        scores: higher is better.
        seconds: for one architecture.
    """

    def __init__(self, scores: Mapping[Genotype, float], *, seconds: float | Mapping[Genotype, float] = 0.0) -> None:
        self._scores, self._seconds = scores, seconds
        self._asked: set[Genotype] = set()
        self.seconds = 0.0

    @property
    def n_scored(self) -> int:
        """Different architectures scored so far."""
        return len(self._asked)

    def __call__(self, genotypes: Sequence[Genotype]) -> list[float]:
        """One score for each; -inf for what is not known."""
        for genotype in genotypes:
            if genotype not in self._asked:
                self._asked.add(genotype)
                known = self._seconds
                self.seconds += known.get(genotype, 0.0) if isinstance(known, Mapping) else known
        return [self._scores.get(genotype, -math.inf) for genotype in genotypes]


def best_scored(genotypes: Sequence[Genotype], scorer: Scorer, keep: int) -> list[Genotype]:
    """The ``keep`` best by score, best first; of equal scores the one that comes first."""
    scores = scorer(genotypes)
    order = sorted(range(len(genotypes)), key=lambda i: -scores[i])
    return [genotypes[i] for i in order[:keep]]


class Assisted(Searcher):
    """A strategy with zero-cost help; each kind can be used alone or with the others.

    Args:
        searcher: any strategy; it sees the results as it would without help.
        scorer: scores untrained architectures.
        warm_up: score this many distinct random architectures before the first trial ...
        keep: ... and propose the best so many of them, best first, in the place of the strategy's random start
            (warm_up=20, keep=10 before regularised evolution is AREA).
        prescreen: of so many alternatives for a trial, such as the children of a population, only the one with the
            best score becomes a trial, of those that were not tried before if there are any. Large numbers let the
            score alone decide, whatever the strategy learns.
        reject_below: a trial whose score lies below this quantile of the warm-up pool's scores (of 100 random
            architectures without a pool) is dropped before any training, and the strategy is asked again.
    Raises:
        OptionError: if a number is out of range, or nothing is asked for.
    """

    name: ClassVar[str] = "assisted"
    reference: ClassVar[str] = "Abdelfattah et al., ICLR 2021, arXiv:2101.08134"
    multi_objective: ClassVar[bool] = True
    patience: ClassVar[int] = 20
    """Rejections in a row after which the best of the last alternatives is accepted."""

    def __init__(
        self,
        searcher: Searcher,
        scorer: Scorer,
        *,
        warm_up: int = 0,
        keep: int = 10,
        prescreen: int = 1,
        reject_below: float | None = None,
    ) -> None:
        super().__init__(searcher.space, seed=searcher.seed, n_objectives=searcher.n_objectives)
        if warm_up and not 1 <= keep <= warm_up:
            raise OptionError(f"expected 1 <= keep <= warm_up, but got keep {keep} and warm_up {warm_up}")
        if warm_up < 0 or prescreen < 1:
            raise OptionError(f"expected warm_up >= 0 and prescreen >= 1, but got {warm_up} and {prescreen}")
        if not 0 <= (reject_below or 0.0) < 1:
            raise OptionError(f"expected reject_below, a quantile, in [0, 1), but got {reject_below}")
        if warm_up == 0 and prescreen == 1 and reject_below is None:
            raise OptionError("no help was asked for: give warm_up=, prescreen= or reject_below=")
        self.inner, self.ends = searcher, searcher.ends
        self.scorer: Scorer = scorer
        self._tried: set[Genotype] = set()
        self._warm_up, self._keep, self._prescreen, self._quantile = warm_up, keep, prescreen, reject_below
        self._threshold: float | None = None
        self.n_rejected = 0

    def propose(self) -> Proposal | None:
        """The inner strategy's choice, after the help."""
        if self._threshold is None:
            self._threshold = self._begin()
        if self.inner.n_enqueued:
            return self.inner.propose()
        for attempt in range(self.patience):
            candidates = self._new_ones(self.inner.candidates(self._prescreen))
            if not candidates:
                return None
            if len(candidates) == 1 and self._threshold == -math.inf:
                return candidates[0]
            scores = self.scorer([candidate.genotype for candidate in candidates])
            best = max(range(len(scores)), key=scores.__getitem__)
            if scores[best] >= self._threshold or attempt == self.patience - 1:
                return candidates[best]
            self.n_rejected += 1
        raise AssertionError("the loop returns in its last round")

    def _new_ones(self, candidates: list[Proposal]) -> list[Proposal]:
        """Those that were not tried yet, if there are any: else the best score of all would be tried for ever."""
        return [one for one in candidates if one.genotype not in self._tried] or candidates

    def _begin(self) -> float:
        """Warm up; returns the score below which trials are dropped."""
        n = self._warm_up or (100 if self._quantile is not None else 0)
        if n == 0:
            return -math.inf
        pool = sample_distinct(self.space, n, seed=self.seed, at_most=True)
        if self._warm_up:
            self.inner.enqueue(best_scored(pool, self.scorer, self._keep))
        if self._quantile is None:
            return -math.inf
        return float(np.quantile(self.scorer(pool), self._quantile, method="lower"))

    def submit(self, proposal: Proposal | Genotype) -> Trial:
        """The inner strategy's trial."""
        proposal = proposal if isinstance(proposal, Proposal) else Proposal(proposal)
        self.n_asked += 1
        self._tried.add(proposal.genotype)
        return self.inner.submit(proposal)

    def tell(self, trial: Trial, values: float | Sequence[float] | None) -> None:
        """Hand the values on."""
        self.inner.tell(trial, values)

    def learn(self, trial: Trial, values: Values | None) -> None:
        """Hand the values on; ``tell`` does so already."""
        self.inner.learn(trial, values)

    def enqueue(self, genotypes: Sequence[Genotype]) -> None:  # type: ignore[override]
        """Put architectures before the inner strategy's random ones."""
        self.inner.enqueue(genotypes)

    @property
    def n_enqueued(self) -> int:
        """How many architectures wait in the inner strategy."""
        return self.inner.n_enqueued

    @property
    def n_open(self) -> int:
        """Trials that were asked and not told."""
        return self.inner.n_open

    @property
    def planned(self) -> int | None:
        """Trials of the inner strategy."""
        return self.inner.planned


def needs_scorer(name: str, scorer: Scorer | None, space: SearchSpace) -> Scorer:
    """The scorer of a strategy that cannot do without one.

    Raises:
        OptionError: if there is none.
    """
    if scorer is None:
        raise OptionError(
            f"{name} scores untrained architectures of {space.name}; pass scorer=, such as "
            "naswot.assisted.ProxyScorer(evaluator)"
        )
    return scorer
