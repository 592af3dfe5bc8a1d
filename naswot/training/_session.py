"""One process's part of a training: its model, optimizer, schedule and random state, and one epoch after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from naswot.data.images import ImageSet
from naswot.errors import DivergedError, MemoryShortageError
from naswot.logits import logits_of
from naswot.preserve import in_mode
from naswot.seeding import derive_seed, random_state, seeded, set_random_state, torch_generator
from naswot.training.augment import augment
from naswot.training.checkpoint import read_checkpoint, write_checkpoint
from naswot.training.evaluation import EVALUATION_BATCH, evaluate
from naswot.training.recipe import TrainingRecipe
from naswot.training.splits import LabelledImages

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Job:
    """What is to be trained, how, from which seed, and where its state is kept.

    Not a dataclass, because Fabric would look for tensors to convert within one.
    """

    def __init__(
        self,
        model: nn.Module,
        train: ImageSet,
        valid: ImageSet | None,
        recipe: TrainingRecipe,
        seed: int,
        checkpoint: Path | None,
        identity: Mapping[str, Any],
    ) -> None:
        self.model = model
        self.train = train
        self.valid = valid
        self.recipe = recipe
        self.seed = seed
        self.checkpoint = checkpoint
        self.identity = identity


class Session:
    """A context in which a model is trained; afterwards the global random states are as they were.

    Args:
        fabric: launched.
        job: what is to be trained.
    """

    def __init__(self, fabric: Fabric, job: Job) -> None:
        self.fabric, self.job, self.recipe = fabric, job, job.recipe
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self._exit = ExitStack()
        self.order = torch_generator(derive_seed(job.seed, "order"))

    def __enter__(self) -> Self:
        job, recipe, fabric = self.job, self.recipe, self.fabric
        self.model = _unshared(job.model) if fabric.world_size > 1 else job.model
        if recipe.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.to(fabric.device)
        self.images = LabelledImages(job.train, fabric.device)
        self.valid = None if job.valid is None else LabelledImages(job.valid, fabric.device)
        self.batch_size = min(recipe.batch_size, len(self.images))
        self.steps = len(self.images) // self.batch_size
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
        self.schedule = schedule_of(self.optimizer, recipe, self.steps)
        self.averaged = None if recipe.ema_decay is None else _averaged(self.model, recipe.ema_decay)
        self.wrapped, self.stepper = fabric.setup(self.model, self.optimizer)
        self._exit.enter_context(in_mode(self.model, "as_is"))
        self._exit.enter_context(_drop_path_kept(self.model))
        self._exit.enter_context(seeded(self._seed()))
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def _seed(self, *parts: int) -> int:
        rank = self.fabric.global_rank
        return derive_seed(self.job.seed, "training", *([rank] if rank or parts else []), *parts)

    def next_epoch(self) -> dict[str, float]:
        """Train for one epoch and measure; what was measured becomes the last of the history."""
        self.epoch += 1
        if self.recipe.drop_path is not None:
            set_drop_path(self.model, self.recipe.drop_path * (self.epoch - 1) / self.recipe.epochs)
        # the state in a checkpoint is that of the first process; where there are others each begins every epoch anew
        alone = self.fabric.world_size == 1
        self.wrapped.train()
        with nullcontext() if alone else seeded(self._seed(self.epoch)):
            loss, rate = self._pass()
        if self.recipe.cosine == "epoch":
            self.schedule.step()
        metrics = {"epoch": float(self.epoch), "train_loss": loss, "learning_rate": rate}
        if self.valid is not None:
            found = self._validate(self.valid)
            metrics |= {"valid_accuracy": found["accuracy"], "valid_loss": found["loss"]}
        self.history.append(metrics)
        return metrics

    def _pass(self) -> tuple[float, float]:
        """Mean loss of an epoch, and the learning rate of its last step."""
        total, rate = 0.0, 0.0
        for step, (images, labels) in enumerate(self.batches(self.epoch), start=1):
            rate = self.optimizer.param_groups[0]["lr"]
            total += self.step(images, labels, step)
            if self.recipe.cosine == "step":
                self.schedule.step()
        return total / self.steps, rate

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (N, C, H, W), changed as the recipe says, and labels (N,) of each step of an epoch."""
        changes = torch_generator(derive_seed(self.job.seed, "augmentation", epoch))
        order = torch.randperm(len(self.images), generator=self.order)[: self.steps * self.batch_size]
        for chosen in order.to(self.fabric.device).split(self.batch_size):
            images, labels = self.images.batch(chosen)
            yield augment(images, self.recipe, generator=changes), labels

    def step(self, images: Tensor, labels: Tensor, number: int) -> float:
        """Learn from this process's share of a batch.

        Args:
            images: (N, C, H, W), of the whole batch.
            labels: (N,).
            number: of the step in its epoch, from 1.
        Returns:
            The mean loss of the whole batch before the step, nats.
        Raises:
            DivergedError: if it is not finite; nothing was learned then.
        """
        fabric, recipe = self.fabric, self.recipe
        share = slice(fabric.global_rank, None, fabric.world_size)
        images, labels = images[share], labels[share]
        if recipe.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        logits, second = both_logits(self.model, self.wrapped(images))
        loss = objective = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        if second is not None and recipe.auxiliary_weight:
            other = F.cross_entropy(second, labels, label_smoothing=recipe.label_smoothing)
            objective = loss + recipe.auxiliary_weight * other
        self._check_finite(objective, number)
        self.stepper.zero_grad(set_to_none=True)
        fabric.backward(objective)
        if recipe.clip_norm is not None:
            fabric.clip_gradients(self.wrapped, self.stepper, max_norm=recipe.clip_norm, error_if_nonfinite=False)
        self.stepper.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        return self._mean(loss)

    def _mean(self, value: Tensor) -> float:
        """Mean of a () tensor over all processes."""
        reduced: Any = self.fabric.all_reduce(value.detach(), reduce_op="mean")
        return float(reduced.item())

    def _check_finite(self, objective: Tensor, step: int) -> None:
        value = self._mean(objective)  # the same in all processes, so that all of them stop
        if not math.isfinite(value):
            rate = self.optimizer.param_groups[0]["lr"]
            raise DivergedError(
                f"the training diverged: the loss is {value} in step {step} of {self.steps} of epoch {self.epoch}, at "
                f"a learning rate of {rate:.3g}; take a smaller learning_rate (a tenth, or that of "
                "find_learning_rate), a warm-up, or a smaller clip_norm"
            )

    def _validate(self, valid: LabelledImages) -> dict[str, float]:
        fabric = self.fabric
        batches = valid.batches(EVALUATION_BATCH, share=fabric.global_rank, of=fabric.world_size)

        def total(sums: Tensor) -> Tensor:
            added: Any = fabric.all_reduce(sums.to(fabric.device), reduce_op="sum")
            return torch.as_tensor(added)

        model = self.model if self.averaged is None else self.averaged.module
        return evaluate(model, batches, precision=fabric.autocast, total=total)

    def save(self, seconds: float) -> None:
        """Write the checkpoint, if there is to be one.

        Args:
            seconds: of all sessions so far.
        """
        path = self.job.checkpoint
        if path is None or not self.fabric.is_global_zero:
            return
        state = {
            "epoch": self.epoch,
            "history": self.history,
            "seconds": seconds,
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "order": self.order.get_state(),
            "random": random_state(),
        }
        write_checkpoint(path, self.job.identity, state)

    def resume(self) -> float:
        """Go on from the checkpoint, if there is one; seconds of the sessions before."""
        path = self.job.checkpoint
        state: dict[str, Any] | None = None
        if path is not None and self.fabric.is_global_zero:
            state = read_checkpoint(path, self.job.identity)
        state = self.fabric.broadcast(state)  # to machines that cannot see the file
        if state is None:
            return 0.0
        self.epoch, self.history = state["epoch"], state["history"]
        self.model.load_state_dict(state["model"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.order.set_state(state["order"])
        set_random_state(state["random"])
        return float(state["seconds"])

    def finish(self) -> None:
        """Leave in the model what is kept of the training."""
        if self.averaged is not None:
            self.model.load_state_dict(self.averaged.module.state_dict())
        if self.recipe.channels_last:
            self.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        if self.model is not self.job.model:
            self.job.model.load_state_dict(self.model.state_dict())


class _Logits(NamedTuple):
    first: Tensor
    second: Tensor | None


def both_logits(model: nn.Module, result: Any) -> _Logits:
    """Logits of a model's result in training, and those of its second classifier if it has one.

    A second classifier is told by ``.aux_logits`` of the result, or by a module ``model.auxiliary`` and a result that
    is the pair (logits, second logits); everything else is read by :func:`naswot.logits.logits_of`.
    """
    if isinstance(getattr(result, "aux_logits", None), Tensor):
        return _Logits(result.logits, result.aux_logits)
    if isinstance(getattr(model, "auxiliary", None), nn.Module) and isinstance(result, tuple) and len(result) == 2:
        return _Logits(*result)
    return _Logits(logits_of(result), None)


def set_drop_path(model: nn.Module, probability: float) -> int:
    """Set ``drop_prob`` of every module that has one; how many these are.

    Args:
        model: changed in place.
        probability: with which a path is dropped for an image.
    """
    found = _droppers(model)
    for module in found:
        module.drop_prob = probability  # type: ignore[assignment]
    return len(found)


def _droppers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(getattr(module, "drop_prob", None), float | int)]


@contextmanager
def _drop_path_kept(model: nn.Module) -> Iterator[None]:
    """Put the probabilities back on leaving."""
    found = [(module, module.drop_prob) for module in _droppers(model)]
    try:
        yield
    finally:
        for module, probability in found:
            module.drop_prob = probability


def schedule_of(optimizer: torch.optim.Optimizer, recipe: TrainingRecipe, steps: int) -> LRScheduler:
    """Linear warm-up and cosine of a recipe, in its unit (steps or epochs).

    Args:
        optimizer: at the recipe's learning rate.
        recipe: how.
        steps: in an epoch.
    """
    unit = steps if recipe.cosine == "step" else 1
    rise, total = recipe.warmup_epochs * unit, recipe.epochs * unit
    cosine = CosineAnnealingLR(optimizer, total - rise, eta_min=recipe.final_learning_rate)
    if not rise:
        return cosine
    return SequentialLR(optimizer, [LinearLR(optimizer, 1 / (rise + 1), total_iters=rise), cosine], [rise])


def _averaged(model: nn.Module, decay: float) -> AveragedModel:
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def _unshared(model: nn.Module) -> nn.Module:
    """The model with memory of its own: spawned processes would otherwise write to the same weights."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.clone()
    return model


@contextmanager
def memory_shortage_named(batch_size: int, world_size: int = 1) -> Iterator[None]:
    """Errors of allocators become ones that say which batch would fit.

    Args:
        batch_size: N, over all devices.
        world_size: number of devices.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_memory_shortage(error):
            raise
        smaller = batch_size // 2 // world_size * world_size
        remedy = f"take batch_size={smaller}" if smaller else "take smaller images or a smaller network"
        raise MemoryShortageError(
            f"a batch of batch_size={batch_size} images does not fit into memory; {remedy}"
        ) from error


def _is_memory_shortage(error: BaseException) -> bool:
    """Whether an allocator of the GPU, of torch on the CPU, or of Python said no."""
    told = ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory")
    is_kind = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return is_kind or (type(error) is RuntimeError and any(words in str(error).lower() for words in told))
