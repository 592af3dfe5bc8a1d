"""Early stopping by the dominant eigenvalue of the Hessian (DARTS-ES), and regularising more instead (DARTS-ADA).

Paper: Zela et al., Understanding and Robustifying Differentiable Architecture Search, ICLR 2020, arXiv:1909.09656,
sections 4.3 and 5.2. Original code: github.com/automl/RobustDARTS, ``src/search/train_search.py`` and ``src/utils.py``.
As there, the eigenvalue is taken after the epochs 0, 2, 4, ..., counted from 0, and the numbers of an epoch are those
after it; that after the last epoch ends nothing. Differences: a rise of means that are not positive is none; a mean
ratio is only judged over measurements at equal distances; all measurements are on the same batch.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from naswot.differentiable.monitors import HessianMonitor
from naswot.differentiable.plan import Hook
from naswot.errors import OptionError

if TYPE_CHECKING:
    from naswot.differentiable.session import SearchSession

NAME: Final = "stopping_eigenvalue"
"""Under which the value that is judged stands in the row of an epoch."""


def early_stop(
    epochs: Sequence[int],
    values: Sequence[float],
    *,
    window: int = 5,
    ratio: float = 1.3,
    not_before: int = 10,
    lag: int = 4,
    every: int | None = None,
) -> tuple[int, int] | None:
    """When a search with these eigenvalues is stopped, and to which epoch it returns.

    Values are smoothed by a moving mean that is centred, so that it stands for the epoch ``window // 2`` measurements
    before its last one. The search stops as soon as a mean is more than ``ratio`` times that ``lag`` measurements
    earlier, and returns to the epoch of the earlier one; epochs before ``not_before`` are never returned to. Means over
    measurements that do not follow each other at the same distance are not compared, as after the last epoch.

    Args:
        epochs: of the measurements, ascending.
        values: eigenvalues.
        window: measurements in a mean.
        ratio: of the later mean to the earlier one.
        not_before: first epoch that may be returned to.
        lag: measurements between both means.
        every: epochs between two measurements; None: the smallest distance that occurs.
    Returns:
        The epoch whose measurement ends the search, and the epoch that counts; None: it goes on to its end.
    Raises:
        OptionError: if there are not as many values as epochs, or epochs do not ascend.
    Example:
        >>> early_stop(range(0, 50, 2), [1.0] * 10 + [2.0] * 15)
        (22, 10)
    """
    if len(epochs) != len(values) or any(b <= a for a, b in pairwise(epochs)):
        raise OptionError(
            f"expected one eigenvalue for each of some ascending epochs, but got {len(values)} for {list(epochs)}"
        )
    rule = {"window": window, "not_before": not_before, "lag": lag}
    for n in range(1, len(epochs) + 1):
        distance = every or min((b - a for a, b in pairwise(epochs[:n])), default=1)
        found = returned_to(epochs[:n], values[:n], ratio=ratio, every=distance, **rule)
        if found is not None:
            return epochs[n - 1], found
    return None


def returned_to(
    epochs: Sequence[int],
    values: Sequence[float],
    *,
    window: int,
    ratio: float,
    not_before: int,
    lag: int,
    every: int,
) -> int | None:
    """The epoch that counts if the last of these measurements ends the search; None: it does not.

    Arguments as those of :func:`early_stop`.
    """
    centre = len(epochs) - 1 - window // 2 - lag
    if centre < 0 or epochs[centre] < not_before:
        return None
    used = epochs[max(0, len(epochs) - lag - window) :]
    if any(b - a != every for a, b in pairwise(used)):
        return None
    now, before = _mean(values, window), _mean(values[: len(values) - lag], window)
    return epochs[centre] if before > 0.0 and now / before > ratio else None


def _mean(values: Sequence[float], window: int) -> float:
    """Of the last ``window`` values, or of all at the beginning."""
    last = values[-window:]
    return sum(last) / len(last)


@dataclass(frozen=True, kw_only=True)
class EigenvalueStop(Hook):
    """DARTS-ES: end the search when the dominant eigenvalue rises, with the architecture of before the rise.

    Epochs are counted from 0 within the stage, as in the original, so ``after=10`` allows the architecture after the
    eleventh epoch, which the history calls epoch 11. The value of each measurement is ``stopping_eigenvalue`` in the
    history. One that does not converge is left out, and nothing is judged until enough follow each other again.

    Args:
        every: epochs between two measurements.
        window: measurements in a mean.
        ratio: of the later mean to the earlier one.
        after: first epoch that may be returned to.
        lag: measurements between both means.
        how: the eigenvalue is measured; a monitor that does the same is not made to do it twice.
    Raises:
        OptionError: if a number does not fit, or the relaxation trains single paths, so that there is no such Hessian.
    """

    every: int = 2
    window: int = 5
    ratio: float = 1.3
    after: int = 10
    lag: int = 4
    how: HessianMonitor = field(default_factory=HessianMonitor)

    def __post_init__(self) -> None:
        if min(self.every, self.window, self.lag) < 1 or self.after < 0 or self.ratio <= 0.0:
            raise OptionError(
                "expected every, window and lag of at least 1, after of at least 0 and a ratio above 0, but got "
                f"{self.every}, {self.window}, {self.lag}, {self.after} and {self.ratio}"
            )

    @property
    def returns(self) -> int:
        """From the measurement that ends the search to the epoch that is returned to."""
        return self.every * (self.window // 2 + self.lag)

    def begin_stage(self, session: SearchSession) -> None:
        """See that there is an eigenvalue to stop by."""
        if not self.how.applies_to(session.relaxation):
            raise OptionError(
                f"{type(self).__name__} stops by the Hessian at the mixture of all options, but "
                f"{type(session.relaxation).__name__} trains single paths; take a relaxation that mixes, such as "
                "Softmax, or leave the stopping rule out"
            )

    def after_epoch(self, session: SearchSession) -> None:
        """Measure, and act if the rule says so."""
        clock = session.clock
        if (clock.epoch - 1) % self.every or clock.epoch == clock.epochs or not self.watches(session):
            return
        self._measure(session)
        epochs, values = self._series(session)
        if not epochs or epochs[-1] != clock.epoch - 1:
            return
        found = returned_to(
            epochs,
            values,
            window=self.window,
            ratio=self.ratio,
            not_before=self.after,
            lag=self.lag,
            every=self.every,
        )
        if found is not None:
            self.act(session, session.epoch - clock.epoch + found + 1)

    def watches(self, session: SearchSession) -> bool:  # noqa: ARG002
        """Whether there is something left to be done about a rise."""
        return True

    def act(self, session: SearchSession, epoch: int) -> None:
        """Do what is to be done about a rise since an epoch, counted from 1."""
        reason = f"the dominant eigenvalue rose to more than {self.ratio:g} times that of epoch {epoch}"
        session.stop(reason, epoch=epoch)

    def _measure(self, session: SearchSession) -> None:
        """Put the eigenvalue into the row of the epoch."""
        row = session.history[-1]
        done = [m for m in session.monitors if isinstance(m, HessianMonitor) and session.epoch % m.every == 0]
        same = done and replace(done[-1], every=self.how.every) == self.how
        found = row if same else self.how.measure(session)
        if "eigenvalue" in found:
            row[NAME] = found["eigenvalue"]
        elif "hessian_warning" in found:
            row["hessian_warning"] = found["hessian_warning"]

    def _series(self, session: SearchSession) -> tuple[list[int], list[float]]:
        """Epochs of the present stage, from 0, and their eigenvalues; without those that the search has gone behind."""
        before = session.epoch - session.clock.epoch
        found: dict[int, float] = {}
        for row in session.history:
            epoch = row["epoch"] - before - 1
            if row["stage"] != session.stage_number:
                continue
            found = {earlier: value for earlier, value in found.items() if earlier < epoch}
            if NAME in row:
                found[epoch] = row[NAME]
        return list(found), list(found.values())


@dataclass(frozen=True, kw_only=True)
class EigenvalueAdapt(EigenvalueStop):
    """DARTS-ADA: when the dominant eigenvalue rises, go back to before the rise and go on with more weight decay.

    The state of that epoch comes back with weights, alphas, optimizers and random numbers. It may happen again; once
    the weight decay is at its cap the search goes on to its end. The row in which it happens says so as ``note``; the
    architecture of the epoch it goes back to at first is what DARTS-ES would have given.

    Args:
        factor: of the weight decay of the weights.
        cap: largest weight decay.
    Raises:
        OptionError: as above, or if the weight decay cannot grow.
    """

    factor: float = 10.0
    cap: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor <= 1.0 or self.cap <= 0.0:
            raise OptionError(f"expected a factor above 1 and a cap above 0, but got {self.factor} and {self.cap}")

    def begin_stage(self, session: SearchSession) -> None:
        """See that there is an eigenvalue to go by, and a weight decay that can grow."""
        super().begin_stage(session)
        if session.plan.weights.weight_decay <= 0.0:
            raise OptionError(
                f"expected a weight decay of the weights above 0, as {type(self).__name__} multiplies it, but got "
                f"{session.plan.weights.weight_decay}"
            )

    @property
    def keeps(self) -> int:
        """All: what cannot be gone back to any more is dropped after each epoch."""
        return sys.maxsize

    def after_epoch(self, session: SearchSession) -> None:
        """Measure, act if the rule says so, and drop the states that no later rise can go back to."""
        super().after_epoch(session)
        span = self.every * (self.window // 2 + self.lag)  # from a rise back to the epoch of the earlier mean
        first = session.epoch - session.clock.epoch + 1
        # a rise may come sooner after a return than the one before it, and then goes back further
        oldest = max(first + self.after, session.epoch + 1 - self._rises_left(session) * span)
        session.snapshots = {
            epoch: state
            for epoch, state in session.snapshots.items()
            if epoch >= oldest and (epoch - first) % self.every == 0
        }

    def _rises_left(self, session: SearchSession) -> int:
        """How many more times the weight decay can grow."""
        decay = float(session.weight_optimizer.param_groups[0]["weight_decay"])
        return 0 if decay >= self.cap else math.ceil(round(math.log(self.cap / decay, self.factor), 9))

    def watches(self, session: SearchSession) -> bool:
        """Whether the weight decay can still grow."""
        return self._rises_left(session) > 0

    def act(self, session: SearchSession, epoch: int) -> None:
        """Go back and regularise more."""
        row = session.history[-1]
        before = float(session.weight_optimizer.param_groups[0]["weight_decay"])
        more = min(self.cap, before * self.factor)
        session.rewind(epoch)
        for group in session.weight_optimizer.param_groups:
            group["weight_decay"] = more
        row["note"] = f"the dominant eigenvalue rose: back to epoch {epoch}, with a weight decay of {more:g}"
