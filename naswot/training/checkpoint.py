"""The state of a training after an epoch, in one file that is either old or new, never half."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from naswot._files import whole_file
from naswot.data.images import ImageSet
from naswot.errors import StoreError
from naswot.evaluate import batch_digest
from naswot.types import Batch

_FORMAT: Final = 1
_NAMES: Final = {"model": "network or first weights", "train": "training images", "valid": "validation images"}


def identify(
    model: nn.Module, train: ImageSet, valid: ImageSet | None, recipe: Mapping[str, object], seed: int
) -> dict[str, Any]:
    """Everything that determines a training's numbers, to be compared before it goes on.

    Args:
        model: with its first weights, of which a digest is taken.
        train: training images.
        valid: validation images.
        recipe: as described by itself.
        seed: of everything random.
    """
    return {
        "recipe": dict(recipe),
        "seed": seed,
        "model": digest_of(model),
        "train": digest_of_images(train),
        "valid": None if valid is None else digest_of_images(valid),
    }


def digest_of_images(data: ImageSet) -> str:
    """Digest of images and labels, and how they are normalised."""
    return f"{batch_digest(Batch(data.images, data.labels))} {data.mean} {data.std}"


def digest_of(model: nn.Module) -> str:
    """Digest of names, types and values of all weights and buffers."""
    digest = blake2b(digest_size=8)
    for name, value in model.state_dict().items():
        if isinstance(value, torch.Tensor):
            plain = value.detach().cpu().contiguous()
            digest.update(repr((name, tuple(plain.shape), str(plain.dtype))).encode())
            digest.update(plain.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_checkpoint(path: Path, identity: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write the state of a training or a search; a reader, or a crash, sees the old file or the whole new one.

    Several processes may train the same side by side: each goes on from its own state, and all come to the same bits.

    Raises:
        StoreError: if the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            torch.save({"format": _FORMAT, "identity": dict(identity), **state}, part)
    except (OSError, RuntimeError) as error:
        raise StoreError(f"cannot write checkpoint {path} ({error}); choose another file or make room") from error


def read_checkpoint(path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The state of the training with this identity; None if there is no file.

    Raises:
        StoreError: if the file is damaged or another training's.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, NotADirectoryError):  # perhaps gone just now: another process has finished this training
        return None
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"checkpoint {path} cannot be read ({reason}); delete it to begin again") from error
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise StoreError(f"{path} is no checkpoint of format {_FORMAT}; delete it, or choose another file")
    differences = [_difference(key, found["identity"].get(key), value) for key, value in identity.items()]
    told = [difference for difference in differences if difference]
    if told:
        raise StoreError(
            f"checkpoint {path} is that of another training: {'; '.join(told)}; choose another file, or delete this "
            "one to begin again"
        )
    return found


def _difference(key: str, old: Any, new: Any) -> str:
    """What differs, in words; nothing if nothing does."""
    if old == new:
        return ""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
        return ", ".join(f"its {name} is {old.get(name)}, not {new.get(name)}" for name in names)
    return f"its {_NAMES[key]} differ" if key in _NAMES else f"its {key} is {old}, not {new}"
