"""``naswot benchmark build``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from naswot.cli import _options as shared
from naswot.cli import _run as run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from naswot.benchmark import Benchmark
    from naswot.store import ResultStore
    from naswot.training.build import Recipe
    from naswot.types import Genotype

_SMALL = {"width": 4, "n_cells": 1}
_COUNT = click.IntRange(min=1)


@click.command()
@click.option("--space", default="nasbench201", show_default=True, type=shared.RegistryName("spaces"), help="Of what.")
@click.option("--number", "-n", default=640, show_default=True, type=_COUNT, help="Distinct networks to train.")
@click.option("--seeds", default=2, show_default=True, type=_COUNT, help="Trainings of each.")
@shared.data_options
@click.option("--noise", default=1.0, show_default=True, help="Standard deviation of noise on the normalised images.")
@click.option("--images", default=960, show_default=True, type=_COUNT, help="Training images.")
@click.option("--epochs", default=5, show_default=True, type=_COUNT, help="Passes over them.")
@click.option("--learning-rate", default=0.05, show_default=True, help="At the start.")
@click.option(
    "--build",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the space; by default width=4 n_cells=1 if it has them.",
)
@click.option("--workers", type=_COUNT, help="Processes; by default one for each core.")
@click.option(
    "--out", type=click.Path(file_okay=False), help="Folder; by default one under runs/ named by the options."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def build(**given: Any) -> None:
    """Really train architectures of a space and write the table, SPACE_DATA.naswot.csv.gz.

    Without options this makes the embedded benchmark nasbench201_digits again. Results are kept at once: the same
    command goes on where an earlier one was stopped, and a larger --number or more --seeds add to them. Accuracies
    depend on neither the order nor the number of workers.

    \b
    Examples:
      naswot benchmark build
      naswot benchmark build -n 100 --seeds 3 --noise 1.5 --epochs 10 --out runs/mine
      naswot benchmark build --data cifar10 --data-root ~/data --noise 0 --images 10000 --build width=8
    """
    from naswot.benchmark import Benchmark
    from naswot.benchmark_csv import SUFFIX, write_csv
    from naswot.training.build import collect, distinct_networks

    recipe = _recipe(given)
    genotypes = distinct_networks(recipe.space, given["number"], seed=given["seed"])
    name = f"{recipe.space.name}_{recipe.train.name}"
    folder = Path(given["out"] or Path("runs") / f"{name}-{_digest(recipe)}")
    with run.open_store(folder, recipe.describe()) as store:
        _train(recipe, genotypes, given, store, folder)
        table = collect(recipe, genotypes, given["seeds"], store)
    path = folder / f"{name}{SUFFIX}"
    benchmark = Benchmark(name, recipe.space, table, source=str(path))
    summary = _summary(benchmark, recipe.train.name, given["seeds"])
    write_csv(benchmark, path, {"command": _command(given, recipe), **_provenance(recipe), **summary})
    if given["as_json"]:
        click.echo(json.dumps({"file": str(path), **summary}, indent=2))
        return
    for key, value in summary.items():
        click.echo(f"{key.replace('_', ' ')}: {value}")
    click.echo(str(path))


def _recipe(given: dict[str, Any]) -> Recipe:
    import inspect

    from naswot.data import get_data
    from naswot.space import get_space
    from naswot.training.build import Recipe, choose_images

    space = get_space(given["space"])
    options = {"root": given["data_root"], "size": given["size"], "noise": given["noise"]}
    train, held_out = (get_data(given["data"], split=split, **options) for split in ("train", "test"))
    offered = inspect.signature(space.build).parameters
    small = {option: value for option, value in _SMALL.items() if option in offered}
    return Recipe(
        space,
        choose_images(train, given["images"], seed=given["seed"]),
        held_out,
        images={"data": given["data"], "size": train.shape[-1], "noise": given["noise"]},
        build=shared.key_values(given["build"]) or small,
        epochs=given["epochs"],
        batch_size=given["batch_size"],
        learning_rate=given["learning_rate"],
        seed=given["seed"],
    )


def _digest(recipe: Recipe) -> str:
    return blake2b(json.dumps(recipe.describe(), sort_keys=True).encode(), digest_size=3).hexdigest()


def _train(
    recipe: Recipe, genotypes: Sequence[Genotype], given: dict[str, Any], store: ResultStore, folder: Path
) -> None:
    from naswot.training.build import train_all
    from naswot.workers import available_cores, worker_pool

    with run.progress(given["as_json"]) as progress:
        try:
            with worker_pool(given["workers"] or available_cores()) as executor:
                train_all(
                    recipe,
                    genotypes,
                    given["seeds"],
                    store=store,
                    executor=executor,
                    on_done=run.advancing(progress, "training", len(genotypes) * given["seeds"]),
                )
        except KeyboardInterrupt:
            progress.stop()
            run.stopped(store, folder)


def _command(given: dict[str, Any], recipe: Recipe) -> str:
    """Every option that determines the table, whether it was given or not."""
    names = ("space", "number", "seeds", "data", "noise", "images", "epochs", "batch_size", "learning_rate", "seed")
    options = {**{name: given[name] for name in names}, "size": recipe.images["size"]}
    words = [f"--{name.replace('_', '-')} {value}" for name, value in options.items()]
    words += [f"--build {key}={value}" for key, value in recipe.build.items()]
    return f"naswot benchmark build {' '.join(words)}"


def _provenance(recipe: Recipe) -> dict[str, Any]:
    from naswot.store import describe_environment

    environment = describe_environment()
    versions = {key: environment[key] for key in ("naswot", "torch", "numpy", "python", "cpu_capability")}
    return {"versions": versions, "date": datetime.now(UTC).date().isoformat(), "recipe": recipe.describe()}


def _summary(benchmark: Benchmark, dataset: str, n_seeds: int) -> dict[str, Any]:
    """Range of the accuracy, agreement of the first two trainings, cost."""
    import numpy as np

    from naswot.statistics import kendall_interval

    accuracies = np.stack([benchmark.column(dataset, seed=number) for number in range(n_seeds)])
    seconds = benchmark.column(dataset, "train_seconds")
    summary = {
        "architectures": len(benchmark),
        "trainings": int((~np.isnan(accuracies)).sum()),
        "accuracy": "{:.2f} to {:.2f} %, median {:.2f} %".format(*np.nanquantile(accuracies, [0, 1, 0.5])),
        "seconds_of_a_training": round(float(np.nanmean(seconds)), 2),
    }
    if n_seeds > 1:
        difference = accuracies[1] - accuracies[0]
        summary |= {
            "tau_between_seeds": str(kendall_interval(accuracies[0], accuracies[1])),
            "difference_of_seeds": f"mean {np.nanmean(difference):.2f}, sd {np.nanstd(difference):.2f} points",
        }
    return summary
