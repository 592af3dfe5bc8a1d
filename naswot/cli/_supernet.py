"""``naswot search`` by one supernet: DARTS and its family, and the one-shot methods."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from naswot._json import for_json, write_json
from naswot.cli import _options as shared
from naswot.cli import _run as run
from naswot.cli import _search_options as asked
from naswot.cli import _search_parts as parts
from naswot.cli._supernet_pictures import Pictures

if TYPE_CHECKING:
    from rich.progress import Progress

    from naswot.benchmark import Benchmark
    from naswot.data.images import ImageSet
    from naswot.differentiable.plan import SearchPlan
    from naswot.differentiable.runs import RunKey, SupernetRun, SupernetRuns
    from naswot.differentiable.searching import Row
    from naswot.differentiable.session import Monitor
    from naswot.evaluators import TrialEvaluator
    from naswot.space import SearchSpace
    from naswot.store import ResultStore
    from naswot.training.evaluator import TrainingEvaluator

_USED = (
    *("space", "data", "data_root", "size", "batch_size", "seed", "device", "workers", "out", "as_json"),
    *("strategy", "train", "table", "epochs", "brief_epochs", "recipe", "valid_fraction", "build"),
    *("search_epochs", "seeds", "supernet", "hessian_every", "select", "alpha_prior", "prune_operations"),
)
_SHOWN = {"train_loss": "loss", "valid_accuracy": "accuracy", "discretisation_gap": "gap", "eigenvalue": "eigenvalue"}


def run_supernet(given: dict[str, Any]) -> None:
    """Search by a supernet from every seed, judge what was found, write the run folder, print."""
    from naswot.differentiable.runs import run_searches
    from naswot.differentiable.searching import ImageTasks
    from naswot.space import get_space
    from naswot.training.recipe import get_recipe
    from naswot.workers import available_cores, worker_pool

    _refuse_other_options()
    benchmark = parts.benchmark_of(given) if given["table"] else None
    space = get_space(given["space"]) if benchmark is None else benchmark.space
    _refuse_what_does_not_fit(given, space)
    source = parts.source_of(given, benchmark)
    images = run.images_of(source, given["data_root"])
    plans = _plans(given)
    seeds = tuple(range(given["seed"], given["seed"] + given["seeds"]))
    train, valid = _parts(given, images, plans[0])
    device = shared.checked_device(given["device"])
    judge = _judge(given, space, train, valid, benchmark, len(plans) > 1)
    monitors = _monitors(given)
    build = shared.key_values(given["supernet"])
    changes = get_recipe(given["recipe"])
    tasks = ImageTasks(train, valid, device, changes.crop_padding, changes.flip)
    options = _options(space, given, plans, monitors, build, judge, tasks)
    folder = Path(given["out"] or Path("runs") / _folder_name(given, source["data"], space, options))
    workers = min(given["workers"] or (available_cores() if device == "cpu" else 1), len(seeds) * len(plans))
    with (
        run.open_store(folder, options, device) as store,
        run.progress(given["as_json"]) as progress,
        worker_pool(workers) as executor,
    ):
        keep = _keeping(store, space)
        try:
            runs = run_searches(
                space,
                tasks,
                plans,
                seeds=seeds,
                build=build,
                device=device,
                monitors=monitors,
                folder=folder / "checkpoints",
                judge=judge,
                after=Pictures(folder),
                executor=executor,
                on_epoch=_told(progress, keep, plans[0].epochs, given["seeds"] * len(plans)),
            )
            for one in runs.runs:  # what an interruption kept from the store
                for row in one.history:
                    keep(one.key, row)
            summary = _summary(given, runs, judge, folder, options)
            _write(runs, summary, folder)
            if given["train"]:
                summary["final"] = _final(given, space, train, valid, images, source, runs.best, folder, progress)
                write_json(folder / "summary.json", summary)
        except KeyboardInterrupt:
            progress.stop()
            run.stopped(store, folder)
    _print(runs, summary, given)


def _refuse_other_options() -> None:
    context = click.get_current_context()
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name not in _USED and source is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[0]} does not go with a search by a supernet")


def _refuse_what_does_not_fit(given: Mapping[str, Any], space: SearchSpace) -> None:
    from naswot.differentiable.preset import get_plans, presets
    from naswot.supernet import list_supernets

    if space.name not in list_supernets():
        raise click.UsageError(f"{space.name} has no supernet; these spaces have: {', '.join(list_supernets())}")
    name, options = asked.named_with_options(given["strategy"])
    trains = given["train"] or (not given["table"] and (given["seeds"] > 1 or len(get_plans(name, **options)) > 1))
    if parts.is_given("build") and not trains:
        raise click.UsageError("--build is of networks that --train trains from scratch; of the supernet is --supernet")
    if parts.is_given("epochs") and not given["train"] and not given["table"]:
        raise click.UsageError("--epochs is of the training that --train asks for; of the supernet is --search-epochs")
    preset = presets.get(asked.named_with_options(given["strategy"])[0])
    for name, kind in ((space.name, space.input_kind), (preset.name, preset.input_kind)):
        if kind != "images":
            raise click.UsageError(
                f"{name} is made for {kind}, and this command reads images; search it in Python by "
                "naswot.differentiable.searching.run_search_of with a TextTask"
            )


def _plans(given: Mapping[str, Any]) -> tuple[SearchPlan, ...]:
    from dataclasses import replace

    from naswot.differentiable.preset import get_plans, presets

    name, options = asked.named_with_options(given["strategy"])
    batch = {"batch_size": given["batch_size"]} if parts.is_given("batch_size") else {}
    if batch and "batch_size" in presets.get(name).options:
        options = {**batch, **options}  # what goes with the size of a batch is the method's to say
    plans = get_plans(name, **options)
    if given["search_epochs"] is not None:
        plans = tuple(plan.lasting(given["search_epochs"]) for plan in plans)
    helped = asked.help_by_scores(given)
    return tuple(replace(plan, hooks=(*plan.hooks, *helped["hooks"]), **helped["selection"], **batch) for plan in plans)


def _parts(given: Mapping[str, Any], images: ImageSet, plan: SearchPlan) -> tuple[ImageSet, ImageSet]:
    from naswot.training.splits import three_way_split

    fraction = given["valid_fraction"] if parts.is_given("valid_fraction") else plan.valid_fraction
    return three_way_split(images, valid_fraction=fraction, seed=given["seed"])


def _monitors(given: Mapping[str, Any]) -> tuple[Monitor, ...]:
    from naswot.differentiable.monitors import HessianMonitor, ProjectionMonitor, ShapeMonitor

    every = given["hessian_every"]
    return (ProjectionMonitor(), ShapeMonitor(), *([HessianMonitor(every=every)] if every else []))


def _judge(
    given: Mapping[str, Any],
    space: SearchSpace,
    train: ImageSet,
    valid: ImageSet,
    benchmark: Benchmark | None,
    several: bool,
) -> TrialEvaluator | None:
    """What values an architecture: the benchmark, or a brief training where there is something to choose."""
    if benchmark is not None:
        return parts.table_of(given, benchmark)
    if given["seeds"] == 1 and not several:
        return None
    return _training(given, space, train, valid, given["brief_epochs"])


def _training(
    given: Mapping[str, Any], space: SearchSpace, train: ImageSet, valid: ImageSet, epochs: int
) -> TrainingEvaluator:
    from naswot.training.evaluator import TrainingEvaluator
    from naswot.training.recipe import get_recipe

    recipe = get_recipe(given["recipe"], epochs=epochs)
    build = {"n_classes": train.n_classes, "in_channels": train.shape[0], **shared.key_values(given["build"])}
    return TrainingEvaluator(space, train, valid, recipe, seed=given["seed"], build=build, device=given["device"])


def _options(
    space: SearchSpace,
    given: Mapping[str, Any],
    plans: tuple[SearchPlan, ...],
    monitors: tuple[Monitor, ...],
    build: Mapping[str, Any],
    judge: TrialEvaluator | None,
    tasks: Any,
) -> dict[str, object]:
    """Everything that determines the numbers, but for the seeds, of which more may be added."""
    about = {"space": space.name, "strategy": given["strategy"], "supernet": dict(build)}
    told = {"judge": None if judge is None else judge.describe(), "monitors": [repr(m) for m in monitors]}
    task = tasks(plans[0], given["seed"]).describe()
    return {**about, **told, "plans": [plan.describe() for plan in plans], "task": task}


def _folder_name(given: Mapping[str, Any], data: str, space: SearchSpace, options: Mapping[str, object]) -> str:
    digest = blake2b(json.dumps(options, sort_keys=True).encode(), digest_size=3).hexdigest()
    name = asked.named_with_options(given["strategy"])[0]
    return f"{name}-{space.name}-{data}-seed{given['seed']}-{digest}"


def _keeping(store: ResultStore, space: SearchSpace) -> Callable[[RunKey, Row], None]:
    """What puts the numbers of an epoch into the store."""
    from naswot.differentiable.runs import seed_of
    from naswot.types import Evaluation

    def keep(key: RunKey, row: Row) -> None:
        numbers = {name: float(value) for name, value in row.items() if isinstance(value, int | float)}
        numbers = {name: value for name, value in numbers.items() if math.isfinite(value)}
        genotype = space.parse(row["arch"]) if row["arch"] else ()
        store.append(Evaluation(genotype, row["arch"] or "-", numbers, {}, seed_of(key), repeat=row["row"]))

    return keep


def _told(
    progress: Progress, keep: Callable[[RunKey, Row], None], epochs: int, n: int
) -> Callable[[RunKey, Row], None]:
    """What moves the bars, one for each search, and keeps what every epoch measured."""
    bars: dict[RunKey, Any] = {}

    def told(key: RunKey, row: Row) -> None:
        if key not in bars:
            what = f"seed {key.seed}" + (f", plan {key.variant + 1}" if key.variant else "") if n > 1 else "epochs"
            bars[key] = progress.add_task(what, total=epochs, rate="")
        shown = [f"{short} {row[name]:.3g}" for name, short in _SHOWN.items() if name in row]
        skips = [f"{row[name]:g}" for name in row if name.startswith("n_skips")]
        shown += [f"skips {' + '.join(skips)}"] if skips else []
        shown += ["reading the architecture off"] if row["epoch"] == epochs else []
        progress.update(bars[key], completed=row["epoch"], rate=", ".join(shown))
        for name in row:
            if name.endswith(("warning", "note")):
                progress.console.print(f"seed {key.seed}, epoch {row['epoch']}: {row[name]}", markup=False)
        keep(key, row)

    return told


def _final(
    given: Mapping[str, Any],
    space: SearchSpace,
    train: ImageSet,
    valid: ImageSet,
    images: ImageSet,
    source: Mapping[str, Any],
    best: SupernetRun,
    folder: Path,
    progress: Progress,
) -> dict[str, object]:
    training = _training(given, space, train, valid, asked.full_epochs(given))
    return parts.train_finalist(given, best.genotype or (), training, images, source, folder, progress)


def _summary(
    given: Mapping[str, Any],
    runs: SupernetRuns,
    judge: TrialEvaluator | None,
    folder: Path,
    options: Mapping[str, object],
) -> dict[str, Any]:
    def told(one: SupernetRun) -> dict[str, Any]:
        about = {"seed": one.key.seed, "plan": one.key.variant, "arch": one.arch, "epoch": one.epoch}
        measured = for_json({k: v for k, v in _measured(one).items() if isinstance(v, int | float)})
        warnings = [text for row in one.history for name, text in row.items() if name.endswith("warning")]
        rest = {"stopped": one.stopped, "seconds": round(one.seconds, 2), "value": one.value, "error": one.error}
        return {**about, **rest, "measured": measured, "warnings": warnings}

    return {
        "command": "search",
        "strategy": given["strategy"],
        "folder": str(folder),
        "options": for_json(dict(options)),
        "judged_by": None if judge is None else judge.names[0],
        "searches": [told(one) for one in runs.runs],
        "seeds": [one.key.seed for one in runs.by_seed],
        "failed": [one.key.seed for one in runs.failed],
        "mean": runs.mean,
        "spread": runs.spread,
        "best": told(runs.best),
        "final": {},
    }


def _measured(one: SupernetRun) -> Row:
    """What the monitors found in the epoch that counts; of its cell only if that is the one that was taken."""
    row = next((row for row in reversed(one.history) if row["epoch"] == one.epoch), {})
    of_the_cell = ("projected_accuracy", "discretisation_gap")
    same = row.get("arch") == one.arch
    return {k: v for k, v in row.items() if same or not (k in of_the_cell or k.startswith("n_skips"))}


def _write(runs: SupernetRuns, summary: dict[str, Any], folder: Path) -> None:
    from naswot.plots_supernet import plot_trajectories

    names = list(dict.fromkeys(name for one in runs.runs for row in one.history for name in row))
    with (folder / "epochs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["seed", "plan", *names])
        for one in runs.runs:
            writer.writerows([one.key.seed, one.key.variant, *map(row.get, names)] for row in one.history)
    write_json(folder / "summary.json", summary)
    name = asked.named_with_options(summary["strategy"])[0]
    if "valid_accuracy" in names:
        histories = {name: [one.history for one in runs.by_seed]}
        plot_trajectories(histories, folder / "epochs.png", title=summary["strategy"])


def _print(runs: SupernetRuns, summary: dict[str, Any], given: Mapping[str, Any]) -> None:
    if given["as_json"]:
        click.echo(json.dumps(summary, indent=2))
        return
    from rich.table import Table

    console = shared.console()
    judged = summary["judged_by"]
    measured = [_measured(one) for one in runs.by_seed]
    numbers = [n for n in dict.fromkeys(n for row in measured for n in row) if n in _SHOWN or n.startswith("n_skips")]
    table = Table("seed", "epoch", box=None, pad_edge=False)
    titles = [_SHOWN.get(name, name.removeprefix("n_")) for name in numbers]
    for title in [*titles, *([f"{'table' if given['table'] else 'trained'}: {judged}"] if judged else [])]:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("arch", overflow="fold", min_width=30)
    for one, row in zip(runs.by_seed, measured, strict=True):
        cells = [f"{row[n]:g}" if n.startswith("n_") and n in row else shared.number(row.get(n)) for n in numbers]
        value = [] if not judged else ["-" if one.value is None else shared.number(one.value)]
        table.add_row(str(one.key.seed), str(one.epoch), *cells, *value, one.arch)
    console.print(table, "")
    for one in runs.by_seed:
        warnings = [text for row in one.history for name, text in row.items() if name.endswith("warning")]
        for told in (one.stopped, *warnings, one.error):
            if told:
                console.print(f"seed {one.key.seed}: {told}", markup=False, soft_wrap=True)
    for one in runs.failed:
        console.print(f"seed {one.key.seed} failed: {one.error}", markup=False, soft_wrap=True)
    if runs.spread is not None:
        told = f"{judged} {runs.mean:.2f} ± {runs.spread:.2f} over {len(runs.values)} seeds"
        console.print(f"{told}; best of {len(runs.values)}: {shared.number(runs.best.value or 0.0)}", soft_wrap=True)
    parts.print_finalist(console, summary["final"], runs.best.arch, summary["options"]["space"], given)
    files = ", ".join(sorted(p.name for p in Path(summary["folder"]).iterdir() if p.is_file() and "-" not in p.suffix))
    console.print(f"{summary['folder']}: {files}", soft_wrap=True)
