"""A network as one file for others: Python that needs PyTorch only, or ONNX.

The Python file holds a class with the layers and the forward of the network written out, and a function that loads its
weights. It goes on being trained as the network would, with the same names of parameters; only what depends on the mode
beyond the layers of ``torch.nn`` (drop-path, a second classifier) is written as it is in evaluation, and the file says
so.
"""

from __future__ import annotations

import copy
import keyword
import logging
import warnings
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from naswot._export_source import Members, Traced, access, forward_source, members_of, trace, tree_source
from naswot._files import whole_file
from naswot.errors import DataError, InputError, NaswotError, OptionError, missing_package
from naswot.preserve import in_mode, preserve
from naswot.seeding import preserve_random_state

_TAKEN: Final = ("Group", "Tensor", "load", "nn", "torch")
_CLOSE: Final = 1e-5  # the same operations on the same weights; threads may add in another order

_TOP: Final = '''

import torch
from torch import Tensor, nn


class Group(nn.Module):
    """Layers, parameters and buffers by name."""

    def __init__(self, members: dict[str, nn.Module | Tensor], unsaved: tuple[str, ...] = ()) -> None:
        super().__init__()
        for name, member in members.items():
            if isinstance(member, nn.Module):
                self.add_module(name, member)
            elif isinstance(member, nn.Parameter):
                self.register_parameter(name, member)
            else:
                self.register_buffer(name, member, persistent=name not in unsaved)

    def __getitem__(self, name: str) -> nn.Module:
        return getattr(self, name)

'''

_LOAD: Final = '''

def load(path: str{default}) -> {name}:
    """The network in evaluation mode, with the weights of a file{where}."""
    model = {name}()
    state = torch.load({path}, map_location="cpu", weights_only=True)
    model.load_state_dict(state)
    return model.eval()
'''


def export_pytorch(
    model: nn.Module,
    path: str | Path,
    *,
    example: Tensor,
    class_name: str = "Model",
    weights: bool = True,
    about: Mapping[str, str] | None = None,
) -> Path:
    """Write a network as one Python file that imports nothing but torch, and its weights beside it.

    The file is run before it is left: it gives the outputs of ``model`` for ``example`` and for one image more.
    ``model`` stays as it is.

    Args:
        model: gives logits (N, K) for images (N, C, H, W).
        path: where to write, ``NAME.py``; the weights go to ``NAME.pt``.
        example: some images, (N, C, H, W).
        class_name: of the class in the file.
        weights: write the weights too. Without them the file's network starts from torch's own initialisation.
        about: lines for the head of the file, such as ``{"space": "nasbench201", "architecture": "|...|"}``.
    Returns:
        The path of the Python file.
    Raises:
        InputError: if the network cannot be written; the message names the layer or function.
        OptionError: if the path or the name of the class does not fit.
        DataError: if a file cannot be written.
    """
    path = _checked_path(path, ".py")
    if not class_name.isidentifier() or keyword.iskeyword(class_name) or class_name in _TAKEN:
        raise OptionError(f"expected a class name other than {', '.join(_TAKEN)}, but got {class_name!r}")
    with preserve_random_state():
        original = copy.deepcopy(model).cpu().eval()
        example = example.detach().cpu()
        logits = _logits(original, example)
        traced = trace(original, example)
        members = members_of(traced)
        head = list(_head(original, traced, members, example, logits, about or {}))
        source = _source(class_name, head, traced, members, weights)
        state = {name: value for name, value in original.state_dict().items() if name in members.names}
        made = _made(source, class_name, path)
        made.load_state_dict(state)
        _compare(made.eval(), original, example, path)
    try:
        _write(path, source, state if weights else None)
    except (OSError, RuntimeError) as error:
        raise DataError(f"cannot write {path}: {error}") from error
    return path


def _write(path: Path, source: str, state: Mapping[str, Tensor] | None) -> None:
    """Write the files whole; neither takes the place of an old one before both are written."""
    with ExitStack() as parts:
        if state is not None:
            torch.save(state, parts.enter_context(whole_file(path.with_suffix(".pt"))))
        parts.enter_context(whole_file(path)).write_text(source, encoding="utf-8")


def _checked_path(path: str | Path, suffix: str) -> Path:
    path = Path(path)
    if path.suffix != suffix:
        raise OptionError(f"expected a file that ends in {suffix}, but got {str(path)!r}")
    if not path.parent.is_dir():
        raise DataError(f"there is no folder {path.parent} to write {path.name} to")
    return path


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    """Logits of copies of the images; the first layer may work in place."""
    try:
        with torch.no_grad():
            logits = model(images.clone())
    except NaswotError:
        raise
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} raised {type(error).__name__} on images of shape {tuple(images.shape)}: {error}"
        ) from error
    if not isinstance(logits, Tensor):
        raise InputError(f"expected a network that gives a tensor of logits, but got a {type(logits).__name__}")
    return logits


def _head(
    model: nn.Module, traced: Traced, members: Members, example: Tensor, logits: Tensor, about: Mapping[str, str]
) -> Iterable[str]:
    """Lines that say what the file is."""
    from naswot import __version__

    parameters = {name: p.numel() for name, p in model.named_parameters()}
    sizes = ", ".join(map(str, example.shape[1:]))
    facts = {
        **about,
        "input": f"(N, {sizes}) {example.dtype}".replace("torch.", ""),
        "output": f"(N, {', '.join(map(str, logits.shape[1:]))}) logits",
        "parameters": f"{sum(n for name, n in parameters.items() if name in members.names):,}",
    }
    yield f"Written by naswot {__version__}; needs PyTorch only."
    yield ""
    for name, value in facts.items():
        yield f"{name}: {' '.join(value.split())}"
    yield ""
    yield "The layers of torch.nn follow train() and eval(); everything else is written as it is in evaluation"
    yield "(no drop-path, no second classifier), whatever the mode."
    if traced.chooses:
        yield f"It does for ({sizes}) what the original network chooses by the size of the images."
    omitted = sorted({name.partition(".")[0] for name in parameters if name not in members.names})
    if omitted:
        yield f"Left out, as evaluation does not use them: {', '.join(omitted)}."
    if _differs_in_training(model, traced, example):
        yield "In training, the original network computes something else."


def _differs_in_training(model: nn.Module, traced: Traced, example: Tensor) -> bool:
    """Whether the forward between the layers depends on the mode."""
    model.train()
    try:
        return str(trace(model, example).graph) != str(traced.graph)
    except InputError:  # such as random numbers for every image
        return True
    finally:
        model.eval()


def _source(class_name: str, head: list[str], traced: Traced, members: Members, weights: bool) -> str:
    lines = ["# " + line if line else "#" for line in head]
    body = [
        f"class {class_name}(Group):",
        "    def __init__(self) -> None:",
        "        super().__init__(",
        "            {",
    ]
    body += tree_source(members.tree, "                ", members.unsaved)
    unsaved = tuple(name for name in members.unsaved if "." not in name)
    body += ["            },", *([f"            {unsaved!r},"] if unsaved else []), "        )"]
    body += [f"        {access(name)}.requires_grad_(False)" for name in members.frozen]
    body += ["", "    def forward(self, x: Tensor) -> Tensor:", *forward_source(traced.graph, "        ")]
    load = _LOAD.format(
        name=class_name,
        default=' = ""' if weights else "",
        where=", by default the one beside this" if weights else "",
        path='path or __file__.removesuffix(".py") + ".pt"' if weights else "path",
    )
    return "\n".join(lines) + _TOP + "\n" + "\n".join(body) + "\n" + load


def _made(source: str, class_name: str, path: Path) -> nn.Module:
    """The network that the file describes."""
    space: dict[str, Any] = {"__name__": path.stem}
    exec(compile(source, str(path), "exec"), space)  # written above, of classes and functions of torch
    made: nn.Module = space[class_name]()
    return made


def _compare(made: nn.Module, original: nn.Module, example: Tensor, path: Path) -> None:
    """Refuse a file that does not compute the same, for the example and for one image more."""
    for images in (example, torch.cat([example, example[:1]])):
        expected, found = _logits(original, images), _logits(made, images)
        if not torch.allclose(found, expected, rtol=_CLOSE, atol=_CLOSE, equal_nan=True):
            raise InputError(
                f"{path} was not written: for {len(images)} images it would give other logits than "
                f"{type(original).__name__}, whose forward depends on more than its inputs"
            )


def export_onnx(model: nn.Module, path: str | Path, *, example: Tensor, opset: int | None = None) -> Path:
    """Write a network in evaluation mode, with its weights, as one ONNX file for any number of images.

    Args:
        model: gives logits (N, K) for images (N, C, H, W); stays as it is.
        path: where to write, ``NAME.onnx``. Input and output are called ``images`` and ``logits``.
        example: some images, (N, C, H, W).
        opset: version of the operators; None: what torch chooses.
    Returns:
        The path.
    Raises:
        MissingPackageError: if onnx or onnxscript is not installed.
        InputError: if the network cannot be written.
        OptionError: if the path does not fit.
        DataError: if the file cannot be written.
    """
    path = _checked_path(path, ".onnx")
    try:
        import onnx
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise missing_package(error.name or "onnx", "onnx", "an ONNX file") from error
    with preserve(model), in_mode(model, "eval"):
        _logits(model, example)
        program = _onnx_program(model, torch.cat([example, example])[: max(2, len(example))], opset)
    try:
        with whole_file(path) as part:
            program.save(str(part), external_data=False)
            onnx.checker.check_model(str(part), full_check=True)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}") from error
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InputError(f"{path} would be no valid ONNX file, as onnx.checker says: {error}") from error
    return path


def _onnx_program(model: nn.Module, images: Tensor, opset: int | None) -> Any:
    """What torch's exporter makes of the network; two images or more, as one would be taken for a constant."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # it tells which parts of torchvision are not installed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                model,
                (images,),
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=opset,
                verbose=False,
            )
    except Exception as error:  # of the exporter or of torch.export, which have no common class
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{type(model).__name__} cannot be written as ONNX: {reason}") from error
    finally:
        log.setLevel(level)
    graph = program.model.graph
    if any(value.shape is None or isinstance(value.shape[0], int) for value in (*graph.inputs, *graph.outputs)):
        raise InputError(
            f"{type(model).__name__} would be written as ONNX for {len(images)} images only, not any number"
        )
    return program
