"""What an output depends on: layers of all kinds."""

import pytest
import torch
import torch.nn.functional as F
from reference.dependence_models import Of, conv, images, numbers, size, told, vectors
from torch import nn

from naswot.dependence import _FLOPS
from naswot.seeding import torch_generator


def _bilinear():
    return Of(lambda m, x: m.head(m.two(m.one(x), x)), one=nn.Linear(4, 4), two=nn.Bilinear(4, 4, 4),
              head=nn.Linear(4, 3))  # fmt: skip


def _squeeze_excite():
    return Of(
        lambda m, x: m.head((m.body(x) * m.gate(x.mean((2, 3), keepdim=True))).mean((2, 3))),
        body=conv(),
        gate=nn.Sequential(conv(4, 1, 1), nn.ReLU(), conv(1, 4, 1), nn.Hardsigmoid()),
        head=nn.Linear(4, 3),
    )


def _weight_norm():
    layers = [nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)) for _ in range(2)]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1])


def _einsum():
    model = Of(lambda m, x: torch.einsum("nc,cd->nd", F.relu(torch.einsum("nc,cd->nd", x, m.a)), m.b))
    model.a, model.b = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4, 3))
    return model


LAYERS = {
    "depthwise": (nn.Sequential(conv(groups=4), nn.ReLU(), conv(k=1)), images(), 64 * (36 + 16), (2, 2, 2)),
    "transposed": (
        nn.Sequential(nn.ConvTranspose2d(4, 2, 2, 2), nn.ReLU(), conv(2, 1)),
        images(),
        64 * 32 + 256 * 18,
        (2, 2, 2),
    ),
    "one dimension": (
        nn.Sequential(nn.Conv1d(4, 4, 3), nn.Conv1d(4, 2, 1)),
        torch.randn(3, 4, 6),
        4 * (48 + 8),
        (2, 2, 2),
    ),
    "three dimensions": (nn.Sequential(nn.Conv3d(1, 2, 2), nn.ReLU()), torch.randn(3, 1, 3, 3, 3), 8 * 16, (1, 1, 1)),
    "einsum": (_einsum(), vectors(), 28, (2, 2, 2)),
    "bilinear, which is no matrix product": (_bilinear(), vectors(), 28, (2, 2, 1.5)),
    "weight norm": (_weight_norm(), vectors(), 32, (2, 2, 2)),
    "spectral norm": (
        nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)), nn.ReLU()),
        vectors(),
        12,
        (1, 1, 1),
    ),
    "squeeze and excite": (_squeeze_excite(), images(), 64 * 144 + 8 + 12, (4, 3, 2.5)),
    "lazy": (
        nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)),
        images(),
        36 * 144 + 432,
        (2, 2, 2),
    ),
    "last softmax": (
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3), nn.Softmax(1)),
        vectors(),
        28,
        (2, 2, 2),
    ),
    "last log-softmax": (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3), nn.LogSoftmax(1)), vectors(), 28, (2, 2, 2)),
    "dense": (
        Of(lambda m, x: m.b(torch.cat([x, m.a(x)], 1)), a=nn.Linear(4, 4), b=nn.Linear(8, 3)),
        vectors(),
        40,
        (2, 2, 1.5),
    ),
    "two unequal branches": (
        Of(lambda m, x: m.b(m.a(F.relu(m.a(x)))) + m.b(x), a=nn.Linear(4, 4), b=nn.Linear(4, 4)),
        vectors(),
        64,
        (4, 3, 2),
    ),
    "no activation, no layer": (nn.Sequential(nn.Flatten(), nn.LayerNorm(4)), vectors(), 0, (0, 0, 0)),
    "group and instance norm": (
        nn.Sequential(conv(), nn.GroupNorm(2, 4), nn.ReLU(), conv(), nn.InstanceNorm2d(4, affine=True)),
        images(),
        2 * 64 * 144,
        (2, 2, 2),
    ),
    "batch norm without statistics": (
        nn.Sequential(conv(4, 4, 8, stride=8), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU(), conv(k=1)),
        images(1, 7),
        1024 + 16,
        (2, 2, 2),
    ),
}


@pytest.mark.parametrize(("model", "inputs", "macs", "counts"), LAYERS.values(), ids=LAYERS)
def test_layers_of_all_kinds(model, inputs, macs, counts):
    layers, depth, mean = counts
    d = told(model, inputs)
    assert (d.params, d.macs, d.all_macs, d.layers, d.all_layers) == (size(model), macs, macs, layers, layers)
    assert (d.depth, d.mean_depth) == (depth, pytest.approx(mean))


def attention_by_hand(m, x):
    q, k, v = m.qkv(x).chunk(3, -1)
    return m.out((q @ k.transpose(1, 2) / 2).softmax(-1) @ v).mean(1)


def attention_by_torch(m, x):
    q, k, v = m.qkv(x).chunk(3, -1)
    return m.out(F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]).mean(1)


@pytest.mark.parametrize("forward", [attention_by_hand, attention_by_torch])
def test_attention_is_two_products_however_it_is_written(forward):
    model = Of(forward, qkv=nn.Linear(4, 12), out=nn.Linear(4, 3))
    d = told(model, torch.randn(5, 6, 4))
    assert (d.params, d.macs, d.layers) == (size(model), 6 * 48 + 2 * 6 * 6 * 4 + 6 * 12, 4)
    assert (d.depth, d.mean_depth) == (4, pytest.approx(11 / 3))  # by queries, keys: four; by values: three


@pytest.mark.parametrize("need_weights", [True, False])
def test_multi_head_attention(need_weights):
    model = Of(
        lambda m, x: m.head(m.attention(x, x, x, need_weights=need_weights)[0].mean(1)),
        attention=nn.MultiheadAttention(4, 2, batch_first=True), head=nn.Linear(4, 3),
    )  # fmt: skip
    d = told(model, torch.randn(5, 6, 4))
    assert (d.params, d.layers, d.depth) == (size(model), 5, 5)
    assert d.macs == 6 * 48 + 2 * 6 * 6 * 4 + 6 * 16 + 12


def test_attention_over_a_single_place_does_not_depend_on_queries_and_keys():
    model = Of(
        lambda m, x: ((m.q(x) @ m.k(x).transpose(1, 2)).softmax(-1) @ m.v(x)).mean(1),
        q=nn.Linear(4, 4), k=nn.Linear(4, 4), v=nn.Linear(4, 4),
    )  # fmt: skip
    d = told(model, torch.randn(5, 1, 4))
    assert (d.params, d.layers) == (size(model.v), 2)  # the values, and their product with ones


def test_recurrent_layers():
    lstm = Of(lambda m, x: m.head(m.rnn(x)[0][:, -1]), rnn=nn.LSTM(4, 5, 2, batch_first=True), head=nn.Linear(5, 3))
    d = told(lstm, torch.randn(4, 6, 4))
    assert (d.params, d.layers, d.depth) == (size(lstm), 3, 3)
    assert d.macs == 6 * 20 * (4 + 5 + 5 + 5) + 15
    gru = Of(lambda m, x: m.head(m.rnn(x)[0][:, -1]), rnn=nn.GRU(4, 5, batch_first=True), head=nn.Linear(5, 3))
    d = told(gru, torch.randn(4, 6, 4))
    assert (d.params, d.depth) == (size(gru), 7)  # the state passes the five later steps, and the first the inputs
    one_way = told(nn.Sequential(nn.Linear(4, 4), Of(lambda m, x: m.rnn(x * 0)[0][:, -1], rnn=nn.LSTM(4, 5))),
                   torch.randn(4, 6, 4))  # fmt: skip
    assert (one_way.params, one_way.layers, one_way.all_layers) == (0, 0, 2)


def test_a_recurrent_layer_of_one_step_is_live():
    model = Of(lambda m, x: m.rnn(x[:, None])[0][:, 0], rnn=nn.LSTM(4, 5, batch_first=True))
    d = told(model, vectors())
    assert (d.layers, d.params) == (1, size(model) - 100)  # the state is zero, so its matrix is without effect


def test_token_ids_through_embeddings():
    model = Of(
        lambda m, ids: m.head(F.relu(m.body(m.words(ids) + m.places(torch.arange(ids.shape[1])))).mean(1)),
        words=nn.Embedding(20, 4), places=nn.Embedding(6, 4), body=nn.Linear(4, 4), head=nn.Linear(4, 3),
    )  # fmt: skip
    d = told(model, torch.randint(20, (5, 6), generator=torch_generator(0)))
    assert numbers(d) == (size(model), 6 * 16 + 12, 2, 1, 2, 2)
    by_index = Of(lambda m, ids: m.head(m.table[ids].mean(1)), head=nn.Linear(4, 3))
    by_index.table = nn.Parameter(torch.randn(20, 4))
    by_product = Of(lambda m, ids: m.head(F.one_hot(ids, 20).float().mean(1) @ m.table), head=nn.Linear(4, 3))
    by_product.table = nn.Parameter(torch.randn(20, 4))
    ids = torch.randint(20, (5, 6), generator=torch_generator(0))
    sparse = nn.Sequential(nn.Embedding(20, 4, sparse=True), nn.Flatten(), nn.Linear(24, 3))
    assert [told(m, ids).depth for m in (by_index, by_product, sparse)] == [1, 2, 1]
    assert [told(m, ids).mean_depth for m in (by_index, by_product, sparse)] == [1, 2, 1]
    assert told(sparse, ids).params == size(sparse)


def test_tied_parameters_count_once():
    model = Of(
        lambda m, ids: F.linear(m.body(m.words(ids)).mean(1), m.words.weight),
        words=nn.Embedding(20, 4), body=nn.Linear(4, 4),
    )  # fmt: skip
    d = told(model, torch.randint(20, (5, 6), generator=torch_generator(0)))
    assert (d.params, d.layers, d.depth, d.mean_depth) == (size(model), 2, 2, 2)


def test_a_buffer_may_hold_the_filters():
    model = Of(lambda m, x: m.head(F.relu(F.conv2d(x, m.filters)).mean((2, 3))), head=nn.Linear(2, 3))
    model.register_buffer("filters", torch.randn(2, 4, 3, 3))
    d = told(model, images())
    assert numbers(d) == (9, 36 * 72 + 6, 2, 1, 2, 2)


def test_spectra_are_followed():
    model = Of(
        lambda m, x: torch.view_as_real(torch.fft.rfft(m.a(x)) @ m.w).flatten(1),
        a=nn.Linear(4, 4),
        dead=nn.Linear(4, 4),
    )
    model.w = nn.Parameter(torch.randn(3, 3, dtype=torch.complex64))
    d = told(model.requires_grad_(False), vectors())
    assert (d.params, d.layers, d.depth) == (20 + 9, 2, 2)
    model = Of(lambda m, x: torch.fft.rfft(m.a(x)), a=nn.Linear(4, 4))
    assert numbers(told(model, vectors())) == (20, 16, 1, 0, 1, 1)


def test_lazy_layers_that_never_run_are_passed_over():
    model = Of(lambda m, x: m.a(x), a=nn.LazyLinear(3), b=nn.LazyLinear(3))
    assert numbers(told(model, vectors())) == (15, 12, 1, 0, 1, 1)


def test_images_with_token_ids():
    model = Of(
        lambda m, x, ids: m.head(x + m.body(F.relu(m.body(m.words(ids).mean(1))))),
        words=nn.Embedding(20, 4), body=nn.Linear(4, 4), head=nn.Linear(4, 3),
    )  # fmt: skip
    ids = torch.randint(20, (5, 6), generator=torch_generator(0))
    d = told(model, (vectors(), ids))
    assert (d.layers, d.depth, d.mean_depth) == (3, 3, 2)


def test_nothing_begins_where_zeros_are_read():
    model = Of(
        lambda m, ids: m.head(m.body(m.words(ids)).mean(1) + m.dead(torch.zeros(len(ids), 4))),
        words=nn.Embedding(20, 4), body=nn.Linear(4, 4), dead=nn.Linear(4, 4), head=nn.Linear(4, 3),
    )  # fmt: skip
    d = told(model, torch.randint(20, (5, 6), generator=torch_generator(0)))
    assert (d.layers, d.depth, d.mean_depth) == (2, 2, 2)


def test_fused_recurrent_layers_give_their_matrices_in_two_forms():
    x, w, b = torch.zeros(6, 5, 4), torch.zeros(20, 4), torch.zeros(20)
    one_by_one = _FLOPS[torch.ops.aten.mkldnn_rnn_layer](x, w, w, b, b, out_val=None)
    in_a_list = _FLOPS[torch.ops.aten._cudnn_rnn](x, [w, w, b, b], out_val=None)
    assert one_by_one == in_a_list == 2 * 30 * 160
