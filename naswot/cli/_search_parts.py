"""Parts of searches that the commands share: benchmarks in the place of training, and training what was found."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from naswot.cli import _run as run

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from naswot.benchmark import Benchmark
    from naswot.data.images import ImageSet
    from naswot.table_evaluator import TableEvaluator
    from naswot.training.evaluator import TrainingEvaluator
    from naswot.types import Genotype


def benchmark_of(given: Mapping[str, Any]) -> Benchmark:
    """``--benchmark``, which also says which space is searched."""
    from naswot.benchmark import get_benchmark

    benchmark = get_benchmark(given["table"].partition("/")[0], given["data_root"])
    if is_given("space") and benchmark.space.name != given["space"]:
        raise click.UsageError(f"{benchmark.name} is about the space {benchmark.space.name}, not {given['space']}")
    return benchmark


def source_of(given: Mapping[str, Any], benchmark: Benchmark | None) -> dict[str, Any]:
    """Images as asked for, or those on which the benchmark's networks were trained."""
    if benchmark is None or is_given("data") or not benchmark.images:
        return {"data": given["data"], "size": given["size"]}
    return {**benchmark.images, "size": given["size"] or benchmark.images.get("size")}


def is_given(name: str) -> bool:
    """Whether an option stands on the command line."""
    return click.get_current_context().get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def table_of(given: Mapping[str, Any], benchmark: Benchmark) -> TableEvaluator:
    """The data set and metric that ``--benchmark`` names."""
    from naswot.table_evaluator import TableEvaluator

    _, _, rest = given["table"].partition("/")
    dataset, _, metric = rest.partition("/")
    dataset = dataset or benchmark.datasets[0]
    metrics = benchmark.metrics(dataset)
    metric = metric or ("valid_accuracy" if "valid_accuracy" in metrics else "test_accuracy")
    if metric.startswith("test"):
        click.echo(f"note: the search chooses by {metric}: what it finds is no estimate for new images", err=True)
    return TableEvaluator(benchmark, dataset, metric, epochs=given["epochs"])


def train_finalist(
    given: Mapping[str, Any],
    genotype: Genotype,
    training: TrainingEvaluator,
    images: ImageSet,
    source: Mapping[str, Any],
    folder: Path,
    progress: Progress,
) -> dict[str, object]:
    """Train the winner from scratch on all training images, and look at the test images of the same source once."""
    import torch

    from naswot._files import whole_file
    from naswot.evaluate import single_thread
    from naswot.searcher import Trial
    from naswot.seeding import derive_seed
    from naswot.training.loop import test_accuracy, train

    alone = Trial(0, genotype)
    recipe = training.recipe_for(alone)
    bar = progress.add_task("finalist, all images, epochs", total=recipe.epochs, rate="")

    def after(epoch: int, metrics: Mapping[str, float]) -> None:
        progress.update(bar, completed=epoch, rate=f"loss {metrics['train_loss']:.3g}")

    with single_thread():
        model = training.model(alone)
        checkpoint = folder / "unfinished" / f"final-{derive_seed(genotype) % 2**32:08x}.pt"
        seed = derive_seed(given["seed"], "final")
        train(model, images, None, recipe, seed=seed, checkpoint=checkpoint, device=given["device"], on_epoch=after)
        held_out = run.images_of({**source, "split": "test"}, given["data_root"])
        found = test_accuracy(model, held_out)
    with whole_file(folder / "weights.pt") as part:
        torch.save(model.state_dict(), part)
    return {"test_accuracy": found, "epochs": recipe.epochs, "weights": str(folder / "weights.pt")}


def print_finalist(console: Console, final: Mapping[str, Any], arch: str, space: str, given: Mapping[str, Any]) -> None:
    """What the winner reached on the test images, and the command that takes it away."""
    if "test_accuracy" in final:
        told = f"winner, trained on all images for {final['epochs']} epochs"
        console.print(f"{told}: {final['test_accuracy']:.2f} % test accuracy", soft_wrap=True)
        console.print(f"to take it away: {_export_command(final, arch, space, given)}", markup=False, soft_wrap=True)


def _export_command(final: Mapping[str, Any], arch: str, space: str, given: Mapping[str, Any]) -> str:
    """The command that writes the winner with its weights as plain PyTorch."""
    words = ["naswot", "export", arch, "--space", space]
    words += [word for pair in given["build"] for word in ("--build", pair)]
    words += ["--size", str(given["size"])] if given["size"] else []
    return shlex.join([*words, "--weights", str(final["weights"]), "--to", "winner.py"])
