"""Every installed proxy keeps the contract; a new file under proxies/ is covered without an edit here."""

from __future__ import annotations

import pytest

from naswot.proxy import get_proxy, list_proxies
from naswot.testing.proxy_contract import ProxyContract


@pytest.mark.parametrize("proxy", [pytest.param(get_proxy(name), id=name) for name in list_proxies()])
class TestProxies(ProxyContract):
    """By name, in sorted order."""
