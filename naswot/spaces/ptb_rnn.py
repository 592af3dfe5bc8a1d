"""The recurrent space of DARTS: a cell of eight nodes for language models, searched on Penn Treebank.

Paper: Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, arXiv:1806.09055, section 3.1.2. Original code:
github.com/quark0/darts, ``rnn/``. Built is the network that is trained after the search, without the normalisation that
only the supernet has. Differences: those of ``_recurrent_network.py``.

Networks read token ids (N, T) and give the logits (N, K) of the token that follows, so that proxies work that are not
made for images. Scores that count activations see the nodes whose activation is ``relu``, once for each token;
``tanh``, ``sigmoid`` and the gates are counted as not tapped, and an architecture without any ``relu`` cannot be
scored by them.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from naswot.errors import ArchitectureError, OptionError
from naswot.space import InputKind, SearchSpace, register_space
from naswot.spaces._recurrent_network import ACTIVATIONS, N_NODES, Dropouts, LanguageModel, PlannedCell
from naswot.types import Genotype

OPERATIONS: Final = tuple(ACTIVATIONS)
_LENGTH: Final = 35  # tokens that are read at a time
_FIELDS: Final = ("recurrent", "concat")
_CONCAT: Final = tuple(range(1, N_NODES + 1))


@register_space
class PTBRNN(SearchSpace):
    """Genes: of each node its predecessor and its activation.

    The predecessors of node i, from 1, are the first state (0), which the token and the state before make, and the
    nodes before. The output is the mean of all nodes.

    Example:
        >>> PTBRNN().nodes((0, 1, 1, 1, 2, 0, 3, 1, 4, 1, 1, 3, 5, 1, 1, 1))[:3]
        (('relu', 0), ('relu', 1), ('tanh', 2))
    """

    name: ClassVar[str] = "ptb_rnn"
    reference: ClassVar[str] = "Liu et al., ICLR 2019, arXiv:1806.09055"
    choices: tuple[int, ...] = tuple(n for node in range(1, N_NODES + 1) for n in (node, len(OPERATIONS)))
    input_kind: ClassVar[InputKind] = "tokens"

    def build(
        self,
        genotype: Genotype,
        *,
        n_classes: int = 10_000,
        in_channels: int = 3,  # noqa: ARG002  (text has none; every space takes it)
        width: int = 850,
        output_dropout: float = 0.75,
        hidden_dropout: float = 0.25,
        input_dropout: float = 0.75,
        embedding_dropout: float = 0.2,
        word_dropout: float = 0.1,
    ) -> nn.Module:
        """Untrained language model of ``genotype``, initialised from the global generator of torch.

        Published: all defaults.

        Args:
            genotype: the cell.
            n_classes: words of the vocabulary K.
            in_channels: not used.
            width: H of embedding and cell.
            output_dropout: of the cell's output.
            hidden_dropout: of the states in the cell.
            input_dropout: of what the cell reads.
            embedding_dropout: of the embedded tokens.
            word_dropout: of whole words.
        Returns:
            A :class:`~naswot.spaces._recurrent_network.LanguageModel`.
        Raises:
            OptionError: for a vocabulary or width below 1, or probabilities outside [0, 1).
        """
        dropouts = Dropouts(
            output=output_dropout,
            hidden=hidden_dropout,
            input=input_dropout,
            embedding=embedding_dropout,
            word=word_dropout,
        )
        if min(n_classes, width) < 1:
            raise OptionError(f"expected n_classes and width of at least 1, but got {n_classes} and {width}")
        return LanguageModel(PlannedCell(self.nodes(genotype), width, dropouts), n_classes, width, dropouts)

    def example_inputs(
        self,
        n: int,
        *,
        n_classes: int = 10_000,
        in_channels: int = 3,  # noqa: ARG002
        generator: torch.Generator,
    ) -> Tensor:
        """(n, 35) int64 tokens, uniform over the vocabulary."""
        return torch.randint(n_classes, (n, _LENGTH), generator=generator)

    def nodes(self, genotype: Genotype) -> tuple[tuple[str, int], ...]:
        """Activation and predecessor of each node."""
        genes = self.check(genotype)
        return tuple((OPERATIONS[genes[i + 1]], genes[i]) for i in range(0, len(genes), 2))

    def from_nodes(self, nodes: Sequence[Any]) -> Genotype:
        """Genotype of (activation, predecessor) pairs, one for each node in order.

        Raises:
            ArchitectureError: naming the first thing that does not fit.
        """
        if len(nodes) != N_NODES:
            raise ArchitectureError(f"expected {N_NODES} nodes, but got {len(nodes)}")
        genes: list[int] = []
        for number, node in enumerate(nodes, 1):
            if not isinstance(node, tuple | list) or len(node) != 2:
                raise ArchitectureError(f"node {number} is {node!r}; expected (activation, predecessor)")
            name, source = node
            if name not in OPERATIONS:
                raise ArchitectureError(f"node {number} has the activation {name!r}; expected {', '.join(OPERATIONS)}")
            if type(source) is not int or not 0 <= source < number:
                raise ArchitectureError(f"node {number} reads {source!r}; expected a number from 0 to {number - 1}")
            genes += [source, OPERATIONS.index(name)]
        return tuple(genes)

    def canonical(self, genotype: Genotype) -> object:
        """The cell as a tree of activations, in which the order of nodes that read the same one does not count."""
        below: dict[int, list[tuple[str, int]]] = {number: [] for number in range(N_NODES + 1)}
        for number, (name, source) in enumerate(self.nodes(genotype), 1):
            below[source].append((name, number))

        def tree(number: int) -> tuple[Any, ...]:
            return tuple(sorted((name, tree(child)) for name, child in below[number]))

        return tree(0)

    def format(self, genotype: Genotype) -> str:
        """The form of DARTS: ``Genotype(recurrent=[('relu', 0), ...], concat=range(1, 9))``."""
        return f"Genotype(recurrent={list(self.nodes(genotype))}, concat=range(1, {N_NODES + 1}))"

    def parse(self, text: str) -> Genotype:
        """Genotype of the form of DARTS.

        Raises:
            ArchitectureError: naming the first thing that does not fit.
        """
        try:
            call = ast.parse(text.strip(), mode="eval").body
            nodes = _recurrent(call)
        except ArchitectureError:
            raise
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
            raise ArchitectureError(
                f"{text!r} is no architecture of {self.name}; the form is Genotype(recurrent=[('relu', 0), ...], "
                f"concat=range(1, {N_NODES + 1}))"
            ) from error
        return self.from_nodes(nodes)


def _recurrent(call: ast.expr) -> list[Any]:
    """Nodes of a parsed ``Genotype(...)``; a ValueError if it has another form."""
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Genotype"):
        raise ValueError("no Genotype")
    found = {field.arg: field.value for field in call.keywords}
    if call.args or len(call.keywords) != len(_FIELDS) or set(found) != set(_FIELDS):
        raise ArchitectureError(f"expected the fields {', '.join(_FIELDS)}, but got {', '.join(map(str, found))}")
    concat = ast.unparse(found["concat"])
    if concat not in (f"range(1, {N_NODES + 1})", str(list(_CONCAT))):
        raise ArchitectureError(f"concat is {concat}; in this space it is {list(_CONCAT)}")
    nodes = ast.literal_eval(found["recurrent"])
    if not isinstance(nodes, list):
        raise ArchitectureError(f"recurrent is {nodes!r}; expected a list of (activation, predecessor)")
    return nodes
