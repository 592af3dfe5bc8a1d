"""as_batch and check_batch: every kind of source, and what is refused."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset

from naswot.data import ImageSet, as_batch, check_batch
from naswot.errors import InputError, ShapeError
from naswot.types import Batch

IMAGES = torch.arange(20.0).view(20, 1, 1, 1).expand(20, 3, 4, 4).contiguous()
LABELS = torch.arange(20)


def values(batch: Batch) -> list[int]:
    assert isinstance(batch.inputs, torch.Tensor)
    return batch.inputs[:, 0, 0, 0].int().tolist()


@pytest.fixture(autouse=True)
def global_state_unchanged():
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    yield
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


class Noisy(Dataset):
    """Every item draws from all three global generators, as transforms do."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return torch.rand(3, 4, 4) + random.random() + np.random.rand(), index


class Stream(IterableDataset):
    def __init__(self, n=None):
        self.n = n

    def __iter__(self):
        index = 0
        while self.n is None or index < self.n:
            yield IMAGES[index % 20], index
            index += 1


def test_tensors_are_taken_as_they_are():
    assert as_batch(IMAGES).inputs is IMAGES
    assert as_batch(torch.zeros(7, 5)).n == 7  # an MLP's features
    assert as_batch(torch.zeros(7, 5, dtype=torch.int64)).n == 7  # token ids
    assert values(as_batch(IMAGES.numpy(), 3)) == [0, 1, 2]
    assert values(as_batch(IMAGES, 3)) == [0, 1, 2]


@pytest.mark.parametrize("kind", [tuple, list])
def test_a_pair_is_inputs_and_targets(kind):
    batch = as_batch(kind((IMAGES, LABELS.int())), 4)
    assert values(batch) == [0, 1, 2, 3]
    assert batch.targets.tolist() == [0, 1, 2, 3]
    assert batch.targets.dtype == torch.int64
    assert as_batch(kind((IMAGES, None))).targets is None
    assert as_batch(kind((IMAGES,))).targets is None
    assert as_batch((IMAGES.numpy(), LABELS.numpy())).targets.tolist() == LABELS.tolist()


def test_a_pair_may_hold_several_inputs():
    batch = as_batch(([IMAGES, IMAGES], LABELS), 2)
    assert [len(each) for each in batch.tensors()] == [2, 2]
    assert as_batch(({"x": IMAGES}, LABELS)).targets.tolist() == LABELS.tolist()


@pytest.mark.parametrize("key", ["labels", "label"])
def test_labels_of_a_mapping_become_targets(key):
    source = {"pixel_values": IMAGES, key: LABELS, "flag": True}
    batch = as_batch(source, 2)
    assert batch.targets.tolist() == [0, 1]
    assert set(batch.inputs) == {"pixel_values", "flag"}
    assert key in source


@pytest.mark.parametrize("labels", [torch.zeros(20, 8, dtype=torch.int64), torch.zeros(20)], ids=["per token", "float"])
def test_other_labels_of_a_mapping_stay_inputs(labels):
    batch = as_batch({"input_ids": torch.zeros(20, 8, dtype=torch.int64), "labels": labels})
    assert batch.targets is None
    assert "labels" in batch.inputs


def test_a_batch_is_cut_along_its_own_dimension():
    batch = Batch((torch.zeros(6, 20, 2), torch.zeros(3, 3)[:0].new_zeros(3, 20)), LABELS, batch_dim=1)
    cut = as_batch(batch, 4)
    assert [tuple(each.shape) for each in cut.tensors()] == [(6, 4, 2), (3, 4)]
    assert cut.targets.tolist() == [0, 1, 2, 3]
    assert as_batch(batch) is batch


def test_an_image_set_is_drawn_from_with_the_seed():
    data = ImageSet("toy", IMAGES / 20, LABELS % 5, 5, (0.0,) * 3, (0.05,) * 3)
    batch = as_batch(data, 6, seed=4)
    assert values(batch) == values(as_batch(data, 6, seed=4)) != values(as_batch(data, 6, seed=5))
    assert len(set(values(batch))) == 6
    assert as_batch(data).n == 20


def test_a_data_set_gives_distinct_items_by_the_seed():
    data = TensorDataset(IMAGES, LABELS)
    batch = as_batch(data, 8, seed=1)
    assert values(batch) == batch.targets.tolist() == as_batch(data, 8, seed=1).targets.tolist()
    assert len(set(values(batch))) == 8
    assert values(batch) != values(as_batch(data, 8, seed=2))
    assert as_batch(data).n == 20
    assert as_batch(TensorDataset(torch.zeros(200, 3, 2, 2))).n == 128


@pytest.mark.parametrize(
    "wrap", [lambda d: d, lambda d: DataLoader(d, batch_size=4, shuffle=True)], ids=["set", "loader"]
)
def test_random_transforms_follow_the_seed(wrap):
    first, again, other = (as_batch(wrap(Noisy()), 6, seed=seed).inputs for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_iterable_data_set_gives_its_first_items():
    assert as_batch(Stream(), 5).targets.tolist() == [0, 1, 2, 3, 4]
    assert as_batch(Stream()).n == 128
    assert as_batch(Stream(7)).n == 7


def test_a_loader_gives_its_first_batch_or_as_many_as_needed():
    loader = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=8)
    assert as_batch(loader).n == 8
    assert values(as_batch(loader, 11)) == as_batch(loader, 11).targets.tolist() == list(range(11))
    assert values(as_batch(loader, 3)) == [0, 1, 2]


def test_a_loader_of_mappings_is_joined():
    data = [{"pixel_values": IMAGES[i], "labels": i} for i in range(10)]
    batch = as_batch(DataLoader(data, batch_size=4), 10)
    assert batch.inputs["pixel_values"].shape == (10, 3, 4, 4)
    assert batch.targets.tolist() == list(range(10))


@pytest.mark.parametrize("own", ["none", "loader", "sampler"])
def test_a_shuffling_loader_follows_the_seed_and_keeps_its_state(own):
    data, generator = TensorDataset(IMAGES, LABELS), torch.Generator().manual_seed(99)
    if own == "sampler":
        loader = DataLoader(data, batch_size=8, sampler=RandomSampler(data, generator=generator))
    else:
        loader = DataLoader(data, batch_size=8, shuffle=True, generator=generator if own == "loader" else None)
    before = generator.get_state()
    first, again, other = (values(as_batch(loader, 10, seed=seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert torch.equal(generator.get_state(), before)


def test_a_loader_that_fails_still_gets_its_state_back():
    generator = torch.Generator().manual_seed(99)
    before = generator.get_state()
    loader = DataLoader([1.0, "x"], batch_size=2, shuffle=True, generator=generator)
    with pytest.raises((TypeError, ValueError)):
        as_batch(loader)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    ("source", "n", "message"),
    [
        (IMAGES, 21, "21 images were asked for, but the source holds only 20"),
        (IMAGES, 0, "n is 0"),
        (TensorDataset(IMAGES), 21, "21 distinct images were asked for, but the data set holds 20"),
        (DataLoader(TensorDataset(IMAGES), batch_size=8), 21, "holds only 20"),
        (DataLoader(Stream(0)), None, "no batch"),
        (Stream(3), 5, "gave only 3"),
        (Stream(0), None, "gave only 0"),
        ((IMAGES, LABELS, LABELS), None, r"tuple of 3; .*inputs=\(a, b"),
        ((IMAGES, IMAGES), None, r"targets of shape \(N,\) .*but got \(20, 3, 4, 4\) torch.float32"),
        ((IMAGES, LABELS.float()), None, "torch.float32"),
        ((IMAGES, "x"), None, "got str"),
        ("images", None, "got str of 6"),
        (None, None, "cannot take images from NoneType"),
        (object(), None, "cannot take images from object"),
        ({"a": 1}, None, "at least one tensor"),
        ([torch.zeros(3, 2, 2), torch.zeros(3, 2, 2), torch.zeros(3, 4, 4)], None, "list of 3"),
    ],
)
def test_what_gives_no_batch_is_refused(source, n, message):
    with pytest.raises(InputError, match=message):
        as_batch(source, n)


@pytest.mark.parametrize("item", ["path.png", object()], ids=["text", "object"])
def test_items_that_do_not_stack_are_refused_with_advice(item):
    class Odd(Noisy):
        def __getitem__(self, index):
            return item

    with pytest.raises(InputError):
        as_batch(Odd(), 2)


def test_items_of_several_sizes_are_refused_with_advice():
    class Uneven(Noisy):
        def __getitem__(self, index):
            return torch.zeros(3, 4 + index, 4)

    with pytest.raises(InputError, match=r"do not stack .*transform"):
        as_batch(Uneven(), 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize(
    ("bad", "counts"), [([float("nan")] * 3, "3 NaN and 0"), ([float("inf"), -float("inf")], "0 NaN and 2")]
)
def test_values_that_are_not_finite_are_counted(dtype, bad, counts):
    inputs = torch.zeros(4, 3, 2, 2, dtype=dtype)
    inputs.view(-1)[: len(bad)] = torch.tensor(bad).to(dtype)
    with pytest.raises(InputError, match=rf"{counts} infinite values among the 48 of shape \(4, 3, 2, 2\)"):
        check_batch(Batch(inputs))
    with pytest.raises(InputError, match="input 'x'"):
        check_batch(Batch({"ids": torch.zeros(4, 2, dtype=torch.int64), "x": inputs}))
    with pytest.raises(InputError, match="input 1"):
        check_batch(Batch((torch.zeros(4, 2), inputs)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_large_finite_values_whose_sum_overflows_pass(dtype):
    batch = Batch(torch.full((4, 3, 2, 2), torch.finfo(dtype).max, dtype=dtype))
    assert not batch.inputs.sum().isfinite()
    assert check_batch(batch) is batch


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_integer_images_are_refused_with_the_conversion(dtype):
    with pytest.raises(InputError, match=rf"{dtype} of shape \(4, 3, 2, 2\); convert them by images.float\(\) / 255"):
        as_batch(torch.zeros(4, 3, 2, 2, dtype=dtype))
    with pytest.raises(InputError, match="pixel_values"):
        as_batch({"pixel_values": torch.zeros(4, 3, 2, 2, dtype=dtype)})


def test_bytes_of_any_rank_are_images():
    with pytest.raises(InputError, match="uint8"):
        as_batch(torch.zeros(4, 784, dtype=torch.uint8))


def test_token_ids_and_masks_of_any_rank_pass():
    ids, mask = torch.zeros(4, 8, dtype=torch.int64), torch.ones(4, 1, 8, 8, dtype=torch.int64)
    assert (
        as_batch({"input_ids": ids, "attention_mask": mask, "flags": torch.zeros(4, 1, 2, 2, dtype=torch.bool)}).n == 4
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_a_tensor_without_features_has_a_wrong_rank(dtype):
    with pytest.raises(ShapeError, match=r"expected inputs of shape \(N, C, H, W\) .*but got \(32,\)"):
        as_batch(torch.zeros(32, dtype=dtype))


def test_targets_that_are_no_integers_are_refused():
    with pytest.raises(InputError, match="float32"):
        check_batch(Batch(IMAGES, LABELS.float()))


def test_checks_leave_gradients_and_meta_tensors_alone():
    inputs = torch.ones(2, 3, requires_grad=True)
    assert check_batch(Batch(inputs)).inputs is inputs
    assert check_batch(Batch(torch.zeros(2, 3, device="meta"))).n == 2


def test_importing_the_package_loads_no_heavy_module():
    code = "import sys, naswot.data; print([m for m in ('sklearn', 'PIL', 'pandas', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
