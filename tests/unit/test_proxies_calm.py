"""CALM and its parts: what they are made of, what is dead, networks of all kinds, and where they say no."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from reference import evidence as slow
from reference.tiny import CellNetwork, mlp, wave
from torch import nn

from naswot.errors import InputError
from naswot.inheritance import inherit_weights
from naswot.measuring import measure, run_proxies
from naswot.proxy import get_proxy
from naswot.seeding import seeded, torch_generator
from naswot.space import get_space
from naswot.testing.networks import small_batch, small_network
from naswot.testing.traces import Traces
from naswot.types import Batch
from proxies._evidence import evidence

SIZES = ("live_params", "live_flops", "live_depth", "live_units")
ALL = ("calm", "code_evidence", *SIZES)


def outcome(model, batch, name):
    result = run_proxies(model, batch, [get_proxy(name)])
    return result.scores[name], result.reasons.get(name, "")


def flat(n=12, width=10, n_classes=4, *, start=0):
    return Batch(wave(n, width, start=start).double(), torch.arange(n) % n_classes)


def perceptron(seed=0):
    with seeded(seed):
        return mlp().double()


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
    side_by_side = Batch(wave(8, 3, 8, 8), torch.arange(8) % 4)  # two of the five layers
    assert measure(CellNetwork(), side_by_side, "live_depth")["live_depth"] == 4


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
    """Two layers, the first of which is read by one activation or by two: the codes are the same, the units are not."""

    def __init__(self, *, twice):
        super().__init__()
        with seeded(0):
            self.a, self.b, self.head = (
                nn.Linear(10, 30).double(),
                nn.Linear(30, 20).double(),
                nn.Linear(20, 4).double(),
            )
        self.twice = twice

    def layers(self, x):
        first = self.a(x)
        return first, self.b(F.gelu(first) + F.gelu(first) if self.twice else 2 * F.gelu(first))

    def forward(self, x):
        return self.head(F.relu(self.layers(x)[1]))


def test_a_tensor_read_twice_counts_once_in_evidence_and_twice_in_units():
    batch, labels = flat(), flat().targets.tolist()
    once, twice = (measure(Readers(twice=t), batch, ALL) for t in (False, True))
    read = [slow.agreement(layer.detach().numpy()) for layer in Readers(twice=True).layers(batch.inputs)]
    first, second = (slow.evidence(kernel, labels) for kernel in read)
    assert abs(first - second) > 1e-3
    assert twice["code_evidence"] == pytest.approx((first + second) / 2, rel=1e-9)
    assert once["code_evidence"] == pytest.approx(twice["code_evidence"], rel=1e-12)
    assert (once["live_units"], twice["live_units"]) == (50, 80)
    assert twice["calm"] - once["calm"] == pytest.approx(math.log(80 / 50) / 2, rel=1e-9)


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


# --- where it says no ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["calm", "code_evidence"])
def test_labels_are_asked_for(name):
    with pytest.raises(InputError, match=rf"{name}: .*needs labels.*Batch\(inputs, targets\)"):
        measure(perceptron(), Batch(flat().inputs), [name])
    assert get_proxy(name).needs_targets
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


def test_evidence_is_worked_out_once(monkeypatch):
    calls = []
    monkeypatch.setattr("proxies._evidence.evidence", lambda *given: (calls.append(1), evidence(*given))[1])
    measure(perceptron(), flat(), ["calm", "code_evidence"])
    assert calls == [1]


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
