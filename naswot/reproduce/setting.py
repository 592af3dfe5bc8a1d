"""How a reproduction is run: where data lie, how large it is, where results are kept."""

from __future__ import annotations

import dataclasses
import inspect
from concurrent.futures import Executor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import torch

from naswot._store_sqlite import canonical_json
from naswot.benchmark import Benchmark, get_benchmark
from naswot.data import ImageSet, get_data
from naswot.evaluate import Evaluator, Images, Store
from naswot.options import fast_options, options_from
from naswot.seeding import torch_generator
from naswot.space import SearchSpace
from naswot.types import Batch, Evaluation

Value = TypeVar("Value")

_SMALL = {"width": 6, "n_cells": 1}


@dataclass(frozen=True)
class Setting:
    """What all items of a reproduction share.

    Args:
        out: the run folder.
        store: keeps every score, so that an interrupted run goes on.
        data_root: folder with images and benchmarks; None: that of NASWOT_DATA.
        scores: folder with known scores of whole spaces, ``<benchmark>_naswot.csv.gz``.
        quick: few small networks on the embedded digits.
        seed: everything random derives from it.
        executor: runs evaluations; None: this process.
    """

    out: Path
    store: Store
    data_root: str | None = None
    scores: Path = Path("results")
    quick: bool = False
    seed: int = 0
    executor: Executor | None = None

    def pick(self, full: Value, quick: Value) -> Value:
        """The first in a full run, the second in a quick one."""
        return quick if self.quick else full

    def images(self, name: str, *, size: int | None = None) -> ImageSet:
        """The data set of that name; in a quick run the digits whatever the name."""
        if self.quick:
            return get_data("digits", size=8 if size is None else min(size, 8))
        return get_data(name, root=self.data_root, size=size)

    def benchmark(self, name: str) -> Benchmark:
        """The benchmark of that name.

        Raises:
            DataError: if its files are not at hand.
        """
        return get_benchmark(name, self.data_root)

    def evaluator(
        self,
        space: SearchSpace,
        images: Images,
        *,
        like: ImageSet,
        batch_size: int,
        build: dict[str, int] | None = None,
    ) -> Evaluator:
        """NASWOT by its fast options, on networks of published size or, in a quick run, on small ones.

        Args:
            space: the search space.
            images: where batches are drawn from.
            like: images of the same shape and number of classes, for which networks are built.
            batch_size: N.
            build: options of the networks of a full run, such as ``{"width": 8}``.
        """
        return Evaluator(
            space,
            images,
            ("naswot",),
            batch_size=batch_size,
            seed=self.seed,
            options=options_from(**fast_options("cpu")),
            build={
                "n_classes": like.n_classes,
                "in_channels": like.shape[0],
                **(small_build(space) if self.quick else build or {}),
            },
        )

    def section(self, name: str, evaluator: Evaluator) -> Section:
        """Where the scores of this evaluator are kept."""
        digest = blake2b(canonical_json(evaluator.describe()).encode(), digest_size=4).hexdigest()
        return Section(self.store, f"{name}-{digest}")


def small_build(space: SearchSpace) -> dict[str, int]:
    """Options of ``space.build`` that make its networks small; empty if it has none of them."""
    offered = inspect.signature(space.build).parameters
    return {option: value for option, value in _SMALL.items() if option in offered}


@dataclass(frozen=True)
class Section:
    """A part of a store under a name of its own: scores of one evaluator never meet those of another.

    Args:
        store: what keeps the evaluations of all sections.
        name: put before the names of scores and stages, with a slash between.
    """

    store: Store
    name: str

    def get(self, arch: str, seed: int, repeat: int = 0) -> Evaluation | None:
        """The scores of this section under that key, if there are any."""
        known = self.store.get(arch, seed, repeat)
        if known is None:
            return None
        parts = {
            part: {n.removeprefix(f"{self.name}/"): v for n, v in values.items() if n.startswith(f"{self.name}/")}
            for part, values in (("scores", known.scores), ("seconds", known.seconds), ("reasons", known.reasons))
        }
        return dataclasses.replace(known, error=None, **parts) if parts["scores"] else None  # type: ignore[arg-type]

    def append(self, evaluation: Evaluation) -> None:
        """Keep one evaluation in this section."""
        parts = {
            part: {f"{self.name}/{name}": value for name, value in values.items()}
            for part, values in (
                ("scores", evaluation.scores),
                ("seconds", evaluation.seconds),
                ("reasons", evaluation.reasons),
            )
        }
        self.store.append(dataclasses.replace(evaluation, **parts))  # type: ignore[arg-type]


@dataclass(frozen=True)
class SameBatch:
    """Gives batches drawn from one seed, whatever generator it is handed.

    Args:
        images: where they are drawn from.
        seed: of the draw.
    """

    images: ImageSet
    seed: int

    def batch(self, n: int, *, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """The first draw of ``n`` images."""
        return self.images.batch(n, generator=torch_generator(self.seed))


@dataclass(frozen=True)
class NoiseBatch:
    """Standard normal numbers in the place of images.

    Args:
        shape: (C, H, W) of one image.
        seed: of the draw.
    """

    shape: tuple[int, int, int]
    seed: int

    def batch(self, n: int, *, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """``n`` images of noise, (N, C, H, W) float32."""
        return Batch(torch.randn(n, *self.shape, generator=torch_generator(self.seed)))
