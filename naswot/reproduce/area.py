"""Searches that train: random search, regularised evolution (REA), and AREA, its start assisted by a score.

Paper: Mellor et al., ICML 2021, arXiv:2006.04647, section 4.1 and Algorithm 2; REA: Real et al., AAAI 2019. Their code
of AREA is not public. A table stands for training, and all runs of a search go side by side as rows of arrays.
Difference: a mutation changes one of all positions, each as likely as the other (the authors' NAS-Bench-201 code draws
a node first and then one of its edges).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from naswot.benchmark import Benchmark
from naswot.errors import DataError

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

POPULATION, SAMPLE, DRAWN = 10, 3, 20
"""Population of REA and AREA, size of a tournament (Dong & Yang's), architectures from which AREA takes its start."""

NOT_TRAINED = -1
"""Fills histories of runs whose budget was spent earlier."""


@dataclass(frozen=True)
class Genes:
    """The architectures of a complete space as an array, to mutate many at once.

    Args:
        genes: (n, L) a genotype in each row.
        choices: (L,) number of options of each position.
        place: row of ``genes`` by the genotype's number in mixed radix.
    """

    genes: Places
    choices: Places
    place: Places

    @classmethod
    def of(cls, benchmark: Benchmark) -> Genes:
        """Those of a benchmark.

        Raises:
            DataError: if it does not hold every combination of its space's choices.
        """
        genes = np.array(list(benchmark.genotypes()), dtype=np.int64)
        choices = np.array(benchmark.space.choices, dtype=np.int64)
        if len(genes) != int(np.prod(choices, dtype=object)):
            raise DataError(f"{benchmark.name} holds {len(genes):,} architectures, but a search needs all of its space")
        place = np.empty(len(genes), dtype=np.int64)
        place[np.ravel_multi_index(tuple(genes.T), tuple(choices))] = np.arange(len(genes))
        return cls(genes, choices, place)

    def mutate(self, parents: Places, rng: np.random.Generator) -> Places:
        """A neighbour of each parent, (R,): one position with a choice is given another of its options."""
        free = np.flatnonzero(self.choices > 1)
        position = free[rng.integers(len(free), size=len(parents))]
        child = self.genes[parents]
        run = np.arange(len(parents))
        options = self.choices[position]
        child[run, position] = (child[run, position] + 1 + rng.integers(options - 1)) % options
        changed: Places = self.place[np.ravel_multi_index(tuple(child.T), tuple(self.choices))]
        return changed


def best_scored(drawn: Places, scores: Floats, keep: int) -> Places:
    """The ``keep`` best by score of each run's draw, (R, keep), in the order in which they were drawn.

    Args:
        drawn: (R, M) architectures.
        scores: (n,) of all architectures; -inf comes last. Of equal scores the one drawn first is kept.
        keep: how many.
    """
    by_score = np.argsort(-scores[drawn], axis=1, kind="stable")[:, :keep]
    chosen: Places = np.take_along_axis(drawn, np.sort(by_score, axis=1), axis=1)
    return chosen


def evolve(
    initial: Places,
    genes: Genes,
    accuracy: Floats,
    seconds: Floats,
    *,
    budget: float,
    rng: np.random.Generator,
    sample: int = SAMPLE,
    spent: Floats | float = 0.0,
) -> Places:
    """Regularised evolution: the best of a random few has a child, and the oldest dies, however good it is.

    Args:
        initial: (R, P) first population of each run, the oldest first; it is trained too.
        genes: of all n architectures.
        accuracy: (n,) what training gives.
        seconds: (n,) what training takes.
        budget: seconds; the first training that does not fit ends a run.
        rng: of tournaments and mutations.
        sample: members of a tournament, drawn without replacement; of equal ones the first drawn wins.
        spent: (R,) or one number: seconds that each run has used already.
    Returns:
        (R, T) what each run trained, in order, then ``NOT_TRAINED``.
    """
    runs, size = initial.shape
    used = np.cumsum(seconds[initial], axis=1) + np.broadcast_to(spent, runs)[:, None]
    history = [np.where(used <= budget, initial, NOT_TRAINED)]
    population, used_so_far = initial.copy(), used[:, -1]
    going = used_so_far <= budget
    oldest = 0
    while going.any():
        drawn = np.argsort(rng.random((runs, size)), axis=1)[:, :sample]
        members = np.take_along_axis(population, drawn, axis=1)
        parents = members[np.arange(runs), accuracy[members].argmax(axis=1)]
        children = genes.mutate(parents, rng)
        used_so_far = used_so_far + seconds[children]
        going &= used_so_far <= budget
        population[going, oldest] = children[going]
        history.append(np.where(going, children, NOT_TRAINED)[:, None])
        oldest = (oldest + 1) % size
    return np.concatenate(history, axis=1)


def random_search(
    n: int, seconds: Floats, *, runs: int, budget: float, rng: np.random.Generator, spent: Floats | float = 0.0
) -> Places:
    """Architectures drawn with replacement and trained until the budget is used; result as of :func:`evolve`."""
    most = max(1, int(budget // seconds.min()))
    drawn = rng.integers(n, size=(runs, most))
    used = np.cumsum(seconds[drawn], axis=1) + np.broadcast_to(spent, runs)[:, None]
    return np.where(used <= budget, drawn, NOT_TRAINED)


def best_trained(history: Places, accuracy: Floats) -> Places:
    """The most accurate of what each run trained, (R,); of equal ones the earliest."""
    reached = np.where(history == NOT_TRAINED, -np.inf, accuracy[history])
    best: Places = history[np.arange(len(history)), reached.argmax(axis=1)]
    return best
