"""The published contract, on the proxy of this package."""

from naswot.testing.proxy_contract import ProxyContract


class TestMeanWeight(ProxyContract):
    name = "mean_weight"
