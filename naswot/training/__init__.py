"""Real training."""
