"""Run folders: what the commands that score many networks share."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from naswot.cli import _options as shared
from naswot.errors import StoreError

if TYPE_CHECKING:
    from rich.progress import Progress

    from naswot.data.images import ImageSet
    from naswot.evaluate import Evaluator
    from naswot.space import SearchSpace
    from naswot.store import ResultStore


def images_of(source: Mapping[str, Any], root: str | None) -> ImageSet:
    """Images of a source such as ``{"data": "digits", "size": 16}``, with its notes on standard error."""
    from naswot.data import get_data

    options = {key: value for key, value in source.items() if key != "data"}
    images = get_data(source["data"], root=root, **options)
    for note in images.notes:
        click.echo(f"note: {note}", err=True)
    return images


def evaluator_of(
    given: Mapping[str, Any],
    space: SearchSpace,
    images: ImageSet,
    *,
    build: Mapping[str, Any] | None = None,
    pruned: bool = False,
) -> Evaluator:
    """What the options of a command say: ``--proxies --build``, data options, pass options.

    Args:
        given: the options.
        space: the space.
        images: where batches come from.
        build: options of the space that ``--build`` may override.
        pruned: see :class:`naswot.evaluate.Evaluator`.
    """
    from naswot.evaluate import Evaluator
    from naswot.options import PassOptions, fast_options

    device = shared.checked_device(given["device"])
    speed: dict[str, Any] = fast_options(device) if given["fast"] else {}
    fitting = {"n_classes": images.n_classes, "in_channels": images.shape[0]}
    return Evaluator(
        space,
        images,
        shared.proxies_of(given["proxies"]),
        batch_size=given["batch_size"],
        seed=given["seed"],
        device=device,
        options=PassOptions(taps=given["taps"], mode=given["mode"], **speed),
        build={**fitting, **(build or {}), **shared.key_values(given["build"])},
        pruned=pruned,
    )


def folder_name(evaluator: Evaluator, *, prefix: str = "") -> str:
    """Name of the run folder of an evaluator, the same whenever its numbers are the same."""
    about = evaluator.describe()
    digest = blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=3).hexdigest()
    return f"{prefix}{about['space']}-{about['images']}-seed{about['seed']}-{digest}"


def open_store(folder: Path, options: Mapping[str, object], device: str = "cpu") -> ResultStore:
    """The store of a run folder, which keeps the command line of every session.

    Args:
        folder: made if need be.
        options: everything that determines the numbers.
        device: where they are worked out.
    Raises:
        StoreError: if the folder holds files of something else.
    """
    from naswot.store import ResultStore, describe_environment

    if folder.is_dir() and any(folder.iterdir()) and not (folder / "results.sqlite").exists():
        raise StoreError(f"{folder} holds files but no results of a run; choose another --out")
    environment = {**describe_environment(device), "command_line": shlex.join(["naswot", *sys.argv[1:]])}
    return ResultStore(folder / "results.sqlite", options=options, environment=environment)


def default_workers(evaluator: Evaluator) -> int:
    """One process for each core; on a GPU one."""
    from naswot.workers import available_cores

    return available_cores() if evaluator.device == "cpu" else 1


def store_of(evaluator: Evaluator, folder: Path) -> ResultStore:
    """The store of a run folder for the scores of an evaluator."""
    return open_store(folder, evaluator.describe(), evaluator.device)


def stopped(store: ResultStore, folder: Path) -> NoReturn:
    """Say after Ctrl-C what is kept, and end."""
    click.echo(f"naswot: stopped; {len(store)} results are kept in {folder}; the same command goes on", err=True)
    sys.exit(130)


@contextlib.contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """A progress bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bars:
        yield bars


def advancing(bars: Progress, what: str, total: int) -> Callable[[object], None]:
    """A new bar; the function advances it by one and shows the rate."""
    bar = bars.add_task(what, total=total, rate="")
    start = time.perf_counter()

    def advance(_: object) -> None:
        bars.advance(bar)
        done = bars.tasks[bar].completed
        bars.update(bar, rate=f"{done / (time.perf_counter() - start):.1f}/s")

    return advance
