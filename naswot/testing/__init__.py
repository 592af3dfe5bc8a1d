"""Contract suites for plug-ins of one's own; they need pytest (``pip install 'naswot[test]'``).

Example:
    # test_my_proxy.py
    # from naswot.testing.proxy_contract import ProxyContract
    #
    # class TestMyProxy(ProxyContract):
    #     name = "my_proxy"
"""
