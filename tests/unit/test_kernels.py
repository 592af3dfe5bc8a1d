"""Codes, Hamming kernel and log-determinant: bit for bit against the slow twin, and cases worked out on paper."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.slow_kernel import exact_determinant, slow_kernel

from naswot import kernels
from naswot.errors import InputError, OptionError, ShapeError
from naswot.kernels import agreement_kernel, codes, log_determinant, n_duplicate_codes

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SPECIAL = (math.nan, -math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, -1e-45)
BACKENDS = ("packed", "product")


def generator(seed):
    return torch.Generator().manual_seed(seed)


def random_values(seed, n, d, dtype, share_special=0.2):
    g = generator(seed)
    values = torch.randn(n, d, generator=g, dtype=torch.float64).to(dtype)
    special = torch.tensor(SPECIAL, dtype=torch.float64).to(dtype)
    where = torch.rand(n, d, generator=g) < share_special
    chosen = special[torch.randint(len(SPECIAL), (n, d), generator=g)]
    return torch.where(where, chosen, values)


def twin(values, threshold=0.0):
    """Slow twin; torch compares in the tensor's own type, so the threshold is rounded to it first."""
    rounded = float(torch.tensor(threshold, dtype=values.dtype))
    return torch.from_numpy(slow_kernel([values.to(torch.float64).numpy()], [rounded])).to(torch.float64)


def random_code_kernel(seed, n, d):
    return agreement_kernel(torch.randn(n, d, generator=generator(seed)))


# --- the kernel --------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 40),
    d=st.integers(1, 300),
    dtype=st.sampled_from(DTYPES),
    threshold=st.sampled_from((0.0, -0.0, 0.5, -1.0, 0.1, 1e-3, math.inf, -math.inf)),
)
def test_backends_equal_the_slow_twin_bit_for_bit(seed, n, d, dtype, threshold):
    values = random_values(seed, n, d, dtype)
    expected = twin(values, threshold)
    for backend in (*BACKENDS, "auto"):
        kernel = agreement_kernel(values, threshold, backend=backend)
        assert kernel.dtype == torch.float64
        assert torch.equal(kernel, expected), backend


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 63, 64, 65, 127, 128, 129, 640])
def test_widths_around_whole_words(d, dtype):
    values = random_values(d, 7, d, dtype)
    for backend in BACKENDS:
        assert torch.equal(agreement_kernel(values, backend=backend), twin(values))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values_one_by_one(dtype, backend):
    row = torch.tensor([*SPECIAL, 1.0, -1.0], dtype=torch.float64).to(dtype)
    bits = [False, False, True, False, False, False, float(row[6]) > 0, False, True, False]
    assert codes(row[None])[0].tolist() == bits
    ones = torch.ones_like(row)
    kernel = agreement_kernel(torch.stack([row, ones]), backend=backend)
    assert kernel.tolist() == [[10.0, sum(bits)], [sum(bits), 10.0]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threshold", [0.1, 0.2, 0.3, -0.1, -0.7])
def test_values_equal_to_the_threshold_in_their_own_type_are_not_above(threshold, dtype, backend):
    """0.1 in float32 is more than 0.1, yet ``threshold(x, 0.1, 0)`` drops it (half types it compares in float32)."""
    values = torch.full((2, 3), threshold, dtype=torch.float64).to(dtype)
    values[1] = 10
    if dtype in (torch.float32, torch.float64):
        assert torch.nn.functional.threshold(values[:1], threshold, 0.0).eq(0).all()
    assert agreement_kernel(values, threshold, backend=backend).tolist() == [[3.0, 0.0], [0.0, 3.0]]


def test_a_kernel_worked_out_on_paper():
    # codes 101, 110, 101: the first and third agree on 3 bits, the second agrees with both on 1
    values = torch.tensor([[1.0, -1.0, 2.0], [1.0, 1.0, -2.0], [3.0, 0.0, 1.0]])
    expected = [[3.0, 1.0, 3.0], [1.0, 3.0, 1.0], [3.0, 1.0, 3.0]]
    for backend in BACKENDS:
        assert agreement_kernel(values, backend=backend).tolist() == expected


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "view",
    [
        lambda t: t[:, ::2],
        lambda t: t[::2],
        lambda t: t.t()[:40],
        lambda t: t[:1].expand(5, -1),
        lambda t: t[:, 3:4].expand(-1, 70),
        lambda t: t.flip(1)[:, 1:],
    ],
    ids=["columns", "rows", "transposed", "expanded rows", "expanded columns", "offset"],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_views_count_as_their_copies(view, dtype, backend):
    values = view(random_values(3, 41, 130, dtype))
    assert torch.equal(agreement_kernel(values, backend=backend), twin(values.contiguous()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_are_neither_changed_nor_part_of_a_graph(backend):
    values = torch.randn(5, 90, generator=generator(1), requires_grad=True)
    before = values.detach().clone()
    kernel = agreement_kernel(values, backend=backend)
    assert not kernel.requires_grad
    assert torch.equal(values, before)


@pytest.mark.parametrize("width", [1, 2, 7, 64, 299, 300, 301])
def test_slices_of_the_product_path_add_up(monkeypatch, width):
    values = random_values(5, 6, 300, torch.float32)
    monkeypatch.setattr(kernels, "_MAX_PRODUCT_ELEMENTS", 6 * width)
    assert torch.equal(agreement_kernel(values, backend="product"), twin(values))


def test_slices_stay_below_what_float32_counts_exactly():
    assert kernels._MAX_PRODUCT_ELEMENTS <= 2**24


@pytest.mark.slow
def test_more_code_bits_than_float32_can_count():
    d = 2**24 + 3
    values = torch.ones(2, d)
    values[1, 0] = -1.0
    for backend in BACKENDS:
        assert agreement_kernel(values, backend=backend).tolist() == [[d, d - 1], [d - 1, d]]


def test_the_sum_over_layers_is_exact_beyond_float32():
    big = agreement_kernel(torch.ones(2, 64)) * 2.0**24  # stands for many layers
    assert (big + agreement_kernel(torch.ones(2, 1)))[0, 1].item() == 64 * 2**24 + 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_does_not_round_the_counts(backend):
    values = random_values(2, 8, 5000, torch.float32)
    expected = twin(values)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(agreement_kernel(values, backend=backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_most_images_there_may_be(backend):
    values = torch.randn(1024, 100, generator=generator(0))
    kernel = agreement_kernel(values, backend=backend)
    assert kernel.shape == (1024, 1024)
    assert torch.equal(kernel, kernel.t())
    assert kernel.diagonal().eq(100).all()
    rows = [0, 1, 511, 512, 1023]
    assert torch.equal(kernel[rows][:, rows], twin(values[rows]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_image_and_no_units(backend):
    assert agreement_kernel(torch.randn(1, 77, generator=generator(0)), backend=backend).tolist() == [[77.0]]
    assert agreement_kernel(torch.zeros(3, 0), backend=backend).tolist() == [[0.0] * 3] * 3


def test_without_numba_the_product_path_serves(monkeypatch):
    monkeypatch.setattr(kernels, "_compiled", lambda: None)
    values = random_values(1, 5, 70, torch.float32)
    assert torch.equal(agreement_kernel(values), twin(values))
    with pytest.raises(OptionError, match="backend 'packed' needs numba and a CPU tensor"):
        agreement_kernel(values, backend="packed")


def test_errors_of_the_kernel():
    with pytest.raises(ShapeError, match=r"expected values of shape \(N, D\), but got \(2, 3, 4\)"):
        agreement_kernel(torch.zeros(2, 3, 4))
    with pytest.raises(OptionError, match="expected backend 'auto', 'packed' or 'product', but got 'int8'"):
        agreement_kernel(torch.zeros(2, 3), backend="int8")
    with pytest.raises(InputError, match="meta device hold no numbers"):
        agreement_kernel(torch.zeros(2, 3, device="meta"))


# --- the log-determinant -----------------------------------------------------------------------------------------


def test_diagonal_kernel():
    result = log_determinant(torch.diag(torch.tensor([2.0, 3.0, 5.0])))
    assert result.value == pytest.approx(math.log(30), rel=1e-14)
    assert (result.sign, result.rank, result.reason) == (1, 3, None)


@pytest.mark.parametrize(("a", "b"), [(3, 1), (8, 6), (1000, 999), (10**7, 10**7 - 1)])
def test_two_images(a, b):
    # det [[a, b], [b, a]] = (a - b)(a + b); the difference of two large squares loses log10(a / (a - b)) digits
    result = log_determinant(torch.tensor([[a, b], [b, a]], dtype=torch.float64))
    assert result.value == pytest.approx(math.log((a - b) * (a + b)), rel=1e-8)
    assert (result.sign, result.rank) == (1, 2)


@pytest.mark.parametrize("n", [2, 5, 12])
def test_equicorrelated_kernel(n):
    # all pairs agree on b of a bits: det = (a - b)^(n - 1) (a + (n - 1) b)
    a, b = 64, 31
    kernel = torch.full((n, n), float(b), dtype=torch.float64).fill_diagonal_(float(a))
    expected = (n - 1) * math.log(a - b) + math.log(a + (n - 1) * b)
    assert log_determinant(kernel).value == pytest.approx(expected, rel=1e-12)


def test_size_of_one():
    positive, negative = log_determinant(torch.tensor([[7.0]])), log_determinant(torch.tensor([[-7.0]]))
    assert [positive.value, negative.value] == pytest.approx([math.log(7)] * 2, rel=1e-15)
    assert (positive.sign, negative.sign, negative.rank) == (1, -1, 1)
    assert log_determinant(torch.tensor([[0.0]])).value == -math.inf


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_permutation_matrices_have_the_sign_of_the_permutation(order):
    matrix = torch.eye(3)[list(order)]
    if not torch.equal(matrix, matrix.t()):
        with pytest.raises(InputError, match="symmetric"):
            log_determinant(matrix)
        return
    result = log_determinant(matrix)
    inversions = sum(order[i] > order[j] for i in range(3) for j in range(i + 1, 3))
    assert result.value == pytest.approx(0.0, abs=1e-14)
    assert (result.sign, result.rank) == ((-1) ** inversions, 3)


def test_indefinite_kernel_has_a_negative_sign():
    result = log_determinant(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))  # eigenvalues 3 and -1
    assert result.value == pytest.approx(math.log(3), rel=1e-14)
    assert (result.sign, result.rank, result.reason) == (-1, 2, None)


def test_all_codes_equal():
    result = log_determinant(torch.full((4, 4), 9.0))
    assert (result.value, result.sign, result.rank) == (-math.inf, 0, 1)
    assert result.reason == "all 4 images have the same code"


def test_some_codes_equal():
    values = torch.randn(5, 400, generator=generator(0))
    values[3] = values[0]
    values[4] = values[0]
    result = log_determinant(agreement_kernel(values))
    assert (result.value, result.sign, result.rank) == (-math.inf, 0, 3)
    assert result.reason == "2 of 5 images repeat the code of another; rank 3"


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8])
def test_more_images_than_the_codes_can_tell_apart(d):
    # K = (D 1 1' + S S') / 2 has rank at most D + 1
    n = min(d + 2, 2**d)
    patterns = torch.tensor([[(i >> b) & 1 for b in range(d)] for i in range(n)], dtype=torch.float32)
    result = log_determinant(agreement_kernel(patterns, 0.5))
    assert n_duplicate_codes(agreement_kernel(patterns, 0.5)) == 0
    if n > d + 1:
        assert (result.value, result.sign) == (-math.inf, 0)
        assert result.rank <= d + 1
        assert f"linearly dependent: rank {result.rank} of {n}" in result.reason


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), d=st.integers(1, 40), extra=st.integers(2, 20))
def test_kernels_of_more_than_d_plus_1_images_are_singular(seed, d, extra):
    assert log_determinant(random_code_kernel(seed, d + extra, d)).value == -math.inf


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 9), d=st.integers(1, 12))
def test_small_kernels_agree_with_the_exact_determinant(seed, n, d):
    kernel = random_code_kernel(seed, n, d)
    exact = exact_determinant(kernel.long().tolist())
    result = log_determinant(kernel)
    assert (result.value == -math.inf) == (exact == 0)
    assert (result.rank < n) == (exact == 0)
    assert result.sign == np.sign(exact)
    if exact:  # elimination of an integer matrix of condition below 1e4 keeps 10 digits
        assert result.value == pytest.approx(math.log(abs(exact)), rel=1e-9, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.lists(st.integers(-3, 3), min_size=n, max_size=n), min_size=n)))
def test_integer_gram_matrices_agree_with_the_exact_determinant(rows):
    factor = torch.tensor(rows[: len(rows[0])], dtype=torch.float64)
    gram = factor @ factor.t()
    exact = exact_determinant(gram.long().tolist())
    result = log_determinant(gram)
    assert (result.value == -math.inf) == (exact == 0)
    if exact:
        assert result.value == pytest.approx(math.log(exact), rel=1e-9, abs=1e-9)


def test_nearly_equal_codes_are_not_singular():
    # 64 images, each differing from the first in one bit of its own: far from orthogonal, yet of full rank
    d = 4096
    values = -torch.ones(64, d)
    for i in range(64):
        values[i, i] = 1.0
    kernel = agreement_kernel(values)  # D on the diagonal, D - 2 elsewhere
    expected = 63 * math.log(2) + math.log(d + 63 * (d - 2))
    result = log_determinant(kernel)
    assert result.value == pytest.approx(expected, rel=1e-9)
    assert (result.sign, result.rank) == (1, 64)


def test_scaling_shifts_by_n_log_of_the_factor():
    kernel = random_code_kernel(1, 16, 900)
    assert log_determinant(kernel * 7).value == pytest.approx(log_determinant(kernel).value + 16 * math.log(7))


def test_many_images():
    result = log_determinant(random_code_kernel(0, 1024, 4000))
    assert result.rank == 1024
    assert math.isfinite(result.value)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.float64])
def test_any_type_is_taken_in_float64(dtype):
    assert log_determinant(torch.tensor([[3, 1], [1, 3]]).to(dtype)).value == pytest.approx(math.log(8), rel=1e-15)


@pytest.mark.parametrize("shape", [(2, 3), (2,), (2, 2, 2), (0, 0)])
def test_shapes_that_are_no_kernel(shape):
    with pytest.raises(ShapeError, match=r"expected a kernel of shape \(N, N\)"):
        log_determinant(torch.zeros(shape))


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([[1.0, 2.0], [3.0, 1.0]], "differs from its transpose"),
        ([[1.0, math.nan], [math.nan, 1.0]], "NaN"),
        ([[math.inf, 0.0], [0.0, 1.0]], "infinities"),
        ([[1.0, math.inf], [math.inf, 1.0]], "infinities"),
        ([[1.0, -math.inf], [-math.inf, 1.0]], "infinities"),
    ],
)
def test_kernels_that_are_not_finite_or_symmetric(entries, says):
    with pytest.raises(InputError, match=says):
        log_determinant(torch.tensor(entries))


def test_duplicates_are_counted_once_each():
    values = torch.tensor([[1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]])
    assert n_duplicate_codes(agreement_kernel(values)) == 3
    assert n_duplicate_codes(agreement_kernel(values[:1])) == 0
