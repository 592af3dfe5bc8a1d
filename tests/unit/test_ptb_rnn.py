"""The recurrent space and its supernet: published size and form, the cell against a slow twin, what can be scored."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import naswot
from naswot.data import get_data
from naswot.data.text import get_corpus
from naswot.errors import ArchitectureError, InputError, NoActivationError, OptionError
from naswot.evaluate import Evaluator
from naswot.scoring import explain
from naswot.seeding import numpy_generator, seeded, torch_generator
from naswot.space import get_space
from naswot.spaces._recurrent_network import Passage
from naswot.supernet import Mixing, make_supernet
from naswot.supernets.ptb_rnn import OPERATIONS, ROWS
from naswot.training.evaluator import TrainingEvaluator

SPACE = get_space("ptb_rnn")
FOUND = (  # the cell that DARTS found
    "Genotype(recurrent=[('relu', 0), ('relu', 1), ('tanh', 2), ('relu', 3), ('relu', 4), ('identity', 1), "
    "('relu', 5), ('relu', 1)], concat=range(1, 9))"
)
FUNCTIONS = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "identity": lambda x: x,
}
DRY = dict.fromkeys((f"{name}_dropout" for name in ("output", "hidden", "input", "embedding", "word")), 0.0)


def built(genotype, *, seed=0, n_classes=11, width=5, **options):
    with seeded(seed):
        model = SPACE.build(genotype, n_classes=n_classes, width=width, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20.0)  # so that activations are far from linear
    return model.double()


def tokens(n=3, length=6, *, n_classes=11, seed=0):
    return torch.randint(n_classes, (n, length), generator=torch_generator(seed))


def genotypes(n):
    rng = numpy_generator(0)
    return [SPACE.sample(rng) for _ in range(n)]


def combined(state, gate, name):
    c, h = np.split(gate, 2)
    return state + FUNCTIONS["sigmoid"](c) * (FUNCTIONS[name](h) - state)


def slowly(model, nodes, words, state):
    """States of one sequence, one token and one node after the other, in numpy."""
    embedding, first, *gates = (
        weight.detach().numpy()
        for weight in (model.embedding.weight, model.cell.first.weight, *(gate.weight for gate in model.cell.gates))
    )
    found = []
    for word in words:
        states = [combined(state, first @ np.concatenate([embedding[word], state]), "tanh")]
        for gate, (name, source) in zip(gates, nodes, strict=True):
            states.append(combined(states[source], gate @ states[source], name))
        state = np.mean(states[1:], axis=0)
        found.append(state)
    return np.array(found)


# ----------------------------------------------------------------------------------------------------------- the space


def test_cell_of_darts_has_the_published_parameters_and_form():
    genotype = SPACE.parse(FOUND)
    assert SPACE.format(genotype) == FOUND
    assert SPACE.parse(FOUND.replace("range(1, 9)", "[1, 2, 3, 4, 5, 6, 7, 8]")) == genotype
    with torch.device("meta"):
        n = sum(parameter.numel() for parameter in SPACE.build(genotype).parameters())
    assert n == 10_000 * 850 + 10_000 + 1700 * 1700 + 8 * 850 * 1700  # the decoder has the embedding's weights
    assert round(n / 1e6) == 23  # as in the paper
    assert SPACE.size == math.factorial(8) * 4**8


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (FOUND.replace("('tanh', 2)", "('tanh', 3)"), "node 3 reads 3"),
        (FOUND.replace("('tanh', 2)", "('none', 2)"), "'none'"),
        (FOUND.replace("('tanh', 2), ", ""), "expected 8 nodes"),
        (FOUND.replace("('tanh', 2)", "('tanh', 2, 0)"), "node 3"),
        (FOUND.replace("('tanh', 2)", "('tanh', True)"), "reads True"),
        (FOUND.replace("range(1, 9)", "range(2, 9)"), "concat"),
        (FOUND.replace(", concat=range(1, 9)", ""), "recurrent, concat"),
        (FOUND.replace("Genotype", "Cell"), "the form is"),
        (FOUND.replace("[(", "((").replace(")]", "))"), "a list"),
    ],
)
def test_strings_that_do_not_fit_say_why(text, told):
    with pytest.raises(ArchitectureError, match=told):
        SPACE.parse(text)


def test_states_are_those_of_a_slow_twin():
    words = tokens()
    for genotype in genotypes(4):
        model = built(genotype).eval()
        start = torch.randn(3, 5, generator=torch_generator(1)).double()
        reading = model(Passage(words, start))
        expected = [slowly(model, SPACE.nodes(genotype), row, s.numpy()) for row, s in zip(words, start, strict=True)]
        assert np.allclose(reading.states.detach().numpy(), np.stack(expected), atol=1e-12)
        logits = reading.states @ model.embedding.weight.T + model.decoder.bias
        assert torch.allclose(reading.logits, logits)


def test_tokens_alone_give_the_logits_behind_the_last():
    model, words = built(SPACE.parse(FOUND)).eval(), tokens()
    assert model.decoder.weight is model.embedding.weight
    assert torch.allclose(model(words), model(Passage(words, torch.zeros(3, 5).double())).logits[:, -1])


def test_state_carries_on_where_a_passage_ended():
    model, words = built(SPACE.parse(FOUND)).eval(), tokens(length=7)
    whole = model(Passage(words))
    first = model(Passage(words[:, :3]))
    second = model(Passage(words[:, 3:], first.states[:, -1]))
    assert torch.allclose(torch.cat([first.logits, second.logits], dim=1), whole.logits)
    assert not torch.allclose(model(Passage(words[:, 3:])).logits, second.logits)


def test_architectures_that_differ_by_the_order_of_nodes_only():
    first, second = (
        SPACE.from_nodes([*pair, ("tanh", 1), ("tanh", 2), ("relu", 0), ("relu", 0), ("identity", 0), ("relu", 0)])
        for pair in ([("relu", 0), ("sigmoid", 0)], [("sigmoid", 0), ("relu", 0)])
    )
    assert SPACE.canonical(first) == SPACE.canonical(second)
    other = SPACE.from_nodes([("relu", 0), ("relu", 0), *SPACE.nodes(first)[2:]])
    assert SPACE.canonical(first) != SPACE.canonical(other)
    one, two = built(first).eval(), built(second, seed=1).eval()
    two.load_state_dict(one.state_dict())
    for a, b in ((0, 1), (2, 3)):  # the nodes that change places, and those that read them
        two.cell.gates[a], two.cell.gates[b] = two.cell.gates[b], two.cell.gates[a]
    assert torch.allclose(one(tokens()), two(tokens()))


def test_each_dropout_is_locked_over_a_passage_and_off_in_evaluation():
    genotype, words = SPACE.parse(FOUND), torch.full((2, 5), 3)
    dry = built(genotype, **DRY)
    assert torch.equal(dry.train()(words), dry.eval()(words))
    for name in DRY:
        model = built(genotype, width=40, **DRY | {name: 0.6})
        assert torch.equal(model.eval()(words), built(genotype, width=40, **DRY).eval()(words))
        with seeded(0):
            assert not torch.allclose(model.train()(words), model.eval()(words)), name
    model = built(genotype, width=40, **DRY | {"embedding_dropout": 0.6}).train()
    embedded = model._embedded(words)
    assert torch.equal(embedded, embedded[:, :1].expand_as(embedded))  # one mask for all tokens of a row
    assert not torch.equal(embedded[0], embedded[1])
    assert set((embedded[0, 0] / model.embedding.weight[3]).detach().round(decimals=6).tolist()) == {0.0, 2.5}
    word = built(genotype, n_classes=200, **DRY | {"word_dropout": 0.5}).train()._embedded(torch.arange(200)[None])[0]
    dropped = (word == 0).all(1)
    assert torch.equal(dropped, (word == 0).any(1))  # whole words
    assert 60 < int(dropped.sum()) < 140


@pytest.mark.parametrize("options", [{"width": 0}, {"n_classes": 0}, {"word_dropout": 1.0}, {"hidden_dropout": -0.1}])
def test_numbers_that_do_not_fit_are_refused(options):
    with pytest.raises(OptionError, match="expected"):
        SPACE.build(SPACE.parse(FOUND), **options)


# ------------------------------------------------------------------------------------------------- scores, other data


def test_scores_see_the_relus_of_each_token():
    genotype, words = SPACE.parse(FOUND), tokens(6, 4)
    details = explain(built(genotype), words)
    assert details.n_units == 4 * 5 * 6  # tokens, width, nodes with a relu
    assert details.untapped == {"sigmoid": 4 * 9, "tanh": 4 * 2}  # gates; the first state and a node
    assert naswot.score(built(genotype), words) == details.log_det
    without = SPACE.from_nodes([("tanh", 0)] * 8)
    with pytest.raises(NoActivationError, match="tanh"):
        naswot.score(built(without), words)


def test_architectures_are_scored_on_text():
    corpus = get_corpus()
    build = {"n_classes": len(corpus.train.vocabulary), "width": 8}
    evaluator = Evaluator(SPACE, corpus.train, ("naswot", "snip", "params"), batch_size=8, build=build)
    first, second = evaluator(SPACE.parse(FOUND)), evaluator(SPACE.from_nodes([("tanh", 0)] * 8))
    assert first.scores["params"] == len(corpus.train.vocabulary) * (8 + 1) + 16 * 16 + 8 * 8 * 16
    assert first.scores["naswot"] > 0
    assert first.scores["snip"] > 0
    assert "NoActivationError" in second.error


def test_images_are_refused_before_anything_is_scored_or_trained(run, tmp_path):
    images = get_data("digits")
    with pytest.raises(OptionError, match=r"ptb_rnn read tokens.*images"):
        Evaluator(SPACE, images, ("params",))
    with pytest.raises(OptionError, match=r"ptb_rnn read tokens"):
        TrainingEvaluator(SPACE, images, images)
    with pytest.raises(OptionError, match=r"nasbench201 read images.*tokens"):
        Evaluator(get_space("nasbench201"), get_corpus().train, ("params",))
    for words in (
        ["search", "--space", "ptb_rnn", "-n", 2],
        ["train", "random", "--space", "ptb_rnn"],
        ["export", "random", "--space", "ptb_rnn", "--to", tmp_path / "cell.py"],
    ):
        code, _, error = run(*words)
        assert code == 1, words
        assert "read tokens" in error
    assert not list(tmp_path.iterdir())
    code, _, error = run("score", f"ptb_rnn:{FOUND}")
    assert code == 1
    assert "expected token ids" in error


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        (torch.zeros(2, 3, 8, 8), r"token ids.*\(2, 3, 8, 8\)"),
        (torch.zeros(2, 4), "float32"),
        (torch.zeros(2, 0, dtype=torch.int64), r"\(2, 0\)"),
        (torch.tensor([[0, 11]]), "n_classes=12"),
        (torch.tensor([[-1, 1]]), "-1"),
    ],
)
def test_what_are_no_tokens_is_refused_by_the_model(inputs, told):
    with pytest.raises(InputError, match=told):
        built(SPACE.parse(FOUND))(inputs)
    with pytest.raises(InputError, match=told):
        supernet()(inputs, Mixing({"recurrent": torch.full((36, 5), 0.2)}))


# -------------------------------------------------------------------------------------------------------- the supernet


def supernet(*, seed=0, scale=20.0, **options):
    with seeded(seed):
        made = make_supernet("ptb_rnn", **{"n_classes": 11, "width": 5} | options)
    with torch.no_grad():
        for parameter in made.weight_parameters():
            parameter.mul_(scale)
    return made


def weights(seed=0):
    return torch.rand(36, 5, generator=torch_generator(seed)).softmax(1)


def without_norm(made):
    made.model.cell.norms = nn.ModuleList(nn.Identity() for _ in range(9))
    return made.double()


def test_sub_network_is_the_network_of_the_architecture():
    made, words = without_norm(supernet()).eval(), tokens()
    for genotype in genotypes(5):
        alone = built(genotype).eval()
        alone.load_state_dict(made.model.state_dict())
        with made.activate(genotype) as model:
            assert torch.allclose(model(words), alone(words))
            assert torch.allclose(model(Passage(words)).states, alone(Passage(words)).states)


def test_mixture_is_the_sum_over_predecessors_and_activations():
    made, table = without_norm(supernet()).eval(), weights().double()
    words, start = tokens(1, 3), torch.randn(1, 5, generator=torch_generator(1)).double()
    states = made(Passage(words, start), Mixing({"recurrent": table})).states
    cell, state = made.model.cell, start[0].numpy()
    for place, word in enumerate(words[0]):
        embedded = made.model.embedding.weight[word].detach().numpy()
        found = [combined(state, cell.first.weight.detach().numpy() @ np.concatenate([embedded, state]), "tanh")]
        for node, gate in enumerate(cell.gates, 1):
            total = np.zeros(5)
            for row, (source, target) in enumerate(ROWS):
                if target == node:
                    gated = gate.weight.detach().numpy() @ found[source]
                    for option, name in enumerate(OPERATIONS[1:], 1):  # none adds nothing
                        total += float(table[row, option]) * combined(found[source], gated, name)
            found.append(total)
        state = np.mean(found[1:], axis=0)
        assert np.allclose(states[0, place].detach().numpy(), state, atol=1e-12)


def test_each_node_takes_its_strongest_predecessor_and_activation_but_none():
    made, table = supernet(), torch.zeros(36, 5)
    table[:, 0] = 0.9  # none is strongest everywhere
    expected = []
    for node in range(1, 9):
        source, name = (node * 3) % node if node < 5 else node - 2, OPERATIONS[1 + node % 4]
        table[ROWS.index((source, node)), OPERATIONS.index(name)] = 0.05
        table[ROWS.index((node - 1, node)), 1] += 0.04 if source != node - 1 else 0.0
        expected.append((name, source))
    assert SPACE.nodes(made.derive({"recurrent": table})) == tuple(expected)
    tied = SPACE.nodes(made.derive({"recurrent": torch.ones(36, 5)}))
    assert tied == (("tanh", 0),) * 8
    for genotype in genotypes(10):
        assert made.derive(made.chosen(genotype)) == genotype
    few = torch.ones(36, 5, dtype=torch.bool)
    few[:, 1] = False
    assert SPACE.nodes(supernet(allowed={"recurrent": few}).derive({"recurrent": table * 0}))[0][0] == "relu"


def test_what_is_not_active_is_not_computed():
    made, genotype, words = supernet().eval(), SPACE.parse(FOUND), tokens()
    mixing = made.mixing_of(genotype)
    table = mixing.weights["recurrent"].clone()
    table[table == 0] = torch.nan
    expected = made(words, mixing)
    assert torch.equal(made(words, Mixing({"recurrent": table}, mixing.active)), expected)
    assert made(words, Mixing({"recurrent": table})).isnan().all()


def test_normalisation_keeps_statistics_for_each_state_and_trains_nothing():
    made = supernet(**DRY).train()
    norms = made.model.cell.norms
    assert len(norms) == 9
    assert not [name for name, _ in made.named_parameters() if "norm" in name]
    mixing, words = Mixing({"recurrent": weights()}), tokens(16, 3)
    for _ in range(5):
        expected = made(words, mixing)
    means = torch.stack([norm.running_mean for norm in norms])
    assert (means[1:] - means[:-1]).abs().amax(1).min() > 1e-3
    with torch.no_grad():
        own = made.eval()(words, mixing)
        made.model.cell.norms = nn.ModuleList([norms[8]] * 9)  # common to all, as in the original
        assert torch.equal(made.train()(words, mixing), expected)
        assert not torch.allclose(made.eval()(words, mixing), own, rtol=0.05)


def test_gradient_reaches_each_alpha_but_those_of_none():
    made = supernet(**DRY)
    table = weights().requires_grad_()
    made(tokens(), Mixing({"recurrent": table})).square().sum().backward()
    assert (table.grad[:, 0] == 0).all()
    assert (table.grad[:, 1:] != 0).all()
