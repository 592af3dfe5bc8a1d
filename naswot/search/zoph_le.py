"""Neural architecture search with reinforcement learning: an LSTM writes the architecture.

Paper: Zoph and Le, Neural Architecture Search with Reinforcement Learning, ICLR 2017, arXiv:1611.01578, Sections 3.2,
3.3 and 4.1. No official code. The controller is that of the paper (2 layers of 35 units, weights uniform in
[-0.08, 0.08], Adam with a rate of 6e-4), and so are the power of 3 of the reward and the 8 architectures of
one update, which are the share of one of its 100 replicas.

Differences: the reward is the cube of the value told, usually the accuracy after the last epoch; the paper's is the
cube of the highest validation accuracy of the last five epochs, which whoever evaluates may tell. One controller,
updated in the order of asking; with several trials open the gradient is that of the present weights, not of those that
proposed. The momentum of the baseline is not told in the paper: 0.95, and a batch is compared with the rewards before
it (the first one with its own mean). Any space can be searched: those with skip decisions by anchor points, all others
as a plain sequence. The depth does not grow during a search (the paper adds two layers every 1,600 samples): a genotype
has a fixed number of decisions here.

Values are taken as percent; a proxy's score wants ``reward_scale`` and perhaps ``reward_power=1``.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from naswot.search._controller import Controller, Sampler
from naswot.search._policy import MovingAverage, Rewards, advantages, require_drawable, require_positive
from naswot.searcher import Proposal, Searcher, Trial, Values, register_searcher
from naswot.seeding import derive_seed
from naswot.space import SearchSpace
from naswot.types import Genotype


@register_searcher
class ZophLe(Searcher):
    """REINFORCE on a recurrent controller.

    Args:
        space: what is searched.
        seed: of everything random.
        n_objectives: 1.
        batch: architectures of one update; an update takes the mean over them.
        learning_rate: of Adam.
        hidden: units of each LSTM layer.
        n_layers: LSTM layers.
        baseline_momentum: of the moving average of the rewards.
        reward_scale: factor on the told value; 0.01 makes percent a fraction.
        reward_power: exponent of the scaled value.
    Raises:
        OptionError: if position-wise draws do not hit the space, or an option lies outside its range.
    """

    name: ClassVar[str] = "zoph_le"
    reference: ClassVar[str] = "Zoph & Le, ICLR 2017, arXiv:1611.01578"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        n_objectives: int = 1,
        batch: int = 8,
        learning_rate: float = 6e-4,
        hidden: int = 35,
        n_layers: int = 2,
        baseline_momentum: float = 0.95,
        reward_scale: float = 0.01,
        reward_power: float = 3.0,
    ) -> None:
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        require_positive(batch=batch, learning_rate=learning_rate, hidden=hidden, n_layers=n_layers)
        require_drawable(space, self.name)
        weights = derive_seed(seed, "searcher", self.name, "weights")
        self.controller = Controller(space, hidden=hidden, n_layers=n_layers, seed=weights)
        self.baseline, self._rewards = MovingAverage(baseline_momentum), Rewards(reward_scale, reward_power)
        self._sampler = Sampler(self.controller, space, self.rng, n=batch)
        self._optimizer = torch.optim.Adam(self.controller.parameters(), lr=learning_rate)
        self._batch = batch
        self._learned: list[tuple[Genotype, float]] = []

    def propose(self) -> Proposal | None:
        """An architecture drawn from the controller."""
        return Proposal(self.queued() or self._sampler.draw())

    def learn(self, trial: Trial, values: Values | None) -> None:
        """Every ``batch`` results, one step along the mean of ``(reward - baseline) * grad log p``."""
        reward = self._rewards(values)
        if reward is None:
            return
        self._learned.append((trial.genotype, reward))
        if len(self._learned) == self._batch:
            genotypes, rewards = zip(*self._learned, strict=True)
            self._learned = []
            self._update(genotypes, rewards)

    def _update(self, genotypes: tuple[Genotype, ...], rewards: tuple[float, ...]) -> None:
        gain = torch.tensor(advantages(rewards, self.baseline))
        loss = -(gain * self.controller.evaluate(genotypes).log_probabilities).mean()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._sampler.forget()
