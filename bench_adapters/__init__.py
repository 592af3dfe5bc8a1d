"""Adapters to tabular benchmarks, one file each; found through the entry-point group ``naswot.benchmarks``."""
