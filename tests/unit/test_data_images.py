"""ImageSet: normalisation, draws, parts, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from naswot.data.images import ImageSet, noisy, resize
from naswot.errors import InputError, OptionError, ShapeError
from naswot.seeding import torch_generator


def image_set(m: int = 10, **changes) -> ImageSet:
    images = torch.arange(m, dtype=torch.uint8).view(m, 1, 1, 1).expand(m, 3, 4, 4).contiguous()
    made = ImageSet("toy", images, torch.arange(m) % 5, 5, (0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    return dataclasses.replace(made, **changes)


def test_bytes_and_floats_are_normalised_on_the_scale_0_to_1():
    # worked out: 255 -> 1.0; (1 - 0.5) / 0.5 = 1, (1 - 0.25) / 0.25 = 3, (1 - 0) / 1 = 1
    as_bytes = image_set(1, images=torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))
    as_floats = image_set(1, images=torch.ones(1, 3, 2, 2, dtype=torch.float64))
    for each in (as_bytes, as_floats):
        images, labels = each.tensors()
        assert images.dtype == torch.float32
        torch.testing.assert_close(images[0, :, 0, 0], torch.tensor([1.0, 3.0, 1.0]))
        assert labels is each.labels


@given(st.integers(1, 10), st.integers(0, 5))
def test_a_batch_holds_distinct_images_with_their_own_labels(n, seed):
    data = image_set(10)
    batch = data.batch(n, generator=torch_generator(seed))
    assert isinstance(batch.inputs, torch.Tensor)
    assert batch.targets is not None
    values = (batch.inputs[:, 2, 0, 0] * 255).round().long()  # channel 2 has mean 0 and deviation 1
    assert len(set(values.tolist())) == n == batch.n
    assert torch.equal(values % 5, batch.targets)
    again = data.batch(n, generator=torch_generator(seed))
    assert torch.equal(again.inputs, batch.inputs)


def test_batches_differ_between_seeds_and_leave_global_state_alone():
    before = torch.get_rng_state()
    first, second = (image_set(10).batch(10, generator=torch_generator(seed)) for seed in (0, 1))
    assert not torch.equal(first.inputs, second.inputs)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("n", [0, -1, 11])
def test_impossible_batch_sizes_are_refused(n):
    with pytest.raises(InputError, match=rf"batch of {n} .* toy \(train\) holds 10"):
        image_set(10).batch(n, generator=torch_generator(0))


def test_without_labels_batches_have_no_targets():
    data = image_set(labels=None)
    assert data.batch(2, generator=torch_generator(0)).targets is None
    assert data.subset([1]).labels is None


def test_partition_is_disjoint_and_complete():
    first, second = image_set(10).partition(0.7, generator=torch_generator(3))
    values = [set(part.images[:, 0, 0, 0].tolist()) for part in (first, second)]
    assert (len(first), len(second)) == (7, 3)
    assert values[0] | values[1] == set(range(10))
    assert torch.equal(first.images[:, 0, 0, 0].long() % 5, first.labels)


@pytest.mark.parametrize("fraction", [0.0, 1.0, 0.01, 1.5, -1.0])
def test_a_partition_with_an_empty_part_is_refused(fraction):
    with pytest.raises(OptionError, match="empty"):
        image_set(10).partition(fraction, generator=torch_generator(0))


def test_subset_keeps_order_and_description():
    data = image_set(10, notes=("A note.",)).subset(torch.tensor([3, 1]))
    assert data.images[:, 0, 0, 0].tolist() == [3, 1]
    assert data.labels.tolist() == [3, 1]
    assert data.notes == ("A note.",)
    assert data.shape == (3, 4, 4)


def test_repr_does_not_print_the_pixels():
    assert len(repr(image_set(10))) < 200


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"images": torch.zeros(32, 3072)},
            ShapeError,
            r"expected inputs of shape \(N, C, H, W\), but got \(32, 3072\)",
        ),
        ({"images": torch.zeros(10, 1, 4, 4)}, ShapeError, "1 channels"),
        ({"mean": (0.5,)}, ShapeError, "3 channels"),
        ({"std": (0.5,)}, ShapeError, "3 channels"),
        ({"images": torch.zeros(10, 3, 4, 4, dtype=torch.int64)}, InputError, "int64"),
        ({"labels": torch.zeros(9, dtype=torch.int64)}, ShapeError, r"\(10,\), but got \(9,\)"),
        ({"labels": torch.zeros(10)}, InputError, "float32"),
        ({"n_classes": 4}, InputError, r"0\.\.4 lie outside 0\.\.3"),
        ({"labels": torch.full((10,), -1)}, InputError, r"-1\.\.-1 lie outside"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        image_set(10, **changes)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_resize_keeps_type_mean_and_constant_images(dtype):
    images = torch.full((5000, 1, 8, 8), 200).to(dtype)
    for size in (4, 8, 16):
        resized = resize(images, size)
        assert resized.shape == (5000, 1, size, size)
        assert resized.dtype == dtype
        assert (resized == 200).all()
    assert resize(images, None) is images


def test_resize_rounds_bytes_and_averages_when_shrinking():
    # a 2 x 2 picture to one pixel: the antialiased triangle weighs all four alike, (0 + 1 + 255 + 255) / 4 = 127.75
    images = torch.tensor([0, 1, 255, 255], dtype=torch.uint8).view(1, 1, 2, 2)
    assert resize(images, 1).item() == 128
    # four columns to one: the triangle's weights are (5, 7, 7, 5) / 24, so the outer two give 240 * 10 / 24 = 100
    stripes = torch.tensor([240, 0, 0, 240], dtype=torch.uint8).expand(1, 1, 4, 4)
    assert resize(stripes, 1).item() == 100


def test_noise_has_that_deviation_on_normalised_images_and_is_fixed():
    data = image_set(500)
    clean, _ = data.tensors()
    added = noisy(data, 2.0).tensors()[0] - clean
    assert added.shape == clean.shape
    # 8,000 values a channel: the sample deviation of 2.0 has a standard error of 0.016
    torch.testing.assert_close(added.std(dim=(0, 2, 3)), torch.full((3,), 2.0), atol=0.08, rtol=0)
    torch.testing.assert_close(added.mean(dim=(0, 2, 3)), torch.zeros(3), atol=0.12, rtol=0)
    assert torch.equal(noisy(data, 2.0).images, noisy(data, 2.0).images)
    torch.testing.assert_close(noisy(data, 1.0).tensors()[0] - clean, added / 2, atol=1e-5, rtol=0)
    assert noisy(data, 0.0) is data
    assert noisy(data, 1.0).notes == ("Gaussian noise of standard deviation 1 is added to the normalised images.",)


def test_noise_differs_between_splits_and_is_the_same_for_bytes_and_floats():
    data = image_set(20)
    as_floats = dataclasses.replace(data, images=data.images.float() / 255)
    torch.testing.assert_close(noisy(as_floats, 1.0).images, noisy(data, 1.0).images)
    held_out = dataclasses.replace(data, split="test")
    assert not torch.equal(noisy(held_out, 1.0).images, noisy(data, 1.0).images)


@pytest.mark.parametrize("sd", [-0.5, float("nan"), float("inf")])
def test_impossible_noise_is_refused(sd):
    with pytest.raises(OptionError, match="take a standard deviation from 0"):
        noisy(image_set(), sd)
