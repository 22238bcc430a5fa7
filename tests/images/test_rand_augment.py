"""RandAugment: its operations against those of Pillow, and its cost."""

import time

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from shared.images.rand_augment import RAND_AUGMENT_OPERATIONS, rand_augment, warped

pytestmark = pytest.mark.once


def photographs(count=6, channels=3, height=20, width=24):
    """Smooth images of few and of many values, one of one colour."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(20, 200, (count, 5, 6, channels)).repeat(4, axis=1).repeat(4, axis=2)
    images = (coarse + rng.integers(0, 40, (count, 20, 24, channels)))[:, :height, :width].astype("uint8")
    images[0] = 77
    return images


STRENGTHS = np.array([0.3, -0.3, 1.0, -1.0, 0.72, -0.5])

PILLOW = {
    "brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(1 + 0.9 * s),
    "colour": lambda image, s: ImageEnhance.Color(image).enhance(1 + 0.9 * s),
    "contrast": lambda image, s: ImageEnhance.Contrast(image).enhance(1 + 0.9 * s),
    "sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * s),
    "posterize": lambda image, s: ImageOps.posterize(image, 8 - round(4 * abs(s))),
    "solarize": lambda image, s: ImageOps.solarize(image, 256 * (1 - abs(s))),
    "autocontrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
    "rotate": lambda image, s: image.rotate(30 * s, fillcolor=(128,) * 3),
    "unchanged": lambda image, s: image,
}


@pytest.mark.parametrize("name", PILLOW)
def test_an_operation_is_that_of_pillow(name):
    images = photographs()
    found = RAND_AUGMENT_OPERATIONS[name](images, STRENGTHS)
    expected = np.stack(
        [np.asarray(PILLOW[name](Image.fromarray(each), s)) for each, s in zip(images, STRENGTHS, strict=True)]
    )
    apart = np.abs(found.astype(int) - expected)
    if name == "rotate":  # a pixel between two others may go to either
        assert (apart > 0).any(axis=-1).mean() < 0.01
    else:
        assert apart.max() <= 1
        assert apart.mean() < 0.2


def test_shears_and_translations_move_pixels():
    images = photographs()[1:3]
    right = RAND_AUGMENT_OPERATIONS["translate_x"](images, np.array([-0.5, 0.5]))  # 0.45 · 24 · 0.5 = 5
    np.testing.assert_array_equal(right[0, :, 5:], images[0, :, :-5])
    np.testing.assert_array_equal(right[1, :, :-5], images[1, :, 5:])
    assert (right[0, :, :5] == 128).all()
    down = RAND_AUGMENT_OPERATIONS["translate_y"](images, np.array([-0.5, 0.5]))
    np.testing.assert_array_equal(down[0, 4:], images[0, :-4])

    for axis, shear in ((0, RAND_AUGMENT_OPERATIONS["shear_x"]), (1, RAND_AUGMENT_OPERATIONS["shear_y"])):
        turned = np.swapaxes(images, 1, 2) if axis else images
        found = shear(images, np.array([1.0, -1.0]))
        found = np.swapaxes(found, 1, 2) if axis else found
        length, across = found.shape[1:3]
        for row in (0, length // 2, length - 1):
            shift = 0.3 * (row + 0.5 - length / 2)
            source = np.floor(np.arange(across) + 0.5 + shift).astype(int)
            inside = (source >= 0) & (source < across)
            np.testing.assert_array_equal(found[0, row, inside], turned[0, row, source[inside]])
            assert (found[0, row, ~inside] == 128).all()


def test_warping_by_the_identity_and_half_a_turn():
    images = photographs(channels=1)
    np.testing.assert_array_equal(warped(images), images)
    # half-open pixels: half a turn ends in the middle of each pixel
    np.testing.assert_array_equal(warped(images, a=-1.0, e=-np.ones(6)), images[:, ::-1, ::-1])


def test_it_is_drawn_for_each_image_and_quick():
    images = np.random.default_rng(1).integers(0, 256, (64, 32, 32, 3), "uint8")
    before = images.copy()
    first, again, other = (rand_augment(images, np.random.default_rng(seed), 2, 9.0) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(images, before)
    assert first.shape == images.shape
    assert first.dtype == images.dtype
    changed = (first != images).any(axis=(1, 2, 3))
    assert 0.8 < changed.mean() < 1  # of two operations, each may change nothing
    assert (first != other).any(axis=(1, 2, 3)).mean() > 0.8
    np.testing.assert_array_equal(rand_augment(images, np.random.default_rng(0), 0, 9.0), images)
    assert len(RAND_AUGMENT_OPERATIONS) == 14

    started = time.process_time()
    for seed in range(5):
        rand_augment(images, np.random.default_rng(seed), 2, 9.0)
    assert (time.process_time() - started) / 5 < 0.05  # a training step on these takes a few tenths of a second
