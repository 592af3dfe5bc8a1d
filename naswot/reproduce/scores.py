"""Scores of the architectures of a benchmark: from a file that has them, or worked out for a sample."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from naswot.benchmark import Benchmark
from naswot.errors import DataError, NaswotError
from naswot.evaluate import Evaluator
from naswot.reproduce.setting import Setting
from naswot.types import Evaluation, Genotype

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """NASWOT of some architectures of a benchmark.

    Args:
        rows: (n,) which, by their place in the benchmark.
        naswot: (n,) nats; -inf where the kernel is singular.
        seconds: (n,) building and scoring one network, wall clock of one worker.
        source: where they come from.
    """

    rows: Rows
    naswot: Floats
    seconds: Floats
    source: str

    def covers(self, benchmark: Benchmark) -> bool:
        """Whether every architecture of the benchmark is scored."""
        return len(np.unique(self.rows)) == len(benchmark)


def file_of(setting: Setting, benchmark: str) -> Path | None:
    """The file with scores of a whole space, if there is one."""
    paths = (setting.scores / f"{benchmark}_naswot.csv{ending}" for ending in (".gz", ""))
    return next((path for path in paths if path.is_file()), None)


def read_scores(path: Path, benchmark: Benchmark) -> Scores:
    """Scores from a CSV file, plain or gzipped, with columns ``arch``, ``naswot`` and ``seconds``.

    Lines before the header that begin with ``#`` are skipped.

    Raises:
        DataError: if the file is damaged, lacks a column, or scores an architecture twice or one not in the benchmark.
    """
    places = {genotype: place for place, genotype in enumerate(benchmark.genotypes())}
    rows: dict[int, tuple[float, float]] = {}
    try:
        for line in csv.DictReader(_lines(path)):
            place = places.get(benchmark.space.parse(line["arch"]))
            if place is None or place in rows:
                why = f"is not in {benchmark.name}" if place is None else "occurs twice"
                raise DataError(f"{path}: {line['arch']} {why}")
            rows[place] = float(line["naswot"]), float(line["seconds"])
    except DataError:
        raise
    except KeyError as error:
        raise DataError(f"{path} has no column {error}; expected arch, naswot and seconds") from error
    except (OSError, EOFError, UnicodeDecodeError, ValueError, csv.Error, NaswotError) as error:
        raise DataError(f"{path} is no sound table of scores: {error}") from error
    numbers = np.array(list(rows.values()), dtype=np.float64).reshape(-1, 2)
    if np.isnan(numbers).any():
        raise DataError(f"{path} holds NaN; a network without a score is -inf")
    return Scores(np.array(list(rows), dtype=np.int64), numbers[:, 0], numbers[:, 1], path.name)


def _lines(path: Path) -> Iterator[str]:
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    return (line for line in io.StringIO(text.decode("utf-8"), newline="") if not line.startswith("#"))


def sample_scores(setting: Setting, benchmark: Benchmark, places: Rows, evaluator: Evaluator) -> Scores:
    """Scores worked out here, of the architectures at those places; what could not be scored is left out.

    Raises:
        DataError: if nothing could be scored.
    """
    genotypes = list(benchmark.genotypes())
    chosen = {genotypes[place]: int(place) for place in places}
    done = list(evaluate(setting, evaluator, list(chosen), name="sample").values())
    good = [(chosen[e.genotype], e.scores["naswot"], sum(e.seconds.values())) for e in done if e.error is None]
    if not good:
        raise DataError(f"none of {len(chosen)} networks of {benchmark.name} could be scored: {done[0].error}")
    table = np.array(sorted(good), dtype=np.float64).reshape(-1, 3)
    images = getattr(evaluator.images, "name", "images")
    source = f"{len(table):,} scored here on {evaluator.batch_size} images of {images}"
    return Scores(table[:, 0].astype(np.int64), table[:, 1], table[:, 2], source)


def evaluate(
    setting: Setting, evaluator: Evaluator, genotypes: list[Genotype], *, name: str, repeats: int = 1
) -> dict[tuple[Genotype, int], Evaluation]:
    """Evaluations by genotype and repeat; known ones come from the store, in a section of this evaluator's own."""
    store = setting.section(name, evaluator)
    found = evaluator.map(genotypes, repeats=repeats, executor=setting.executor, store=store)
    return {(evaluation.genotype, evaluation.repeat): evaluation for evaluation in found}
