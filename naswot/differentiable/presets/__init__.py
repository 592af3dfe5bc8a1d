"""The published methods, a few related ones in each file."""
