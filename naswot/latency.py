"""How long a forward pass takes: measured, or looked up block by block.

A latency table holds the milliseconds of every block of a space at every input shape it can meet; the latency of an
architecture is then the sum over its blocks, without building it (Cai et al., ProxylessNAS, ICLR 2019,
arXiv:1812.00332, Section 3.3). The sum leaves out what passes between blocks.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

import torch
from torch import Tensor, nn

from naswot.errors import DataError, OptionError, UnknownNameError
from naswot.evaluate import fresh_model, single_thread
from naswot.preserve import preserve
from naswot.seeding import seeded, torch_generator
from naswot.space import SearchSpace, get_space, list_spaces
from naswot.spaces._chain import Block, Shape
from naswot.store import describe_environment
from naswot.types import Genotype

_FORMAT: Final = 1
_HEADER: Final = ("block", "input_shape", "milliseconds")


class BlockSpace(Protocol):
    """What a search space needs for a latency table."""

    name: Any

    @property
    def blocks(self) -> Callable[..., list[Block]]:
        """``blocks(genotype, **options)``: the chain of an architecture."""

    def covering(self) -> Iterator[Genotype]:
        """Genotypes that together hold every block."""


def measure_latency(
    model: nn.Module,
    input_shape: Sequence[int],
    *,
    batch_size: int = 1,
    repeats: int = 10,
    warm_up: int = 2,
    device: str = "cpu",
) -> float:
    """Milliseconds of one forward pass of ``model``, the median of some; the model goes back as it came.

    In evaluation mode and without a graph. On the CPU it is the time of one torch thread at work, which other programs
    do not lengthen; elsewhere the time elapsed until the device is done.

    Args:
        model: any model of one tensor.
        input_shape: shape of one image, without the batch: (C, H, W).
        batch_size: images in a pass, N.
        repeats: passes that count.
        warm_up: passes before them that do not.
        device: where the pass runs; the model's parameters have to be there.
    Raises:
        OptionError: if a number is out of range.
    """
    if min((batch_size, repeats, warm_up + 1, *input_shape)) < 1:
        raise OptionError(
            "expected batch_size, repeats and every dimension of at least 1 and a warm_up of at least 0, but got "
            f"{batch_size}, {repeats}, {tuple(input_shape)} and {warm_up}"
        )
    images = torch.randn(batch_size, *input_shape, generator=torch_generator(0)).to(device)
    with preserve(model), single_thread(), torch.no_grad():
        model.eval()
        times = [_seconds(model, images) for _ in range(warm_up + repeats)]
    return 1e3 * statistics.median(times[warm_up:])


def _seconds(model: nn.Module, images: Tensor) -> float:
    """Time of one pass: of this thread alone on the CPU, elapsed elsewhere."""
    on_cpu = images.device.type == "cpu"
    clock = time.thread_time if on_cpu else time.perf_counter
    if not on_cpu:
        torch.accelerator.synchronize()
    start = clock()
    model(images)
    if not on_cpu:
        torch.accelerator.synchronize()
    return clock() - start


@dataclass(frozen=True)
class ModelLatency:
    """Milliseconds of an architecture by a measurement of its built network; see :func:`measure_latency`.

    Args:
        space: the search space.
        input_shape: of one image, (C, H, W).
        build: keyword options of ``space.build``.
        device: where it runs.
    """

    space: SearchSpace
    input_shape: tuple[int, ...]
    build: Mapping[str, Any]
    device: str = "cpu"

    def __call__(self, genotype: Genotype) -> float:
        """One measurement; the next one will differ a little."""
        model = fresh_model(self.space, genotype, self.build, seed=0).to(self.device)
        return measure_latency(model, self.input_shape, device=self.device)


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of the blocks of a space, and where they were measured.

    Args:
        space: the search space that lists its blocks.
        options: of ``space.blocks``: size of the images, stem and so on.
        milliseconds: of each block by its name and input shape.
        about: batch size, device and environment of the measurement, as JSON-able values.
    Example:
        >>> table = LatencyTable.measure(get_space("macro_chain"), [(0,) * 16], input_size=8, repeats=1)
        >>> table.latency((0,) * 16) == sum(table.milliseconds.values())
        True
    """

    space: BlockSpace
    options: Mapping[str, Any]
    milliseconds: Mapping[tuple[str, Shape], float]
    about: Mapping[str, Any]

    @classmethod
    def measure(
        cls,
        space: BlockSpace,
        genotypes: Iterable[Genotype] | None = None,
        *,
        batch_size: int = 1,
        repeats: int = 10,
        device: str = "cpu",
        **options: Any,
    ) -> LatencyTable:
        """Measure the blocks of some architectures on this machine, each different one once.

        Args:
            space: a space that can list its blocks, such as ``mobilenet``.
            genotypes: whose blocks are measured; None: all of the space.
            batch_size: images in a pass, N.
            repeats: passes of each block that count; two more come first.
            device: where it runs.
            options: of ``space.blocks``, such as ``input_size``.
        """
        chosen = space.covering() if genotypes is None else genotypes
        found = {block.key: block for genotype in chosen for block in space.blocks(genotype, **options)}
        times = {}
        for key, block in found.items():
            with seeded(0):
                module = block.build().to(device)
            times[key] = measure_latency(
                module, block.input_shape, batch_size=batch_size, repeats=repeats, device=device
            )
        with single_thread():
            about = {"batch_size": batch_size, "repeats": repeats, **describe_environment(device)}
        return cls(space, options, times, about)

    def latency(self, genotype: Genotype) -> float:
        """Milliseconds of an architecture: the sum over its blocks.

        Raises:
            UnknownNameError: naming a block that was not measured.
        """
        return sum(self._time(block) for block in self.space.blocks(genotype, **self.options))

    def _time(self, block: Block) -> float:
        if block.key not in self.milliseconds:
            raise UnknownNameError(
                f"the latency table of {self.space.name} has no block {block.name!r} for inputs of shape "
                f"{_shape_text(block.input_shape)}; measure the table with the genotypes that you look up, "
                "or with none given for all blocks of the space"
            )
        return self.milliseconds[block.key]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write comment lines with the provenance and plain CSV; the file appears whole or not at all.

        Raises:
            DataError: if it cannot be written.
        """
        text = io.StringIO()
        about = {"format": _FORMAT, "space": self.space.name, "options": dict(self.options), **self.about}
        text.writelines(f"# {key}: {json.dumps(value)}\n" for key, value in about.items())
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_HEADER)
        for (name, shape), value in self.milliseconds.items():
            writer.writerow((name, _shape_text(shape), repr(value)))
        target = Path(path)
        part = target.with_name(f"{target.name}.part")
        try:
            part.write_text(text.getvalue())
            part.replace(target)
        except OSError as error:
            raise DataError(f"cannot write {target}: {error.strerror or error}; choose another folder") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str], space: BlockSpace | None = None) -> LatencyTable:
        """The table in a file of :meth:`save`.

        Args:
            path: the file.
            space: the space it was measured for; None: the registered one of that name.
        Raises:
            DataError: if the file is missing or damaged, with the line, or belongs to another space.
        """
        try:
            lines = Path(path).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {path}: {error}; expected a file of LatencyTable.save") from error
        comments = [line for line in lines if line.startswith("# ")]
        about = _about(path, comments)
        header, *rows = lines[len(comments) :] or [""]
        if header != ",".join(_HEADER) or not rows:
            raise DataError(f"{path} has the header {header!r} and {len(rows)} rows; expected {','.join(_HEADER)!r}")
        numbered = enumerate(csv.reader(rows), len(comments) + 2)
        times = dict(_row(path, number, row) for number, row in numbered)
        if len(times) < len(rows):
            raise DataError(f"{path} lists a block twice: {len(rows)} rows hold {len(times)} blocks")
        return cls(_space_of(path, about.pop("space"), space), about.pop("options"), times, about)


def _space_of(path: str | os.PathLike[str], name: object, space: BlockSpace | None) -> BlockSpace:
    """The space given, or else the registered one, if it has that name and lists its blocks."""
    chosen: Any = space or (get_space(str(name)) if name in list_spaces() else None)
    if getattr(chosen, "name", None) != name or not hasattr(chosen, "blocks"):
        raise DataError(f"{path} was measured for the space {name!r}; give that one, which lists its blocks")
    return cast(BlockSpace, chosen)


def _shape_text(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _about(path: str | os.PathLike[str], comments: Sequence[str]) -> dict[str, Any]:
    """The comment lines as a dictionary with at least a space and its options."""
    try:
        about = {key: json.loads(value) for key, value in (line[2:].split(": ", 1) for line in comments)}
    except ValueError as error:
        raise DataError(f"{path} has a damaged comment line ({error}); expected lines '# key: JSON value'") from error
    if about.pop("format", None) != _FORMAT or not isinstance(about.get("options"), dict) or "space" not in about:
        raise DataError(f"{path} does not begin with format {_FORMAT}, space and options; measure the table again")
    return about


def _row(path: str | os.PathLike[str], number: int, row: Sequence[str]) -> tuple[tuple[str, Shape], float]:
    """One block and its milliseconds."""
    fits = len(row) == len(_HEADER) and row[0] and re.fullmatch(r"\d+(x\d+)*", row[1], re.ASCII)
    if not fits or not re.fullmatch(r"\d+(\.\d+)?(e-?\d+)?", row[2], re.ASCII):
        raise DataError(f"line {number} of {path} is {','.join(row)!r}; expected a block, a shape and milliseconds")
    return (row[0], tuple(map(int, row[1].split("x")))), float(row[2])
