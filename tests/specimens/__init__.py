"""A small sound file of every kind that a reader reads: where the fuzz and the tests of refusal start from.

A new kind of file is one function in a file of this folder: it writes the file, or folder, into a folder and returns
its path, under a name that matches one of the adapter's patterns. ``converted`` files follow by themselves.
"""

from __future__ import annotations

import importlib
import pkgutil

from specimens._base import SPECIMENS, Specimen, converted, of_benchmark

for module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{module.name}")
for reader in dict.fromkeys(specimen.reader for specimen in SPECIMENS):
    of_benchmark(reader, "converted")(lambda folder, reader=reader: converted(reader, folder))

__all__ = ["SPECIMENS", "Specimen"]
