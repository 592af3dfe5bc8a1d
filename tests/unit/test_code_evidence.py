"""Evidence of labels against normal densities by the book, what it must hear and must not, and its blocks."""

import math

import numpy as np
import pytest
import torch
from reference import evidence as slow
from scipy.optimize import minimize_scalar
from torch import nn

from naswot.kernels import log_determinant
from naswot.measuring import measure
from naswot.seeding import seeded, torch_generator
from naswot.types import Batch
from proxies._evidence import blocks_of, evidence


def kernel_of(values):
    """Share of agreeing signs, (n, n) float64, of pre-activations (n, D)."""
    codes = (values > 0).double()
    return (codes @ codes.t() + (1 - codes) @ (1 - codes).t()) / codes.shape[1]


def drawn(n=12, n_units=40, seed=0):
    """A kernel of random codes."""
    return kernel_of(torch.randn(n, n_units, generator=torch_generator(seed)))


def clustered(n, noise, *, n_classes=4, seed=0):
    """Images of a few classes that lie about the classes' means, (n, 20), and their labels, in turn."""
    generator = torch_generator(seed)
    labels = torch.arange(n) % n_classes
    means = torch.randn(n_classes, 20, generator=torch_generator(99))
    return means[labels] + noise * torch.randn(n, 20, generator=generator), labels


def score(model, images, labels):
    return measure(model, Batch(images, labels), "code_evidence")["code_evidence"]


# --- evidence --------------------------------------------------------------------------------------------------------

LABELS = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0, 0]


@pytest.mark.parametrize("noise", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("labels", [LABELS, [0] * 6 + [1] * 6, [0] * 11 + [1], [*range(11), 0]])
def test_evidence_equals_its_twin(labels, noise):
    for kernel in (drawn(), drawn(n_units=3), clustered_kernel()):
        value = evidence(kernel, torch.tensor(labels), noise=noise)
        assert float(value) == pytest.approx(slow.evidence(kernel.numpy(), labels, noise), rel=1e-9, abs=1e-12)


def clustered_kernel(n=12, noise=0.5):
    images, _ = clustered(n, noise, n_classes=3)
    return kernel_of(images @ torch.randn(20, 64, generator=torch_generator(3)))


def test_default_noise_is_a_tenth_of_the_process():
    assert float(evidence(drawn(), torch.tensor(LABELS))) == pytest.approx(slow.evidence(drawn().numpy(), LABELS, 0.1))


def test_variance_in_closed_form_is_the_likeliest():
    """And so nothing is left to choose but the noise."""
    for shape in (slow.covariance(clustered_kernel().numpy(), 0.1), np.eye(12)):
        found = minimize_scalar(
            lambda log_variance, shape=shape: -slow.log_likelihood(shape, LABELS, math.exp(log_variance)),
            bounds=(-10, 10), method="bounded", options={"xatol": 1e-9},
        )  # fmt: skip
        assert math.exp(found.x) == pytest.approx(slow.likeliest_variance(shape, LABELS), rel=1e-5)


def test_evidence_of_many_kernels_is_that_of_each():
    kernels = torch.stack([drawn(seed=seed) for seed in range(6)]).reshape(2, 3, 12, 12)
    values = evidence(kernels, torch.tensor(LABELS))
    assert values.shape == (2, 3)
    assert values[1, 2] == pytest.approx(float(evidence(kernels[1, 2], torch.tensor(LABELS))), rel=1e-12)
    assert len(set(values.flatten().tolist())) == 6


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_names_of_classes_do_not_matter(dtype):
    expected = float(evidence(clustered_kernel(), torch.tensor(LABELS)))
    renamed = torch.tensor([{0: 200, 1: 3, 2: 17}[label] for label in LABELS], dtype=dtype)
    assert float(evidence(clustered_kernel(), renamed)) == pytest.approx(expected, rel=1e-12)


def test_negative_and_huge_labels_are_names_too():
    renamed = torch.tensor([{0: -1, 1: 10**12, 2: 5}[label] for label in LABELS])
    assert float(evidence(drawn(), renamed)) == pytest.approx(float(evidence(drawn(), torch.tensor(LABELS))), rel=1e-12)


def test_scale_constants_and_order_of_a_kernel_do_not_matter():
    kernel, labels = clustered_kernel(), torch.tensor(LABELS)
    expected = pytest.approx(float(evidence(kernel, labels)), rel=1e-9)
    order = torch.randperm(12, generator=torch_generator(1))
    assert float(evidence(1e6 * kernel, labels)) == expected
    assert float(evidence(kernel + 7.5, labels)) == expected
    assert float(evidence(kernel[order][:, order], labels[order])) == expected
    assert float(evidence(kernel[order][:, order], labels)) != expected
    assert float(evidence(kernel + 7.5 * torch.eye(12), labels)) != expected


def test_a_kernel_that_sees_the_classes_beats_one_that_sees_nothing_and_this_one_that_sees_others():
    labels = torch.arange(64) % 8
    same = (labels[:, None] == labels).double()
    nothing = drawn(64, n_units=5000)
    right, none, wrong = (
        float(evidence(*pair)) for pair in ((same, labels), (nothing, labels), (same, torch.arange(64) // 8))
    )
    shuffled = labels[torch.randperm(64, generator=torch_generator(0))]
    assert right > 0.5 > 0.1 > none > 0 > float(evidence(same, shuffled)) > wrong > -2


@pytest.mark.parametrize("n", [4, 64, 127])
def test_evidence_of_a_kernel_that_finds_nothing_in_common(n):
    value = float(evidence(torch.eye(n, dtype=torch.float64), torch.arange(n) % 2))
    assert value == pytest.approx(math.log(1 + n / (n - 1) / 0.1) / (2 * n), rel=1e-9)


def test_hearing_noise_costs_evidence_and_adds_to_the_determinant():
    """The term in which this score and NASWOT agree on what they see and not on what it is worth."""
    projection = torch.randn(20, 1000, generator=torch_generator(5))
    values = []
    for noise in (0.2, 0.5, 1.0, 2.0):
        images, labels = clustered(32, noise)
        kernel = kernel_of(images @ projection)
        values.append((float(evidence(kernel, labels)), log_determinant(kernel * 1000).value))
    heard = list(zip(*values, strict=True))
    assert list(heard[0]) == sorted(heard[0], reverse=True)
    assert list(heard[1]) == sorted(heard[1])
    assert heard[0][0] > heard[0][-1] + 0.3


# --- blocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "sizes"), [(8, [8]), (64, [64]), (127, [127]), (128, [64] * 2), (200, [67, 67, 66])])
def test_blocks_hold_every_image_once(n, sizes):
    blocks = blocks_of(torch.arange(n) % 4)
    assert [len(block) for block in blocks] == sizes
    assert sorted(torch.cat(blocks).tolist()) == list(range(n))


@pytest.mark.parametrize("labels", ["sorted", "in turn", "by pairs"])
def test_labels_may_come_in_any_order(labels):
    n = 640
    targets = {"sorted": torch.arange(n) // 64, "in turn": torch.arange(n) % 10, "by pairs": torch.arange(n) // 2}
    blocks = blocks_of(targets[labels])
    assert len(blocks) == 10
    if labels != "by pairs":
        assert all(len(targets[labels][block].unique()) >= 9 for block in blocks)


def test_evidence_of_a_large_batch_is_the_mean_over_blocks():
    with seeded(0):
        model = nn.Sequential(nn.Linear(20, 100), nn.ReLU(), nn.Linear(100, 4))
    images, labels = clustered(130, 1.0)
    kernel = kernel_of(model[0](images).detach())
    blocks = blocks_of(labels)
    parts = [slow.evidence(kernel[b][:, b].numpy(), labels[b].tolist()) for b in blocks]
    assert len(parts) == 2
    assert score(model, images, labels) == pytest.approx(sum(parts) / 2, rel=1e-9)


def test_batches_of_64_and_128_compare():
    """Where one block of twice the size does not: the more images there are, the more each tells of the others."""
    with seeded(0):
        model = nn.Sequential(nn.Linear(20, 100), nn.ReLU(), nn.Linear(100, 10))
    found: dict[str, list[float]] = {"64": [], "128": [], "one block of 128": []}
    for seed in range(40):
        images, labels = clustered(128, 2.0, n_classes=10, seed=seed)
        found["128"].append(score(model, images, labels))
        found["one block of 128"].append(float(evidence(kernel_of(model[0](images).detach()), labels)))
        half = torch.randperm(128, generator=torch_generator(seed))[:64]
        found["64"].append(score(model, images[half], labels[half]))
    means = {name: np.mean(values) for name, values in found.items()}
    error = np.std(np.subtract(found["64"], found["128"])) / math.sqrt(40)
    assert abs(means["64"] - means["128"]) < 4 * error
    assert abs(means["one block of 128"] - means["128"]) > 8 * error
