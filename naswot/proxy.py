"""The proxy: a rule that turns what was seen of an untrained network into one number."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import Tensor

from naswot.errors import OptionError, RegistrationError
from naswot.observers import Gradient, Observer, OutputGradient, SampleGradient, Seen
from naswot.registry import Registry

if TYPE_CHECKING:
    from naswot.passes import Passes

Need = Literal["forward", "outputs", "gradients", "input_jacobian", "part_gradients", "scratch", "targets"]
Invariance = Literal["inputs", "labels", "weights", "order"]
"""What a score does not depend on: the images, the labels, the values of the weights, the order of the images."""
ProxyFunction = Callable[..., Tensor]


@dataclass(frozen=True)
class Proxy:
    """A named rule with what it observes; calling it computes the score from what was seen.

    Args:
        name: registry name, that of the function.
        function: ``function(seen, passes, **options) -> ()`` tensor.
        observe: observers by the name under which ``seen`` gives their values.
        needs: products of :class:`~naswot.passes.Passes` it asks for.
        higher_is_better: direction of the raw value.
        reference: paper, year and arXiv number.
        version: raised whenever a score changes.
        minimum_images: smallest batch for which the formula means something.
        invariant_to: what the score does not depend on, labels aside.
        fits: architectures it is defined for, in words.
        own_cost: passes of its own, in words, such as ``"64 forwards"``; the shared ones follow from the rest.
        options: keyword arguments bound so far.
    """

    name: str
    function: ProxyFunction
    observe: Mapping[str, Observer]
    needs: tuple[Need, ...]
    higher_is_better: bool
    reference: str
    version: int = 1
    minimum_images: int = 1
    invariant_to: tuple[Invariance, ...] = ()
    fits: str = "any model"
    own_cost: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, seen: Seen, passes: Passes) -> Tensor:
        """The raw score, a () tensor."""
        return self.function(seen, passes, **self.options)

    def __reduce__(self) -> tuple[Callable[..., Proxy], tuple[Any, ...]]:
        """To another process an installed proxy goes by its name: what it observes may not be picklable."""
        if self.name in proxies.names() and proxies.get(self.name).function is self.function:
            return _installed, (self.name, dict(self.options))
        return Proxy, tuple(getattr(self, each.name) for each in dataclasses.fields(self))

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def defaults(self) -> dict[str, Any]:
        """The options there are, with their values: those bound, else the defaults."""
        parameters = list(inspect.signature(self.function).parameters.values())[2:]
        return {each.name: self.options.get(each.name, each.default) for each in parameters}

    @property
    def needs_forward(self) -> bool:
        """Whether it looks at the plain forward pass that all proxies share."""
        shared = ("forward", "outputs", "gradients", "input_jacobian")
        return bool(self.observe) or any(need in shared for need in self.needs)

    @property
    def needs_gradients(self) -> bool:
        """Whether it looks at the loss's gradient, which all proxies share."""
        observed = any(isinstance(o, Gradient | OutputGradient) for o in self.observe.values())
        return "gradients" in self.needs or observed

    @property
    def needs_targets(self) -> bool:
        """Whether it needs labels."""
        of_loss = any(isinstance(o, SampleGradient) and o.of == "loss" for o in self.observe.values())
        return self.needs_gradients or of_loss or "targets" in self.needs or "part_gradients" in self.needs

    @property
    def cost(self) -> str:
        """Passes over the batch that it needs if run alone; those without "own" are shared with other proxies."""
        samples = {observer.reading for observer in self.observe.values() if isinstance(observer, SampleGradient)}
        parts = [
            (self.needs_forward, "forward"),
            (self.needs_gradients, "backward"),
            ("input_jacobian" in self.needs, "backward to the inputs"),
            ("part_gradients" in self.needs, "forward and backward in parts"),
            ("coupled" in samples, "N backwards"),
            ("eval" in samples, "own forward, N backwards"),
            ("single" in samples, "N forwards and backwards of one image"),
            (bool(self.own_cost), f"own: {self.own_cost}"),
        ]
        return " + ".join(words for wanted, words in parts if wanted) or "none"

    def with_options(self, **options: Any) -> Proxy:
        """The same proxy with some of its keyword options bound.

        Raises:
            OptionError: listing the options there are, for one it does not have.
        """
        known = list(self.defaults)
        for option in options:
            if option not in known:
                raise OptionError(f"proxy {self.name!r} has no option {option!r}; it has {known or 'none'}")
        return dataclasses.replace(self, options={**self.options, **options})


proxies: Registry[Proxy] = Registry("proxy", "naswot.proxies", "naswot list proxies")


def register_proxy(
    *,
    reference: str,
    observe: Mapping[str, Observer] | None = None,
    needs: Sequence[Need] = (),
    higher_is_better: bool = True,
    version: int = 1,
    minimum_images: int = 1,
    invariant_to: Sequence[Invariance] = (),
    fits: str = "any model",
    own_cost: str = "",
) -> Callable[[ProxyFunction], ProxyFunction]:
    """Decorator that makes a function a proxy under its own name.

    Args:
        reference: paper, year and arXiv number.
        observe: observers by name; their values reach the function as ``seen[name]``.
        needs: products of the passes that the function asks for; the plan follows from them.
        higher_is_better: direction of the raw value.
        version: raised whenever a score changes.
        minimum_images: smallest batch for which the formula means something; smaller ones are refused.
        invariant_to: what the score does not depend on: ``"inputs"``, ``"weights"``, ``"order"`` of the images; labels
            need not be named where none are needed. The contract suite holds the proxy to it.
        fits: architectures it is defined for, in words, for the table of proxies.
        own_cost: passes of its own, in words, such as ``"64 forwards"``.
    Raises:
        RegistrationError: if the name is taken, the function has no docstring, or a need or invariance does not exist.
    """
    for word, known in [
        *((need, get_args(Need)) for need in needs),
        *((i, get_args(Invariance)) for i in invariant_to),
    ]:
        if word not in known:
            raise RegistrationError(f"a proxy cannot declare {word!r}; there are {', '.join(known)}")

    def decorate(function: ProxyFunction) -> ProxyFunction:
        name = function.__name__
        if not inspect.getdoc(function):
            raise RegistrationError(f"proxy {name!r} has no docstring; its first line is what lists show")
        entry = Proxy(
            name,
            function,
            dict(observe or {}),
            tuple(needs),
            higher_is_better,
            reference,
            version,
            minimum_images,
            tuple(invariant_to),
            fits,
            own_cost,
        )
        proxies.register(name, entry)
        return function

    return decorate


def get_proxy(name: str, **options: Any) -> Proxy:
    """The proxy of that name, with options bound; ``naswot list proxies`` tells the options.

    Example:
        >>> get_proxy("params").higher_is_better
        True
    """
    return proxies.get(name).with_options(**options)


def _installed(name: str, options: Mapping[str, Any]) -> Proxy:
    return get_proxy(name, **options)


def list_proxies(pattern: str = "*", *, without: Sequence[str] = ()) -> list[str]:
    """Names of the installed proxies that match a shell-style pattern."""
    return proxies.names(pattern, without=without)
