"""The data set image_folder: which pictures are read, in which order, and how they become squares."""

from __future__ import annotations

import numpy as np
import pytest

from naswot.data import get_data
from naswot.errors import DataError, OptionError


def picture(path, width=40, height=40, colour=(255, 0, 0), **options):
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.new(options.pop("mode", "RGB"), (width, height), colour).save(path, **options)
    return path


def test_pictures_are_read_in_a_fixed_order_with_classes_by_name(tmp_path):
    picture(tmp_path / "dog" / "b.png", colour=(0, 255, 0))
    picture(tmp_path / "dog" / "a.PNG", colour=(0, 0, 255))
    picture(tmp_path / "cat" / "images" / "z.png")
    (tmp_path / "dog" / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    data = get_data("image_folder", root=tmp_path)
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [0, 1, 1]
    assert data.images[:, :, 0, 0].tolist() == [[255, 0, 0], [0, 0, 255], [0, 255, 0]]
    assert data.shape == (3, 32, 32)
    assert data.notes == (f"3 pictures in 2 classes were read from {tmp_path}",)


@pytest.mark.parametrize(("width", "height"), [(40, 90), (90, 40), (7, 5), (16, 16), (1, 200)])
def test_pictures_of_any_shape_become_squares(tmp_path, width, height):
    picture(tmp_path / "cat" / "a.png", width, height, colour=(10, 20, 30))
    data = get_data("image_folder", root=tmp_path, size=16)
    assert data.shape == (3, 16, 16)
    assert data.images[0, :, 5, 5].tolist() == [10, 20, 30]


def test_the_centre_is_kept(tmp_path):
    image = pytest.importorskip("PIL.Image")
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 255  # exactly the central square is white
    (tmp_path / "cat").mkdir()
    image.fromarray(wide).save(tmp_path / "cat" / "a.png")
    assert (get_data("image_folder", root=tmp_path, size=10).images == 255).all()


@pytest.mark.parametrize(
    ("mode", "colour", "suffix"), [("L", 9, "png"), ("RGBA", (9, 9, 9, 9), "png"), ("P", 9, "gif")]
)
def test_pictures_of_other_modes_become_rgb(tmp_path, mode, colour, suffix):
    picture(tmp_path / "cat" / f"a.{suffix}", colour=colour, mode=mode)
    assert get_data("image_folder", root=tmp_path).shape == (3, 32, 32)


def test_limit_takes_from_the_classes_in_turn_and_reads_no_more(tmp_path):
    for name in ("a", "b", "c"):
        picture(tmp_path / name / "0.png")
        picture(tmp_path / name / "1.png")
    (tmp_path / "c" / "1.png").write_bytes(b"broken, and never read")
    (tmp_path / "b" / "1.png").unlink()
    data = get_data("image_folder", root=tmp_path, limit=4)
    assert data.labels.tolist() == [0, 0, 1, 2]
    assert data.notes[0].startswith("4 of 5 pictures in 3 classes")
    assert get_data("image_folder", root=tmp_path, limit=1).n_classes == 3
    with pytest.raises(OptionError, match="limit 0"):
        get_data("image_folder", root=tmp_path, limit=0)


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_splits_are_folders_of_their_own(tmp_path, test_name):
    picture(tmp_path / "train" / "cat" / "a.png")
    picture(tmp_path / test_name / "cat" / "b.png", colour=(0, 0, 9))
    assert get_data("image_folder", root=tmp_path).images.max() == 255
    assert get_data("image_folder", root=tmp_path, split="test").images.max() == 9


def test_a_class_called_train_is_a_class(tmp_path):
    picture(tmp_path / "train" / "a.png")
    picture(tmp_path / "plane" / "a.png")
    assert get_data("image_folder", root=tmp_path).class_names == ("plane", "train")
    with pytest.raises(DataError, match="no folder test or val"):
        get_data("image_folder", root=tmp_path, split="test")


@pytest.mark.parametrize("keep", [0, 20, 60, 200])
def test_a_damaged_picture_is_named(tmp_path, keep):
    path = picture(tmp_path / "cat" / "a.jpg")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"cannot read the picture .*cat.a\.jpg"):
        get_data("image_folder", root=tmp_path)


def test_a_folder_without_pictures_says_what_is_expected(tmp_path):
    with pytest.raises(DataError, match=r"no pictures in folders like .*class_name.picture\.png"):
        get_data("image_folder", root=tmp_path)
