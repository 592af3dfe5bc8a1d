"""Names to plug-ins, found by entry point on the first look-up."""

from __future__ import annotations

import fnmatch
import importlib
import pkgutil
import threading
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from types import ModuleType
from typing import Generic, TypeVar

from naswot.errors import RegistrationError, unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """One kind of plug-in by name.

    An entry point of the group names a module or a package; importing it registers what it holds. Of a package every
    public module is imported, in sorted order, so that one new file is enough.

    Args:
        kind: singular noun for messages, such as ``"proxy"``.
        group: entry-point group, such as ``"naswot.proxies"``.
        listing: command that lists the names, for messages.
    """

    def __init__(self, kind: str, group: str, listing: str = "") -> None:
        self.kind = kind
        self.group = group
        self._listing = listing
        self._entries: dict[str, T] = {}
        self._failures: dict[str, str] = {}
        self._discovered = False
        self._started = False
        self._discovering = threading.RLock()

    def register(self, name: str, entry: T) -> T:
        """Add ``entry`` under ``name``.

        Raises:
            RegistrationError: if the name is taken; nothing is ever overwritten.
        """
        if name in self._entries:
            raise RegistrationError(f"{self.kind} {name!r} is registered already, by {self._entries[name]!r}")
        self._entries[name] = entry
        return entry

    def get(self, name: str) -> T:
        """The entry of that name.

        Raises:
            UnknownNameError: with the nearest name, if there is none.
        """
        self._discover()
        if name not in self._entries:
            hint = f"`{self._listing}` shows all {len(self._entries)}." if self._listing else ""
            broken = "".join(f" Plug-in {name} failed to load: {why}." for name, why in self._failures.items())
            raise unknown_name(self.kind, name, self._entries, hint + broken)
        return self._entries[name]

    def names(self, pattern: str = "*", *, without: Sequence[str] = ()) -> list[str]:
        """Sorted names that match a shell-style ``pattern``, less those listed in ``without``."""
        self._discover()
        return sorted(name for name in fnmatch.filter(self._entries, pattern) if name not in without)

    def failures(self) -> dict[str, str]:
        """Plug-ins that could not be imported, with the reason."""
        self._discover()
        return dict(self._failures)

    def __iter__(self) -> Iterator[tuple[str, T]]:
        for name in self.names():
            yield name, self._entries[name]

    def _discover(self) -> None:
        if self._discovered:
            return
        with self._discovering:
            if self._started:  # a plug-in that looks names up while it is imported sees what there is so far
                return
            self._started = True
            for point in sorted(entry_points(group=self.group), key=lambda point: point.name):
                self._load(point.name, point.value.partition(":")[0])
            self._discovered = True

    def _load(self, name: str, module_name: str) -> None:
        module = self._imported(name, module_name)
        for info in sorted(pkgutil.iter_modules(getattr(module, "__path__", [])), key=lambda info: info.name):
            if not info.name.startswith("_"):
                self._imported(f"{module_name}.{info.name}", f"{module_name}.{info.name}")

    def _imported(self, name: str, module_name: str) -> ModuleType | None:
        try:
            return importlib.import_module(module_name)
        except Exception as error:  # a broken plug-in of someone else must not take the others down
            self._failures[name] = f"{type(error).__name__}: {error}"
            return None
