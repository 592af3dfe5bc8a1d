"""Rules that rank a set of networks by several proxies, one file each."""
