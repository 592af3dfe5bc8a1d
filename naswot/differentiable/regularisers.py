"""Regularisers of the weights of a supernet that change from epoch to epoch.

Paper: Zela et al., Understanding and Robustifying Differentiable Architecture Search, ICLR 2020, arXiv:1909.09656,
section 5 (R-DARTS). Original code: github.com/automl/RobustDARTS, ``src/search/train_search.py``. The other regulariser
of the paper, weight decay, is a field of :class:`~naswot.differentiable.plan.WeightSteps`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from naswot.differentiable.plan import Hook
from naswot.errors import OptionError
from naswot.training._session import set_drop_path

if TYPE_CHECKING:
    from naswot.differentiable.session import SearchSession


@dataclass(frozen=True)
class DropPathRamp(Hook):
    """Edges are dropped, and squares cut out of training images, ever more often: from never in the first epoch on.

    Args:
        maximum: probability in the last epoch with which an edge is dropped for an image; at 0 nothing is cut out
            either, as in the original.
        cutout: height and width of the squares in pixels.
        cutout_probability: of an image in the last epoch.
    Raises:
        OptionError: if a number does not fit, or the task has no images to cut from.
    """

    maximum: float = 0.2
    cutout: int = 16
    cutout_probability: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.maximum < 1.0 or not 0.0 <= self.cutout_probability <= 1.0 or self.cutout < 0:
            raise OptionError(
                "expected 0 <= maximum < 1, a cutout of at least 0 pixels and a probability of it within [0, 1], but "
                f"got {self.maximum}, {self.cutout}, {self.cutout_probability}"
            )

    def before_epoch(self, session: SearchSession) -> None:
        """Set both for this epoch."""
        if self.maximum > 0.0:
            set_drop_path(session.supernet, session.clock.linear(0.0, self.maximum))
            self._cut(session, session.clock.linear(0.0, self.cutout_probability))

    def after_epoch(self, session: SearchSession) -> None:
        """Leave the images as they were: another search may use the same task."""
        if self.maximum > 0.0:
            self._cut(session, 0.0)

    def _cut(self, session: SearchSession, probability: float) -> None:
        if not self.cutout:
            return
        task: Any = session.task
        if not hasattr(task, "cutout_probability"):
            raise OptionError(f"{type(task).__name__} has no images to cut squares from; take cutout=0")
        task.cutout, task.cutout_probability = self.cutout, probability
