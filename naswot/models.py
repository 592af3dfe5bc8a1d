"""Models by name: from a Python file, from a search space, from the libraries a user has."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from naswot.errors import DataError, InputError, MissingPackageError, NaswotError, UnknownNameError, unknown_name
from naswot.seeding import seeded
from naswot.space import list_spaces, spaces
from naswot.types import Batch

SOURCES = (
    "FILE.py:factory",
    "SPACE:architecture",
    "timm:NAME",
    "torchvision:NAME",
    "pytorchcv:NAME",
    "hf:MODEL_TYPE",
    "hf:FOLDER",
)
"""The forms of a model's name."""


def load_model(name: str, *, n_classes: int = 10, size: int = 32, seed: int = 0) -> nn.Module:
    """An untrained model by name, initialised from ``seed``; nothing is downloaded.

    Args:
        name: ``FILE.py:factory`` (a function or class without required arguments, or a module), ``SPACE:architecture``
            (such as ``nasbench201:|...|``), ``timm:NAME``, ``torchvision:NAME``, ``pytorchcv:NAME``, or for Hugging
            Face ``hf:MODEL_TYPE`` (such as ``hf:vit``, the type's default configuration) and ``hf:FOLDER`` (a folder
            or file with a ``config.json``).
        n_classes: number of classes, for libraries that take it.
        size: image size, for models that are built for one.
        seed: the global generators start from it while the model is built.
    Raises:
        UnknownNameError: for a source, file attribute or model there is not, with the nearest.
        MissingPackageError: if the library is not installed.
        DataError: if the file does not exist.
        InputError: if the factory fails or gives no ``nn.Module``.
    """
    source, colon, rest = name.rpartition(":") if ".py:" in name else name.partition(":")
    if not colon or not rest:
        raise UnknownNameError(f"cannot read the model name {name!r}; expected one of: {', '.join(SOURCES)}")
    with seeded(seed):
        if source.endswith(".py"):
            return _from_file(Path(source), rest)
        if source in list_spaces():
            space = spaces.get(source)
            return space.build(space.parse(rest), n_classes=n_classes)
        if source not in _LIBRARIES:
            raise unknown_name("model source", source, [*_LIBRARIES, *list_spaces(), "FILE.py"])
        return _LIBRARIES[source](rest, n_classes, size)


def load_builder(name: str) -> Callable[[str], nn.Module]:
    """A function of a Python file that builds a model from an architecture string, by ``FILE.py:function``.

    What it gives back is checked, and what it raises is an :class:`InputError` with the architecture.
    """
    source, _, attribute = name.rpartition(":")
    if not source.endswith(".py") or not attribute:
        raise UnknownNameError(f"cannot read the name {name!r}; expected FILE.py:function")
    function = _attribute(Path(source), attribute)

    def build(arch: str) -> nn.Module:
        return _model_from(function, f"{name}({arch!r})", arch)

    return build


def _from_file(path: Path, attribute: str) -> nn.Module:
    found = _attribute(path, attribute)
    return found if isinstance(found, nn.Module) else _model_from(found, f"{path}:{attribute}()")


def _model_from(function: Any, call: str, *arguments: str) -> nn.Module:
    try:
        model = function(*arguments)
    except NaswotError:
        raise
    except Exception as error:
        raise InputError(f"{call} raised {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"{call} gave a {type(model).__name__}; expected a torch.nn.Module")
    return model


def _attribute(path: Path, attribute: str) -> Any:
    if not path.is_file():
        raise DataError(f"there is no file {path}; expected FILE.py:factory")
    module = _executed(path)
    if not hasattr(module, attribute):
        public = sorted(n for n, v in vars(module).items() if callable(v) and not n.startswith("_"))
        near = difflib.get_close_matches(attribute, public, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else "."
        raise UnknownNameError(f"{path} defines no {attribute!r}{guess} It defines: {', '.join(public) or 'nothing'}")
    return getattr(module, attribute)


def _executed(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"naswot_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise DataError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # so that the file can import its neighbours
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path} raised {type(error).__name__} when it was run: {error}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _library(package: str, name: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingPackageError(f"{name} needs the package {package!r}: pip install {package} ({error})") from error


def _timm(name: str, n_classes: int, size: int) -> nn.Module:
    timm = _library("timm", f"timm:{name}")
    if name not in timm.list_models(name):
        raise unknown_name("timm model", name, timm.list_models())
    options: dict[str, Any] = {"pretrained": False, "num_classes": n_classes}
    try:
        model: nn.Module = timm.create_model(name, **options, img_size=size)
    except TypeError:  # convolutional models take any size and know no such option
        model = timm.create_model(name, **options)
    return model


def _torchvision(name: str, n_classes: int, size: int) -> nn.Module:
    models = _library("torchvision", f"torchvision:{name}").models
    if name not in models.list_models():
        raise unknown_name("torchvision model", name, models.list_models())
    options: dict[str, Any] = {"image_size": size} if name.startswith("vit_") else {}
    model: nn.Module = models.get_model(name, weights=None, num_classes=n_classes, **options)
    return model


def _pytorchcv(name: str, n_classes: int, size: int) -> nn.Module:
    provider = _library("pytorchcv.model_provider", f"pytorchcv:{name}")
    if name not in provider._models:
        raise unknown_name("pytorchcv model", name, provider._models)
    options: dict[str, Any] = {"pretrained": False, "num_classes": n_classes}
    try:
        model: nn.Module = provider.get_model(name, **options, in_size=(size, size))
    except TypeError:
        model = provider.get_model(name, **options)
    return model


def _hugging_face(name: str, n_classes: int, size: int) -> nn.Module:
    transformers = _library("transformers", f"hf:{name}")
    if Path(name).exists():
        config = transformers.AutoConfig.from_pretrained(name, local_files_only=True)
    elif name in transformers.CONFIG_MAPPING:
        options = {"image_size": size} if size != 224 else {}
        config = transformers.AutoConfig.for_model(name)
        options = {key: value for key, value in options.items() if hasattr(config, key)}
        config = transformers.AutoConfig.for_model(name, **options)
    else:
        raise unknown_name("Hugging Face model type", name, list(transformers.CONFIG_MAPPING))
    config.num_labels = n_classes
    for auto in ("AutoModelForImageClassification", "AutoModelForSequenceClassification", "AutoModel"):
        try:
            model: nn.Module = getattr(transformers, auto).from_config(config)
        except ValueError:  # this kind of model is not offered for the configuration
            continue
        return model
    raise InputError(f"transformers offers no model for the configuration {name!r}")


_LIBRARIES: dict[str, Callable[[str, int, int], nn.Module]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "pytorchcv": _pytorchcv,
    "hf": _hugging_face,
}


def reads_tokens(model: nn.Module) -> bool:
    """Whether a Hugging Face model takes token ids rather than images."""
    return getattr(model, "main_input_name", None) == "input_ids"


def random_tokens(model: nn.Module, n: int, *, generator: torch.Generator, length: int = 64) -> Batch:
    """Token ids (N, T) drawn uniformly from the model's vocabulary, for language models without a corpus."""
    config: Any = inspect.getattr_static(model, "config", None) or getattr(model, "config")  # noqa: B009
    length = min(length, getattr(config, "max_position_embeddings", None) or length)
    return Batch({"input_ids": torch.randint(config.vocab_size, (n, length), generator=generator)})
