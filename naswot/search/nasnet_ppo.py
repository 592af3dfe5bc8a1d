"""The search of NASNet: an LSTM writes cells and is trained by proximal policy optimisation.

Papers: Zoph et al., Learning Transferable Architectures for Scalable Image Recognition, CVPR 2018, arXiv:1707.07012,
Section 3 and Appendix B; Schulman et al., Proximal Policy Optimization Algorithms, arXiv:1707.06347, Eq. 7. No official
code of the search. From the former: one layer of 100 units, weights uniform in [-0.08, 0.08], Adam with a rate of
3.5e-4, an entropy bonus of 1e-5, a baseline with momentum 0.95, and updates by 20 architectures; the clip of 0.2 and a
few passes over a batch are those of the latter.

Differences: one controller without workers, and generations: while the last of a batch are open, nothing is proposed.
The ratio is that of whole architectures. A batch is compared with the rewards before it (the first one with its own
mean). Any space can be searched, of those with skip decisions by anchor points; the paper's own is near to nds_nasnet.

Values are taken as percent (``reward_scale``); for Adam the unit matters only against the entropy bonus.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from naswot.errors import OptionError
from naswot.search._controller import Controller, Sampler
from naswot.search._policy import MovingAverage, Rewards, advantages, require_drawable, require_positive
from naswot.searcher import Proposal, Searcher, Trial, Values, register_searcher
from naswot.seeding import derive_seed
from naswot.space import SearchSpace
from naswot.types import Genotype


@register_searcher
class NASNetPPO(Searcher):
    """Proximal policy optimisation of a recurrent controller, generation by generation.

    Args:
        space: what is searched.
        seed: of everything random.
        n_objectives: 1.
        batch: architectures of one generation.
        n_steps: of Adam, for each generation.
        clip: how far the ratio of new to old probability may leave 1 and still be pushed on.
        entropy: weight of the policy's entropy, in nats, beside the reward.
        learning_rate: of Adam.
        hidden: units of each LSTM layer.
        n_layers: LSTM layers.
        baseline_momentum: of the moving average of the rewards.
        reward_scale: factor on the told value; 0.01 makes percent a fraction.
    Raises:
        OptionError: if position-wise draws do not hit the space, or an option lies outside its range.
    """

    name: ClassVar[str] = "nasnet_ppo"
    reference: ClassVar[str] = "Zoph et al., CVPR 2018, arXiv:1707.07012"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        n_objectives: int = 1,
        batch: int = 20,
        n_steps: int = 4,
        clip: float = 0.2,
        entropy: float = 1e-5,
        learning_rate: float = 3.5e-4,
        hidden: int = 100,
        n_layers: int = 1,
        baseline_momentum: float = 0.95,
        reward_scale: float = 0.01,
    ) -> None:
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        require_positive(batch=batch, n_steps=n_steps, clip=clip, learning_rate=learning_rate)
        require_positive(hidden=hidden, n_layers=n_layers)
        if entropy < 0:
            raise OptionError(f"expected an entropy weight of at least 0, but got {entropy}")
        require_drawable(space, self.name)
        weights = derive_seed(seed, "searcher", self.name, "weights")
        self.controller = Controller(space, hidden=hidden, n_layers=n_layers, seed=weights)
        self.baseline, self._rewards = MovingAverage(baseline_momentum), Rewards(reward_scale)
        self._sampler = Sampler(self.controller, space, self.rng, n=batch)
        self._optimizer = torch.optim.Adam(self.controller.parameters(), lr=learning_rate)
        self._batch, self._n_steps, self._clip, self._entropy = batch, n_steps, clip, entropy
        self._generation: list[tuple[Genotype, float]] = []
        self._end = batch  # number of the first trial of the next generation

    def propose(self) -> Proposal | None:
        """An architecture drawn from the controller; None while a whole generation was asked and not yet learned."""
        if self.n_asked >= self._end:
            return None
        return Proposal(self.queued() or self._sampler.draw())

    def learn(self, trial: Trial, values: Values | None) -> None:
        """With the last result of a generation, a few steps on all of them."""
        reward = self._rewards(values)
        if reward is not None:
            self._generation.append((trial.genotype, reward))
        if trial.number + 1 < self._end:
            return
        self._end += self._batch
        if self._generation:  # not so if all of it failed, and nothing worked before
            genotypes, rewards = zip(*self._generation, strict=True)
            self._generation = []
            self._update(genotypes, rewards)

    def _update(self, genotypes: tuple[Genotype, ...], rewards: tuple[float, ...]) -> None:
        gain = torch.tensor(advantages(rewards, self.baseline))
        old: Tensor | None = None  # nothing was learned since they were drawn, so the first step begins at ratio 1
        for _ in range(self._n_steps):
            walk = self.controller.evaluate(genotypes)
            old = walk.log_probabilities.detach() if old is None else old
            objective = clipped_objective(walk.log_probabilities, old, gain, self._clip)
            loss = -(objective + self._entropy * walk.entropies).mean()
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
        self._sampler.forget()


def clipped_objective(log_probabilities: Tensor, old: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Eq. 7 of Schulman et al. before its mean: ``min(r A, clamp(r, 1 - clip, 1 + clip) A)``.

    Args:
        log_probabilities: (n,) under the policy that is trained, in nats.
        old: (n,) under the policy that drew them.
        advantage: (n,) A.
        clip: how far the ratio r may leave 1.
    Returns:
        (n,); its gradient is zero where r has left the interval in the direction that A asks for.
    """
    ratio = (log_probabilities - old).exp()
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
