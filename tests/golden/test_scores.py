"""Scores and kernels of fixed networks stay what they are; a change raises the proxy's version (see rewrite.py)."""

from __future__ import annotations

import pytest
from golden.cases import compute, load

from naswot.proxy import list_proxies

KEPT = load()
ADVICE = "python tests/golden/rewrite.py writes the goldens anew"
ROUNDING = {"gradsign": 0.05}
"""Relative tolerance of scores that count signs: of gradients that are 0 but for rounding they differ by processor
(21,286 on one of Intel's and 20,743 on one of AMD's for the NAS-Bench-201 cell)."""


@pytest.fixture(scope="module")
def now():
    return compute()


def test_no_golden_is_missing_and_none_is_an_orphan(now):
    assert list(KEPT["scores"]) == list_proxies(), ADVICE
    assert KEPT["kernels"].keys() == now["kernels"].keys(), ADVICE
    for name, entry in KEPT["scores"].items():
        assert entry["values"].keys() == now["scores"][name]["values"].keys(), (name, ADVICE)
        assert entry["values"], f"{name} refuses every network of the goldens"


@pytest.mark.parametrize("network", KEPT["kernels"])
def test_kernels_are_the_same_integers(now, network):
    assert now["kernels"][network] == KEPT["kernels"][network]


@pytest.mark.parametrize("name", KEPT["scores"])
def test_scores_are_the_same(now, name):
    kept, new = KEPT["scores"][name], now["scores"][name]
    assert new["version"] == kept["version"], f"{name} has a new version: {ADVICE}"
    for network, value in kept["values"].items():
        # float64 sums in another order or by another library: 1e-6 leaves room for a condition of ten to the nine
        expected = pytest.approx(float(value), rel=ROUNDING.get(name, 1e-6), abs=1e-9)
        assert float(new["values"][network]) == expected, f"{name} on {network} changed: raise its version"
