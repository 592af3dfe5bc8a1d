"""The taps in models of every make: reused modules, graphs, compiled and foreign code, other libraries."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from reference.taps import VALUES, Call, D, N, calls_of
from reference.tiny import wave
from torch import nn

import naswot
from naswot.errors import NoActivationError
from naswot.observers import Activation
from naswot.passes import Passes
from naswot.types import Batch

# --- forms of models -------------------------------------------------------------------------------------------------


def test_a_module_used_many_times_counts_per_call():
    class Reused(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.relu = nn.Linear(D, D), nn.ReLU()

        def forward(self, x):
            for _ in range(3):
                x = self.relu(self.linear(x))
            return x

    details = naswot.explain(Reused(), VALUES)
    assert [(layer.module, layer.n_units) for layer in details.layers] == [("relu", D)] * 3


def test_nested_sequential_and_module_names():
    model = nn.Sequential(nn.Linear(D, 5), nn.Sequential(nn.ReLU(), nn.Linear(5, 4)), nn.GELU(), Call(F.silu))
    layers = naswot.explain(model, VALUES).layers
    assert [(layer.module, layer.function, layer.n_units) for layer in layers] == [
        ("1.0", "relu", 5),
        ("2", "gelu", 4),
        ("3", "silu", 4),
    ]


def test_in_place_relu_is_read_before_it_writes():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(D, 20), nn.ReLU(), nn.Linear(20, 7), nn.ReLU6(), nn.Linear(7, 5), nn.LeakyReLU())
    twin = nn.Sequential(
        nn.Linear(D, 20), nn.ReLU(True), nn.Linear(20, 7), nn.ReLU6(True), nn.Linear(7, 5), nn.LeakyReLU(inplace=True)
    )
    twin.load_state_dict(plain.state_dict())
    assert torch.equal(naswot.binary_codes(plain, VALUES), naswot.binary_codes(twin, VALUES))
    # a threshold above its own value: reading afterwards would give other bits
    shifted, in_place = nn.Threshold(-0.5, -2.0), nn.Threshold(0.5, 1.0, inplace=True)
    assert torch.equal(naswot.binary_codes(nn.Sequential(shifted), VALUES), VALUES > -0.5)
    assert torch.equal(naswot.binary_codes(nn.Sequential(in_place), VALUES), VALUES > 0.5)


class Mixed(nn.Module):
    """Module, function and method in one forward; traceable."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.gelu = nn.Linear(D, 8), nn.Linear(8, 6), nn.GELU()

    def forward(self, x):
        x = self.gelu(self.first(x))
        return torch.sigmoid(F.relu6(self.second(F.leaky_relu(x)).relu().clamp(min=0)))


@pytest.fixture(scope="module")
def mixed():
    torch.manual_seed(1)
    return Mixed()


def test_fx_graph_counts_as_its_model(mixed):
    traced = torch.fx.symbolic_trace(mixed)
    assert calls_of(traced, VALUES) == calls_of(mixed, VALUES)
    assert len(calls_of(mixed, VALUES)[0]) == 5
    assert torch.equal(naswot.binary_codes(traced, VALUES), naswot.binary_codes(mixed, VALUES))


def test_exported_program_counts_as_its_model(mixed):
    exported = torch.export.export(mixed.eval(), (VALUES,)).module()
    assert torch.equal(naswot.hamming_kernel(exported, VALUES), naswot.hamming_kernel(mixed, VALUES))


def test_functional_call_counts_as_its_model(mixed):
    parameters = {name: p.detach() for name, p in mixed.named_parameters()}

    class Functional(nn.Module):
        def forward(self, x):
            return torch.func.functional_call(mixed, parameters, (x,))

    assert calls_of(Functional(), VALUES) == calls_of(mixed, VALUES)


def test_compiled_model_scores_as_the_plain_one(mixed):
    compiled = torch.compile(mixed, backend="eager")
    assert naswot.score(compiled, VALUES) == naswot.score(mixed, VALUES)
    compiled(VALUES)
    assert naswot.score(compiled, VALUES) == naswot.score(mixed, VALUES)
    assert calls_of(compiled, VALUES) == calls_of(mixed, VALUES)


def test_compiled_part_of_a_model(mixed):
    inner = torch.compile(nn.Sequential(nn.Linear(D, 4), nn.ReLU()), backend="eager")
    model = nn.Sequential(inner, nn.Linear(4, 3), nn.ReLU())
    assert naswot.explain(model, VALUES).n_units == 7


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointed_block_counts_once(use_reentrant):
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.block, self.head = nn.Sequential(nn.Linear(D, 8), nn.ReLU()), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(checkpoint(self.block, x, use_reentrant=use_reentrant))

    model = Checkpointed()
    plain = nn.Sequential(model.block, model.head)
    assert calls_of(model, VALUES) == ((("relu", 0.0, 8),), {})
    assert naswot.score(model, VALUES) == naswot.score(plain, VALUES)
    seen = Activation(lambda call: (call.function,))  # and when the backward pass recomputes it
    with Passes(model, Batch(VALUES, torch.zeros(N, dtype=torch.int64))) as passes:
        passes.observe([seen], graph=True)
        assert passes.gradients()
        assert passes.seen({"calls": seen})["calls"] == ("relu",)


# --- models of others ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


TOKENS = (wave(N, 7).abs() * 18).long() + 1
TEXT = dict(vocab_size=20, num_hidden_layers=2, num_attention_heads=2, hidden_size=8, intermediate_size=16)
VISION = dict(TEXT, image_size=8, patch_size=4)
del VISION["vocab_size"]


def layers_of(model, inputs, **options):
    return [(layer.function, layer.n_units) for layer in naswot.explain(model, inputs, **options).layers]


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("form", ["tensor", "mapping"])
def test_bert(transformers, form, mask):
    config = transformers.BertConfig(**TEXT, max_position_embeddings=16)
    model = transformers.BertForSequenceClassification(config)
    inputs = TOKENS if form == "tensor" and not mask else {"input_ids": TOKENS}
    if mask:
        inputs["attention_mask"] = torch.ones_like(TOKENS)
    assert layers_of(model, inputs) == [("gelu", 7 * 16)] * 2
    assert naswot.explain(model, inputs).untapped["tanh"] == 1  # the pooler
    assert math.isfinite(naswot.score(model, inputs))


def test_gpt2_composite_gelu(transformers):
    config = transformers.GPT2Config(
        vocab_size=20, n_embd=8, n_layer=2, n_head=2, n_positions=16, pad_token_id=0, bos_token_id=1, eos_token_id=1
    )
    model = transformers.GPT2ForSequenceClassification(config)
    assert layers_of(model, TOKENS) == [("NewGELUActivation", 7 * 32)] * 2
    untapped = naswot.explain(model, TOKENS).untapped
    assert "pow" not in untapped
    assert "tanh" not in untapped
    with pytest.raises(NoActivationError, match="NewGELUActivation"):
        naswot.score(model, TOKENS, taps="relu")


def test_clip_quick_gelu(transformers):
    model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION))
    assert layers_of(model, wave(N, 3, 8, 8)) == [("QuickGELUActivation", 5 * 16)] * 2


def test_vit(transformers):
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**VISION))
    images = wave(N, 3, 8, 8)
    assert layers_of(model, images) == [("gelu", 5 * 16)] * 2
    assert naswot.explain(model, images).untapped.keys() <= {"scaled_dot_product_attention", "softmax"}


@pytest.fixture(scope="module")
def pytorchcv():
    return pytest.importorskip("pytorchcv.model_provider")


def test_pytorchcv_resnet(pytorchcv):
    model = pytorchcv.get_model("resnet20_cifar10", pretrained=False)
    details = naswot.explain(model, wave(3, 3, 32, 32))
    assert len(details.layers) == 19
    # stem and three stages of three blocks with two ReLUs each, at 16, 32 and 64 channels
    assert details.n_units == 7 * 16 * 32 * 32 + 6 * 32 * 16 * 16 + 6 * 64 * 8 * 8
    assert details.untapped == {}


def test_pytorchcv_swish(pytorchcv):
    model = pytorchcv.get_model("efficientnet_b0", pretrained=False)
    details = naswot.explain(model, wave(2, 3, 32, 32))
    assert {layer.function for layer in details.layers} == {"Swish"}
    assert len(details.layers) == 49
    assert details.untapped == {"sigmoid": 16}  # the gates of squeeze-and-excitation, which are no activations
