"""The searcher: proposes architectures, learns from results; whoever evaluates them stands outside."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from naswot.errors import InputError, OptionError
from naswot.registry import Registry
from naswot.seeding import derive_seed, numpy_generator
from naswot.space import SearchSpace, get_space
from naswot.types import Genotype

Values = tuple[float, ...]
"""Value of each objective; higher is better."""


class Proposal(NamedTuple):
    """What a strategy would like to have evaluated.

    Args:
        genotype: the architecture.
        epochs: how long it is to be trained; None leaves it to the evaluator.
        parent: number of the trial whose trained weights it may inherit.
    """

    genotype: Genotype
    epochs: int | None = None
    parent: int | None = None


@dataclass(frozen=True)
class Trial:
    """A numbered proposal that waits for its result.

    Args:
        number: from 0, in the order of asking.
        genotype: the architecture.
        epochs: how long it is to be trained; None leaves it to the evaluator.
        parent: number of the trial whose trained weights it may inherit.
    """

    number: int
    genotype: Genotype
    epochs: int | None = None
    parent: int | None = None


class Scorer(Protocol):
    """Scores untrained architectures for a strategy, such as :class:`naswot.assisted.ProxyScorer`.

    ``n_scored`` and ``seconds`` tell how many different ones it has scored and what that took.
    """

    @property
    def n_scored(self) -> int:
        """Different architectures scored so far."""
        ...

    @property
    def seconds(self) -> float:
        """What they took."""
        ...

    def __call__(self, genotypes: Sequence[Genotype]) -> list[float]:
        """One score for each, higher is better; -inf for what cannot be scored."""
        ...


class Searcher(ABC):
    """A search strategy by ask and tell.

    ``ask`` gives the next trial, ``tell`` brings its values; results may come late and in any order, but the strategy
    learns them in the order of asking. A loop that asks again only while fewer than k trials are asked and not yet
    learned gets a search that depends on k and the seed alone; it is resumed by asking again and telling what is known.

    A subclass writes :meth:`propose` and :meth:`learn`; it draws its random architectures by :meth:`draw`, so that
    those put in by :meth:`enqueue` come first. It may draw from ``self.rng`` only. A proposal need not become a trial:
    what was really asked is counted by ``n_asked``, and what came back arrives in ``learn``.

    Args:
        space: what is searched.
        seed: of everything random.
        n_objectives: number of values that are told.
    Raises:
        OptionError: if the strategy cannot handle the space or the number of objectives.
    """

    name: ClassVar[str]
    reference: ClassVar[str]
    multi_objective: ClassVar[bool] = False
    ends: bool = False
    """Whether the strategy has nothing left to propose after some trials, so that it needs no budget."""

    def __init__(self, space: SearchSpace, *, seed: int = 0, n_objectives: int = 1) -> None:
        if n_objectives < 1 or (n_objectives > 1 and not self.multi_objective):
            raise OptionError(
                f"{self.name} searches for one objective, but got {n_objectives}; nsga2 takes several, or name one "
                "weighted sum such as 'valid_accuracy - 1e-7 * flops'"
            )
        self.space, self.seed, self.n_objectives = space, seed, n_objectives
        self.rng: np.random.Generator = numpy_generator(derive_seed(seed, "searcher", self.name))
        self._enqueued: deque[Genotype] = deque()
        self._open: dict[int, Trial] = {}
        self._early: dict[int, Values | None] = {}  # told before an earlier trial was
        self.scorer: Scorer | None = None
        self.n_asked = 0  # trials so far
        self._n_learned = 0
        self._asked: dict[int, Trial] = {}  # not learned yet

    def __init_subclass__(cls) -> None:
        if not hasattr(cls, "name"):
            cls.name = cls.__name__  # what is not registered need not be named

    # ------------------------------------------------------------------------------------------ what a strategy writes

    @abstractmethod
    def propose(self) -> Proposal | None:
        """The next proposal; None while results of open trials are needed first, or if there is nothing left."""

    @abstractmethod
    def learn(self, trial: Trial, values: Values | None) -> None:
        """Take in the values of a trial, in the order of asking; None: it failed."""

    def candidates(self, n: int) -> list[Proposal]:
        """Up to ``n`` alternatives for the next trial, of which one will be evaluated and the others forgotten.

        What was put in from outside has none.
        """
        found = (self.propose() for _ in range(1 if self.n_enqueued else n))
        return [proposal for proposal in found if proposal is not None]

    # --------------------------------------------------------------------------------------------- what strategies use

    def queued(self) -> Genotype | None:
        """The next architecture that was put in from outside, if there is one."""
        return self._enqueued.popleft() if self._enqueued else None

    def draw(self) -> Genotype:
        """The next architecture put in from outside, or else a random one."""
        queued = self.queued()
        return self.space.sample(self.rng) if queued is None else queued

    # ------------------------------------------------------------------------------------------------- from outside

    def enqueue(self, genotypes: Iterable[Genotype]) -> None:
        """Let these architectures be proposed before the strategy draws random ones of its own."""
        self._enqueued.extend(self.space.check(genotype) for genotype in genotypes)

    @property
    def n_enqueued(self) -> int:
        """How many architectures put in from outside wait to be proposed."""
        return len(self._enqueued)

    @property
    def planned(self) -> int | None:
        """How many trials there will be at most, where that is known beforehand."""
        return None

    @property
    def scoring_seconds(self) -> float:
        """Seconds that the strategy itself has spent on scores of untrained networks."""
        return 0.0 if self.scorer is None else self.scorer.seconds

    @property
    def n_scored(self) -> int:
        """How many architectures the strategy itself has scored untrained."""
        return 0 if self.scorer is None else self.scorer.n_scored

    @property
    def n_open(self) -> int:
        """Trials that were asked and not told."""
        return len(self._open)

    def ask(self) -> Trial | None:
        """The next trial.

        Returns:
            None while results of open trials are needed first; with none open, when nothing is left to propose.
        """
        proposal = self.propose()
        return None if proposal is None else self.submit(proposal)

    def submit(self, proposal: Proposal | Genotype) -> Trial:
        """Make a trial of a proposal, or of a bare genotype."""
        proposal = proposal if isinstance(proposal, Proposal) else Proposal(proposal)
        trial = Trial(self.n_asked, self.space.check(proposal.genotype), proposal.epochs, proposal.parent)
        self.n_asked += 1
        self._open[trial.number] = self._asked[trial.number] = trial
        return trial

    def tell(self, trial: Trial, values: float | Sequence[float] | None) -> None:
        """Bring the values of an open trial.

        Args:
            trial: as ``ask`` gave it.
            values: one for each objective, higher is better; -inf is the worst there is; None: it failed.
        Raises:
            InputError: if the trial is not open, or the values are NaN or of another number.
        """
        if self._open.get(trial.number) != trial:
            raise InputError(f"trial {trial.number} is not open: it was told before, or comes from another searcher")
        plain: Values | None = None
        if values is not None:
            plain = tuple(map(float, (values,) if np.ndim(values) == 0 else values))  # type: ignore[arg-type]
            if len(plain) != self.n_objectives or any(map(math.isnan, plain)):
                raise InputError(
                    f"expected {self.n_objectives} numbers for trial {trial.number}, but got {plain}; tell None for "
                    "what failed"
                )
        del self._open[trial.number]
        self._early[trial.number] = plain
        while self._n_learned in self._early:
            number = self._n_learned
            self._n_learned += 1
            self.learn(self._asked.pop(number), self._early.pop(number))


searchers: Registry[type[Searcher]] = Registry("search strategy", "naswot.searchers", "naswot list searchers")


def register_searcher(cls: type[Searcher]) -> type[Searcher]:
    """Class decorator: make a strategy findable under its ``name``."""
    searchers.register(cls.name, cls)
    return cls


def get_searcher(
    name: str, space: SearchSpace | str, *, seed: int = 0, n_objectives: int = 1, **options: Any
) -> Searcher:
    """A new searcher of that name.

    Args:
        name: the strategy.
        space: what is searched; the name of a space will do.
        seed: of everything random.
        n_objectives: number of values that will be told.
        options: keyword options of the strategy, such as ``population=50``.
    Raises:
        UnknownNameError: if there is no such strategy.
        OptionError: if it has no such option.
    """
    cls = searchers.get(name)
    offered = searcher_options(name)
    for option, value in options.items():
        if option not in offered:
            raise OptionError(f"{name} has no option {option!r}; it offers {', '.join(offered) or 'none'}")
        if isinstance(offered[option], int | float) and not isinstance(value, int | float):
            kind = type(offered[option]).__name__
            raise OptionError(f"option {option!r} of {name} is a number ({kind}), but got {value!r}")
    whole = get_space(space) if isinstance(space, str) else space
    return cls(whole, seed=seed, n_objectives=n_objectives, **options)


def searcher_options(name: str) -> dict[str, Any]:
    """Options of a strategy with their defaults."""
    parameters = inspect.signature(searchers.get(name).__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in ("self", "space", "seed", "n_objectives")}


def list_searchers(pattern: str = "*", *, without: Sequence[str] = ()) -> list[str]:
    """Names of the installed search strategies."""
    return searchers.names(pattern, without=without)
