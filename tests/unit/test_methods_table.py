"""The table of methods names tests that exist, and every preset."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from naswot.differentiable.preset import list_presets

HERE = Path(__file__).resolve().parent
TABLE = (HERE.parents[1] / "docs" / "supernet_methods.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.split("|")[1:4]] for line in TABLE.splitlines() if line.startswith("| ")][1:]


def test_every_row_names_a_test_that_is_there():
    assert len(ROWS) > 50
    for method, _, place in ROWS:
        module, name = place.strip("`").split("::")
        tree = ast.parse((HERE / f"test_{module}.py").read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (method, place)


def test_every_preset_has_a_row():
    named = {name for method, *_ in ROWS for name in re.findall(r"`(\w+)`", method)}
    assert named == set(list_presets())
