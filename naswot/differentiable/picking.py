"""Selections that compare single architectures by the weights of the supernet: the best of some, or an evolution.

Papers: Li & Talwalkar, Random Search and Reproducibility for Neural Architecture Search, UAI 2019, arXiv:1902.07638,
and Dong & Yang, SETN, ICCV 2019, arXiv:1910.05733 (best of some); Guo et al., Single Path One-Shot Neural Architecture
Search with Uniform Sampling, ECCV 2020, arXiv:1904.00420 (evolution; statistics of the normalisation found anew for
each architecture). Original codes: github.com/liamcli/randomNAS_release, github.com/D-X-Y/AutoDL-Projects,
github.com/megvii-model/SinglePathOneShot. Differences: all architectures are compared on the same images, and get their
statistics from the same batches. The first of these codes takes the statistics of the supernet as they are, the second
those of the batch that is looked at.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import TYPE_CHECKING, ClassVar, Final

import torch
from torch import nn

from naswot.constraints import ConstrainedSpace
from naswot.differentiable.paths import CostWindow, Proposes, drawn_from_alphas, open_space
from naswot.differentiable.plan import Selection
from naswot.errors import NaswotError, OptionError
from naswot.preserve import Buffers, in_mode, modules_of
from naswot.searcher import Trial, get_searcher
from naswot.searching import run_search
from naswot.seeding import derive_seed
from naswot.types import Evaluation, Genotype

if TYPE_CHECKING:
    from naswot.differentiable.session import SearchSession
    from naswot.differentiable.tasks import Pair

_DRAWS: Final = 20  # for each architecture that is wanted, after which those found so far are enough


@contextmanager
def recalibrated(model: nn.Module, batches: Iterable[Pair]) -> Iterator[None]:
    """Statistics of batch normalisation found anew: plain averages over some batches; put back on leaving.

    Those of a supernet are averages over all of its architectures and fit none of them.

    Args:
        model: in evaluation mode, it uses the new statistics within the block; weights stay as they are.
        batches: inputs and targets, where the model is.
    """
    norms = [module for module in modules_of(model) if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before, momenta = Buffers(norms), [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average of all batches
        with torch.no_grad(), in_mode(model, "train"):
            for inputs, _ in batches:
                model(inputs)
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        before.restore()


class PathEvaluator:
    """Accuracy of single architectures by the weights of a session's supernet, percent, for searches among them.

    Args:
        session: whose supernet is trained.
        recalibration: training batches from which an architecture gets its statistics of the normalisation; 0: it
            uses those of the supernet.
        windows: costs within which the architectures have to lie.
    """

    epochs = None
    stages = ("validate",)
    by_epochs: tuple[str, ...] = ()
    inherits = False
    names = ("supernet_accuracy",)

    def __init__(self, session: SearchSession, *, recalibration: int = 0, windows: tuple[CostWindow, ...] = ()) -> None:
        if recalibration < 0:
            raise OptionError(
                f"expected a number of batches for the recalibration, 0 for none, but got {recalibration}"
            )
        self._session, self._recalibration, self.seed = session, recalibration, session.seed
        self.space = open_space(session.supernet, windows)

    def accuracy(self, genotype: Genotype) -> float:
        """Percent, on all that the architecture is searched by."""
        supernet, task = self._session.supernet, self._session.task
        with supernet.activate(genotype) as model:
            if not self._recalibration:
                return task.evaluate(model)["accuracy"]
            epochs = (task.train_batches(epoch) for epoch in count())
            with recalibrated(model, islice(chain.from_iterable(epochs), self._recalibration)):
                return task.evaluate(model)["accuracy"]

    def evaluate(self, trial: Trial) -> Evaluation:
        """The accuracy of a trial of :func:`naswot.searching.run_search`."""
        start = time.perf_counter()
        error, scores = None, {}
        try:
            scores = {self.names[0]: self.accuracy(trial.genotype)}
        except NaswotError as raised:
            error = f"{type(raised).__name__}: {raised}"
        seconds = {"validate": time.perf_counter() - start}
        arch = self.space.format(trial.genotype)
        return Evaluation(trial.genotype, arch, scores, seconds, self.seed, error=error)

    def describe(self) -> dict[str, object]:
        """The task, and how an architecture is evaluated."""
        limits = dict(self.space.limits) if isinstance(self.space, ConstrainedSpace) else {}
        return {
            "space": self.space.name,
            "task": self._session.task.describe(),
            "seed": self.seed,
            "recalibration": self._recalibration,
            "limits": limits,
        }


@dataclass(frozen=True, kw_only=True)
class BestOf(Selection):
    """The best of some architectures by validation accuracy; of equals the one drawn first.

    They are those that the relaxation proposes: uniform ones, or drawn from a controller; where it proposes none, they
    are drawn from the weights that the alphas tell.

    Args:
        n: different architectures; fewer if no more turn up.
        recalibration: training batches for the statistics of the normalisation; 0: those of the supernet.
    Raises:
        OptionError: if there is nothing to compare.
    """

    needs_alphas: ClassVar[bool] = False
    n: int = 100
    recalibration: int = 20

    def __post_init__(self) -> None:
        if self.n < 1 or self.recalibration < 0:
            raise OptionError(
                f"expected n of at least 1 and recalibration of at least 0, but got {self.n}, {self.recalibration}"
            )

    def select(self, session: SearchSession) -> Genotype:
        """Draw and compare them."""
        evaluator = PathEvaluator(session, recalibration=self.recalibration)
        drawn: dict[Genotype, None] = {}
        for _ in range(_DRAWS * self.n):
            if len(drawn) == self.n:
                break
            drawn[_candidate(session)] = None
        return max(drawn, key=evaluator.accuracy)


def _candidate(session: SearchSession) -> Genotype:
    if isinstance(session.relaxation, Proposes):
        return session.relaxation.candidate(session.supernet)
    return drawn_from_alphas(session.supernet, session.relaxation.expected(session.supernet))


@dataclass(frozen=True, kw_only=True)
class EvolveOnSupernet(Selection):
    """The best architecture that an evolution finds by the weights of the supernet.

    Args:
        population: architectures of a generation.
        generations: of them.
        parents: so many of the best of all so far have offspring.
        mutation: probability with which each gene of a mutant is drawn anew.
        recalibration: training batches for the statistics of the normalisation; 0: those of the supernet.
        windows: costs within which the architectures have to lie.
    Raises:
        OptionError: if a number lies outside of its range.
    """

    needs_alphas: ClassVar[bool] = False
    population: int = 50
    generations: int = 20
    parents: int = 10
    mutation: float = 0.1
    recalibration: int = 200
    windows: tuple[CostWindow, ...] = ()

    def __post_init__(self) -> None:
        numbers = self.population, self.generations, self.parents
        if min(numbers) < 1 or not 0 <= self.mutation <= 1 or self.recalibration < 0:
            raise OptionError(
                "expected population, generations and parents of at least 1, mutation in [0, 1] and recalibration of "
                f"at least 0, but got {numbers}, {self.mutation} and {self.recalibration}"
            )

    def select(self, session: SearchSession) -> Genotype:
        """Run it to its end.

        Raises:
            OptionError: if no architecture lies within the windows, or none could be evaluated.
        """
        evaluator = PathEvaluator(session, recalibration=self.recalibration, windows=self.windows)
        options = {name: getattr(self, name) for name in ("population", "generations", "parents", "mutation")}
        seed = derive_seed(session.seed, "evolution on the supernet")
        best = run_search(get_searcher("spos_evolution", evaluator.space, seed=seed, **options), evaluator).best
        if best is None:
            raise OptionError(f"none of {self.population * self.generations} architectures could be evaluated")
        return best.trial.genotype
