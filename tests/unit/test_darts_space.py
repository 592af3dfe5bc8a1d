"""The DARTS space: published parameter counts, both text forms, two different inputs for each node."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from naswot.errors import ArchitectureError, OptionError
from naswot.space import get_space

V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
    "normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], "
    "reduce_concat=[2, 3, 4, 5])"
)
V2_COMPACT = (
    "[[(0, 3), (1, 3), (0, 3), (1, 3), (0, 2), (1, 3), (0, 2), (2, 5)], "
    "[(0, 0), (1, 0), (1, 0), (2, 2), (0, 0), (2, 2), (1, 0), (2, 2)]]"
)


@pytest.fixture(name="space")
def space_():
    return get_space("darts")


def n_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_second_order_darts_has_the_published_parameters(space):
    genotype = space.parse(V2)
    with torch.device("meta"):
        assert n_parameters(space.build(genotype)) == 3_349_342  # 3.3 M in the paper
        with_second = n_parameters(space.build(genotype, auxiliary=True))
        assert with_second - 3_349_342 == 576 * 128 + 2 * 128 + 128 * 768 * 4 + 2 * 768 + 768 * 10 + 10
        imagenet = space.build(genotype, n_classes=1000, width=48, n_cells=14, stem="imagenet")
    assert n_parameters(imagenet) == 4_718_752  # 4.7 M in the paper


def naslib_parameters(space, genotype):
    """Parameters of NASLib's network: 8 cells of width 32, whose operations normalise without parameters."""
    with torch.device("meta"):
        model = space.build(genotype, width=32, n_cells=8)
    norms = (m for cell in model.cells for m in cell.edges.modules() if isinstance(m, nn.BatchNorm2d))
    return n_parameters(model) - sum(2 * norm.num_features for norm in norms)


@pytest.mark.parametrize("step", [80, pytest.param(1, marks=pytest.mark.slow)])
def test_compact_form_is_that_of_naslib(step, space, data_root):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = data_root / "nasbench301" / "nb301_725_archs_zero_cost_scores_naslib.parquet"
    if not path.exists():
        pytest.skip(f"no table {path}")
    table = parquet.read_table(path, columns=["arch", "params"]).to_pydict()
    for arch, params in list(zip(table["arch"], table["params"], strict=True))[::step]:
        assert naslib_parameters(space, space.parse(arch)) == round(1e6 * params)


def test_both_forms_mean_the_same(space):
    genotype = space.parse(V2)
    assert space.compact(genotype) == V2_COMPACT
    assert space.parse(V2_COMPACT) == genotype
    as_tuples = V2_COMPACT.replace("[", "(").replace("]", ")")
    assert space.parse(as_tuples) == genotype
    text = space.format(genotype)
    assert text.startswith("Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ")
    assert text.endswith("('max_pool_3x3', 1), ('skip_connect', 2)], reduce_concat=range(2, 6))")
    assert space.parse(text) == genotype
    assert space.parse(f" {V2}\n") == genotype


def test_order_of_edges_is_no_difference(space):
    genotype = space.parse(V2)
    assert space.parse(
        V2.replace("('sep_conv_3x3', 1), ('skip_connect', 0)", "('skip_connect', 0), ('sep_conv_3x3', 1)")
    )
    swapped = V2_COMPACT.replace("(0, 2), (2, 5)", "(2, 5), (0, 2)")
    assert swapped != V2_COMPACT
    assert space.parse(swapped) == genotype
    assert space.parse(V2_COMPACT.replace("(0, 2), (2, 5)", "(0, 5), (2, 2)")) != genotype


def test_number_of_architectures(space):
    assert space.size == (7**8 * 1 * 3 * 6 * 10) ** 2  # 10^18


def test_two_inputs_of_a_node_differ(space):
    rng = np.random.default_rng(0)
    genotypes = [space.sample(rng) for _ in range(50)]
    genotypes += [space.mutate(genotype, rng) for genotype in genotypes] + space.neighbours(genotypes[0])
    seen = set()
    for genotype in genotypes:
        for plan in space.cells(genotype):
            sources = [source for _, source in plan.edges]
            for node in range(2, 6):
                first, second = sources[2 * node - 4 : 2 * node - 2]
                assert 0 <= first < second < node
                seen.add((node, first, second))
    assert len(seen) == 1 + 3 + 6 + 10


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("reduce_concat=[2, 3, 4, 5])", "reduce_concat=[2, 3, 4, 5]", "is neither Genotype"),
        ("Genotype(", "dict(", "is neither Genotype"),
        ("sep_conv_3x3', 0), ", "none', 0), ", "operation 'none' is none of"),
        ("('dil_conv_3x3', 2)", "('dil_conv_3x3', 0)", "node 5 reads input 0 twice"),
        ("('dil_conv_3x3', 2)", "('dil_conv_3x3', 5)", "edge 7: input 5 is no node from 0 to 4"),
        ("normal_concat=[2, 3, 4, 5]", "normal_concat=[3, 4, 5]", r"normal_concat is \[3, 4, 5\]"),
        ("normal_concat=[2, 3, 4, 5]", "normal_concat=range(2, 5)", "normal_concat is range"),
        ("normal_concat=[2, 3, 4, 5], ", "", "expected the fields"),
        ("('dil_conv_3x3', 2)]", "('dil_conv_3x3', 2), ('dil_conv_3x3', 2)]", "a cell of 8"),
        ("normal=[('sep", "normal=[open('sep", "is neither Genotype"),
    ],
)
def test_texts_that_do_not_fit_are_refused(old, new, message, space):
    assert old in V2
    with pytest.raises(ArchitectureError, match=message):
        space.parse(V2.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(2, 5)", "(2, 7)", "operation 7 is no index from 0 to 6"),
        ("(2, 5)", "(2, -1)", "operation -1"),
        ("(2, 5)", "(0, 5)", "reads input 0 twice"),
        ("(2, 5)", "(2, 5, 1)", "is neither"),
        ("(2, 5)], ", "(2, 5)], [], ", "is neither"),
    ],
)
def test_compact_texts_that_do_not_fit_are_refused(old, new, message, space):
    with pytest.raises(ArchitectureError, match=message):
        space.parse(V2_COMPACT.replace(old, new, 1))


@pytest.mark.parametrize("wrong", [{"width": 7}, {"width": 0}, {"n_cells": 0}, {"stem": "svhn"}, {"drop_prob": -0.1}])
def test_options_that_do_not_fit_are_refused(wrong, space):
    with pytest.raises(OptionError, match="expected"):
        space.build(space.parse(V2), **wrong)


def test_drop_path_may_change_while_it_is_trained(space):
    model = space.build(space.parse(V2), width=4, n_cells=3, drop_prob=0.0)
    image = torch.randn(2, 3, 32, 32)
    torch.manual_seed(0)
    assert torch.equal(model(image), model(image))
    model.drop_prob = 0.5
    assert not torch.equal(model(image), model(image))
    model.eval()
    assert torch.equal(model(image), model(image))
