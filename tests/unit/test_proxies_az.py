"""The components of AZ-NAS: twins, cases on paper, where blocks end, what has no score."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from reference.az_nas import ChainNetwork, slow_expressivity, slow_progressivity, slow_trainability
from reference.tiny import set_weights
from torch import nn

from naswot.errors import InputError
from naswot.measuring import run_proxies
from naswot.passes import Passes
from naswot.proxy import get_proxy
from naswot.seeding import seeded
from naswot.space import get_space
from naswot.testing.networks import small_batch, small_network
from naswot.types import Batch
from proxies._blocks import blocks_of
from proxies._pca import principal_entropy
from proxies.az_trainability import _merged

AZ = [get_proxy(name) for name in ("az_expressivity", "az_progressivity", "az_trainability")]
SPACE = get_space("nasbench201")


def measured(model, batch, **options):
    return run_proxies(model, batch if isinstance(batch, Batch) else Batch(batch), AZ, **options)


def shapes(model, batch):
    with (
        Passes(model, batch if isinstance(batch, Batch) else Batch(batch)) as passes,
        blocks_of(passes, n_needed=1) as f,
    ):
        return [tuple(feature.shape) for feature in f]


def scaling(factor):
    """Linear(2, 1), Linear(1, 1) with that weight, head: two features, one value each, the block multiplies."""
    model = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1, bias=False), nn.Linear(1, 3))
    with torch.no_grad():
        model[1].weight.fill_(factor)
    return model


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_equals_the_slow_twins(dtype, tolerance):
    # float32: rounding of the forward pass, enlarged by BatchNorm and by the eigenvalues
    model = set_weights(ChainNetwork()).to(dtype)
    scores = measured(model, torch.zeros(5, 3, 8, 8), seed=3).scores
    with seeded(3):
        gaussian = torch.randn(5, 3, 8, 8, dtype=torch.float64).to(dtype)
        trainability = slow_trainability(model, gaussian)
    assert scores["az_expressivity"] == pytest.approx(slow_expressivity(model, gaussian), rel=tolerance)
    assert scores["az_progressivity"] == pytest.approx(
        slow_progressivity(model, gaussian), rel=tolerance, abs=tolerance
    )
    assert scores["az_trainability"] == pytest.approx(trainability, rel=tolerance)


def test_entropy_on_paper():
    # two channels, uncorrelated, variances 1 and 1: two shares of one half; 9 and 3: shares 3/4 and 1/4
    square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64) + 7
    assert principal_entropy(square).item() == pytest.approx(math.log(2))
    skewed = (square - 7) * torch.tensor([3.0, math.sqrt(3)], dtype=torch.float64)
    assert principal_entropy(skewed).item() == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    # channels that repeat each other span one direction; with fewer rows than channels the other product is taken
    assert principal_entropy(square[:, :1].repeat(1, 3)).item() == pytest.approx(0, abs=1e-12)
    corners = torch.eye(5, dtype=torch.float64)[:3]  # an even triangle: two equal directions
    assert principal_entropy(corners).item() == pytest.approx(math.log(2))
    assert principal_entropy(torch.full((6, 3), 0.1, dtype=torch.float64)) is None


@pytest.mark.parametrize(("factor", "expected"), [(2.0, -0.5), (-1.0, 0.0), (0.5, -0.5), (-4.0, -2.25)])
def test_trainability_on_paper(factor, expected):
    # the signs v come back as a v, so the mean of a v v is a and s = |a|: 2 - 2 - 1/2, 2 - 1 - 1, 2 - 1/2 - 2, ...
    scores = measured(scaling(factor), torch.ones(4, 2)).scores
    assert scores["az_trainability"] == pytest.approx(expected, abs=1e-6)
    assert scores["az_expressivity"] == pytest.approx(0, abs=1e-9)  # one channel has one direction
    assert scores["az_progressivity"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("factor", "reason"), [(1.0, "unchanged"), (0.0, "kills the gradient")])
def test_blocks_that_learn_nothing(factor, reason):
    result = measured(scaling(factor), torch.ones(4, 2))
    assert result.scores["az_trainability"] == -math.inf
    assert reason in result.reasons["az_trainability"]
    if factor == 0:
        assert result.scores["az_expressivity"] == result.scores["az_progressivity"] == -math.inf
        assert result.reasons["az_expressivity"] == "the features of block 2 of 2 do not vary"


def test_scale_matters_to_trainability_only():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    set_weights(model)
    nn.init.zeros_(model[2].bias)
    before = measured(model, torch.zeros(4, 3, 8, 8)).scores
    with torch.no_grad():
        model[2].weight.mul_(8)
    after = measured(model, torch.zeros(4, 3, 8, 8)).scores
    for name in ("az_expressivity", "az_progressivity"):
        assert after[name] == pytest.approx(before[name], rel=1e-5)
    assert after["az_trainability"] != pytest.approx(before["az_trainability"], rel=1e-2)


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("genotype", [(3, 3, 3, 1, 2, 4), (3, 0, 3, 0, 0, 3), (0, 0, 0, 1, 0, 0)])
def test_blocks_of_nasbench201_are_stem_and_cells(genotype, pruned):
    # as the authors extract them, for a dense cell, a chain of convolutions and a single skip connection
    model = SPACE.build(genotype, width=4, n_cells=2, pruned=pruned)
    widths = [4] * 3 + [8] * 3 + [16] * 3
    sizes = [8] * 3 + [4] * 3 + [2] * 3
    assert shapes(model, torch.zeros(4, 3, 8, 8)) == [(4, c, s, s) for c, s in zip(widths, sizes, strict=True)]


@pytest.mark.parametrize("pruned", [False, True])
def test_cells_without_function(pruned):
    images = torch.zeros(4, 3, 8, 8)
    skip = measured(SPACE.build((0, 0, 0, 1, 0, 0), width=4, n_cells=1, pruned=pruned), images)
    assert skip.reasons["az_trainability"] == "block 2 of 6 hands the gradient on unchanged"
    assert skip.scores["az_progressivity"] <= 1e-12
    nothing = measured(SPACE.build((0,) * 6, width=4, n_cells=1, pruned=pruned), images)
    assert set(nothing.scores.values()) == {-math.inf}
    assert ("do not depend" if pruned else "do not vary") in nothing.reasons["az_expressivity"]


def test_blocks_of_transformers_are_their_layers():
    assert shapes(small_network("vision transformer"), small_batch(8, "vision transformer")) == [(8, 5, 12)] * 3
    assert shapes(small_network("language model"), small_batch(8, "language model")) == [(8, 6, 12)] * 3


class Plain(nn.Module):
    """Two convolutions, each with an activation; as a module or a function, behind a wrapper or not."""

    def __init__(self, style):
        super().__init__()
        self.style = style
        self.one, self.two, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3), nn.Linear(6, 2)
        self.relu, self.wrapped = nn.ReLU(inplace=True), nn.Sequential(nn.Identity(), nn.Dropout(0.5))

    def forward(self, x):
        if self.style == "function":
            x = F.relu(self.two(F.relu(self.one(x))))
        elif self.style == "module":
            x = self.relu(self.two(self.relu(self.one(x))))
        else:
            x = self.wrapped(self.relu(self.two(self.wrapped(self.relu(self.one(x))))))
        return self.head(self.wrapped(x).mean(dim=(2, 3)))


def test_how_a_network_is_written_does_not_matter():
    scores = []
    for style in ("function", "module", "wrapped"):
        model = set_weights(Plain(style))
        scores.append(measured(model, torch.zeros(4, 3, 8, 8)).scores)
        assert shapes(model, torch.zeros(4, 3, 8, 8)) == [(4, 4, 6, 6), (4, 6, 4, 4)]
    assert scores[0] == scores[1] == scores[2]


class Sum(nn.Module):
    """Its input and a convolution of it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return x + self.conv(x)


def test_what_follows_may_write_in_place():
    scores = []
    for inplace in (False, True):
        layers = [nn.Conv2d(3, 4, 3), Sum(), nn.ReLU(inplace=inplace), nn.Conv2d(4, 4, 3), nn.ReLU(inplace=inplace)]
        model = set_weights(nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 2)))
        scores.append(measured(model, torch.zeros(4, 3, 8, 8)).scores)
    assert scores[0] == scores[1]


def test_vectors_behind_the_pooling_do_not_count():
    hidden = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 2)]
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), *hidden)
    assert shapes(model, torch.zeros(4, 3, 8, 8)) == [(4, 4, 6, 6), (4, 4, 4, 4)]
    assert shapes(nn.Sequential(*hidden[2:]), torch.zeros(4, 4)) == [(4, 7)]  # a network without maps has only these


def test_positions_are_paired_by_merging():
    maps = torch.arange(2 * 3 * 64.0).reshape(2, 3, 8, 8)
    assert torch.equal(_merged(maps, torch.Size((2, 5, 4, 4))), F.pixel_unshuffle(maps, 2))
    assert _merged(maps, torch.Size((2, 5, 8, 8))).shape == maps.shape
    assert torch.equal(_merged(maps, torch.Size((2, 5, 6, 6))), maps[:, :, 1:7, 1:7])
    odd = maps[:, :, :7, :7]
    assert torch.equal(_merged(odd, torch.Size((2, 5, 4, 4))), F.pixel_unshuffle(F.pad(odd, (0, 1, 0, 1)), 2))
    assert _merged(maps, torch.Size((2, 5, 16, 16))).shape == maps.shape  # upsampled: cannot be told
    assert _merged(maps, torch.Size((2, 4, 9))).shape == maps.shape


def test_what_cannot_be_scored_says_why():
    images = torch.zeros(4, 3, 8, 8)
    one = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    assert run_proxies(one, Batch(images), AZ[:1]).scores["az_expressivity"] > 0
    for proxy in AZ[1:]:
        with pytest.raises(InputError, match="at least 2 blocks with weights before its classifier, but found 1"):
            run_proxies(one, Batch(images), [proxy])
    with pytest.raises(InputError, match="at least 1 blocks"):
        run_proxies(nn.Sequential(nn.ReLU(), nn.Flatten()), Batch(images), AZ[:1])
    upsampling = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 4, 2, 2), nn.Flatten(), nn.Linear(576, 2))
    with pytest.raises(InputError, match="positions can be paired"):
        run_proxies(upsampling, Batch(images), AZ[2:])

    with torch.inference_mode():
        frozen_for_good = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with pytest.raises(InputError, match="made in inference mode"):
        run_proxies(frozen_for_good, Batch(torch.zeros(2, 4)), AZ[:1])

    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Parameter(torch.randn(9, 4)), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.table[x].mean(dim=1))

    with pytest.raises(InputError, match=r"the inputs are integers and no torch\.nn\.Embedding reads them"):
        run_proxies(Words(), Batch(torch.zeros(2, 3, dtype=torch.int64)), AZ[:1])


def test_alone_together_and_without_labels_or_gradients():
    model, batch = small_network(), small_batch()
    alone = {proxy.name: run_proxies(model, batch, [proxy]).scores[proxy.name] for proxy in AZ}
    with torch.no_grad():
        assert measured(model, batch.inputs).scores == alone
    beside = run_proxies(model, batch, [get_proxy("naswot"), *AZ[::-1]]).scores
    assert {name: beside[name] for name in alone} == alone
    assert measured(model, batch, seed=1).scores != alone  # other Gaussian images, other signs
