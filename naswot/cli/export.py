"""``naswot export``."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from naswot.cli import _options as shared
from naswot.errors import DataError, InputError, OptionError

if TYPE_CHECKING:
    from torch import nn

    from naswot.space import SearchSpace
    from naswot.types import Genotype


@click.command()
@click.argument("arch")
@click.option("--space", default="nasbench201", show_default=True, type=shared.RegistryName("spaces"))
@click.option(
    "--to", "path", required=True, type=click.Path(dir_okay=False, path_type=Path), help="NAME.py or NAME.onnx."
)
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Trained weights: a state dict that torch.save wrote. Without it: those of an untrained network.",
)
@click.option("--source-only", is_flag=True, help="Write no file of weights beside NAME.py.")
@click.option("--class-name", default="Model", show_default=True, help="Of the class in NAME.py.")
@click.option("--build", multiple=True, metavar="KEY=VALUE", help="Option of the space, such as width=32.")
@click.option("--n-classes", type=click.IntRange(min=1), help="Number of logits.  [default: the space's]")
@click.option("--size", type=click.IntRange(min=1), help="Height and width of the images.  [default: the space's]")
@click.option("--seed", default=0, show_default=True, help="Of the untrained weights.")
def command(
    arch: str,
    space: str,
    path: Path,
    weights: Path | None,
    source_only: bool,
    class_name: str,
    build: tuple[str, ...],
    n_classes: int | None,
    size: int | None,
    seed: int,
) -> None:
    """Write the network of ARCH as Python that needs PyTorch only, or as ONNX.

    NAME.py holds a class with all layers and the forward written out, and load(), which reads the weights in NAME.pt.

    \b
    Examples:
      naswot export '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|' --to cell.py
      naswot export 00000000 --space nasbench_macro --n-classes 100 --to net.onnx --weights weights.pt
      naswot export 64:64:64:64:64 --space natsbench_sss --to net.py --source-only
    """
    import torch

    from naswot.export import export_onnx, export_pytorch
    from naswot.seeding import torch_generator
    from naswot.space import get_space

    if path.suffix not in (".py", ".onnx"):
        raise click.BadParameter(f"expected a file that ends in .py or .onnx, but got {path}", param_hint="--to")
    found = get_space(space)
    if found.input_kind != "images":
        raise OptionError(f"networks of {space} read {found.input_kind}; only networks of images can be written")
    genotype = shared.genotype_of(arch, found, seed)
    options = shared.key_values(build) | ({} if n_classes is None else {"n_classes": n_classes})
    model = _built(found, genotype, options, seed)
    if weights is not None:
        _load(model, weights)
    size = size or found.input_size
    shape = (2, options.get("in_channels", 3), size, size)
    example = torch.randn(*shape, generator=torch_generator(seed))
    if path.suffix == ".onnx":
        export_onnx(model, path, example=example)
    else:
        about = {"space": space, "architecture": found.format(genotype)}
        about |= {"weights": "untrained" if weights is None else f"from {weights.name}"}
        export_pytorch(model, path, example=example, class_name=class_name, weights=not source_only, about=about)
    n = sum(parameter.numel() for parameter in model.parameters())
    beside = f" and {path.with_suffix('.pt')}" if path.suffix == ".py" and not source_only else ""
    state = "untrained (--weights gives others)" if weights is None else "trained"
    click.echo(f"wrote {path}{beside}: {n:,} parameters, {state}, images of {shape[1]} x {size} x {size}")


def _built(space: SearchSpace, genotype: Genotype, options: Mapping[str, Any], seed: int) -> nn.Module:
    from naswot.seeding import derive_seed, seeded

    offered = list(inspect.signature(space.build).parameters)[1:]
    for option in options:
        if option not in offered:
            raise OptionError(f"space {space.name!r} has no build option {option!r}; it offers {', '.join(offered)}")
    build: Callable[..., nn.Module] = space.build
    try:
        with seeded(derive_seed(seed, space.format(genotype), 0)):
            return build(genotype, **options)
    except (TypeError, RuntimeError) as error:
        raise OptionError(f"{space.name} cannot be built with {dict(options)}: {error}") from error


def _load(model: nn.Module, path: Path) -> None:
    """Give the network trained weights."""
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read as weights that torch.save wrote: {reason}") from error
    if not isinstance(state, Mapping):
        raise DataError(f"expected a state dict in {path}, but it holds a {type(state).__name__}")
    own = model.state_dict()
    wrong = [name for name in own if name not in state] + [name for name in state if name not in own]
    if wrong:
        raise InputError(
            f"the weights in {path} are those of another network: {len(wrong)} names differ, such as {wrong[0]!r}; "
            "ARCH, --space and --build must be those of the training"
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(
            f"the weights in {path} have other shapes than the network ({' '.join(str(error).split())[:200]}); "
            "--build and --n-classes must be those of the training"
        ) from error
