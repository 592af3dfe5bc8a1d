"""How a network is trained: everything but the network, the images and the seed.

Papers: Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, arXiv:1806.09055 (the retraining of
``"darts_cifar"``); DeVries & Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017,
arXiv:1708.04552; Larsson et al., FractalNet, ICLR 2017, arXiv:1605.07648 (drop-path). Original code:
github.com/quark0/darts. Differences: crops are padded with zeros of the *normalised* images, that is with their mean;
a last smaller batch is left out.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

from naswot.errors import OptionError, unknown_name

if TYPE_CHECKING:
    from naswot.space import SearchSpace
    from naswot.types import Genotype

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
"""Numbers in forward and backward passes; the weights are float32 in each."""

Cosine = Literal["step", "epoch"]
"""When the learning rate goes on along its cosine: after every batch or after every epoch."""

_AT_LEAST_ONE: Final = ("epochs", "batch_size")
_NOT_NEGATIVE: Final = ("final_learning_rate", "weight_decay", "auxiliary_weight", "crop_padding", "cutout")
_BELOW_ONE: Final = ("momentum", "label_smoothing", "drop_path", "ema_decay")
_WHOLE: Final = ("epochs", "batch_size", "crop_padding", "cutout", "warmup_epochs")


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """SGD along one cosine, with what is done to the images and to the network meanwhile.

    Args:
        epochs: passes over the training images.
        batch_size: N, over all devices together; a last smaller batch is left out unless it is the only one.
        learning_rate: at the start, or after the warm-up.
        final_learning_rate: what the cosine ends at.
        cosine: whether the learning rate changes with every ``"step"`` or every ``"epoch"``.
        warmup_epochs: first epochs, over which the learning rate rises linearly.
        momentum: of SGD.
        nesterov: Nesterov's form of it.
        weight_decay: of SGD, on all parameters.
        clip_norm: largest Euclidean norm of the gradient of all parameters; None: any.
        label_smoothing: share of the target that is spread evenly over all classes.
        crop_padding: zeros around an image, from which a window of its size is then cut at random; 0: none.
        flip: mirror half of the images left to right; not for digits and letters.
        cutout: height and width in pixels of a square set to zero, partly outside if its centre is near the border;
            0: none.
        drop_path: probability that drop-path nears linearly, ``drop_path * epoch / epochs`` for epochs counted from 0,
            in networks that have it; None leaves the networks as they are built.
        auxiliary_weight: of the loss of a second classifier, in networks that have one.
        ema_decay: decay with each step of a running mean of the weights, which is what is validated and kept; None:
            the last weights are.
        precision: ``"32-true"``; ``"bf16-mixed"``; ``"16-mixed"``, on GPUs only.
        channels_last: keep images and features as (N, H, W, C) in memory; the shapes stay (N, C, H, W).
    Raises:
        OptionError: naming the first value that does not fit.
    """

    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 0.05
    final_learning_rate: float = 0.0
    cosine: Cosine = "step"
    warmup_epochs: int = 0
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    clip_norm: float | None = 5.0
    label_smoothing: float = 0.0
    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0
    drop_path: float | None = None
    auxiliary_weight: float = 0.0
    ema_decay: float | None = None
    precision: Precision = "32-true"
    channels_last: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not math.isfinite(value):
                raise OptionError(f"expected a finite {field.name}, but got {value}")
        for name in _WHOLE:
            if type(getattr(self, name)) is not int:
                raise OptionError(f"expected a whole number as {name}, but got {getattr(self, name)!r}")
        self._check_ranges()
        if self.nesterov and self.momentum == 0:
            raise OptionError("nesterov needs a momentum, but momentum is 0; give one, or nesterov=False")
        for name, allowed in (("cosine", get_args(Cosine)), ("precision", get_args(Precision))):
            if getattr(self, name) not in allowed:
                raise OptionError(f"expected {name} to be one of {', '.join(allowed)}, but got {getattr(self, name)!r}")

    def _check_ranges(self) -> None:
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise OptionError(f"expected {name} of at least 1, but got {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise OptionError(f"expected a learning_rate above 0, but got {self.learning_rate}")
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise OptionError(f"expected {name} of at least 0, but got {getattr(self, name)}")
        if self.final_learning_rate > self.learning_rate:
            raise OptionError(
                f"expected final_learning_rate to be at most the learning_rate of {self.learning_rate}, "
                f"but got {self.final_learning_rate}"
            )
        for name in _BELOW_ONE:
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise OptionError(f"expected {name} from 0 to below 1, but got {value}")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise OptionError(f"expected a clip_norm above 0, or None for no clipping, but got {self.clip_norm}")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise OptionError(
                f"expected warmup_epochs from 0 to {self.epochs - 1}, below epochs, but got {self.warmup_epochs}"
            )

    def describe(self) -> dict[str, object]:
        """All values by name, for a file or a store."""
        return dataclasses.asdict(self)


_AUGMENTED: Final = {"crop_padding": 1, "cutout": 4, "label_smoothing": 0.1}
_DARTS_CIFAR: Final = {
    "epochs": 600,
    "batch_size": 96,
    "learning_rate": 0.025,
    "cosine": "epoch",
    "nesterov": False,
    "weight_decay": 3e-4,
    "crop_padding": 4,
    "flip": True,
    "cutout": 16,
    "drop_path": 0.2,
    "auxiliary_weight": 0.4,
}

RECIPES: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {"quick": {}, "augmented": _AUGMENTED, "darts_cifar": _DARTS_CIFAR}
)
"""Values by name of recipe, where they differ from those of :class:`TrainingRecipe`.

``quick``: a few epochs without augmentation. ``augmented``: the same with small crops, cutout and smoothed labels, for
images of about 16 x 16 that must not be mirrored. ``darts_cifar``: the retraining of DARTS on CIFAR-10, meant for 20
cells of width 36 with ``auxiliary=True``.
"""


def get_recipe(name: str, **overrides: Any) -> TrainingRecipe:
    """A recipe by name, with some values replaced.

    Args:
        name: a key of :data:`RECIPES`.
        overrides: values of :class:`TrainingRecipe`.
    Raises:
        UnknownNameError: if there is no such recipe.
        OptionError: if there is no such value, or it does not fit.
    Example:
        >>> get_recipe("darts_cifar", epochs=100).drop_path
        0.2
    """
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    known = [field.name for field in dataclasses.fields(TrainingRecipe)]
    for key in overrides:
        if key not in known:
            raise OptionError(f"a recipe has no {key!r}; it has {', '.join(known)}")
    return TrainingRecipe(**cast(dict[str, Any], {**RECIPES[name], **overrides}))


def recipe_for(space: SearchSpace, genotype: Genotype, recipe: TrainingRecipe) -> TrainingRecipe:
    """The recipe with the architecture's own learning rate, where the space has one among its genes.

    Args:
        space: such as ``evolved_graph``, whose ``learning_rate(genotype)`` is asked, or one without it.
        genotype: the architecture.
        recipe: how all architectures are trained; a ``final_learning_rate`` above the architecture's rate is lowered to
            that.
    Returns:
        The recipe itself, if the space does not choose learning rates.
    """
    chosen = getattr(space, "learning_rate", None)
    if chosen is None:
        return recipe
    rate = float(chosen(genotype))
    return dataclasses.replace(recipe, learning_rate=rate, final_learning_rate=min(recipe.final_learning_rate, rate))


def build_options(
    space: SearchSpace, n_classes: int, in_channels: int, recipe: TrainingRecipe, build: Mapping[str, Any]
) -> dict[str, Any]:
    """Keyword options of ``space.build`` for a training.

    Args:
        space: the space.
        n_classes: K of the images.
        in_channels: C of the images.
        recipe: where it counts a second classifier, and the space offers one, the network gets it.
        build: options that override the others.
    """
    fitting: dict[str, Any] = {"n_classes": n_classes, "in_channels": in_channels}
    if recipe.auxiliary_weight and "auxiliary" in inspect.signature(space.build).parameters:
        fitting["auxiliary"] = True
    return {**fitting, **build}
