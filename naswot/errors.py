"""Every error and warning the engine raises; each also inherits the builtin a caller would expect."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Iterable


class NaswotError(Exception):
    """Base of all errors of this package."""


class InputError(NaswotError, ValueError):
    """An input tensor, batch or model that cannot be scored as it is."""


class ShapeError(InputError):
    """A tensor whose shape does not fit; the message names both shapes."""


class OptionError(NaswotError, ValueError):
    """An option outside its allowed values; the message lists them."""


class EmptySpaceError(OptionError):
    """An empty space: no valid genotype was met where one had to be drawn."""


class ArchitectureError(NaswotError, ValueError):
    """An architecture string or genotype that its space does not contain."""


class NoActivationError(InputError):
    """The forward pass met no activation that the chosen taps count."""


class OutputError(NaswotError, TypeError):
    """The model's result contains no logits by the documented rule."""


class ModelError(NaswotError, RuntimeError):
    """The model itself raised during a pass; the original error is its ``__cause__``."""


class UnknownNameError(NaswotError, LookupError):
    """A name that no registry entry carries; the message suggests the nearest."""


class RegistrationError(NaswotError, ValueError):
    """A plug-in that cannot be registered, for example because its name is taken."""


class MissingPackageError(NaswotError, ImportError):
    """An optional package is needed; the message names the pip extra that brings it."""


class DataError(NaswotError, OSError):
    """A data file that is missing, truncated or not in the expected format."""


class UnsafePickleError(NaswotError, pickle.UnpicklingError):
    """A pickle asks for more than plain containers and arrays and is not loaded."""


class StoreError(NaswotError, OSError):
    """A result store that cannot be opened, read or written."""


class StoreSchemaError(StoreError):
    """A result store written under another schema number."""


class WorkerError(NaswotError, RuntimeError):
    """A worker process died before it could answer."""


class TrainingError(NaswotError, RuntimeError):
    """A training that cannot go on."""


class DivergedError(TrainingError):
    """The training loss is no longer finite; the message says when, and at which learning rate."""


class ConvergenceError(NaswotError, ArithmeticError):
    """An iteration that did not reach its tolerance; the message says how near it came, and what helps."""


class MemoryShortageError(TrainingError):
    """A batch did not fit into memory; the message names a smaller one."""


class NaswotWarning(UserWarning):
    """Category of every warning of this package, so that one filter silences them."""


class UntappedWarning(NaswotWarning):
    """Code that no tap can look into (TorchScript, custom autograd functions) ran in the model."""


def unknown_name(kind: str, name: str, known: Iterable[str], hint: str = "") -> UnknownNameError:
    """Error for a misspelt name: value, nearest suggestion and where to look.

    Args:
        kind: what is looked up, such as ``"proxy"``.
        name: the name that was not found.
        known: all names there are.
        hint: one more sentence, such as the command that lists them.
    Example:
        >>> print(unknown_name("proxy", "snp", ["snip", "zen"]))
        unknown proxy 'snp'; did you mean 'snip'? There are 2: snip, zen
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f"; did you mean {near[0]!r}?" if near else "."
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    there = hint or (f"There are {len(names)}: {shown}" if names else "None is installed.")
    return UnknownNameError(f"unknown {kind} {name!r}{guess} {there}")


def missing_package(package: str, extra: str, purpose: str) -> MissingPackageError:
    """Error for an optional package that is not installed, with the command that brings it."""
    return MissingPackageError(
        f"{purpose} needs the package {package!r}: pip install 'naswot[{extra}]' (or pip install {package})"
    )
