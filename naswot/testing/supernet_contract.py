"""The contract of a supernet.

Example:
    A test file of a few lines covers a plug-in, whose entry point is in the group ``naswot.supernets``::

        from naswot.testing.supernet_contract import SupernetContract
        class TestMine(SupernetContract):
            name = "my_space"
            def options(self, name):
                return {"width": 4, "n_cells": 1}  # what keeps the tests short
"""

from __future__ import annotations

import copy
import pickle
from contextlib import ExitStack
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from naswot.differentiable.relaxations import softmax_weights
from naswot.errors import OptionError
from naswot.seeding import numpy_generator, seeded, torch_generator
from naswot.supernet import MixedSupernet, Mixing, make_supernet, only_chosen
from naswot.supernets._edges import MixedEdge
from naswot.testing import _supernet_tools as tools
from naswot.testing._supernet_tools import Build, logits, same_tables
from naswot.testing.space_contract import is_plain
from naswot.types import Genotype

_LARGE = 7.0  # a strength above all random ones


class SupernetContract:
    """Subclass with ``name``, that of a space, or override the fixture ``build``."""

    name: ClassVar[str]
    n_samples: ClassVar[int] = 20
    n_classes: ClassVar[int] = 4
    size: ClassVar[int] = 8
    """Height and width of the images."""
    random_options: ClassVar[tuple[str, ...]] = ("noise",)
    """Options that draw random numbers in evaluation too; networks with others are compared where that would show."""

    def options(self, name: str) -> dict[str, Any]:  # noqa: ARG002
        """Options of the supernet of a space that keep the tests short."""
        return {}

    def inputs(self, supernet: MixedSupernet, n: int = 4, **shape: int) -> Any:
        """Inputs of a supernet: images of ``size`` and ``in_channels``, or what its space gives as an example."""
        return tools.example_inputs(supernet.space, n, **({"n_classes": self.n_classes, "size": self.size} | shape))

    def builder(self, name: str) -> Build:
        """What makes the supernet of the space of that name."""

        def make(*, seed: int = 0, **more: Any) -> MixedSupernet:
            with seeded(seed):
                return make_supernet(name, **{"n_classes": self.n_classes, **self.options(name), **more})

        return make

    @pytest.fixture
    def build(self) -> Build:
        """Makes the supernet under test."""
        return self.builder(self.name)

    def samples(self, supernet: MixedSupernet, n: int | None = None) -> list[Genotype]:
        """Random architectures of its space."""
        rng = numpy_generator(0)
        return [supernet.space.sample(rng) for _ in range(n or self.n_samples)]

    def quiet(self, supernet: MixedSupernet) -> dict[str, Tensor]:
        """Random strengths, 0 for options that draw random numbers."""
        return tools.without(self.random_options, supernet, tools.random_strengths(supernet))

    def test_declaration(self, build: Build) -> None:
        """Groups of different names and options, alphas of their shapes, everything allowed unless said otherwise."""
        supernet = build()
        names = [group.name for group in supernet.groups]
        assert isinstance(supernet, MixedSupernet)
        assert len(set(names)) == len(names)
        assert all(name.isidentifier() for name in names)
        assert supernet.operation_groups
        assert list(supernet.alphas) == names
        for group in supernet.groups:
            assert group.kind in ("operation", "edge")
            assert all(len(set(row)) == len(row) >= 1 for row in group.options)
            assert supernet.alphas[group.name].shape == group.shape
            assert torch.equal(supernet.allowed(group.name), group.present())

    def test_tables_of_an_architecture(self, build: Build) -> None:
        """0 and 1, at most one operation in a row, nothing that there is not; other architectures have other tables."""
        supernet = build()
        kinds = {group.name: group.kind for group in supernet.groups}
        known: dict[object, object] = {}
        for genotype in self.samples(supernet):
            tables = supernet.chosen(genotype)
            assert {group.name for group in supernet.operation_groups} <= set(tables) <= set(kinds)
            for name, table in tables.items():
                assert table.dtype == torch.float32
                assert table.shape == supernet.alphas[name].shape
                assert set(table.unique().tolist()) <= {0.0, 1.0}
                assert not (table.bool() & ~supernet.allowed(name)).any()
                assert kinds[name] == "edge" or float(table.sum(1).max()) == 1.0
            key = tuple(tuple(table.flatten().tolist()) for table in tables.values())
            assert known.setdefault(key, supernet.space.canonical(genotype)) == supernet.space.canonical(genotype)

    def test_architectures_read_back(self, build: Build) -> None:
        """What is derived from the tables of an architecture is the same one, up to what the network leaves out."""
        supernet = build()
        for genotype in self.samples(supernet):
            derived = supernet.derive(supernet.chosen(genotype))
            assert supernet.space.canonical(derived) == supernet.space.canonical(genotype)
            assert same_tables(supernet.chosen(derived), supernet.chosen(genotype))

    def test_any_strengths_give_an_architecture(self, build: Build) -> None:
        """Valid and plain, whatever their scale, with those of edges or not; more for what is chosen alters nothing."""
        supernet = build()
        for seed in range(self.n_samples):
            strengths = tools.random_strengths(supernet, seed)
            before = {name: table.clone() for name, table in strengths.items()}
            derived = supernet.derive(strengths)
            assert is_plain(derived)
            assert supernet.space.is_valid(derived)
            assert supernet.derive({name: 0.25 * table for name, table in strengths.items()}) == derived
            more = {name: strengths[name] + _LARGE * table for name, table in supernet.chosen(derived).items()}
            assert supernet.derive(strengths | more) == derived
            operations = {group.name: strengths[group.name] for group in supernet.operation_groups}
            assert supernet.space.is_valid(supernet.derive(operations))
            assert same_tables(strengths, before)

    def test_ties_go_to_the_first_option(self, build: Build) -> None:
        """As if each option and row were a little weaker than the one before."""
        supernet = build()
        equal = {group.name: group.present().float() for group in supernet.groups}
        tilted = {}
        for group in supernet.groups:
            rows, options = (torch.arange(n) for n in group.shape)
            tilted[group.name] = group.present() * (1 - 1e-2 * options - 1e-4 * rows[:, None])
        assert supernet.derive(equal) == supernet.derive(tilted)

    @pytest.mark.parametrize(
        ("n", "size", "n_classes", "in_channels"), [(2, 8, 3, 3), (1, 5, 7, 1), (3, 16, 2, 4)], ids=str
    )
    def test_logits(self, build: Build, n: int, size: int, n_classes: int, in_channels: int) -> None:
        """(N, K), finite, of the whole mixture and of one architecture, for any shape of the inputs."""
        supernet = build(n_classes=n_classes, in_channels=in_channels).eval()
        inputs = self.inputs(supernet, n, n_classes=n_classes, size=size, in_channels=in_channels)
        for mixing in (Mixing(softmax_weights(supernet)), supernet.mixing_of(self.samples(supernet, 1)[0])):
            found = logits(supernet, inputs, mixing)
            assert found.shape == (n, n_classes)
            assert torch.isfinite(found).all()

    def test_only_what_is_chosen_is_executed(self, build: Build) -> None:
        """Counted by hooks: the chosen operations of every mixed edge, all weights that are extracted, no others."""
        supernet = build().eval()
        inputs = self.inputs(supernet)
        for genotype in self.samples(supernet, 3):
            with supernet.activate(genotype) as model:
                seen = tools.executed(supernet, model, inputs)
            weights = [w for part in supernet.modules() if id(part) in seen for w in part.parameters(recurse=False)]
            assert tools.number_of(weights) == tools.number_of(supernet.extract(genotype).parameters())
            tables = supernet.chosen(genotype)
            for edge in (part for part in supernet.modules() if isinstance(part, MixedEdge)):
                run = {int(number) for number, operation in edge.operations.items() if id(operation) in seen}
                assert run == set(tables[edge.group][edge.row].nonzero()[:, 0].tolist())

    def test_what_weighs_nothing_may_be_left_out(self, build: Build) -> None:
        """Options of weight 0, computed or not: the same logits, of a mixture and of one architecture."""
        supernet = build().eval()
        inputs = self.inputs(supernet)
        weights = {name: table.detach() for name, table in softmax_weights(supernet).items()}
        strengths = self.quiet(supernet)
        for group in supernet.operation_groups:
            table = strengths[group.name]
            weights[group.name] = tools.on_simplex(table * (table > table.max(1, keepdim=True).values / 2))
        active = only_chosen({group.name: weights[group.name] for group in supernet.operation_groups}).active
        sparse = logits(supernet, inputs, Mixing(weights, active))
        assert torch.allclose(logits(supernet, inputs, Mixing(weights)), sparse, atol=1e-5)
        tables = supernet.chosen(supernet.derive(weights))
        alone = logits(supernet, inputs, only_chosen(tables))
        assert torch.allclose(logits(supernet, inputs, Mixing(tables)), alone, atol=1e-5)

    def test_weights_that_are_not_executed_carry_a_gradient(self, build: Build) -> None:
        """Where that is asked for: added as numbers, 0 in value, so that the logits stay the same."""
        supernet = build()
        inputs = self.inputs(supernet)
        tables = supernet.chosen(supernet.derive(self.quiet(supernet)))
        taken = {group.name: tables[group.name].clone() for group in supernet.operation_groups}
        for table in taken.values():
            table[table.sum(1) == 0, -1] = 1.0  # as samples have one option in every row
        hard = {name: table.clone().requires_grad_() for name, table in taken.items()}
        edges = {g.name: softmax_weights(supernet)[g.name].detach() for g in supernet.groups if g.kind == "edge"}
        with seeded(0):
            found = supernet(inputs, Mixing(edges | hard, only_chosen(taken).active, inactive_weights=True))
        plain = logits(supernet, inputs, Mixing(edges | taken, only_chosen(taken).active))
        assert torch.allclose(found.detach(), plain, atol=1e-5)
        found.square().sum().backward()
        for group in supernet.operation_groups:
            slope = hard[group.name].grad
            assert slope is not None
            inactive = supernet.allowed(group.name) & ~taken[group.name].bool()
            assert slope[inactive].abs().max() > 0

    def test_gradient_reaches_every_alpha(self, build: Build) -> None:
        """Under a softmax, in every row with a choice; and none reaches what there is not."""
        supernet = build()
        for seed, alpha in enumerate(supernet.alphas.values()):
            alpha.data.copy_(0.1 * torch.randn(alpha.shape, generator=torch_generator(seed)))
        with seeded(0):
            supernet(self.inputs(supernet), Mixing(softmax_weights(supernet))).square().sum().backward()
        for group in supernet.groups:
            slope, allowed = supernet.alphas[group.name].grad, supernet.allowed(group.name)
            assert slope is not None
            free = allowed & (allowed.sum(1, keepdim=True) > 1)
            assert bool((slope[free] != 0).all())
            assert bool((slope[~allowed] == 0).all())

    def test_every_weight_learns(self, build: Build) -> None:
        """In the whole mixture a gradient reaches all weights."""
        supernet = build()
        with seeded(0):
            supernet(self.inputs(supernet), Mixing(softmax_weights(supernet))).square().sum().backward()
        assert not [name for name, weight in supernet.named_parameters() if weight.grad is None]

    def test_mixed_edges_are_linear(self, build: Build) -> None:
        """In the weights of their row: twice as much of them, twice the sum; no second softmax."""
        supernet = build().eval()
        seen: list[tuple[MixedEdge, Tensor, Mixing]] = []
        edges = [module for module in supernet.modules() if isinstance(module, MixedEdge)]
        if not edges:
            pytest.skip("no edge is a MixedEdge")
        with ExitStack() as hooks:
            for edge in edges:
                handle = edge.register_forward_pre_hook(lambda called, given: seen.append((called, *given)))
                hooks.callback(handle.remove)
            logits(supernet, self.inputs(supernet), Mixing(softmax_weights(supernet)))
        assert len(seen) == len(edges)
        for edge, x, mixing in seen[:10]:
            more = Mixing({name: 2.0 * table for name, table in mixing.weights.items()})
            none = Mixing({name: 0.0 * table for name, table in mixing.weights.items()})
            assert torch.allclose(logits(edge, x, more), 2.0 * logits(edge, x, mixing), atol=1e-5)
            assert logits(edge, x, none).abs().max() == 0

    def test_evaluation_is_deterministic(self, build: Build) -> None:
        """In evaluation no random number, no other image and no state plays a part."""
        supernet = build().eval()
        inputs = self.inputs(supernet)
        before = copy.deepcopy(supernet.state_dict())
        with supernet.activate(supernet.derive(self.quiet(supernet))) as model, torch.no_grad():
            with seeded(1):
                first = model(inputs)
            with seeded(2):
                assert torch.equal(model(inputs), first)
            assert torch.allclose(model(inputs[:1]), first[:1], atol=1e-5)
        logits(supernet, inputs, Mixing(softmax_weights(supernet)))
        assert same_tables(supernet.state_dict(), before)

    def test_activated_weights_are_those_of_the_supernet(self, build: Build) -> None:
        """The same memory, so that what a sub-network learns stays."""
        supernet = build()
        inputs, genotype = self.inputs(supernet), self.samples(supernet, 1)[0]
        before = logits(supernet.eval(), inputs, supernet.mixing_of(genotype))
        with supernet.activate(genotype) as model:
            places = {parameter.data_ptr() for parameter in model.parameters()}
            assert places <= {parameter.data_ptr() for parameter in supernet.parameters()}
            assert torch.equal(logits(model, inputs), before)
            for parameter in model.parameters():
                parameter.data.mul_(1.5)
        assert not torch.equal(logits(supernet, inputs, supernet.mixing_of(genotype)), before)

    def test_extracted_network_computes_the_same(self, build: Build) -> None:
        """Bit for bit in evaluation, with weights and statistics that are not those of a fresh network."""
        supernet = build()
        inputs = self.inputs(supernet)
        logits(supernet, inputs, Mixing(softmax_weights(supernet)))
        supernet.eval()
        for genotype in self.samples(supernet, 3):
            with supernet.activate(genotype) as model:
                expected = logits(model, inputs)
            assert torch.equal(logits(supernet.extract(genotype), inputs), expected)

    def test_extracted_network_stands_alone(self, build: Build) -> None:
        """No memory in common, no alphas, fewer parameters; the supernet stays as it was."""
        supernet = build().eval()
        inputs, genotype = self.inputs(supernet), self.samples(supernet, 1)[0]
        before = copy.deepcopy(supernet.state_dict())
        alone = supernet.extract(genotype)
        assert same_tables(supernet.state_dict(), before)
        own = {tensor.data_ptr() for tensor in supernet.state_dict().values() if tensor.numel()}
        assert not own & {tensor.data_ptr() for tensor in alone.state_dict().values() if tensor.numel()}
        assert not any(len(part.alphas) for part in alone.modules() if isinstance(part, MixedSupernet))
        assert 0 < tools.number_of(alone.parameters()) < tools.number_of(supernet.parameters())
        expected = logits(alone, inputs)
        for parameter in supernet.parameters():
            parameter.data.zero_()
        assert torch.equal(logits(alone, inputs), expected)

    def test_alphas_are_parameters_apart(self, build: Build) -> None:
        """Saved and moved with the network, and not among its weights."""
        supernet = build()
        alphas, weights = supernet.architecture_parameters(), supernet.weight_parameters()
        assert [id(alpha) for alpha in alphas] == [id(supernet.alphas[group.name]) for group in supernet.groups]
        assert all(isinstance(alpha, nn.Parameter) and alpha.requires_grad for alpha in alphas)
        assert not {id(alpha) for alpha in alphas} & {id(weight) for weight in weights}
        assert {id(p) for p in (*alphas, *weights)} == {id(p) for p in supernet.parameters()}
        assert {f"alphas.{group.name}" for group in supernet.groups} <= set(supernet.state_dict())

    def test_state_is_restored(self, build: Build) -> None:
        """Weights, statistics and alphas, in a supernet of another seed."""
        supernet, other = build(), build(seed=1)
        inputs = self.inputs(supernet)
        for seed, alpha in enumerate(supernet.alphas.values()):
            alpha.data.copy_(torch.randn(alpha.shape, generator=torch_generator(seed)))
        logits(supernet, inputs, Mixing(softmax_weights(supernet)))
        other.load_state_dict(supernet.state_dict())
        expected = logits(supernet.eval(), inputs, Mixing(softmax_weights(supernet)))
        assert torch.equal(logits(other.eval(), inputs, Mixing(softmax_weights(other))), expected)

    def test_copies_compute_the_same(self, build: Build) -> None:
        """A deep copy and one by pickle, each with weights of its own."""
        supernet = build().eval()
        inputs, mixing = self.inputs(supernet), Mixing(softmax_weights(supernet))
        expected = logits(supernet, inputs, mixing)
        for made in (copy.deepcopy(supernet), pickle.loads(pickle.dumps(supernet))):  # its own bytes
            assert torch.equal(logits(made, inputs, mixing), expected)
            for parameter in made.parameters():
                parameter.data.zero_()
        assert torch.equal(logits(supernet, inputs, mixing), expected)

    def test_seed_decides_the_weights(self, build: Build) -> None:
        """The same one the same, another one others."""
        first, again, other = (build(seed=seed).state_dict() for seed in (0, 0, 1))
        assert same_tables(first, again)
        assert not same_tables(first, other)

    def test_options_that_are_not_allowed(self, build: Build) -> None:
        """They are not built, weigh nothing and are never derived, however strong they are, or weak the others."""
        whole = build()
        allowed = tools.taken_by(whole, [whole.chosen(genotype) for genotype in self.samples(whole, 2)])
        supernet = build(allowed=allowed).eval()
        assert tools.number_of(supernet.weight_parameters()) <= tools.number_of(whole.weight_parameters())
        for edge in (part for part in supernet.modules() if isinstance(part, MixedEdge)):
            assert set(map(int, edge.operations)) == set(allowed[edge.group][edge.row].nonzero()[:, 0].tolist())
        weights = {name: table.detach() for name, table in softmax_weights(supernet).items()}
        loud = {name: weights[name] + _LARGE * ~allowed[name] for name in allowed}
        inputs = self.inputs(supernet)
        expected = logits(supernet, inputs, Mixing(weights))
        assert torch.equal(logits(supernet, inputs, Mixing(weights | loud)), expected)
        for seed in range(self.n_samples):
            strengths = tools.random_strengths(supernet, seed)
            for name, found in allowed.items():
                weak = strengths[name] * (strengths[name] > 0.5)
                for some in (weak, weak * 0.0 + _LARGE * ~found):
                    taken = supernet.chosen(supernet.derive(strengths | {name: some}))[name]
                    assert not (taken.bool() & ~found).any()

    def test_what_does_not_fit_is_refused(self, build: Build) -> None:
        """Empty rows and other shapes of ``allowed``, no classes, unknown options: an ``OptionError``."""
        group = build().operation_groups[0]
        for wrong in (torch.zeros(group.shape), torch.ones(group.shape[0] + 1, group.shape[1])):
            with pytest.raises(OptionError, match=group.name):
                build(allowed={group.name: wrong})
        with pytest.raises(OptionError):
            build(n_classes=0)
        with pytest.raises(OptionError):
            build(no_such_option=1)

    def test_partial_channels_and_weights_of_edges(self, build: Build) -> None:
        """As declared: fewer weights, edges that count 1 where nothing weighs them; or both are refused."""
        whole = build()
        if not whole.supports_partial:
            with pytest.raises(OptionError):
                build(partial=2)
            with pytest.raises(OptionError):
                build(edge_normalisation=True)
            return
        supernet = build(partial=2, edge_normalisation=True).eval()
        edges = {g.name: g.present().float() for g in supernet.groups if g.kind == "edge"}
        assert (whole.partial, supernet.partial) == (1, 2)
        assert edges
        assert tools.number_of(supernet.weight_parameters()) < tools.number_of(whole.weight_parameters())
        inputs, weights = self.inputs(supernet), softmax_weights(supernet)
        operations = {group.name: weights[group.name] for group in supernet.operation_groups}
        unweighed = logits(supernet, inputs, Mixing(operations))
        assert torch.equal(logits(supernet, inputs, Mixing(operations | edges)), unweighed)
        for name, table in edges.items():
            changed = {name: table * torch.arange(1.0, 1.0 + table.shape[1])}
            assert not torch.allclose(logits(supernet, inputs, Mixing(operations | edges | changed)), unweighed)
        genotype = self.samples(supernet, 1)[0]
        with supernet.activate(genotype) as model:
            assert torch.equal(logits(supernet.extract(genotype), inputs), logits(model, inputs))
