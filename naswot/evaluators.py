"""What a search asks for the worth of an architecture: an aggregate, a supernet, anyone's function, a mixture.

Three more stand elsewhere: scores of untrained networks (:class:`naswot.evaluate.Evaluator`), tables
(:class:`naswot.table_evaluator.TableEvaluator`) and real training
(:class:`naswot.training.evaluator.TrainingEvaluator`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import replace
from itertools import islice
from typing import Any, Final, Literal, Protocol

from torch import nn

from naswot.data.images import ImageSet
from naswot.errors import NaswotError, OptionError
from naswot.evaluate import Evaluator, batch_digest, fresh_model
from naswot.proxy import get_proxy
from naswot.ranking import aggregate_scores, get_aggregate
from naswot.run import sample_distinct
from naswot.searcher import Trial
from naswot.space import SearchSpace
from naswot.supernet import Supernet
from naswot.types import Batch, Evaluation, Genotype

_RECALIBRATION_BATCH: Final = 128  # as in SPOS


class TrialEvaluator(Protocol):
    """Evaluates the trials of a search; picklable where it is to run in other processes.

    ``epochs`` is how long a trial trains that does not say so itself (None: nothing is trained); ``names`` are the
    scores it gives and ``stages`` those of its seconds; ``by_epochs`` are those among both that depend on the epochs;
    ``inherits`` tells whether a trial begins with the trained weights of its parent.
    """

    @property
    def space(self) -> SearchSpace: ...  # noqa: D102

    @property
    def seed(self) -> int: ...  # noqa: D102

    @property
    def epochs(self) -> int | None: ...  # noqa: D102

    @property
    def names(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def stages(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def by_epochs(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def inherits(self) -> bool: ...  # noqa: D102

    def evaluate(self, trial: Trial) -> Evaluation:
        """Scores, and seconds by stage; what fails is told in ``error``, or in ``reasons`` for single scores."""
        ...

    def describe(self) -> dict[str, object]:
        """Everything that determines the numbers, for a store to compare."""
        ...


def portable(evaluator: TrialEvaluator) -> TrialEvaluator:
    """The same evaluator as it goes to other processes, with what they need to know worked out and no more."""
    make: Callable[[], TrialEvaluator] | None = getattr(evaluator, "portable", None)
    return evaluator if make is None else make()


class CallableEvaluator:
    """Anyone's function as an evaluator; what it raises is kept as the error of the trial.

    A function that draws random numbers has to see to its seeds itself.

    Args:
        space: the search space.
        function: gives a number, higher is better, or a mapping of names to numbers.
        takes: what the function is called with: the genotype, the architecture string, or the untrained model, which
            is initialised from ``(seed, architecture)``.
        names: scores that the function gives; a single number has the first of these names.
        build: keyword options of ``space.build``, for models.
        seed: of everything random.
        about: what determines the numbers, for a store to compare.
    """

    epochs = None
    stages = ("function",)
    by_epochs: tuple[str, ...] = ()
    inherits = False

    def __init__(
        self,
        space: SearchSpace,
        function: Callable[[Any], float | Mapping[str, float]],
        *,
        takes: Literal["genotype", "arch", "model"] = "genotype",
        names: Sequence[str] = ("value",),
        build: Mapping[str, Any] | None = None,
        seed: int = 0,
        about: Mapping[str, object] | None = None,
    ) -> None:
        if takes not in ("genotype", "arch", "model"):
            raise OptionError(f"expected takes to be genotype, arch or model, but got {takes!r}")
        self.space, self.seed, self.names, self._function, self._takes = space, seed, tuple(names), function, takes
        self._build, self._about = dict(build or {}), dict(about or {})

    def evaluate(self, trial: Trial) -> Evaluation:
        """The function's numbers."""
        genotype, arch = trial.genotype, self.space.format(trial.genotype)
        start = time.perf_counter()
        scores: dict[str, float] = {}
        reasons: dict[str, str] = {}
        error = None
        try:
            result = self._function(self._given(genotype, arch))
            found = dict(result) if isinstance(result, Mapping) else {self.names[0]: result}
            scores = {name: float(found[name]) for name in self.names if not math.isnan(found[name])}
            reasons = {name: "it is not a number (NaN)" for name in self.names if name not in scores}
        except Exception as raised:  # whatever a stranger's function does, the search goes on
            error = f"{type(raised).__name__}: {raised}"
        seconds = {"function": time.perf_counter() - start}
        return Evaluation(genotype, arch, scores, seconds, self.seed, reasons=reasons, error=error)

    def _given(self, genotype: Genotype, arch: str) -> object:
        if self._takes == "genotype":
            return genotype
        return arch if self._takes == "arch" else fresh_model(self.space, genotype, self._build, seed=self.seed)

    def describe(self) -> dict[str, object]:
        """Name of the function, and what was told about it."""
        name = getattr(self._function, "__qualname__", type(self._function).__name__)
        return {"space": self.space.name, "function": name, "seed": self.seed, **self._about}


class AggregateEvaluator:
    """The aggregate score of an architecture among a fixed random reference set of the space.

    Scores of two architectures can be compared, as both were ranked in the same company. What scoring the reference set
    takes is charged to no trial.

    Args:
        evaluator: scores the networks; its proxies are replaced by the aggregate's components.
        aggregate: a name, see ``naswot list aggregates``; it is also the name of the score.
        reference: size of the reference set, drawn from the evaluator's seed and scored when first needed.
        proxies: components in the place of the aggregate's own.
    """

    epochs = None
    stages = ("build", "score")
    by_epochs: tuple[str, ...] = ()
    inherits = False

    def __init__(
        self,
        evaluator: Evaluator,
        aggregate: str = "az_nas",
        *,
        reference: int = 100,
        proxies: Sequence[str] | None = None,
    ) -> None:
        self._rule = get_aggregate(aggregate)
        components = tuple(proxies or self._rule.proxies)
        if not components or reference < 1:
            raise OptionError(f"{aggregate} needs proxies and a reference set; got {components} and {reference}")
        self.evaluator = replace(evaluator, proxies=components)
        self.space, self.seed, self.names, self.reference = evaluator.space, evaluator.seed, (aggregate,), reference
        self._columns: dict[str, list[float]] = {}

    def evaluate(self, trial: Trial) -> Evaluation:
        """Rank it among the reference set."""
        found = self.evaluator(trial.genotype)
        if found.error is not None:
            return found
        self._know_reference()
        directions = {name: get_proxy(name).higher_is_better for name in self.evaluator.names}
        columns = {name: [*column, found.scores[name]] for name, column in self._columns.items()}
        return replace(found, scores={self.names[0]: float(aggregate_scores(columns, self._rule, directions)[-1])})

    def portable(self) -> AggregateEvaluator:
        """With the reference set scored, and without the data set."""
        self._know_reference()
        same = copy(self)
        same.evaluator = self.evaluator.portable()
        return same

    def _know_reference(self) -> None:
        self._columns = self._columns or self._reference_columns()

    def _reference_columns(self) -> dict[str, list[float]]:
        drawn = sample_distinct(self.space, self.reference, seed=self.seed, at_most=True)
        rows = [row for row in map(self.evaluator, drawn) if row.error is None]
        if not rows:
            raise OptionError(f"none of {len(drawn)} reference architectures of {self.space.name} could be scored")
        return {name: [row.scores[name] for row in rows] for name in self.evaluator.names}

    def describe(self) -> dict[str, object]:
        """Rule, components, reference set, and the evaluator."""
        about = {"aggregate": self.names[0], "proxies": list(self.evaluator.names), "reference": self.reference}
        return {**self.evaluator.describe(), **about}


class SupernetEvaluator:
    """Accuracy of a sub-network with the shared weights of a trained supernet, in evaluation mode, percent.

    Args:
        supernet: holds the weights.
        valid: validation images with labels.
        seed: of the search.
        about: which supernet it is, for a store to compare.
        recalibration: training images from which each sub-network gets its own statistics of batch normalisation,
            as those of the supernet are averages over all; None: it uses the supernet's.
        recalibration_batches: of 128 images each, the first ones.
    Raises:
        OptionError: for images of a test set, by which nothing may be selected, or fewer than one batch.
    """

    epochs = None
    stages = ("validate",)
    by_epochs: tuple[str, ...] = ()
    inherits = False
    names = ("supernet_accuracy",)

    def __init__(
        self,
        supernet: Supernet,
        valid: ImageSet,
        *,
        seed: int = 0,
        about: Mapping[str, object] | None = None,
        recalibration: ImageSet | None = None,
        recalibration_batches: int = 200,
    ) -> None:
        for part in (valid, recalibration):
            if part is not None and part.split == "test":
                raise OptionError(
                    f"{part.name} (test) must not select architectures; split the training images instead"
                )
        if recalibration_batches < 1:
            raise OptionError(f"expected recalibration_batches of at least 1, but got {recalibration_batches}")
        self.supernet, self.space, self.valid, self.seed = supernet, supernet.space, valid, seed
        self._recalibration, self._n_batches = recalibration, recalibration_batches
        self._about = dict(about or {})

    def evaluate(self, trial: Trial) -> Evaluation:
        """Activate the sub-network and look at the validation images."""
        from naswot.training.evaluation import EVALUATION_BATCH, evaluate
        from naswot.training.splits import LabelledImages

        start = time.perf_counter()
        error, scores = None, {}
        try:
            with self.supernet.activate(trial.genotype) as model, self._recalibrated(model):
                images = LabelledImages(self.valid, next(model.parameters()).device)
                scores = {self.names[0]: evaluate(model, images.batches(EVALUATION_BATCH))["accuracy"]}
        except NaswotError as raised:
            error = f"{type(raised).__name__}: {raised}"
        seconds = {"validate": time.perf_counter() - start}
        arch = self.space.format(trial.genotype)
        return Evaluation(trial.genotype, arch, scores, seconds, self.seed, error=error)

    def _recalibrated(self, model: nn.Module) -> AbstractContextManager[None]:
        if self._recalibration is None:
            return nullcontext()
        from naswot.differentiable.picking import recalibrated
        from naswot.training.splits import LabelledImages

        images = LabelledImages(self._recalibration, next(model.parameters()).device)
        return recalibrated(model, islice(images.batches(_RECALIBRATION_BATCH), self._n_batches))

    def describe(self) -> dict[str, object]:
        """Space, images, and what was told about the supernet."""
        about: dict[str, object] = {"digest": batch_digest(Batch(*self.valid.tensors())), "seed": self.seed}
        if self._recalibration is not None:
            about["recalibration"] = batch_digest(Batch(*self._recalibration.tensors()))
            about["recalibration_batches"] = self._n_batches
        return {"space": self.space.name, "images": self.valid.name, **about, **self._about}


class CombinedEvaluator:
    """Scores of several evaluators of one space together, for mixed objectives.

    Args:
        parts: evaluated in order; after one that fails the others are left out.
    Raises:
        OptionError: if they are of different spaces, or give scores of the same name.
    """

    def __init__(self, *parts: TrialEvaluator) -> None:
        names = [name for part in parts for name in part.names]
        if not parts or len({part.space.name for part in parts}) != 1 or len(set(names)) != len(names):
            told = ", ".join(f"{part.space.name} ({', '.join(part.names)})" for part in parts)
            raise OptionError(f"expected evaluators of one space with scores of different names, but got {told or '-'}")
        self.parts, self.space, self.seed, self.names = parts, parts[0].space, parts[0].seed, tuple(names)
        self.stages = tuple(dict.fromkeys(stage for part in parts for stage in part.stages))
        self.by_epochs = tuple(name for part in parts for name in part.by_epochs)
        self.epochs = next((part.epochs for part in parts if part.epochs is not None), None)
        self.inherits = any(part.inherits for part in parts)

    def evaluate(self, trial: Trial) -> Evaluation:
        """All of them."""
        merged = Evaluation(trial.genotype, self.space.format(trial.genotype), {}, {}, self.seed)
        for part in self.parts:
            found = part.evaluate(trial)
            seconds = {
                s: merged.seconds.get(s, 0.0) + found.seconds.get(s, 0.0) for s in {**merged.seconds, **found.seconds}
            }
            merged = replace(
                merged,
                scores={**merged.scores, **found.scores},
                seconds=seconds,
                reasons={**merged.reasons, **found.reasons},
                error=found.error,
            )
            if found.error is not None:
                return replace(merged, scores={})
        return merged

    def portable(self) -> CombinedEvaluator:
        """Of portable parts."""
        return CombinedEvaluator(*map(portable, self.parts))

    def describe(self) -> dict[str, object]:
        """That of every part."""
        return {"parts": [part.describe() for part in self.parts]}
