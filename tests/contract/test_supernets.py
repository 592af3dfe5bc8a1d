"""Every supernet keeps the contract; a new file under naswot/supernets/ is covered without an edit here."""

from __future__ import annotations

import pytest

from naswot.supernet import list_supernets
from naswot.testing.supernet_contract import SupernetContract

OPTIONS = {  # what keeps the tests short; cells are those of a stage, or of the whole network
    "mobilenet": {"width_multiplier": 0.1},
    "ptb_rnn": {"width": 6},
    "nasbench": {"width": 4, "n_cells": 1},
    "": {"width": 4, "n_cells": 3},
}


@pytest.mark.parametrize("name", list_supernets())
class TestSupernets(SupernetContract):
    """By name of the space, in sorted order."""

    def options(self, name):
        return next(options for start, options in OPTIONS.items() if name.startswith(start))

    @pytest.fixture
    def build(self, name):
        return self.builder(name)
