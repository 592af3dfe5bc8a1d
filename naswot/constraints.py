"""Limits on what an architecture may cost: a space in which only affordable architectures are valid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import nn

from naswot.benchmark import Benchmark
from naswot.errors import ArchitectureError, OptionError
from naswot.evaluate import Evaluator, Images, Store
from naswot.space import SearchSpace
from naswot.types import Evaluation, Genotype

Cost = Callable[[Genotype], float]
"""What an architecture costs, such as its parameters, MACs, or milliseconds."""

_TRIES = 1000  # random architectures without an affordable one, after which limits count as impossible
_MOVES = 100  # changes of one architecture without an affordable one, after which a fresh one is drawn


class ConstrainedSpace(SearchSpace):
    """A space in which an architecture is valid if every cost is within its limit.

    Every strategy keeps to the limits without knowing of them. Costs are worked out once for each architecture.

    Args:
        space: the whole space.
        limits: the most that is allowed, by name of the cost.
        costs: functions by the same names; see :func:`network_costs`.
    Raises:
        OptionError: if a limit has no cost of its name, or is not positive.
    """

    name = ""  # that of the whole space; see __init__
    reference = ""

    def __init__(self, space: SearchSpace, limits: Mapping[str, float], costs: Mapping[str, Cost]) -> None:
        for what, limit in limits.items():
            if what not in costs:
                raise OptionError(f"there is no cost {what!r} to limit; there are {', '.join(costs) or 'none'}")
            if not limit > 0:
                raise OptionError(f"expected a limit of {what} above 0, but got {limit}")
        self.inner, self.limits, self._costs = space, dict(limits), dict(costs)
        self.name, self.reference, self.choices = space.name, space.reference, space.choices  # type: ignore[misc]
        self.input_size, self.input_kind = space.input_size, space.input_kind  # type: ignore[misc]
        self.example_inputs = space.example_inputs  # type: ignore[method-assign]
        self.build = space.build  # type: ignore[method-assign]  # with all options of the whole space
        self._known: dict[tuple[str, Genotype], float] = {}

    def cost(self, what: str, genotype: Genotype) -> float:
        """One cost of an architecture of the whole space."""
        key = what, genotype
        if key not in self._known:
            self._known[key] = self._costs[what](genotype)
        return self._known[key]

    def is_valid(self, genotype: Genotype) -> bool:
        """Whether the whole space contains it and it is affordable."""
        return self.inner.is_valid(genotype) and self._affordable(genotype)

    def _affordable(self, genotype: Genotype) -> bool:
        return all(self.cost(what, genotype) <= limit for what, limit in self.limits.items())

    def check(self, genotype: Genotype) -> Genotype:
        """``genotype`` as plain integers.

        Raises:
            ArchitectureError: if the whole space does not contain it, or it costs too much.
        """
        plain = self.inner.check(genotype)
        for what, limit in self.limits.items():
            if self.cost(what, plain) > limit:
                raise ArchitectureError(
                    f"{self.format(plain)} has {what} {self.cost(what, plain):,.6g}; at most {limit:,.6g} is allowed"
                )
        return plain

    def sample(self, rng: np.random.Generator) -> Genotype:
        """A random affordable architecture.

        Raises:
            OptionError: if none of 1,000 random architectures is; it names the least costs met.
        """
        least = dict.fromkeys(self.limits, float("inf"))
        for _ in range(_TRIES):
            genotype = self.inner.sample(rng)
            if self._affordable(genotype):
                return genotype
            least = {what: min(low, self.cost(what, genotype)) for what, low in least.items()}
        told = ", ".join(f"{what} <= {self.limits[what]:,.6g} (least met {low:,.6g})" for what, low in least.items())
        raise OptionError(
            f"impossible constraint: none of {_TRIES:,} random architectures of {self.name} has {told}; relax it"
        )

    def mutate(self, genotype: Genotype, rng: np.random.Generator) -> Genotype:
        """An affordable mutant; a fresh random architecture where 100 mutants were not."""
        for _ in range(_MOVES):
            changed = self.inner.mutate(genotype, rng)
            if self._affordable(changed):
                return changed
        return self.sample(rng)

    def crossover(self, first: Genotype, second: Genotype, rng: np.random.Generator) -> Genotype:
        """An affordable child; the first parent where 100 children were not."""
        for _ in range(_MOVES):
            child = self.inner.crossover(first, second, rng)
            if self._affordable(child):
                return child
        return first

    def neighbours(self, genotype: Genotype) -> list[Genotype]:
        """The affordable ones."""
        return [other for other in self.inner.neighbours(genotype) if self._affordable(other)]

    def genotypes(self) -> Iterator[Genotype]:
        """All affordable ones in lexicographic order."""
        return (genotype for genotype in self.inner.genotypes() if self._affordable(genotype))

    def build(self, genotype: Genotype, *, n_classes: int = 10, in_channels: int = 3) -> nn.Module:
        """Untrained network, as the whole space builds it, with all of its options."""
        return self.inner.build(genotype, n_classes=n_classes, in_channels=in_channels)

    def format(self, genotype: Genotype) -> str:
        """Canonical string, that of the whole space."""
        return self.inner.format(genotype)

    def parse(self, text: str) -> Genotype:
        """Genotype of an architecture string, affordable or not."""
        return self.inner.parse(text)

    def canonical(self, genotype: Genotype) -> object:
        """Key shared by isomorphic architectures."""
        return self.inner.canonical(genotype)

    def pruned(self, genotype: Genotype) -> object:
        """Key of what is left without dead parts."""
        return self.inner.pruned(genotype)

    def spellings(self, genotype: Genotype) -> Iterator[Genotype]:
        """All genotypes of the same architecture."""
        return self.inner.spellings(genotype)

    def representative(self, genotype: Genotype) -> Genotype:
        """One member of the class of equal networks."""
        return self.inner.representative(genotype)

    def __getattr__(self, name: str) -> Any:
        """What only the whole space has; of what makes architectures, that which keeps to the limits."""
        if name == "inner":  # not there yet, as while unpickling
            raise AttributeError(name)
        found = getattr(self.inner, name)
        if name == "propose_mutation":
            return self._propose_mutation
        if name == "start" and not self._affordable(found()):
            raise AttributeError(f"the first architecture of {self.name} is not affordable")
        return found

    def _propose_mutation(self, genotype: Genotype, rng: np.random.Generator) -> tuple[Genotype, bool]:
        mutate: Callable[..., tuple[Genotype, bool]] = getattr(self.inner, "propose_mutation")  # noqa: B009
        for _ in range(_MOVES):
            changed, inherits = mutate(genotype, rng)
            if self._affordable(changed):
                return changed, inherits
        return self.sample(rng), False


def network_costs(space: SearchSpace, images: Images, *, build: Mapping[str, Any] | None = None) -> dict[str, Cost]:
    """Parameters P and MACs of one image, ``params`` and ``flops``, taken from the built network.

    Args:
        space: the whole space.
        images: of the size that the networks will see.
        build: keyword options of ``space.build``.
    """

    def cost(what: str) -> Cost:
        counter = Evaluator(space, images, (what,), batch_size=1, build=build or {})
        return lambda genotype: counter(genotype).scores.get(what, float("inf"))

    return {what: cost(what) for what in ("params", "flops")}


class StoredCost:
    """A cost that is measured and so never the same twice: taken once for each architecture, and kept.

    Args:
        name: of the score under which a store keeps it.
        measure: takes it.
        space: whose architectures they are.
        seed: of the search.
        store: where it is looked up and kept; may be set later, and is left behind on the way to other processes.
    """

    def __init__(
        self, name: str, measure: Cost, space: SearchSpace, *, seed: int = 0, store: Store | None = None
    ) -> None:
        self.name, self.store, self._measure, self._space, self._seed = name, store, measure, space, seed
        self._known: dict[Genotype, float] = {}

    def __call__(self, genotype: Genotype) -> float:
        """The cost, from memory, the store, or a measurement."""
        if genotype not in self._known:
            self._known[genotype] = self._stored(genotype)
        return self._known[genotype]

    def _stored(self, genotype: Genotype) -> float:
        arch = self._space.format(genotype)
        kept = None if self.store is None else self.store.get(arch, self._seed)
        if kept is not None and self.name in kept.scores:
            return kept.scores[self.name]
        value = self._measure(genotype)
        if self.store is not None:
            self.store.append(Evaluation(genotype, arch, {self.name: value}, {}, self._seed))
        return value

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "store": None}


class _Held(ConstrainedSpace):
    """The architectures of a benchmark."""

    def __init__(self, benchmark: Benchmark) -> None:
        super().__init__(
            benchmark.space, {"missing": 0.5}, {"missing": lambda genotype: float(genotype not in benchmark)}
        )
        self._held = list(benchmark.genotypes())

    @property
    def size(self) -> int:
        return len(self._held)

    def sample(self, rng: np.random.Generator) -> Genotype:
        return self._held[int(rng.integers(len(self._held)))]

    def genotypes(self) -> Iterator[Genotype]:
        return iter(sorted(self._held))


def space_held(benchmark: Benchmark) -> SearchSpace:
    """The space of a benchmark, or the part of it that the benchmark holds, if that is not all.

    Its sample is uniform over what the benchmark holds; a mutant that it does not hold gives way to another one, and in
    the end to a sample.
    """
    return benchmark.space if len(benchmark) >= benchmark.space.size else _Held(benchmark)
