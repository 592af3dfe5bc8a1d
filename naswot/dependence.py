"""What the output of a network truly depends on: its live layers, parameters, operations, activation calls, and depth.

A branch can be without effect for two reasons: nothing reads it, or it is multiplied by zero (it reaches no output);
or it reads only zeros (it comes from no input). Neither needs a notion of the space the network comes from: one forward
and one backward pass of a few images tell, as a part is live exactly where a gradient passes that is not zero. The
graph that autograd keeps tells the rest: which call follows which, and how long the chains are.

Nothing but the structure may count, so the passes run on a private copy from which all else is taken: weights and
scales that begin at zero, such as the last normalisation of a residual branch, are drawn at random; biases are zero, so
that a branch that reads nothing carries nothing; batch norms divide by constants; what a ReLU would cut off passes with
its sign turned, so that no layer is switched off by chance; every layer's output and every gradient is brought to a
size near one, so that nothing vanishes on the way; frozen parameters count like the others; and attention runs as the
products it is made of. What lies behind ``detach``, ``no_grad`` or a step function passes no gradient and counts as
dead.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointFunction
from torch.utils.flop_counter import flop_registry

from naswot._gradient_flow import GradientFlow
from naswot.calls import ActivationCall
from naswot.errors import InputError, NoActivationError
from naswot.observers import Activation, Operation
from naswot.options import device_of
from naswot.passes import Passes
from naswot.preserve import modules_of, normalises_by_batch
from naswot.types import Batch

IMAGES = 3
"""Images of the small pass: few, but more than one, and rarely a number of channels that could be taken for theirs."""

_RECTIFIERS = ("relu", "relu6", "hardtanh")
_SLOPE = -0.1  # of the rectifiers below zero: outputs stay positive, as roots and logarithms may want them


@dataclass(frozen=True)
class Dependence:
    """Live parts of one network.

    Args:
        params: numbers in parameters that the output depends on, frozen ones included.
        macs: multiply-accumulate operations of live layers, for one image.
        layers: live layers: convolutions, linear layers and matrix products, each call counted.
        depth: layers on the longest chain from the input to the output.
        mean_depth: layers on a chain, the mean over all chains.
        calls: numbers of the live activation calls, in the order of a forward pass.
        all_macs: the same with dead layers.
        all_layers: layers, dead ones included.
    """

    params: int
    macs: float
    layers: int
    depth: int
    mean_depth: float
    calls: frozenset[int]
    all_macs: float
    all_layers: int


def dependence_of(passes: Passes) -> Dependence:
    """The live parts of the model, worked out once for all proxies of the same passes.

    Raises:
        InputError: if the model was made in inference mode, lies on the meta device, or keeps no graph up to its
            output; or if its activation calls depend on the number of images.
    """
    return passes.once("dependence", lambda: _probe(passes))


# --- the small pass --------------------------------------------------------------------------------------------------


class _Layer(NamedTuple):
    """A layer that ran: number of its node in the graph, multiply-accumulate operations, and which run it was."""

    node: int
    macs: float
    run: int


class _Call(NamedTuple):
    """An activation call that read something: the number of its node in the graph, and its own."""

    node: int
    number: int


def _probe(passes: Passes) -> Dependence:
    if device_of(passes.model).type == "meta":
        raise InputError("the model lies on the meta device, whose tensors hold no numbers to follow; move it first")
    options = dataclasses.replace(passes.options, bfloat16=False, stop_after=None, names=False)
    with passes.scratch() as model:
        shifts = _show_structure(model)
        passes.n_forwards += 1
        passes.n_backwards += 1
        with Passes(model, _few(passes.batch), options=options) as own, _plain(model):
            layers, calls = _observed(own)
            _check_calls(passes, own)
            return _told(own, layers, calls, shifts)


def _told(own: Passes, layers: Sequence[_Layer], calls: Sequence[_Call], shifts: set[Tensor]) -> Dependence:
    logits = own.outputs()
    if logits.grad_fn is None:
        raise InputError(
            "no gradient leads from the model's output to a parameter or to the inputs, so nothing tells what it "
            "depends on; expected an output that is not detached, nor made under torch.no_grad"
        )
    inputs = [tensor for tensor in own.batch.tensors() if tensor.requires_grad]
    parameters = [parameter for parameter in own.model.parameters() if not is_lazy(parameter)]
    nodes = {layer.node for layer in layers}
    flow = GradientFlow(logits, inputs=inputs, parameters=parameters, layers=nodes, shifts=shifts)
    of_integers = len(inputs) < len(own.batch.tensors())
    depth, mean_depth = flow.depths(lookups=of_integers) or flow.depths(lookups=True) or (0, 0.0)
    live, passed = [layer for layer in layers if layer.node in flow.live_layers], flow.passes()
    return Dependence(
        params=sum(parameter.numel() for parameter in flow.live_parameters()),
        macs=sum(layer.macs for layer in live) / own.batch.n,
        layers=len(live),
        depth=depth,
        mean_depth=mean_depth,
        calls=frozenset(call.number for call in calls if call.node in passed),
        all_macs=sum(layer.macs for layer in layers) / own.batch.n,
        all_layers=len(layers),
    )


def _few(batch: Batch) -> Batch:
    """The first images; noise in place of blank ones, which no layer could tell from nothing."""
    dim, n = batch.batch_dim, batch.n

    def few(tensor: Tensor) -> Tensor:
        some = tensor.detach().narrow(dim, 0, min(IMAGES, n)) if tensor.shape[dim] == n else tensor.detach()
        return torch.randn_like(some) if some.is_floating_point() and not some.any() else some

    return Batch(batch.inputs, batch_dim=dim).map(few)


def _check_calls(passes: Passes, own: Passes) -> None:
    whole = passes.options.stop_after is None and passes.n_calls > 0
    if whole and passes.n_calls != own.n_calls:
        raise InputError(
            f"the model makes {passes.n_calls} activation calls for {passes.batch.n} images, but {own.n_calls} for "
            f"{own.batch.n}; expected a number that depends neither on them nor on chance"
        )


def _observed(own: Passes) -> tuple[list[_Layer], list[_Call]]:
    """The layers and activation calls of one forward pass; a model may be without the latter."""
    runs: list[None] = []
    hook = own.model.register_forward_pre_hook(lambda *_: runs.append(None))
    ran = Operation(partial(_note_layer, runs), frozenset(_FLOPS))
    try:
        own.observe([_ACTIVATIONS, ran], jacobian=True)
    except NoActivationError:
        own.observe([ran], jacobian=True)
    finally:
        hook.remove()
    seen = own.seen({"activations": _ACTIVATIONS, "layers": ran})
    layers = [layer for layer in seen["layers"] or () if layer.run == len(runs)]  # taps may run a pass before
    return layers, list(seen["activations"] or ())


def _number_of_next_node() -> int:
    number: int = torch._C._autograd._get_sequence_nr()
    return number


def _note_activation(call: ActivationCall) -> tuple[_Call, ...]:
    return (_Call(_number_of_next_node(), call.index),) if call.preactivation.any() else ()


def _note_layer(
    runs: list[None], packet: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
) -> tuple[_Layer]:
    macs = _FLOPS[packet](*args, **kwargs, out_val=output) / 2
    if isinstance(output, Tensor) and output.is_floating_point() and output.numel() > 0:
        size = output.abs().amax()
        output.div_(torch.where((size > 0) & size.isfinite(), size, 1))
    node = _number_of_next_node() - 1  # autograd numbers a call's node before it runs the call
    return (_Layer(node, macs, len(runs)),)


def _flops_of_recurrence(inputs: Tensor, *weights: Any, out_val: Any, **_: Any) -> int:  # noqa: ARG001
    """Of a fused recurrent layer: at each step its matrices are multiplied with the input and with the state."""
    tensors = weights[0] if isinstance(weights[0], list | tuple) else weights[:2]
    n_weights: int = sum(w.numel() for w in tensors if w.dim() > 1)
    return 2 * (inputs.numel() // inputs.shape[-1]) * n_weights


_FLOPS: dict[Any, Callable[..., float]] = {
    **flop_registry,
    torch.ops.aten.mkldnn_rnn_layer: _flops_of_recurrence,
    torch.ops.aten._cudnn_rnn: _flops_of_recurrence,
}
_ACTIVATIONS = Activation(_note_activation)


# --- nothing but the structure ---------------------------------------------------------------------------------------


def _show_structure(model: nn.Module) -> set[Tensor]:
    """Weights without zeros that hide a branch, biases without values that would feed one; gives the biases."""
    shifts: set[Tensor] = set()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_lazy(parameter) or not (parameter.is_floating_point() or parameter.is_complex()):
                continue
            parameter.requires_grad_()
            own_name = name.rpartition(".")[2]
            if "bias" in own_name or own_name.endswith("beta"):
                shifts.add(parameter.zero_())
            elif not parameter.any():
                parameter.normal_(std=1 / math.sqrt(max(1, parameter[0].numel()) if parameter.dim() > 1 else 1))
        like = next((p.detach() for p in model.parameters() if p.requires_grad and not is_lazy(p)), torch.empty(0))
        for module in modules_of(model):
            if normalises_by_batch(module):
                _forget_statistics(module, like)
    return shifts


def _forget_statistics(module: nn.Module, like: Tensor) -> None:
    """Let a batch norm divide by one when it does not look at the batch."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
        module.running_mean = like.new_zeros(module.num_features)
        module.running_var = like.new_ones(module.num_features)
    for name, value in (("running_mean", 0), ("running_var", 1)):
        buffer = module._buffers.get(name)
        if buffer is not None:
            buffer.fill_(value)


@contextmanager
def _plain(model: nn.Module) -> Iterator[None]:
    """Run the model as calls that autograd can follow, without what looks at other images or cuts off."""
    for module in modules_of(model):
        if normalises_by_batch(module) or isinstance(module, nn.modules.dropout._DropoutNd):
            module.training = False
    # the reentrant kind of checkpoint keeps no graph of what it runs
    CheckpointFunction.apply = staticmethod(lambda run, _, *args: run(*args))  # type: ignore[method-assign]
    try:
        with sdpa_kernel(SDPBackend.MATH), _Unrectified():
            yield
    finally:
        del CheckpointFunction.apply


class _Unrectified(TorchFunctionMode):
    """Context in which what rectifiers would cut off passes with its sign turned."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").partition(".")[0]  # an operator is called relu.default
        tensor = args[0] if args else kwargs.get("input")
        least = (args[1] if len(args) > 1 else kwargs.get("min_val")) if name.startswith("hardtanh") else 0
        if name.rstrip("_") not in _RECTIFIERS or least != 0 or not isinstance(tensor, Tensor):
            return func(*args, **kwargs)
        if name.endswith("_") or kwargs.get("inplace"):
            return tensor.copy_(F.leaky_relu(tensor.clone(), _SLOPE))
        return F.leaky_relu(tensor, _SLOPE)
