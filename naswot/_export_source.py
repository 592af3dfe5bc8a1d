"""A traced network as Python source that needs nothing but torch.

Layers of ``torch.nn`` become calls of their constructors, everything between them straight-line code.
"""

from __future__ import annotations

import keyword
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node, Proxy, Tracer
from torch.fx.graph import magic_methods
from torch.fx.proxy import Attribute, TraceError

from naswot._export_layers import is_layer, layer_source, literal
from naswot.errors import InputError
from naswot.preserve import in_mode

_LITERAL: Final = 4096  # values of a tensor that may be written out
_INDENT: Final = "    "
_NAMESPACES: Final = {
    "torch": torch,
    "nn.functional": nn.functional,
    "torch.linalg": torch.linalg,
    "torch.special": torch.special,
    "torch.fft": torch.fft,
}


class _OneInput(nn.Module):
    """The network with the images as its only argument, whatever else its ``forward`` would take."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        """As the network."""
        return self.model(x)


class _UnknownError(Exception):
    """The forward asks how long something is, or whether it is true, and fx does not know.

    Args:
        node: the something.
        asked: ``len`` or ``bool``.
    """

    def __init__(self, node: Node, asked: str) -> None:
        super().__init__(node.name)
        self.node, self.asked = node, asked


class _Sized(Proxy):
    """What stands for a value in the forward; it has a length, as ``f(*shape[2:])`` asks for it."""

    tracer: _LayerTracer

    def __len__(self) -> int:
        return self.tracer.ask(self.node, "len")

    def __getattr__(self, k: str) -> Attribute:
        return _SizedAttribute(self, k)


class _SizedAttribute(Attribute):
    """The same for an attribute such as ``shape``."""

    tracer: _LayerTracer

    def __len__(self) -> int:
        return self.tracer.ask(self.node, "len")


class _LayerTracer(Tracer):
    """Goes into everything but the layers of ``torch.nn``.

    Args:
        known: what fx does not know, by node and question, such as the number of dimensions.
    """

    proxy_buffer_attributes = True  # what is made of a buffer is written too, not only its value now

    def __init__(self, known: Mapping[tuple[str, str], int]) -> None:
        super().__init__()
        self._known = known

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_layer(m) and module_qualified_name != "model"

    def proxy(self, node: Node) -> Proxy:
        return _Sized(node, self)

    def ask(self, node: Node, question: str) -> int:
        """``len`` or ``bool`` of what a node gives."""
        if (node.name, question) not in self._known:
            raise _UnknownError(node, question)
        return self._known[node.name, question]

    def to_bool(self, obj: Proxy) -> bool:
        """Which way an ``if`` goes."""
        return bool(self.ask(obj.node, "bool"))

    def iter(self, obj: Proxy) -> Iterator[Any]:
        """What ``f(*obj)`` and the like run over."""
        try:
            return super().iter(obj)
        except TraceError:
            return (operator.getitem(obj, i) for i in range(self.ask(obj.node, "len")))


@dataclass(frozen=True)
class Traced:
    """A network as a graph of layers and functions.

    Args:
        root: holds the network as ``model``, and the constants of its forward.
        graph: names things by their path from ``root``.
        chooses: whether it is only one of the ways the forward may go by the size of the images.
    """

    root: nn.Module
    graph: Graph
    chooses: bool


def trace(model: nn.Module, example: Tensor) -> Traced:
    """The network in its present mode as a graph.

    Args:
        model: gives (N, K) logits.
        example: (N, C, H, W) images.
    Raises:
        InputError: if what it does depends on the values it sees.
    """
    root = _OneInput(model)
    root.training = model.training
    known: dict[tuple[str, str], int] = {}
    while True:  # once more for every answer that had to be looked up
        try:
            return Traced(root, _LayerTracer(known).trace(root), any(question == "bool" for _, question in known))
        except _UnknownError as missing:
            known[missing.node.name, missing.asked] = _answer(root, missing, example)
        except Exception as error:  # anything a forward may raise when its input is no tensor
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"{type(model).__name__} cannot be written as straight-line code, as torch.fx cannot trace it: {reason}"
            ) from error


def _answer(root: nn.Module, missing: _UnknownError, example: Tensor) -> int:
    """What fx does not know, for the example; it must be the same for one image more."""
    until, copies = Graph(), dict[Node, Node]()
    for each in missing.node.graph.nodes:
        copies[each] = until.node_copy(each, copies.__getitem__)
    until.output(copies[missing.node])
    answers = []
    for images in (example.clone(), torch.cat([example, example[:1]])):
        with torch.no_grad(), in_mode(root, "eval"):
            value = GraphModule(root, until)(images)
        if isinstance(value, Tensor):
            break
        answers.append(len(value) if missing.asked == "len" else bool(value))
    if len(set(answers)) != 1:  # none for a tensor
        raise InputError(
            f"the forward asks for {missing.asked}({missing.node.name}), which depends on the values or the number of "
            "the images and cannot be written"
        )
    return answers[0]


def _own(target: str) -> str:
    """Name of a module or tensor within the network, without the wrapper's."""
    return target.removeprefix("model.")


@dataclass
class Members:
    """What the class of the network holds: its tree of layers and tensors, as source.

    Args:
        tree: name to the source of a member, or to the tree of a part.
        names: of the parameters and buffers that a state dict holds.
        unsaved: names of the buffers that a state dict does not hold.
        frozen: names of parameters without gradients.
    """

    tree: dict[str, Any] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    unsaved: list[str] = field(default_factory=list)
    frozen: list[str] = field(default_factory=list)

    def put(self, name: str, source: str) -> None:
        """Add a member under its dotted name."""
        *path, last = name.split(".")
        place = self.tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = source


def members_of(traced: Traced) -> Members:
    """The layers and tensors that the graph uses.

    Raises:
        InputError: if one of them cannot be written, or two layers share a parameter.
    """
    layers = {name for name, module in traced.root.named_modules() if name != "model" and is_layer(module)}
    called = {str(node.target) for node in traced.graph.nodes if node.op == "call_module"}
    read = {str(node.target) for node in traced.graph.nodes if node.op == "get_attr"}
    owners = {target.rpartition(".")[0] for target in read}
    found = Members()
    for name, module in traced.root.named_modules():  # in the order of the network
        if name in layers and name in called | owners:
            found.put(_own(name), layer_source(module, _own(name)))
            found.names |= {f"{_own(name)}.{inner}" for inner in module.state_dict()}
    for target in sorted(read):
        found.names.add(_own(target))
        if target.rpartition(".")[0] not in layers:
            _put_tensor(found, traced.root, target)
    homes: dict[int, str] = {}
    for name, parameter in traced.root.get_submodule("model").named_parameters(remove_duplicate=False):
        if name in found.names:
            if homes.setdefault(id(parameter), name) != name:
                raise InputError(f"{homes[id(parameter)]} and {name} are one parameter; shared ones cannot be written")
            if not parameter.requires_grad:
                found.frozen.append(name)
    return found


def _put_tensor(found: Members, root: nn.Module, target: str) -> None:
    owner, _, last = target.rpartition(".")
    module, name = root.get_submodule(owner), _own(target)
    value = getattr(module, last)
    if not isinstance(value, Tensor):
        raise InputError(f"the forward reads {name}, which is no tensor but a {type(value).__name__}")
    if isinstance(value, nn.Parameter):
        found.put(name, f"nn.Parameter({_start(value)})")
        return
    found.put(name, _values(value, name))
    if last not in module._buffers or last in module._non_persistent_buffers_set:
        found.unsaved.append(name)
        found.names.remove(name)


def _start(parameter: Tensor) -> str:
    """Source of a parameter that starts with the same mean and deviation."""
    values, shape = parameter.detach().double(), tuple(parameter.shape)
    kind = "" if parameter.dtype == torch.float32 else f", dtype={parameter.dtype}"
    low, high = (float(values.min()), float(values.max())) if values.numel() else (0.0, 0.0)
    if low == high:
        return f"torch.full({shape}, {literal(low)}{kind})"
    return f"torch.empty({shape}{kind}).normal_({float(values.mean()):.3g}, {float(values.std()):.3g})"


def _values(tensor: Tensor, name: str) -> str:
    """Source of a constant."""
    if tensor.numel() > _LITERAL:
        raise InputError(f"the constant {name} of {tensor.numel():,} values is too large to be written (> {_LITERAL})")
    if tensor.is_complex():
        raise InputError(f"the constant {name} is complex, which cannot be written")
    values = str(tensor.detach().cpu().tolist()).replace("inf", 'float("inf")').replace("nan", 'float("nan")')
    return f"torch.tensor({values}, dtype={tensor.dtype}).reshape({tuple(tensor.shape)})"


def tree_source(tree: Mapping[str, Any], indent: str, unsaved: Iterable[str] = ()) -> Iterable[str]:
    """Lines of a dictionary of members.

    Args:
        tree: name to source, or to the tree of a part.
        indent: before every line.
        unsaved: dotted names of buffers that a state dict does not hold.
    """
    for name, member in tree.items():
        if isinstance(member, str):
            yield f"{indent}{name!r}: {member},"
        else:
            inside = [other.removeprefix(f"{name}.") for other in unsaved if other.startswith(f"{name}.")]
            own = tuple(other for other in inside if "." not in other)
            yield f"{indent}{name!r}: Group({{"
            yield from tree_source(member, indent + _INDENT, inside)
            yield f"{indent}}}{f', {own!r}' if own else ''}),"


def access(target: str) -> str:
    """Source of a member of the network.

    Example:
        >>> access("cells.0.edges.2<-1")
        "self.cells['0'].edges['2<-1']"
    """
    parts = target.split(".")
    plain = (part.isidentifier() and not keyword.iskeyword(part) for part in parts)
    return "self" + "".join(f".{part}" if p else f"[{part!r}]" for part, p in zip(parts, plain, strict=True))


class _Registers:
    """Names of local variables; one whose value is not needed any more is used again, so that its memory is freed."""

    def __init__(self, graph: Graph) -> None:
        self._last = {used: node for node in graph.nodes for used in node.all_input_nodes}
        self._names: dict[Node, str] = {}
        self._free: list[str] = []
        self._n = 0

    def __getitem__(self, node: Node) -> str:
        return self._names[node]

    def assign(self, node: Node) -> str:
        """The variable of a node: that of an input that is read here for the last time, else a free one."""
        done = {self._names[used] for used in node.all_input_nodes if self._last[used] is node}
        self._free += sorted(done, reverse=True)
        if self._free:
            name = self._free.pop()
        else:
            name = "x" if self._n == 0 else f"x{self._n}"
            self._n += 1
        self._names[node] = name
        if node not in self._last:
            self._free.append(name)
        return name


def forward_source(graph: Graph, indent: str) -> Iterable[str]:
    """Lines of the forward pass.

    Raises:
        InputError: if a function of it is none of torch's.
    """
    registers = _Registers(graph)
    for node in graph.nodes:
        if node.op == "placeholder":
            registers.assign(node)
            continue
        arguments = [_expression(argument, registers) for argument in node.args]
        keywords = {key: _expression(value, registers) for key, value in node.kwargs.items()}
        if node.op == "output":
            yield f"{indent}return {arguments[0]}"
            continue
        value = _call(node, arguments, keywords)
        yield f"{indent}{registers.assign(node)} = {value}"


def _call(node: Node, arguments: list[str], keywords: dict[str, str]) -> str:
    if node.op == "get_attr":
        return access(_own(str(node.target)))
    given = ", ".join([*arguments, *(f"{key}={value}" for key, value in keywords.items())])
    if node.op == "call_module":
        return f"{access(_own(str(node.target)))}({given})"
    if node.op == "call_method":
        first, *_ = arguments
        rest = ", ".join([*arguments[1:], *(f"{key}={value}" for key, value in keywords.items())])
        return f"{first}.{node.target}({rest})"
    function: Callable[..., Any] = node.target  # type: ignore[assignment]
    if function is getattr:
        return f"{arguments[0]}.{node.args[1]}"
    if function is operator.getitem:
        index = arguments[1]
        return f"{arguments[0]}[{index[1:-1] if isinstance(node.args[1], tuple) and node.args[1] else index}]"
    operation = function.__name__.strip("_")
    if getattr(operator, function.__name__, None) is function and operation in magic_methods:
        return magic_methods[operation].format(*arguments)
    return f"{_public_name(function)}({given})"


def _public_name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", repr(function))
    for path, namespace in _NAMESPACES.items():
        if getattr(namespace, name, None) == function:
            return f"{path}.{name}"
    raise InputError(f"the forward calls {name}, which is no function of torch and cannot be written")


def _expression(value: Any, registers: _Registers) -> str:
    """An argument as source: variables, plain values, and tuples, lists, dictionaries and slices of them."""
    if isinstance(value, Node):
        return registers[value]
    if isinstance(value, slice):
        parts = ["" if part is None else _expression(part, registers) for part in (value.start, value.stop, value.step)]
        return ":".join(parts if parts[2] else parts[:2])
    if isinstance(value, tuple | list):
        inner = ", ".join(_expression(part, registers) for part in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_expression(part, registers)}" for key, part in value.items()) + "}"
    source = literal(value)
    return f"({source})" if source.startswith("-") else source
