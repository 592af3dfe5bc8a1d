"""NAS-Bench-101: published hashes, counts and parameters, how cells are written, what the network computes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from naswot.errors import ArchitectureError, OptionError
from naswot.seeding import numpy_generator, seeded, torch_generator
from naswot.space import get_space
from naswot.spaces import _nasbench101_graph as graphs
from naswot.spaces._nasbench101_network import CellModule, vertex_channels

SPACE = get_space("nasbench101")
CONV3, CONV1, POOL = graphs.OPERATIONS

# the first record of the official files, the example of the official README, both with their published figures
FIRST = (
    [[int(edge) for edge in row] for row in "0100110 0010000 0001001 0000010 0000010 0000001 0000000".split()],
    ["input", CONV3, POOL, CONV3, CONV3, CONV1, "output"],
)
INCEPTION = (
    [[int(edge) for edge in row] for row in "0111010 0000001 0000001 0000100 0000001 0000001 0000000".split()],
    ["input", CONV1, CONV3, CONV3, CONV3, POOL, "output"],
)
PUBLISHED = [
    (FIRST, "00005c142e6f48ac74fdcf73e3439874", 8_555_530),
    (INCEPTION, "28cfc7874f6d200472e1a9dcd8650aa0", 2_694_282),
]


def built_parameters(genotype, **options):
    with torch.device("meta"):
        model = SPACE.build(genotype, **options)
    return sum(parameter.numel() for parameter in model.parameters())


def samples(n, seed=0):
    rng = numpy_generator(seed)
    return [SPACE.sample(rng) for _ in range(n)]


@pytest.mark.parametrize(("specification", "module_hash", "parameters"), PUBLISHED)
def test_published_hash_and_parameters(specification, module_hash, parameters):
    genotype = SPACE.from_matrix(*specification)
    assert SPACE.canonical(genotype) == module_hash
    assert built_parameters(genotype) == SPACE.n_parameters(genotype) == parameters


def test_parameters_without_building_are_those_of_the_network():
    for genotype in samples(40):
        assert SPACE.n_parameters(genotype) == built_parameters(genotype)
    options = {"n_classes": 7, "in_channels": 1, "width": 11, "n_cells": 2}
    for genotype in samples(10, seed=1):
        assert SPACE.n_parameters(genotype, **options) == built_parameters(genotype, **options)


def test_as_many_cells_as_the_paper_counts():
    assert sum(3**n for n in graphs.inner_vertices().values()) == 1_293_208
    assert sum(1 for _ in graphs.trained_cells()) == 423_624


@pytest.mark.slow
def test_parameters_of_all_cells_are_published_in_the_order_of_hashes(data_root):
    """The table names no cells; that every eleventh row agrees shows hashes, vertex orders and counts at once."""
    pandas = pytest.importorskip("pandas")
    path = data_root / "nasbench101" / "nb101_all_accuracy_params.parquet"
    if not path.exists():
        pytest.skip(f"no table {path}")
    params = pandas.read_parquet(path)["params_M"].to_numpy()
    genes = SPACE.published()
    assert genes.shape == (423_624, 26)
    assert tuple(map(int, genes[0])) == SPACE.from_matrix(*FIRST)
    ours = [SPACE.n_parameters(tuple(map(int, row))) for row in genes[::11]]
    assert np.array_equal(np.float32(np.array(ours) / 1e6), params[::11])


def test_naslib_strings_have_the_parameters_that_naslib_counted(data_root):
    """Which tells what its numbers of the operations mean."""
    pandas = pytest.importorskip("pandas")
    path = data_root / "nasbench101" / "nb101_500_archs_zero_cost_scores_naslib.parquet"
    if not path.exists():
        pytest.skip(f"no table {path}")
    table = pandas.read_parquet(path)
    assert len(table) == 500
    for arch, params in table[["arch", "params"]].itertuples(index=False):
        assert SPACE.n_parameters(SPACE.parse(arch)) == round(1e6 * params)


# ------------------------------------------------------------------------------------------------ how cells are written


def test_a_string_shows_the_cell_alone():
    assert SPACE.format(SPACE.from_matrix(*FIRST)) == f"100110100001001010101:{CONV3},{POOL},{CONV3},{CONV3},{CONV1}"
    plain = (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, *[0] * 10, 2, 0, 0, 0, 0)
    assert SPACE.format(plain) == "111:maxpool3x3"
    assert SPACE.parse("111:maxpool3x3") == plain
    assert SPACE.format(SPACE.parse("1:")) == "1:"


def test_idle_vertices_are_left_out():
    """One that reads nothing, one that nothing reads, and one that only such a one reads."""
    matrix = np.zeros((7, 7), dtype=int)
    for edge in [(0, 2), (2, 6), (1, 2), (0, 3), (0, 4), (4, 5), (0, 6)]:
        matrix[edge] = 1
    names = ["input", CONV1, POOL, CONV1, CONV3, CONV1, "output"]
    expected = SPACE.parse("111:maxpool3x3")
    assert SPACE.from_matrix(matrix.tolist(), names) == expected
    codes = {"input": 0, "output": 1, POOL: 2, CONV1: 3, CONV3: 4}
    naslib = tuple(matrix.ravel().tolist()) + tuple(codes[name] for name in names)
    assert len(naslib) == 56
    assert SPACE.parse(str(naslib)) == expected
    small = (0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 2, 1)  # three vertices
    assert SPACE.parse(str(small)) == expected


def test_only_edges_of_the_cell_count():
    """Nine of twelve edges are left."""
    used = [(0, 1), (0, 2), (0, 3), (0, 6), (1, 2), (1, 3), (2, 3), (2, 6), (3, 6)]
    matrix = np.zeros((7, 7), dtype=int)
    matrix[tuple(zip(*used, (0, 4), (1, 4), (4, 5), strict=True))] = 1
    names = ["input", *[CONV3] * 5, "output"]
    assert SPACE.format(SPACE.from_matrix(matrix.tolist(), names)) == f"1111110111:{CONV3},{CONV3},{CONV3}"
    matrix[1, 6] = 1
    with pytest.raises(ArchitectureError, match=r"at most 7 vertices and 9 edges.* 5 and 10"):
        SPACE.from_matrix(matrix.tolist(), names)


@pytest.mark.parametrize(
    ("matrix", "names", "why"),
    [
        ([[0, 0], [0, 0]], ["input", "output"], "no path"),
        ([[0, 1], [1, 0]], ["input", "output"], "upper triangular"),
        ([[0, 2], [0, 0]], ["input", "output"], "upper triangular"),
        ([[0, 1]], ["input", "output"], "2 rows of 2"),
        ([[0, 1], [0, 0]], ["output", "input"], "begin with 'input'"),
        ([[0, 1, 0], [0, 0, 1], [0, 0, 0]], ["input", "conv5x5", "output"], "unknown operation 'conv5x5'"),
    ],
)
def test_matrices_of_no_cell_are_refused(matrix, names, why):
    with pytest.raises(ArchitectureError, match=why):
        SPACE.from_matrix(matrix, names)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("11:maxpool3x3", "1 operations need 3 edges"),
        ("111:maxpool", "unknown operation 'maxpool'"),
        ("100:maxpool3x3", "no path"),
        ("(0, 1, 0, 0, 0, 2)", r"2 \(input\)|begin|should be 0"),
        ("(0, 1, 0, 0, 0)", "5 numbers"),
        ("111111111111111111111:" + ",".join([CONV3] * 5), "9 edges"),
    ],
)
def test_strings_of_no_cell_are_refused(text, why):
    with pytest.raises(ArchitectureError, match=why):
        SPACE.parse(text)


def test_one_genotype_for_each_cell():
    """A gap among the vertices, an idle vertex, or an operation where no vertex is, make no genotype."""
    first = SPACE.parse("111:maxpool3x3")
    assert SPACE.is_valid(first)
    for wrong in range(22, 26):
        with_operation = [*first[:wrong], 1, *first[wrong + 1 :]]
        assert not SPACE.is_valid(tuple(with_operation))
    at_two = [int(pair in {(0, 2), (2, 6), (0, 6)}) for pair in graphs.PAIRS] + [0] * 5
    assert not SPACE.is_valid(tuple(at_two))
    idle = [int(pair in {(0, 1), (1, 6), (0, 2)}) for pair in graphs.PAIRS] + [0] * 5
    assert not SPACE.is_valid(tuple(idle))
    listed = list(itertools.islice(SPACE.genotypes(), 20_000))
    assert len({SPACE.format(genotype) for genotype in listed}) == 20_000
    assert SPACE.format(listed[0]) == "1:"


# --------------------------------------------------------------------------------------------------------- isomorphism


def isomorphic(first, second):
    """By trying every order of the inner vertices, without a condition on the matrix."""
    if len(first.matrix) != len(second.matrix):
        return False
    last = len(first.matrix) - 1
    for inner in itertools.permutations(range(1, last)):
        order = (0, *inner, last)
        moved = tuple(tuple(first.matrix[source][target] for target in order) for source in order)
        if moved == second.matrix and tuple(first.operations[v - 1] for v in inner) == second.operations:
            return True
    return False


def test_equal_hashes_are_isomorphic_cells():
    """All 81 labels of a graph of two equal branches: 45 classes, told apart by exhaustive search too."""
    matrix = (
        (0, 1, 1, 0, 0, 0),
        (0, 0, 0, 1, 0, 0),
        (0, 0, 0, 0, 1, 0),
        (0, 0, 0, 0, 0, 1),
        (0, 0, 0, 0, 0, 1),
        (0,) * 6,
    )
    cells = [graphs.Cell(matrix, operations) for operations in itertools.product(range(3), repeat=4)]
    hashes = [graphs.graph_hash(cell) for cell in cells]
    assert len(set(hashes)) == 45
    for (cell, own), (other, its) in itertools.combinations(zip(cells, hashes, strict=True), 2):
        assert (own == its) == isomorphic(cell, other)
    assert sum(1 for _ in graphs.distinct_cells([matrix])) == 45


def test_every_spelling_is_the_same_cell():
    several = 0
    for genotype in samples(30, seed=2):
        spellings = set(SPACE.spellings(genotype))
        several += len(spellings) > 1
        assert genotype in spellings
        assert all(SPACE.is_valid(spelling) for spelling in spellings)
        assert {SPACE.canonical(spelling) for spelling in spellings} == {SPACE.canonical(genotype)}
        assert all(isomorphic(SPACE.cell(genotype), SPACE.cell(spelling)) for spelling in spellings)
        assert {SPACE.representative(spelling) for spelling in spellings} == {min(spellings)}
    assert several > 10


def test_hashes_tell_random_cells_apart_as_search_does():
    cells = [SPACE.cell(genotype) for genotype in samples(300, seed=3)]
    groups = {}
    for cell in cells:
        alike = len(cell.matrix), sum(map(sum, cell.matrix)), tuple(sorted(cell.operations))
        groups.setdefault(alike, []).append(cell)
    compared = 0
    for group in groups.values():
        for first, second in itertools.combinations(group, 2):
            compared += 1
            assert (graphs.graph_hash(first) == graphs.graph_hash(second)) == isomorphic(first, second)
    assert compared > 200


# ----------------------------------------------------------------------------------------------- sampling and mutation


def test_samples_are_uniform():
    """Of all genotypes 4,793 * 243 have seven vertices; first operations are equally often each; 5 deviations."""
    n = 4000
    drawn = samples(n, seed=4)
    full = sum(len(SPACE.cell(genotype).operations) == 5 for genotype in drawn)
    share = 4793 * 243 / 1_293_208
    assert abs(full - n * share) < 5 * math.sqrt(n * share * (1 - share))
    for operation in range(3):
        first = sum(genotype[21] == operation for genotype in drawn)
        assert abs(first - n / 3) < 5 * math.sqrt(n * 2 / 9)


def test_the_cell_without_vertices_mutates_into_another():
    alone = SPACE.parse("1:")
    assert SPACE.neighbours(alone) == []
    assert SPACE.is_valid(SPACE.mutate(alone, numpy_generator(0)))
    assert SPACE.is_valid(SPACE.crossover(alone, SPACE.from_matrix(*FIRST), numpy_generator(0)))


# -------------------------------------------------------------------------------------------------------------- network

LINE = ((0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0,) * 4)
BRANCHES = ((0, 1, 1, 1, 0), (0, 0, 0, 0, 1), (0, 0, 0, 0, 1), (0, 0, 0, 0, 1), (0,) * 5)
WIDEST = ((0, 1, 0, 0, 0), (0, 0, 1, 1, 0), (0, 0, 0, 0, 1), (0, 0, 0, 0, 1), (0,) * 5)
MIXED = ((0, 1, 0, 1, 0), (0, 0, 1, 0, 1), (0, 0, 0, 1, 0), (0, 0, 0, 0, 1), (0,) * 5)


@pytest.mark.parametrize(
    ("matrix", "c_in", "c_out", "channels"),
    [  # the cases of the official unit tests
        (LINE, 8, 16, [8, 16, 16, 16]),
        (((0, 1), (0, 0)), 1, 5, [1, 5]),
        (BRANCHES, 8, 8, [8, 3, 3, 2, 8]),
        (BRANCHES, 8, 15, [8, 5, 5, 5, 15]),
        (WIDEST, 8, 9, [8, 5, 5, 4, 9]),
        (MIXED, 8, 15, [8, 8, 7, 7, 15]),
    ],
)
def test_channels_are_divided_as_officially(matrix, c_in, c_out, channels):
    assert vertex_channels(graphs.Cell(matrix, (0,) * (len(matrix) - 2)), c_in, c_out) == channels


def test_a_cell_computes_what_the_paper_says():
    """Vertex 2 reads vertex 1 without its last channel, and the input; the output adds the projected input."""
    cell = graphs.Cell(((0, 1, 1, 1), (0, 0, 1, 1), (0, 0, 0, 1), (0,) * 4), (0, 2))
    with seeded(0):
        module = CellModule(cell, 4, 5).eval()
        x = torch.randn(2, 4, 6, 6, generator=torch_generator(0))

    def projected(vertex):
        convolution, norm, _ = module.projections[str(vertex)]
        return F.relu(norm(F.conv2d(x, convolution.weight)))

    convolution, norm, _ = module.operations[0]
    first = F.relu(norm(F.conv2d(projected(1), convolution.weight, padding=1)))
    assert first.shape[1] == 3
    second = F.max_pool2d(first[:, :2] + projected(2), 3, stride=1, padding=1)
    expected = torch.cat([first, second], dim=1) + projected(3)
    with torch.no_grad():
        torch.testing.assert_close(module(x), expected)


def test_a_cell_of_input_and_output_projects():
    with seeded(0):
        module = CellModule(graphs.Cell(((0, 1), (0, 0)), ()), 3, 4).eval()
    x = torch.randn(2, 3, 5, 5, generator=torch_generator(0))
    assert torch.equal(module(x), module.projections["1"](x))


def test_stacks_pool_and_double():
    with seeded(0):
        model = SPACE.build(SPACE.parse("111:maxpool3x3"), width=8)
    shapes = []
    for layer in model.cells:
        layer.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    model(torch.zeros(2, 3, 33, 33))
    assert shapes == [(8, 33, 33)] * 3 + [(8, 17, 17)] + [(16, 17, 17)] * 3 + [(16, 9, 9)] + [(32, 9, 9)] * 3


def test_official_constants_and_initialisation():
    """Truncated at two deviations of the normal, whose own deviation is then 1 / sqrt(fan-in); 4 standard errors."""
    with seeded(0):
        model = SPACE.build(SPACE.from_matrix(*FIRST))
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert {(norm.eps, round(norm.momentum, 12)) for norm in norms} == {(1e-5, 0.003)}
    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert all(module.bias is None for module in convolutions)
    weight = max((module.weight for module in convolutions), key=torch.Tensor.numel)
    wanted = 1 / math.sqrt(weight[0].numel())
    assert weight.std().item() == pytest.approx(wanted, rel=4 / math.sqrt(2 * weight.numel()))
    assert weight.abs().max().item() <= 2 * wanted / 0.8796256
    assert weight.abs().max().item() > 1.99 * wanted / 0.8796256
    assert model.classifier.weight.abs().max().item() <= math.sqrt(6 / 522)
    assert not model.classifier.bias.any()


def test_numbers_that_do_not_fit_are_refused():
    genotype = SPACE.parse("111:maxpool3x3")
    for options in ({"n_classes": 0}, {"in_channels": 0}, {"n_cells": 0}, {"width": 4}):
        for function in (SPACE.build, SPACE.n_parameters):
            with pytest.raises(OptionError, match="at least"):
                function(genotype, **options)
