"""What a small random graph of layers depends on, by the book: marks from both ends, and every chain walked by itself.

A graph has vertices 0 (the input) to n (the output); an edge is (source, target, kind) with kind ``layer``, ``skip`` or
``zero`` (multiplied by zero). A vertex is the sum of its edges; one that none reaches is zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

Edge = tuple[int, int, str]
WIDTH = 4


class Told(NamedTuple):
    """Numbers of the edges that are live, and the lengths of all chains."""

    live: frozenset[int]
    lengths: tuple[int, ...]


class Sum(nn.Module):
    """The module of a graph with a linear head; every layer is activation, linear layer and batch norm."""

    def __init__(self, n: int, edges: Sequence[Edge]) -> None:
        super().__init__()
        self.n, self.edges = n, edges
        self.layers = nn.ModuleDict(
            {
                str(i): nn.Sequential(nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH))
                for i, (_, _, kind) in enumerate(edges)
                if kind == "layer"
            }
        )
        self.head = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(N, WIDTH) in and out."""
        vertices = [x]
        for vertex in range(1, self.n + 1):
            total = torch.zeros_like(x)
            for i, (source, target, kind) in enumerate(self.edges):
                if target == vertex:
                    value = vertices[source] * 0 if kind == "zero" else vertices[source]
                    total = total + (self.layers[str(i)](value) if kind == "layer" else value)
            vertices.append(total)
        logits: Tensor = self.head(vertices[-1])
        return logits


def random_graph(rng: np.random.Generator, n: int = 4) -> list[Edge]:
    """Each edge is there with probability 2/3, of a kind drawn uniformly."""
    kinds = ("layer", "layer", "skip", "zero")
    pairs = [(a, b) for b in range(1, n + 1) for a in range(b) if rng.random() < 2 / 3]
    return [(a, b, kinds[int(rng.integers(len(kinds)))]) for a, b in pairs]


def told_by_the_book(n: int, edges: Sequence[Edge]) -> Told:
    """Live edges lie on a path from 0 to n without a zero; chains are all such paths."""
    paths: list[tuple[int, ...]] = []

    def walk(vertex: int, path: tuple[int, ...]) -> None:
        if vertex == n:
            paths.append(path)
        for i, (source, target, kind) in enumerate(edges):
            if source == vertex and kind != "zero":
                walk(target, (*path, i))

    walk(0, ())
    lengths = tuple(sum(edges[i][2] == "layer" for i in path) for path in paths)
    return Told(frozenset(i for path in paths for i in path), lengths)
