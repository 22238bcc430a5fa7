"""Folders of images with boxes, as people have them: YOLO's text files and COCO's json."""

import json

import numpy as np
import pytest
from PIL import Image

from shared.data.detection.datasets import load_detection
from shared.data.detection.folders import folder_fingerprint
from shared.errors import UsageError

pytestmark = pytest.mark.once

BOX = (30, 20, 70, 60)
LINE = "1 0.25 0.4 0.2 0.4\n"
"""`BOX` in a picture of 200×100."""


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_RECIPES_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def paint(path, mode="RGB", **keywords):
    """Writes a dark picture of 200×100 with a light rectangle at `BOX`."""
    picture = Image.new("L", (200, 100), 40)
    picture.paste(255, BOX)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.convert(mode).save(path, **keywords)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


def yolo(folder, names=("a", "b"), count=10):
    """A folder of pictures beside which lie their text files."""
    write(folder / "classes.txt", "\n".join(names))
    for index in range(count):
        paint(folder / f"{index}.png")
        write(folder / f"{index}.txt", LINE)


def coco(names, pictures=(), annotations=(), **image):
    """What a json file of COCO's holds; an annotation is (image, category, box as left, top, right, bottom)."""
    return {
        "images": [{"id": 50 + index, "file_name": name} | image for index, name in enumerate(pictures)],
        "categories": [{"id": 7 * index + 1, "name": name} for index, name in enumerate(names)],
        "annotations": [
            {"image_id": 50 + picture, "category_id": category, "bbox": [left, top, right - left, bottom - top]}
            for picture, category, (left, top, right, bottom) in annotations
        ],
    }


def load(folder, **keywords):
    return load_detection(str(folder), None, "bccd", **{"validation": 0.25, "size": 100} | keywords)


def all_parts(data):
    return [data.train, data.validation, data.test]


def check(data, count, classes=("a", "b"), label=1):
    """Each of so many images has one box, and that is where the light is."""
    assert (data.name, data.classes) == ("folder", list(classes))
    assert sum(len(part.images) for part in all_parts(data)) == count
    for part in all_parts(data):
        for image, boxes, labels in zip(*part[:3], strict=True):
            assert labels[labels >= 0].tolist() == [label]
            boxes = boxes[labels >= 0]
            np.testing.assert_allclose(boxes, [[15, 35, 35, 55]], atol=1e-4)
            light = image.min(axis=-1) > 150
            assert light[36:54, 16:34].all()
            assert light.sum() <= 22 * 22


LAYOUTS = {
    "images/train and labels/train": ("images/{part}/{name}.png", "labels/{part}/{name}.txt", "val"),
    "train/images and train/labels": ("{part}/images/{name}.png", "{part}/labels/{name}.txt", "valid"),
    "images/train2017": ("images/{part}2017/{name}.png", "labels/{part}2017/{name}.txt", "val"),
    "beside each other": ("{part}/{name}.png", "{part}/{name}.txt", "val"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("names", ["names: [a, b]", "nc: 2\nnames:\n  1: b\n  0: a\n"])
def test_parts_by_folders_of_their_names(folder, layout, names):
    picture, text, validation = LAYOUTS[layout]
    write(folder / "data.yaml", names)
    for part, count in {"train": 5, validation: 2, "test": 3}.items():
        for index in range(count):
            paint(folder / picture.format(part=part, name=index))
            write(folder / text.format(part=part, name=index), LINE)
    data = load(folder)
    check(data, 10)
    assert [len(part.images) for part in all_parts(data)] == [5, 2, 3]


def test_parts_that_data_yaml_declares(folder, capsys):
    for day, count in {"monday": 4, "tuesday": 3, "friday": 2}.items():
        for index in range(count):
            paint(folder / "images" / day / f"{day}{index}.png")
            write(folder / "labels" / day / f"{day}{index}.txt", LINE)
    write(folder / "listed.txt", "./images/friday/friday0.png\nimages/friday/friday1.png\n")
    settings = "path: /content/elsewhere\ntrain: ../images/monday\n"
    settings += "val: [images/tuesday/tuesday0.png, images/tuesday, images/lost]\n"
    write(folder / "data.yaml", settings + "test: listed.txt\nnames: [a, b]")
    data = load(folder)
    check(data, 9)
    assert [len(part.images) for part in all_parts(data)] == [4, 3, 2]
    assert "1 entries of data.yaml that are not in the folder (images/lost)" in capsys.readouterr().err
    write(folder / "data.yaml", "train: images\nval: images\nnames: [a, b]")
    assert [len(part.images) for part in all_parts(load(folder))] == [5, 2, 2], "no image is in two parts"


def test_parts_are_split_off_once_and_for_all(folder):
    yolo(folder, count=20)
    for index in range(20):
        Image.new("L", (20, 20), 10 * index).save(folder / f"{index}.png")
    first, again, fewer = load(folder), load(folder), load(folder, limit=3)
    assert [len(part.images) for part in all_parts(first)] == [12, 4, 4]
    for one, other in zip(all_parts(first), all_parts(again), strict=True):
        np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(fewer.train.images, first.train.images[:3])
    np.testing.assert_array_equal(fewer.test.images, first.test.images)
    levels = [image.mean().round() for part in all_parts(first) for image in part.images]
    assert len(set(levels)) == 20
    assert levels != sorted(levels)


def test_a_validation_part_without_a_test_part_becomes_the_test_part(folder):
    yolo(folder, count=0)
    for part, count in {"train": 8, "val": 3}.items():
        for index in range(count):
            paint(folder / part / f"{index}.png")
            write(folder / part / f"{index}.txt", LINE)
    assert [len(part.images) for part in all_parts(load(folder))] == [6, 2, 3]


def test_all_sorts_of_pictures(folder, capsys):
    write(folder / "classes.txt", "a\nb\n")
    kinds = [("RGB", "jpg"), ("L", "png"), ("RGBA", "png"), ("P", "gif"), ("CMYK", "jpg"), ("LA", "png")]
    for index, (mode, suffix) in enumerate(kinds * 2):
        paint(folder / "images" / f"{index}.{suffix}", mode)
        write(folder / "labels" / f"{index}.txt", LINE)
    for name, content in {"torn.jpg": (folder / "images" / "0.jpg").read_bytes()[:300], "empty.png": b""}.items():
        (folder / "images" / name).write_bytes(content)
    write(folder / "images" / "notes.md", "not an image")
    check(load(folder), 12)
    said = capsys.readouterr().err
    assert "passed over 2: 2 pictures that cannot be read (images/" in said
    assert "2 pictures without a text file, and so without boxes" in said


def test_boxes_belong_to_a_picture_as_it_is_shown(folder):
    yolo(folder, count=4)
    turned = Image.open(folder / "0.png").transpose(Image.Transpose.ROTATE_90)
    (folder / "0.png").unlink()
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by a quarter clockwise
    turned.save(folder / "0.jpg", exif=exif, quality=95)
    check(load(folder), 4)


def test_images_without_boxes_and_with_hundreds(folder, capsys):
    yolo(folder, count=6)
    (folder / "0.txt").unlink()
    write(folder / "1.txt", "")
    write(folder / "2.txt", "".join(f"0 {0.001 * index + 0.1} 0.5 0.1 0.1\n" for index in range(300)))
    data = load(folder)
    counts = [int((labels >= 0).sum()) for part in all_parts(data) for labels in part.labels]
    assert sorted(counts) == [0, 0, 1, 1, 1, 300]
    for part in all_parts(data):
        np.testing.assert_array_equal((part.boxes == 0).all(axis=-1), part.labels == -1)
    assert "1 pictures without a text file, and so without boxes" in capsys.readouterr().err


def test_lines_that_are_no_boxes_are_named(folder, capsys):
    yolo(folder, count=6)
    lines = [
        LINE.strip(),
        "1 0.5 0.5",
        "hello world",
        "1 nan 0.5 0.1 0.1",
        "1 0.5 0.5 0.1 0.1 0.99",
        "",
        "1 0.5 x 0.1 1",
    ]
    write(folder / "3.txt", "\n".join(lines))
    check(load(folder), 6)
    said = capsys.readouterr().err
    assert (
        "passed over 5: 1 lines that are not a class and four numbers, or an outline (3.txt:2: 1 0.5 0.5); "
        "2 lines that are not numbers (3.txt:3: hello world, …); "
        "1 lines with a number that is not finite (3.txt:4: 1 nan 0.5 0.1 0.1); "
        "1 lines with a sixth number: predictions with their confidence? leave it out "
        "(3.txt:5: 1 0.5 0.5 0.1 0.1 0.99)\n"
    ) in said


def test_boxes_outside_and_without_area_are_counted(folder, capsys):
    yolo(folder, count=6)
    bad = ["0 1.5 0.5 0.1 0.1", "0 0.5 0.5 0 0.1", "0 0.5 0.5 -0.1 0.1", "0 0.5 0.5 0.2 0.0"]
    write(folder / "0.txt", LINE + "\n".join(bad))
    write(folder / "1.txt", "1 0.95 0.5 0.2 0.4\n")
    data = load(folder)
    assert sum(int((part.labels >= 0).sum()) for part in all_parts(data)) == 6
    right = [boxes for part in all_parts(data) for boxes in part.boxes[:, 0] if boxes[0] > 50]
    np.testing.assert_allclose(right, [[85, 40, 100, 60]], atol=1e-4)
    said = capsys.readouterr().err
    assert (
        "1 boxes clipped to their image; passed over 4: 4 boxes of no area inside their image (290 45 310 55, …)"
        in said
    )


def test_outlines_become_boxes(folder):
    yolo(folder, count=5)
    write(folder / "2.txt", "1 0.15 0.2 0.35 0.3 0.2 0.6")
    check(load(folder), 5)


def test_one_class_only(folder):
    yolo(folder, names=["cell"], count=5)
    for index in range(5):
        write(folder / f"{index}.txt", LINE.replace("1", "0", 1))
    check(load(folder), 5, ["cell"], 0)


@pytest.mark.parametrize(("label", "named"), [("2", "2"), ("-1", "-1"), ("cow", "cow"), ("1.5", "1.5")])
def test_a_class_that_does_not_exist(folder, label, named):
    yolo(folder, count=5)
    write(folder / "3.txt", LINE + f"{label} 0.5 0.5 0.1 0.1\n")
    with pytest.raises(UsageError) as caught:
        load(folder)
    assert str(caught.value).startswith(f"{folder / '3.txt'}:2: class {named} is not among the 2 classes of ")
    assert str(folder / "classes.txt") in str(caught.value)


@pytest.mark.parametrize("label", ["1.0", "b", "01"])
def test_other_ways_to_write_a_class(folder, label):
    yolo(folder, count=5)
    write(folder / "3.txt", LINE.replace("1", label, 1))
    check(load(folder), 5)


def test_digits_as_names_do_not_hide_numbers(folder):
    yolo(folder, names=["1", "2"], count=5)
    check(load(folder), 5, ["1", "2"], 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "holds no images for training"),
        (lambda folder: paint(folder / "0.png"), "holds 1 images but no annotations in a known format"),
        (lambda folder: write(folder / "classes.txt", "a\nb"), "holds no images for training"),
        (lambda folder: write(folder / "classes.txt", "\n"), "names no classes"),
        (lambda folder: write(folder / "data.yaml", "names: {a: 1}"), "names must list the classes"),
        (lambda folder: write(folder / "data.yaml", "names: [a"), "cannot be read as yaml"),
        (lambda folder: write(folder / "boxes.json", "{"), "cannot be read as json"),
        (lambda folder: write(folder / "boxes.json", {"images": []}), "holds no images for training"),
        (lambda folder: write(folder / "boxes.json", coco(["a"])), "holds no images for training"),
        (
            lambda folder: [paint(folder / "0.png"), write(folder / "val.json", coco(["a"]))],
            "no json file for training names a class",
        ),
        (lambda folder: write(folder / "boxes.json", coco([]) | {"categories": [{}]}), "needs an id and a name"),
        (lambda folder: [yolo(folder), *[path.unlink() for path in folder.glob("?.txt")]], "no text files found in"),
        (lambda folder: [yolo(folder), *[path.write_text("") for path in folder.glob("?.txt")]], "images has a box"),
        (lambda folder: [yolo(folder), *[path.write_text("") for path in folder.glob("*.png")]], "images can be used"),
        (lambda folder: yolo(folder, count=2), "it takes more images"),
    ],
)
def test_folders_that_cannot_be_used(folder, make, message):
    make(folder)
    with pytest.raises(UsageError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_folder_that_is_not_there(folder):
    with pytest.raises(UsageError, match="and no folder of that name"):
        load(folder / "missing")


def test_a_changed_label_is_noticed(folder):
    yolo(folder, count=5)
    before = load(folder)
    for index in range(5):
        write(folder / f"{index}.txt", LINE.replace("1", "0", 1))
    after = load(folder)
    assert {label for part in all_parts(after) for label in part.labels.ravel()} == {0}
    assert after.fingerprint != before.fingerprint
    assert folder_fingerprint(folder, 100) == after.fingerprint != folder_fingerprint(folder, 96)


@pytest.mark.parametrize("pictures", ["", "images", "deep/below"])
def test_coco_in_one_file(folder, pictures, capsys):
    names = [f"{index}.png" for index in range(6)]
    for name in names:
        paint(folder / pictures / name)
    content = coco(["a", "b"], names, [(index, 8, BOX) for index in range(6)], width=200, height=100)
    content["annotations"].append(content["annotations"][0] | {"iscrowd": 1, "bbox": [0, 0, 9, 9]})
    write(folder / "boxes.json", content)
    check(load(folder), 6)
    assert "1 crowds (iscrowd) ignored" in capsys.readouterr().err


def test_coco_in_several_files(folder):
    """Pictures of one name in several parts, numbers that differ between files, keypoints that repeat the boxes."""
    for part, count in {"train": 5, "val": 2, "test": 3}.items():
        names = [f"{index}.png" for index in range(count)]
        for name in names:
            paint(folder / f"{part}2017" / name)
        annotations = [(index, 8 if part == "train" else 1, BOX) for index in range(count)]
        content = coco(["a", "b"] if part == "train" else ["b", "a"], names, annotations)
        write(folder / "annotations" / f"instances_{part}2017.json", content)
        write(folder / "annotations" / f"person_keypoints_{part}2017.json", content)
        write(folder / "annotations" / f"captions_{part}2017.json", {"images": [], "annotations": []})
    data = load(folder)
    check(data, 10)
    assert [len(part.images) for part in all_parts(data)] == [5, 2, 3]


def test_coco_beside_the_pictures_of_each_part(folder):
    for part, count in {"train": 5, "valid": 2, "test": 3}.items():
        names = [f"{index}.png" for index in range(count)]
        for name in names:
            paint(folder / part / name)
        write(folder / part / "_annotations.coco.json", coco(["a", "b"], names, [(i, 8, BOX) for i in range(count)]))
    data = load(folder)
    check(data, 10)
    assert [len(part.images) for part in all_parts(data)] == [5, 2, 3]


def test_two_coco_files_annotate_the_same_pictures(folder):
    names = [f"{index}.png" for index in range(6)]
    for name in names:
        paint(folder / name)
    write(folder / "cats.json", coco(["cat"], names, [(index, 1, BOX) for index in range(6)]))
    write(folder / "dogs.json", coco(["dog"], names[:4], [(index, 1, (100, 10, 150, 50)) for index in range(4)]))
    data = load(folder)
    assert data.classes == ["cat", "dog"]
    labels = [labels[labels >= 0].tolist() for part in all_parts(data) for labels in part.labels]
    assert sorted(labels) == [[0], [0], [0, 1], [0, 1], [0, 1], [0, 1]]


def test_coco_of_pictures_that_were_made_smaller(folder, capsys):
    names = [f"{index}.png" for index in range(6)]
    for name in names:
        paint(folder / name)
    content = coco(["a", "b"], names, [(i, 8, [4 * side for side in BOX]) for i in range(6)], width=800, height=400)
    content["images"][5] |= {"width": 400, "height": 800}
    write(folder / "boxes.json", content)
    check(load(folder), 5)
    said = capsys.readouterr().err
    assert "5 pictures of another size than their annotations, whose boxes are scaled" in said
    assert "(5.png: it is 200×100, but its annotations are for 400×800)" in said


def test_entries_of_coco_that_cannot_be_used_are_named(folder, capsys):
    names = [f"{index}.png" for index in range(6)]
    for name in names:
        paint(folder / name)
    content = coco(["a", "b"], names, [(index, 8, BOX) for index in range(6)])
    good = content["annotations"][0]
    bad = [{"bbox": [1, 2, 3]}, {"bbox": [1, 2, float("nan"), 4]}, {"image_id": 999}, {"bbox": None}, {"image_id": [1]}]
    content["annotations"] += [good | change for change in bad] + [None, {"image_id": 50}]
    content["images"] += [{"id": 1}, {"id": 2, "file_name": "lost.png"}, "?", {"id": [3], "file_name": "0.png"}]
    write(folder / "boxes.json", content)
    check(load(folder), 6)
    said = capsys.readouterr().err
    assert "5 annotations without a bbox of four numbers or an outline, a category_id or an image_id (annot" in said
    assert "2 annotations whose image_id no image has (annotations[8] of boxes.json, …)" in said
    assert "3 images without an id or a file_name" in said
    assert "1 images that are not in the folder (images[7] of boxes.json: lost.png)" in said
    assert "passed over 11: " in said


@pytest.mark.parametrize(("category", "named"), [(99, "number 99"), (None, "number None")])
def test_a_category_that_does_not_exist(folder, category, named):
    paint(folder / "0.png")
    write(folder / "boxes.json", coco(["a"], ["0.png"], [(0, 1, BOX), (0, category, BOX)]))
    with pytest.raises(UsageError, match=rf"boxes\.json: annotations\[1\]: class {named} is not among the 1"):
        load(folder)


def test_a_category_that_training_does_not_have(folder):
    for part, name in {"train": "a", "test": "cow"}.items():
        paint(folder / part / "0.png")
        write(folder / part / "boxes.json", coco([name], ["0.png"], [(0, 1, BOX)]))
    with pytest.raises(UsageError, match=r"test/boxes\.json: annotations\[0\]: class cow is not among the 1"):
        load(folder)


def test_a_picture_is_in_one_part_only(folder, capsys):
    names = [f"{index}.png" for index in range(6)]
    for name in names:
        paint(folder / "images" / name)
    for part, its_names in {"train": names, "test": names[4:]}.items():
        annotations = [(index, 8, BOX) for index in range(len(its_names))]
        write(folder / f"{part}.json", coco(["a", "b"], its_names, annotations))
    check(load(folder), 6)
    assert "2 pictures of test.json that are in another part too (images/4.png, …)" in capsys.readouterr().err
