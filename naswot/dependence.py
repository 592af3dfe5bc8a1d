"""What the output of a network truly depends on: its live layers, parameters, operations, activation calls, and depth.

A branch can be without effect for two reasons: nothing reads it, or it is multiplied by zero (it reaches no output);
or it reads only zeros (it comes from no input). Neither needs a notion of the space the network comes from: one forward
and one backward pass of a few images tell, as a part is live exactly where a gradient passes that is not zero. The
graph that autograd keeps tells the rest: which call follows which, and how long the chains are.

The passes run on a private copy in which nothing hides the structure: weights and scales that begin at zero, such as
the last normalisation of a residual branch, are drawn at random, and biases are zero, so that a branch that reads
nothing carries nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from naswot.calls import ActivationCall
from naswot.errors import InputError
from naswot.logits import logits_of
from naswot.observers import Activation, Operation
from naswot.passes import Passes
from naswot.types import Batch

IMAGES = 4
"""Images of the small pass: of two, a normalisation over maps of one pixel passes no gradient."""

_BIASES = ("bias", "beta")


@dataclass(frozen=True)
class Dependence:
    """Live parts of one network.

    Args:
        params: numbers in parameters that the output depends on.
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
        InputError: if the model was made in inference mode or has no trainable parameter, so that there is no graph.
    """
    return passes.once("dependence", lambda: _probe(passes))


# --- the small pass --------------------------------------------------------------------------------------------------


def _number_of_next_node() -> int:
    number: int = torch._C._autograd._get_sequence_nr()  # type: ignore[attr-defined]
    return number


def _note_activation(call: ActivationCall) -> tuple[tuple[int, int]]:
    return ((_number_of_next_node(), call.index),)


def _note_layer(packet: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
    flops = flop_registry[packet](*args, **kwargs, out_val=output)
    return ((_number_of_next_node() - 1, flops / 2),)  # autograd numbers a call's node before it runs the call


_ACTIVATIONS = Activation(_note_activation)
_LAYERS = Operation(_note_layer, frozenset(flop_registry))


def _probe(passes: Passes) -> Dependence:
    if torch.is_inference_mode_enabled():
        raise InputError("the model was made in inference mode, which keeps no graph to follow the data through")
    n = min(IMAGES, passes.batch.n)
    with passes.scratch() as model:
        _show_structure(model)
        small = Batch(passes.batch.inputs, batch_dim=passes.batch.batch_dim)
        small = small.map(lambda t: t.detach().narrow(small.batch_dim, 0, n))
        with Passes(model, small, options=passes.options) as own:
            own.observe([_ACTIVATIONS, _LAYERS], graph=True)
            passes.n_forwards += 1
            passes.n_backwards += 1
            seen = own.seen({"activations": _ACTIVATIONS, "layers": _LAYERS})
            layers, activations = dict(seen["layers"] or ()), dict(seen["activations"] or ())
            logits = own.outputs()
            if logits.grad_fn is None:
                raise InputError("the model has no trainable parameter, so no gradient tells what its output depends on")
            return _read(model, logits, layers, activations, n)


def _show_structure(model: nn.Module) -> None:
    """Weights without zeros that hide a branch, biases without values that would feed one."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.is_floating_point():
                continue
            if name.rpartition(".")[2].endswith(_BIASES):
                parameter.zero_()
            elif not parameter.any():
                parameter.normal_(std=1 / math.sqrt(max(1, parameter[0].numel()) if parameter.dim() > 1 else 1))


def _read(
    model: nn.Module, logits: Tensor, macs: Mapping[int, float], activations: Mapping[int, int], n: int
) -> Dependence:
    nodes = _nodes(logits.grad_fn)
    flows: dict[Any, tuple[bool, ...]] = {}
    hooks = [node.register_hook(_noter(flows, node)) for node in nodes]
    parameters = [p for p in model.parameters() if p.requires_grad]
    torch.autograd.grad(logits, parameters, torch.randn_like(logits), allow_unused=True)
    for hook in hooks:
        hook.remove()
    live_layers = {number for node in nodes if (number := node._sequence_nr()) in macs and _is_live(node, flows)}
    depth, mean_depth = _depths(nodes, flows, live_layers)
    return Dependence(
        params=sum(parameter.numel() for parameter in _live_parameters(nodes, flows)),
        macs=sum(macs[number] for number in live_layers) / n,
        layers=len(live_layers),
        depth=depth,
        mean_depth=mean_depth,
        calls=frozenset(
            activations[number]
            for node in nodes
            if (number := node._sequence_nr()) in activations and any(flows.get(node, ()))
        ),
        all_macs=sum(macs.values()) / n,
        all_layers=len(macs),
    )


def _nodes(root: Any) -> list[Any]:
    """The nodes of the graph that compute something, in the order in which they were made."""
    found, waiting = {root}, [root]
    while waiting:
        for node, _ in waiting.pop().next_functions:
            if node is not None and node not in found:
                found.add(node)
                waiting.append(node)
    return sorted((node for node in found if not hasattr(node, "variable")), key=lambda node: node._sequence_nr())


def _noter(flows: dict[Any, tuple[bool, ...]], node: Any) -> Callable[[Any, Any], None]:
    def note(gradients: tuple[Tensor | None, ...], _: Any) -> None:
        flows[node] = tuple(g is not None and bool(g.any()) for g in gradients)

    return note


def _is_live(node: Any, flows: Mapping[Any, tuple[bool, ...]]) -> bool:
    """Whether all operands of a layer that ask for a gradient get one; that of a bias (last or first) does not count."""
    flow = flows.get(node, ())
    wanted = [k for k, (child, _) in enumerate(node.next_functions) if child is not None and not _is_bias(child)]
    return bool(wanted) and all(k < len(flow) and flow[k] for k in wanted)


def _live_parameters(nodes: list[Any], flows: Mapping[Any, tuple[bool, ...]]) -> set[nn.Parameter]:
    """Parameters with a gradient; none of a node that passes one of its parameters by.

    So the shift of a normalisation that reads only zeros is as dead as its scale.
    """
    live: set[nn.Parameter] = set()
    for node in nodes:
        flow = flows.get(node, ())
        own = [(k, child.variable) for k, (child, _) in enumerate(node.next_functions) if hasattr(child, "variable")]
        if all(k < len(flow) and flow[k] for k, _ in own):
            live.update(parameter for _, parameter in own)
    return live


def _is_bias(node: Any) -> bool:
    return hasattr(node, "variable") and node.variable.dim() < 2


def _depths(nodes: list[Any], flows: Mapping[Any, tuple[bool, ...]], layers: set[int]) -> tuple[int, float]:
    """Layers on the longest chain, and on all chains in the mean, from anything that is no node to the last node."""
    longest: dict[Any, int] = {}
    chains: dict[Any, tuple[float, float]] = {}  # logarithm of their number, mean length
    for node in nodes:
        flow = flows.get(node, ())
        before = [
            child
            for k, (child, _) in enumerate(node.next_functions)
            if child in longest and k < len(flow) and flow[k]
        ]
        here = int(node._sequence_nr() in layers)
        longest[node] = here + max((longest[child] for child in before), default=0)
        counts = torch.tensor([chains[child][0] for child in before] or [0.0], dtype=torch.float64)
        lengths = torch.tensor([chains[child][1] for child in before] or [0.0], dtype=torch.float64)
        weights = counts.softmax(0)
        chains[node] = float(counts.logsumexp(0)), here + float((weights * lengths).sum())
    return longest[nodes[-1]], chains[nodes[-1]][1]
