"""From command-line words to batches."""

from __future__ import annotations

from torch import nn

from naswot.data.images import ImageSet
from naswot.models import random_tokens, reads_tokens
from naswot.seeding import derive_seed, torch_generator
from naswot.types import Batch


def batch_for(model: nn.Module, images: ImageSet, n: int, seed: int) -> Batch:
    """The batch a model is scored on: images, or random tokens for a language model."""
    generator = torch_generator(derive_seed(seed, "batch", 0))
    if reads_tokens(model):
        return random_tokens(model, n, generator=generator)
    return images.batch(n, generator=generator)
