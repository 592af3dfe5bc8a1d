"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from rich.console import Console

    from naswot.proxy import Proxy
    from naswot.space import SearchSpace
    from naswot.types import Genotype

Command = TypeVar("Command", bound=Callable[..., Any])


class RegistryName(click.ParamType):  # type: ignore[type-arg]
    """A name out of a registry, for tab completion; whether it exists is the registry's to say."""

    name = "name"

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Offer every registered name that begins so."""
        *before, last = incomplete.split(",")
        return [CompletionItem(",".join([*before, name])) for name in names_of(self._kind) if name.startswith(last)]


def names_of(kind: str) -> list[str]:
    """Sorted names of proxies, spaces, data sets, benchmarks or search strategies."""
    from naswot.benchmark import list_benchmarks
    from naswot.data import list_data
    from naswot.differentiable.preset import list_presets
    from naswot.proxy import list_proxies
    from naswot.searcher import list_searchers
    from naswot.space import list_spaces

    return {
        "proxies": list_proxies,
        "spaces": list_spaces,
        "data": list_data,
        "benchmarks": list_benchmarks,
        "searchers": list_searchers,
        "strategies": lambda: sorted([*list_searchers(), *list_presets()]),
    }[kind]()


def data_options(command: Command) -> Command:
    """``--data --data-root --size --batch-size --seed``."""
    for option in reversed(
        [
            click.option(
                "--data", default="digits", show_default=True, type=RegistryName("data"), help="Where images come from."
            ),
            click.option("--data-root", envvar="NASWOT_DATA", type=click.Path(), help="Folder with the data files."),
            click.option("--size", type=click.IntRange(min=1), help="Height and width of the images."),
            click.option(
                "--batch-size", "-N", default=64, show_default=True, type=click.IntRange(min=1), help="Images N."
            ),
            click.option("--seed", default=0, show_default=True, help="Everything random derives from it."),
        ]
    ):
        command = option(command)
    return command


def pass_options(command: Command) -> Command:
    """``--taps --mode --fast --device``."""
    for option in reversed(
        [
            click.option(
                "--taps",
                type=click.Choice(["relu", "all", "mellor"]),
                default="all",
                show_default=True,
                help="Activations that count: piecewise-linear; these and smooth ones; the authors' reading.",
            ),
            click.option(
                "--mode",
                type=click.Choice(["train", "eval", "as_is"]),
                default="train",
                show_default=True,
                help="Statistics of the batch; running statistics; as the model is.",
            ),
            click.option("--fast", is_flag=True, help="Channels-last, and bfloat16 where the device has it."),
            click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ..."),
        ]
    ):
        command = option(command)
    return command


def checked_device(name: str) -> str:
    """``name`` if torch can use that device; a usage error otherwise."""
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise click.BadParameter(f"{name!r} cannot be used here: {reason}", param_hint="--device") from error
    return name


def key_values(pairs: Sequence[str]) -> dict[str, Any]:
    """``("width=8", ...)`` as a dictionary with numbers, words and JSON values told apart."""
    result: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"expected KEY=VALUE, but got {pair!r}")
        try:
            result[key] = json.loads(text)
        except json.JSONDecodeError:
            result[key] = text[1:-1] if len(text) > 1 and text[0] == text[-1] == "'" else text
    return result


def proxies_of(text: str) -> tuple[str | Proxy, ...]:
    """``"naswot, zen(repeats=4)"`` as names, and proxies with options bound."""
    from naswot.proxy import get_proxy

    found: list[str | Proxy] = []
    for name, options in re.findall(r"([^,()]+)(?:\(([^)]*)\))?", text):
        pairs = [pair.strip() for pair in options.split(",") if pair.strip()]
        if pairs:
            found.append(get_proxy(name.strip(), **key_values(pairs)))
        elif name.strip() and name.strip() not in found:
            found.append(name.strip())
    return tuple(found)


def genotype_of(arch: str, space: SearchSpace, seed: int) -> Genotype:
    """The architecture of a string of the space, or a ``random`` one."""
    from naswot.seeding import derive_seed, numpy_generator

    if arch == "random":
        return space.sample(numpy_generator(derive_seed(seed, "architecture")))
    return space.parse(arch)


def console() -> Console:
    """Where tables go: as wide as the terminal, or wide enough for all columns where there is none."""
    from rich.console import Console

    return Console(soft_wrap=False, highlight=False, width=None if sys.stdout.isatty() else 250)


def number(value: float | None, *, digits: int = 2) -> str:
    """A score for a table: few digits, thousands separated, infinities as they are."""
    if value is None:
        return ""
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value != 0 and not 10.0**-digits <= abs(value) < 1e15:
        return f"{value:.3g}"
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 1 else f"{value:,.{digits}f}"
