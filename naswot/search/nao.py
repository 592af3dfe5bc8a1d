"""Neural architecture optimisation: climb a predictor in a continuous space, and decode what is there.

Paper: Luo et al., Neural Architecture Optimization, NeurIPS 2018, arXiv:1808.07233, Algorithm 1. Original code:
github.com/renqianluo/NAO_pytorch, whose numbers are the defaults: embedding 48, LSTMs of 96, a predictor of 3 layers of
200, 0.8 of the squared error and 0.2 of the decoder's likelihood, Adam with 1e-3 and weight decay 1e-4, gradients
clipped to 5, batches of 100, 1,000 epochs, 600 random architectures, then 300 new ones from the best 100 by steps of
1, 2, 3, ... up to 50.

Differences: one token for each position and option, and a position decodes to its own options only, so that every
sequence is in range; what the space does not contain is dropped. The model is trained anew for each round, so that a
round follows from its pool alone. Where all steps together give too few new architectures, random ones fill up the
round; the search ends where the space has nothing new. What failed counts as the worst value so far. The published code
swaps the two inputs of each node for more data; here ``augment`` takes other spellings of the space, where it has some.
The shared weights of the original are another matter: whoever evaluates decides on them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import ClassVar

import torch

from naswot.errors import OptionError
from naswot.search._nao_model import NAOModel, Sizes, Training, genotypes_of
from naswot.search._policy import Rewards, require_positive
from naswot.search._unseen import draw_unseen, is_exhausted
from naswot.searcher import Proposal, Searcher, Trial, Values, register_searcher
from naswot.seeding import derive_seed
from naswot.space import SearchSpace
from naswot.types import Genotype


@register_searcher
class NAO(Searcher):
    """Rounds of training encoder, predictor and decoder, and of new architectures along the predictor's gradient.

    Args:
        space: what is searched.
        seed: of everything random.
        n_objectives: 1.
        n_seed: random architectures at the start.
        n_new: architectures of each later round.
        n_best: from how many of the best the steps start.
        max_step: the largest step.
        epochs: over the pool, for each round.
        batch: architectures of one step of training.
        learning_rate: of Adam.
        weight_decay: of Adam.
        clip: largest norm of a gradient.
        tradeoff: weight of the predictor's loss, in [0, 1]; the decoder's has the rest.
        embedding: size of a token's vector.
        hidden: units of both LSTMs.
        mlp_layers: hidden layers of the predictor.
        mlp_hidden: units of each.
        dropout: in the predictor.
        augment: how many other spellings of an architecture are trained on as well, at most.
    Raises:
        OptionError: if an option lies outside its range.
    """

    name: ClassVar[str] = "nao"
    reference: ClassVar[str] = "Luo et al., NeurIPS 2018, arXiv:1808.07233"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        n_objectives: int = 1,
        n_seed: int = 600,
        n_new: int = 300,
        n_best: int = 100,
        max_step: int = 50,
        epochs: int = 1000,
        batch: int = 100,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        clip: float = 5.0,
        tradeoff: float = 0.8,
        embedding: int = 48,
        hidden: int = 96,
        mlp_layers: int = 3,
        mlp_hidden: int = 200,
        dropout: float = 0.1,
        augment: int = 0,
    ) -> None:
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        require_positive(n_seed=n_seed, n_new=n_new, n_best=n_best, max_step=max_step, epochs=epochs, batch=batch)
        require_positive(learning_rate=learning_rate, clip=clip, embedding=embedding, hidden=hidden)
        require_positive(mlp_hidden=mlp_hidden)
        for option, value, most in (("tradeoff", tradeoff, 1.0), ("dropout", dropout, 0.99)):
            if not 0 <= value <= most:
                raise OptionError(f"expected {option} in [0, {most:g}], but got {value}")
        for option, value in (("weight_decay", weight_decay), ("mlp_layers", mlp_layers), ("augment", augment)):
            if value < 0:
                raise OptionError(f"expected {option} of at least 0, but got {value}")
        self._sizes = Sizes(embedding, hidden, mlp_layers, mlp_hidden, dropout)
        self._training = Training(epochs, batch, learning_rate, weight_decay, clip, tradeoff)
        self._n_seed, self._n_new, self._n_best, self._max_step = n_seed, n_new, n_best, max_step
        self._augment, self._value = augment, Rewards()
        self._n_rounds = 0
        self._waiting: deque[Genotype] = deque()
        self._seen: set[Genotype] = set()  # what became a trial
        self._short = False  # whether a random draw found nothing new
        self.pool: dict[Genotype, float] = {}
        self.model: NAOModel | None = None  # that of the latest round

    def propose(self) -> Proposal | None:
        """A random architecture, then the decoded ones of a round.

        None while the results of a round are open, and at the end if nothing new is left.
        """
        queued = self.queued()
        if queued is not None:
            return Proposal(queued)
        if self.n_asked < self._n_seed:
            start = self._unseen()
            if start is not None:
                return Proposal(start)
        self._drop_seen()
        if not self._waiting and not self.n_open:
            self._waiting.extend(self._next_round())
        return Proposal(self._waiting[0]) if self._waiting else None

    def candidates(self, n: int) -> list[Proposal]:
        """Up to ``n`` random architectures at the start; what was decoded has no alternatives."""
        if self.n_enqueued or self.n_asked >= self._n_seed:
            return super().candidates(1)
        starts: dict[Genotype, None] = {}
        while len(starts) < n and (genotype := self._unseen(starts)) is not None:
            starts[genotype] = None
        return [Proposal(genotype) for genotype in starts] or super().candidates(1)

    def submit(self, proposal: Proposal | Genotype) -> Trial:
        """Make a trial of a proposal, which is not proposed again."""
        trial = super().submit(proposal)
        self._seen.add(trial.genotype)
        return trial

    def learn(self, trial: Trial, values: Values | None) -> None:
        """Put the architecture into the pool."""
        value = self._value(values)
        if value is not None:
            self.pool[trial.genotype] = value

    def _unseen(self, known: Iterable[Genotype] = ()) -> Genotype | None:
        """A random architecture that is new and not among ``known``; None if there is hardly any."""
        genotype = draw_unseen(self, self._seen.union(known))
        self._short = self._short or genotype is None
        return genotype

    def _drop_seen(self) -> None:
        """Forget what waited and became a trial, from here or by being put in from outside."""
        while self._waiting and self._waiting[0] in self._seen:
            self._waiting.popleft()

    def _next_round(self) -> list[Genotype]:
        """New architectures, those of the smallest step first; random ones where there are not enough."""
        if self._short and is_exhausted(self.space, self._seen):
            return []
        self._n_rounds += 1
        found = dict.fromkeys(self._decoded() if self.pool else ())
        while len(found) < self._n_new and (genotype := self._unseen(found)) is not None:
            found[genotype] = None
        return list(found)

    def _decoded(self) -> list[Genotype]:
        """Up to ``n_new`` new architectures along the gradient from the best of the pool."""
        model = self.model = self._trained()
        best = sorted(self.pool, key=lambda genotype: -self.pool[genotype])[: self._n_best]
        genes = torch.tensor(best)
        found: dict[Genotype, None] = {}
        for step in range(1, self._max_step + 1):
            code, _ = model.ascend(genes, step)
            for genotype in genotypes_of(model.decode(code)):
                if genotype not in self._seen and self.space.is_valid(genotype):
                    found[genotype] = None
            if len(found) >= self._n_new:
                break
        return list(found)[: self._n_new]

    def _trained(self) -> NAOModel:
        """Encoder, predictor and decoder of the present pool."""
        least, most = min(self.pool.values()), max(self.pool.values())
        genotypes: list[Genotype] = []
        values: list[float] = []
        for genotype, value in self.pool.items():
            others = (other for other in self.space.spellings(genotype) if other != genotype)
            spellings = [genotype, *islice(others, self._augment)]
            genotypes += spellings
            values += [(value - least) / (most - least) if most > least else 0.5] * len(spellings)
        seeds = [
            derive_seed(self.seed, "searcher", self.name, part, self._n_rounds) for part in ("weights", "training")
        ]
        model = NAOModel(self.space.choices, self._sizes, seed=seeds[0])
        model.fit(torch.tensor(genotypes), torch.tensor(values), self._training, seed=seeds[1])
        return model
