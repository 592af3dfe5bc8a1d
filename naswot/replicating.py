"""The uncertainty of a score, and repeats only for architectures whose place is in doubt.

The score of an untrained network varies with its initialisation and with the batch. Repeats (another batch, another
initialisation) tell by how much, but most architectures are clearly good or bad after one. So everyone gets one repeat,
the better ones a second to learn the noise, and from then on only contenders get more: architectures of which it is
not settled whether they belong to the best K. ``naswot/_repeats_fit.py`` says how noise and means are estimated.

**Rule.** a beats c if the difference of their means exceeds t standard errors of that difference. Who beats all but at
most K - 1 others is in, whom K others beat is out, the rest are contenders. A wrong decision needs one true member of
the best K to be beaten by a true outsider: K (A - K) pairs for A architectures, looked at R times for R repeats. So t
is Student's quantile for the one-sided level (1 - level) / (K (A - K) R), and by Bonferroni's inequality all settled
places are right with at least the probability ``level``, if errors are normal with one variance. Equal means are never
settled.

References:
    Maron & Moore, Hoeffding Races, NIPS 1994: candidates leave as soon as intervals tell them apart.
    Heidrich-Meisner & Igel, Hoeffding and Bernstein Races for Selecting Policies, ICML 2009: races for the best K.
    Birattari et al., A Racing Algorithm for Configuring Metaheuristics, GECCO 2002: what all share (here the batch) is
    taken out. Differs from them: normal errors with one pooled variance, as scores have no bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from scipy import stats

from naswot._repeats_fit import Fit
from naswot.errors import OptionError
from naswot.evaluate import Evaluator, Store
from naswot.proxy import get_proxy
from naswot.types import Evaluation, Genotype

_PILOT = 20  # architectures of the pilot at least: with fewer, so small an error level asks for huge quantiles


@dataclass(frozen=True)
class ScoreEstimate:
    """What the repeats of one architecture tell of its score.

    Args:
        genotype: the architecture.
        arch: its canonical string.
        mean: of its repeats, at the average batch of all rounds; the worst infinity if a repeat is not defined.
        standard_error: of the mean, from the pooled noise; None where the noise is not known or the mean not finite.
        degrees: of freedom of the standard error.
        repeats: how many there are.
        contender: whether its place in or out of the best is not settled.
        error: why there is no score.
    """

    genotype: Genotype
    arch: str
    mean: float
    standard_error: float | None
    degrees: int
    repeats: int
    contender: bool
    error: str | None = None

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Ends of Student's interval around the mean, for this architecture alone.

        Args:
            level: how often it holds the true mean; without a standard error it is unbounded.
        """
        if self.standard_error is None:
            return -math.inf, math.inf
        half = float(stats.t.isf((1 - level) / 2, self.degrees)) * self.standard_error
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Replication:
    """Estimates of many architectures from as few repeats as their places needed.

    Args:
        estimates: best first; ties by architecture string, those without a score last.
        noise: standard deviation of one repeat, batches taken out; None if fewer than two architectures were repeated.
        passes: repeats that the estimates rest on.
        computed: how many of them this call worked out; the others were known.
        uniform: repeats had everyone got the most.
        undefined: architectures of which a repeat is not finite or failed.
    """

    estimates: tuple[ScoreEstimate, ...]
    noise: float | None
    passes: int
    computed: int
    uniform: int
    undefined: int

    @property
    def contenders(self) -> tuple[ScoreEstimate, ...]:
        """Those whose place in or out of the best is not settled, best first."""
        return tuple(each for each in self.estimates if each.contender)


def replicate(
    evaluator: Evaluator,
    genotypes: Sequence[Genotype],
    *,
    rank_by: str | None = None,
    best: int = 10,
    repeats: int = 8,
    level: float = 0.95,
    executor: Executor | None = None,
    store: Store | None = None,
    on_result: Callable[[Evaluation], None] = lambda evaluation: None,
) -> Replication:
    """Score architectures, repeating only those whose place among the best is in doubt.

    The result depends neither on order nor on the number of workers, nor on what was known before.

    Args:
        evaluator: what is scored and how.
        genotypes: the architectures; duplicates count once.
        rank_by: score that decides, by default the evaluator's first.
        best: K, how many are to be told from the rest.
        repeats: the most that one architecture gets.
        level: probability with which all settled places are right.
        executor: runs the evaluations; None: this process.
        store: known repeats come from it, new ones go to it.
        on_result: called once with every evaluation, for a progress bar.
    Raises:
        OptionError: if ``rank_by`` is none of the evaluator's scores, or a number is out of range.
    Example:
        >>> from naswot.data import get_data
        >>> from naswot.space import get_space
        >>> evaluator = Evaluator(get_space("nasbench201"), get_data("digits", size=8), ("params",), batch_size=4)
        >>> found = replicate(evaluator, [(3,) * 6, (1,) * 6, (2,) * 6], best=1, repeats=8)
        >>> found.estimates[0].genotype, found.contenders, found.passes, found.uniform
        ((3, 3, 3, 3, 3, 3), (), 6, 24)
    """
    if best < 1 or repeats < 2 or not 0 < level < 1:
        told = f"best={best}, repeats={repeats}, level={level}"
        raise OptionError(f"expected best >= 1, repeats >= 2 and 0 < level < 1, but got {told}")
    race = _Race(evaluator, genotypes, rank_by or evaluator.names[0], store, executor, on_result)
    error_level = (1 - level) / (max(1, best * (len(race.archs) - best)) * repeats)
    race.run(race.archs, 1)
    pilot = sorted(race.defined(), key=lambda arch: (-race.values[arch][0], arch))
    race.run(pilot[: max(2 * best, _PILOT)], 2)
    for n in range(2, repeats + 1):
        fit = Fit([race.values[arch] for arch in race.defined()])
        contenders = [
            a for a, in_doubt in zip(race.defined(), fit.in_doubt(best, error_level), strict=True) if in_doubt
        ]
        if not contenders or fit.noise == 0:  # repeats that are all equal tell no more of ties
            break
        race.run(contenders, n)
    return race.result(best, error_level, len(race.archs) * repeats)


class _Kept:
    """A store in front of another, if there is one: counts what is new and reads nothing twice."""

    def __init__(self, behind: Store | None) -> None:
        self._behind, self._known = behind, dict[tuple[str, int, int], Evaluation]()
        self.n_new = 0

    def get(self, arch: str, seed: int, repeat: int = 0) -> Evaluation | None:
        """The evaluation under that key, if there is one."""
        found = self._known.get((arch, seed, repeat))
        if found is None and self._behind is not None:
            found = self._behind.get(arch, seed, repeat)
        if found is not None:
            self._known[arch, seed, repeat] = found
        return found

    def append(self, evaluation: Evaluation) -> None:
        """Keep one evaluation, and let the store behind join it with what it knows."""
        key = evaluation.arch, evaluation.seed, evaluation.repeat
        self.n_new += 1
        self._known[key] = evaluation
        if self._behind is not None:
            self._behind.append(evaluation)
            self._known[key] = self._behind.get(*key) or evaluation


class _Race:
    """Scores by architecture and repeat, higher is better; those of an architecture in the order of its repeats."""

    def __init__(
        self,
        evaluator: Evaluator,
        genotypes: Sequence[Genotype],
        name: str,
        store: Store | None,
        executor: Executor | None,
        on_result: Callable[[Evaluation], None],
    ) -> None:
        if name not in evaluator.names:
            raise OptionError(f"expected rank_by to be one of the scores {list(evaluator.names)}, but got {name!r}")
        proxy = evaluator.proxies[evaluator.names.index(name)]
        up = (get_proxy(proxy) if isinstance(proxy, str) else proxy).higher_is_better
        self._evaluator, self._name, self._direction = evaluator, name, 1.0 if up else -1.0
        self._kept, self._executor, self._on_result = _Kept(store), executor, on_result
        space = evaluator.space
        self._genotypes = dict(sorted((space.format(g), g) for g in map(space.check, genotypes)))
        self._errors: dict[str, str] = {}
        self.archs = list(self._genotypes)
        self.values: dict[str, list[float]] = {arch: [] for arch in self.archs}

    def run(self, archs: Sequence[str], n: int) -> None:
        """See to it that each of these has ``n`` repeats."""
        fresh: dict[tuple[str, int], Evaluation] = {}
        chosen = [self._genotypes[arch] for arch in archs]
        for each in self._evaluator.map(chosen, repeats=n, executor=self._executor, store=self._kept):
            if each.repeat >= len(self.values[each.arch]):
                fresh[each.arch, each.repeat] = each
                self._on_result(each)
        for (arch, _), each in sorted(fresh.items(), key=lambda item: item[0]):
            if each.error is not None:
                self._errors.setdefault(arch, each.error)
            value = -math.inf if each.error is not None else self._direction * each.scores[self._name]
            self.values[arch].append(value)

    def defined(self) -> list[str]:
        """Architectures all of whose repeats are finite."""
        return [arch for arch in self.archs if all(map(math.isfinite, self.values[arch]))]

    def result(self, best: int, error_level: float, uniform: int) -> Replication:
        """All estimates, best first."""
        defined = self.defined()
        fit = Fit([self.values[arch] for arch in defined])
        columns = zip(fit.means.tolist(), fit.errors(), fit.in_doubt(best, error_level).tolist(), strict=True)
        known = dict(zip(defined, columns, strict=True))

        def estimate(arch: str) -> ScoreEstimate:
            mean, error, in_doubt = known.get(arch, (-math.inf, None, False))
            n, why = len(self.values[arch]), self._errors.get(arch)
            return ScoreEstimate(
                self._genotypes[arch], arch, self._direction * mean, error, fit.degrees, n, in_doubt, why
            )

        rows = [estimate(arch) for arch in self.archs]
        rows.sort(key=lambda row: (row.error is not None, -self._direction * row.mean, row.arch))
        passes = sum(map(len, self.values.values()))
        return Replication(
            tuple(rows), fit.noise, passes, self._kept.n_new, uniform, undefined=len(self.archs) - len(defined)
        )
