"""Every test of the contract of supernets fails for something that breaks just what it guards."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import nn

from naswot.errors import OptionError
from naswot.seeding import seeded
from naswot.space import get_space
from naswot.supernet import Mixing
from naswot.supernets._edges import MixedEdge
from naswot.supernets.nasbench201 import NASBench201Supernet
from naswot.testing.supernet_contract import SupernetContract

Refused = pytest.fail.Exception
"""What ``pytest.raises`` raises where nothing was raised."""


class Honest(NASBench201Supernet):
    """Keeps the whole contract."""


class MoreAlphas(Honest):
    def __init__(self, space, **options):
        super().__init__(space, **options)
        self.alphas["more"] = nn.Parameter(torch.zeros(1))


class DoubleTables(Honest):
    def chosen(self, genotype):
        return {name: table.double() for name, table in super().chosen(genotype).items()}


class RowsUpsideDown(Honest):
    def chosen(self, genotype):
        return {name: table.flip(0) for name, table in super().chosen(genotype).items()}


class TensorGenes(Honest):
    def derive(self, strengths):
        return tuple(strengths["cell"].argmax(1))


class LastOfEqual(Honest):
    def derive(self, strengths):
        last = strengths["cell"].shape[1] - 1
        return tuple((last - self.takeable(strengths, "cell").flip(1).argmax(1)).tolist())


class AlwaysTenClasses(Honest):
    def __init__(self, space, *, n_classes=10, **options):
        super().__init__(space, n_classes=10 if n_classes else 0, **options)


class RunsEverything(Honest):
    def forward(self, inputs, mixing):
        return super().forward(inputs, replace(mixing, active=None))


class NothingWeighsNothing(Honest):
    def forward(self, inputs, mixing):
        if mixing.active is None:
            mixing = Mixing({name: table + 0.1 for name, table in mixing.weights.items()})
        return super().forward(inputs, mixing)


class InactiveWeightsLost(Honest):
    def forward(self, inputs, mixing):
        return super().forward(inputs, replace(mixing, inactive_weights=False))


class DeafRow(Honest):
    def forward(self, inputs, mixing):
        table = mixing.weights["cell"]
        weights = {**mixing.weights, "cell": torch.cat([table[:1].detach(), table[1:]])}
        return super().forward(inputs, replace(mixing, weights=weights))


class UnusedLayer(Honest):
    def __init__(self, space, **options):
        super().__init__(space, **options)
        self.unused = nn.Linear(2, 2)


class SecondSoftmax(MixedEdge):
    def forward(self, x, mixing):
        return super().forward(
            x, replace(mixing, weights={name: torch.softmax(t, 1) for name, t in mixing.weights.items()})
        )


class TwoSoftmaxes(Honest):
    def __init__(self, space, **options):
        super().__init__(space, **options)
        for module in self.modules():
            if isinstance(module, MixedEdge):
                module.__class__ = SecondSoftmax


class DropsInEvaluation(Honest):
    def forward(self, inputs, mixing):
        return nn.functional.dropout(super().forward(inputs, mixing))


class ActivatesACopy(Honest):
    @contextmanager
    def activate(self, genotype):
        yield self.extract(genotype)


class ForgetsStatistics(Honest):
    def extract(self, genotype):
        alone = super().extract(genotype)
        for layer in alone.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.reset_running_stats()
        return alone


class ExtractsItself(Honest):
    def extract(self, genotype):
        return self.at(self.mixing_of(genotype))


class AlphasAmongWeights(Honest):
    def weight_parameters(self):
        return list(self.parameters())


class LoadsNoStatistics(Honest):
    def load_state_dict(self, state, **options):
        kept = {name: value for name, value in state.items() if "running" not in name}
        return super().load_state_dict(kept, **{**options, "strict": False})


class HoldsAFunction(Honest):
    def __init__(self, space, **options):
        super().__init__(space, **options)
        self.function = lambda x: x


class NeverTheSame(Honest):
    def __init__(self, space, **options):
        super().__init__(space, **options)
        generator = torch.Generator()
        generator.seed()
        nn.init.normal_(self.classifier.weight, generator=generator)


class DerivesAnything(Honest):
    def derive(self, strengths):
        return tuple(strengths["cell"].argmax(1).tolist())


class NoClassesAreOne(Honest):
    def __init__(self, space, *, n_classes=10, **options):
        super().__init__(space, n_classes=max(1, n_classes), **options)


class EdgesAlike(Honest):
    def forward(self, inputs, mixing):
        return super().forward(inputs, replace(mixing, weights={"cell": mixing.weights["cell"]}))


SABOTEURS = {
    "test_declaration": (MoreAlphas, AssertionError),
    "test_tables_of_an_architecture": (DoubleTables, AssertionError),
    "test_architectures_read_back": (RowsUpsideDown, AssertionError),
    "test_any_strengths_give_an_architecture": (TensorGenes, AssertionError),
    "test_ties_go_to_the_first_option": (LastOfEqual, AssertionError),
    "test_logits": (AlwaysTenClasses, AssertionError),
    "test_only_what_is_chosen_is_executed": (RunsEverything, AssertionError),
    "test_what_weighs_nothing_may_be_left_out": (NothingWeighsNothing, AssertionError),
    "test_weights_that_are_not_executed_carry_a_gradient": (InactiveWeightsLost, AssertionError),
    "test_gradient_reaches_every_alpha": (DeafRow, AssertionError),
    "test_every_weight_learns": (UnusedLayer, AssertionError),
    "test_mixed_edges_are_linear": (TwoSoftmaxes, AssertionError),
    "test_evaluation_is_deterministic": (DropsInEvaluation, AssertionError),
    "test_activated_weights_are_those_of_the_supernet": (ActivatesACopy, AssertionError),
    "test_extracted_network_computes_the_same": (ForgetsStatistics, AssertionError),
    "test_extracted_network_stands_alone": (ExtractsItself, AssertionError),
    "test_alphas_are_parameters_apart": (AlphasAmongWeights, AssertionError),
    "test_state_is_restored": (LoadsNoStatistics, AssertionError),
    "test_copies_compute_the_same": (HoldsAFunction, (AttributeError, pickle.PicklingError)),
    "test_seed_decides_the_weights": (NeverTheSame, AssertionError),
    "test_options_that_are_not_allowed": (DerivesAnything, AssertionError),
    "test_what_does_not_fit_is_refused": (NoClassesAreOne, Refused),
    "test_partial_channels_and_weights_of_edges": (EdgesAlike, AssertionError),
}
ARGUMENTS = {"n": 2, "size": 8, "n_classes": 3, "in_channels": 3}


def builder(cls):
    """Makes a supernet of a class as ``make_supernet`` would."""

    def build(*, seed=0, **more):
        with seeded(seed):
            try:
                return cls(get_space("nasbench201"), **{"n_classes": 4, "width": 4, "n_cells": 1, **more})
            except TypeError as error:
                raise OptionError(str(error)) from error

    return build


def apply(name, cls):
    """Run one test of the contract, without fixtures."""
    method: Callable[..., None] = getattr(SupernetContract(), name)
    known = {**ARGUMENTS, "build": builder(cls)}
    method(**{argument: known[argument] for argument in inspect.signature(method).parameters})


def test_every_contract_test_has_a_saboteur():
    """A new test of the contract is to be shown red here."""
    assert {name for name in dir(SupernetContract) if name.startswith("test_")} == set(SABOTEURS)


@pytest.mark.parametrize("name", SABOTEURS)
def test_honest_supernet_passes(name):
    apply(name, Honest)


@pytest.mark.parametrize("name", SABOTEURS)
def test_broken_supernet_fails(name):
    saboteur, error = SABOTEURS[name]
    with pytest.raises(error):
        apply(name, saboteur)
