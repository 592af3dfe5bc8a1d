"""CALM and its parts: evidence of labels against densities by the book, blocks, what is dead, and where it says no."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import evidence as slow
from reference.tiny import mlp, wave
from scipy.optimize import minimize_scalar
from torch import nn

from naswot.errors import InputError
from naswot.inheritance import inherit_weights
from naswot.kernels import log_determinant
from naswot.measuring import measure, run_proxies
from naswot.proxy import get_proxy
from naswot.seeding import seeded, torch_generator
from naswot.space import get_space
from naswot.testing.networks import small_batch, small_network
from naswot.testing.traces import Traces
from naswot.types import Batch
from proxies.code_evidence import blocks_of, evidence

SIZES = ("live_params", "live_flops", "live_depth", "live_units")
ALL = ("calm", "code_evidence", *SIZES)


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


def outcome(model, batch, name):
    result = run_proxies(model, batch, [get_proxy(name)])
    return result.scores[name], result.reasons.get(name, "")


def flat(n=12, width=10, n_classes=4, *, start=0):
    return Batch(wave(n, width, start=start).double(), torch.arange(n) % n_classes)


def perceptron(seed=0):
    with seeded(seed):
        return mlp().double()


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


def test_two_networks_that_hear_the_pattern_or_the_pixels():
    """Of the same size: NASWOT prefers the one that reads every noisy pixel, CALM the one that reads their means."""
    coarse = nn.Sequential(nn.AvgPool2d(4), nn.Upsample(scale_factor=4))
    with seeded(0):
        tail = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 128, bias=False), nn.ReLU(), nn.Linear(128, 4))
    labels = torch.arange(32) % 4
    patterns = torch.randn(4, 3, 2, 2, generator=torch_generator(1))
    clean = F.interpolate(patterns, scale_factor=4)[labels]
    batch = Batch(clean + 1.5 * torch.randn(32, 3, 8, 8, generator=torch_generator(2)), labels)
    scores = [measure(nn.Sequential(front, tail), batch, ["naswot", *ALL]) for front in (coarse, nn.Identity())]
    assert all(scores[0][name] == scores[1][name] for name in SIZES)
    assert scores[0]["naswot"] < scores[1]["naswot"]
    assert scores[0]["code_evidence"] > scores[1]["code_evidence"]
    assert scores[0]["calm"] > scores[1]["calm"] + 1


# --- the proxies -----------------------------------------------------------------------------------------------------


def layers_by_hand(model, x):
    """What the GELU and the ReLU of ``mlp`` read."""
    first = model[0](x)
    return first.detach().numpy(), model[2](F.gelu(first)).detach().numpy()


def test_code_evidence_is_the_mean_over_layers():
    model, batch = perceptron(), flat()
    parts = [slow.evidence(slow.agreement(v), batch.targets.tolist()) for v in layers_by_hand(model, batch.inputs)]
    assert abs(parts[0] - parts[1]) > 1e-3
    assert outcome(model, batch, "code_evidence")[0] == pytest.approx(sum(parts) / 2, rel=1e-9)


def test_calm_is_made_of_its_parts():
    for model, batch in ((perceptron(), flat()), (small_network("residual"), small_batch())):
        s = measure(model, batch, ALL)
        expected = (math.log(s["live_params"]) + math.log(s["live_units"])) / 2 + 16 * s["code_evidence"]
        assert s["calm"] == pytest.approx(expected, rel=1e-12)


def test_sizes_of_a_network_without_dead_parts():
    s = measure(perceptron(), flat(), [*ALL, "params", "flops"])
    assert s["live_params"] == s["params"]
    assert s["live_flops"] == s["flops"] == 10 * 12 + 12 * 9 + 9 * 4
    assert (s["live_depth"], s["live_units"]) == (3, 12 + 9)


def test_order_of_the_images_does_not_matter_up_to_64():
    batch, model = flat(64), perceptron()
    order = torch.randperm(64, generator=torch_generator(0))
    other = Batch(batch.inputs[order], batch.targets[order])
    for name in ALL:
        expected = pytest.approx(outcome(model, batch, name)[0], rel=1e-9)
        assert outcome(model, other, name)[0] == expected
    wrong = Batch(batch.inputs[order], batch.targets)
    assert outcome(model, wrong, "code_evidence")[0] != pytest.approx(outcome(model, batch, "code_evidence")[0])


class Readers(nn.Module):
    """Activations that read one tensor: the codes are the same, the units are not."""

    def __init__(self, twice):
        super().__init__()
        with seeded(0):
            self.stem, self.head = nn.Linear(10, 30).double(), nn.Linear(30, 4).double()
        self.twice = twice

    def forward(self, x):
        x = self.stem(x)
        y = F.relu(x) + F.gelu(x) if self.twice else F.gelu(x)
        return self.head(F.relu(self.head.weight.mean() + y))


def test_a_tensor_read_twice_counts_once_in_evidence_and_twice_in_units():
    class Same(Readers):
        def forward(self, x):
            x = self.stem(x)
            return self.head(F.relu(x) * 2 if not self.twice else F.relu(x) + F.relu(x))

    batch = flat()
    once, twice = (measure(Same(t), batch, ALL) for t in (False, True))
    assert once["code_evidence"] == twice["code_evidence"]
    assert (once["live_units"], twice["live_units"]) == (30, 60)
    assert twice["calm"] - once["calm"] == pytest.approx(math.log(2) / 2, rel=1e-9)
    mixed = measure(Readers(True), batch, ALL), measure(Readers(False), batch, ALL)  # two layers, read thrice and twice
    assert [s["live_units"] for s in mixed] == [90, 60]


# --- what is dead ----------------------------------------------------------------------------------------------------


class Branched(nn.Module):
    """A network, or the same with a branch whose result is multiplied by zero, thrown away, or made of zeros."""

    def __init__(self, branch=""):
        super().__init__()
        with seeded(0):
            self.stem, self.head = nn.Linear(10, 16).double(), nn.Linear(16, 4).double()
            self.extra = nn.Sequential(nn.Linear(16, 16), nn.SiLU(), nn.Linear(16, 16), nn.ReLU()).double()
        self.branch = branch

    def forward(self, x):
        x = F.gelu(self.stem(x))
        if self.branch == "multiplied by zero":
            x = x + 0 * self.extra(x)
        elif self.branch == "thrown away":
            self.extra(x)
        elif self.branch == "live":
            x = x + self.extra(x)
        return self.head(x)


@pytest.mark.parametrize("branch", ["multiplied by zero", "thrown away"])
def test_a_branch_without_effect_changes_nothing(branch):
    without, dead, live = (run_proxies(Branched(b), flat(), list(map(get_proxy, ALL))) for b in ("", branch, "live"))
    assert dead.scores == without.scores
    assert all(live.scores[name] != without.scores[name] for name in ALL)
    assert measure(Branched(branch), flat(), "naswot") != measure(Branched(""), flat(), "naswot")


def cells(genotype):
    """The network of a cell and its pruned twin, of the same weights."""
    space = get_space("nasbench201")
    with seeded(1):
        full = space.build(genotype, width=4, n_cells=1).double()
        pruned = space.build(genotype, width=4, n_cells=1, pruned=True).double()
    inherit_weights(pruned, full.state_dict())
    return full, pruned


IMAGES = Batch(torch.randn(16, 3, 8, 8, generator=torch_generator(0), dtype=torch.float64), torch.arange(16) % 4)


@pytest.mark.parametrize(
    "genotype",
    [(3, 3, 0, 3, 0, 2), (0, 2, 3, 3, 0, 4), (4, 2, 0, 3, 3, 0), (3, 2, 3, 1, 0, 0), (0, 3, 3, 2, 0, 3)],
)  # convolutions that reach no output or come from no input
def test_dead_edges_of_nasbench201_change_nothing(genotype):
    full, pruned = cells(genotype)
    found, twin = (measure(model, IMAGES, [*ALL, "params"]) for model in (full, pruned))
    assert found["params"] > twin["params"]
    for name in ALL:
        assert found[name] == pytest.approx(twin[name], rel=1e-9), name


def test_sizes_of_nasbench201_are_those_of_the_pruned_cell():
    # in the first a skip edge is added to zeros, which makes a second tensor of the same codes
    for genotype in [(0, 1, 0, 2, 2, 3), (0, 0, 3, 1, 2, 2), (0, 3, 3, 0, 3, 0), (0, 0, 0, 3, 3, 3)]:
        full, pruned = (measure(model, IMAGES, SIZES) for model in cells(genotype))
        assert full == pruned


# --- activations and libraries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.Hardswish, nn.LeakyReLU])
def test_smooth_activations_have_codes_too(activation):
    with seeded(0):
        model = nn.Sequential(nn.Linear(10, 24), activation(), nn.Linear(24, 4)).double()
    s = measure(model, flat(), ALL)
    # threshold: zero, whatever the activation
    first = slow.agreement(model[0](flat().inputs).detach().numpy())
    assert s["code_evidence"] == pytest.approx(slow.evidence(first, flat().targets.tolist()), rel=1e-9)
    assert s["live_units"] == 24


@pytest.mark.parametrize("kind", ["mobile", "vision transformer", "language model", "all frozen", "half precision"])
def test_other_kinds_of_networks(kind):
    s = measure(small_network(kind), small_batch(16, kind), [*ALL, "params"])
    assert all(map(math.isfinite, s.values()))
    assert s["live_params"] == s["params"]
    assert abs(s["code_evidence"]) < 1


@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_transformers_of_the_library(kind):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    with seeded(0):
        if kind == "vit":
            made = transformers.ViTConfig(image_size=32, patch_size=8, num_labels=10, **sizes)
            model = transformers.ViTForImageClassification(made)
        else:
            made = transformers.BertConfig(vocab_size=50, max_position_embeddings=16, num_labels=10, **sizes)
            model = transformers.BertForSequenceClassification(made)
    labels = torch.arange(8) % 4
    if kind == "vit":
        batch = Batch(torch.randn(8, 3, 32, 32, generator=torch_generator(0)), labels)
    else:
        batch = Batch({"input_ids": torch.randint(50, (8, 8), generator=torch_generator(0))}, labels)
    s = measure(model, batch, [*ALL, "params", "flops"])
    assert all(map(math.isfinite, s.values()))
    assert 0.9 < s["live_params"] / s["params"] <= 1
    # a GELU in each of two layers, at 16 patches and the class token or 8 words; the pooler's tanh is not tapped
    assert s["live_units"] == 2 * 32 * (17 if kind == "vit" else 8)


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
    assert outcome(model, Batch(images, labels), "code_evidence")[0] == pytest.approx(sum(parts) / 2, rel=1e-9)


def test_batches_of_64_and_128_compare():
    """Where one block of twice the size does not: the more images there are, the more each tells of the others."""
    with seeded(0):
        model = nn.Sequential(nn.Linear(20, 100), nn.ReLU(), nn.Linear(100, 10))
    found: dict[str, list[float]] = {"64": [], "128": [], "one block of 128": []}
    for seed in range(40):
        images, labels = clustered(128, 2.0, n_classes=10, seed=seed)
        found["128"].append(outcome(model, Batch(images, labels), "code_evidence")[0])
        found["one block of 128"].append(float(evidence(kernel_of(model[0](images).detach()), labels)))
        half = torch.randperm(128, generator=torch_generator(seed))[:64]
        found["64"].append(outcome(model, Batch(images[half], labels[half]), "code_evidence")[0])
    means = {name: np.mean(values) for name, values in found.items()}
    error = np.std(np.subtract(found["64"], found["128"])) / math.sqrt(40)
    assert abs(means["64"] - means["128"]) < 4 * error
    assert abs(means["one block of 128"] - means["128"]) > 8 * error


# --- where it says no ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["calm", "code_evidence"])
def test_labels_are_asked_for(name):
    with pytest.raises(InputError, match=rf"{name}: .*needs labels.*Batch\(inputs, targets\)"):
        measure(perceptron(), Batch(flat().inputs), [name])
    with pytest.raises(InputError, match=f"{name} needs at least 4 images"):
        measure(perceptron(), flat(3), [name])


@pytest.mark.parametrize(
    ("labels", "words"),
    [([3] * 12, "12 images are of one class"), (list(range(12)), "12 images are of as many classes")],
)
def test_labels_that_tell_nothing_are_refused(labels, words):
    batch = Batch(flat().inputs, torch.tensor(labels))
    for name in ("calm", "code_evidence"):
        with pytest.raises(InputError, match=f"{name}: .*{words}; draw the batch from about ten classes"):
            measure(perceptron(), batch, [name])
    assert math.isfinite(measure(perceptron(), batch, "live_params")["live_params"])


class Idle(nn.Module):
    """Its output depends on the bias of its head alone."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(10, 8).double(), nn.Linear(8, 4).double()

    def forward(self, x):
        return self.head(0 * F.relu(self.stem(x)))


class Shifted(Idle):
    """Every unit is on for every image."""

    def forward(self, x):
        return self.head(F.relu(self.stem(x) + 1e6))


@pytest.mark.parametrize("model", [Idle(), Shifted()])
def test_without_a_layer_that_tells_images_apart_it_is_undefined(model):
    for name in ("calm", "code_evidence"):
        assert outcome(model, flat(), name) == (
            -math.inf,
            "the output depends on no activation that tells two images apart",
        )
    assert measure(model, flat(), "live_units")["live_units"] == (8 if isinstance(model, Shifted) else 0)


def test_a_layer_without_differences_is_left_out():
    class Both(Idle):
        def forward(self, x):
            return self.head(F.relu(self.stem(x) + 1e6) + F.relu(self.stem(x)))

    class One(Idle):
        def forward(self, x):
            return self.head(F.relu(self.stem(x)))

    both, one = Both(), One()
    one.load_state_dict(both.state_dict())
    assert outcome(both, flat(), "code_evidence") == outcome(one, flat(), "code_evidence")


def test_without_parameters_it_is_undefined():
    value, reason = outcome(small_network("no parameter"), small_batch(8, "no parameter"), "calm")
    assert (value, reason) == (-math.inf, "the output depends on no parameter")
    assert math.isfinite(outcome(small_network("no parameter"), small_batch(8, "no parameter"), "code_evidence")[0])


# --- passes ----------------------------------------------------------------------------------------------------------


class Watched(nn.Module):
    """Notes how many images each forward pass had, those of copies too."""

    sizes: list[int] = []  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.inner = perceptron()

    def forward(self, x):
        self.sizes.append(len(x))
        return self.inner(x)


def test_all_share_one_forward_of_the_batch_and_one_small_pass():
    Watched.sizes.clear()
    names = [*ALL, "naswot", "flops", "lnwot"]
    result = run_proxies(Watched(), flat(64), [get_proxy(name) for name in names])
    assert (result.n_forwards, result.n_backwards) == (2, 1)
    assert Watched.sizes == [64, 3]
    alone = {name: outcome(Watched(), flat(64), name)[0] for name in names}
    assert result.scores == alone


def test_a_gradient_in_company_changes_nothing():
    company = ["jacov", "grad_norm", "calm", "code_evidence"]
    shared = measure(perceptron(), flat(16), company)
    assert shared == {**shared, **measure(perceptron(), flat(16), ["calm", "code_evidence"])}


@pytest.mark.parametrize("kind", ["residual", "vision transformer"])
def test_no_trace_is_left(kind):
    model, batch = small_network(kind), small_batch(130, kind)
    before = copy.deepcopy(model.state_dict())
    with Traces(model, *batch.tensors(), batch.targets) as traces:
        run_proxies(model, batch, list(map(get_proxy, ALL)))
    assert traces.left == []
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
