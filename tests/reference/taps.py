"""A model made of one call, and what the taps see of a model."""

from __future__ import annotations

from collections.abc import Callable

from reference.tiny import wave
from torch import nn

from naswot.errors import NoActivationError
from naswot.observers import Activation
from naswot.options import PassOptions
from naswot.passes import Passes
from naswot.types import Batch

N, D = 6, 11
VALUES = wave(N, D) * 2


class Call(nn.Module):
    """Model that does nothing but call ``function`` on (a fresh copy of) its input."""

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x * 1.0)


def model_of(function):
    """A module as it is, anything else within a module."""
    return nn.Sequential(nn.Flatten(), function) if isinstance(function, nn.Module) else Call(function)


def calls_of(model, inputs, **options):
    """(function, threshold, units) of every tapped call, and what was met untapped."""
    seen = Activation(lambda call: ((call.function, call.threshold, call.n_units),))
    batch = inputs if isinstance(inputs, Batch) else Batch(inputs)
    with Passes(model, batch, options=PassOptions(**options)) as passes:
        try:
            passes.observe([seen])
        except NoActivationError:
            return (), dict(passes.untapped)
        return passes.seen({"calls": seen})["calls"], dict(passes.untapped)


def expected_codes(threshold=0.0, values=VALUES):
    return values.reshape(N, -1) > threshold
