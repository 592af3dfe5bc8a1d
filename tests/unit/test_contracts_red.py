"""Every test of the contracts of spaces and strategies fails for something that breaks just what it guards."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable

import numpy as np
import pytest
from torch import nn

from naswot.errors import NoActivationError
from naswot.searcher import Proposal, Searcher
from naswot.testing.searcher_contract import SearcherContract
from naswot.testing.space_contract import SpaceContract
from naswot.testing.toy_space import ToySpace

Refused = pytest.fail.Exception
"""What ``pytest.raises`` raises where nothing was raised."""


class Honest(Searcher):
    """Random search that remembers; keeps the whole contract."""

    name, reference = "honest", "none"

    def __init__(self, space, *, seed=0, n_objectives=1):
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        self.known = []

    def propose(self):
        return Proposal(self.draw())

    def learn(self, trial, values):
        self.known.append((trial.genotype, values))


class BadName(Honest):
    name = "Bad name"


class NoEpochs(Honest):
    def propose(self):
        return Proposal(self.draw(), epochs=0)


class Unseeded(Honest):
    def propose(self):
        return Proposal(self.space.sample(np.random.default_rng()))


class DeafToSeed(Honest):
    def __init__(self, space, *, seed=0, n_objectives=1):
        super().__init__(space, seed=0, n_objectives=n_objectives)


class GlobalDraws(Honest):
    def propose(self):
        return Proposal(self.space.sample(np.random.default_rng(random.randrange(1000))))


class LearnsAsTold(Honest):
    def tell(self, trial, values):
        super().tell(trial, values)
        self.last = trial

    def propose(self):
        last = getattr(self, "last", None)
        return super().propose() if last is None else Proposal(self.space.mutate(last.genotype, self.rng))


class EndsAndGoesOn(Honest):
    calls = 0

    def propose(self):
        self.calls += 1
        return super().propose() if self.calls % 2 == 0 else None


class NeedsValues(Honest):
    def learn(self, trial, values):
        super().learn(trial, float(values[0]))


class NeedsOneValue(Honest):
    def propose(self):
        if self.n_asked < 5:
            return super().propose()
        return Proposal(max((values, genotype) for genotype, values in self.known if values is not None)[1])


class NeedsFiniteValues(Honest):
    def learn(self, trial, values):
        super().learn(trial, None if values is None else round(values[0]))


class NeedsDifferentValues(Honest):
    def propose(self):
        values = [values[0] for _, values in self.known if values is not None]
        if len(values) > 5:
            1 / (max(values) - min(values))
        return super().propose()


class TakesNaN(Honest):
    def tell(self, trial, values):
        super().tell(trial, 0.0 if isinstance(values, float) and values != values else values)


class TakesAnyNumber(Honest):
    def tell(self, trial, values):
        super().tell(trial, 0.0 if isinstance(values, tuple) else values)


class TakesStrangers(Honest):
    def tell(self, trial, values):
        if trial.number in self._open:
            super().tell(self._open[trial.number], values)


class IgnoresWhatIsPutIn(Honest):
    def propose(self):
        return Proposal(self.space.sample(self.rng))


class PutsInAnything(Honest):
    def enqueue(self, genotypes):
        self._enqueued.extend(genotypes)


class LooksWithoutEnd(Honest):
    def propose(self):
        genotype = self.draw()
        while genotype in {known for known, _ in self.known}:
            genotype = self.draw()
        return Proposal(genotype)


class TooManyAlternatives(Honest):
    def candidates(self, n):
        return super().candidates(n + 1)


class AnyNumberOfObjectives(Honest):
    def __init__(self, space, *, seed=0, n_objectives=1):
        super().__init__(space, seed=seed)
        self.n_objectives = n_objectives


class ClimbsDown(Honest):
    def propose(self):
        if self.n_asked < 1:
            return super().propose()
        return Proposal(self.space.mutate(min(self.known, key=lambda pair: pair[1])[0], self.rng))


SEARCHERS = {
    "test_declaration": (BadName, AssertionError),
    "test_trials_are_valid_plain_and_numbered": (NoEpochs, AssertionError),
    "test_same_seed_same_search": (Unseeded, AssertionError),
    "test_other_seed_other_search": (DeafToSeed, AssertionError),
    "test_global_generators_play_no_part": (GlobalDraws, AssertionError),
    "test_order_of_telling_plays_no_part": (LearnsAsTold, AssertionError),
    "test_four_workers_in_any_order": (EndsAndGoesOn, AssertionError),
    "test_some_trials_fail": (NeedsValues, TypeError),
    "test_all_trials_fail": (NeedsOneValue, ValueError),
    "test_the_worst_value": (NeedsFiniteValues, OverflowError),
    "test_equal_and_large_values": (NeedsDifferentValues, ZeroDivisionError),
    "test_nan_is_refused": (TakesNaN, Refused),
    "test_wrong_number_of_values_is_refused": (TakesAnyNumber, Refused),
    "test_trials_that_are_not_open_are_refused": (TakesStrangers, Refused),
    "test_architectures_put_in_come_first": (IgnoresWhatIsPutIn, AssertionError),
    "test_what_the_space_does_not_contain_is_not_put_in": (PutsInAnything, Refused),
    "test_tiny_space_ends_or_repeats": (LooksWithoutEnd, AssertionError),
    "test_alternatives": (TooManyAlternatives, AssertionError),
    "test_number_of_objectives": (AnyNumberOfObjectives, Refused),
    "test_better_than_bad_luck": (ClimbsDown, AssertionError),
}


class BadSpaceName(ToySpace):
    name = "Bad name"


class NumpyGenes(ToySpace):
    def sample(self, rng):
        return tuple(np.array(super().sample(rng)))


class ForgetsAGene(ToySpace):
    def format(self, genotype):
        return super().format((*genotype[:-1], 0))


class ReadsAnything(ToySpace):
    def parse(self, text):
        try:
            return super().parse(text)
        except ValueError:
            return (0,) * len(self.choices)


class ReadsWithoutHead(ToySpace):
    def parse(self, text):
        return super().parse("toy:" + text.rpartition(":")[2])


class NoUpperBound(ToySpace):
    def is_valid(self, genotype):
        return len(genotype) == len(self.choices) and all(gene >= 0 for gene in genotype)


class Backwards(ToySpace):
    def genotypes(self):
        return iter(list(super().genotypes())[::-1])


class TwoAtOnce(ToySpace):
    def mutate(self, genotype, rng):
        once = super().mutate(genotype, rng)
        return next(g for g in self.neighbours(once) if g not in self.neighbours(genotype) and g != genotype)


class OneDirection(ToySpace):
    def mutate(self, genotype, rng):
        i = int(rng.integers(len(genotype)))
        return (*genotype[:i], (genotype[i] + 1) % self.choices[i], *genotype[i + 1 :])


class OneNeighbourLess(ToySpace):
    def neighbours(self, genotype):
        return super().neighbours(genotype)[1:]


class StrangeChildren(ToySpace):
    def crossover(self, first, second, rng):
        return self.sample(rng)


class DoubleCodes(ToySpace):
    def encode(self, genotype):
        return super().encode(genotype).astype(np.float64)


class NewKeys(ToySpace):
    def pruned(self, genotype):
        return object()


class AlwaysTenClasses(ToySpace):
    def build(self, genotype, *, n_classes=10, in_channels=3):
        return super().build(genotype, in_channels=in_channels)


class SameWeights(ToySpace):
    def build(self, genotype, *, n_classes=10, in_channels=3):
        model = super().build(genotype, n_classes=n_classes, in_channels=in_channels)
        for parameter in model.parameters():
            nn.init.ones_(parameter)
        return model


class NoActivation(ToySpace):
    def build(self, genotype, *, n_classes=10, in_channels=3):
        return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 16, n_classes))


SPACES = {
    "test_declaration": (BadSpaceName, AssertionError),
    "test_samples_are_valid_plain_and_seeded": (NumpyGenes, AssertionError),
    "test_strings_read_back": (ForgetsAGene, AssertionError),
    "test_strings_of_no_architecture_are_refused": (ReadsAnything, Refused),
    "test_damaged_strings_are_refused_or_mean_something_else": (ReadsWithoutHead, AssertionError),
    "test_check_refuses_what_the_space_does_not_contain": (NoUpperBound, AssertionError),
    "test_genotypes_are_listed_in_order": (Backwards, AssertionError),
    "test_mutation_changes_one_place": (TwoAtOnce, AssertionError),
    "test_mutation_reaches_every_neighbour": (OneDirection, AssertionError),
    "test_neighbours": (OneNeighbourLess, AssertionError),
    "test_crossover_takes_each_place_from_a_parent": (StrangeChildren, AssertionError),
    "test_encoding_is_one_hot": (DoubleCodes, AssertionError),
    "test_keys_are_stable": (NewKeys, AssertionError),
    "test_networks_give_logits": (AlwaysTenClasses, AssertionError),
    "test_networks_depend_on_the_generator_alone": (SameWeights, AssertionError),
    "test_networks_can_be_scored": (NoActivation, NoActivationError),
}
ARGUMENTS = {"text": "nonsense", "n_classes": 7, "in_channels": 3}


def names_of(contract: type) -> list[str]:
    """Names of the tests of a contract."""
    return [name for name in dir(contract) if name.startswith("test_")]


def apply(contract: type, name: str, **given: object) -> None:
    """Run one test of a contract, without fixtures."""
    method: Callable[..., None] = getattr(contract(), name)
    known = {**ARGUMENTS, **given}
    method(**{argument: known[argument] for argument in inspect.signature(method).parameters})


def with_searcher(name: str, cls: type[Searcher]) -> None:
    """One test of a strategy, on the toy space."""
    apply(SearcherContract, name, build=cls, space=ToySpace())


@pytest.mark.parametrize("contract", [SearcherContract, SpaceContract])
def test_every_contract_test_has_a_saboteur(contract):
    """A new test of a contract is to be shown red here."""
    assert set(names_of(contract)) == set(SEARCHERS if contract is SearcherContract else SPACES)


@pytest.mark.parametrize("name", SEARCHERS)
def test_honest_searcher_passes(name):
    with_searcher(name, Honest)


@pytest.mark.parametrize("name", SEARCHERS)
def test_broken_searcher_fails(name):
    saboteur, error = SEARCHERS[name]
    with pytest.raises(error):
        with_searcher(name, saboteur)


@pytest.mark.parametrize("name", SPACES)
def test_honest_space_passes(name):
    apply(SpaceContract, name, space=ToySpace())


@pytest.mark.parametrize("name", SPACES)
def test_broken_space_fails(name):
    saboteur, error = SPACES[name]
    with pytest.raises(error):
        apply(SpaceContract, name, space=saboteur())
