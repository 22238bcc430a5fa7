"""Images with boxes: loading, the scenes of digits, augmentation, batches."""

import numpy as np
import pytest
from conftest import directory_with
from PIL import Image

import shared.data.detection.digit_scenes
from shared.data.detection.boxed_images import (
    CROWD,
    DIFFICULT,
    OBJECT,
    BoxedImage,
    BoxedImages,
    LabelledBoxes,
    box_areas,
    boxed_images,
    letterbox,
    letterbox_boxes,
    padded_boxes,
    unletterbox_boxes,
)
from shared.data.detection.datasets import all_parts, load_detection, tfds_example
from shared.data.detection.digit_scenes import (
    MOST_HIDDEN,
    SCENE_PHOTOGRAPHS,
    contrasting_colour,
    make_scene,
    make_scenes,
)
from shared.data.detection.remarks import Remarks
from shared.detection.augment import composed, content_area, flipped, random_affine, random_colour, random_mosaic
from shared.detection.batches import DetectionBatches, detection_targets
from shared.errors import UsageError

pytestmark = pytest.mark.once

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_RECIPES_CACHE", str(tmp_path / "cache"))


def painted(width, height, box, colour=(255, 255, 255)):
    """A dark picture with a rectangle."""
    picture = Image.new("RGB", (width, height), (40, 40, 40))
    picture.paste(colour, box)
    return picture


def found(pixels, colour=(255, 255, 255)):
    """The box around all pixels that are nearer to a colour than to the dark or grey around it."""
    near = np.abs(pixels.astype(int) - colour).max(axis=-1) < 100
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def example(seed=0, size=128, colour=(255, 255, 255)):
    """A letterboxed picture with one rectangle, and the box around it."""
    rng = np.random.default_rng(seed)
    width, height = [(200, 150), (90, 180), (160, 160)][seed % 3]
    left, top = rng.integers(0, [width - 60, height - 60])
    box = (left, top, *(np.array([left, top]) + rng.integers(30, 60, 2)))
    pixels, scale, offset = letterbox(painted(width, height, tuple(map(int, box)), colour), size)
    return BoxedImage(pixels, letterbox_boxes(np.array([box], np.float32), scale, offset), np.array([seed]))


def many(count, size=64, boxes=3):
    """Images that all differ, with boxes of random size."""
    rng = np.random.default_rng(count)
    corners = np.sort(rng.uniform(0, size, (count, boxes, 2, 2)), axis=2)
    corners[:, :, 1] = np.minimum(corners[:, :, 1] + 3, size)
    images = rng.integers(0, 255, (count, size, size, 3)).astype(np.uint8)
    return BoxedImages(images, corners.reshape(count, boxes, 4).astype(np.float32), rng.integers(0, 3, (count, boxes)))


@pytest.mark.parametrize(("width", "height"), [(200, 100), (60, 120), (64, 64), (500, 333)])
def test_letterbox_and_its_inverse(width, height):
    box = np.array([width // 4, height // 3, width // 4 + 30, height // 3 + 25])
    pixels, scale, offset = letterbox(painted(width, height, tuple(map(int, box))), 96)
    assert pixels.shape == (96, 96, 3)
    assert scale == 96 / max(width, height)
    inside = letterbox_boxes(box, scale, offset)
    np.testing.assert_allclose(found(pixels), inside, atol=1)
    np.testing.assert_allclose(unletterbox_boxes(inside, scale, offset, (width, height)), box)
    everything = unletterbox_boxes(np.array([0, 0, 96, 96]), scale, offset, (width, height))
    np.testing.assert_allclose(everything, [0, 0, width, height])
    outside = np.ones((96, 96), bool)
    outside[offset[1] : 96 - offset[1], offset[0] : 96 - offset[0]] = False
    assert (pixels[outside] == 114).all()
    assert outside.sum() == pytest.approx(96 * 96 - width * height * scale**2, abs=96)


def test_letterbox_of_a_line():
    assert letterbox(Image.new("L", (1000, 1)), 64).pixels.shape == (64, 64, 3)


def test_boxes_that_cannot_be_used():
    boxes = np.array([
        [10, 10, 30, 30], [-20, -5, 20, 20], [-9, 5, -1, 9], [50, 110, 60, 120], [5, 5, 5, 9], [9, 9, 5, 5],
        [np.nan, 1, 2, 3], [0, 0, 100, 100],
    ])  # fmt: skip
    remarks = Remarks()
    annotated = LabelledBoxes(boxes, np.arange(8), np.zeros(8, np.uint8))
    data = boxed_images([(Image.new("RGB", (100, 100)), annotated)], 1, 50, remarks)
    np.testing.assert_allclose(data.boxes, [[[5, 5, 15, 15], [0, 0, 10, 10], [0, 0, 50, 50]]])
    assert data.labels.tolist() == [[0, 1, 7]]
    assert str(remarks) == (
        "1 boxes clipped to their image; passed over 5: 5 boxes of no area inside their image (-9 5 -1 9, …)"
    )


def test_images_without_boxes_are_padded_and_unpadded():
    boxes, labels = padded_boxes([np.ones((2, 4)), np.empty((0, 4))], [np.array([0, 2]), np.empty(0, int)])
    data = BoxedImages(np.zeros((2, 8, 8, 3), np.uint8), boxes, labels)
    assert (boxes.shape, boxes.dtype, labels.dtype) == ((2, 2, 4), np.float32, np.int64)
    assert labels.tolist() == [[0, 2], [-1, -1]]
    assert boxes[1].tolist() == [[0] * 4] * 2
    assert (data.one(0).boxes.shape, data.one(1).boxes.shape) == ((2, 4), (0, 4))


def test_targets():
    boxes = np.array([[0, 0, 3, 3], [0, 0, 9, 9], [1, 1, 2, 2], [0, 0, 6, 6], [0, 0, 0, 0]], np.float32)
    labels = np.array([0, 1, 2, 3, -1])
    targets = detection_targets(boxes, labels, 7)
    assert (targets.shape, targets.dtype) == ((7, 5), np.float32)
    assert targets[:, 0].tolist() == [0, 1, 2, 3, -1, -1, -1]
    np.testing.assert_array_equal(targets[:5, 1:], boxes)
    assert detection_targets(boxes, labels, 2)[:, 0].tolist() == [1, 3], "the largest"
    assert detection_targets(boxes, labels, 4)[:, 0].tolist() == [0, 1, 2, 3], "boxes before padding"
    both = detection_targets(np.stack([boxes, boxes[::-1]]), np.stack([labels, labels[::-1]]), 2)
    assert both[..., 0].tolist() == [[1, 3], [3, 1]]


@pytest.mark.parametrize("seed", range(12))
def test_boxes_follow_scale_shift_flip_and_colour(seed):
    rng = np.random.default_rng(seed)
    image = random_affine(example(seed), 0.3, 0.1, rng)
    image = flipped(image) if seed % 2 else image
    assert image.labels.tolist() == [seed]
    np.testing.assert_allclose(image.boxes[0], found(image.pixels), atol=1.5)
    assert np.ptp(random_colour(image.pixels, 1, rng).mean(axis=-1)) > 60
    assert (image.boxes >= 0).all()
    assert (image.boxes <= 128).all()


def test_boxes_follow_a_mosaic():
    seen = []
    for seed in range(24):
        images = [example(seed + number, colour=colour) for number, colour in enumerate(COLOURS)]
        mosaic = random_mosaic(images, 0.4, 0.1, np.random.default_rng(seed))
        assert mosaic.pixels.shape == (128, 128, 3)
        for box, label in zip(mosaic.boxes, mosaic.labels, strict=True):
            np.testing.assert_allclose(box, found(mosaic.pixels, COLOURS[label - seed]), atol=1.5)
            seen.append(label - seed)
    assert np.bincount(seen).min() >= 5, "each of the four places"


def test_a_mosaic_has_no_seams():
    light = BoxedImage(np.full((128, 128, 3), 200, np.uint8), np.empty((0, 4), np.float32), np.empty(0, np.int64))
    for seed in range(10):
        mosaic = random_mosaic([light] * 4, 0, 0, np.random.default_rng(seed))
        assert (mosaic.pixels == 200).all()
        assert mosaic.boxes.shape == (0, 4)


def test_grey_around_an_image_is_left_out_but_no_box():
    wide = letterbox(Image.new("RGB", (200, 100)), 64).pixels
    nothing = np.empty((0, 4))
    assert content_area(BoxedImage(wide, nothing, nothing)) == (0, 16, 64, 48)
    assert content_area(BoxedImage(wide, np.array([[3, 9.5, 8, 20]]), np.array([0]))) == (0, 9, 64, 48)
    assert content_area(BoxedImage(np.full_like(wide, 114), nothing, nothing)) == (0, 0, 64, 64)


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((10, 10, 50, 50), True),
        ((-10, 0, 10, 20), True),
        ((-81, 0, 19, 50), False),  # 19 % are left
        ((-79, 0, 21, 50), True),
        ((98.1, 0, 103, 10), False),  # 1.9 pixels
        ((97.9, 0, 103, 10), True),
        ((100, 0, 120, 10), False),
    ],
)
def test_what_is_left_of_a_box(box, kept):
    image = BoxedImage(np.zeros((200, 200, 3), np.uint8), np.array([box], np.float32) + 90, np.array([4]))
    moved = composed([image], [(0, 0, 200, 200)], 1, [np.array([-90, -90])], 100)
    assert moved.labels.tolist() == [4] * kept
    np.testing.assert_allclose(moved.boxes, np.clip([box], 0, 100)[: int(kept)], atol=1e-4)


def test_flipping_twice_is_flipping_not_at_all():
    image = example(1)
    once, twice = flipped(image), flipped(flipped(image))
    assert not np.array_equal(once.boxes, image.boxes)
    np.testing.assert_array_equal(twice.pixels, image.pixels)
    np.testing.assert_allclose(twice.boxes, image.boxes, atol=1e-5)


def test_colour():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    np.testing.assert_array_equal(random_colour(pixels, 0, np.random.default_rng(0)), pixels)
    changed = random_colour(pixels, 1, np.random.default_rng(0))
    assert np.abs(changed.astype(int) - pixels).mean() > 5
    grey = random_colour(np.full((4, 4, 3), 90, np.uint8), 1, np.random.default_rng(0))
    assert np.ptp(grey.astype(int), axis=-1).max() <= 1, "grey stays grey"


AUGMENTATION = {"mosaic": 0.5, "scale": 0.5, "shift": 0.1, "flip": True, "colour": 1.0}


def test_a_batch_depends_on_seed_epoch_and_index_alone():
    data = many(20)

    def batches(seed=3, epoch=0):
        made = DetectionBatches(data, 6, seed, max_boxes=10, **AUGMENTATION)
        made.epoch = epoch
        return made

    assert len(batches()) == 3
    images, targets = batches()[1]
    assert (images.shape, images.dtype) == ((6, 64, 64, 3), np.uint8)
    assert (targets.shape, targets.dtype) == ((6, 10, 5), np.float32)
    resumed = batches()
    resumed.first = 1
    for again in (batches()[1], resumed[0]):
        np.testing.assert_array_equal(again[0], images)
        np.testing.assert_array_equal(again[1], targets)
    for other in (batches()[0], batches(seed=4)[1], batches(epoch=1)[1]):
        assert not np.array_equal(other[0], images)


def test_targets_of_augmented_batches_are_boxes_inside_then_padding():
    batches = DetectionBatches(many(20), 20, 0, max_boxes=8, **AUGMENTATION)
    _, targets = batches[0]
    present = targets[..., 0] >= 0
    assert 20 < present.sum() < 160
    assert (np.diff(present.astype(int), axis=1) <= 0).all(), "padding comes last"
    left, top, right, bottom = targets[present][:, 1:].T
    assert min(left.min(), top.min()) >= 0
    assert max(right.max(), bottom.max()) <= 64
    assert min((right - left).min(), (bottom - top).min()) >= 1.999
    assert set(targets[present][:, 0]) == {0, 1, 2}
    np.testing.assert_array_equal(np.unique(targets[~present], axis=0), [[-1, 0, 0, 0, 0]])


def test_without_augmentation_each_image_comes_once_and_as_it_is():
    data = many(12)
    batches = DetectionBatches(data, 4, 0, max_boxes=5)
    images, targets = (np.concatenate(parts) for parts in zip(*(batches[i] for i in range(3)), strict=True))
    order = [int(np.flatnonzero((data.images == image).all(axis=(1, 2, 3)))[0]) for image in images]
    assert sorted(order) == list(range(12))
    assert order != list(range(12))
    np.testing.assert_allclose(targets, detection_targets(data.boxes, data.labels, 5)[order], atol=1e-5)


def test_a_pass_may_take_several_epochs():
    data = many(20)
    batches = DetectionBatches(data, 4, 0, max_boxes=5, images_per_epoch=7)
    assert len(batches) == 2
    seen = []
    for batches.epoch in range(5):
        for index in range(2):
            seen += [int(np.flatnonzero((data.images == image).all(axis=(1, 2, 3)))[0]) for image in batches[index][0]]
    assert sorted(seen[:20]) == sorted(seen[20:]) == list(range(20))
    assert seen[:20] != seen[20:]
    assert len(DetectionBatches(data, 4, 0, max_boxes=5, images_per_epoch=50)) == 5


def test_the_last_epochs_have_no_mosaics():
    data = many(8)
    batches = DetectionBatches(data, 8, 0, max_boxes=5, mosaic=1.0, mosaic_epochs=2)
    for epoch, whole in {0: 0, 1: 0, 2: 8, 3: 8}.items():
        batches.epoch = epoch
        images, _ = batches[0]
        assert sum((data.images == image).all(axis=(1, 2, 3)).any() for image in images) == whole


def test_hundreds_of_boxes_and_none():
    crowded, empty = many(1, boxes=400), many(1, boxes=0)
    data = BoxedImages(
        np.concatenate([crowded.images, empty.images]),
        *padded_boxes([crowded.boxes[0], empty.boxes[0]], [crowded.labels[0], empty.labels[0]]),
    )
    images, targets = DetectionBatches(data, 2, 0, max_boxes=50)[0]
    counts = (targets[..., 0] >= 0).sum(axis=1)
    assert sorted(counts) == [0, 50]
    kept = box_areas(targets[counts.argmax(), :, 1:])
    assert kept.min() >= np.sort(box_areas(crowded.boxes[0]))[-60], "the largest, but for those lost in rounding"
    assert DetectionBatches(data, 2, 0, max_boxes=50, **AUGMENTATION)[0][1].shape == (2, 50, 5)
    assert images.shape == (2, 64, 64, 3)


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(96, {"train": 60, "validation": 10, "test": 10})


def test_scenes(scenes):
    parts, classes = scenes
    assert classes == list("0123456789")
    for part, count in {"train": 60, "validation": 10, "test": 10}.items():
        assert parts[part].images.shape == (count, 96, 96, 3)
    train = parts["train"]
    present = train.labels >= 0
    assert set(train.labels[present]) == set(range(10))
    assert (present.sum(axis=1) == 0).any(), "some have no digit"
    boxes = train.boxes[present]
    assert boxes.min() >= 0
    assert boxes.max() <= 96
    heights = boxes[:, 3] - boxes[:, 1]
    assert 4.5 <= heights.max() / heights.min() <= 6
    assert train.images.std(axis=(1, 2)).mean() > 15
    again, _ = make_scenes(96, {"train": 3, "validation": 1, "test": 1})
    np.testing.assert_array_equal(again["train"].images, train.images[:3])
    np.testing.assert_array_equal(again["test"].images, parts["test"].images[:1])


def test_no_box_is_hidden_by_more_than_a_limit(scenes):
    parts, _ = scenes
    overlaps = 0
    for number in range(60):
        on_top = np.full((96, 96), -1)
        boxes = parts["train"].one(number).boxes.astype(int)
        for index, (left, top, right, bottom) in enumerate(boxes):
            on_top[top:bottom, left:right] = index
        visible = np.bincount(on_top[on_top >= 0], minlength=len(boxes)) / box_areas(boxes)
        assert (visible >= 1 - MOST_HIDDEN).all()
        overlaps += int((visible < 1).sum())
    assert overlaps > 20, "some do cover each other"


def test_boxes_of_digits_are_tight():
    grey = Image.new("RGB", (200, 200), (128, 128, 128))
    digit = np.zeros((1, 28, 28), np.uint8)
    digit[0, 3:25, 7:21] = 70  # too pale to be ink where it is drawn large
    digit[0, 4:24, 8:20] = 255
    checked = 0
    for seed in range(60):
        scene = make_scene([grey], digit, np.array([7]), 300, np.random.default_rng(seed))
        if len(scene.labels) == 1:
            background = np.median(scene.pixels.reshape(-1, 3), axis=0)
            changed = (scene.pixels != background).any(axis=-1)
            rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
            assert scene.boxes[0].tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            checked += 1
    assert checked >= 2


@pytest.mark.parametrize("level", [0, 60, 128, 200, 255])
def test_digits_stand_out(level):
    behind, ink = np.full((5, 5, 3), level, np.uint8), np.ones((5, 5), np.float32)
    colours = [contrasting_colour(behind, ink, np.random.default_rng(seed)) for seed in range(40)]
    contrast = np.abs(np.stack(colours) @ [0.299, 0.587, 0.114] - level)
    assert contrast.min() > 40
    assert (contrast > 65).mean() > 0.8
    assert np.std(colours, axis=0).min() > 30, "colours of all sorts"


def test_parts_of_scenes_share_neither_digits_nor_photographs(monkeypatch):
    names = [name for part in SCENE_PHOTOGRAPHS.values() for name in part]
    assert len(set(names)) == len(names) == 14
    used = {}

    def spy(photographs, digits, labels, size, rng):
        used[len(used)] = {digit.tobytes() for digit in digits}, np.bincount(labels)
        return make_scene(photographs, digits, labels, size, rng)

    monkeypatch.setattr(shared.data.detection.digit_scenes, "make_scene", spy)
    make_scenes(48, {"train": 1, "validation": 1, "test": 1})
    (train, *counts), (validation, *_), (test, *_) = used.values()
    assert counts[0].tolist() == [350] * 10
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_bundled_scenes_are_loaded_and_kept(cache, monkeypatch, capsys):
    counts = {"train": 6, "validation": 2, "test": 3}
    monkeypatch.setattr(shared.data.detection.digit_scenes, "SCENE_COUNTS", counts)
    data = load_detection("digit_scenes", None, "bccd", 0.1, 48)
    assert (data.name, len(data.classes), data.mirrored) == ("digit_scenes", 10, False)
    assert [len(part.images) for part in (data.train, data.validation, data.test)] == [6, 2, 3]
    monkeypatch.setattr(shared.data.detection.digit_scenes, "make_scene", None)  # the cache is read
    fewer = load_detection("digit_scenes", None, "bccd", 0.1, 48, limit=4)
    np.testing.assert_array_equal(fewer.train.images, data.train.images[:4])
    assert fewer.fingerprint == data.fingerprint
    assert len(fewer.test.images) == 3


def test_without_the_preferred_set_scenes_are_taken_and_that_is_said(cache, offline, monkeypatch, capsys):
    monkeypatch.setattr(shared.data.detection.digit_scenes, "SCENE_COUNTS", {"train": 3, "validation": 1, "test": 1})
    data = load_detection("auto", None, "bccd", 0.1, 48)
    assert data.name == "digit_scenes"
    said = capsys.readouterr().err
    assert said.startswith("WARNING: no bccd, training on the bundled digit_scenes instead: no data set 'bccd' in ")
    with pytest.raises(UsageError, match="choose one of auto, digit_scenes, the path of a folder, or set --data-dir"):
        load_detection("bccd", None, "bccd", 0.1, 48)


def test_parts_that_a_set_does_not_have():
    train = many(20)
    both = all_parts("set", {"train": train}, 0.25)
    assert [len(both[part].images) for part in ("test", "validation", "train")] == [4, 4, 12]
    together = np.concatenate([both[part].images for part in ("test", "validation", "train")])
    np.testing.assert_array_equal(together, train.images)
    given = all_parts("set", {"train": train, "validation": many(3)}, 0.25)
    np.testing.assert_array_equal(given["test"].images, many(3).images)
    assert (len(given["validation"].images), len(given["train"].images)) == (5, 15)
    whole = all_parts("set", {"train": train, "validation": many(3), "test": many(5)}, 0.25)
    assert [len(whole[part].images) for part in ("train", "validation", "test")] == [20, 3, 5]
    with pytest.raises(UsageError, match="takes more images"):
        all_parts("set", {"train": many(2)}, 0.25)


def test_an_example_of_tfds():
    objects = {"bbox": [np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 0, 1, 1])], "label": [2, 0]}
    picture, (boxes, labels, kinds) = tfds_example({"image": np.zeros((50, 200, 1), np.uint8), "objects": objects})
    assert picture.size == (200, 50)
    np.testing.assert_allclose(boxes, [[40, 5, 80, 15], [0, 0, 200, 50]])
    assert (labels.tolist(), kinds.tolist()) == ([2, 0], [OBJECT, OBJECT])
    marked = objects | {"is_crowd": [False, True], "is_difficult": [True, False]}
    _, marked = tfds_example({"image": np.zeros((9, 9, 3), np.uint8), "objects": marked})
    assert (marked.labels.tolist(), marked.kinds.tolist()) == ([2, 0], [DIFFICULT, CROWD])
    none = {"bbox": [], "label": []}
    assert tfds_example({"image": np.zeros((9, 9, 3), np.uint8), "objects": none})[1].boxes.shape == (0, 4)


def test_crowds_and_difficult_objects_are_kept_apart_from_targets():
    boxes = np.array([[0, 0, 9, 9], [10, 0, 19, 9], [20, 0, 29, 9]], np.float64)
    annotated = LabelledBoxes(boxes, np.array([0, 1, 2]), np.array([DIFFICULT, OBJECT, CROWD], np.uint8))
    plain = LabelledBoxes.of([(2, 5, 5, 8, 8, OBJECT)])
    pictures = [(Image.new("RGB", (30, 30)), each) for each in (annotated, plain)]
    data = boxed_images(pictures, 2, 30, Remarks())
    assert data.labels.tolist() == [[-1, 1, -1], [2, -1, -1]]
    assert data.difficult.tolist() == [[0, -1, -1], [-1, -1, -1]]
    assert data.crowds.tolist() == [[-1, -1, 2], [-1, -1, -1]]
    assert data.one(0).labels.tolist() == [1]
    targets = detection_targets(data.boxes, data.labels, 2)
    assert sorted(targets[0][:, 0]) == [-1, 1], "the largest of what is to be found"
    first = data.between(0, 1)
    assert (first.crowds.shape, data.between(1, 2).one(0).labels.tolist()) == ((1, 3), [2])
    assert boxed_images(pictures[1:], 1, 30, Remarks()).crowds is None


def test_a_prepared_set_that_cannot_be_read(cache, tmp_path):
    version = tmp_path / "tfds" / "bccd" / "1.0.0"
    version.mkdir(parents=True)
    (version / "features.json").write_text("{}")
    with pytest.raises(UsageError, match=r"bccd/1\.0\.0 cannot be read as images with boxes") as caught:
        load_detection("bccd", tmp_path, "bccd", 0.1, 48)
    assert "\n" not in str(caught.value)


@pytest.fixture
def datasets():
    """The data directory with BCCD; the test is skipped without it."""
    return directory_with("tfds/bccd")


def test_bccd(cache, datasets):
    data = load_detection("auto", datasets, "bccd", 0.1, 64)
    assert (data.name, data.classes, data.mirrored) == ("bccd", ["RBC", "WBC", "Platelets"], True)
    counts = [len(part.images) for part in (data.train, data.validation, data.test)]
    assert counts == [205, 87, 72]
    assert [int((part.labels >= 0).sum()) for part in (data.train, data.validation, data.test)] == [2804, 1137, 945]
    present = data.test.labels >= 0
    boxes = data.test.boxes[present]
    assert boxes[:, [1, 3]].min() >= 8, "640×480 in a square leaves an eighth grey above and below"
    assert boxes[:, [1, 3]].max() <= 56
    assert (data.test.images[:, :8] == 114).all()
    # White cells are of a strong violet: where the boxes say they are, there is less green than elsewhere.
    inside, outside = [], []
    for image, its_boxes, labels in zip(*data.test[:3], strict=True):
        mask = np.zeros((64, 64), bool)
        for left, top, right, bottom in its_boxes[labels == 1].round().astype(int):
            mask[top:bottom, left:right] = True
        inside.append(image[mask][:, 1].mean() if mask.any() else np.nan)
        outside.append(image[8:56][~mask[8:56]][:, 1].mean())
    assert np.nanmean(np.array(inside) < outside) > 0.9


def test_a_set_without_boxes(cache):
    directory = directory_with("tfds/fashion_mnist")
    with pytest.raises(UsageError, match="is not a set of images with boxes"):
        load_detection("fashion_mnist", directory, "bccd", 0.1, 64)
