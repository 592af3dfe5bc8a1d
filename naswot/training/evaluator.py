"""Real training as the evaluator of a search."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from naswot._files import whole_file
from naswot.data.images import ImageSet
from naswot.errors import (
    ArchitectureError,
    InputError,
    ModelError,
    NaswotError,
    OptionError,
    OutputError,
    StoreError,
    TrainingError,
)
from naswot.evaluate import batch_digest, check_build, check_kind, fresh_model, single_thread
from naswot.inheritance import inherit_weights
from naswot.searcher import Trial
from naswot.seeding import derive_seed
from naswot.space import SearchSpace
from naswot.training.loop import train
from naswot.training.recipe import TrainingRecipe, build_options, recipe_for
from naswot.training.splits import refuse_test_images
from naswot.types import Batch, Evaluation

_OF_THE_ARCHITECTURE = (TrainingError, ModelError, InputError, ArchitectureError, OutputError)


@dataclass(frozen=True)
class TrainingEvaluator:
    """Trains an architecture and validates it; picklable, so that any executor can run it.

    The initialisation derives from ``(seed, architecture)``, so that what is trained is the very network that an
    :class:`~naswot.evaluate.Evaluator` of the same seed and options scores; the order of the images derives from
    ``seed`` alone. A training runs on one thread of torch, so that any number of workers gives the same bits. One that
    fails (its loss is no number, its batch does not fit into memory) is a failed evaluation; the search goes on.

    Args:
        space: the search space.
        train: images to learn from.
        valid: images by which architectures are chosen; never test images.
        recipe: how; its ``epochs`` are those of a trial that names none.
        seed: of everything random.
        build: keyword options of ``space.build``; number of classes and channels follow from the images.
        device: where models are trained.
        folder: where checkpoints of unfinished trainings lie, from which a killed search goes on, and the trained
            weights of every trial if they are inherited; None: nowhere.
        inherits: begin a trial with what fits of its parent's trained weights.
    Raises:
        OptionError: for test images, options that the space cannot be built with, or a device that is not there.
        StoreError: if weights are to be inherited, but there is no folder for them.
    """

    space: SearchSpace
    train: ImageSet
    valid: ImageSet
    recipe: TrainingRecipe = field(default_factory=TrainingRecipe)
    seed: int = 0
    build: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    folder: Path | None = None
    inherits: bool = False

    names: ClassVar[tuple[str, ...]] = ("valid_accuracy", "train_loss")
    stages: ClassVar[tuple[str, ...]] = ("train",)
    by_epochs: ClassVar[tuple[str, ...]] = (*names, *stages)

    def __post_init__(self) -> None:
        for data in (self.train, self.valid):
            refuse_test_images(data, "trained on or chosen by in a search")
            check_kind(self.space, Batch(data.images[:1]))
        if self.inherits and self.folder is None:
            raise StoreError("inherited weights have to lie somewhere; pass folder=")
        check_build(self.space, self._building)
        try:
            torch.empty(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise OptionError(f"device {self.device!r} cannot be used here: {str(error).splitlines()[0]}") from error

    @property
    def epochs(self) -> int:
        """Epochs of a trial that names none."""
        return self.recipe.epochs

    def evaluate(self, trial: Trial) -> Evaluation:
        """Train it; scores are ``valid_accuracy`` (percent) and ``train_loss`` (nats) after the last epoch."""
        arch = self.space.format(trial.genotype)
        start = time.perf_counter()
        scores: dict[str, float] = {}
        error, seconds = None, math.nan
        try:
            with single_thread():
                model = self.model(trial)
                checkpoint = self._checkpoint(trial, arch)
                recipe = self.recipe_for(trial)
                seed = derive_seed(self.seed, "training")
                result = train(
                    model, self.train, self.valid, recipe, seed=seed, checkpoint=checkpoint, device=self.device
                )
                scores = {"valid_accuracy": result.valid_accuracy, "train_loss": result.train_loss}
                seconds = result.seconds
                self._keep(trial, model, checkpoint)
        except NaswotError as raised:
            if not isinstance(raised, _OF_THE_ARCHITECTURE):
                raise  # a full disk, a wrong option: no architecture is to blame, and none should bear the mark
            error = f"{type(raised).__name__}: {raised}"
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as raised:  # out of the network
            error = f"ModelError: {type(raised).__name__}: {raised}"
        spent = time.perf_counter() - start if math.isnan(seconds) else seconds
        return Evaluation(trial.genotype, arch, scores, {"train": spent}, self.seed, error=error)

    def model(self, trial: Trial) -> nn.Module:
        """The network with which a training begins."""
        model = fresh_model(self.space, trial.genotype, self._building, seed=self.seed)
        if self.inherits and trial.parent is not None:
            inherit_weights(model, self._weights(trial.parent))
        return model

    @property
    def _building(self) -> dict[str, Any]:
        return build_options(self.space, self.train.n_classes, self.train.shape[0], self.recipe, self.build)

    def recipe_for(self, trial: Trial) -> TrainingRecipe:
        """The recipe of a trial; a space may have the learning rate among its genes."""
        recipe = self.recipe if trial.epochs is None else replace(self.recipe, epochs=trial.epochs)
        return recipe_for(self.space, trial.genotype, recipe)

    def _checkpoint(self, trial: Trial, arch: str) -> Path | None:
        if self.folder is None:
            return None
        what = repr((arch, trial.epochs, trial.number if self.inherits else None, self.seed))
        return self.folder / "unfinished" / f"{blake2b(what.encode(), digest_size=8).hexdigest()}.pt"

    def _keep(self, trial: Trial, model: nn.Module, checkpoint: Path | None) -> None:
        """Keep the weights if children may want them; the checkpoint of a finished training is not needed."""
        if self.inherits and self.folder is not None:
            path = self.folder / "weights" / f"{trial.number}.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as part:
                torch.save(model.state_dict(), part)
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)

    def _weights(self, number: int) -> Mapping[str, Tensor]:
        path = (self.folder or Path()) / "weights" / f"{number}.pt"
        try:
            found: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError) as error:
            raise StoreError(f"cannot read the weights {path} that a trial inherits ({error})") from error
        return found

    def describe(self) -> dict[str, object]:
        """Everything that determines the numbers, for a store to compare; lengths of training are told by trial."""
        recipe = {name: value for name, value in self.recipe.describe().items() if name != "epochs"}
        return {
            "space": self.space.name,
            "build": dict(self.build),
            "images": self.train.name,
            "n_train": len(self.train),
            "n_valid": len(self.valid),
            "digest": batch_digest(Batch(*self.train.tensors())) + batch_digest(Batch(*self.valid.tensors())),
            "recipe": recipe,
            "inherits": self.inherits,
            "seed": self.seed,
        }
