"""ENAS: a recurrent controller draws the paths, and learns from how well they do.

Paper: Pham et al., Efficient Neural Architecture Search via Parameter Sharing, ICML 2018, arXiv:1802.03268: an LSTM of
100 units, logits within 2.5 by a tanh at temperature 5. Original code: github.com/melodyguan/enas, whose search for
cells gives the numbers of steps and samples and the rate; its script bounds logits of operations by 1.1 / 2.5 = 0.44
and those of inputs by 1.1, without a temperature. As there, a network normalises by the batch that rewards it.
Differences: the controller is that of ``search/_controller.py``, which writes any genotype, and favours no operation at
first; its baseline is without the pull of its start at 0 and compares samples with those of the steps before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

import torch
from torch import Tensor

from naswot.differentiable.paths import generator_from_torch, open_space
from naswot.differentiable.relaxations import Clock, Relaxation
from naswot.errors import OptionError
from naswot.preserve import Buffers, in_mode, modules_of
from naswot.search._controller import Controller, Sampler, Squash
from naswot.search._policy import MovingAverage, advantages, require_drawable
from naswot.space import SearchSpace
from naswot.supernet import Group, MixedSupernet, Mixing
from naswot.types import Genotype

if TYPE_CHECKING:
    from naswot.differentiable.session import SearchSession

_SPREAD: Final = 0.1  # first weights are uniform in [-0.1, 0.1]


@dataclass(frozen=True, kw_only=True)
class ControllerSteps:
    """The controller of ENAS and how it learns.

    Args:
        hidden: units of each LSTM layer.
        n_layers: LSTM layers.
        bound: of the logits, by a tanh.
        temperature: by which they are divided before.
        steps: of Adam after each epoch of the weights.
        samples: architectures of one step, each rewarded by one validation batch of its own.
        learning_rate: of Adam.
        entropy_weight: of the entropy of the decisions, nats, that is added to the reward.
        baseline_momentum: of the moving average of the rewards.
    Raises:
        OptionError: if a number lies outside of its range.
    """

    hidden: int = 100
    n_layers: int = 1
    bound: float = 2.5
    temperature: float = 5.0
    steps: int = 30
    samples: int = 10
    learning_rate: float = 0.0035
    entropy_weight: float = 1e-4
    baseline_momentum: float = 0.99

    def __post_init__(self) -> None:
        counts = self.hidden, self.n_layers, self.steps, self.samples
        sizes = self.bound, self.temperature, self.learning_rate
        if min(counts) < 1 or not min(sizes) > 0 or self.entropy_weight < 0 or not 0 <= self.baseline_momentum < 1:
            raise OptionError(
                "expected hidden, n_layers, steps and samples of at least 1, bound, temperature and learning_rate "
                "above 0, entropy_weight of at least 0 and baseline_momentum in [0, 1), but got "
                f"{counts}, {sizes}, {self.entropy_weight} and {self.baseline_momentum}"
            )


class Policy:
    """A controller over a space with its optimizer and its baseline.

    Args:
        space: what is drawn.
        how: sizes and constants.
        seed: of the first weights.
    Raises:
        OptionError: if draws position by position do not hit the space.
    """

    def __init__(self, space: SearchSpace, how: ControllerSteps, *, seed: int) -> None:
        require_drawable(space, "enas")
        self._how = how
        squash = Squash(how.bound, how.temperature)
        self.controller = Controller(
            space, hidden=how.hidden, n_layers=how.n_layers, seed=seed, spread=_SPREAD, squash=squash
        )
        self.optimizer = torch.optim.Adam(self.controller.parameters(), how.learning_rate)
        self.baseline = MovingAverage(how.baseline_momentum)

    def draw(self, space: SearchSpace, n: int) -> list[Genotype]:
        """Architectures of a space, or of a part of it, with the global generator of torch; equal ones may occur."""
        sampler = Sampler(self.controller, space, generator_from_torch(), n=n)
        return [sampler.draw() for _ in range(n)]

    def learn(self, genotypes: Sequence[Genotype], rewards: Sequence[float]) -> None:
        """One step of Adam."""
        walk = self.controller.evaluate(genotypes)
        extra = self._how.entropy_weight * walk.entropies.detach()
        gains = advantages([r + e for r, e in zip(rewards, extra.tolist(), strict=True)], self.baseline)
        self.optimizer.zero_grad(set_to_none=True)
        reinforce_loss(walk.log_probabilities, gains).backward()
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer and baseline."""
        return {
            "controller": self.controller.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "baseline": dict(vars(self.baseline)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.controller.load_state_dict(state["controller"])
        self.optimizer.load_state_dict(state["optimizer"])
        vars(self.baseline).update(state["baseline"])


def reinforce_loss(log_probabilities: Tensor, gains: Sequence[float]) -> Tensor:
    """Its gradient is that of the expected reward, with the sign of a loss.

    Args:
        log_probabilities: (n,) of what was drawn, nats.
        gains: rewards less a baseline.
    Returns:
        () mean over the draws.
    """
    return -(torch.tensor(gains, dtype=log_probabilities.dtype) * log_probabilities).mean()


@dataclass
class _Memory:
    """What a relaxation has learned; the state waits here until the space is known."""

    policy: Policy | None = None
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ControlledPath(Relaxation):
    """One architecture for each batch, drawn from a controller that learns after each epoch.

    Args:
        steps: the controller and how it learns.
    """

    mixed: ClassVar[bool] = False

    steps: ControllerSteps = field(default_factory=ControllerSteps)
    _memory: _Memory = field(default_factory=_Memory, init=False, repr=False, compare=False)

    def initial(self, group: Group) -> Tensor:
        """Zeros: the alphas play no part."""
        return torch.zeros(group.shape)

    def policy(self, supernet: MixedSupernet) -> Policy:
        """The controller; it begins when it is first asked for."""
        memory = self._memory
        if memory.policy is None:
            seed = 0 if memory.state else int(torch.randint(2**62, ()))
            memory.policy = Policy(supernet.space, self.steps, seed=seed)
            if memory.state:
                memory.policy.load_state_dict(memory.state)
        return memory.policy

    def genotype(self, supernet: MixedSupernet) -> Genotype | None:
        """The likeliest option at every step; None where that is no architecture of what is left."""
        greedy = self.policy(supernet).controller.greedy()
        return greedy if open_space(supernet).is_valid(greedy) else None

    def candidate(self, supernet: MixedSupernet) -> Genotype:
        """An architecture drawn from the controller."""
        return self.policy(supernet).draw(open_space(supernet), 1)[0]

    def for_weights(self, supernet: MixedSupernet, clock: Clock) -> Mixing:  # noqa: ARG002
        """The options of one architecture, and nothing else."""
        return supernet.mixing_of(self.candidate(supernet))

    def for_architecture(self, supernet: MixedSupernet, clock: Clock) -> Mixing:
        """The same: no gradient reaches the alphas."""
        return self.for_weights(supernet, clock)

    def after_epoch(self, session: SearchSession) -> None:
        """Steps of the controller; rewards are those of single validation batches, normalised by these batches."""
        supernet, task = session.supernet, session.task
        buffers = Buffers(modules_of(supernet))

        def reward(genotype: Genotype) -> float:
            batch = task.valid_batch(session.valid_batches)
            session.valid_batches += 1
            return task.reward(supernet, supernet.mixing_of(genotype), batch)

        try:
            with in_mode(supernet, "train"):
                self.train(self.policy(supernet), open_space(supernet), reward)
        finally:
            buffers.restore()

    def train(self, policy: Policy, space: SearchSpace, reward: Callable[[Genotype], float]) -> None:
        """The steps of one epoch.

        Args:
            policy: learns.
            space: what it draws from.
            reward: of an architecture; asked anew for each sample.
        """
        for _ in range(self.steps.steps):
            drawn = policy.draw(space, self.steps.samples)
            policy.learn(drawn, [reward(genotype) for genotype in drawn])

    def state_dict(self) -> dict[str, Any]:
        """That of the policy."""
        memory = self._memory
        return dict(memory.state) if memory.policy is None else memory.policy.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, now or when the space is known."""
        if self._memory.policy is None:
            self._memory.state = state
        else:
            self._memory.policy.load_state_dict(state)
