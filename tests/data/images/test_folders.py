"""Folders of pictures, as people have them."""

import sys

import numpy as np
import pytest
from conftest import refused_in_one_line
from PIL import Image

from recipes.autoencoder import Config as AutoencoderConfig
from recipes.cnn_cifar10 import Config as ClassifierConfig
from recipes.diffusion import Config as DiffusionConfig
from recipes.gan_fashion import Config as GanConfig
from recipes.mlp_from_scratch import Config as PerceptronConfig
from recipes.transfer_learning import Config as TransferConfig
from shared.data.images.datasets import LabelledImages, few_of_each, load_images
from shared.data.images.folders import part_of, picture_files, stratified_split
from shared.errors import UsageError

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("KERAS_RECIPES_CACHE", str(tmp_path_factory.mktemp("cache")))


def gradient(width, height, mode="RGB"):
    ramp = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
    return Image.fromarray(ramp.astype(np.uint8)).convert(mode)


def fill(folder, count=10, color="red", suffix=".png", size=(12, 10)):
    """Makes a folder of pictures of one colour, each a little different."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        picture = Image.new("RGB", size, color)
        picture.putpixel((index % size[0], index // size[0]), (7, 7, 7))
        picture.save(folder / f"{index}{suffix}")


def load(folder, size=16, validation=0.25, **options):
    return load_images(str(folder), None, "cifar10", validation, size=size, **options)


def sizes(data):
    return [len(part.labels) for part in (data.train, data.validation, data.test)]


@pytest.fixture
def photos(tmp_path):
    """A folder of two classes, ten images each, of all sorts; with files that are none."""
    folder = tmp_path / "photos"
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for index, (mode, suffix) in enumerate(
            [("RGB", "jpg"), ("L", "png"), ("RGBA", "png"), ("P", "gif"), ("CMYK", "jpg")] * 2
        ):
            gradient(40 + 7 * index, 90 - 5 * index, mode).save(folder / name / f"{index}.{suffix}")
    (folder / "cats" / "notes.txt").write_text("not an image")
    for name in (".DS_Store", "._0.jpg", "Thumbs.db", "__MACOSX/._0.jpg", ".ipynb_checkpoints/0.jpg"):
        (folder / "cats" / name).parent.mkdir(exist_ok=True)
        (folder / "cats" / name).write_bytes(b"\0")
    return folder


def test_all_sorts_of_pictures(photos, capsys):
    data = load(photos, 48)
    assert (data.name, data.classes, data.mirrored) == ("folder", ["cats", "dogs"], True)
    assert sizes(data) == [12, 4, 4]
    for part in (data.train, data.validation, data.test):
        assert np.bincount(part.labels).tolist() == [len(part.labels) // 2] * 2
    assert data.train.images.shape[1:] == (48, 48, 3)
    assert data.train.images.dtype == np.uint8
    said = (
        f"{photos}: 20 images (cats: 10, dogs: 10), used: 12 for training (cats: 6, dogs: 6), 4 for validation "
        "(cats: 2, dogs: 2), 4 for testing (cats: 2, dogs: 2); passed over 1: 1 that are no images (cats/notes.txt)"
    )
    assert capsys.readouterr().err.splitlines()[-1] == said
    again = load(photos, 48)
    assert capsys.readouterr().err == f"{said}\n", "it is not decoded again"
    np.testing.assert_array_equal(again.test.images, data.test.images)
    assert load(photos, 32).train.images.shape[1:] == (32, 32, 3)


def test_what_is_used_is_said(photos, capsys):
    load(photos, limit=3, test_limit=1)
    assert "20 images (cats: 10, dogs: 10), used: 3 for training (" in capsys.readouterr().err
    data = load(photos, validation=0.1, per_class=5)
    assert sizes(data) == [8, 2, 4]
    assert "used: 8 for training (cats: 4, dogs: 4), 2 for validation (" in capsys.readouterr().err


def test_broken_files_are_named_and_left_out(photos, capsys):
    (photos / "dogs" / "torn.jpg").write_bytes((photos / "dogs" / "0.jpg").read_bytes()[:200])
    (photos / "dogs" / "empty.png").write_bytes(b"")
    (photos / "cats" / "page.jpg").write_text("<html>")
    (photos / "cats" / "gone.jpg").symlink_to("nowhere.jpg")
    assert sum(sizes(load(photos))) == 20
    said = capsys.readouterr().err
    for name in ("torn.jpg", "empty.png", "page.jpg"):
        assert f"skipped {photos}" in said
        assert f"/{name}: " in said
    assert said.count("skipped") == 3
    load(photos)
    (line,) = capsys.readouterr().err.splitlines()
    for words in ("passed over 5", "3 that cannot be read (", "1 that are no files (cats/gone.jpg)"):
        assert words in line


CHANGES = {
    "classes swapped": lambda folder: [
        (folder / old).rename(folder / new) for old, new in (("cat", "x"), ("dog", "cat"), ("x", "dog"))
    ],
    "class renamed": lambda folder: (folder / "dog").rename(folder / "wolf"),
    "picture mended": lambda folder: fill(folder / "cat", 1, "green", ".bmp", (32, 32)),
    "picture removed": lambda folder: (folder / "cat" / "3.bmp").unlink(),
}


RECIPES_OF_FOLDERS = (
    "cnn_cifar10", "mlp_from_scratch", "transfer_learning", "autoencoder", "gan_fashion", "diffusion",
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("recipe", RECIPES_OF_FOLDERS)
def test_every_change_of_a_folder_is_seen(tmp_path, recipe, change):
    """With BMP, pictures of one size make files of one size, under the same names."""
    folder = tmp_path / "own"
    for name, color in (("cat", "red"), ("dog", "blue")):
        fill(folder / name, 30, color, ".bmp", (32, 32))

    def read():
        options = {"data": str(folder), "batch_size": 4}
        match recipe:
            case "cnn_cifar10":
                return ClassifierConfig.for_preset("smoke", **options).load()
            case "mlp_from_scratch":
                return PerceptronConfig.for_preset("smoke", **options).load()
            case "transfer_learning":
                return TransferConfig.for_preset("smoke", **options, image_size=32).load()
            case "autoencoder":
                return AutoencoderConfig.for_preset("smoke", **options | {"validation": 0.1}).load()
            case "gan_fashion":
                return GanConfig.for_preset("smoke", **options).load()
            case "diffusion":
                return DiffusionConfig.for_preset("smoke", **options | {"validation": 0.1}).load()

    before = read()
    CHANGES[change](folder)
    after = read()
    assert after.fingerprint != before.fingerprint
    if change == "classes swapped":
        (red,) = np.unique(after.train.labels[after.train.images[:, -1, -1, 0] == 255])
        assert after.classes[red] == "dog"
    if change == "class renamed":
        assert after.classes == ["cat", "wolf"]


def test_a_moved_folder_is_not_read_again(photos, tmp_path, capsys):
    before = load(photos)
    capsys.readouterr()
    assert load(photos.rename(tmp_path / "moved")).fingerprint == before.fingerprint
    assert "decoding" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train", "val", "test"), [20, 4, 4]),
        (("Training", "VALIDATION", "Testing"), [20, 4, 4]),
        (("training_set", "dev", "test_set"), [20, 4, 4]),
        (("TRAIN", "valid", "test2017"), [20, 4, 4]),
        (("train", None, "test"), [14, 6, 4]),
        (("train", "val", None), [20, 4, 4]),
        (("train", None, None), [12, 4, 4]),
    ],
)
def test_parts_that_the_folder_gives(tmp_path, capsys, names, expected):
    for name, count in zip(names, (10, 2, 2), strict=True):
        for animal, color in (("cat", "red"), ("dog", "blue")):
            if name:
                fill(tmp_path / "own" / name / animal, count, color)
    data = load(tmp_path / "own", validation=0.3 if names[2] else 0.25)
    assert data.classes == ["cat", "dog"]
    assert sizes(data) == expected
    said = capsys.readouterr().err
    if names[1] and not names[2]:
        assert "the validation images also for testing, as there is no test part" in said
        np.testing.assert_array_equal(data.test.images, data.validation.images)


@pytest.mark.parametrize("name", ["train", "Val2017", "valid_images", "DEV", "test set", "training-data", "testing"])
def test_names_of_parts(name):
    assert part_of(name)


@pytest.mark.parametrize("name", ["trains", "protest", "value", "developers", "set", "12", "", "contest", "images"])
def test_names_of_classes(name):
    assert part_of(name) is None


def test_extra_levels_are_passed_through(tmp_path):
    for part, count in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            fill(tmp_path / "own" / "own" / "data" / f"{part}_set" / f"{part}_set" / name, count)
    assert sizes(load(tmp_path / "own")) == [8, 4, 4]


def test_pictures_below_the_folder_of_a_class_and_names_taken_apart(tmp_path):
    fill(tmp_path / "train" / "Ka\u0308se" / "2023", 5)  # as archives made on macOS have it
    fill(tmp_path / "train" / "Brot & Butter 🐱", 5)
    fill(tmp_path / "test" / "K\u00e4se", 2)
    data = load(tmp_path)
    assert data.classes == ["Brot & Butter 🐱", "K\u00e4se"]
    assert data.test.labels.tolist() == [1, 1]


def test_linked_folders_are_followed_and_circles_left(tmp_path):
    fill(tmp_path / "elsewhere", 5)
    fill(tmp_path / "own" / "dog", 5)
    (tmp_path / "own" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "own" / "dog" / "circle").symlink_to(tmp_path / "own")
    data = load(tmp_path / "own")
    assert data.classes == ["cat", "dog"]
    assert sum(sizes(data)) == 10


def test_files_without_a_suffix(tmp_path, capsys):
    for name in ("cat", "dog"):
        fill(tmp_path / name, 5)
        for path in (tmp_path / name).iterdir():
            path.rename(path.with_suffix(""))
        (tmp_path / name / "README").write_text("about these images")
    assert sum(sizes(load(tmp_path))) == 10
    assert "passed over 2: 2 that are no images (cat/README, …)" in capsys.readouterr().err
    assert len(picture_files(tmp_path)) == 10


def test_heic_beside_others_is_passed_over_with_a_way_to_read_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for name in ("cat", "dog"):
        fill(tmp_path / name, 5)
    (tmp_path / "cat" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    (tmp_path / "dog" / "renamed.jpg").write_bytes(b"\0\0\0\x18ftypmif1" + bytes(99))
    load(tmp_path)
    assert "passed over 2: 2 in HEIC, to be read after  pip install pillow-heif" in capsys.readouterr().err
    for path in (tmp_path / "cat").glob("*.png"):
        path.unlink()
    with refused_in_one_line("no image of the class cat for training (passed over 1: 1 in HEIC, to be read after"):
        load(tmp_path)


def test_images_without_classes(tmp_path, capsys):
    fill(tmp_path / "flat", 20)
    data = load(tmp_path / "flat", None, needs_classes=False)
    assert (data.classes, data.train.images.shape[1:]) == (["images"], (10, 12, 3))
    assert sizes(data) == [12, 4, 4]
    fill(tmp_path / "parts" / "train", 20)
    fill(tmp_path / "parts" / "test", 5)
    assert sizes(load(tmp_path / "parts", needs_classes=False)) == [15, 5, 5]
    with refused_in_one_line(f"{tmp_path / 'parts' / 'train'} holds images, and no folder for each class"):
        load(tmp_path / "parts")
    fill(tmp_path / "one" / "images", 20)
    assert load(tmp_path / "one", needs_classes=False).classes == ["images"]
    with refused_in_one_line("holds only the class images"):
        load(tmp_path / "one")


@pytest.mark.parametrize("recipe", [GanConfig, DiffusionConfig])
def test_generative_recipes_take_images_without_classes(tmp_path, recipe):
    fill(tmp_path / "flat", 60)
    config = recipe.for_preset("smoke", data=str(tmp_path / "flat"), image_size=16, batch_size=8)
    assert config.load().train.images.shape[1:] == (16, 16, 3)
    fill(tmp_path / "few", 12)
    with refused_in_one_line("training and 2 test images: at least 20 and 10 are needed"):
        recipe.for_preset("smoke", data=str(tmp_path / "few"), batch_size=8).load()
    fill(tmp_path / "small", 60, size=(7, 9))
    with refused_in_one_line("7×9 pixels: at least 8×8 are needed, so try --image-size 32"):
        recipe.for_preset("smoke", data=str(tmp_path / "small"), batch_size=8).load()


@pytest.mark.parametrize("recipe", [GanConfig, DiffusionConfig])
def test_options_of_generative_recipes_can_be_chosen_without_the_test_images(recipe):
    """Held-out images take the place of the test images, and are not trained on."""
    plain = recipe.for_preset("smoke", data="mnist5k", train_examples=None).load()
    choosing = recipe.for_preset("smoke", data="mnist5k", train_examples=None, measure_on="validation").load()
    assert len(choosing.test.labels) == 400
    tested, trained, measured = (
        {image.tobytes() for image in images}
        for images in (plain.test.images, choosing.train.images, choosing.test.images)
    )
    assert measured.isdisjoint(tested | trained)
    assert len(trained) + len(measured) == 4000


def test_images_of_several_sizes_need_image_size(photos):
    with refused_in_one_line("holds images of 10 sizes, such as 103×45 and 40×90: cut them to one with --image-size"):
        load(photos, None)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({}, "holds no images, and no folder for each class"),
        ({"cats": 3}, "holds only the class cats"),
        ({"cats": 0, "dogs": 0}, "holds no image of the class cats for training: add some"),
        ({"cats": 3, "dogs": 3, "cows": 0}, "holds no image of the class cows for training: add some"),
        ({"train/cats": 3, "train/dogs": 3, "test/cows": 3}, "cows is of a class that "),
        ({"train/cats": 3, "train/dogs": 3, "test": 3}, "holds no image for the test part (passed over 3: 3 outside"),
        ({"train/cats": 3, "train/dogs": 3, "val": 0}, "holds no image for the validation part"),
        ({"train/cats": 3, "train/dogs": 3, "val/cats": 1, "dev/cats": 1}, "val both are the validation part"),
        ({"test/cats": 3, "test/dogs": 3}, "but no "),
        ({"cats": 3, "dogs": 3, "test/cats": 3}, "but no "),
        ({"cats/train": 3, "cats/test": 3, "dogs/train": 3}, "parts go above classes, move it to "),
        ({"2023/cats": 3, "2023/dogs": 3, "2024/cats": 3, "2024/dogs": 3}, "has a level of folders too many"),
        ({"cats": 1, "dogs": 1}, "there are too few images for the test part"),
        ({"cats": 2, "dogs": 2}, "there are too few images for the validation part"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, folders, message):
    (tmp_path / "own").mkdir()
    for name, count in folders.items():
        fill(tmp_path / "own" / name, count)
    with refused_in_one_line(message):
        load(tmp_path / "own")


@pytest.mark.parametrize("name", ["photos.zip", "gone", "gone/deeper", "~/gone"])
def test_what_is_no_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with refused_in_one_line("is a file: name the folder" if name.endswith("zip") else "and no folder of that name"):
        load(name)


def test_a_folder_of_numbers_is_no_set_of_tfds(tmp_path):
    for digit in "01":
        fill(tmp_path / "own" / digit, 5)
    assert load(tmp_path / "own").classes == ["0", "1"]


def test_a_class_without_a_readable_image(photos):
    for path in (photos / "dogs").iterdir():
        path.write_bytes(b"torn")
    with refused_in_one_line("no image of the class dogs for training (passed over 10: 10 that cannot be read"):
        load(photos)


@pytest.mark.parametrize("count", [3, 4, 7])
def test_every_part_of_a_small_folder_has_every_class(tmp_path, count):
    for name in ("cat", "dog", "cow"):
        fill(tmp_path / name, count)
    data = load(tmp_path, validation=0.1)
    for part in (data.train, data.validation, data.test):
        assert set(part.labels.tolist()) == {0, 1, 2}
    assert sum(sizes(data)) == 3 * count


def test_stratified_split():
    labels = np.repeat([0, 1, 2, 3], [100, 10, 2, 1])
    held_out, others = stratified_split(labels, 0.1)
    assert np.bincount(labels[held_out], minlength=4).tolist() == [10, 1, 1, 0]
    assert sorted([*held_out, *others]) == list(range(113))
    assert others.tolist() != sorted(others)
    np.testing.assert_array_equal(stratified_split(labels, 0.1)[0], held_out)
    assert len(stratified_split(labels, 0.0)[0]) == 0
    assert np.bincount(labels[stratified_split(labels, 0.99)[1]]).min() == 1


def test_a_few_of_each_class():
    labels = np.array([2, 0, 0, 1, 0, 2, 2])
    few = few_of_each(LabelledImages(np.arange(7), labels), 2)
    assert few.images.tolist() == [0, 1, 2, 3, 5]
    assert few.labels.tolist() == [2, 0, 0, 1, 2]


def test_a_validation_part_without_images_is_refused():
    with pytest.raises(UsageError, match="too few images for the validation part"):
        load_images("mnist5k", None, "cifar10", validation=0.0001)
