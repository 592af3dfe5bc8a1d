"""Training a network by a recipe, on whatever devices there are, to be gone on with after an interruption.

Papers: Liu et al., DARTS, ICLR 2019, arXiv:1806.09055 (second classifier, drop-path that grows with the epochs);
Larsson et al., FractalNet, ICLR 2017, arXiv:1605.07648 (drop-path). Original code: github.com/quark0/darts,
``train.py``. Differences: images stay in memory and are changed in whole batches; a last smaller batch is left out;
an interrupted training goes on from its last whole epoch, on the CPU to the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from naswot.data.images import ImageSet
from naswot.errors import InputError, ModelError, NaswotError, OptionError
from naswot.training._session import Job, Session, memory_shortage_named
from naswot.training.checkpoint import identify, read_checkpoint
from naswot.training.devices import OnEpoch, is_spawning, launch, make_fabric
from naswot.training.evaluation import EVALUATION_BATCH, evaluate
from naswot.training.recipe import TrainingRecipe
from naswot.training.splits import LabelledImages, refuse_test_images


@dataclass(frozen=True)
class TrainingResult:
    """What a training reached.

    Args:
        history: one mapping for each epoch: ``epoch`` (from 1), ``train_loss`` (mean over the epoch, nats, without the
            second classifier's), ``learning_rate`` of its last step, and with validation images ``valid_accuracy``
            (percent) and ``valid_loss`` (nats).
        seconds: wall-clock seconds of all sessions together, validation included.
    """

    history: tuple[Mapping[str, float], ...]
    seconds: float

    @property
    def epochs(self) -> int:
        """Number of epochs."""
        return len(self.history)

    @property
    def train_losses(self) -> tuple[float, ...]:
        """Mean training loss of each epoch, nats."""
        return tuple(row["train_loss"] for row in self.history)

    @property
    def train_loss(self) -> float:
        """Mean training loss of the last epoch, nats."""
        return self.history[-1]["train_loss"]

    @property
    def valid_accuracies(self) -> tuple[float, ...]:
        """Accuracy on the validation images after each epoch, percent; empty without such images."""
        return tuple(row["valid_accuracy"] for row in self.history if "valid_accuracy" in row)

    @property
    def valid_accuracy(self) -> float:
        """Accuracy on the validation images after the last epoch, percent.

        Raises:
            InputError: if there were no validation images.
        """
        if not self.valid_accuracies:
            raise InputError("the training had no validation images, so there is no accuracy; give it some by valid=")
        return self.valid_accuracies[-1]

    @property
    def best_epoch(self) -> int:
        """The first epoch, from 1, of highest accuracy on the validation images; the model is the *last* epoch's."""
        return 1 + self.valid_accuracies.index(max((self.valid_accuracy, *self.valid_accuracies)))


def ignore(epoch: int, metrics: Mapping[str, float]) -> None:
    """Take what an epoch measured, and do nothing."""


def train(
    model: nn.Module,
    train: ImageSet,
    valid: ImageSet | None,
    recipe: TrainingRecipe,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    device: str = "cpu",
    devices: int = 1,
    num_nodes: int = 1,
    initial_state: Mapping[str, Any] | None = None,
    on_epoch: OnEpoch = ignore,
) -> TrainingResult:
    """Train ``model`` in place; it is left on ``device``, with the weights of the last epoch or their running mean.

    Neither the weights that are kept nor when to stop depends on the validation images.

    Args:
        model: gives logits, in training perhaps those of a second classifier too.
        train: images to learn from, with labels.
        valid: images to measure accuracy by after each epoch; None: none.
        recipe: how.
        seed: order of the images, changes to them, and everything random in the model.
        checkpoint: file that is written after each epoch; if it exists, the training goes on from it.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        devices: processes on each machine, which share each batch.
        num_nodes: machines; start the program by ``torchrun`` on each.
        initial_state: weights and buffers to begin with; None: those ``model`` has.
        on_epoch: called after each epoch of this session, when it is safe in the checkpoint; see
            :class:`TrainingResult` for what it is given. It must leave the model as it is.
    Raises:
        OptionError: if ``train`` or ``valid`` are test images, or a device or option does not fit.
        DivergedError: if a loss is not finite.
        MemoryShortageError: if a batch does not fit into memory.
        StoreError: if the checkpoint is another training's, or damaged.
        ModelError: if the network fails on these images.
    """
    for data in (train, valid):
        if data is not None:
            refuse_test_images(data, "trained or validated on")
    if initial_state is not None:
        _load(model, initial_state)
    path = None if checkpoint is None else Path(checkpoint)
    identity = {} if path is None else identify(model, train, valid, recipe.describe(), seed)
    job = Job(model, train, valid, recipe, seed, path, identity)
    fabric = make_fabric(device, devices=devices, num_nodes=num_nodes, precision=recipe.precision)
    _check_batch(train, recipe, fabric.world_size)
    if path is not None and is_spawning(fabric):
        read_checkpoint(path, identity)  # what is wrong with it is told better from here
    try:
        history, seconds, state = launch(fabric, run_session, job, on_epoch)
    except NaswotError:
        raise
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        shape = " x ".join(map(str, train.shape))
        hint = "; a second classifier wants larger images, auxiliary_weight=0 leaves it out"
        told = f"the network cannot be trained on images of {shape}: {error}{hint if recipe.auxiliary_weight else ''}"
        raise ModelError(told) from error
    if is_spawning(fabric):
        _load(model.to(device), state)
    return TrainingResult(tuple(history), seconds)


def run_session(fabric: Any, job: Job, on_epoch: OnEpoch) -> tuple[list[dict[str, float]], float, dict[str, Tensor]]:
    """What each process runs: all epochs that are not yet done.

    Args:
        fabric: launched.
        job: what is to be trained.
        on_epoch: called in the first process.
    Returns:
        The history, the seconds of all sessions, and the trained weights.
    """
    start = time.perf_counter()
    with memory_shortage_named(job.recipe.batch_size, fabric.world_size), Session(fabric, job) as session:
        before = session.resume()
        while session.epoch < job.recipe.epochs:
            metrics = session.next_epoch()
            session.save(before + time.perf_counter() - start)
            if fabric.is_global_zero:
                on_epoch(session.epoch, metrics)
        session.finish()
    state = {name: value for name, value in job.model.state_dict().items() if isinstance(value, Tensor)}
    return session.history, before + time.perf_counter() - start, state


def test_accuracy(model: nn.Module, test: ImageSet) -> float:
    """Accuracy on test images, percent: to be called once, when nothing is left to be chosen.

    Args:
        model: evaluated where it lives; each module's mode is put back.
        test: test images with labels.
    Raises:
        OptionError: if ``test`` are other images.
    """
    if test.split != "test":
        raise OptionError(f"expected test images, but got the {test.split} part of {test.name}; get it by split='test'")
    device = next(model.parameters()).device
    return evaluate(model, LabelledImages(test, device).batches(EVALUATION_BATCH))["accuracy"]


test_accuracy.__test__ = False  # type: ignore[attr-defined]  # its name would make it a test where it is imported


def _check_batch(train: ImageSet, recipe: TrainingRecipe, world_size: int) -> None:
    batch_size = min(recipe.batch_size, len(train))
    if batch_size % world_size:
        raise OptionError(
            f"expected a batch_size that {world_size} devices can share alike, but got {batch_size} images; take "
            f"{max(1, batch_size // world_size) * world_size}"
        )


def _load(model: nn.Module, state: Mapping[str, Any]) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        told = " ".join(str(error).split())
        raise InputError(f"the weights do not fit the network {type(model).__name__}: {told}") from error
