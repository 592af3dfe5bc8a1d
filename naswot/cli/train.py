"""``naswot train``."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from naswot._files import whole_file
from naswot._json import for_json, write_json
from naswot.cli import _options as shared
from naswot.cli import _run as run
from naswot.errors import StoreError

if TYPE_CHECKING:
    from torch import nn

    from naswot.data.images import ImageSet
    from naswot.space import SearchSpace
    from naswot.training.devices import OnEpoch
    from naswot.training.loop import TrainingResult
    from naswot.training.recipe import TrainingRecipe
    from naswot.types import Genotype

_COUNT = click.IntRange(min=1)
_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@click.command()
@click.argument("arch")
@click.option("--space", default="nasbench201", show_default=True, type=shared.RegistryName("spaces"), help="Of ARCH.")
@click.option("--recipe", "recipe_name", default="quick", show_default=True, help="quick, augmented or darts_cifar.")
@click.option("--epochs", type=_COUNT, help="Passes over the training images; by default the recipe's.")
@click.option("--batch-size", "-N", type=_COUNT, help="Images N of a step; by default the recipe's.")
@click.option(
    "--lr",
    help="Learning rate at the start, or auto for a range test; by default ARCH's own (evolved_graph) or the recipe's.",
)
@click.option("--precision", type=click.Choice(_PRECISIONS), help="Of the passes; by default the recipe's.")
@click.option("--set", "values", multiple=True, metavar="KEY=VALUE", help="Another value of the recipe: cutout=8.")
@click.option("--build", multiple=True, metavar="KEY=VALUE", help="Option of the space, such as width=8.")
@click.option("--data", default="digits", show_default=True, type=shared.RegistryName("data"), help="Images.")
@click.option("--data-root", envvar="NASWOT_DATA", type=click.Path(), help="Folder with the data files.")
@click.option("--size", type=_COUNT, help="Height and width of the images.")
@click.option(
    "--valid-fraction",
    default=0.25,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of the training images that is set aside for validation.",
)
@click.option("--seed", default=0, show_default=True, help="Everything random derives from it.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--devices", default=1, show_default=True, type=_COUNT, help="How many share each batch.")
@click.option("--num-nodes", default=1, show_default=True, type=_COUNT, help="Machines, under torchrun.")
@click.option(
    "--threads", default=1, show_default=True, type=_COUNT, help="Of the processor; the last bits depend on it."
)
@click.option(
    "--out", type=click.Path(file_okay=False), help="Folder; by default one under runs/ named by the options."
)
@click.option("--tensorboard", is_flag=True, help="Write for TensorBoard too, into the folder.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(**given: Any) -> None:
    """Really train one architecture, and test it once at the end.

    ARCH is an architecture string of the space, or random. Part of the training images is set aside for validation; the
    test images are seen once, after the last epoch. An interrupted training goes on when the same command is given
    again. The folder gets history.csv, summary.json, weights.pt and checkpoint.pt.

    \b
    Examples:
      naswot train random
      naswot train '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_3x3~2|' --lr auto
      naswot train random --space darts --recipe darts_cifar --data cifar10 --device cuda --precision bf16-mixed
      naswot train random --recipe augmented --epochs 30 --set cutout=6 --set ema_decay=0.99
    """
    from naswot.evaluate import Evaluator
    from naswot.space import get_space
    from naswot.training.recipe import build_options
    from naswot.training.splits import three_way_split

    space = get_space(given["space"])
    genotype = shared.genotype_of(given["arch"], space, given["seed"])
    recipe = _recipe(given, space, genotype)
    images = run.images_of({"data": given["data"], "size": given["size"]}, given["data_root"])
    train, valid = three_way_split(images, valid_fraction=given["valid_fraction"], seed=given["seed"])
    options = shared.key_values(given["build"])
    build = build_options(space, images.n_classes, images.shape[0], recipe, options)
    device = shared.checked_device(given["device"])
    about = _about(given, space, genotype, recipe, build)
    folder = Path(given["out"] or Path("runs") / _folder_name(about))
    model = Evaluator(space, train, ("params",), batch_size=1, seed=given["seed"], build=build).model(genotype)
    _open(folder, about)
    with _threads(given["threads"]):
        if given["lr"] == "auto":
            recipe = dataclasses.replace(recipe, learning_rate=_found_rate(model, train, recipe, given, folder))
        result = _train(model, train, valid, recipe, {**given, "device": device}, folder)
        if not _is_first_process():
            return
        summary = _finish(model, result, recipe, {**about, "folder": str(folder)}, given)
    click.echo(json.dumps(for_json(summary), indent=2)) if given["as_json"] else _print(summary)


def _recipe(given: Mapping[str, Any], space: SearchSpace, genotype: Genotype) -> TrainingRecipe:
    """The recipe with all options; a learning rate that is given comes before the architecture's own."""
    from naswot.training.recipe import get_recipe, recipe_for

    named = {key: given[key] for key in ("epochs", "batch_size", "precision") if given[key] is not None}
    if given["lr"] not in (None, "auto"):
        try:
            named["learning_rate"] = float(given["lr"])
        except ValueError as error:
            raise click.BadParameter(
                f"expected a number or auto, but got {given['lr']!r}", param_hint="--lr"
            ) from error
    named = {**shared.key_values(given["values"]), **named}
    recipe = get_recipe(given["recipe_name"], **named)
    return recipe if given["lr"] or "learning_rate" in named else recipe_for(space, genotype, recipe)


def _about(
    given: Mapping[str, Any], space: SearchSpace, genotype: Genotype, recipe: TrainingRecipe, build: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that determines the numbers, but for the kind of machine."""
    described = recipe.describe()
    if given["lr"] == "auto":
        described["learning_rate"] = "auto"
    images = {key: given[key] for key in ("data", "size", "valid_fraction")}
    about = {"space": space.name, "arch": space.format(genotype), "build": dict(build), "seed": given["seed"]}
    return {**about, "images": images, "recipe": described}


def _folder_name(about: Mapping[str, Any]) -> str:
    digest = blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=3).hexdigest()
    return f"train-{about['space']}-{about['images']['data']}-seed{about['seed']}-{digest}"


def _open(folder: Path, about: Mapping[str, Any]) -> None:
    """Make the folder, or see that it is this training's."""
    if not _is_first_process():
        return
    options = folder / "options.json"
    if not options.exists():
        if folder.is_dir() and any(folder.iterdir()):
            raise StoreError(f"{folder} holds files but no training; choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(options, about)
        return
    try:
        found = json.loads(options.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{options} is no JSON ({error}); choose another --out") from error
    different = [key for key in about if found.get(key) != json.loads(json.dumps(about[key]))]
    if different:
        raise StoreError(
            f"{folder} holds a training with another {', '.join(different)} (see options.json); choose another --out"
        )


def _found_rate(
    model: nn.Module, train: ImageSet, recipe: TrainingRecipe, given: Mapping[str, Any], folder: Path
) -> float:
    """The suggestion of a range test, which is made once for each folder."""
    from naswot.training.lr_finder import find_learning_rate

    path = folder / "learning_rate.json"
    if not path.exists():
        if _is_joined():
            raise click.UsageError("under torchrun each process would find a rate of its own; give --lr a number")
        curve = find_learning_rate(model, train, recipe, seed=given["seed"], device=given["device"])
        write_json(path, dataclasses.asdict(curve))
    found = json.loads(path.read_text(encoding="utf-8"))
    click.echo(f"note: learning rate {found['suggestion']:.3g}, by a range test ({found['rule']})", err=True)
    return float(found["suggestion"])


def _train(
    model: nn.Module,
    train: ImageSet,
    valid: ImageSet,
    recipe: TrainingRecipe,
    given: Mapping[str, Any],
    folder: Path,
) -> TrainingResult:
    from naswot.training.loop import train as train_model

    with _told(given, recipe.epochs, folder) as on_epoch:
        try:
            return train_model(
                model,
                train,
                valid,
                recipe,
                seed=given["seed"],
                checkpoint=folder / "checkpoint.pt",
                device=given["device"],
                devices=given["devices"],
                num_nodes=given["num_nodes"],
                on_epoch=on_epoch,
            )
        except KeyboardInterrupt:
            pass  # to be told when the bar is gone
    raise SystemExit(_stopped(folder))


@contextmanager
def _told(given: Mapping[str, Any], epochs: int, folder: Path) -> Iterator[OnEpoch]:
    """A callback that moves a bar and writes the history."""
    from naswot.training.callbacks import csv_history, each_of, tensorboard_history

    with ExitStack() as stack:
        bars = stack.enter_context(run.progress(given["as_json"] or not _is_first_process()))
        bar = bars.add_task("training", total=epochs, rate="")

        def advance(epoch: int, metrics: Mapping[str, float]) -> None:
            now = f"loss {metrics['train_loss']:.3f}, validation {metrics['valid_accuracy']:.1f} %"
            bars.update(bar, completed=epoch, rate=now)

        callbacks = [advance, csv_history(folder / "history.csv")]
        if given["tensorboard"]:
            callbacks.append(stack.enter_context(tensorboard_history(folder / "tensorboard")))
        yield each_of(*callbacks)


def _stopped(folder: Path) -> int:
    """Say after Ctrl-C what is kept; the exit code."""
    from naswot.training.callbacks import read_history

    done = len(read_history(folder / "history.csv"))
    kept = f"{done} epochs are kept in {folder / 'checkpoint.pt'}" if done else f"no epoch was finished in {folder}"
    click.echo(f"naswot: stopped; {kept}; the same command goes on", err=True)
    return 130


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """Run torch on ``n`` threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _finish(
    model: nn.Module,
    result: TrainingResult,
    recipe: TrainingRecipe,
    about: Mapping[str, Any],
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Test once, and write what is left to write."""
    import torch

    from naswot.data import get_data
    from naswot.training.callbacks import write_history
    from naswot.training.loop import test_accuracy

    test = get_data(given["data"], root=given["data_root"], size=given["size"], split="test")
    summary = {
        "command": "train",
        **about,
        "recipe": recipe.describe(),
        "params": sum(p.numel() for p in model.parameters()),
        "epochs": result.epochs,
        "train_loss": result.train_loss,
        "valid_accuracy": result.valid_accuracy,
        "best_epoch": result.best_epoch,
        "test_accuracy": test_accuracy(model, test),
        "seconds": round(result.seconds, 2),
    }
    folder = Path(about["folder"])
    write_history(folder / "history.csv", result.history)
    with whole_file(folder / "weights.pt") as part:
        torch.save({name: value.cpu() for name, value in model.state_dict().items()}, part)
    write_json(folder / "summary.json", summary)
    return summary


def _print(summary: Mapping[str, Any]) -> None:
    click.echo(
        f"{summary['arch']}: {summary['params']:,} parameters, {summary['epochs']} epochs, {summary['seconds']} s"
    )
    click.echo(
        f"validation accuracy {summary['valid_accuracy']:.2f} % (best in epoch {summary['best_epoch']}), "
        f"training loss {summary['train_loss']:.3f}"
    )
    click.echo(f"test accuracy {summary['test_accuracy']:.2f} %")
    names = ", ".join(sorted(path.name for path in Path(summary["folder"]).iterdir()))
    click.echo(f"{summary['folder']}: {names}")


def _is_joined() -> bool:
    """Whether ``torchrun`` started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def _is_first_process() -> bool:
    """Whether this process writes and prints."""
    return not _is_joined() or os.environ.get("RANK", "0") == "0"
