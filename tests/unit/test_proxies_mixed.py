"""T-CET, L-SWAG, WRCor, and the proxies of transformers: against slow twins, by hand, and where they say no."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from reference import mixed as slow
from reference.tiny import set_weights, wave
from torch import nn

from naswot.errors import InputError, OptionError
from naswot.measuring import run_proxies
from naswot.proxy import get_proxy
from naswot.testing.networks import small_batch, small_network
from naswot.testing.traces import Traces
from naswot.types import Batch
from proxies._attention import AttentionTap, attention_weights

TRANSFORMERS_ONLY = ("dss", "head_confidence", "head_importance")
ATTENTION = [f"layers.layers.{i}.self_attn.{w}" for i in (0, 1) for w in ("in_proj_weight", "out_proj.weight")]
OTHERS = [f"layers.layers.{i}.linear{j}.weight" for i in (0, 1) for j in (1, 2)] + [
    "patches.weight",
    "classifier.weight",
]


class Residual(nn.Module):
    """Stem, a residual sum, linear head; every activation a module out of place."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.branch = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6))
        self.last, self.head = nn.ReLU(), nn.Linear(6 * 64, 5)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.last(x + self.branch(x)).flatten(1))


WEIGHTS = ["stem.0.weight", "branch.0.weight", "head.weight"]


def residual(dtype=torch.float64):
    return set_weights(Residual()).to(dtype)


def batch(n=6, dtype=torch.float64):
    return Batch(wave(n, 3, 8, 8, start=5).to(dtype), torch.arange(n) % 5)


def outcome(name, model, data, **options):
    result = run_proxies(model, data, [get_proxy(name, **options)])
    return result.scores[name], result.reasons.get(name)


def score(name, model, data, **options):
    value, reason = outcome(name, model, data, **options)
    assert reason is None
    return value


def chain(*weights, **between):
    """Linear layers without bias of these weights with a ReLU between them."""
    layers = []
    for weight in weights:
        matrix = torch.tensor(weight, dtype=torch.float64)
        linear = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False).double()
        linear.weight.data = matrix
        layers += [linear, nn.ReLU(**between)]
    return nn.Sequential(*layers[:-1])


DTYPES = pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])  # float32 rounds


# --- T-CET -----------------------------------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("saliency", ["synflow", "snip"])
def test_tcet_equals_its_twin(saliency, dtype, rel):
    model, data = residual(dtype), batch(4, dtype)
    pairs = slow.flow(model, (3, 8, 8)) if saliency == "synflow" else slow.snip(model, data.inputs, data.targets)
    expected = slow.tcet(model, data.inputs, pairs)
    assert expected > 0
    assert score("tcet", model, data, saliency=saliency) == pytest.approx(expected, rel=rel)


def test_tcet_by_hand():
    # outputs (1, 2) and (1, -2): codes 11 and 10, K = [[2, 1], [1, 2]]; saliencies 1, 0, 0, 2: sum 3, variance 11/12
    data = Batch(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
    assert score("tcet", chain([[1, 0], [0, 2]]), data) == pytest.approx(math.log(3) * 3 / math.sqrt(11 / 12))


def test_tcet_does_not_see_the_scale_of_a_layer():
    model, data = residual(), batch(4)
    before = score("tcet", model, data)
    with torch.no_grad():
        model.branch[0].weight.mul_(1e3)
    assert score("tcet", model, data) != pytest.approx(before, rel=1e-3)  # its part of the sum x + branch(x) grows
    straight = chain([[1.0, 2], [3, -5]], [[1.0, 2], [-3, 5]])
    data = Batch(torch.tensor([[1.0, 1], [1, -1]]))
    before = score("tcet", straight, data)
    with torch.no_grad():
        straight[0].weight.mul_(1e3)
    assert score("tcet", straight, data) == pytest.approx(before, rel=1e-12)


def test_tcet_leaves_out_what_is_singular_or_without_spread():
    data = Batch(torch.tensor([[1.0, 1], [1, -1]]))
    one_layer, with_constant = [[1.0, 2], [3, -5]], [[1.0, 1]]
    value, reason = outcome("tcet", chain(with_constant), data)  # one output: codes 1 and 0; saliencies 1, 1
    assert value == -math.inf
    assert "no layer" in reason
    assert score("tcet", chain(one_layer), data) > 0
    overflowing = chain([[1e200, 2], [3, 5]], [[1e200, 2], [3, 5]])
    assert "overflows" in outcome("tcet", overflowing, data)[1]


def test_tcet_says_what_it_needs():
    with pytest.raises(OptionError, match="synflow"):
        score("tcet", residual(), batch(), saliency="grasp")
    with pytest.raises(InputError, match="integers"):
        score("tcet", small_network("language model"), small_batch(8, "language model"))
    assert score("tcet", small_network("language model"), small_batch(8, "language model"), saliency="snip") > 0
    with pytest.raises(InputError, match="layers"):
        score("tcet", small_network("no parameter"), small_batch(8, "no parameter"))
    with pytest.raises(InputError, match="needs labels"):
        score("tcet", residual(), Batch(batch().inputs), saliency="snip")


# --- L-SWAG ----------------------------------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize(
    ("window", "inside"), [((0.0, 1.0), WEIGHTS), ((0.4, 1.0), WEIGHTS[1:]), ((0.0, 0.5), WEIGHTS[:2])]
)
def test_l_swag_equals_its_twin(window, inside, dtype, rel):
    model, data = residual(dtype), batch(6, dtype)
    swap = slow.swap_count(slow.relu_layers(model, data.inputs))
    expected = slow.l_swag(model, data.inputs, data.targets, 3, inside, swap)
    assert score("l_swag", model, data, window=window, n_parts=3) == pytest.approx(expected, rel=rel)


def test_l_swag_by_hand():
    # logits 0, so |g| = x / 2: 1/2 in the first part, 3/2 in the second, standard deviation 1/2 for both weights;
    # one unit, one pattern: s = log(2 + 2) * 1
    model = nn.Sequential(nn.ReLU(), chain([[0.0], [0.0]]))
    data = Batch(torch.tensor([[1.0], [1], [3], [3]]), torch.zeros(4, dtype=torch.int64))
    assert score("l_swag", model, data) == pytest.approx(math.log(4))


def test_l_swag_counts_patterns_of_many_images():
    # units are positive for exactly one image each, of 70: as many patterns, through three words of bits
    data = Batch(torch.eye(70, dtype=torch.float64) - 0.5, torch.arange(70) % 2)
    model = nn.Sequential(nn.ReLU(), chain([[0.0] * 70] * 2))
    twice = nn.Sequential(nn.ReLU(), nn.ReLU(), model[1])  # second call: x >= 0 has the same patterns
    assert score("l_swag", twice, data) == pytest.approx(2 * score("l_swag", model, data))
    assert score("l_swag", model, data) == pytest.approx(
        slow.l_swag(model, data.inputs, data.targets, 2, ["1.0.weight"], 70)
    )


def test_l_swag_where_nothing_varies():
    same = Batch(torch.ones(4, 1), torch.zeros(4, dtype=torch.int64))
    value, reason = outcome("l_swag", nn.Sequential(nn.ReLU(), chain([[1.0], [2.0]])), same)
    assert value == -math.inf
    assert "varies" in reason
    for wrong in ({"window": (0.5, 0.5)}, {"window": (-1.0, 1.0)}, {"n_parts": 1}):
        with pytest.raises(OptionError):
            score("l_swag", residual(), batch(), **wrong)


# --- WRCor -----------------------------------------------------------------------------------------------------------


@DTYPES
def test_wrcor_equals_its_twin(dtype, rel):
    model, data = residual(dtype), batch(5, dtype)
    expected = slow.wrcor(model, data.inputs, data.targets)
    assert score("wrcor", model, data) == pytest.approx(expected, rel=rel)


EYE = torch.eye(3).tolist()


@pytest.mark.parametrize("inplace", [False, True])
def test_wrcor_by_hand(inplace):
    # (1, -1, 0) and (1, 1, -2) do not correlate; what the second ReLU reads, (1, 0, 0) and (1, 1, 0), does by 1/2;
    # no gradients, the head being 0: K = I + 2 [[1, 1/2], [1/2, 1]], its determinant 8
    data = Batch(torch.tensor([[1.0, -1, 0], [1, 1, -2]]), torch.tensor([0, 1]))
    model = chain(EYE, EYE, [[0.0] * 3] * 2, inplace=inplace)
    assert score("wrcor", model, data) == pytest.approx(math.log(8))


def test_wrcor_weighs_by_block():
    data = Batch(torch.tensor([[1.0, -1, 0], [1, 1, -2]]), torch.tensor([0, 1]))
    # both ReLUs in the first block: K = I + [[1, 1/2], [1/2, 1]]; as "cells" or by name; an activation behind them
    # counts as the block after the last, here with 2^2 and a correlation of 1/2
    body, head = chain(EYE, EYE, EYE), nn.Linear(3, 2, bias=False).double()
    nn.init.zeros_(head.weight)

    class Cells(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.add_module(name, nn.Sequential(body, nn.Identity()))
            self.name, self.head = name, head

        def forward(self, x):
            return self.head(F.relu(getattr(self, self.name)(x)))

    expected = math.log(6**2 - 2.5**2)  # K = 1 + 1 + 4 on the diagonal, 0 + 1/2 + 2 off it
    assert score("wrcor", Cells("cells"), data) == pytest.approx(expected)
    assert score("wrcor", Cells("parts"), data, blocks="parts") == pytest.approx(expected)
    assert score("wrcor", Cells("parts"), data) == pytest.approx(math.log(7**2 - 3**2))
    with pytest.raises(InputError, match="'trunk'"):
        score("wrcor", Cells("parts"), data, blocks="trunk")


def test_wrcor_without_correlations():
    data = Batch(torch.tensor([[1.0, 2], [3, 1]]), torch.tensor([0, 1]))
    value, reason = outcome("wrcor", chain([[1.0, 0], [0, 1]], [[0.0, 0], [0, 0]]), data)  # of two units: always +-1
    assert value == -math.inf
    assert "rank 1 of 2" in reason
    value, reason = outcome("wrcor", chain([[0.0, 0], [0, 0]], [[0.0, 0], [0, 0]]), data)
    assert "constant" in reason
    with pytest.raises(InputError, match="needs labels"):
        score("wrcor", residual(), Batch(batch().inputs))
    with pytest.raises(InputError, match="no parameter"):
        score("wrcor", small_network("no parameter"), small_batch(8, "no parameter"))


def test_wrcor_of_very_many_blocks_does_not_overflow():
    model = nn.Sequential(residual(), *[nn.ReLU() for _ in range(1100)], nn.Linear(5, 5).double())
    assert math.isfinite(score("wrcor", model, batch(4)))


# --- transformers ----------------------------------------------------------------------------------------------------


def vision_transformer(dtype=torch.float64):
    return small_network("vision transformer").to(dtype)


def test_dss_equals_its_twin():
    model, data = vision_transformer(), small_batch()
    assert score("dss", model, data) == pytest.approx(slow.dss(model, (3, 8, 8), ATTENTION, OTHERS), rel=1e-9)
    assert score("dss", model.float(), data) == pytest.approx(score("dss", model.double(), data), rel=1e-9)


class OneHead(nn.Module):
    """A linear layer called attention and a linear head behind it."""

    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.Linear(2, 2, bias=False).double(), nn.Linear(2, 1, bias=False).double()
        self.attention.weight.data = torch.tensor([[3.0, 0], [0, -1]], dtype=torch.float64)
        self.head.weight.data = torch.tensor([[1.0, -2]], dtype=torch.float64)

    def forward(self, x):
        return self.head(self.attention(x))


def test_dss_by_hand():
    # |W| = diag(3, 1), nuclear norm 4; dR/dW = (1, 2) (1, 1)^T, nuclear norm sqrt(10); the head's saliencies 3 and 2
    data = Batch(torch.randn(3, 2))
    assert score("dss", OneHead(), data) == pytest.approx(4 * math.sqrt(10) + 5)
    huge = OneHead()
    huge.attention.weight.data *= 1e200
    huge.head.weight.data *= 1e200
    assert "overflows" in outcome("dss", huge, data)[1]


def test_dss_tells_attention_by_the_names_of_modules():
    class SelfAttention(nn.Module):  # the root's name does not count, nor that of a block around
        def __init__(self):
            super().__init__()
            self.attention_block = nn.ModuleDict({"attn": nn.Linear(2, 2), "mlp": nn.Linear(2, 2)})

        def forward(self, x):
            return self.attention_block["mlp"](self.attention_block["attn"](x))

    assert attention_weights(SelfAttention()) == {"attention_block.attn.weight"}
    assert attention_weights(vision_transformer()) == set(ATTENTION)


def test_head_confidence_equals_its_twin():
    model, data = vision_transformer(), small_batch()
    expected = slow.head_confidence(model, data.inputs.double())
    assert score("head_confidence", model, data) == pytest.approx(expected, rel=1e-9)
    assert score("head_confidence", model.float(), data) == pytest.approx(expected, rel=1e-5)


def test_head_importance_equals_its_twin():
    model, data = vision_transformer(), small_batch()
    expected = slow.head_importance(model, data.inputs.double(), data.targets)
    assert score("head_importance", model, data) == pytest.approx(expected, rel=1e-9)
    frozen = copy.deepcopy(model).requires_grad_(False)
    assert score("head_importance", frozen, data) == pytest.approx(expected, rel=1e-9)


def test_uniform_attention_by_hand():
    # five tokens, queries and keys 0: every head gives each a fifth, in both layers
    model = vision_transformer()
    for layer in model.layers.layers:
        nn.init.zeros_(layer.self_attn.in_proj_weight), nn.init.zeros_(layer.self_attn.in_proj_bias)
    assert score("head_confidence", model, small_batch()) == pytest.approx(2 / 5)


class Spelt(nn.Module):
    """Uniform attention of one head over the tokens, spelt in several ways; the first token's outcome is the logits."""

    def __init__(self, spelling, used=True):
        super().__init__()
        self.spelling, self.used, self.scale = spelling, used, nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x):
        v = (x * self.scale).unsqueeze(1)
        q = v * 0
        if self.spelling == "fused":
            y = F.scaled_dot_product_attention(q, q, v)
        elif self.spelling == "grouped":
            y = F.scaled_dot_product_attention(q.expand(-1, 2, -1, -1), q, v, enable_gqa=True).mean(1, keepdim=True)
        elif self.spelling == "masked":
            seen = torch.ones(2, 3, dtype=torch.bool).tril().flip(0)  # first query: two of three keys; second: one
            y = F.scaled_dot_product_attention(q, torch.cat([q, q[:, :, :1]], 2), torch.cat([v, v[:, :, :1]], 2), seen)
        elif self.spelling == "square":
            y = (q[:, 0] @ q[:, 0].mT).softmax(2).unsqueeze(1) @ v
        else:
            y = torch.softmax(q @ q.mT, dim=-1) @ v
        return y[:, 0, 0] if self.used else v[:, 0, 0]


@pytest.mark.parametrize("spelling", ["fused", "grouped", "masked", "square", "open"])
def test_head_importance_by_hand(spelling):
    # tokens (0, 2) and (0, 0): the head puts out C = (0, 1) = logits; label 0: C . dL/dC = e / (1 + e)
    data = Batch(torch.tensor([[[0.0, 2], [0, 0]]], dtype=torch.float64), torch.tensor([0]))
    model = Spelt(spelling)
    assert score("head_importance", model, data) == pytest.approx(math.e / (1 + math.e))
    assert score("head_confidence", model, data) == pytest.approx(0.75 if spelling == "masked" else 0.5)
    value, reason = outcome("head_importance", Spelt(spelling, used=False), data)
    assert value == -math.inf
    assert "does not depend" in reason


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"attn_mask": wave(5, 5).double().index_fill(0, torch.tensor([2]), -math.inf)},
        {"attn_mask": torch.ones(5, 5, dtype=torch.bool).tril(-1)},  # the first query sees no key
        {"enable_gqa": True},
    ],
    ids=str,
)
def test_attention_in_the_open_gives_what_the_fused_one_gives(options):
    q, k, v = (wave(2, 4, 5, 3, start=i).double().requires_grad_() for i in (0, 1000, 2000))
    if "enable_gqa" in options:
        k, v = k[:, :2], v[:, :2]
    seen = []
    with AttentionTap(lambda probabilities, source: seen.append(probabilities)):
        opened = F.scaled_dot_product_attention(q, k, v, **options)
    torch.testing.assert_close(opened, F.scaled_dot_product_attention(q, k, v, **options))
    assert [tuple(probabilities.shape) for probabilities in seen] == [(2, 4, 5, 5)]
    assert torch.autograd.grad(opened.sum(), q)[0].isfinite().all()


@pytest.mark.parametrize("averaged", [True, False])
def test_attention_modules_return_what_they_always_do(averaged):
    module = set_weights(nn.MultiheadAttention(4, 2, batch_first=True))
    x = wave(3, 5, 4)
    for wanted in (True, False):
        plain = module(x, x, x, need_weights=wanted, average_attn_weights=averaged)
        with AttentionTap(lambda probabilities, source: None):
            tapped = module(x, x, x, need_weights=wanted, average_attn_weights=averaged)
        torch.testing.assert_close(tapped, plain)


def test_heads_of_token_models():
    model, data = small_network("language model"), small_batch(8, "language model")
    masked = copy.deepcopy(data.inputs)
    masked["attention_mask"][:, 3:] = 0
    assert 2 / 6 <= score("head_confidence", model, data) <= 2
    assert score("head_confidence", model, Batch(masked)) > score("head_confidence", model, data)
    assert score("head_importance", model, data) > 0
    with pytest.raises(InputError, match="integers"):
        score("dss", model, data)


@pytest.mark.parametrize("name", TRANSFORMERS_ONLY)
def test_transformer_proxies_keep_the_contract_on_a_transformer(name):
    model, data = small_network("vision transformer"), small_batch()
    with Traces(model, *data.tensors()) as traces:
        first = score(name, model, data)
    assert traces.left == []
    assert score(name, copy.deepcopy(model).train(), data) == score(name, model.eval(), data) == first
    flipped = Batch(data.inputs.flip(0), data.targets.flip(0))
    assert score(name, model, flipped) == pytest.approx(first, rel=1e-6)
    with torch.no_grad():
        assert score(name, model, data) == first


@pytest.mark.parametrize("name", TRANSFORMERS_ONLY)
def test_convolutional_networks_are_refused(name):
    with pytest.raises(InputError, match="attention"):
        score(name, residual(), batch())


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_heads_of_a_hugging_face_model(implementation):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 24}

    def bert(attention):
        config = transformers.BertConfig(vocab_size=30, max_position_embeddings=8, num_labels=3, **sizes)
        config._attn_implementation = attention
        torch.manual_seed(0)
        return transformers.BertForSequenceClassification(config).eval()

    model = bert(implementation)
    words = torch.arange(40).reshape(5, 8) % 30
    mask = (torch.arange(8) < 6).long().expand(5, -1)
    data = Batch({"input_ids": words, "attention_mask": mask}, torch.arange(5) % 3)
    result = bert("eager")(input_ids=words, attention_mask=mask, output_attentions=True)
    maps = result.attentions
    gradients = torch.autograd.grad(F.cross_entropy(result.logits, data.targets), maps)
    expected = sum((a * g).sum(dim=(2, 3)).abs().sum().item() for a, g in zip(maps, gradients, strict=True))
    assert score("head_importance", model, data) == pytest.approx(expected, rel=1e-4)
    expected = sum(a.amax(-1).mean().item() for a in maps)
    assert score("head_confidence", model, data) == pytest.approx(expected, rel=1e-5)
    assert score("non_embedding_params", model, data) == sum(
        p.numel() for n, p in model.named_parameters() if "embeddings." not in n or "LayerNorm" in n
    )


# --- parameters ------------------------------------------------------------------------------------------------------


def test_non_embedding_params_by_hand():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places = nn.Embedding(7, 3), nn.Embedding(4, 3)
            self.body, self.out = nn.Linear(3, 3), nn.Linear(3, 7)
            self.out.weight = self.words.weight
            self.body.bias.requires_grad_(False)

        def forward(self, ids):
            return self.out(self.body(self.words(ids) + self.places(ids % 4)))[:, 0]

    data = Batch(torch.tensor([[1, 2], [3, 4]]))
    assert score("non_embedding_params", Tied(), data) == 9 + 3 + 7  # body with its frozen bias, bias of the output
    assert score("non_embedding_params", residual(), batch()) == score("params", residual(), batch())
    assert score("non_embedding_params", small_network("no parameter"), small_batch()) == 0
