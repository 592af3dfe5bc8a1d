"""Scores of untrained stand-alone networks within a search by a supernet."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from naswot.differentiable.operation_scores import as_proxy, batch_of, score_of
from naswot.errors import InputError, NaswotError
from naswot.evaluate import fresh_model
from naswot.proxy import Proxy
from naswot.seeding import derive_seed, numpy_generator
from naswot.types import Batch, Genotype

if TYPE_CHECKING:
    from naswot.differentiable.session import SearchSession

BuildOptions = tuple[tuple[str, Any], ...]
"""Options of ``space.build``, by which stand-alone networks are scored."""

_TRIED: Final = 3  # architectures of which one at least can be scored where anything can


def untrained_scores(
    session: SearchSession,
    genotypes: Sequence[Genotype],
    proxy: str | Proxy,
    *,
    batches: Sequence[Batch],
    build: BuildOptions = (),
) -> list[float]:
    """Mean scores of untrained stand-alone networks, turned so that higher is better.

    The initialisation derives from the session's seed and the architecture, and is the same for all batches.

    Args:
        session: whose space and options of the supernet, as far as ``space.build`` has them too, are used.
        genotypes: the architectures.
        proxy: see ``naswot list proxies``.
        batches: over which is averaged.
        build: further options of ``space.build``.
    Returns:
        One for each; -inf where a batch gives no finite score, or the network cannot be built or scored.
    Raises:
        InputError: if none of them can be scored.
    """
    chosen, space = as_proxy(proxy), session.space
    offered = inspect.signature(space.build).parameters
    shared = {**session.plan.supernet_options, **session.task.build, **session.build}
    options = {name: value for name, value in shared.items() if name in offered} | dict(build)
    scores: list[float] = []
    trouble: NaswotError | None = None
    for genotype in genotypes:
        try:
            model = fresh_model(space, genotype, options, seed=session.seed).to(session.device)
            found = [score_of(model, batch, chosen, seed=session.seed) for batch in batches]
        except NaswotError as error:
            found, trouble = [-math.inf], error
        mean = math.fsum(found) / len(found) if all(map(math.isfinite, found)) else math.nan
        scores.append(-math.inf if math.isnan(mean) else mean if chosen.higher_is_better else -mean)
    if trouble is not None and max(scores) == -math.inf:
        raise InputError(f"no architecture can be scored by {chosen.name}: {trouble}") from trouble
    return scores


def check_scorable(session: SearchSession, proxy: str | Proxy, build: BuildOptions) -> None:
    """Refuse a proxy or options of ``space.build`` by which none of a few random architectures can be scored.

    Raises:
        InputError: if there is none.
    """
    rng = numpy_generator(derive_seed(session.seed, "check of scores"))
    genotypes = [session.space.sample(rng) for _ in range(_TRIED)]
    untrained_scores(session, genotypes, proxy, batches=[batch_of(session.task.fixed_batch())], build=build)


def best(scores: Sequence[float]) -> int:
    """Place of the largest; the first of several."""
    return max(range(len(scores)), key=lambda i: (scores[i], -i))
