"""Ranking a set of networks by several proxies at once.

An aggregate looks at nothing but ranks, so **the score of a network depends on the set it is compared in**: scores of
two sets cannot be compared, and one more network may swap two others.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import nn

from naswot.errors import InputError, NaswotError, OptionError, RegistrationError
from naswot.evaluate import Evaluator, Store
from naswot.measuring import run_proxies
from naswot.options import options_from
from naswot.proxy import Proxy, get_proxy
from naswot.registry import Registry
from naswot.run import screen
from naswot.types import Batch, Genotype, ModelInputs, to_batch

Ranks = NDArray[np.float64]
"""(M, P) float64: rank of each of M networks by each of P proxies, from 1 for the worst to M for the best."""
AggregateFunction = Callable[[Ranks], NDArray[np.float64]]


@dataclass(frozen=True)
class Aggregate:
    """A rule that turns the ranks of a set of networks into one score for each; higher is better.

    Args:
        name: registry name, that of the function.
        function: ``function(ranks) -> (M,)`` float64.
        proxies: names of the components; empty where they have to be given.
        reference: paper, year and arXiv number.
    """

    name: str
    function: AggregateFunction
    proxies: tuple[str, ...]
    reference: str

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


aggregates: Registry[Aggregate] = Registry("aggregate", "naswot.aggregates", "naswot list aggregates")


def register_aggregate(
    *, reference: str, proxies: Sequence[str] = ()
) -> Callable[[AggregateFunction], AggregateFunction]:
    """Decorator that makes a function of (M, P) ranks an aggregate under its own name.

    Args:
        reference: paper, year and arXiv number.
        proxies: names of the components, in the order of the columns.
    Raises:
        RegistrationError: if the name is taken or the function has no docstring.
    """

    def decorate(function: AggregateFunction) -> AggregateFunction:
        name = function.__name__
        if not inspect.getdoc(function):
            raise RegistrationError(f"aggregate {name!r} has no docstring; its first line is what lists show")
        aggregates.register(name, Aggregate(name, function, tuple(proxies), reference))
        return function

    return decorate


def get_aggregate(name: str) -> Aggregate:
    """The aggregate of that name.

    Example:
        >>> get_aggregate("vote").proxies
        ('synflow', 'jacov', 'snip')
    """
    return aggregates.get(name)


def list_aggregates(pattern: str = "*", *, without: Sequence[str] = ()) -> list[str]:
    """Names of the installed aggregates that match a shell-style pattern."""
    return aggregates.names(pattern, without=without)


def sum_of_log_ranks(ranks: Ranks) -> NDArray[np.float64]:
    r"""Sum over the components of the logarithm of the relative rank, (M,) float64.

    .. math:: s_i = \sum_k \log \frac{r_{ik}}{M}

    At most 0, for the network that is best by all components; the logarithm punishes a weak component more than the
    strong ones can make good.
    """
    total: NDArray[np.float64] = np.log(ranks / len(ranks)).sum(axis=1)
    return total


def ranks_of(columns: Mapping[str, Sequence[float]], directions: Mapping[str, bool]) -> Ranks:
    """Ranks by every column, (M, P) float64: 1 for the worst, M for the best, ties share the mean of theirs.

    Args:
        columns: scores of the same M networks by proxy name; undefined ones are the worst infinity, and so last.
        directions: by proxy name, whether higher is better.
    Raises:
        InputError: if the columns are not of one length, or a score is NaN.
    Example:
        >>> ranks_of({"up": [3.0, 1.0, 2.0], "down": [1.0, 1.0, float("inf")]}, {"up": True, "down": False}).tolist()
        [[3.0, 2.5], [1.0, 2.5], [2.0, 1.0]]
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        raise InputError(f"expected columns of the same networks, but got lengths {lengths}")
    for name, column in columns.items():
        if any(math.isnan(value) for value in column):
            raise InputError(f"column {name!r} holds NaN; an undefined score is the worst infinity")
    values = [np.asarray(c, dtype=np.float64) * (1.0 if directions[name] else -1.0) for name, c in columns.items()]
    return np.stack([rankdata(column) for column in values], axis=1).astype(np.float64)


def aggregate_scores(
    columns: Mapping[str, Sequence[float]], aggregate: str | Aggregate, directions: Mapping[str, bool]
) -> NDArray[np.float64]:
    """Scores of a set of networks, (M,) float64, higher is better; they mean something within this set only.

    Args:
        columns: scores of the same M networks by proxy name.
        aggregate: a name, see ``naswot list aggregates``, or an aggregate.
        directions: by proxy name, whether higher is better.
    Raises:
        InputError: if the columns are not of one length, or a score is NaN.
        UnknownNameError: for a name that no aggregate has.
    Example:
        >>> up = {"flops": True, "params": True}
        >>> aggregate_scores({"flops": [1.0, 2.0], "params": [5.0, 6.0]}, "log_rank", up).round(3).tolist()
        [-1.386, 0.0]
    """
    chosen = get_aggregate(aggregate) if isinstance(aggregate, str) else aggregate
    return np.asarray(chosen.function(ranks_of(columns, directions)), dtype=np.float64)


@dataclass(frozen=True)
class RankedNetwork:
    """One network of a ranked set.

    Args:
        name: key, number or architecture string of the network.
        position: 1 for the best; equal scores share a position; None for a network without scores.
        score: of the aggregate, within this set only; None for a network without scores.
        components: raw proxy values by name.
        reasons: why a component is not finite, by name.
        genotype: the architecture, for members of a space.
        error: why there are no scores; such a network is no member of the compared set.
    """

    name: str
    position: int | None
    score: float | None
    components: Mapping[str, float]
    reasons: Mapping[str, str] = field(default_factory=dict)
    genotype: Genotype | None = None
    error: str | None = None


def rank(
    networks: Mapping[str, nn.Module] | Sequence[nn.Module] | Sequence[Genotype],
    batch: Batch | ModelInputs | None = None,
    *,
    aggregate: str | Aggregate = "az_nas",
    proxies: str | Proxy | Sequence[str | Proxy] | None = None,
    evaluator: Evaluator | None = None,
    seed: int = 0,
    repeats: int = 1,
    executor: Executor | None = None,
    store: Store | None = None,
    **options: Any,
) -> list[RankedNetwork]:
    """Put a set of untrained networks in order by an aggregate of several proxies.

    The scores depend on the compared set: adding or leaving out a network may change those of the others, and even
    their order.

    Args:
        networks: models, in a sequence (named by their number) or a mapping; or genotypes, with an ``evaluator``.
        batch: what the models are scored on.
        aggregate: a name, see ``naswot list aggregates``, or an aggregate.
        proxies: components in the place of the aggregate's own.
        evaluator: builds and scores genotypes as in a search, from its own seed and options; its proxies are replaced
            by the components.
        seed: start of everything random while models are scored.
        repeats: of genotypes, evaluations of each with another batch and initialisation; the components are means.
        executor: runs the evaluations of genotypes; None: this process.
        store: known results of genotypes come from it, new ones go to it.
        options: fields of :class:`naswot.PassOptions`, for models.
    Returns:
        The networks, best first; equal ones in the order given, those that could not be scored at the end.
    Raises:
        OptionError: if there is no component, or neither batch nor evaluator, or more than an evaluator wants.
        UnknownNameError: for a name that no aggregate, proxy or option has.
    Example:
        >>> import torch
        >>> models = {"narrow": torch.nn.Linear(3, 2), "wide": torch.nn.Linear(3, 9)}
        >>> [row.name for row in rank(models, torch.ones(1, 3), aggregate="log_rank", proxies=["params", "flops"])]
        ['wide', 'narrow']
    """
    rule = get_aggregate(aggregate) if isinstance(aggregate, str) else aggregate
    given = rule.proxies if proxies is None else [proxies] if isinstance(proxies, str | Proxy) else proxies
    components = [get_proxy(proxy) if isinstance(proxy, str) else proxy for proxy in given]
    if not components:
        raise OptionError(f"aggregate {rule.name!r} has no components of its own; pass proxies=, such as ['params']")
    if isinstance(networks, nn.Module):
        raise OptionError("expected several networks, but got one model; pass them as a list or by name")
    if evaluator is not None and (batch is not None or options):
        raise OptionError("an evaluator draws its own batches and has options of its own; pass no others beside it")
    if evaluator is not None:
        scorer = replace(evaluator, proxies=tuple(components))
        rows = _genotypes(scorer, networks, repeats=repeats, executor=executor, store=store)
    elif batch is not None:
        rows = _models(networks, to_batch(batch), components, seed, options)
    else:
        raise OptionError("pass a batch to score models on, or an evaluator= for genotypes")
    return ordered(rows, rule, {proxy.name: proxy.higher_is_better for proxy in components})


def ordered(rows: Sequence[RankedNetwork], aggregate: Aggregate, directions: Mapping[str, bool]) -> list[RankedNetwork]:
    """The networks with their scores and positions, best first, those without components at the end.

    Args:
        rows: networks with their components, or with an error.
        aggregate: the rule.
        directions: by proxy name, whether higher is better; its names are the columns.
    """
    good = [row for row in rows if row.error is None]
    if not good:
        return list(rows)
    scores = aggregate_scores({name: [r.components[name] for r in good] for name in directions}, aggregate, directions)
    placed = [
        replace(row, score=float(score), position=1 + int((scores > score).sum()))
        for row, score in zip(good, scores, strict=True)
    ]
    return sorted(placed, key=lambda row: row.position or 0) + [row for row in rows if row.error is not None]


def _models(
    networks: Any, batch: Batch, components: Sequence[Proxy], seed: int, options: Mapping[str, Any]
) -> list[RankedNetwork]:
    chosen = options_from(**options)
    named = networks if isinstance(networks, Mapping) else {str(i): model for i, model in enumerate(networks)}
    rows = []
    for name, model in named.items():
        try:
            result = run_proxies(model, batch, components, seed=seed, options=chosen)
        except NaswotError as error:
            rows.append(RankedNetwork(name, None, None, {}, error=f"{type(error).__name__}: {error}"))
        else:
            rows.append(RankedNetwork(name, None, None, result.scores, result.reasons))
    return rows


def _genotypes(
    evaluator: Evaluator, genotypes: Any, *, repeats: int, executor: Executor | None, store: Store | None
) -> list[RankedNetwork]:
    found = screen(evaluator, list(genotypes), repeats=repeats, executor=executor, store=store)
    place = {evaluator.space.check(genotype): i for i, genotype in reversed(list(enumerate(genotypes)))}
    rows = [RankedNetwork(r.arch, None, None, r.mean, r.reasons, r.genotype, r.error) for r in found]
    return sorted(rows, key=lambda row: place[row.genotype or ()])
