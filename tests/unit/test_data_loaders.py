"""The named data sets, on small files in the official formats and on real data where there is some."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
import torch

from naswot.data import data_sets, get_data, list_data
from naswot.errors import DataError, InputError, OptionError, UnknownNameError, UnsafePickleError
from naswot.seeding import torch_generator


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("NASWOT_DATA", raising=False)


class Python2Pickler(pickle._Pickler):
    """Writes bytes and text as Python 2 wrote its strings, and numpy under its old module name."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_string(self, value):
        raw = value if isinstance(value, bytes) else value.encode("latin1")
        short = len(raw) < 256
        self.write((b"U" + bytes([len(raw)]) if short else b"T" + len(raw).to_bytes(4, "little")) + raw)

    dispatch[bytes] = dispatch[str] = save_string


def write_python2(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(content)
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def pixels(first: int, m: int, side: int) -> np.ndarray:
    """Rows whose planes R, G, B hold first + i, first + i + 1 and first + i + 2."""
    planes = np.arange(m)[:, None] + np.arange(3)[None] + first
    return np.repeat(planes, side * side, axis=1).astype(np.uint8)


def cifar10_folder(folder, batches=(1, 2, 3, 4, 5), m=4):
    for i in batches:
        data = {b"batch_label": b"x", b"labels": [(i + k) % 10 for k in range(m)], b"data": pixels(10 * i, m, 32)}
        write_python2(folder / f"data_batch_{i}", data)
    write_python2(folder / "test_batch", {b"labels": [9, 8], b"data": pixels(100, 2, 32)})
    write_python2(folder / "batches.meta", {b"label_names": [b"airplane", b"automobile"] + [b"x"] * 8})
    return folder


def cifar100_folder(folder):
    for name, m in (("train", 6), ("test", 3)):
        labels = {b"fine_labels": [99 - k for k in range(m)], b"coarse_labels": [0] * m}
        write_python2(folder / name, {**labels, b"data": pixels(0, m, 32)})
    return folder


def imagenet16_folder(folder, names=("train_data_batch_1", "val_data"), labels=(1, 120, 121, 1000)):
    for i, name in enumerate(names):
        write_python2(folder / name, {b"data": pixels(10 * i, len(labels), 16), b"labels": list(labels)})
    return folder


# ---- registry and options


def test_all_data_sets_are_found():
    assert list_data() == ["cifar10", "cifar100", "digits", "image_folder", "imagenet16"]
    assert list_data("cifar*", without=["cifar100"]) == ["cifar10"]
    assert data_sets.failures() == {}


def test_misspelt_names_and_options_are_explained():
    with pytest.raises(
        UnknownNameError, match=r"unknown data set 'cifar_10'; did you mean 'cifar10'\? `naswot list data`"
    ):
        get_data("cifar_10")
    with pytest.raises(OptionError, match=r"digits has no option 'colours'; it offers channels"):
        get_data("digits", colours=3)
    with pytest.raises(OptionError, match=r"cifar10 has no option 'limit'; it offers none"):
        get_data("cifar10", limit=3)
    with pytest.raises(OptionError, match="unknown split 'val'"):
        get_data("digits", split="val")
    with pytest.raises(OptionError, match="size 0"):
        get_data("digits", size=0)


# ---- digits


def test_digits_are_normalised_by_their_training_part():
    train, test = get_data("digits"), get_data("digits", split="test")
    assert (len(train), len(test)) == (1438, 359)
    assert train.shape == test.shape == (3, 16, 16)
    images, _ = train.tensors()
    assert images.mean().abs() < 1e-5  # float32 sums over 4.4 million pixels
    assert (images.std() - 1).abs() < 1e-5
    assert (train.mean, train.std) == (test.mean, test.std)
    assert torch.equal(images[:, 0], images[:, 2])


def test_the_split_of_digits_is_stratified_disjoint_and_fixed():
    train, test = (get_data("digits", split=split, size=8, channels=1) for split in ("train", "test"))
    assert torch.bincount(train.labels).tolist() == [142, 146, 142, 146, 145, 146, 145, 143, 139, 144]
    assert torch.bincount(test.labels).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    together = torch.cat([train.images, test.images]).flatten(1)
    assert len({tuple(row.tolist()) for row in together}) == 1797
    grey = (test.images * 16).byte().numpy().tobytes()
    assert hashlib.blake2b(grey, digest_size=8).hexdigest() == "c3ef0a3c40507e5a"  # golden: the split must never move


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 16, 28])
def test_digits_come_in_every_size(size, channels):
    data = get_data("digits", split="test", size=size, channels=channels)
    assert data.shape == (channels, size, size)
    assert 0 <= data.images.min() < data.images.max() <= 1
    assert data.batch(4, generator=torch_generator(0)).inputs.dtype == torch.float32


def test_digits_with_two_channels_are_refused():
    with pytest.raises(OptionError, match="channels 2"):
        get_data("digits", channels=2)


# ---- where files are looked for


@pytest.mark.parametrize("inside", [".", "cifar-10-batches-py", "images", "images/cifar-10-batches-py"])
@pytest.mark.parametrize("how", ["root", "text", "environment"])
def test_every_place_of_the_files_is_found(tmp_path, monkeypatch, inside, how):
    cifar10_folder(tmp_path / inside)
    if how == "environment":
        monkeypatch.setenv("NASWOT_DATA", str(tmp_path))
    root = {"root": tmp_path, "text": str(tmp_path), "environment": None}[how]
    assert len(get_data("cifar10", root=root)) == 20


def test_an_explicit_root_wins_over_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("NASWOT_DATA", str(cifar10_folder(tmp_path / "a")))
    assert len(get_data("cifar10", root=cifar10_folder(tmp_path / "b", m=2))) == 10


def test_missing_data_says_what_was_looked_for_and_how_to_point_to_it(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"no data root is known: .*--data-root .*NASWOT_DATA"):
        get_data("cifar10")
    with pytest.raises(
        DataError, match=r"no file data_batch_1, .*data_batch_5 was found in .*--data-root .*NASWOT_DATA"
    ) as caught:
        get_data("cifar10", root=tmp_path)
    for inside in ("", "cifar-10-batches-py", "images/cifar-10-batches-py", "images"):
        assert str(tmp_path / inside) in str(caught.value)
    with pytest.raises(DataError, match=r"nowhere \(from root\) is no folder"):
        get_data("cifar10", root=tmp_path / "nowhere")
    monkeypatch.setenv("NASWOT_DATA", str(tmp_path / "lost"))
    with pytest.raises(DataError, match=r"lost \(from NASWOT_DATA\) is no folder"):
        get_data("cifar10")


# ---- CIFAR


def test_cifar10_reads_the_official_format(tmp_path):
    data = get_data("cifar10", root=cifar10_folder(tmp_path), split="train")
    assert data.images.dtype == torch.uint8
    assert data.shape == (3, 32, 32)
    assert data.images[4, :, 31, 0].tolist() == [20, 21, 22]  # first image of the second file, planes in order
    assert data.labels.tolist()[:5] == [1, 2, 3, 4, 2]
    assert data.class_names[:2] == ("airplane", "automobile")
    assert data.n_classes == 10
    test = get_data("cifar10", root=tmp_path, split="test", size=16)
    assert test.labels.tolist() == [9, 8]
    assert test.shape == (3, 16, 16)
    assert test.split == "test"


@pytest.mark.parametrize(
    ("batches", "note"),
    [
        ((2,), "only data_batch_2 of the five training files was found: 4 of 50,000 images"),
        ((1, 3), "only data_batch_1, data_batch_3 of the five training files were found: 8 of 50,000 images"),
    ],
)
def test_some_of_the_batches_work_and_are_noted(tmp_path, batches, note):
    assert get_data("cifar10", root=cifar10_folder(tmp_path, batches)).notes == (note,)


def test_fewer_images_than_the_official_ones_are_noted(tmp_path):
    assert get_data("cifar100", root=cifar100_folder(tmp_path)).notes == (
        "train: 6 images, where the official split has 50,000",
    )


def test_complete_files_have_no_notes(tmp_path):
    cifar10_folder(tmp_path, m=10_000)
    assert get_data("cifar10", root=tmp_path).notes == ()


def test_cifar100_has_the_fine_labels(tmp_path):
    data = get_data("cifar100", root=cifar100_folder(tmp_path))
    assert data.labels.tolist() == [99, 98, 97, 96, 95, 94]
    assert data.n_classes == 100
    assert data.class_names == ()  # there is no file meta
    assert len(get_data("cifar100", root=tmp_path, split="test")) == 3


def test_a_malicious_batch_is_refused(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"cos\nsystem\n(Vtrue\ntR.")
    with pytest.raises(UnsafePickleError, match=r"data_batch_1: .*os\.system"):
        get_data("cifar10", root=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list"),
        ({"labels": [1]}, "no key 'data', only labels"),
        ({"data": pixels(0, 1, 32)}, "no key 'labels'"),
        ({"data": pixels(0, 1, 16), "labels": [1]}, r"shape \(N, 3072\) uint8, but got \(1, 768\) uint8"),
        ({"data": pixels(0, 1, 32).astype(float), "labels": [1]}, "float64"),
        ({"data": [[0] * 3072], "labels": [1]}, "got list"),
        ({"data": pixels(0, 2, 32), "labels": [1]}, "2 images and 1 labels"),
        ({"data": pixels(0, 0, 32), "labels": []}, "0 images"),
        ({"data": pixels(0, 1, 32), "labels": [10]}, r"labels 10\.\.10 lie outside 0\.\.9"),
        ({"data": pixels(0, 1, 32), "labels": [-1]}, "outside"),
        ({"data": pixels(0, 1, 32), "labels": ["cat"]}, "no list of integers"),
        ({"data": pixels(0, 1, 32), "labels": 3}, "no list of integers"),
    ],
)
def test_batches_in_another_format_name_file_and_reason(tmp_path, content, message):
    write_python2(tmp_path / "data_batch_1", content)
    with pytest.raises(DataError, match=message) as caught:
        get_data("cifar10", root=tmp_path)
    assert str(tmp_path / "data_batch_1") in str(caught.value)


def test_a_truncated_batch_names_the_file(tmp_path):
    path = cifar10_folder(tmp_path) / "data_batch_3"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"data_batch_3 is empty, truncated"):
        get_data("cifar10", root=tmp_path)


# ---- ImageNet16


def test_imagenet16_keeps_the_first_classes_and_shifts_their_labels(tmp_path):
    data = get_data("imagenet16", root=imagenet16_folder(tmp_path / "ImageNet16").parent)
    assert data.labels.tolist() == [0, 119]
    assert data.n_classes == 120
    assert data.shape == (3, 16, 16)
    assert data.images[1, :, 0, 15].tolist() == [1, 2, 3]
    assert data.notes == ("only train_data_batch_1 of the ten training files was found: 2 of 151,700 images",)
    assert get_data("imagenet16", root=tmp_path, split="test", size=32).shape == (3, 32, 32)


def test_imagenet16_reads_a_single_training_file_and_prefers_the_ten(tmp_path):
    folder = imagenet16_folder(tmp_path / "tinyimagenet16-120", names=("train_data",))
    single = get_data("imagenet16", root=tmp_path)
    assert single.notes == ("train_data: 2 images, where the official split has 151,700",)
    imagenet16_folder(folder, names=[f"train_data_batch_{i}" for i in range(1, 11)])
    ten = get_data("imagenet16", root=tmp_path)
    assert len(ten) == 20
    assert ten.notes == ("train_data_batch_1, " + ", ".join(f"train_data_batch_{i}" for i in range(2, 11))
                         + ": 20 images, where the official split has 151,700",)  # fmt: skip


@pytest.mark.parametrize(("n_classes", "labels"), [(1, [0]), (121, [0, 119, 120]), (1000, [0, 119, 120, 999])])
def test_imagenet16_takes_another_number_of_classes(tmp_path, n_classes, labels):
    data = get_data("imagenet16", root=imagenet16_folder(tmp_path, ("train_data",)), n_classes=n_classes)
    assert data.labels.tolist() == labels
    assert data.n_classes == n_classes
    assert data.notes == ()


def test_imagenet16_refuses_what_cannot_be(tmp_path):
    imagenet16_folder(tmp_path, ("train_data",), labels=(500,))
    with pytest.raises(DataError, match=r"no image with a label in 1\.\.120"):
        get_data("imagenet16", root=tmp_path)
    for n_classes in (0, 1001):
        with pytest.raises(OptionError, match=str(n_classes)):
            get_data("imagenet16", root=tmp_path, n_classes=n_classes)
    imagenet16_folder(tmp_path, ("train_data",), labels=(0, 1))
    with pytest.raises(DataError, match=r"0\.\.1 lie outside 1\.\.1000"):
        get_data("imagenet16", root=tmp_path)


# ---- real data


@pytest.mark.parametrize(
    ("name", "split", "m", "n_classes"),
    [
        ("cifar10", "train", 10_000, 10),
        ("cifar10", "test", 10_000, 10),
        ("cifar100", "train", 7_000, 100),
        ("cifar100", "test", 2_000, 100),
        ("imagenet16", "train", 6_000, 120),
        ("imagenet16", "test", 1_200, 120),
    ],
)
def test_real_files_give_normalised_images_of_every_class(data_root, name, split, m, n_classes):
    if not (data_root / "images").is_dir():
        pytest.skip(f"no folder images in {data_root}")
    data = get_data(name, root=data_root, split=split)
    images, labels = data.tensors()
    assert len(data) >= m
    assert labels.unique().numel() == data.n_classes == n_classes
    # samples of at least 1,200 images: their mean and deviation stray less than 0.1 from the published constants
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), atol=0.1, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3)), torch.ones(3), atol=0.1, rtol=0)
    assert data.batch(128, generator=torch_generator(0)).n == 128
    with pytest.raises(InputError, match="holds"):
        data.batch(len(data) + 1, generator=torch_generator(0))
