"""Folders of images with masks, as people have them, and the sets known by name."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import directory_with, refused_in_one_line
from PIL import Image

from shared.data.segmentation.datasets import load_segmentation
from shared.data.segmentation.folders import place_of
from shared.data.segmentation.segmented_images import UNLABELLED, SegmentedImages, packed_images, unpacked_images
from shared.data.segmentation.synthetic_cells import CELL_COUNTS

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_RECIPES_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "scans"


def save(path, pixels, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(pixels, np.uint8))
    if palette:
        picture = picture.convert("P")
        picture.putpalette(palette)
    picture.save(path)


MASK = np.zeros((20, 30), np.uint8)
MASK[5:15, 5:20] = 1
MASK[10:18, 22:28] = 2


def image_of(mask, seed=0):
    noise = np.random.default_rng(seed).integers(0, 50, (*mask.shape, 3))
    return (100 * (mask[..., None] % 3) + noise).astype(np.uint8)


def scans(folder, image="images/{}.jpg", mask="masks/{}.png", values=MASK, count=10, **keywords):
    for index in range(count):
        save(folder / image.format(index), image_of(MASK, index))
        save(folder / mask.format(index), values, **keywords)


def load(folder, **keywords):
    return load_segmentation(str(folder), None, "dsb2018", 0.2, **keywords)


def masks_of(data):
    return [mask for part in (data.train, data.validation, data.test) for mask in part.masks]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/{}.jpg", "masks/{}.png"),
        ("JPEGImages/{}.jpg", "SegmentationClass/{}.png"),
        ("{}.jpg", "{}_mask.png"),
        ("scan_{}.png", "labels/scan_{}.png"),
        ("patient_1/images/{}.png", "patient_1/ground_truth/{}.png"),
        ("raw/{}.png", "raw/labels/{}_L.png"),
        ("images/eye_{}_L.png", "masks/eye_{}_L.png"),
    ],
)
def test_where_masks_may_lie(folder, image, mask):
    scans(folder, image, mask)
    data = load(folder)
    assert (data.name, data.classes, data.objects) == ("folder", ["class 0", "class 1", "class 2"], False)
    assert [len(part.masks) for part in (data.train, data.validation, data.test)] == [6, 2, 2]
    for found in masks_of(data):
        np.testing.assert_array_equal(found, MASK)
    assert data.channels == 3
    assert data.upright


def test_parts_from_folders_in_three_layouts(folder, capsys):
    for number, layout in enumerate(("{part}/images/{n}.png", "images/{part}/{n}.png", "{part}/{n}.png")):
        masks = layout.replace("images", "masks") if number < 2 else "{part}annot/{n}.png"
        for part, count in {"train": 5, "val": 2, "test": 3}.items():
            scans(folder / str(number), layout.format(part=part, n="{}"), masks.format(part=part, n="{}"), count=count)
        data = load(folder / str(number))
        assert [len(part.masks) for part in (data.train, data.validation, data.test)] == [5, 2, 3]
    line = capsys.readouterr().err.splitlines()[-1]
    assert "train 5 images of 30×20 pixels (class 0 67.0%, class 1 25.0%, class 2 8.0%)" in line
    assert "nothing passed over" in line


def test_what_a_path_says():
    assert place_of(Path("train/images/a.png")) == (False, ("train", "a"))
    assert place_of(Path("trainannot/a.png")) == (True, ("train", "a"))
    assert place_of(Path("masks_val/a_mask.png")) == (True, ("validation", "a_mask"))
    assert place_of(Path("length/right.png")) == (False, ("", "length/right"))


def test_binary_masks_palettes_and_grey_images(folder):
    scans(folder / "binary", values=255 * (MASK > 0))
    data = load(folder / "binary")
    assert data.classes == ["background", "foreground"]
    np.testing.assert_array_equal(data.train.masks[0], MASK > 0)

    scans(folder / "palette", values=np.where(MASK == 2, 255, MASK), palette=[7, 7, 7, 200, 0, 0] + 254 * [9, 9, 9])
    data = load(folder / "palette")
    assert data.classes == ["class 0", "class 1"]
    np.testing.assert_array_equal(data.train.masks[0], np.where(MASK == 2, UNLABELLED, MASK.astype(int)))

    for index in range(5):
        save(folder / f"grey/images/{index}.png", image_of(MASK)[..., 0])
        save(folder / f"grey/masks/{index}.png", MASK)
    assert load(folder / "grey").channels == 1


COLOURS = np.array([[0, 0, 0], [10, 200, 30], [200, 100, 0]], np.uint8)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("class_dict.csv", "name,r,g,b\nvoid,0,0,0\nleaf,10,200,30\nbranch,200,100,0\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nvoid:0,0,0::\nleaf:10,200,30::\nbranch:200,100,0::\n"),
        ("label_colors.txt", "0 0 0\tvoid\n10 200 30\tleaf\n200 100 0\tbranch\n"),
        ("classes.txt", "void #000000\nleaf #0ac81e\nbranch #c86400\n"),
    ],
)
def test_colours_and_tables(folder, name, table):
    scans(folder, values=COLOURS[MASK])
    (folder / name).write_text(table)
    data = load(folder)
    assert data.classes == ["leaf", "branch"]
    np.testing.assert_array_equal(data.train.masks[0], np.where(MASK == 0, UNLABELLED, MASK.astype(int) - 1))
    (folder / name).write_text("".join(table.splitlines(keepends=True)[:-1]))
    with refused_in_one_line(
        "the masks hold the colour #c86400, which is none of the 2 classes of its table: add a line"
    ):
        load(folder)


def test_colours_without_a_table_and_names_without_colours(folder):
    scans(folder / "colours", values=COLOURS[MASK])
    assert load(folder / "colours").classes == ["class #000000", "class #0ac81e", "class #c86400"]
    scans(folder / "names")
    (folder / "names/classes.txt").write_text("sky\nroad\nUnlabelled\n")
    data = load(folder / "names")
    assert data.classes == ["sky", "road"]
    np.testing.assert_array_equal(data.train.masks[0], np.where(MASK == 2, UNLABELLED, MASK.astype(int)))
    (folder / "names/classes.txt").write_text("sky\nroad\n")
    with refused_in_one_line("the masks hold the number 2, which is none"):
        load(folder / "names")


def test_objects(folder, capsys):
    scans(folder, values=40 * MASK)
    data = load(folder, objects=True)
    assert (data.classes, data.objects, data.upright) == (["background", "object"], True, False)
    np.testing.assert_array_equal(data.test.masks[0], MASK)
    assert "train 6 images of 30×20 pixels with 12 objects" in capsys.readouterr().err


def test_what_is_passed_over_is_said(folder, capsys):
    scans(folder)
    save(folder / "images/alone.png", image_of(MASK))
    save(folder / "masks/orphan.png", MASK)
    save(folder / "images/odd.png", image_of(MASK[:10]))
    save(folder / "masks/odd.png", MASK)
    (folder / "images/torn.png").write_bytes(b"torn")
    save(folder / "masks/torn.png", MASK)
    (folder / "notes.md").write_text("x")
    assert len(masks_of(load(folder))) == 10
    line = capsys.readouterr().err.splitlines()[-1]
    for reason in (
        "passed over 5", "1 that are no images (notes.md)", "1 without a mask (images/alone.png)",
        "1 masks without an image (masks/orphan.png)", "1 whose mask is of another size (images/odd.png)",
        "1 that cannot be read (images/torn.png)",
    ):  # fmt: skip
        assert reason in line
    assert load(folder).fingerprint == load(folder).fingerprint
    before = load(folder).fingerprint
    save(folder / "masks/0.png", 2 * MASK)
    assert load(folder).fingerprint != before


def test_what_cannot_be_used_is_refused(folder, tmp_path):
    with refused_in_one_line("choose one of auto, dsb2018, camvid, synthetic_cells, the path of a folder"):
        load(folder)
    scans(folder, mask="other/{}.png")
    with refused_in_one_line("holds 20 images and 0 masks, and no mask of the name of an image: put masks in a folder"):
        load(folder)
    with refused_in_one_line("is a file: name the folder"):
        load(folder / "images/0.jpg")
    scans(tmp_path / "few", count=1)
    with refused_in_one_line("1 images with masks are too few"):
        load(tmp_path / "few")
    scans(tmp_path / "one", values=0 * MASK)
    with refused_in_one_line("the masks hold only the class class 0"):
        load(tmp_path / "one")
    with refused_in_one_line("no mask holds two objects"):
        load(tmp_path / "one", objects=True)
    scans(tmp_path / "jpeg", mask="masks/{}.jpg")
    with refused_in_one_line("none of the training images can be used"):
        load(tmp_path / "jpeg")
    many = np.arange(600).reshape(20, 30) % 100
    scans(tmp_path / "many", values=many)
    with refused_in_one_line(
        "the masks hold 100 values, too many for classes: where they number objects, add --objects"
    ):
        load(tmp_path / "many")
    scans(tmp_path / "parts", "val/images/{}.png", "val/masks/{}.png")
    with refused_in_one_line("has images with masks for validation, but none for train"):
        load(tmp_path / "parts")


def test_ragged_images_are_packed(folder):
    rng = np.random.default_rng(0)
    shapes = [(3, 4, 3), (5, 2, 3), (1, 1, 3)]
    images = SegmentedImages(
        [rng.integers(0, 256, shape).astype(np.uint8) for shape in shapes],
        [rng.integers(0, 999, shape[:2]).astype(np.uint16) for shape in shapes],
    )
    for before, after in zip(images, unpacked_images(**packed_images(images)), strict=True):
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)


def test_bundled_cells_without_data(offline, capsys):
    data = load_segmentation("auto", None, "dsb2018", 0.2, test_limit=4)
    assert (
        "WARNING: no dsb2018, training on bundled synthetic_cells instead: no data set 'dsb2018'"
        in capsys.readouterr().err
    )
    assert (data.name, data.classes, data.objects) == ("synthetic_cells", ["background", "cell"], True)
    assert [len(part.masks) for part in (data.train, data.validation, data.test)] == [CELL_COUNTS["train"], 4, 4]
    inside = [pixels[..., 0][mask > 0].mean() - pixels[..., 0][mask == 0].mean() for pixels, mask in
              zip(data.train.pixels, data.train.masks, strict=True)]  # fmt: skip
    assert min(inside) > 10


def test_nuclei_and_road_scenes():
    directory = directory_with("raw/camvid")
    nuclei = load_segmentation("dsb2018", directory, "dsb2018", 0.2)
    parts = (nuclei.train, nuclei.validation, nuclei.test)
    assert [len(part.masks) for part in parts] == [423, 60, 57]
    assert sum(len(np.unique(mask)) - 1 for part in parts for mask in part.masks) == 23082
    assert (nuclei.channels, nuclei.objects, nuclei.upright) == (1, True, False)
    roads = load_segmentation("camvid", directory, "dsb2018", 0.2)
    assert [len(part.masks) for part in (roads.train, roads.validation, roads.test)] == [367, 101, 233]
    assert (len(roads.classes), roads.classes[0], roads.classes[-1]) == (11, "Sky", "Bicyclist")
    assert {np.unique(mask)[-1] for mask in roads.train.masks} <= {8, 9, 10, UNLABELLED}
    assert (roads.channels, roads.upright) == (3, True)


def coco(folder, **annotation):
    """A folder of images with two categories and, in each image, two rectangles as polygons."""
    shapes = {3: [5, 5, 20, 5, 20, 15, 5, 15], 8: [22, 10, 28, 10, 28, 18, 22, 18]}
    content = {
        "categories": [{"id": 3, "name": "leaf"}, {"id": 8, "name": "branch"}],
        "images": [{"id": n, "file_name": f"{n}.png", "width": 30, "height": 20} for n in range(8)],
        "annotations": [
            {"image_id": n, "category_id": kind, "segmentation": [points]} | annotation
            for n in range(8) for kind, points in shapes.items()
        ],
    }  # fmt: skip
    for number in range(8):
        save(folder / f"{number}.png", image_of(MASK))
    (folder / "annotations.json").write_text(json.dumps(content))


def test_polygons_of_coco(folder, capsys):
    coco(folder)
    data = load(folder)
    assert data.classes == ["background", "leaf", "branch"]
    for mask in masks_of(data):
        np.testing.assert_array_equal(mask, MASK)
    assert "in the format of COCO's json; nothing passed over" in capsys.readouterr().err
    data = load(folder, objects=True)
    assert data.classes == ["background", "object"]
    np.testing.assert_array_equal(data.train.masks[0], MASK)
    coco(folder, segmentation={"counts": [3, 4], "size": [20, 30]})
    with refused_in_one_line("annotations.json has no polygons"):
        load(folder)
