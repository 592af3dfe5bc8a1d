"""The spaces of R-DARTS: the table of S1 against published results, operations by edge, noise."""

from __future__ import annotations

import re

import pytest
import torch

import naswot
from naswot.errors import ArchitectureError, InputError
from naswot.export import export_pytorch
from naswot.proxy import list_proxies
from naswot.seeding import numpy_generator, seeded, torch_generator
from naswot.space import get_space
from naswot.spaces._cell_network import OPERATIONS
from naswot.spaces.darts import EDGES
from naswot.types import Batch

SPACES = [get_space(f"robustdarts_s{number}") for number in (1, 2, 3, 4)]
S1, S2, S3, S4 = SPACES
SKIPS = "[" + ", ".join(f"('skip_connect', {source})" for source in (0, 1) * 4) + "]"
ALL_SKIP = f"Genotype(normal={SKIPS}, normal_concat=range(2, 6), reduce={SKIPS}, reduce_concat=range(2, 6))"


def ids(space):
    return space.name


def images(n=4, size=16):
    return torch.randn(n, 3, size, size, generator=torch_generator(0))


@pytest.mark.parametrize("space", SPACES, ids=ids)
def test_number_of_architectures(space):
    assert space.size == (1 * 3 * 6 * 10 * 2**8) ** 2


@pytest.mark.parametrize("space", [S2, S3], ids=ids)
def test_none_is_never_in_an_architecture(space):
    rng = numpy_generator(0)
    found = {name for _ in range(30) for plan in space.cells(space.sample(rng)) for name, _ in plan.edges}
    assert found == {"skip_connect", "sep_conv_3x3"}


def test_every_edge_of_s1_has_two_operations_of_its_own():
    """Of the normal cell all but two edges may be skipped, of the reduction cell most are poolings."""
    normal, reduce = (dict(zip(EDGES, rows, strict=True)) for rows in S1.operations)
    assert len(normal) == len(reduce) == 14
    assert all(len(set(row)) == 2 for row in (*normal.values(), *reduce.values()))
    assert [edge for edge, row in normal.items() if "skip_connect" not in row] == [(3, 5), (4, 5)]
    assert normal[0, 2] == ("skip_connect", "dil_conv_3x3")
    assert normal[0, 4] == ("max_pool_3x3", "skip_connect")
    assert reduce[1, 4] == ("max_pool_3x3", "sep_conv_3x3")
    assert sum("avg_pool_3x3" in row for row in reduce.values()) == 6
    assert not any("avg_pool_3x3" in row for row in normal.values())


@pytest.mark.parametrize(("space", "key"), [(S1, "s1_cifar10"), (S3, "s3_svhn")], ids=["s1", "s3"])
def test_architectures_that_were_found_in_the_paper_are_in_the_space(space, key, data_root):
    path = data_root / "robustdarts_logs" / "results_arch.yaml"
    if not path.exists():
        pytest.skip(f"no searches {path}")
    part = re.split(r"^(?=s\d_)", path.read_text(), flags=re.MULTILINE)
    text = next(piece for piece in part if piece.startswith(key))
    found = re.findall(r"Genotype\(.*?reduce_concat=range\(2,\s+6\)\)", text, flags=re.DOTALL)
    assert len(found) == 104
    genotypes = [space.parse(" ".join(arch.split())) for arch in found]
    used: dict[int, set[int]] = {}
    for genotype in genotypes:
        assert space.parse(space.format(genotype)) == genotype
        for position, gene in enumerate(genotype):
            used.setdefault(position, set()).add(gene)
    operations = [position for position in range(24) if position % 3]
    assert all(used[position] == {0, 1} for position in operations)


def test_operations_belong_to_their_edges():
    text = S1.format(S1.parse(ALL_SKIP.replace("reduce=" + SKIPS, "reduce=" + str([*S1.cells((0,) * 24)[1].edges]))))
    assert text.count("skip_connect") == 8  # of the reduction cell the first operations are poolings
    with pytest.raises(ArchitectureError, match="'skip_connect' is no operation of the edge from 0 to 2; "):
        S1.parse(ALL_SKIP)
    genotype = S1.sample(numpy_generator(3))
    assert S1.from_cells(*(plan.edges for plan in S1.cells(genotype))) == genotype


@pytest.mark.parametrize("text", [ALL_SKIP.replace("skip_connect", "none", 1), "[[(0, 3), (1, 3)]]"])
def test_what_belongs_to_the_supernet_or_to_darts_is_refused(text):
    with pytest.raises(ArchitectureError, match=r"operation 'none' is none of|is no Genotype"):
        S3.parse(text)


def test_the_same_architecture_is_the_same_model_as_in_darts():
    genotype, darts = S2.sample(numpy_generator(5)), get_space("darts")
    models = []
    for space in (S2, darts):
        with seeded(0):
            models.append(space.build(space.parse(S2.format(genotype)), width=4, n_cells=3).eval())
    assert torch.equal(models[0](images()), models[1](images()))


@pytest.mark.parametrize("stride", [1, 2])
def test_noise_is_standard_normal_of_the_shape_of_the_output_and_holds_nothing_of_the_input(stride):
    noise = OPERATIONS["noise"](3, stride)
    x = torch.full((50, 3, 9, 9), 100.0, requires_grad=True)
    with seeded(0):
        first, second = noise(x), noise.eval()(x)
    side = -(-9 // stride)
    assert first.shape == (50, 3, side, side)
    assert not first.requires_grad
    assert not torch.equal(first, second)  # drawn anew each time, in evaluation too
    assert abs(float(first.mean())) < 5 / first.numel() ** 0.5
    assert abs(float(first.std()) - 1) < 5 / (2 * first.numel()) ** 0.5


def test_a_network_of_noise_only_learns_nothing_of_its_images():
    """Its last cells are noise alone, so no gradient reaches the stem; and it cannot be exported as a function."""
    with seeded(0):
        model = S4.build((0,) * 24, width=4, n_cells=3)
        model(images()).sum().backward()
    assert model.stem[0][0].weight.grad is None
    assert model.classifier.weight.grad.abs().sum() > 0


def test_a_network_with_noise_is_not_exported(tmp_path):
    with seeded(0):
        model = S4.build((0,) * 24, width=4, n_cells=3).eval()
    with pytest.raises(InputError, match="depends on more than its inputs"):
        export_pytorch(model, tmp_path / "noise.py", example=images(2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("space", [*(pytest.param(s, marks=pytest.mark.slow) for s in SPACES[:3]), S4], ids=ids)
def test_proxies_score_the_networks_and_repeat_themselves(space):
    with seeded(0):
        model = space.build(space.sample(numpy_generator(1)), width=4, n_cells=3)
    batch = Batch(images(4, 8), torch.arange(4) // 2)  # the evidence of labels needs images of one class
    attention = ("dss", "head_confidence", "head_importance")
    names = list_proxies(without=attention)
    scores = naswot.measure(model, batch, names)
    assert set(scores) == set(names)
    assert naswot.measure(model, batch, names) == scores
