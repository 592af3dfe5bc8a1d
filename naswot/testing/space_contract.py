"""The contract of a search space.

Example:
    A test file of three lines covers a plug-in::

        from naswot.testing.space_contract import SpaceContract
        class TestMine(SpaceContract):
            name = "my_space"
"""

from __future__ import annotations

import itertools
import math
import re
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from naswot.errors import ArchitectureError, NoActivationError
from naswot.scoring import score
from naswot.seeding import numpy_generator, seeded, torch_generator
from naswot.space import SearchSpace, get_space
from naswot.types import Genotype


def is_plain(genotype: object) -> bool:
    """Whether a genotype is a tuple of Python integers (not numpy's, not booleans)."""
    return type(genotype) is tuple and all(type(gene) is int for gene in genotype)


def differences(first: Genotype, second: Genotype) -> int:
    """Number of positions in which two genotypes differ."""
    return sum(a != b for a, b in zip(first, second, strict=True))


class SpaceContract:
    """Subclass with ``name``, or parametrise the argument ``space``."""

    name: ClassVar[str]
    n_samples: ClassVar[int] = 40
    n_built: ClassVar[int] = 2

    @pytest.fixture
    def space(self) -> SearchSpace:
        """The space under test."""
        return get_space(self.name)

    def samples(self, space: SearchSpace, n: int | None = None, *, seed: int = 0) -> list[Genotype]:
        """Some genotypes."""
        rng = numpy_generator(seed)
        return [space.sample(rng) for _ in range(n or self.n_samples)]

    def test_declaration(self, space: SearchSpace) -> None:
        """Name, reference and a choice at some position."""
        assert re.fullmatch(r"[a-z][a-z0-9_]*", space.name)
        assert space.reference
        assert is_plain(space.choices)
        assert all(n >= 1 for n in space.choices)
        assert space.size == math.prod(space.choices) > 1

    def test_samples_are_valid_plain_and_seeded(self, space: SearchSpace) -> None:
        """And more than one comes."""
        samples = self.samples(space)
        assert all(is_plain(genotype) and space.is_valid(genotype) for genotype in samples)
        assert samples == self.samples(space)
        assert samples != self.samples(space, seed=1)
        assert len(set(samples)) > 1

    def test_strings_read_back(self, space: SearchSpace) -> None:
        """``parse`` undoes ``format``, and different genotypes have different strings."""
        samples = set(self.samples(space))
        strings = {space.format(genotype): genotype for genotype in samples}
        assert len(strings) == len(samples)
        for text, genotype in strings.items():
            assert isinstance(text, str)
            assert space.parse(text) == genotype
            assert is_plain(space.parse(text))

    @pytest.mark.parametrize("text", ["", "nonsense", "|", "0", "[]"])
    def test_strings_of_no_architecture_are_refused(self, space: SearchSpace, text: str) -> None:
        """By an error that shows the string."""
        with pytest.raises(ArchitectureError):
            space.parse(text)

    def test_damaged_strings_are_refused_or_mean_something_else(self, space: SearchSpace) -> None:
        """Leaving out a character or the end never gives the same architecture in silence, nor a bare error."""
        genotype = self.samples(space, 1)[0]
        text = space.format(genotype)
        shorter = [text[:i] + text[i + 1 :] for i in range(len(text)) if not text[i].isspace()]
        for damaged in [*shorter, *(text[:i] for i in range(len(text.rstrip())))]:
            try:
                read = space.parse(damaged)
            except ArchitectureError:
                continue
            assert space.is_valid(read)
            assert read != genotype

    def test_check_refuses_what_the_space_does_not_contain(self, space: SearchSpace) -> None:
        """Wrong lengths, options out of range."""
        genotype = self.samples(space, 1)[0]
        of_numpy: tuple[Any, ...] = tuple(np.array(genotype))
        assert space.check(of_numpy) == genotype
        assert is_plain(space.check(of_numpy))
        for wrong in (genotype[:-1], (*genotype, 0), (space.choices[0], *genotype[1:]), (-1, *genotype[1:]), ()):
            assert not space.is_valid(wrong)
            with pytest.raises(ArchitectureError, match=re.escape(space.name)):
                space.check(wrong)

    def test_genotypes_are_listed_in_order(self, space: SearchSpace) -> None:
        """Valid, plain, without repetition."""
        first = list(itertools.islice(space.genotypes(), 200))
        assert first == sorted(set(first))
        assert all(is_plain(genotype) and space.is_valid(genotype) for genotype in first)

    def test_mutation_changes_one_place(self, space: SearchSpace) -> None:
        """To a valid neighbour, by the generator handed in."""
        for genotype in self.samples(space):
            changed = space.mutate(genotype, numpy_generator(5))
            assert is_plain(changed)
            assert space.is_valid(changed)
            assert differences(genotype, changed) == 1
            assert changed == space.mutate(genotype, numpy_generator(5))

    def test_mutation_reaches_every_neighbour(self, space: SearchSpace) -> None:
        """And nothing but neighbours."""
        rng, genotype = numpy_generator(0), self.samples(space, 1)[0]
        neighbours = set(space.neighbours(genotype))
        reached = {space.mutate(genotype, rng) for _ in range(30 * len(neighbours))}
        assert reached == neighbours

    def test_neighbours(self, space: SearchSpace) -> None:
        """All valid genotypes one change away, each once: sum of (options - 1) where the space is not constrained."""
        for genotype in self.samples(space, 5):
            neighbours = space.neighbours(genotype)
            candidates = [
                (*genotype[:i], option, *genotype[i + 1 :])
                for i, n in enumerate(space.choices)
                for option in range(n)
                if option != genotype[i]
            ]
            assert len(candidates) == sum(n - 1 for n in space.choices)
            assert sorted(neighbours) == sorted(g for g in candidates if space.is_valid(g))
            assert all(is_plain(neighbour) for neighbour in neighbours)

    def test_crossover_takes_each_place_from_a_parent(self, space: SearchSpace) -> None:
        """Valid, plain and seeded."""
        samples = self.samples(space)
        for first, second in itertools.pairwise(samples):
            child = space.crossover(first, second, numpy_generator(2))
            assert is_plain(child)
            assert space.is_valid(child)
            assert all(gene in pair for gene, pair in zip(child, zip(first, second, strict=True), strict=True))
            assert child == space.crossover(first, second, numpy_generator(2))
        assert space.crossover(samples[0], samples[0], numpy_generator(0)) == samples[0]

    def test_encoding_is_one_hot(self, space: SearchSpace) -> None:
        """(sum(choices),) float32 with a single 1 in the block of each position."""
        for genotype in self.samples(space, 5):
            code = space.encode(genotype)
            assert code.shape == (sum(space.choices),)
            assert code.dtype == np.float32
            blocks = np.split(code, np.cumsum(space.choices)[:-1])
            assert [int(block.argmax()) for block in blocks] == list(genotype)
            assert all(sorted(block) == [0.0] * (len(block) - 1) + [1.0] for block in blocks)

    def test_keys_are_stable(self, space: SearchSpace) -> None:
        """The keys of isomorphic architectures can be looked up and do not change; pruning only merges classes."""
        for genotype in self.samples(space):
            for key in (space.canonical, space.pruned):
                assert hash(key(genotype)) == hash(key(genotype))
                assert key(genotype) == key(space.parse(space.format(genotype)))

    @pytest.mark.parametrize(("n_classes", "in_channels"), [(7, 3), (10, 1)])
    def test_networks_give_logits(self, space: SearchSpace, n_classes: int, in_channels: int) -> None:
        """(N, n_classes), for any number of classes and input channels."""
        inputs = space.example_inputs(2, n_classes=n_classes, in_channels=in_channels, generator=torch_generator(0))
        for genotype in self.samples(space, self.n_built):
            with seeded(0), torch.no_grad():
                logits = space.build(genotype, n_classes=n_classes, in_channels=in_channels).eval()(inputs)
            assert logits.shape == (2, n_classes)
            assert torch.isfinite(logits).all()

    def test_networks_depend_on_the_generator_alone(self, space: SearchSpace) -> None:
        """The same seed builds the same weights, another one others; building draws from torch's generator only."""
        genotype = self.samples(space, 1)[0]
        states = []
        for seed in (0, 0, 1):
            with seeded(seed):
                states.append(space.build(genotype).state_dict())
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
        assert any(not torch.equal(value, states[2][key]) for key, value in states[0].items())

    def test_networks_can_be_scored(self, space: SearchSpace) -> None:
        """A number, or -inf; cells that read tokens may have no activation that counts, but not all of them."""
        inputs = space.example_inputs(3, generator=torch_generator(0))
        scores = []
        for genotype in self.samples(space, self.n_built):
            with seeded(0):
                model = space.build(genotype)
            try:
                scores.append(score(model, inputs))
            except NoActivationError:
                if space.input_kind == "images":
                    raise
        assert scores
        assert max(scores) < math.inf
