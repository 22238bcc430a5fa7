"""Folders of pictures, as people have them."""

import numpy as np
import pytest
from PIL import Image

from shared.data.folders import load_folder, read_picture
from shared.data.images import LabelledImages, few_of_each
from shared.errors import UsageError

pytestmark = pytest.mark.once


def gradient(width, height, mode="RGB"):
    ramp = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
    return Image.fromarray(ramp.astype(np.uint8)).convert(mode)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of two classes, ten images each, of all sorts; with files that are none."""
    monkeypatch.setenv("KERAS_RECIPES_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "photos"
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for index, (mode, suffix) in enumerate(
            [("RGB", "jpg"), ("L", "png"), ("RGBA", "png"), ("P", "gif"), ("CMYK", "jpg")] * 2
        ):
            gradient(40 + 7 * index, 90 - 5 * index, mode).save(folder / name / f"{index}.{suffix}")
    (folder / "cats" / "notes.txt").write_text("not an image")
    (folder / "cats" / ".DS_Store").write_bytes(b"\0")
    return folder


def test_all_sorts_of_pictures(photos):
    data = load_folder(photos, 48, 0.25)
    assert data.name == "folder"
    assert data.classes == ["cats", "dogs"]
    assert len(data.test.labels) == 4
    assert sorted(data.test.labels) == [0, 0, 1, 1]
    assert len(data.train.labels) + len(data.validation.labels) == 16
    assert data.train.images.shape[1:] == (48, 48, 3)
    assert data.train.images.dtype == np.uint8
    again = load_folder(photos, 48, 0.25)
    np.testing.assert_array_equal(again.test.images, data.test.images)
    assert load_folder(photos, 32, 0.25).train.images.shape[1:] == (32, 32, 3)


def test_broken_files_are_named_and_left_out(photos, capsys):
    (photos / "dogs" / "torn.jpg").write_bytes((photos / "dogs" / "0.jpg").read_bytes()[:200])
    (photos / "dogs" / "empty.png").write_bytes(b"")
    (photos / "cats" / "page.jpg").write_text("<html>")
    data = load_folder(photos, 32, 0.25)
    said = capsys.readouterr().err
    for name in ("torn.jpg", "empty.png", "page.jpg"):
        assert f"/{name}: " in said
    assert said.count("skipped") == 3
    assert sum(len(part.labels) for part in (data.train, data.validation, data.test)) == 20


def test_parts_that_the_folder_gives(photos, tmp_path):
    parts = tmp_path / "parts"
    parts.mkdir()
    for part in ("train", "val", "test"):
        photos.rename(parts / part) if part == "train" else None
        if part != "train":
            (parts / part / "dogs").mkdir(parents=True)
            gradient(50, 50).save(parts / part / "dogs" / "a.png")
    data = load_folder(parts, 32, 0.25)
    assert (len(data.train.labels), data.validation.labels.tolist(), data.test.labels.tolist()) == (20, [1], [1])


def test_pixels(tmp_path):
    gradient(60, 30).save(tmp_path / "wide.png")
    pixels = read_picture(tmp_path / "wide.png", 30)
    assert pixels.shape == (30, 30, 3)
    assert abs(int(pixels[0, 0, 0]) - 64) < 6, "cut to the middle"

    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_picture(tmp_path / "clear.png", 8) == 255).all(), "transparent is white"

    levels = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    assert read_picture(tmp_path / "deep.png", 8).max() >= 250
    assert 100 < read_picture(tmp_path / "deep.png", 8).mean() < 155

    turned = gradient(40, 40)
    exif = turned.getexif()
    exif[0x0112] = 3
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg", 40)[0, 0, 0] > 200, "turned by half a circle"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "holds no folders"),
        (lambda folder: (folder / "cats").mkdir(), "holds only the class cats"),
        (lambda folder: [(folder / name).mkdir() for name in ("cats", "dogs")], "holds no images for the train part"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, monkeypatch, make, message):
    monkeypatch.setenv("KERAS_RECIPES_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "photos"
    folder.mkdir()
    make(folder)
    with pytest.raises(UsageError, match=message) as caught:
        load_folder(folder, 32, 0.1)
    assert "\n" not in str(caught.value)


def test_a_class_without_a_readable_image(photos):
    for path in (photos / "dogs").iterdir():
        path.write_bytes(b"torn")
    with pytest.raises(UsageError, match="can be read"):
        load_folder(photos, 32, 0.1)


def test_a_class_that_training_does_not_have(tmp_path, photos):
    parts = tmp_path / "parts"
    parts.mkdir()
    photos.rename(parts / "train")
    (parts / "test" / "cows").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"cows is of a class that .*train does not have"):
        load_folder(parts, 32, 0.1)


def test_a_few_of_each_class():
    labels = np.array([2, 0, 0, 1, 0, 2, 2])
    few = few_of_each(LabelledImages(np.arange(7), labels), 2)
    assert few.images.tolist() == [0, 1, 2, 3, 5]
    assert few.labels.tolist() == [2, 0, 0, 1, 2]
