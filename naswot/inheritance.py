"""A child starts from its parent's weights where the two agree, as in evolution with weight inheritance.

Paper: Real et al., Large-Scale Evolution of Image Classifiers, ICML 2017, arXiv:1703.01041, Section 3: the child
inherits the weights of all layers whose shapes match. The code was not published.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from naswot.errors import InputError


def inherit_weights(
    child: nn.Module, parent_state: Mapping[str, Tensor], mapping: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Copy the parent's tensors into those of the child that have the same name and shape.

    Parameters and buffers, so that normalisation goes on from the parent's statistics. All other tensors of the child
    stay as they are.

    Args:
        child: a built model; changed in place.
        parent_state: ``state_dict`` of the parent.
        mapping: layers that have another name in the parent: prefix in the child to prefix in the parent, such as
            ``{"vertices.v3": "vertices.v2"}``. Layers that are not named keep their name.
    Returns:
        The names in the child of the tensors copied, in their order.
    Raises:
        InputError: if the mapping names a layer that the child or the parent lacks.
    Example:
        >>> parent, child = nn.Linear(4, 3), nn.Linear(5, 3)
        >>> inherit_weights(child, parent.state_dict())
        ('bias',)
    """
    renamed = dict(mapping or {})
    own = child.state_dict()
    _check(renamed.keys(), own, "child")
    _check(renamed.values(), parent_state, "parent")
    copied = []
    with torch.no_grad():
        for name, tensor in own.items():
            source = parent_state.get(_source(name, renamed))
            if source is not None and source.shape == tensor.shape:
                tensor.copy_(source)
                copied.append(name)
    return tuple(copied)


def _source(name: str, renamed: Mapping[str, str]) -> str:
    """Name in the parent: the longest prefix of whole layers that was renamed counts."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in renamed:
            return ".".join([renamed[prefix], *parts[length:]])
    return name


def _check(prefixes: Iterable[str], state: Mapping[str, Tensor], whose: str) -> None:
    for prefix in prefixes:
        if not any(name == prefix or name.startswith(f"{prefix}.") for name in state):
            raise InputError(f"the {whose} has no layer {prefix!r}; its tensors are {', '.join(list(state)[:8])}, ...")
