"""One model, one batch: the fewest passes that show all proxies what they asked for, and the products they share."""

from __future__ import annotations

import copy
import math
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from naswot.activations import FunctionTap
from naswot.calls import ActivationCall, CallReader, nothing_tapped, unwatched
from naswot.data.checks import check_batch
from naswot.errors import InputError, NoActivationError, OptionError, UntappedWarning
from naswot.foreign import OPAQUE
from naswot.logits import cross_entropy, logits_of, result_of
from naswot.mellor import ModuleTap, reached_by_gradient
from naswot.observers import (
    Activation,
    Gradient,
    Module,
    Observer,
    Operation,
    OperationTap,
    OutputGradient,
    Record,
    SampleGradient,
    Seen,
)
from naswot.options import PassOptions, device_of, placed
from naswot.preserve import Buffers, eager, in_mode, is_lazy, made_in_inference_mode, modules_of, preserve, set_mode
from naswot.seeding import seeded
from naswot.types import Batch, ModelInputs

T = TypeVar("T")


class _StopForward(BaseException):
    """Raised by the tap to leave a forward pass behind its last wanted activation."""


class Passes:
    """The plan and the products of one model on one batch; a context that leaves no trace.

    Within the context the model is in the chosen mode, the global generators start from ``seed`` and every pass is
    counted. The plain forward pass is run once and shared, and so is its graph.

    Args:
        model: any module; comes back as it was.
        batch: N images; moved to the model's device and floating type.
        seed: start of the global generators during the passes (hard-wired dropout, lazy parameters).
        options: how the passes are run.
    Raises:
        InputError: if the batch cannot be scored (see :func:`naswot.data.checks.check_batch`).
        ModelError: if the model raises; the original error is the cause.
    """

    def __init__(self, model: nn.Module, batch: Batch, *, seed: int = 0, options: PassOptions | None = None) -> None:
        if not isinstance(model, nn.Module):
            raise InputError(f"expected a model of type torch.nn.Module, but got {type(model).__name__}")
        self.model = model
        self.options = options or PassOptions()
        self.batch = placed(check_batch(batch), model, channels_last=self.options.channels_last)
        self.n_forwards = 0
        self.n_backwards = 0
        self.untapped: Counter[str] = Counter()
        self.n_calls = 0
        self.remarks: list[str] = []
        self.trouble: str | None = None
        self._seed = seed
        self._stack = ExitStack()
        self._buffers: Buffers | None = None
        self._record = Record([])
        self._result: Any = None
        self._with_graph = False
        self._gradients: dict[str, Tensor] | None = None
        self._watched: list[tuple[nn.Module, Tensor]] = []
        self._products: dict[Hashable, object] = {}

    def __enter__(self) -> Passes:
        with ExitStack() as stack:
            # inference mode forbids graphs; only a model that was made in it cannot do without
            stack.enter_context(torch.inference_mode(made_in_inference_mode(self.model)))
            stack.enter_context(seeded(self._seed))
            stack.enter_context(eager())
            if is_lazy(self.model):
                self._materialise()
            self._buffers = stack.enter_context(preserve(self.model))
            set_mode(self.model, self.options.mode)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._result = self._gradients = None
        self._watched.clear()
        self._products.clear()
        self._stack.close()

    # ------------------------------------------------------------------ the shared forward pass

    def observe(self, observers: Collection[Observer], *, graph: bool = False, jacobian: bool = False) -> None:
        """Run the shared forward pass under the eyes of ``observers``, and the backward passes that they need.

        Args:
            observers: equal ones are run once.
            graph: keep the autograd graph, for the products that differentiate.
            jacobian: let the graph reach the inputs.
        """
        self._record = Record(list(observers))
        samples = dict.fromkeys((o.reading, o.of) for o in self._record.of(SampleGradient))
        wants_gradient = bool(self._record.of(Gradient) or self._record.of(OutputGradient))
        if jacobian:
            self.batch = self.batch.map(lambda t: t.detach().requires_grad_() if t.is_floating_point() else t)
        self._with_graph = graph or jacobian or wants_gradient or any(reading == "coupled" for reading, _ in samples)
        self._gradients = None
        self._products.clear()
        self._result = self._forward(self.batch, self._record, graph=self._with_graph)
        if wants_gradient:
            self._show_gradients()
        for reading, of in samples:
            for scalar in self._scalars(reading, of):
                gradients = self._differentiate(scalar)
                with unwatched():
                    for observer in self._record.of(SampleGradient):
                        if (observer.reading, observer.of) == (reading, of):
                            self._record.add(observer, observer.reduce(gradients))

    def seen(self, observe: Mapping[str, Observer]) -> Seen:
        """Values of some of the observers of the shared pass, by the names under which a proxy declared them."""
        return {name: self._record.values.get(observer) for name, observer in observe.items()}

    def remark(self, reason: str) -> None:
        """Say why the score about to be returned is not finite; it is kept beside the score."""
        self.remarks.append(reason)

    def undefined(self, reason: str) -> Tensor:
        """The score of a network for which the formula has none, () NaN; recorded as the worst, with the reason."""
        self.remark(reason)
        return torch.tensor(math.nan, dtype=torch.float64)

    # ------------------------------------------------------------------ products

    def outputs(self) -> Tensor:
        """Logits of the shared forward pass, (N, K).

        Raises:
            OutputError: if the model's result shows none; see :func:`logits_of`.
        """
        if self._result is None:
            self.observe(self._record.observers)
        return logits_of(self._result, self.options.output)

    def loss(self, *, reduction: str = "mean") -> Tensor:
        """Cross-entropy of the shared pass's logits, () or, with ``reduction="none"``, (N,).

        Raises:
            InputError: if the batch has no targets.
        """
        loss = cross_entropy(self._graph_outputs(), self._targets(self.batch), reduction)
        if not torch.isfinite(loss).all():
            self.trouble = "the loss is not finite"
        return loss

    def gradients(self) -> Mapping[str, Tensor]:
        """Gradient of the mean loss by parameter name; parameters that the loss does not reach are left out."""
        if self._gradients is None:
            self._gradients = self._differentiate(self.loss())
        return self._gradients

    def part_gradients(self, n_parts: int) -> tuple[Mapping[str, Tensor], ...]:
        """Gradients of the mean losses of equal parts of the batch, by parameter name; each its own forward pass.

        Images that are left over when N is divided are not used.

        Raises:
            InputError: if there are fewer images than parts, or no targets.
        """
        size = self.batch.n // n_parts
        if size == 0:
            raise InputError(f"expected at least {n_parts} images to part, but the batch has {self.batch.n}")
        parts = [self._rows(part * size, size) for part in range(n_parts)]
        losses = (cross_entropy(self._logits(part), self._targets(part), "mean") for part in parts)
        return self.once(("parts", n_parts), lambda: tuple(self._differentiate(loss) for loss in losses))

    def input_jacobian(self) -> Tensor:
        """Gradient of the sum of all logits with respect to the inputs, (N, C*H*W)."""
        return self.once("input_jacobian", self._input_jacobian)

    def _input_jacobian(self) -> Tensor:
        inputs = [t for t in self.batch.tensors() if t.is_floating_point()]
        if not inputs:
            raise InputError("the inputs are integers, so the logits have no gradient with respect to them")
        if not inputs[0].requires_grad:
            self.observe(self._record.observers, graph=True, jacobian=True)
            inputs = [t for t in self.batch.tensors() if t.is_floating_point()]
        self.n_backwards += 1
        gradients = torch.autograd.grad(self._graph_outputs().sum(), inputs, retain_graph=True, materialize_grads=True)
        return torch.cat([g.movedim(self.batch.batch_dim, 0).reshape(self.batch.n, -1) for g in gradients], dim=1)

    def per_sample_gradients(
        self, *, reading: Literal["coupled", "single", "eval"], of: Literal["loss", "logits"] = "loss"
    ) -> Mapping[str, Tensor]:
        """Gradients of each image's loss (or sum of logits) by parameter name, (N, ...) each; N backward passes.

        Args:
            reading: ``"coupled"``: one forward of the whole batch in the chosen mode, so that BatchNorm ties the images
                together; ``"single"``: every image alone; ``"eval"``: one forward with running statistics.
            of: what is differentiated.
        """
        if reading not in ("coupled", "single", "eval"):
            raise OptionError(f"expected reading 'coupled', 'single' or 'eval', but got {reading!r}")
        rows = [self._differentiate(scalar) for scalar in self._scalars(reading, of)]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0] if all(name in r for r in rows)}

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """``compute()``, worked out once for all proxies that ask these passes for it under the same key."""
        if key not in self._products:
            self._products[key] = compute()
        return cast("T", self._products[key])

    @contextmanager
    def scratch(self) -> Iterator[nn.Module]:
        """A private copy of the model, for proxies that change weights, inputs or modes."""
        self._as_it_came()
        with seeded(self._seed):
            yield copy.deepcopy(self.model)

    def own_forward(self, model: nn.Module, inputs: ModelInputs) -> Any:
        """Result of one pass of a model of one's own, such as a scratch copy; counted, its errors reported.

        Raises:
            ModelError: if the model raises; the original error is the cause.
            InputError: if it makes NaN of finite inputs.
        """
        return self._called(model, Batch(inputs))

    # ------------------------------------------------------------------ inside

    def _forward(self, batch: Batch, record: Record, *, graph: bool = False) -> Any:
        self._as_it_came()
        if graph and torch.is_inference_mode_enabled():
            raise InputError("the model was made in inference mode, so no gradient can be taken; build it outside")
        reader = CallReader(batch.n, self.options.batch_dim, self._listener(record))
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(graph))
            if self.options.bfloat16:
                stack.enter_context(torch.autocast(device_of(self.model).type, dtype=torch.bfloat16))
            if record.of(Operation):
                stack.enter_context(OperationTap(record))
            for observer in record.of(Module):
                self._hook(observer, record, stack)
            if record.of(Activation):
                stack.enter_context(self._tap(batch, reader))
            if record.of(OutputGradient):
                self._watch_outputs(record, stack)
            result = self._called(self.model, batch)
        self.untapped, self.n_calls = reader.untapped, reader.n_calls
        opaque = [name for name in reader.untapped if name.startswith(OPAQUE)]
        if opaque:
            warnings.warn(
                f"activations inside these are not counted: {', '.join(opaque)}", UntappedWarning, stacklevel=3
            )
        if record.of(Activation) and reader.n_calls == 0:
            raise NoActivationError(nothing_tapped(self.options.taps, reader.untapped))
        return result

    def _as_it_came(self) -> None:
        """Take back what earlier passes did to the running statistics, so that no pass depends on its company."""
        if self._buffers is not None and self.n_forwards > 0:
            self._buffers.restore()

    def _called(self, model: nn.Module, batch: Batch) -> Any:
        self.n_forwards += 1
        try:
            return result_of(model, batch)
        except _StopForward:
            return None

    def _tap(self, batch: Batch, reader: CallReader) -> FunctionTap | ModuleTap:
        if self.options.taps != "mellor":
            smooth = self.options.taps == "all"
            return FunctionTap(self.model, reader, smooth=smooth, names=self.options.names)
        self.n_backwards += 1
        reached = reached_by_gradient(
            self.model, batch, lambda b: logits_of(self._called(self.model, b), self.options.output)
        )
        return ModuleTap(reached, reader)

    def _listener(self, record: Record) -> Callable[[ActivationCall], None]:
        last = self.options.stop_after

        def listen(call: ActivationCall) -> None:
            record.activation(call)
            if last is not None and call.index + 1 >= last:
                raise _StopForward

        return listen

    def _hook(self, observer: Module, record: Record, stack: ExitStack) -> None:
        def see(module: nn.Module, inputs: Any, output: Any) -> None:
            with unwatched():
                record.add(observer, observer.reduce(module, inputs, output))

        for module in modules_of(self.model):
            if isinstance(module, observer.type):
                stack.callback(module.register_forward_hook(see).remove)

    def _watch_outputs(self, record: Record, stack: ExitStack) -> None:
        def watch(module: nn.Module, inputs: Any, output: Any) -> Any:  # noqa: ARG001
            if not isinstance(output, Tensor) or not output.requires_grad:
                return output
            self._watched.append((module, output))
            return output.clone()  # what follows may write in place; the output that was seen stays as it is

        self._watched.clear()
        for module in modules_of(self.model):
            if any(isinstance(module, observer.type) for observer in record.of(OutputGradient)):
                stack.callback(module.register_forward_hook(watch).remove)

    def _show_gradients(self) -> None:
        outputs = [output for _, output in self._watched]
        found, of_outputs = self._differentiate_with(self.loss(), outputs)
        self._gradients = found
        with unwatched():
            for name, gradient in found.items():
                for observer in self._record.of(Gradient):
                    self._record.add(observer, observer.reduce(name, self.model.get_parameter(name), gradient))
            for (module, output), gradient_or_none in zip(self._watched, of_outputs, strict=True):
                for observer in self._record.of(OutputGradient):
                    if isinstance(module, observer.type) and gradient_or_none is not None:
                        self._record.add(observer, observer.reduce(module, output.detach(), gradient_or_none))
        self._watched.clear()

    def _graph_outputs(self) -> Tensor:
        if self._result is None or not self._with_graph:
            self.observe(self._record.observers, graph=True)
        return self.outputs()

    def _differentiate(self, scalar: Tensor) -> dict[str, Tensor]:
        return self._differentiate_with(scalar, [])[0]

    def _differentiate_with(
        self, scalar: Tensor, outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], tuple[Tensor | None, ...]]:
        """Gradients by parameter name, and with respect to ``outputs``; the graph stays."""
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        if not named:
            raise InputError("the model has no trainable parameter, so there is no gradient to take")
        self.n_backwards += 1
        wanted = [*named.values(), *outputs]
        gradients = torch.autograd.grad(scalar, wanted, retain_graph=True, allow_unused=True)
        found = zip(named, gradients[: len(named)], strict=True)
        return {name: gradient for name, gradient in found if gradient is not None}, gradients[len(named) :]

    def _scalars(self, reading: str, of: str) -> Iterator[Tensor]:
        if reading == "single":
            for i in range(self.batch.n):
                yield self._scalar_rows(self._rows(i, 1), of)[0]
        elif reading == "eval":
            with in_mode(self.model, "eval"):
                rows = self._scalar_rows(self.batch, of)
            yield from rows
        else:
            logits = self._graph_outputs()
            yield from logits.sum(dim=1) if of == "logits" else self.loss(reduction="none")

    def _scalar_rows(self, batch: Batch, of: str) -> Tensor:
        logits = self._logits(batch)
        return logits.sum(dim=1) if of == "logits" else cross_entropy(logits, self._targets(batch), "none")

    def _logits(self, batch: Batch) -> Tensor:
        return logits_of(self._forward(batch, Record([]), graph=True), self.options.output)

    def _rows(self, start: int, size: int) -> Batch:
        dim, targets = self.batch.batch_dim, self.batch.targets
        some = Batch(self.batch.inputs, batch_dim=dim).map(lambda t: t.detach().narrow(dim, start, size))
        return Batch(some.inputs, None if targets is None else targets[start : start + size], dim)

    def _targets(self, batch: Batch) -> Tensor:
        if batch.targets is None:
            raise InputError("the loss needs labels, but the batch has none; pass Batch(inputs, targets)")
        return batch.targets

    def _materialise(self) -> None:
        """Give lazy parameters their shape, in evaluation mode so that no statistics move; this stays."""
        with in_mode(self.model, "eval"):
            self._forward(self.batch, Record([]))
