"""Published methods by name: a preset makes the plan, or the plans, of a method with its paper's constants."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from naswot.differentiable.plan import SearchPlan
from naswot.errors import OptionError
from naswot.registry import Registry
from naswot.space import InputKind


@dataclass(frozen=True)
class Preset:
    """A method by name.

    Args:
        name: of the method.
        reference: paper.
        input_kind: what its constants are for.
        make: gives its plan; or several, of which the best is kept by the validation accuracy of what they find.
    """

    name: str
    reference: str
    make: Callable[..., SearchPlan | tuple[SearchPlan, ...]]
    input_kind: InputKind = "images"

    @property
    def summary(self) -> str:
        """First sentence of its description."""
        return (inspect.getdoc(self.make) or "").partition("\n")[0]

    @property
    def options(self) -> dict[str, Any]:
        """Keyword options of :attr:`make` with their defaults."""
        return {name: p.default for name, p in inspect.signature(self.make).parameters.items()}


presets: Registry[Preset] = Registry("preset", "naswot.presets", "naswot list presets")

Make = TypeVar("Make", bound=Callable[..., SearchPlan | tuple[SearchPlan, ...]])


def register_preset(reference: str, input_kind: InputKind = "images") -> Callable[[Make], Make]:
    """Decorator of a function that makes the plan of a method; it is found under the function's name.

    Args:
        reference: paper of the method.
        input_kind: what its constants are for.
    """

    def register(make: Make) -> Make:
        name = make.__name__
        presets.register(name, Preset(name, reference, make, input_kind))
        return make

    return register


def get_plans(name: str, **options: Any) -> tuple[SearchPlan, ...]:
    """The plans of a preset; one, but for methods that search several times and keep the best.

    Args:
        name: see ``naswot list presets``.
        options: of the preset.
    Raises:
        UnknownNameError: if there is no such preset.
        OptionError: if it has no such option.
    """
    preset = presets.get(name)
    try:
        inspect.signature(preset.make).bind(**options)
    except TypeError as error:
        known = ", ".join(inspect.signature(preset.make).parameters) or "none"
        raise OptionError(f"{error} of the preset {name!r}; its options are: {known}") from error
    made = preset.make(**options)
    return made if isinstance(made, tuple) else (made,)


def get_plan(name: str, **options: Any) -> SearchPlan:
    """The plan of a preset that has one.

    Example:
        >>> get_plan("darts").weights.learning_rate
        0.025
    """
    plans = get_plans(name, **options)
    if len(plans) > 1:
        raise OptionError(f"{name} searches {len(plans)} times; take get_plans, or run_preset, which keeps the best")
    return plans[0]


def list_presets(pattern: str = "*", *, without: Sequence[str] = ()) -> list[str]:
    """Names of the methods that search by one supernet."""
    return presets.names(pattern, without=without)
