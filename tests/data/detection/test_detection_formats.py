"""Images with boxes in every format that labelling tools write, as people have them, and what is said of them."""

import json
import random
import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw

from shared.data.detection.datasets import find_detection, load_detection
from shared.errors import UsageError

pytestmark = pytest.mark.once

SIZE = (60, 40)
CLASSES = ("red", "blue")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_RECIPES_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def write(path, content, encoding="utf-8"):
    """Writes bytes, text, or JSON."""
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode(encoding)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def paint(path, number, **keywords):
    """A grey picture with a rectangle in the colour of its class; returns the class and the box."""
    rng = np.random.default_rng(number)
    left, top = (int(side) for side in rng.integers(2, 18, 2))
    right, bottom = left + int(rng.integers(15, 35)), top + int(rng.integers(12, 20))
    picture = Image.new("RGB", SIZE, (90, 90, 90))
    ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), fill=CLASSES[number % 2])
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **keywords)
    return CLASSES[number % 2], (left, top, right, bottom)


def yolo_line(name, box, after=""):
    left, top, right, bottom = np.array(box) / [*SIZE, *SIZE]
    middle = (left + right) / 2, (top + bottom) / 2
    return f"{CLASSES.index(name)} {middle[0]:.6f} {middle[1]:.6f} {right - left:.6f} {bottom - top:.6f}{after}\n"


def yolo(
    folder, images="images", labels="labels", names="names: [red, blue]", line=yolo_line, count=8, encoding="utf-8"
):
    if names:
        write(folder / "data.yaml", names)
    for number in range(count):
        write(folder / labels / f"{number}.txt", line(*paint(folder / images / f"{number}.png", number)), encoding)


def voc_xml(name, box, difficult=0, more=""):
    edges = "".join(
        f"<{edge}>{side}</{edge}>" for edge, side in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return (
        f"<annotation><filename>stale.jpg</filename><size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>{more}"
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{edges}</bndbox></object></annotation>"
    )


def voc(folder, images=".", labels=".", count=8, **keywords):
    for number in range(count):
        write(folder / labels / f"{number}.xml", voc_xml(*paint(folder / images / f"{number}.png", number), **keywords))


def labelme(folder, kind="rectangle", count=8):
    for number in range(count):
        name, (left, top, right, bottom) = paint(folder / f"{number}.png", number)
        points = {
            "rectangle": [[right, bottom], [left, top]],
            "polygon": [[left, top], [right, top], [right, bottom], [left, bottom]],
        }[kind]
        shapes = [{"label": name, "points": points, "shape_type": kind}]
        path = f"..\\images\\{number}.png"
        write(folder / f"{number}.json", {"shapes": shapes, "imagePath": path, "imageWidth": 60, "imageHeight": 40})


def coco(folder, name="instances.json", images="images", count=8, change=lambda content: content, encoding="utf-8"):
    content = {"images": [], "annotations": [], "categories": [{"id": 5, "name": "red"}, {"id": 9, "name": "blue"}]}
    for number in range(count):
        label, (left, top, right, bottom) = paint(folder / images / f"{number}.png", number)
        image = {"id": number, "file_name": f"{number}.png", "width": SIZE[0], "height": SIZE[1]}
        content["images"].append(image)
        entry = {"image_id": number, "category_id": {"red": 5, "blue": 9}[label]}
        content["annotations"].append(entry | {"bbox": [left, top, right - left, bottom - top]})
    write(folder / name, change(content), encoding)


def cvat(folder, count=8):
    images = ""
    for number in range(count):
        label, (left, top, right, bottom) = paint(folder / "images" / f"{number}.png", number)
        box = f'<box label="{label}" xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}"/>'
        if number % 3 == 0:
            points = f"{left},{top};{right},{top};{right},{bottom};{left},{bottom}"
            box = f'<polygon label="{label}" points="{points}"/>'
        images += f'<image id="{number}" name="sub/{number}.png" width="60" height="40">{box}</image>'
    write(folder / "annotations.xml", f"<annotations><version>1.1</version>{images}</annotations>")


def table(folder, header="filename,width,height,class,xmin,ymin,xmax,ymax", separator=",", count=8):
    rows = [header.replace(",", separator)]
    for number in range(count):
        label, box = paint(folder / f"{number}.png", number)
        rows.append(separator.join(map(str, [f"{number}.png", *SIZE, label, *box])))
    write(folder / "_annotations.csv", "\n".join(rows))


def load(place, **keywords):
    return load_detection(str(place), None, "bccd", **{"validation": 0.2, "size": 60} | keywords)


def check(data, count=8):
    """Each image has one box, around its rectangle and of its class."""
    assert sorted(data.classes) == sorted(CLASSES)
    parts = [data.train, data.validation, data.test]
    assert sum(len(part.images) for part in parts) == count
    for part in parts:
        for index in range(len(part.images)):
            image, one = part.images[index].astype(int), part.one(index)
            ink = np.abs(image[..., 0] - image[..., 2]) > 100
            rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
            name = "red" if image[ink][:, 0].mean() > 128 else "blue"
            assert [data.classes[label] for label in one.labels] == [name]
            np.testing.assert_allclose(one.boxes, [[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], atol=0.01)


def numbered_line(numbers):
    """Makes lines in which these numbers stand for the classes."""
    return lambda name, box: numbers[CLASSES.index(name)] + yolo_line(name, box)[1:]


def outline(name, box):
    left, top, right, bottom = np.array(box) / [*SIZE, *SIZE]
    return f"{CLASSES.index(name)} {left} {top} {right} {top} {right} {bottom} {left} {bottom}\n"


def darknet(folder):
    """As CVAT's "YOLO 1.1"."""
    yolo(folder, "obj_train_data", "obj_train_data", names=None)
    write(folder / "obj.names", "red\nblue\n")
    write(folder / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    write(folder / "train.txt", "".join(f"data/obj_train_data/{number}.png\n" for number in range(8)))


def ultralytics(folder):
    yolo(
        folder,
        "images/train",
        "labels/train",
        names="path: /elsewhere\ntrain: train.txt\nnames:\n  0: red\n  1: blue\n",
    )
    write(folder / "train.txt", "".join(f"data/images/train/{number}.png\r\n" for number in range(8)))


def of_voc_itself(folder):
    voc(folder, "JPEGImages", "Annotations")
    write(folder / "ImageSets/Main/trainval.txt", "0\n1\n2\n3\n4\n5\n")
    write(folder / "ImageSets/Main/val.txt", "4\n5\n")
    write(folder / "ImageSets/Main/test.txt", "6\n7\n")


def outlines_without_boxes(content):
    for entry in content["annotations"]:
        left, top, width, height = entry.pop("bbox")
        entry["segmentation"] = [[left, top, left + width, top], [left + width, top + height, left, top + height]]
    return content


def ids_as_text(content):
    for entry in content["annotations"]:
        entry |= {"image_id": str(entry["image_id"]), "category_id": str(entry["category_id"])}
    return content


KINDS = {
    "yolo": yolo,
    "pictures in another folder": lambda folder: yolo(folder, "pictures"),
    "labels in another folder": lambda folder: yolo(folder, labels="annotations"),
    "capital letters": lambda folder: yolo(folder, "Images", "Labels"),
    "byte order marks": lambda folder: yolo(folder, encoding="utf-8-sig"),
    "utf-16": lambda folder: yolo(folder, encoding="utf-16"),
    "names from 1": lambda folder: yolo(folder, names="names: {1: red, 2: blue}", line=numbered_line("12")),
    "names with gaps": lambda folder: yolo(folder, names="names:\n  0: red\n  7: blue", line=numbered_line("07")),
    "two keypoints": lambda folder: yolo(
        folder, names="kpt_shape: [2, 2]\nnames: [red, blue]", line=lambda *of: yolo_line(*of, " 0.01 0.01 0.9 0.9")
    ),
    "keypoints with visibility": lambda folder: yolo(
        folder, names="kpt_shape: [2, 3]\nnames: [red, blue]", line=lambda *of: yolo_line(*of, " 0.01 0.01 2 0.9 0.9 1")
    ),
    "outlines": lambda folder: yolo(folder, line=outline),
    "cvat yolo": darknet,
    "cvat ultralytics": ultralytics,
    "classes.txt with a mark": lambda folder: [
        yolo(folder, ".", ".", None), write(folder / "classes.txt", "red\nblue\n", "utf-8-sig"),
    ],
    "voc": voc,
    "voc in its folders": of_voc_itself,
    "labelme": labelme,
    "labelme polygons": lambda folder: labelme(folder, "polygon"),
    "cvat": cvat,
    "csv": table,
    "csv of a spreadsheet": lambda folder: table(folder, "File Name,Width,Height,Label,x_min,y_min,x_max,y_max", ";"),
    "coco": coco,
    "coco with a mark": lambda folder: coco(folder, encoding="utf-8-sig"),
    "coco in utf-16": lambda folder: coco(folder, encoding="utf-16"),
    "coco without boxes": lambda folder: coco(folder, change=outlines_without_boxes),
    "coco with numbers as text": lambda folder: coco(folder, change=ids_as_text),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_are_where_the_objects_are(folder, kind):
    KINDS[kind](folder)
    check(load(folder))


@pytest.mark.parametrize("kind", ["yolo", "coco", "voc"])
def test_what_systems_and_tools_leave_is_not_in_the_way(folder, kind, capsys):
    inner = folder / "a folder level too many"
    KINDS[kind](inner)
    apple = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(range(128, 200))
    for name in ("._data.yaml", "._0.json", "images/._0.png", "._0.xml", "labels/._0.txt", ".ipynb_checkpoints/0.json"):
        write(inner / name, apple)
    write(folder / "__MACOSX" / "._data.yaml", apple)
    write(folder / ".DS_Store", apple)
    write(inner / "notes.json", "{'not': json}")
    write(inner / "other.json", {"info": "of another tool"})
    check(load(folder))
    said = capsys.readouterr().err
    assert "1 folder level too many (a folder level too many)" in said
    assert "notes.json" in said
    assert "._" not in said


@pytest.mark.parametrize(
    "names", [("Train", "VAL", "Test"), ("training", "validation", "testing"), ("train", "dev", "test")]
)
def test_usual_names_of_parts_in_any_case(folder, names):
    for name, count in zip(names, (5, 2, 3), strict=True):
        yolo(folder, f"{name}/images", f"{name}/labels", count=count)
    data = load(folder)
    assert [len(part.images) for part in (data.train, data.validation, data.test)] == [5, 2, 3]
    check(data, 10)


def test_the_parts_of_voc(folder):
    of_voc_itself(folder)
    data = load(folder)
    assert [len(part.images) for part in (data.train, data.validation, data.test)] == [4, 2, 2]


def test_a_text_file_of_another_part_is_not_taken(folder):
    yolo(folder, "train/pictures", "train/notes")
    yolo(folder, "val/pictures", "val/notes")
    (folder / "train/notes/3.txt").unlink()
    data = load(folder)
    assert (data.train.labels >= 0).sum() + (data.validation.labels >= 0).sum() == 7
    assert (data.test.labels >= 0).sum() == 8


@pytest.mark.parametrize("place", [".", "../photos", "../photos/../photos/", "../photos/data.yaml"])
def test_folders_by_relative_paths(folder, monkeypatch, place):
    ultralytics(folder)
    write(folder.parent / "train.txt", "images/train/0.png")
    monkeypatch.chdir(folder)
    check(load(place))


def test_the_file_of_annotations_itself_is_given(folder):
    yolo(folder)
    coco(folder, "boxes.json")
    write(folder / "other.yaml", "names: [cat, dog]")
    assert load(folder / "data.yaml").classes == ["red", "blue"]
    assert load(folder / "other.yaml").classes == ["cat", "dog"]
    check(load(folder / "boxes.json"))


def test_difficult_objects_and_crowds_are_carried_to_the_metric(folder, capsys):
    voc(folder / "voc", count=6)
    for number in (6, 7):
        label, box = paint(folder / "voc" / f"{number}.png", number)
        write(folder / "voc" / f"{number}.xml", voc_xml(label, box, difficult=1))
    data = load(folder / "voc", validation=0.3)
    parts = [part for part in (data.train, data.validation, data.test) if part.difficult is not None]
    assert sum((part.difficult >= 0).sum() for part in parts) == 2
    assert "difficult objects ignored" in capsys.readouterr().err

    def crowded(content):
        for entry in content["annotations"][:2]:
            entry["iscrowd"] = 1
        return content

    coco(folder / "coco", change=crowded)
    data = load(folder / "coco")
    assert sum((part.crowds >= 0).sum() for part in (data.train, data.validation, data.test)) == 2
    assert "crowds (iscrowd) ignored" in capsys.readouterr().err
    coco(folder / "all", change=lambda content: content | {
        "annotations": [entry | {"iscrowd": 1} for entry in content["annotations"]]
    })  # fmt: skip
    with pytest.raises(UsageError, match="all 8 are marked as crowds, as tools do with masks drawn with a brush"):
        load(folder / "all")


def test_one_line_says_what_was_found(folder, capsys):
    yolo(folder, count=10)
    (folder / "images" / "9.png").write_bytes(b"torn")
    write(folder / "labels" / "8.txt", "0 0.5 0.5\n1 0.5 0.5\n")
    for _ in range(2):  # from the folder, then from the cache
        load(folder, limit=3)
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("--data")]
        assert len(lines) == 1
        for part in ("train", "validation (drawn from train)", "test (drawn from train)"):
            assert f"{part} " in lines[0]
        assert "boxes (" in lines[0]
        assert ", the first 3 images used; " in lines[0]
        assert "in the format of YOLO's text files" in lines[0]
        assert "passed over 3: " in lines[0]
        assert "1 pictures that cannot be read (images/9.png" in lines[0]
        assert "2 lines that are not a class and four numbers, or an outline (labels/8.txt:1: 0 0.5 0.5, …)" in lines[0]


def as_pixels(name, box):
    return f"{CLASSES.index(name)} {box[0]} {box[1]} {box[2] - box[0]} {box[3] - box[1]}\n"


def as_fractions(content):
    for entry in content["annotations"]:
        entry["bbox"] = [side / 100 for side in entry["bbox"]]
    return content


def turned(folder):
    coco(folder)
    for path in (folder / "images").iterdir():
        with Image.open(path) as file:
            exif = file.getexif()
            exif[0x0112] = 6
            file.save(path, exif=exif)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: yolo(folder, line=as_pixels), "numbers above 1: are they pixels"),
        (lambda folder: yolo(folder, line=lambda *of: yolo_line(*of).replace(" ", ",")), "8 lines with commas"),
        (lambda folder: yolo(folder, line=lambda *of: yolo_line(*of).replace(".", ",")), "8 lines with commas"),
        (lambda folder: yolo(folder, line=lambda *of: yolo_line(*of, " 0.9")), "predictions with their confidence"),
        (lambda folder: yolo(folder, line=lambda *of: yolo_line(*of, " 0.1 0.1 2 0.9 0.9 1")), "of keypoints"),
        (
            lambda folder: yolo(folder, names="kpt_shape: [17, 3]\nnames: [red, blue]", line=outline),
            "lines of other than 56 numbers",
        ),
        (
            lambda folder: yolo(folder, line=numbered_line("12")),
            "are they numbered from 1",
        ),
        (lambda folder: [yolo(folder), shutil.rmtree(folder / "labels")], "no text files found in"),
        (lambda folder: yolo(folder, names=None), "nothing names the classes"),
        (lambda folder: yolo(folder, names="names: red, blue"), "names must list the classes"),
        (lambda folder: yolo(folder, names="kpt_shape: yes\nnames: [red, blue]"), "kpt_shape must be two numbers"),
        (
            lambda folder: [
                yolo(folder, names=None), write(folder / "classes.txt", "röd\nblue", "latin-1"),
            ],
            "classes.txt, line 1: byte 0xf6 is not UTF-8",
        ),
        (lambda folder: coco(folder, change=as_fractions), "are they fractions of the picture's sides"),
        (
            lambda folder: coco(folder, change=lambda content: {key: content[key] for key in ("images", "categories")}),
            "but for the list annotations",
        ),
        (turned, "it is 40×60 as its EXIF data turn it, but its annotations are for 60×40"),
        (lambda folder: table(folder, "filename,w,h,class,xmin,ymin,xmax,y"), "has no column ymax"),
        (lambda folder: paint(folder / "0.png", 0), "holds 1 images but no annotations in a known format"),
        (lambda folder: [paint(folder / "0.png", 0), write(folder / "a.json", [])], "a.json is none of them"),
    ],
)  # fmt: skip
def test_the_cause_is_named_in_one_line(folder, make, message):
    make(folder)
    with pytest.raises(UsageError) as caught:
        load(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["set.zip", "notes.txt"])
def test_a_file_that_holds_no_annotations(folder, name):
    yolo(folder)
    write(folder / name, b"PK\3\4")
    with pytest.raises(UsageError, match=f"{name} is a file: name a folder of images with boxes"):
        load(folder / name)


@pytest.mark.parametrize("kind", ["yolo", "cvat yolo", "coco", "voc in its folders", "labelme", "cvat", "csv"])
def test_no_file_that_decides_can_change_unseen(folder, kind):
    """Of every file a byte is changed, and two are swapped; sizes and times stay as they were."""
    KINDS[kind](folder)

    def fingerprint():
        return find_detection(str(folder), folder, 60)[1]

    before, seen = fingerprint(), set()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert {path.suffix for path in files} > {".png"}
    for path in files:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        seen.add(fingerprint())
        path.write_bytes(content)
    assert len(seen - {before}) == len(files)
    for suffix in {path.suffix for path in files if sum(other.suffix == path.suffix for other in files) > 1}:
        one, *_, other = [path for path in files if path.suffix == suffix]
        swapped = folder / "swapped"
        for source, target in ((one, swapped), (other, one), (swapped, other)):
            source.rename(target)
        assert (fingerprint() == before) == (one.read_bytes() == other.read_bytes()), suffix
        for source, target in ((one, swapped), (other, one), (swapped, other)):
            source.rename(target)
    assert fingerprint() == before


def test_a_class_that_was_renamed_is_read_anew(folder):
    yolo(folder)
    assert load(folder).classes == ["red", "blue"]
    write(folder / "data.yaml", "names: [reb, blue]")
    assert load(folder).classes == ["reb", "blue"]


def test_a_prepared_set_that_changed_has_another_fingerprint(tmp_path):
    version = tmp_path / "tfds" / "cells" / "1.0.0"
    write(version / "features.json", "{}")
    write(version / "cells-train.array_record-00000-of-00001", b"one")
    before = find_detection("cells", tmp_path, 60)[1]
    write(version / "cells-train.array_record-00000-of-00001", b"two")
    assert find_detection("cells", tmp_path, 60)[1] != before


def damaged(content, rng):
    """Bytes cut short, changed, doubled or replaced."""
    place = rng.randrange(len(content) + 1)
    return [
        content[:place],
        content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :],
        content[:place] + content,
        content[:place] + rng.choice([b"-1", b"1e999", b"null", b"nan", b"{}", b"[", b"<a>", b"9" * 400, b"\0"])
        + content[place:],
        b"",
        b"\xff\xfe" + content,
    ][rng.randrange(6)]  # fmt: skip


@pytest.mark.parametrize(
    "kind", ["yolo", "keypoints with visibility", "cvat yolo", "coco", "voc", "labelme", "cvat", "csv"]
)
def test_damaged_files_are_refused_in_one_line_or_passed_over(folder, kind):
    KINDS[kind](folder)
    rng = random.Random(kind)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".png")
    pictures = sorted(folder.rglob("*.png"))
    for _ in range(40):
        chosen = rng.sample(files, min(len(files), rng.randrange(1, 4))) + rng.sample(pictures, rng.randrange(2))
        contents = {path: path.read_bytes() for path in chosen}
        for path, content in contents.items():
            path.write_bytes(damaged(content, rng))
        try:
            data = load(folder)
            assert all(np.isfinite(part.boxes).all() for part in (data.train, data.validation, data.test))
        except UsageError as error:
            assert "\n" not in str(error)
        for path, content in contents.items():
            path.write_bytes(content)


def test_odd_folders_are_refused_in_one_line_or_read(folder):
    """Folders that are called as files, links to nowhere and in circles, tiny and huge pictures, deep files."""
    yolo(folder)
    (folder / "labels/8.txt").mkdir()
    (folder / "images/8.png").mkdir()
    (folder / "more.json").mkdir()
    (folder / "images/up").symlink_to("..")
    (folder / "images/9.png").symlink_to("nowhere.png")
    (folder / "labels/9.txt").symlink_to("nowhere.txt")
    Image.new("1", (1, 1)).save(folder / "images/tiny.png")
    write(folder / "labels/tiny.txt", "0 0.5 0.5 1 1\n")
    Image.new("L", (3000, 1)).save(folder / "images/thin.png")
    Image.new("1", (20000, 20000)).save(folder / "images/huge.png")
    data = load(folder)
    counts = [(part.labels >= 0).sum() for part in (data.train, data.validation, data.test)]
    assert sum(counts) == 9
    for content in ("[" * 100_000, '{"a":' * 100_000, "9" * 5000):
        write(folder / "deep.json", content)
        write(folder / "data.yml", content[:5000])
        load(folder)
