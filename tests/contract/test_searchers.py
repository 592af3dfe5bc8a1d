"""Every installed search strategy keeps the contract; a new file in naswot/search/ is covered without an edit here."""

from __future__ import annotations

import pytest

from naswot.assisted import TableScorer
from naswot.searcher import get_searcher, list_searchers, searcher_options
from naswot.testing.searcher_contract import SearcherContract

OPTIONS = {  # what keeps the tests short, and lets 60 trials reach the distinctive part
    "area": {"scored": 12, "population": 6},
    "cascade": {"screened": 12, "kept": 6, "finalists": 2},
    "hyperband": {"max_epochs": 9},
    "large_scale_evolution": {"population": 10},
    "nao": {"n_seed": 12, "n_new": 6, "n_best": 4, "max_step": 5, "epochs": 3, "batch": 8, "embedding": 4, "hidden": 8},
    "nasnet_ppo": {"batch": 6, "hidden": 8},
    "naswot_search": {"n": 1},
    "nsga2": {"population": 8},
    "predictor": {"n_initial": 10, "n_trees": 5, "n_random": 20, "n_mutated": 20},
    "spos_evolution": {"population": 12},
    "successive_halving": {"n": 9, "max_epochs": 9},
    "zoph_le": {"hidden": 8, "n_layers": 1},
}


@pytest.mark.parametrize("name", list_searchers())
class TestSearchers(SearcherContract):
    """By name, in sorted order."""

    @pytest.fixture
    def build(self, name):
        def make(space, *, seed=0, n_objectives=1):
            scorer = {"scorer": TableScorer({})} if "scorer" in searcher_options(name) else {}
            return get_searcher(name, space, seed=seed, n_objectives=n_objectives, **scorer, **OPTIONS.get(name, {}))

        return make
