"""Scores of the architectures of a space: what is computed, on which batch, from which seeds."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import nn

from naswot.errors import ModelError, NaswotError, OptionError
from naswot.measuring import Measurement, run_proxies
from naswot.options import PassOptions
from naswot.proxy import Proxy, get_proxy
from naswot.seeding import derive_seed, in_turn, numpy_generator, seeded, torch_generator
from naswot.space import SearchSpace
from naswot.types import Batch, Evaluation, Genotype
from naswot.workers import results_of

if TYPE_CHECKING:
    from naswot.searcher import Trial

_CHUNK = 4  # architectures a worker takes at a time

Job = tuple[Genotype, int]
"""A genotype and the number of its repeat."""


class Images(Protocol):
    """A source of batches, such as :class:`naswot.data.images.ImageSet`."""

    def batch(self, n: int, *, generator: torch.Generator) -> Batch:
        """Draw N images from ``generator``."""
        ...


class Store(Protocol):
    """Where evaluations are kept, such as :class:`naswot.store.ResultStore`."""

    def get(self, arch: str, seed: int, repeat: int = 0) -> Evaluation | None:
        """The evaluation under that key, if there is one."""
        ...

    def append(self, evaluation: Evaluation) -> None:
        """Keep one evaluation."""
        ...


@contextmanager
def single_thread() -> Iterator[None]:
    """Run torch on one thread, so that sums are formed in the same order wherever the block runs.

    The number of threads is the whole process's: where several threads come here, they take turns.
    """
    with in_turn():
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def batch_digest(batch: Batch) -> str:
    """Digest of the images and labels of a batch, to tell in a store which images were scored."""
    digest = blake2b(digest_size=8)
    for tensor in [*batch.tensors(), *([] if batch.targets is None else [batch.targets])]:
        digest.update(repr((tuple(tensor.shape), str(tensor.dtype))).encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fresh_model(
    space: SearchSpace, genotype: Genotype, build: Mapping[str, Any], *, seed: int, repeat: int = 0
) -> nn.Module:
    """The untrained network of an architecture, initialised from (seed, architecture, repeat).

    Raises:
        ModelError: if it cannot be built.
    """
    make: Callable[..., nn.Module] = space.build
    with seeded(derive_seed(seed, space.format(genotype), repeat)):
        try:
            return make(genotype, **build)
        except NaswotError:
            raise
        except Exception as error:  # whatever a space does, it is this architecture that fails
            raise ModelError(f"{space.format(genotype)} cannot be built: {type(error).__name__}: {error}") from error


def check_build(space: SearchSpace, build: Mapping[str, Any]) -> None:
    """Refuse options of ``space.build`` that it does not have, or with which it cannot build.

    Raises:
        OptionError: naming the option, or what the space says.
    """
    offered = inspect.signature(space.build).parameters
    for option in build:
        if option not in offered:
            known = ", ".join(list(offered)[1:])
            raise OptionError(f"space {space.name!r} has no build option {option!r}; it offers {known}")
    try:
        fresh_model(space, space.sample(numpy_generator(0)), build, seed=0)
    except ModelError as error:
        raise OptionError(f"{space.name} cannot be built with {dict(build)}: {error.__cause__}") from error


def check_kind(space: SearchSpace, batch: Batch) -> None:
    """Refuse a batch of another kind than the networks of a space read.

    Raises:
        OptionError: for images where tokens are read, or the other way round.
    """
    kind = "images" if any(t.is_floating_point() or t.dim() > 2 for t in batch.tensors()) else "tokens"
    if kind != space.input_kind:
        other = "text, such as naswot.data.text.get_corpus gives" if kind == "images" else "images"
        raise OptionError(
            f"networks of {space.name} read {space.input_kind}, but these inputs are {kind}: take another space, or "
            f"{other}"
        )


@dataclass(frozen=True)
class Evaluator:
    """Scores architectures of one space by some proxies; picklable, so that any executor can run it.

    The batch derives from ``(seed, repeat)`` and is shared by all architectures; the initialisation derives from
    ``(seed, architecture, repeat)``. So neither order nor number of workers changes a number.

    Args:
        space: the search space.
        images: where batches are drawn from.
        proxies: names or proxies with options bound.
        batch_size: N.
        seed: the run's seed.
        device: where models are scored; they are built on the CPU.
        options: how passes are run.
        build: keyword options of ``space.build``, such as ``{"width": 8}``.
        pruned: score the network without branches that reach nothing, once for each class of equal ones.
    """

    space: SearchSpace
    images: Images
    proxies: tuple[str | Proxy, ...] = ("naswot", "params", "flops")
    batch_size: int = 64
    seed: int = 0
    device: str = "cpu"
    options: PassOptions = field(default_factory=PassOptions)
    build: Mapping[str, Any] = field(default_factory=dict)
    pruned: bool = False
    _batches: dict[int, Batch] = field(default_factory=dict, repr=False, compare=False)

    epochs: ClassVar[None] = None  # nothing is trained; see naswot.evaluators.TrialEvaluator
    stages: ClassVar[tuple[str, ...]] = ("build", "score")
    by_epochs: ClassVar[tuple[str, ...]] = ()
    inherits: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise OptionError(f"expected a batch of at least 1 image, but got batch_size={self.batch_size}")
        if not self.proxies:
            raise OptionError("expected at least one proxy, but got none")
        for proxy in self.proxies:  # a misspelt name is refused before the first architecture too
            if isinstance(proxy, str):
                get_proxy(proxy)
        check_build(self.space, self._building)
        check_kind(self.space, self.batch(0))

    @property
    def _building(self) -> dict[str, Any]:
        return {**self.build, "pruned": True} if self.pruned else dict(self.build)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the proxies, in order."""
        return tuple(proxy if isinstance(proxy, str) else proxy.name for proxy in self.proxies)

    def batch(self, repeat: int = 0) -> Batch:
        """The batch of a repeat, drawn from (seed, repeat)."""
        if repeat not in self._batches:
            generator = torch_generator(derive_seed(self.seed, "batch", repeat))
            self._batches[repeat] = self.images.batch(self.batch_size, generator=generator)
        return self._batches[repeat]

    def model(self, genotype: Genotype, repeat: int = 0) -> nn.Module:
        """The untrained network of an architecture, initialised from (seed, architecture, repeat)."""
        scored = self.scored(genotype)
        model = fresh_model(self.space, scored, self._building, seed=self.seed, repeat=repeat)
        return model.to(self.device)

    def scored(self, genotype: Genotype) -> Genotype:
        """The architecture that is scored in the place of this one: itself, or the one that stands for its class."""
        return self.space.representative(genotype) if self.pruned else genotype

    def __call__(self, genotype: Genotype, repeat: int = 0) -> Evaluation:
        """Evaluate one architecture; a failure of the model is kept in ``error``, not raised."""
        genotype = self.space.check(genotype)
        start = time.perf_counter()
        arch = self.space.format(genotype)
        result: Measurement | None = None
        error = None
        built = start
        try:
            with single_thread():
                model = self.model(genotype, repeat)
                built = time.perf_counter()
                chosen = [get_proxy(proxy) if isinstance(proxy, str) else proxy for proxy in self.proxies]
                seed = derive_seed(self.seed, self.space.format(self.scored(genotype)), repeat, "pass")
                result = run_proxies(model, self.batch(repeat), chosen, seed=seed, options=self.options)
        except NaswotError as raised:
            error = f"{type(raised).__name__}: {raised}"
        seconds = {"build": built - start, "score": time.perf_counter() - built}
        scores = {} if result is None else result.scores
        reasons = {} if result is None else result.reasons
        return Evaluation(genotype, arch, scores, seconds, self.seed, repeat, reasons, error)

    def evaluate(self, trial: Trial) -> Evaluation:
        """The first repeat of a search's trial."""
        return self(trial.genotype)

    def map(
        self,
        genotypes: Iterable[Genotype],
        *,
        repeats: int = 1,
        executor: Executor | None = None,
        store: Store | None = None,
    ) -> Iterator[Evaluation]:
        """Evaluate many architectures, each ``repeats`` times, in the order in which they finish.

        Args:
            genotypes: the architectures; duplicates are evaluated once.
            repeats: repetitions with another batch and another initialisation.
            executor: runs the evaluations, such as that of :func:`naswot.workers.worker_pool`; None: this process.
            store: known scores come from it, and only the others are worked out; these go to it at once. What failed is
                tried again.
        """
        jobs = [(self.space.check(g), repeat) for g in dict.fromkeys(genotypes) for repeat in range(repeats)]
        lacking: dict[tuple[str, ...], list[Job]] = {}  # scores that are not known -> of which jobs
        for job in jobs:
            known = None if store is None else store.get(self.space.format(job[0]), self.seed, job[1])
            scores = {} if known is None or known.error is not None else known.scores
            unknown = tuple(name for name in self.names if name not in scores)
            if known is not None and not unknown:
                yield known
            else:
                lacking.setdefault(unknown, []).append(job)
        for unknown, of_jobs in lacking.items():
            proxies = tuple(p for p, name in zip(self.proxies, self.names, strict=True) if name in unknown)
            for answer in replace(self, proxies=proxies)._answers(of_jobs, executor):
                if store is not None:
                    store.append(answer)
                if store is None or answer.error is not None:
                    yield answer
                else:
                    yield store.get(answer.arch, answer.seed, answer.repeat) or answer  # with what was known before

    def portable(self, repeats: Iterable[int] = (0,)) -> Evaluator:
        """The same for other processes, which get the batches of these repeats and not the whole data set."""
        for repeat in repeats:
            self.batch(repeat)
        return replace(self, images=_AllDrawn())

    def _answers(self, jobs: Sequence[Job], executor: Executor | None) -> Iterator[Evaluation]:
        """Evaluations of all jobs, those of equal networks worked out once."""
        waiting: dict[Job, list[Genotype]] = {}  # the job that is computed -> the genotypes it answers
        for genotype, repeat in jobs:
            waiting.setdefault((self.scored(genotype), repeat), []).append(genotype)
        for done in self._run(list(waiting), executor):
            for genotype in waiting[done.genotype, done.repeat]:
                yield replace(done, genotype=genotype, arch=self.space.format(genotype))

    def _run(self, jobs: Sequence[Job], executor: Executor | None) -> Iterator[Evaluation]:
        if executor is None:
            for genotype, repeat in jobs:
                yield self(genotype, repeat)
            return
        portable = self.portable({job[1] for job in jobs})
        chunks = [jobs[i : i + _CHUNK] for i in range(0, len(jobs), _CHUNK)]
        for answers in results_of(executor, evaluate_chunk, ((portable, chunk) for chunk in chunks)):
            yield from answers

    def describe(self) -> dict[str, object]:
        """Everything that determines the numbers, for a store to compare."""
        bound = {p.name: dict(p.options) for p in self.proxies if not isinstance(p, str) and p.options}
        return {
            "space": self.space.name,
            "build": dict(self.build),
            "images": getattr(self.images, "name", type(self.images).__name__),
            "batch_size": self.batch_size,
            "batch_digest": batch_digest(self.batch(0)),
            "seed": self.seed,
            "taps": self.options.taps,
            "mode": self.options.mode,
            "channels_last": self.options.channels_last,
            "bfloat16": self.options.bfloat16,
            "pruned": self.pruned,
            **({"proxy_options": bound} if bound else {}),
        }


class _AllDrawn:
    """Stands for images of which every needed batch is drawn already."""

    def batch(self, n: int, *, generator: torch.Generator) -> Batch:
        raise AssertionError(f"a batch of {n} was not drawn before the evaluator left for a worker ({generator})")


def evaluate_chunk(evaluator: Evaluator, jobs: Sequence[Job]) -> list[Evaluation]:
    """What a worker runs: some evaluations one after the other."""
    return [evaluator(genotype, repeat) for genotype, repeat in jobs]
