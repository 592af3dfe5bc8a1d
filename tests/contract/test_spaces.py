"""Every installed search space keeps the contract; a new file under naswot/spaces/ is covered without an edit here."""

from __future__ import annotations

import pytest

from naswot.space import get_space, list_spaces
from naswot.testing.space_contract import SpaceContract


@pytest.mark.parametrize("space", [pytest.param(get_space(name), id=name) for name in list_spaces()])
class TestSpaces(SpaceContract):
    """By name, in sorted order."""
