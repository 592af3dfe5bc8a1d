"""REINFORCE with one softmax for each decision.

Paper: Williams, Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning, Machine
Learning 8, 1992; as a baseline of NAS: Ying et al., NAS-Bench-101, ICML 2019, and Dong and Yang, NAS-Bench-201, ICLR
2020, whose code (github.com/D-X-Y/AutoDL-Projects) the defaults are from: logits 1e-3 * randn, Adam with a rate of
0.01, a baseline with momentum 0.9 that already holds the reward it is compared with, accuracy in percent as the reward.
Differences: the gradient is written out in numpy, which makes a step about ten times as fast; what failed gets the
worst reward so far; where a space has a rule of validity, invalid draws are drawn again, and the gradient stays that of
the product of the softmaxes.

Adam divides by the size of the gradients, so the unit of the reward (percent, fraction, the score of a proxy) does not
matter; ``reward_scale`` is there for rewards so small that Adam's 1e-8 does.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from naswot.search._policy import MAX_TRIES, MovingAverage, Rewards, is_free, require_drawable, require_positive
from naswot.searcher import Proposal, Searcher, Trial, Values, register_searcher
from naswot.space import SearchSpace
from naswot.types import Genotype

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
_CHUNK = 512  # draws made at once after an invalid one

Floats = NDArray[np.float64]


@register_searcher
class Reinforce(Searcher):
    """Options that did better than usual become more likely, each position by itself.

    Args:
        space: what is searched.
        seed: of everything random.
        n_objectives: 1.
        learning_rate: of Adam.
        baseline_momentum: of the moving average of the rewards.
        init_std: standard deviation of the logits at the start.
        reward_scale: factor on the told value.
    Raises:
        OptionError: if position-wise draws do not hit the space, or an option lies outside its range.
    """

    name: ClassVar[str] = "reinforce"
    reference: ClassVar[str] = "Williams, Machine Learning 8, 1992; Dong & Yang, ICLR 2020, arXiv:2001.00326"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        n_objectives: int = 1,
        learning_rate: float = 0.01,
        baseline_momentum: float = 0.9,
        init_std: float = 1e-3,
        reward_scale: float = 1.0,
    ) -> None:
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        require_positive(learning_rate=learning_rate)
        require_drawable(space, self.name)
        self.baseline, self._rewards = MovingAverage(baseline_momentum), Rewards(reward_scale)
        self._free = is_free(space)
        options = np.array(space.choices)
        self._rows, self._last = np.arange(len(options)), options - 1
        self._absent = np.arange(options.max()) >= options[:, None]
        logits = init_std * self.rng.standard_normal(self._absent.shape)
        self.logits: Floats = np.where(self._absent, -np.inf, logits)  # (positions, most options); -inf: no such option
        self._adam = _Adam(self.logits.shape, learning_rate)
        self._refresh()

    def propose(self) -> Proposal | None:
        """An architecture drawn from the policy."""
        return Proposal(self.queued() or self._draw())

    def learn(self, trial: Trial, values: Values | None) -> None:
        """One step of Adam along ``(reward - baseline) * grad log p``."""
        reward = self._rewards(values)
        if reward is None:
            return
        advantage = reward - self.baseline.update(reward)
        self.logits -= self._adam.step(-advantage * self.score_function(trial.genotype))
        self._refresh()

    def probabilities(self) -> list[Floats]:
        """Probability of each option, one vector for each position."""
        return [row[:n].copy() for row, n in zip(self._probabilities, self.space.choices, strict=True)]

    def entropy(self) -> float:
        """Entropy of the policy in nats: the sum over positions."""
        return -sum(float((p * np.log(np.maximum(p, 1e-300))).sum()) for p in self.probabilities())

    def score_function(self, genotype: Genotype) -> Floats:
        """Gradient of ``log p(genotype)`` by the logits, one row for each position; 0 where there is no option."""
        gradient = -self._probabilities
        gradient[self._rows, genotype] += 1.0
        return gradient

    def _refresh(self) -> None:
        """Probabilities and their running sums of the present logits."""
        weights = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        self._probabilities: Floats = weights / weights.sum(axis=1, keepdims=True)
        self._sums: Floats = self._probabilities.cumsum(axis=1)
        self._sums[self._rows, self._last] = np.inf  # whatever rounding left, the last option takes

    def _draw(self) -> Genotype:
        genotype: Genotype = tuple((self._sums <= self.rng.random((len(self._rows), 1))).sum(axis=1).tolist())
        if self._free or self.space.is_valid(genotype):
            return genotype
        for _ in range(0, MAX_TRIES, _CHUNK):
            genes = (self._sums <= self.rng.random((_CHUNK, len(self._rows), 1))).sum(axis=2)
            for genotype in map(tuple, genes.tolist()):
                if self.space.is_valid(genotype):
                    return genotype
        return self.space.sample(self.rng)  # the policy has settled where nothing is valid


class _Adam:
    """Adam for one array, as torch has it."""

    def __init__(self, shape: tuple[int, ...], rate: float) -> None:
        self._rate, self._n = rate, 0
        self._mean, self._square = np.zeros(shape), np.zeros(shape)

    def step(self, gradient: Floats) -> Floats:
        """What is to be subtracted."""
        self._n += 1
        self._mean += (1 - _BETA1) * (gradient - self._mean)
        self._square += (1 - _BETA2) * (gradient * gradient - self._square)
        scale = np.sqrt(self._square / (1 - _BETA2**self._n))
        step: Floats = self._rate / (1 - _BETA1**self._n) * self._mean / (scale + _EPSILON)
        return step
