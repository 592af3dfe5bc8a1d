"""Zero-cost proxies, one file each; found through the entry-point group ``naswot.proxies``."""
