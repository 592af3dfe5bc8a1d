"""The generic search space: drawing, mutating and crossing come to an end also where nothing fits."""

from __future__ import annotations

import pytest
from reference.policy_toys import Toy

import naswot.space
from naswot.errors import EmptySpaceError, OptionError
from naswot.seeding import numpy_generator


class Few(Toy):
    """Three positions of which only the listed genotypes are valid."""

    name = "few"
    choices = (2, 3, 2)

    def __init__(self, *valid):
        self.valid = valid

    def is_valid(self, genotype):
        return super().is_valid(genotype) and genotype in self.valid


def test_an_empty_space_ends_with_an_error_in_words():
    with pytest.raises(
        EmptySpaceError, match=r"no valid genotype of few in 100000 draws: the space is empty"
    ) as caught:
        Few().sample(numpy_generator(0))
    assert isinstance(caught.value, OptionError)


def test_a_rare_genotype_is_still_found():
    assert Few((1, 2, 0)).sample(numpy_generator(0)) == (1, 2, 0)


def test_a_genotype_without_neighbours_cannot_be_mutated():
    with pytest.raises(EmptySpaceError, match=r"\(0, 0, 0\) of few has no valid neighbour"):
        Few((0, 0, 0), (1, 1, 1)).mutate((0, 0, 0), numpy_generator(0))


def test_a_space_without_any_choice_cannot_be_mutated():
    space = Few((0, 0, 0))
    space.choices = (1, 1, 1)
    with pytest.raises(EmptySpaceError, match="has no valid neighbour"):
        space.mutate((0, 0, 0), numpy_generator(0))


def test_a_lone_neighbour_is_found_however_long_it_takes(monkeypatch):
    monkeypatch.setattr(naswot.space, "_CHECK", 1)  # look for neighbours after every failed draw
    space = Few((0, 0, 0), (0, 2, 0))
    assert {space.mutate((0, 0, 0), numpy_generator(seed)) for seed in range(20)} == {(0, 2, 0)}


def test_parents_without_a_valid_mixture_end_too(monkeypatch):
    class Fickle(Few):
        """Valid for the parents' check only."""

        def is_valid(self, genotype):
            self.asked = getattr(self, "asked", 0) + 1
            return self.asked <= 2

    monkeypatch.setattr(naswot.space, "_TRIES", 50)
    with pytest.raises(EmptySpaceError, match=r"no valid child of \(0, 0, 0\) and \(1, 1, 1\) of few in 50 draws"):
        Fickle().crossover((0, 0, 0), (1, 1, 1), numpy_generator(0))
