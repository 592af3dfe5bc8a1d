"""Which dimension counts the images, and when two calls read the same pre-activation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from reference.slow_kernel import slow_kernel
from reference.taps import VALUES, Call, D, N
from reference.tiny import wave
from torch import nn

import naswot
from naswot import scoring
from naswot.errors import ShapeError
from naswot.types import Batch

# --- which dimension counts the images -------------------------------------------------------------------------------


def encoder(*, batch_first, activation="relu"):
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(8, 2, 16, activation=activation, batch_first=batch_first)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("activation", ["relu", "gelu", F.silu])
def test_encoder_layer_batch_first(activation, mode):
    """In evaluation mode the fused path would hide the activation; under the tap it is not taken."""
    model = encoder(batch_first=True, activation=activation).eval()
    details = naswot.explain(model, wave(N, 5, 8), mode=mode)
    assert details.n_units == 5 * 16
    assert details.untapped == {"multi_head_attention_forward": 1}


def test_encoder_of_several_layers_with_a_mask():
    model = nn.TransformerEncoder(encoder(batch_first=True), 2, enable_nested_tensor=True).eval()
    padding = torch.zeros(N, 5, dtype=torch.bool)
    padding[:, 4:] = True
    inputs = {"src": wave(N, 5, 8), "src_key_padding_mask": padding}
    assert naswot.explain(model, inputs, mode="eval").n_units == 2 * 5 * 16


def test_sequence_first_raises_and_works_with_batch_dim():
    model = encoder(batch_first=False)
    sequence_first = Batch(wave(5, N, 8), batch_dim=1)
    with pytest.raises(
        ShapeError, match=r"\(5, 6, 16\), whose dimension 0 does not count the 6 images; pass batch_dim="
    ):
        naswot.score(model, sequence_first)
    details = naswot.explain(model, sequence_first, batch_dim=1)
    assert (details.n_images, details.n_units) == (N, 5 * 16)
    twin = encoder(batch_first=True)
    kernel = naswot.hamming_kernel(model, sequence_first, batch_dim=1, mode="eval")
    expected = naswot.hamming_kernel(twin, wave(5, N, 8).transpose(0, 1), mode="eval")
    assert torch.equal(kernel, expected)


def test_sequence_length_that_is_a_multiple_of_the_batch_is_doubtful():
    with pytest.raises(ShapeError, match="dimension 0 could be that of the 6 images"):
        naswot.score(encoder(batch_first=False), Batch(wave(2 * N, N, 8), batch_dim=1))


def test_dimension_that_does_not_count_the_images():
    with pytest.raises(ShapeError, match=r"the input of relu has shape \(11, 6\), whose dimension 0 does not count"):
        naswot.score(Call(lambda x: F.relu(x.t())), VALUES)
    assert naswot.explain(Call(lambda x: F.relu(x.t())), VALUES, batch_dim=1).n_units == D


def test_windows_are_rows_of_their_image():
    """(N x windows, L, C) rows, image by image: the codes are those of the tensor before it was cut into windows."""
    tokens = wave(N, 8, 4)

    def windowed(x):
        return F.gelu(x.reshape(N * 2, 4, 4))

    codes = naswot.binary_codes(Call(windowed), tokens)
    assert torch.equal(codes, (tokens > 0).reshape(N, -1))
    kernel = naswot.hamming_kernel(Call(windowed), tokens)
    assert torch.equal(kernel, naswot.hamming_kernel(Call(F.gelu), tokens))
    # rows may lie in memory in any order
    strided = naswot.hamming_kernel(Call(lambda x: F.gelu(x.reshape(N * 2, 4, 4).transpose(1, 2))), tokens)
    assert torch.equal(strided, kernel)


def test_order_in_memory_does_not_matter():
    images = wave(N, 3, 5, 4)
    plain = naswot.hamming_kernel(Call(F.relu), images)
    for layout in (torch.channels_last, torch.contiguous_format):
        relaid = Call(lambda x, layout=layout: F.relu(x.contiguous(memory_format=layout)))
        assert torch.equal(naswot.hamming_kernel(relaid, images), plain)
    assert torch.equal(naswot.hamming_kernel(Call(lambda x: F.relu(x.permute(0, 3, 1, 2))), images), plain)
    assert torch.equal(naswot.hamming_kernel(Call(F.relu), images, channels_last=True), plain)
    assert plain.tolist() == slow_kernel([images.reshape(N, -1).numpy()], [0.0]).tolist()


def test_codes_are_in_row_major_order_whatever_the_layout():
    images = wave(N, 3, 5, 4)
    channels_last = Call(lambda x: F.relu(x.contiguous(memory_format=torch.channels_last)))
    assert torch.equal(naswot.binary_codes(channels_last, images), (images > 0).reshape(N, -1))


# --- the same pre-activation -----------------------------------------------------------------------------------------


def count_kernels(monkeypatch, model, inputs=VALUES, **options):
    from naswot import scoring

    counted = []
    original, original_packed = scoring.agreement_kernel, scoring.packed_agreement

    def counting(values, threshold=0.0):
        counted.append(values.shape)
        return original(values, threshold)

    def counting_packed(words, d):
        counted.append((len(words), d))
        return original_packed(words, d)

    monkeypatch.setattr(scoring, "agreement_kernel", counting)
    monkeypatch.setattr(scoring, "packed_agreement", counting_packed)
    kernel = naswot.hamming_kernel(model, inputs, **options)
    return len(counted), kernel


def test_edges_that_read_one_tensor_are_counted_once(monkeypatch):
    n_kernels, kernel = count_kernels(monkeypatch, Call(lambda x: F.relu(x) + F.relu(x) + torch.relu(x) + F.gelu(x)))
    assert n_kernels == 1
    assert kernel.tolist() == (4 * slow_kernel([VALUES.numpy()], [0.0])).tolist()


def test_another_threshold_is_another_code(monkeypatch):
    n_kernels, kernel = count_kernels(monkeypatch, Call(lambda x: F.relu(x) + F.hardtanh(x) + F.hardtanh(x)))
    assert n_kernels == 2
    twice = slow_kernel([VALUES.numpy()] * 3, [0.0, -1.0, -1.0])
    assert kernel.tolist() == twice.tolist()


def test_change_in_place_between_two_reads_is_seen(monkeypatch):
    def forward(x):
        first = F.relu(x)
        x.neg_()
        return first + F.relu(x)

    n_kernels, kernel = count_kernels(monkeypatch, Call(forward))
    assert n_kernels == 2
    assert kernel.tolist() == slow_kernel([VALUES.numpy(), -VALUES.numpy()], [0.0, 0.0]).tolist()


def test_in_place_relu_read_again(monkeypatch):
    n_kernels, kernel = count_kernels(monkeypatch, Call(lambda x: F.relu(F.relu_(x) - 0.0 * x) + F.relu(x)))
    after = VALUES.clamp(min=0).numpy()
    assert n_kernels == 3
    assert kernel.tolist() == slow_kernel([VALUES.numpy(), after, after], [0.0] * 3).tolist()


def test_short_lived_tensors_that_reuse_addresses_are_told_apart(monkeypatch):
    def forward(x):
        total = torch.zeros_like(x)
        for shift in range(60):
            total = total + F.relu(x + (shift - 30) / 30)  # freed before the next one is made
        return total

    n_kernels, kernel = count_kernels(monkeypatch, Call(forward))
    layers = [(VALUES + (shift - 30) / 30).numpy() for shift in range(60)]
    assert n_kernels == 60
    assert kernel.tolist() == slow_kernel(layers, [0.0] * 60).tolist()


def test_memory_of_dead_tensors_is_released():
    from naswot.calls import CallReader

    alive = []

    def listen(call):
        call.once(lambda call: torch.zeros(1000))
        alive.append(len(reader._alive))

    reader = CallReader(N, 0, listen)
    for _ in range(20):
        reader.read(VALUES.clone(), "relu", 0.0, None, F.relu)
    assert max(alive) == 1
    assert reader._alive == {}
    kept = VALUES.clone()
    for _ in range(3):
        reader.read(kept, "relu", 0.0, None, F.relu)
    assert len(reader._alive) == 1


def test_inference_tensors_are_counted_anew():
    from naswot.calls import CallReader

    seen = []
    reader = CallReader(N, 0, lambda call: seen.append(call.once(lambda c: c.units().sum().item())))
    with torch.inference_mode():
        tensor = VALUES.clone()
        reader.read(tensor, "relu", 0.0, None, F.relu)
        tensor.neg_()
        reader.read(tensor, "relu", 0.0, None, F.relu)
    assert seen[0] == -seen[1] != 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_relu_computed_in_the_sweep_is_that_of_torch(monkeypatch, dtype, layout):
    swept = []
    original = scoring.packed_codes

    def packing(values, threshold=0.0, *, output=None):
        swept.extend([] if output is None else [1])
        return original(values, threshold, output=output)

    monkeypatch.setattr(scoring, "packed_codes", packing)
    special = torch.tensor([math.inf, -math.inf, 0.0, -0.0, 1e-40, -1e-40, math.nan, -math.nan, 3.0, -3.0])
    values = torch.cat([special, torch.randn(14)]).reshape(2, 3, 2, 2).to(dtype).contiguous(memory_format=layout)
    values = torch.cat([values, values.flip(0), -values, values * 0.5])
    seen = []

    class Net(torch.nn.Module):
        def forward(self, x):
            seen.append(F.relu(values))
            return x

    kernel = naswot.hamming_kernel(Net(), torch.zeros(8, 3))
    assert swept == [1]
    assert seen[0].stride() == torch.relu(values).stride()
    assert torch.equal(seen[0].nan_to_num(nan=7.0), torch.relu(values).nan_to_num(nan=7.0))
    assert kernel.tolist() == slow_kernel([values.double().reshape(8, -1).numpy()], [0.0]).tolist()


def test_no_sweep_where_it_would_change_the_model():
    with naswot.Passes(Call(lambda x: F.relu(x)), naswot.Batch(VALUES)) as passes:
        passes.observe([scoring.AGREEMENT], graph=True, jacobian=True)
        assert passes.outputs().requires_grad  # a graph needs torch's own call
    in_place = Call(lambda x: F.relu(x, inplace=True).mul(1.0) + x)
    assert naswot.score(in_place, VALUES) == naswot.score(Call(lambda x: F.relu_(x).mul(1.0) + x), VALUES)
