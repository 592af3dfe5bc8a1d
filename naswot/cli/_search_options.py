"""Options of ``naswot search`` for strategies, and what they stand for."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from naswot.cli import _options as shared

if TYPE_CHECKING:
    from naswot.benchmark import Benchmark
    from naswot.constraints import Cost, StoredCost
    from naswot.data.images import ImageSet
    from naswot.searcher import Scorer, Searcher
    from naswot.searching import Budget
    from naswot.space import SearchSpace

Command = TypeVar("Command", bound=Callable[..., Any])

_FULL_EPOCHS = 12
_SELECTIONS = ("perturbation", "score_guided", "best_scored_epoch")
_OF_SUPERNETS = ("search_epochs", "seeds", "supernet", "hessian_every", "select", "alpha_prior", "prune_operations")
_POSITIVE = click.IntRange(min=1)
_ABOVE_0 = click.FloatRange(min=0, min_open=True)

STRATEGY_OPTIONS = (
    click.option("--train", is_flag=True, help="Really train: screen, train the best briefly, the finalist fully."),
    click.option(
        "--strategy",
        type=shared.RegistryName("strategies"),
        help="Search by it; regularized_evolution(population=20) binds an option. "
        "With --train cascade, with --benchmark random. Methods with a supernet too, such as darts.",
    ),
    click.option("--benchmark", "table", metavar="NAME[/DATASET[/METRIC]]", help="Look trainings up in a benchmark."),
    click.option("--objective", multiple=True, metavar="SUM", help="To maximise: a score, or 'naswot - 1e-6*params'."),
    click.option("--evaluations", type=_POSITIVE, help="Budget of trials; 20 with --train, 100 with --benchmark."),
    click.option("--seconds", type=_ABOVE_0, help="Budget of seconds of evaluation."),
    click.option("--total-epochs", type=_POSITIVE, help="Budget of epochs of training."),
    click.option("--epochs", type=_POSITIVE, help="Of a full training; by default 12."),
    click.option("--brief-epochs", default=3, show_default=True, type=_POSITIVE, help="Of a brief one (cascade)."),
    click.option("--kept", default=8, show_default=True, type=_POSITIVE, help="Trained briefly (cascade)."),
    click.option("--parallel", type=_POSITIVE, help="Trials open at once, part of the search; 2 with --train, else 1."),
    click.option(
        "--recipe",
        default="quick",
        show_default=True,
        help="Of training: quick, augmented, darts_cifar; a supernet crops and flips as it says.",
    ),
    click.option(
        "--valid-fraction",
        default=0.25,
        show_default=True,
        type=float,
        help="Share of training images to choose by; of a supernet by default that of the method.",
    ),
    click.option("--max-params", type=_ABOVE_0, help="Only networks of at most so many parameters."),
    click.option("--max-flops", type=_ABOVE_0, help="Only networks of at most so many MACs for one image."),
    click.option("--max-latency", type=_ABOVE_0, help="Only networks of at most so many ms for one image."),
    click.option(
        "--latency-table",
        type=click.Path(exists=True, dir_okay=False),
        help="Milliseconds by block; without it they are measured.",
    ),
    click.option("--warm-up", default=0, type=click.IntRange(min=0), help="Score so many before the first trial."),
    click.option("--keep", type=_POSITIVE, help="How many of these begin the search; by default up to 10."),
    click.option("--prescreen", default=1, type=_POSITIVE, help="Of so many alternatives take the best by score."),
    click.option("--reject-below", type=float, help="Drop what scores below this quantile, such as 0.5."),
    click.option("--search-epochs", type=_POSITIVE, help="Of a supernet; by default those of the paper."),
    click.option(
        "--seeds", default=1, show_default=True, type=_POSITIVE, help="Searches by a supernet, from --seed on."
    ),
    click.option("--supernet", multiple=True, metavar="KEY=VALUE", help="Option of the supernet, such as width=8."),
    click.option(
        "--select",
        type=click.Choice(_SELECTIONS),
        help="How an architecture is read off a supernet: the method's own way, by what its accuracy loses without an "
        "operation, near-ties broken by score, or the best-scored of all epochs.",
    ),
    click.option(
        "--alpha-prior", type=shared.RegistryName("proxies"), help="First architecture parameters by this score."
    ),
    click.option("--prune-operations", metavar="PROXY=N", help="Keep the N best operations of each row by this score."),
    click.option(
        "--hessian-every",
        default=1,
        show_default=True,
        type=click.IntRange(min=0),
        help="Epochs of a supernet between two looks at the Hessian of the architecture; 0: never.",
    ),
)


def strategy_options(command: Command) -> Command:
    """``--train --strategy --benchmark`` and all that goes with them."""
    for option in reversed(STRATEGY_OPTIONS):
        command = option(command)
    return command


def refuse_strategy_options(context: click.Context) -> None:
    """A usage error for an option that says nothing in a plain screening."""
    of_strategies = {parameter.name for parameter in click.command()(strategy_options(lambda: None)).params}
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in of_strategies and source is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[0]} goes with --train, --strategy or --benchmark")


def refuse_supernet_options(context: click.Context) -> None:
    """A usage error for an option that only searches by a supernet have."""
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE
        if parameter.name in _OF_SUPERNETS and given:
            raise click.UsageError(f"{parameter.opts[0]} goes with a search by a supernet (`naswot list presets`)")


def is_preset(text: str) -> bool:
    """Whether a strategy, as it was asked for, is a method with a supernet.

    Raises:
        UnknownNameError: if it is neither that nor a searcher.
    """
    from naswot.differentiable.preset import list_presets
    from naswot.errors import unknown_name
    from naswot.searcher import list_searchers

    name, (presets, searchers) = text.partition("(")[0].strip(), (list_presets(), list_searchers())
    if name and name not in presets and name not in searchers:
        hint = "`naswot list searchers` and `naswot list presets` show all."
        raise unknown_name("search strategy", name, [*presets, *searchers], hint)
    return name in presets


def named_with_options(text: str) -> tuple[str, dict[str, Any]]:
    """``"name(a=1, b=2)"`` as a name and a dictionary."""
    found = re.fullmatch(r"\s*([\w-]+)\s*(?:\((.*)\))?\s*", text)
    if not found:
        told = f"expected NAME or NAME(OPTION=VALUE, ...), but got {text!r}"
        raise click.BadParameter(told, param_hint="--strategy")
    pairs = [pair.strip() for pair in re.split(r",(?![^\[]*\])", found[2] or "") if pair.strip()]
    return found[1], shared.key_values(pairs)


def budget_of(given: Mapping[str, Any], searcher: Searcher) -> Budget | None:
    """``--evaluations --seconds --total-epochs``; None without them for a strategy that ends by itself."""
    from naswot.searching import Budget

    limits = given["evaluations"], given["seconds"], given["total_epochs"]
    if limits != (None, None, None):
        return Budget(*limits)
    if searcher.ends:
        return None
    return Budget(evaluations=20 if given["train"] else 100 if given["table"] else given["number"])


def searcher_of(
    given: Mapping[str, Any], space: SearchSpace, scorer: Scorer, n_objectives: int, lengths: Sequence[int]
) -> Searcher:
    """``--strategy`` with its options, and help as asked for.

    Args:
        given: the options.
        space: what is searched.
        scorer: for strategies and help that need one.
        n_objectives: number of objectives.
        lengths: epochs that a benchmark knows, ascending; empty where any number can be trained.
    """
    from naswot.assisted import Assisted
    from naswot.searcher import get_searcher, searcher_options

    name, options = named_with_options(given["strategy"])
    offered = searcher_options(name)
    fitting: dict[str, Any] = {}
    if name == "cascade":
        brief = lengths[0] if lengths else min(given["brief_epochs"], full_epochs(given))
        kept = min(given["kept"], given["number"])
        fitting = {"screened": given["number"], "kept": kept, "brief": brief}
    elif name == "naswot_search":
        fitting = {"n": given["number"]}
    elif "levels" in offered and lengths and not set(options) & {"levels", "min_epochs", "max_epochs"}:
        fitting = {"levels": lengths}
    if "scorer" in offered:
        fitting["scorer"] = scorer
    searcher = get_searcher(name, space, seed=given["seed"], n_objectives=n_objectives, **{**fitting, **options})
    help_ = {"warm_up": given["warm_up"], "prescreen": given["prescreen"], "reject_below": given["reject_below"]}
    if help_ == {"warm_up": 0, "prescreen": 1, "reject_below": None}:
        return searcher
    keep = given["keep"] or min(10, given["warm_up"] or 10)
    return Assisted(searcher, scorer, keep=keep, **help_)


def full_epochs(given: Mapping[str, Any]) -> int:
    """``--epochs``, or its default for real training."""
    return given["epochs"] or _FULL_EPOCHS


def parallel_of(given: Mapping[str, Any]) -> int:
    """``--parallel``, or its default, which no property of the machine may change."""
    return given["parallel"] or (2 if given["train"] else 1)


def constrained(
    given: Mapping[str, Any],
    space: SearchSpace,
    images: ImageSet,
    build: Mapping[str, Any],
    benchmark: Benchmark | None,
) -> tuple[SearchSpace, StoredCost]:
    """The space within ``--max-params --max-flops --max-latency``, and the latency.

    Of a benchmark that holds a part of its space only, just this part is searched. Where the latency is an objective
    it is a limit too, though an infinite one: so it is measured before a trial begins, here and once.
    """
    from naswot.constraints import ConstrainedSpace, StoredCost, network_costs, space_held
    from naswot.latency import LatencyTable, ModelLatency
    from naswot.objectives import Objective

    measure: Cost = ModelLatency(space, images.shape, build, given["device"])
    if given["latency_table"] is not None:
        measure = LatencyTable.load(given["latency_table"]).latency
    latency = StoredCost("latency", measure, space, seed=given["seed"])
    costs: dict[str, Cost] = {**network_costs(space, images, build=build), "latency": latency}
    asked = {what: given[f"max_{what}"] for what in costs}
    limits = {what: limit for what, limit in asked.items() if limit is not None}
    if any("latency" in Objective.parse(text).weights for text in given["objective"]):
        limits.setdefault("latency", math.inf)
    held = space if benchmark is None else space_held(benchmark)
    return (ConstrainedSpace(held, limits, costs) if limits else held), latency


def help_by_scores(given: Mapping[str, Any]) -> dict[str, Any]:
    """``--select --alpha-prior --prune-operations`` as parts of a plan: ``hooks``, and any ``selection``."""
    from naswot.differentiable.perturbation_selection import PerturbationSelection
    from naswot.differentiable.priors import AlphaPrior, PruneOperations
    from naswot.differentiable.score_guided import ScoreGuided
    from naswot.differentiable.zero_cost_selection import BestScoredEpoch

    makes = {"perturbation": PerturbationSelection, "score_guided": ScoreGuided, "best_scored_epoch": BestScoredEpoch}
    hooks: list[Any] = []
    if given["prune_operations"]:
        proxy, _, number = given["prune_operations"].partition("=")
        if not number.isdigit():
            told = f"expected PROXY=N, such as naswot=3, but got {given['prune_operations']!r}"
            raise click.BadParameter(told, param_hint="--prune-operations")
        hooks.append(PruneOperations(proxy, keep=int(number)))
    if given["alpha_prior"]:
        hooks.append(AlphaPrior(given["alpha_prior"]))
    return {"hooks": hooks, "selection": {"selection": makes[given["select"]]()} if given["select"] else {}}
