"""The rules of the house, read from the sources: who may import whom, sizes, docstrings that run."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import bench_adapters
import naswot
import proxies

PACKAGES = (naswot, proxies, bench_adapters)
FILES = sorted(path for package in PACKAGES for path in Path(package.__file__).parent.rglob("*.py"))
LEAVES = {"errors", "types", "seeding", "registry", "kernels", "_popcount", "_patterns", "_team", "logits"}
HEAVY = {"pandas", "matplotlib", "sklearn", "numba", "PIL", "transformers", "rich", "click"}
HEAVY |= {"lightning_fabric", "pymoo", "optuna", "ray", "onnx", "onnxscript", "tensorboard"}


def name_of(path):
    root = next(Path(p.__file__).parent for p in PACKAGES if Path(p.__file__).parent in path.parents)
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules():
    for package in PACKAGES:
        yield package.__name__
        yield from (info.name for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."))


def imported(path, *, top_level_only=False):
    """Modules that a file imports, those for type checkers alone left out."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    for node in nodes:
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_one_way(path):
    name = name_of(path)
    for target in imported(path):
        if name.startswith("naswot"):
            assert not target.startswith(("proxies", "bench_adapters")), f"{name} imports {target}"
        if name.startswith("proxies."):
            assert not target.startswith("bench_adapters")
            assert not target.startswith("proxies") or target.startswith("proxies._")
        if name.startswith("bench_adapters."):
            assert not target.startswith("proxies")
        if name.removeprefix("naswot.") in LEAVES and target.startswith("naswot."):
            assert target.removeprefix("naswot.") in LEAVES, f"the leaf {name} imports {target}"
        if name.startswith("naswot.") and not name.startswith("naswot.cli"):
            assert not target.startswith("naswot.cli")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_heavy_packages_are_imported_where_they_are_used(path):
    name = name_of(path)
    allowed = {"click"} if name.startswith("naswot.cli") else set()
    if name in ("naswot._popcount", "naswot._team", "naswot._patterns"):
        allowed = {"numba"}
    for target in imported(path, top_level_only=True):
        assert target.partition(".")[0] not in HEAVY - allowed, f"{name} imports {target} at the top"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_are_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.body[0].lineno <= 60, f"{path.name}:{node.name} is long"


@pytest.mark.parametrize("name", list(modules()))
def test_docstrings_run(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_public_names_exist_and_are_documented():
    assert set(naswot.__all__) == set(naswot._HOMES)
    for name in naswot.__all__:
        assert getattr(naswot, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'scroe'"):
        naswot.scroe  # noqa: B018
    assert set(naswot.__all__) <= set(dir(naswot))


def test_import_is_light():
    code = (
        "import sys, torch, time; before = set(sys.modules); start = time.process_time(); import naswot; naswot.score;"
        f"print(sorted({HEAVY!r} & (set(sys.modules) - before)), time.process_time() - start)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] "), done.stdout
    assert float(done.stdout.split()[-1]) < 0.5  # about 0.05 s where the machine is quiet
