"""jacov, EPE-NAS, the tangent kernel's condition, KNAS, GradSign, ZiCo and VKDNW."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from reference import gradient_kernels as slow
from reference.tiny import CellNetwork, images, set_weights, wave
from torch import nn

from naswot.errors import InputError, OptionError
from naswot.measuring import run_proxies
from naswot.proxy import get_proxy
from naswot.seeding import seeded
from naswot.types import Batch
from proxies._fisher_spectrum import spectrum_entropy
from proxies._per_sample import gram_matrix

N = 8
IMAGES, LABELS = images(N), torch.tensor([0, 1, 2, 0, 1, 2, 0, 4])
FEW_IMAGES = wave(2, 3, 8, 8)


class Square(nn.Module):
    """Logits x^2 / 2 and then zeros, so that the Jacobian of an image is the image itself."""

    def __init__(self, n_classes=3):
        super().__init__()
        self.n_zeros = n_classes - 3

    def forward(self, x):
        return torch.cat([x * x / 2, x.new_zeros(len(x), self.n_zeros)], dim=1)


class Root(nn.Sequential):
    """The square root of the logits of a layer."""

    def forward(self, x):
        return super().forward(x).sqrt()


def linear(n_in, n_classes, *, bias=False, value=0.0):
    model = nn.Linear(n_in, n_classes, bias=bias).double()
    nn.init.constant_(model.weight, value)
    return model


def measured(name, model, inputs, labels=LABELS, **options):
    inputs = torch.tensor(inputs, dtype=torch.float64) if isinstance(inputs, list) else inputs
    labels = torch.tensor(labels) if isinstance(labels, list) else LABELS[: len(inputs)] if labels is LABELS else labels
    seed = options.pop("seed", 0)
    return run_proxies(model, Batch(inputs, labels), [get_proxy(name, **options)], seed=seed)


def score(name, *arguments, **options):
    return measured(name, *arguments, **options).scores[name]


def status(name, *arguments, **options):
    result = measured(name, *arguments, **options)
    assert math.isinf(result.scores[name])
    assert (result.scores[name] > 0) == (not get_proxy(name).higher_is_better)  # the worst there is
    return result.reasons[name]


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request):
    return request.param


@pytest.fixture
def network(dtype):
    return set_weights(CellNetwork()).to(dtype)


# --- against the slow twins --------------------------------------------------------------------------------------

TWINS = {
    "jacov": lambda m: slow.jacov(m, IMAGES.to(m.classifier.weight)),
    "epe_nas": lambda m: slow.epe_nas(m, IMAGES.to(m.classifier.weight), LABELS, 5),
    "ntk_condition": lambda m: slow.ntk_condition(m, IMAGES.to(m.classifier.weight)),
    "knas": lambda m: slow.knas(m, IMAGES.to(m.classifier.weight), LABELS),
    "gradsign": lambda m: slow.gradsign(m, IMAGES.to(m.classifier.weight), LABELS),
    "zico": lambda m: slow.zico(m, IMAGES.to(m.classifier.weight), LABELS),
}


@pytest.mark.parametrize("name", TWINS)
def test_equals_the_slow_twin(name, network, dtype):
    # float32: other order of the sums; signs and quotients of gradients that are nearly zero; small eigenvalues
    tolerance = (
        1e-8 if dtype == torch.float64 else {"gradsign": 5e-3, "zico": 5e-3, "ntk_condition": 1e-4}.get(name, 1e-5)
    )
    assert score(name, network, IMAGES) == pytest.approx(TWINS[name](network), rel=tolerance)


@pytest.mark.parametrize("name", TWINS)
def test_twin_meets_train_mode_only_for_batch_norm(name):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).double()
    assert score(name, model, IMAGES) == score(name, copy.deepcopy(model).eval(), IMAGES)


@pytest.mark.parametrize("block", [1, 4, 10, 11, 100])
def test_gram_matrix_by_blocks(block):
    rows = wave(3, 11)
    expected = torch.tensor(slow.gram(rows.double().numpy()))
    assert torch.allclose(gram_matrix(list(rows), block=block), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("n_batches", [2, 3, 4])
def test_zico_over_more_batches(n_batches):
    model = set_weights(CellNetwork()).double()
    expected = slow.zico(model, IMAGES.double(), LABELS, n_batches)
    assert score("zico", model, IMAGES, n_batches=n_batches) == pytest.approx(expected, rel=1e-8)


def test_epe_nas_of_many_classes_compares_them():
    model = set_weights(CellNetwork(n_classes=101)).double()
    expected = slow.epe_nas(model, IMAGES.double(), LABELS, 101)
    assert score("epe_nas", model, IMAGES) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("n_parameters", "n_images"), [(128, None), (128, 3), (6, 4)])
def test_vkdnw_equals_the_slow_twin(network, dtype, n_parameters, n_images):
    n, n_tensors = n_images or N, len(list(network.parameters()))
    with seeded(0):  # the same draws in the same order
        fresh = slow.fresh_copy(network)
        parameters = list(fresh.parameters())
        if n_tensors > n_parameters:
            parameters = [parameters[i] for i in sorted(torch.randperm(n_tensors)[:n_parameters].tolist())]
        drawn = torch.cat([torch.randn(1, 3, 8, 8) for _ in range(n)]).to(dtype)
    expected = slow.decile_entropy(slow.fisher_matrix(fresh, drawn, parameters))
    options = {"n_parameters": n_parameters, "n_images": n_images}
    entropy = score("vkdnw_entropy", network, IMAGES, **options)
    assert entropy == pytest.approx(expected, rel=1e-8 if dtype == torch.float64 else 1e-3)
    assert score("vkdnw", network, IMAGES, **options) == n_tensors + entropy


# --- worked out on paper -----------------------------------------------------------------------------------------


def test_jacov_of_half_correlated_jacobians():
    # (1, -1, 0) and (1, 0, -1): means 0, product 1, norms sqrt 2: correlation 1/2, eigenvalues 3/2 and 1/2
    expected = -(math.log(1.5) + 1 / 1.5 + math.log(0.5) + 1 / 0.5)
    assert score("jacov", Square(), [[1, -1, 0], [1, 0, -1]], k=1e-12) == pytest.approx(expected)


def test_jacov_is_largest_for_uncorrelated_jacobians():
    # (1, 0, -1) and (1, -2, 1): product 0, eigenvalues 1 and 1, so -(0 + 1) twice
    assert score("jacov", Square(), [[1, 0, -1], [1, -2, 1]], k=1e-12) == pytest.approx(-2)


CLASSES = [[1, -1, 0], [1, 0, -1], [1, 0, -1], [1, -2, 1], [1, 5, 2]]  # correlations 1/2 in class 0, 0 in class 1


def test_epe_nas_of_two_classes():
    # class 0: twice log(1/2 + k), class 1: twice log(0 + k), each with twice log(1 + k); class 2 has one image
    k = 1e-5
    expected = 2 * abs(math.log(0.5 + k) + math.log(1 + k)) + 2 * abs(math.log(k) + math.log(1 + k))
    assert score("epe_nas", Square(), CLASSES, [0, 0, 1, 1, 2]) == pytest.approx(expected)


def test_epe_nas_of_two_among_101_classes():
    # means over rows log(1/2 + k) + log(1 + k) and log(k) + log(1 + k); two ordered pairs, over two classes
    k = 1e-5
    expected = abs(math.log(0.5 + k) - math.log(k))
    assert score("epe_nas", Square(101), CLASSES, [0, 0, 1, 1, 2]) == pytest.approx(expected)
    assert score("epe_nas", Square(100), CLASSES, [0, 0, 1, 1, 2]) != pytest.approx(expected)


@pytest.mark.parametrize("bias", [False, True])
def test_ntk_condition_of_a_linear_layer(bias):
    # d sum(W x) / dW = x in each of 2 rows: kernel 2 [[1, 1], [1, 2]], eigenvalues 3 +- sqrt 5; the bias is left out
    expected = (3 + math.sqrt(5)) / (3 - math.sqrt(5))
    assert score("ntk_condition", linear(2, 2, bias=bias), [[1, 0], [1, 1]], [0, 1]) == pytest.approx(expected)


# a linear layer of weight 0 gives both classes 1/2, so the gradient is (p - y) x: (-1/2, 1/2) x for label 0


def test_knas_of_a_linear_layer():
    # (-1/2, 1/2) and (-1, 1): Gram matrix [[1/2, 1], [1, 2]], mean 9/8
    assert score("knas", linear(1, 2), [[1], [2]], [0, 0]) == pytest.approx(9 / 8)
    # label 1 turns the second: [[1/2, -1], [-1, 2]], mean 1/8
    assert score("knas", linear(1, 2), [[1], [2]], [0, 1]) == pytest.approx(1 / 8)


def test_gradsign_of_a_linear_layer():
    # signs (-, +) twice; with the other label they cancel, which is a score, not a failure
    assert score("gradsign", linear(1, 2), [[1], [2]], [0, 0]) == 4
    assert score("gradsign", linear(1, 2), [[1], [2]], [0, 1]) == 0
    assert score("gradsign", linear(1, 2), [[1], [2], [3]], [0, 1, 1]) == 2


def test_zico_of_a_linear_layer():
    # gradients of two batches (-1/2, 1/2) and (-1, 1): mean size 3/4, spread 1/4, quotient 3 for each of two weights
    assert score("zico", linear(1, 2), [[1], [2]], [0, 0]) == pytest.approx(math.log(6))


def test_vkdnw_of_eleven_eigenvalues():
    # eigenvalues 0, 1, ..., 10: deciles 1, ..., 9 with sum 45
    expected = math.log(45) - sum(k * math.log(k) for k in range(1, 10)) / 45
    assert float(spectrum_entropy(torch.diag(torch.arange(11.0).double()))) == pytest.approx(expected)


def test_vkdnw_of_one_parameter():
    # one eigenvalue is every decile: entropy log 9; one tensor
    assert score("vkdnw", linear(1, 2), [[1], [2]]) == pytest.approx(1 + math.log(9))


# --- what sets them apart ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["jacov", "epe_nas", "ntk_condition"])
def test_scale_of_the_logits_does_not_matter(name):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Tanh(), nn.Linear(6, 5, bias=False)).double()
    larger = copy.deepcopy(model)
    larger[3].weight.data *= 4
    equal = score(name, larger, IMAGES) == pytest.approx(score(name, model, IMAGES), rel=1e-9)
    assert equal == (name != "ntk_condition")  # there the head's own gradient stays and that of the rest grows


def test_jacov_falls_when_images_repeat():
    model = set_weights(CellNetwork()).double()
    repeated = IMAGES[[0, 1, 2, 3, 4, 5, 6, 6]]
    assert score("jacov", model, repeated) < -9e4  # a zero eigenvalue costs 1 / k
    assert score("jacov", model, IMAGES) > -1e4


def test_epe_nas_depends_on_the_labels():
    model = set_weights(CellNetwork()).double()
    assert score("epe_nas", model, IMAGES) != score("epe_nas", model, IMAGES, LABELS.flip(0))


def test_ntk_condition_is_infinite_for_repeated_images():
    reason = status("ntk_condition", linear(2, 2), [[1, 0], [1, 0]], [0, 1])
    assert "singular" in reason


def test_knas_is_the_squared_norm_of_the_gradient():
    model = set_weights(CellNetwork())
    twin = copy.deepcopy(model).train()
    nn.functional.cross_entropy(twin(IMAGES), LABELS).backward()
    expected = sum(float(p.grad.double().square().sum()) for p in twin.parameters())
    assert score("knas", model, IMAGES) == pytest.approx(expected)
    assert measured("knas", model, IMAGES).n_backwards == 1


def test_gradsign_is_largest_where_all_images_agree():
    model = set_weights(CellNetwork()).double()
    n_weights = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    same = score("gradsign", model, IMAGES[:1].expand(N, -1, -1, -1), LABELS[:1].expand(N))
    assert score("gradsign", model, IMAGES) < same <= N * n_weights


@pytest.mark.parametrize("name", ["gradsign", "zico"])
def test_only_weights_of_convolutions_and_linear_layers_count(name):
    model = set_weights(CellNetwork()).double()
    expected = score(name, model, IMAGES)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.dim() > 1)
    assert score(name, model, IMAGES) == expected
    model.stem[0].weight.requires_grad_(False)
    assert score(name, model, IMAGES) < expected


def test_shared_weights_count_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    model[2].weight = model[0].weight
    assert score("gradsign", model, wave(2, 4).repeat(2, 1), [0, 1, 0, 1]) <= 4 * (16 + 12)


def test_zico_leaves_out_what_does_not_vary():
    # the second input is 0: its two weights have gradient 0 in both batches, 0 / 0
    assert score("zico", linear(2, 2), [[1, 0], [2, 0]], [0, 0]) == pytest.approx(math.log(6))


def test_vkdnw_looks_at_the_architecture_only():
    model, other = set_weights(CellNetwork()), CellNetwork()
    other.stem[1].running_mean += 3
    expected = score("vkdnw", model, IMAGES)
    assert score("vkdnw", other, IMAGES) == expected  # other weights and statistics
    assert score("vkdnw", model, IMAGES * 2 + 1) == expected
    assert score("vkdnw", model, IMAGES, seed=1) != expected
    assert math.floor(expected) == len(list(model.parameters()))  # entropy below 1 here, at most log 9


def test_vkdnw_of_tokens_takes_those_of_the_batch():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 3))
    tokens = torch.arange(30).reshape(6, 5) % 9
    assert 3 < score("vkdnw", model, tokens, None, n_images=12) < 3 + math.log(9)


# --- undefined and unsuitable ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["jacov", "epe_nas"])
def test_constant_jacobian_has_no_correlation(name):
    reason = status(name, Square(), [[1, 0, -1], [0, 0, 0], [1, 2, 0]], [0, 0, 0])
    assert "1 of 3 images is zero or constant" in reason


def test_epe_nas_needs_two_images_of_a_class():
    assert "0 classes have two images" in status("epe_nas", Square(), CLASSES, [0, 1, 2, 3, 4])
    assert "1 classes have two images" in status("epe_nas", Square(101), CLASSES, [0, 0, 2, 3, 4])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ntk_condition", "gradient of every image is zero"),
        ("knas", "every gradient is zero"),
        ("gradsign", "every gradient is zero"),
        ("zico", "no gradient differs"),
    ],
)
def test_zero_gradients_are_undefined(name, words):
    assert words in status(name, linear(2, 2), [[0, 0], [0, 0]], [0, 1])


@pytest.mark.parametrize("name", ["ntk_condition", "knas", "gradsign", "zico"])
def test_gradients_that_are_not_numbers(name):
    # the root of 0 is finite, its derivative is not: infinity times the input 0 for the first image
    assert " is not " in status(name, Root(linear(1, 2)), [[0], [1]], [0, 1])


@pytest.mark.parametrize("name", ["vkdnw", "vkdnw_entropy"])
def test_vkdnw_of_one_class_is_undefined(name):
    assert "eigenvalues are zero" in status(name, linear(2, 1), [[1, 0], [1, 1]])


@pytest.mark.parametrize("name", ["jacov", "epe_nas"])
def test_tokens_have_no_jacobian(name):
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 3))
    with pytest.raises(InputError, match="inputs are integers"):
        score(name, model, torch.arange(30).reshape(6, 5) % 9, [0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize("name", ["gradsign", "zico"])
def test_without_layers_it_is_refused(name):
    model = nn.Sequential(nn.Embedding(9, 3), nn.Flatten())
    with pytest.raises(InputError, match="no convolution or linear layer"):
        score(name, model, torch.arange(4)[:, None], [0, 1, 2, 0])


def test_ntk_condition_without_a_weight_is_refused():
    model = linear(2, 2, bias=True)
    model.weight.requires_grad_(False)
    with pytest.raises(InputError, match="no parameter called weight"):
        score("ntk_condition", model, [[1, 0], [1, 1]])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("jacov", {"k": 0}),
        ("epe_nas", {"k": -1.0}),
        ("zico", {"n_batches": 1}),
        ("vkdnw", {"n_images": 0}),
        ("vkdnw_entropy", {"n_parameters": 0}),
    ],
)
def test_options_out_of_range(name, options):
    with pytest.raises(OptionError, match="expected"):
        score(name, set_weights(CellNetwork()), IMAGES, **options)


def test_more_batches_than_images():
    with pytest.raises(InputError, match="at least 9 images"):
        score("zico", set_weights(CellNetwork()), IMAGES, n_batches=9)


@pytest.mark.parametrize("name", ["epe_nas", "knas", "gradsign", "zico"])
def test_labels_are_asked_for(name):
    with pytest.raises(InputError, match="needs labels"):
        score(name, set_weights(CellNetwork()), IMAGES, None)


@pytest.mark.parametrize("name", ["jacov", "ntk_condition", "vkdnw", "vkdnw_entropy"])
def test_labels_are_not_asked_for(name):
    model = set_weights(CellNetwork())
    assert score(name, model, FEW_IMAGES, None) == score(name, model, FEW_IMAGES, LABELS[:2])
