"""NSGA-II: evolution towards the Pareto front of several objectives.

Paper: Deb, Pratap, Agarwal and Meyarivan, A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE
Transactions on Evolutionary Computation 6, 2002; for architectures: Lu et al., NSGA-Net, GECCO 2019, arXiv:1810.03522,
whose population of 40 is the default (the first paper has 100). Code: pymoo (Blank and Deb, IEEE Access 8, 2020), which
selects, mates and sorts. Differences: crossover and mutation are the space's, no architecture is evaluated twice
(pymoo's default only keeps the population free of duplicates), and what failed counts as worse than all in every
objective.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from naswot.errors import OptionError, missing_package
from naswot.search._unseen import draw_unseen
from naswot.searcher import Proposal, Searcher, Trial, Values, register_searcher
from naswot.seeding import derive_seed
from naswot.space import SearchSpace
from naswot.types import Genotype


@register_searcher
class NSGA2(Searcher):
    """Generations of children; the least dominated survive, and of equals those that are far from others.

    All trials of a generation have to be told before the next is made.

    Args:
        space: what is searched.
        seed: of everything random.
        n_objectives: number of values that are told.
        population: members, and children of a generation.
        mutation: probability that a child is mutated after the crossover.
    Raises:
        OptionError: if the population is below 2 or the probability not within [0, 1].
        MissingPackageError: without pymoo.
    """

    name: ClassVar[str] = "nsga2"
    reference: ClassVar[str] = "Deb et al., IEEE TEC 6, 2002; Lu et al., GECCO 2019, arXiv:1810.03522"
    multi_objective: ClassVar[bool] = True

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        n_objectives: int = 1,
        population: int = 40,
        mutation: float = 1.0,
    ) -> None:
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        if population < 2 or not 0 <= mutation <= 1:
            raise OptionError(
                "expected a population of at least 2 and a probability of mutation in [0, 1], "
                f"but got {population} and {mutation}"
            )
        self._size, self._mutation = population, mutation
        self._tried: set[Genotype] = set()
        self._algorithm = self._set_up()
        self._generation: Any = None  # pymoo's population; its order is that of asking
        self._first = 0  # number of the generation's first trial
        self._n_told = 0

    def propose(self) -> Proposal | None:
        """The next member of the generation; None until all of it was told."""
        if self._generation is None:
            self._generation, self._first = self._next_generation(), self.n_asked
        if self._generation is None:
            return None  # the space is used up
        i = self.n_asked - self._first
        if i >= len(self._generation):
            return None
        return Proposal(tuple(int(gene) for gene in self._generation[i].X))

    def candidates(self, n: int) -> list[Proposal]:  # noqa: ARG002
        """The next member of the generation; it has no alternatives."""
        proposal = self.propose()
        return [] if proposal is None else [proposal]

    def learn(self, trial: Trial, values: Values | None) -> None:
        """Keep the values; with the last of a generation the fittest survive."""
        member = self._generation[self._n_told]
        member.X = np.array(trial.genotype)
        self._n_told += 1
        self._tried.add(trial.genotype)
        member.data["told"] = [-np.inf] * self.n_objectives if values is None else list(values)
        if self._n_told < len(self._generation):
            return
        before = [] if self._algorithm.pop is None else list(self._algorithm.pop)
        members = [*before, *self._generation]
        rows = to_minimise(np.array([member.data["told"] for member in members]))
        for member, row in zip(members, rows, strict=True):
            member.F = row
            member.evaluated.update(("F", "G", "H"))
        self._algorithm.tell(infills=self._generation)
        self._generation, self._n_told = None, 0

    def _set_up(self) -> Any:
        """The algorithm of pymoo with the operators of the space."""
        try:
            from pymoo.algorithms.moo.nsga2 import NSGA2 as ALGORITHM
            from pymoo.config import Config
            from pymoo.core.crossover import Crossover
            from pymoo.core.duplicate import DuplicateElimination
            from pymoo.core.mutation import Mutation
            from pymoo.core.problem import Problem
            from pymoo.core.sampling import Sampling
            from pymoo.core.termination import NoTermination
        except ImportError as error:
            raise missing_package("pymoo", "pymoo", "the search strategy nsga2") from error
        space, rng, draw, tried = self.space, self.rng, self._draw, self._tried

        class Start(Sampling):  # type: ignore[misc]
            def _do(self, problem: Any, n_samples: int, *args: Any, **kwargs: Any) -> NDArray[np.int64]:  # noqa: ARG002
                return np.array(draw(n_samples))

        class Mate(Crossover):  # type: ignore[misc]
            def _do(self, problem: Any, X: Any, *args: Any, **kwargs: Any) -> NDArray[np.int64]:  # noqa: ARG002
                parents = zip(X[0].tolist(), X[1].tolist(), strict=True)
                return np.array([[space.crossover(tuple(a), tuple(b), rng) for a, b in parents]])

        class Mutate(Mutation):  # type: ignore[misc]
            def _do(self, problem: Any, X: Any, *args: Any, **kwargs: Any) -> NDArray[np.int64]:  # noqa: ARG002
                return np.array([space.mutate(tuple(genotype), rng) for genotype in X.tolist()])

        class New(DuplicateElimination):  # type: ignore[misc]
            def _do(self, pop: Any, other: Any, is_duplicate: NDArray[np.bool_]) -> NDArray[np.bool_]:
                known = set(tried) if other is None else {tuple(member.X.tolist()) for member in other}
                for i, genotype in enumerate(tuple(member.X.tolist()) for member in pop):
                    is_duplicate[i] = genotype in known
                    if other is None:
                        known.add(genotype)
                return is_duplicate

        Config.warnings["not_compiled"] = False  # it would be printed
        algorithm = ALGORITHM(
            self._size,
            Start(),
            crossover=Mate(2, 1, prob=1.0),
            mutation=Mutate(prob=self._mutation),
            eliminate_duplicates=New(),
        )
        problem = Problem(n_var=len(space.choices), n_obj=self.n_objectives, xl=0, xu=np.array(space.choices) - 1)
        seed = derive_seed(self.seed, "searcher", self.name, "pymoo")
        return algorithm.setup(problem, seed=seed, termination=NoTermination())

    def _draw(self, n: int) -> list[Genotype]:
        """Up to ``n`` different architectures that were not tried, and all those put in from outside."""
        drawn: list[Genotype] = []
        while len(drawn) < n or self.n_enqueued:
            genotype = draw_unseen(self, self._tried.union(drawn))
            if genotype is None:
                break
            drawn.append(genotype)
        return drawn

    def _next_generation(self) -> Any:
        """Those put in from outside, then children, or random architectures where mating gives nothing new."""
        from pymoo.core.population import Population

        drawn = self._draw(0) if self._algorithm.is_initialized else []  # the first generation draws by itself
        self._tried.update(drawn)
        children = self._algorithm.ask()
        if children is None and not drawn:
            drawn = self._draw(self._size)
        if not drawn:
            return children
        fresh = Population.new(X=np.array(drawn))
        return fresh if children is None else Population.merge(fresh, children)


def to_minimise(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What pymoo can sort: negated, and infinite values a range beyond the finite ones, column by column.

    Beside an infinite value all others would seem equally far from each other.

    Args:
        values: (n, K), higher is better.
    """
    costs = -values
    finite = np.where(np.isfinite(costs), costs, np.nan)
    finite[:, np.isnan(finite).all(axis=0)] = 0.0
    low, high = np.nanmin(finite, axis=0), np.nanmax(finite, axis=0)
    span = np.where(high > low, high - low, 1.0)
    return np.clip(costs, low - span, high + span)
