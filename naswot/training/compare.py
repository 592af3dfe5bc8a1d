"""Did the score tell the truth? Really train the winner of a screening and one random other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, replace

from naswot.data.images import ImageSet
from naswot.evaluate import Evaluator, Store, single_thread
from naswot.run import Ranked, pick_contender
from naswot.training.brief import BriefTraining, train_briefly
from naswot.types import Evaluation, Genotype


@dataclass(frozen=True)
class Trained:
    """Accuracy that one of the two reached: ``role`` is "winner" or "random", accuracy in percent."""

    role: str
    arch: str
    accuracy: float


def compare_by_training(
    evaluator: Evaluator,
    rows: Sequence[Ranked],
    train: ImageSet,
    held_out: ImageSet,
    *,
    epochs: int,
    executor: Executor | None = None,
    store: Store | None = None,
    on_done: Callable[[], None] = lambda: None,
) -> list[Trained]:
    """Train the first of ``rows`` and one random other for a few epochs, each on one thread.

    Args:
        evaluator: says how networks are built and where they live.
        rows: screened architectures, best first.
        train: training images with labels.
        held_out: images on which the accuracy is taken; nothing is selected by them.
        epochs: passes over the training images; 0 trains nothing.
        executor: trains both at once; None: one after the other in this process.
        store: known accuracies come from it, new ones go to it, as score ``trained_accuracy_<epochs>_epochs``.
        on_done: called when a network is trained or known.
    Returns:
        The two, winner first; nothing if there are no two networks, no labels or no epochs.
    """
    contender = pick_contender(rows, seed=evaluator.seed)
    if epochs == 0 or contender is None or train.labels is None:
        return []
    name = f"trained_accuracy_{epochs}_epochs"
    accuracy: dict[str, float] = {}
    for row in (rows[0], contender):
        known = None if store is None else store.get(row.arch, evaluator.seed)
        if known is not None and name in known.scores:
            accuracy[row.arch] = known.scores[name]
            on_done()
    missing = [row for row in (rows[0], contender) if row.arch not in accuracy]
    for row, result in _run(evaluator, missing, train, held_out, epochs, executor):
        accuracy[row.arch] = result.accuracy
        if store is not None:
            scores, seconds = {name: result.accuracy}, {"train": result.seconds}
            store.append(Evaluation(row.genotype, row.arch, scores, seconds, evaluator.seed))
        on_done()
    pair = (("winner", rows[0]), ("random", contender))
    return [Trained(role, row.arch, accuracy[row.arch]) for role, row in pair]


def _run(
    evaluator: Evaluator,
    rows: Sequence[Ranked],
    train: ImageSet,
    held_out: ImageSet,
    epochs: int,
    executor: Executor | None,
) -> Iterator[tuple[Ranked, BriefTraining]]:
    if executor is None:
        for row in rows:
            yield row, train_cell(evaluator, row.genotype, train, held_out, epochs)
        return
    plain = replace(evaluator, images=train)
    futures = {executor.submit(train_cell, plain, row.genotype, train, held_out, epochs): row for row in rows}
    for future in as_completed(futures):
        yield futures[future], future.result()


def train_cell(
    evaluator: Evaluator, genotype: Genotype, train: ImageSet, held_out: ImageSet, epochs: int
) -> BriefTraining:
    """What a worker runs: build one network as the evaluator does and train it on one thread."""
    with single_thread():
        return train_briefly(evaluator.model(genotype), train, held_out, epochs=epochs, seed=evaluator.seed)
