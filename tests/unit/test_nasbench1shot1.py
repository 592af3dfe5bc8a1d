"""NAS-Bench-1Shot1: the published sizes and what they count, cells in NAS-Bench-101, results through its files."""

from __future__ import annotations

import itertools

import pytest
import torch

from naswot.benchmark import get_benchmark
from naswot.errors import ArchitectureError
from naswot.seeding import numpy_generator
from naswot.space import get_space

SPACES = [get_space(f"nasbench1shot1_{number}") for number in (1, 2, 3)]
NASBENCH101 = get_space("nasbench101")


def all_parents(n_parents):
    """Every choice of parents: for each block and the output a set of earlier vertices."""
    options = (itertools.combinations(range(block), n) for block, n in enumerate(n_parents, start=1))
    return list(itertools.product(*options))


def n_read(parents):
    """Blocks that any other block or the output reads."""
    return len(set().union(*parents) - {0})


@pytest.mark.parametrize(
    ("space", "graphs", "size", "read", "published"),
    [
        (SPACES[0], 180, 14_580, 6_240, 6_240),
        (SPACES[1], 360, 29_160, 16_632, 29_160),
        (SPACES[2], 5_400, 1_312_200, 363_648, 363_648),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_published_sizes_and_what_they_count(space, graphs, size, read, published):
    parents = all_parents(space.n_parents)
    assert len(parents) == graphs
    assert sum(space.n_parents) == 9
    assert space.size == size
    assert sum(3 ** n_read(choice) for choice in parents) == read
    assert published in (read, size)


@pytest.mark.parametrize(("space", "cells"), list(zip(SPACES, (2_685, 7_773, 55_854), strict=True)))
def test_cells_up_to_isomorphism(space, cells):
    listed = list(space.distinct())
    assert len(listed) == len(set(listed)) == cells
    assert all(space.is_valid(genotype) for genotype in listed)


def test_listed_cells_are_all_there_are_and_differ():
    """Of the two small spaces: the hashes of every genotype of one, of every listed one of the other."""
    first, second = SPACES[:2]
    listed = {first.canonical(genotype) for genotype in first.distinct()}
    assert len(listed) == 2_685
    rng = numpy_generator(0)
    assert all(first.canonical(first.sample(rng)) in listed for _ in range(500))
    assert len({second.canonical(genotype) for genotype in second.distinct()}) == 7_773


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_representatives_are_the_listed_genotypes_of_the_same_cell(space):
    listed, rng = set(space.distinct()), numpy_generator(1)
    for _ in range(100):
        genotype = space.sample(rng)
        representative = space.representative(genotype)
        assert representative in listed
        assert space.canonical(representative) == space.canonical(genotype)
        assert space.representative(representative) == representative


def test_a_cell_worked_out_on_paper():
    """Block 3 is read by nothing, so nothing of it is left; then block 4 becomes the third vertex."""
    space = SPACES[1]
    text = "maxpool3x3<-0|conv1x1-bn-relu<-1|conv3x3-bn-relu<-0,1|conv3x3-bn-relu<-0,2|output<-0,1,4"
    genotype = space.parse(text)
    assert space.format(genotype) == text
    names = "maxpool3x3,conv1x1-bn-relu,conv3x3-bn-relu"
    #                                        0->1 0->2 0->3 0->out  1->2 1->3 1->out  2->3 2->out  3->out
    assert NASBENCH101.format(space.to_nasbench101(genotype)) == f"1011101101:{names}"
    other = space.parse(text.replace("conv3x3-bn-relu<-0,1", "maxpool3x3<-1,2"))
    assert other != genotype
    assert space.to_nasbench101(other) == space.to_nasbench101(genotype)
    assert space.representative(other) == space.representative(genotype) == genotype
    with torch.device("meta"):
        model = space.build(genotype)
    wanted = NASBENCH101.n_parameters(space.to_nasbench101(genotype))
    assert sum(parameter.numel() for parameter in model.parameters()) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "conv3x3-bn-relu<-0|conv3x3-bn-relu<-0,1|conv3x3-bn-relu<-0,1|conv3x3-bn-relu<-0,1|output<-0",
        "conv3x3-bn-relu<-0|conv3x3-bn-relu<-0,1|conv3x3-bn-relu<-1,0|conv3x3-bn-relu<-0,1|output<-0,1",
        "conv3x3-bn-relu<-0|conv3x3-bn-relu<-0,1|conv3x3-bn-relu<-0,3|conv3x3-bn-relu<-0,1|output<-0,1",
        "conv5x5<-0|conv3x3-bn-relu<-0,1|conv3x3-bn-relu<-0,1|conv3x3-bn-relu<-0,1|output<-0,1",
        "conv3x3-bn-relu<-0|conv3x3-bn-relu<-0,1|output<-0,1",
    ],
)
def test_strings_of_no_cell_are_refused(text):
    with pytest.raises(ArchitectureError, match="expected 4 blocks and the output with 1, 2, 2, 2, 2 parents"):
        SPACES[0].parse(text)


@pytest.mark.parametrize(
    ("number", "cells"),
    [(1, 14), (2, 19), pytest.param(3, 181, marks=pytest.mark.slow)],
)
def test_results_are_those_of_nasbench101(data_root, number, cells):
    path = data_root / "nasbench101" / "nb101_1250_archs.parquet"
    if not path.exists():
        pytest.skip(f"no table {path}")
    part, whole = get_benchmark(f"nasbench1shot1_{number}", path), get_benchmark("nasbench101", path)
    assert len(part) == cells
    space, otherwise = part.space, 0
    for genotype in part.genotypes():
        cell = space.to_nasbench101(genotype)
        expected = whole.query(cell, dataset="cifar10")
        assert part.query(genotype, dataset="cifar10") == expected
        for neighbour in space.neighbours(genotype):  # a block that is not read may be any
            if space.to_nasbench101(neighbour) == cell:
                otherwise += 1
                assert part.query(neighbour, dataset="cifar10") == expected
    assert otherwise > 0
    assert len({space.canonical(genotype) for genotype in part.genotypes()}) == cells


def test_a_part_holds_what_the_hashes_say(data_root):
    path = data_root / "nasbench101" / "nb101_1250_archs.parquet"
    if not path.exists():
        pytest.skip(f"no table {path}")
    part, whole = get_benchmark("nasbench1shot1_1", path), get_benchmark("nasbench101", path)
    hashes = {whole.space.canonical(genotype) for genotype in whole.genotypes()}
    held = {genotype for genotype in part.space.distinct() if part.space.canonical(genotype) in hashes}
    assert held == set(part.genotypes())
