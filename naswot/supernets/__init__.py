"""One supernet for each file; a space finds its own by name."""
