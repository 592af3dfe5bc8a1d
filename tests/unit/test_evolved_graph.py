"""The graphs of Large-Scale Evolution: spelling, what a vertex computes, the mutations, inherited weights."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import pytest
import torch
from torch import nn

import naswot
from naswot.errors import ArchitectureError, InputError, OptionError, UnknownNameError
from naswot.inheritance import inherit_weights
from naswot.seeding import numpy_generator, seeded, torch_generator
from naswot.spaces._evolved_graph_network import fit
from naswot.spaces._graph_mutations import MUTATIONS, mutate_graph
from naswot.spaces.evolved_graph import RATES, EvolvedGraph

SPACE = naswot.get_space("evolved_graph")
INVERSES = {
    "alter_learning_rate": "alter_learning_rate",
    "identity": "identity",
    "reset_weights": "reset_weights",
    "insert_convolution": "remove_convolution",
    "alter_stride": "alter_stride",
    "alter_channels": "alter_channels",
    "filter_size": "filter_size",
    "insert_one_to_one": "remove_convolution",
    "add_skip": "remove_skip",
    "remove_skip": "add_skip",
}


def n_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def images(size=8):
    return torch.randn(2, 3, size, size, generator=torch_generator(0))


def build(text):
    with seeded(0):
        return SPACE.build(SPACE.parse(text))


def samples(n, space=SPACE):
    rng = numpy_generator(0)
    return [space.sample(rng) for _ in range(n)]


# what a genotype means


def test_the_start_is_a_linear_model_at_a_rate_of_a_tenth():
    start = SPACE.start()
    model = SPACE.build(start)
    assert n_parameters(model) == 3 * 10 + 10
    assert SPACE.learning_rate(start) == 0.1
    assert SPACE.layer_names(start) == ("classifier",)
    logits = model(images())
    assert torch.equal(logits, model.classifier(images().mean((2, 3))))


def test_rates_are_geometric_around_a_tenth():
    assert RATES[6] == 0.1
    assert all(b / a == pytest.approx(2**0.5) for a, b in itertools.pairwise(RATES))
    text = SPACE.format((8, *SPACE.start()[1:]))
    assert text == "lr0.2"
    assert SPACE.learning_rate(SPACE.parse(text)) == pytest.approx(0.2)


def test_genes_of_a_graph():
    text = "lr0.1|v0:conv-relu,3x5,16,s2,image|v2:id,image,v0"
    absent, genotype = SPACE.start(), SPACE.parse(text)
    assert genotype[SPACE.slot_slices[0]] == (2, 1, 2, 2, 1, 1)  # kind, height, width, channels, stride; image
    assert genotype[SPACE.slot_slices[2]] == (3, 0, 0, 0, 0, 1, 1, 0)  # kind, no convolution; image, v0, v1
    assert sum(genotype) == sum(absent) + 9 + 5
    first, second = SPACE.graph(genotype).vertices
    assert (first.height, first.width, first.channels, first.stride, first.sources) == (3, 5, 16, 2, (-1,))
    assert (second.slot, second.convolves, second.sources) == (2, False, (-1, 0))


def test_genes_without_a_meaning_are_zero():
    base = SPACE.parse("lr0.1|v1:conv,3x3,16,s2|v3:id-relu,v1")
    assert SPACE.is_valid(base)
    for position, options in enumerate(SPACE.choices):
        slot = next((s for s, positions in enumerate(SPACE.slot_slices) if position < positions.stop), None)
        inner = position - SPACE.slot_slices[slot].start
        meaningful = (
            position == 0
            or inner == 0  # a kind, from which convolutions stay convolutions
            or (slot == 1 and inner <= 5)
            or (slot == 3 and inner in (5, 7))  # image and v1
        )
        for option in set(range(options)) - {base[position]}:
            valid = SPACE.is_valid((*base[:position], option, *base[position + 1 :]))
            if position and inner == 0 and slot in (1, 3):
                assert valid == (option in ((1, 2) if slot == 1 else (1, 2, 3, 4)))
            else:
                assert valid == meaningful


def test_small_spaces_are_listed_completely():
    space = EvolvedGraph(n_slots=1)
    listed = list(space.genotypes())
    assert len(listed) == len(set(listed)) == len(RATES) * (1 + 2 * 2 * 4 * 4 * 9 * 3 + 2 * 2)
    kinds = 2 * 4 * 4 * 9 * 3 + 2  # 866 ways for a vertex but for its skips
    both = itertools.islice(EvolvedGraph(n_slots=2).genotypes(), 1 + 2 * kinds + 1 + 4 * kinds + 1)
    first = Counter(genotype[1:7] for genotype in both)  # genes of slot 0, by which of slot 1 may follow
    assert list(first.items()) == [(6 * (0,), 1 + 2 * kinds), ((1, *5 * (0,)), 1 + 4 * kinds), ((1, *4 * (0,), 1), 1)]


def test_empty_slots_make_no_other_architecture():
    first = SPACE.parse("lr0.1|v1:conv,3x3,16,s2,image|v6:id-relu,image,v1")
    second = SPACE.parse("lr0.1|v0:conv,3x3,16,s2,image|v3:id-relu,image,v0")
    assert SPACE.canonical(first) == SPACE.canonical(second) == SPACE.representative(first)
    assert SPACE.format(SPACE.representative(first)) == "lr0.1|v0:conv,3x3,16,s2,image|v1:id-relu,image,v0"
    other = SPACE.parse("lr0.1|v0:conv,3x3,16,s2,image|v3:id-relu,image")
    assert SPACE.canonical(first) != SPACE.canonical(other)
    with seeded(0):
        a = SPACE.build(first)
    with seeded(0):
        b = SPACE.build(second)
    assert torch.equal(a(images()), b(images()))


def test_samples_have_every_number_of_vertices():
    counts = Counter(len(SPACE.graph(genotype).vertices) for genotype in samples(300))
    assert set(counts) == set(range(9))
    assert max(counts.values()) < 70  # 300 / 9 = 33


def test_children_of_two_take_a_skip_only_where_both_ends_are():
    parents = samples(60)
    seen = set()
    for seed, (first, second) in enumerate(itertools.pairwise(parents)):
        child = SPACE.crossover(first, second, numpy_generator(seed))
        assert all(gene in pair for gene, pair in zip(child, zip(first, second, strict=True), strict=True))
        assert SPACE.is_valid(child)
        seen.add(child in (first, second))
    assert False in seen
    first, second = SPACE.parse("lr0.1|v0:id|v2:id,v0"), SPACE.parse("lr0.1|v2:id")
    texts = {SPACE.format(SPACE.crossover(first, second, numpy_generator(seed))) for seed in range(40)}
    assert texts == {"lr0.1|v0:id|v2:id,v0", "lr0.1|v0:id|v2:id", "lr0.1|v2:id"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr0.3", "begins with none of lr0.0125, lr0.01768"),
        ("lr0.1|v8:id", "has one for each slot from 0 to 7"),
        ("lr0.1|v1:id|v1:id", "has one for each slot"),
        ("lr0.1|v2:id|v1:id", "in order, as in 'lr0.1|v1:id|v2:id'"),
        ("lr0.1|v1:id|v2:id,v1,image", "in order, as in 'lr0.1|v1:id|v2:id,image,v1'"),
        ("lr0.1|v1:id|v2:id,v1,v1", "in order"),
        ("lr0.1|v2:id,v1", "v2 reads v1, which is no vertex before it"),
        ("lr0.1|v2:id,v2", "v2 reads v2"),
        ("lr0.1|v01:id", "in order"),
        ("lr0.1|v2:conv,3x4,16,s2", "4 in 'v2:conv,3x4,16,s2' is no option; expected one of (1, 3, 5, 7)"),
        ("lr0.1|v2:conv,3x3,16", "'v2:conv,3x3,16' is no vertex such as"),
        ("lr0.1|v2:id,3x3,16,s1", "is no vertex such as"),
        ("lr0.1|v" + 5000 * "1" + ":id", "is no vertex such as"),
    ],
)
def test_other_strings_are_refused(text, message):
    with pytest.raises(ArchitectureError, match=re.escape(message)):
        SPACE.parse(text)


def test_options_out_of_range_are_refused():
    with pytest.raises(OptionError, match="at least one slot, but got 0"):
        EvolvedGraph(n_slots=0)
    with pytest.raises(OptionError, match="at least 1, but got 0, 3"):
        SPACE.build(SPACE.start(), n_classes=0)


# what a network computes


def test_parameters_by_hand():
    model = build("lr0.1|v0:conv,3x5,16,s2|v3:conv-relu,1x7,24,s1,v0|v4:id,image|v5:id-relu")
    first, second, third = 3 * 16 * 15 + 16, 16 * 24 * 7 + 48, 2 * 24
    assert n_parameters(model) == first + second + third + 24 * 10 + 10


def test_vertices_add_and_then_activate():
    model = build("lr0.1|v1:conv,3x3,8,s2|v2:conv-relu,3x3,12,s1,image,v1").eval()
    first = model.vertices["v1"].convolution(images())
    assert first.shape == (2, 8, 4, 4)
    layer = model.vertices["v2"]
    total = layer.convolution(first) + fit(images(), torch.zeros(2, 12, 4, 4)) + fit(first, torch.zeros(2, 12, 4, 4))
    expected = torch.relu(layer.norm(total))
    assert (expected == 0).any()
    assert torch.allclose(model(images()), model.classifier(expected.mean((2, 3))), atol=1e-6)


def test_linear_vertices_keep_negative_numbers_and_one_to_one_passes_on():
    model = build("lr0.1|v0:conv,1x1,8,s1|v1:id").eval()
    x = model.vertices["v0"](images(), [])
    assert (x < 0).any()
    assert torch.equal(model.vertices["v1"](x, []), x)
    assert torch.equal(model.vertices["v1"](x, [x]), 2 * x)


def test_other_inputs_take_the_shape_of_the_primary_one():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    small = fit(x, torch.zeros(1, 3, 2, 2))
    assert small.shape == (1, 3, 2, 2)
    assert small[0, 0].tolist() == [[0, 2], [8, 10]]  # the nearest pixels, no averages
    assert small[0, 1:].abs().sum() == 0
    large = fit(small, torch.zeros(1, 2, 4, 6))
    assert large[0, 0, 0].tolist() == [0, 0, 0, 2, 2, 2]
    assert large.shape == (1, 2, 4, 6)


@pytest.mark.parametrize("size", [1, 5, 32])
def test_networks_take_images_of_any_size(size):
    for genotype in samples(6):
        assert SPACE.build(genotype)(images(size)[:2]).shape == (2, 10)


# mutations


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutations_give_valid_graphs_or_none(name):
    given = 0
    for number, genotype in enumerate(samples(200)):
        child = MUTATIONS[name](SPACE, genotype, numpy_generator(number))
        assert child == MUTATIONS[name](SPACE, genotype, numpy_generator(number))
        if child is None:
            continue
        given += 1
        assert SPACE.is_valid(child)
        assert (child == genotype) == (name in ("identity", "reset_weights"))
    assert given > 100


@pytest.mark.parametrize(("name", "inverse"), INVERSES.items())
def test_mutations_are_undone_by_one_mutation(name, inverse):
    for number, genotype in enumerate(samples(200)):
        rng = numpy_generator(number)
        child = MUTATIONS[name](SPACE, genotype, rng)
        if child is not None:
            assert any(MUTATIONS[inverse](SPACE, child, rng) == genotype for _ in range(2000)), SPACE.format(genotype)


def distance(first, second):
    """Zero for equal genotypes; a vertex that is missing weighs more than numbers, one of another kind still more."""
    kinds = {positions.start for positions in SPACE.slot_slices}
    total = 0
    for place, (a, b) in enumerate(zip(first, second, strict=True)):
        weight = (100 if 0 in (a, b) else 1000) if place in kinds else abs(a - b)
        total += weight * (a != b)
    return total


def test_a_removed_vertex_comes_back_by_a_few_mutations():
    steps = ("insert_convolution", "insert_one_to_one", "alter_stride", "alter_channels", "filter_size", "add_skip")
    undone = 0
    for number, genotype in enumerate(samples(40)):
        rng = numpy_generator(number)
        now = MUTATIONS["remove_convolution"](SPACE, genotype, rng)
        if now is None:
            continue
        for _ in range(20_000):
            child = mutate_graph(SPACE, now, rng, names=steps).genotype
            now = child if distance(child, genotype) < distance(now, genotype) else now
            if now == genotype:
                break
        assert now == genotype, SPACE.format(genotype)
        undone += 1
    assert undone > 30


def children(name, text, n=300):
    genotype, rng = SPACE.parse(text), numpy_generator(0)
    found = (MUTATIONS[name](SPACE, genotype, rng) for _ in range(n))
    return {None if child is None else SPACE.format(child) for child in found}


def test_numbers_stay_within_half_and_twice():
    base = "lr0.1|v2:conv,3x3,{},s2"
    assert children("alter_channels", base.format(24)) == {base.format(n) for n in (12, 16, 32, 48)}
    assert children("alter_channels", base.format(8)) == {base.format(n) for n in (12, 16)}
    assert children("alter_learning_rate", "lr0.1") == {"lr0.05", "lr0.07071", "lr0.1414", "lr0.2"}
    assert children("alter_stride", "lr0.1|v2:conv,3x3,8,s2") == {f"lr0.1|v2:conv,3x3,8,s{n}" for n in (1, 4)}
    assert children("alter_stride", "lr0.1|v2:conv,3x3,8,s4") == {"lr0.1|v2:conv,3x3,8,s2"}


def test_filters_grow_along_one_axis():
    sizes = {text.split(",")[1] for text in children("filter_size", "lr0.1|v2:conv,1x5,8,s2")}
    assert sizes == {"3x5", "1x3", "1x7"}


def test_a_convolution_is_inserted_as_wide_as_its_input():
    taken = "lr0.1|v1:conv,1x1,48,s1|v2:id|v4:conv,1x1,96,s1"
    new = {"conv", "conv-relu"}, {"s1", "s2"}
    seen = Counter()
    for text in children("insert_convolution", taken):
        added = set(text.split("|")) - set(taken.split("|"))
        slot, kind, size, width, stride = re.split("[:,]", added.pop())
        assert not added
        assert size == "3x3"
        assert width == {"v0": "8", "v3": "48"}.get(slot, "96")
        assert kind in new[0]
        assert stride in new[1]
        seen[slot] += 1
    assert seen == dict.fromkeys(("v0", "v3", "v5", "v6", "v7"), 4)


def test_a_removed_vertex_takes_its_skips_along():
    found = children("remove_convolution", "lr0.1|v1:conv,3x3,8,s1,image|v2:id,image,v1|v5:id-relu,v1,v2")
    assert found == {
        "lr0.1|v2:id,image|v5:id-relu,v2",
        "lr0.1|v1:conv,3x3,8,s1,image|v5:id-relu,v1",
        "lr0.1|v1:conv,3x3,8,s1,image|v2:id,image,v1",
    }


def test_skips_are_added_and_removed_one_at_a_time():
    base = "lr0.1|v1:id,image|v4:id"
    assert children("add_skip", base) == {base + ",image", base + ",v1"}
    assert children("remove_skip", base) == {"lr0.1|v1:id|v4:id"}


def test_what_cannot_be_applied_gives_none():
    for name in ("remove_convolution", "alter_stride", "alter_channels", "filter_size", "add_skip", "remove_skip"):
        assert children(name, "lr0.1", 3) == {None}
    full = "lr0.1|" + "|".join(f"v{slot}:id" for slot in range(8))
    assert children("insert_convolution", full, 3) == children("insert_one_to_one", full, 3) == {None}


def test_a_random_mutation_tells_its_name_and_whether_weights_are_kept():
    genotype, rng = SPACE.parse("lr0.1|v1:conv,3x3,8,s1,image|v2:id"), numpy_generator(0)
    drawn = [mutate_graph(SPACE, genotype, rng) for _ in range(400)]
    assert {mutated.mutation for mutated in drawn} == set(MUTATIONS)
    assert all(mutated.inherits == (mutated.mutation != "reset_weights") for mutated in drawn)
    with pytest.raises(UnknownNameError, match="unknown mutation 'ad_skip'; did you mean 'add_skip'"):
        mutate_graph(SPACE, genotype, rng, names=["ad_skip"])
    with pytest.raises(OptionError, match=r"none of add_skip, remove_skip can be applied to 'lr0.1'"):
        mutate_graph(SPACE, SPACE.start(), rng, names=["add_skip", "remove_skip"])


def test_evolution_from_the_start_reaches_deep_graphs():
    genotype, rng = SPACE.start(), numpy_generator(0)
    for _ in range(300):
        genotype = mutate_graph(SPACE, genotype, rng).genotype
    vertices = SPACE.graph(genotype).vertices
    assert len(vertices) >= 3
    assert any(vertex.sources for vertex in vertices)


# inherited weights


def trained(genotype, seed):
    """A model and its state, every tensor different from that of a fresh one."""
    with seeded(seed):
        model = SPACE.build(genotype)
        for tensor in model.state_dict().values():
            tensor.add_(1) if tensor.dtype == torch.int64 else tensor.add_(torch.rand_like(tensor) + 0.5)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_child_has_its_parents_tensors_wherever_shapes_match(name):
    copies = 0
    for number, genotype in enumerate(samples(25)):
        child = MUTATIONS[name](SPACE, genotype, numpy_generator(number))
        if child is None:
            continue
        parent = trained(genotype, number)
        with seeded(number + 1000):
            model = SPACE.build(child)
        fresh = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        names = inherit_weights(model, parent)
        for key, tensor in model.state_dict().items():
            match = key in parent and parent[key].shape == tensor.shape
            assert (key in names) == match
            assert torch.equal(tensor, parent[key] if match else fresh[key])
        copies += len(names)
    assert copies > 25


def test_an_inserted_vertex_renames_no_other():
    parent = SPACE.parse("lr0.1|v2:conv-relu,3x3,16,s2|v5:conv,3x3,16,s1")
    child = SPACE.parse("lr0.1|v2:conv-relu,3x3,16,s2|v3:conv-relu,3x3,16,s1|v5:conv,3x3,16,s1")
    state, model = trained(parent, 0), SPACE.build(child)
    assert SPACE.layer_names(child) == ("vertices.v2", "vertices.v3", "vertices.v5", "classifier")
    assert set(inherit_weights(model, state)) == set(state)
    new = {name for name in model.state_dict() if name not in state}
    assert {name.split(".")[1] for name in new} == {"v3"}


def test_a_mapping_names_layers_of_other_names():
    parent = trained(SPACE.parse("lr0.1|v2:conv-relu,3x3,16,s2"), 0)
    model = SPACE.build(SPACE.parse("lr0.1|v4:conv-relu,3x3,16,s2"))
    assert inherit_weights(model, parent) == ("classifier.weight", "classifier.bias")
    names = inherit_weights(model, parent, {"vertices.v4": "vertices.v2"})
    assert len(names) == len(parent) == 1 + 5 + 2
    assert torch.equal(model.vertices["v4"].convolution.weight, parent["vertices.v2.convolution.weight"])
    with pytest.raises(InputError, match=r"the child has no layer 'vertices.v3'"):
        inherit_weights(model, parent, {"vertices.v3": "vertices.v2"})
    with pytest.raises(InputError, match=r"the parent has no layer 'vertices.v'"):
        inherit_weights(model, parent, {"vertices.v4": "vertices.v"})


def test_filters_turned_by_a_right_angle_are_not_inherited():
    parent = trained(SPACE.parse("lr0.1|v2:conv-relu,1x3,16,s2"), 0)
    model = SPACE.build(SPACE.parse("lr0.1|v2:conv-relu,3x1,16,s2"))
    assert "vertices.v2.convolution.weight" not in inherit_weights(model, parent)


def test_inherited_tensors_are_copies():
    parent, child = nn.Linear(3, 2), nn.Linear(3, 2)
    inherit_weights(child, parent.state_dict())
    before = parent.weight.clone()
    with torch.no_grad():
        child.weight.add_(1)
    assert torch.equal(parent.weight, before)
    assert child.weight.requires_grad
