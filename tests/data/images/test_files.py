"""Image files as people have them, damaged ones included."""

import io
import sys
import types

import numpy as np
import pytest
from PIL import Image, ImageFile

from shared.data.images.files import TooManyPixels, eight_bit_levels, fitted_pixels, looks_like_picture, open_picture

pytestmark = pytest.mark.once


def gradient(width, height, mode="RGB"):
    ramp = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
    return Image.fromarray(ramp.astype(np.uint8)).convert(mode)


def test_pixels(tmp_path):
    gradient(60, 30).save(tmp_path / "wide.png")
    pixels = fitted_pixels(open_picture(tmp_path / "wide.png"), (30, 30, 3))
    assert pixels.shape == (30, 30, 3)
    assert abs(int(pixels[0, 0, 0]) - 64) < 6, "cut to the middle"
    assert fitted_pixels(open_picture(tmp_path / "wide.png"), (20, 30, 1)).shape == (20, 30, 1)

    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (fitted_pixels(open_picture(tmp_path / "clear.png"), (8, 8, 3)) == 255).all(), "transparent is white"

    turned = gradient(40, 40)
    exif = turned.getexif()
    exif[0x0112] = 3
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert fitted_pixels(open_picture(tmp_path / "turned.jpg"), (40, 40, 3))[0, 0, 0] > 200, "turned by half a circle"


@pytest.mark.parametrize("mode", ["CMYK", "L", "LA", "RGBA", "P", "1", "LAB", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("x.tif" if mode in ("LAB", "CMYK", "YCbCr") else "x.png")
    plain = Image.new("RGB", (8, 8), "white")
    if mode == "LAB":
        Image.new("LAB", (8, 8), (255, 128, 128)).save(path)
    else:
        plain.convert(mode).save(path)
    picture = open_picture(path)
    assert picture.mode == "RGB"
    assert np.asarray(picture).min() > 240


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (np.array([[0, 257, 65535]], np.uint16), [0, 1, 255]),
        (np.array([[0, 30]], np.uint16), [0, 0]),  # dark, and not stretched to white
        (np.array([[-5, 0, 255]], np.int32), [0, 0, 255]),
        (np.array([[0, 65535]], np.int32), [0, 255]),
        (np.array([[-0.5, 0, 0.5, 1, np.nan]], np.float32), [0, 0, 128, 255, 0]),
        (np.array([[-300, 0, 100, 255, 400]], np.float32), [0, 0, 100, 255, 255]),
    ],
)
def test_levels_of_many_bits_compare_between_pictures(tmp_path, levels, expected):
    assert eight_bit_levels(levels)[0].tolist() == expected
    Image.fromarray(levels).save(tmp_path / "x.tif")
    assert np.asarray(open_picture(tmp_path / "x.tif"))[0, :, 0].tolist() == expected


def test_levels_of_more_than_16_bits_are_refused(tmp_path):
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match="up to 70,000: save it with 8 or 16 bits"):
        open_picture(tmp_path / "x.tif")


def test_a_picture_near_pillows_limit_is_read_and_one_beyond_it_refused(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for name, width in (("near.png", 15), ("beyond.png", 21)):
        Image.new("RGB", (width, 10)).save(tmp_path / name)
    (tmp_path / "beyond.png").rename(tmp_path / "beyond")
    assert open_picture(tmp_path / "near.png").size == (15, 10)
    assert not recwarn.list
    assert looks_like_picture(tmp_path / "beyond")
    with pytest.raises(ValueError, match="exceeds limit of 200 pixels"):
        open_picture(tmp_path / "beyond")


def test_a_file_in_memory_is_read_as_one_on_the_disk_within_limits():
    def read(**limits):
        return open_picture(io.BytesIO(encoded("PNG")), **limits)

    assert read().size == read(most_pixels=24 * 16, formats=["PNG"]).size == (24, 16)
    with pytest.raises(TooManyPixels, match="24×16 pixels: at most 383 are decoded"):
        read(most_pixels=383)
    with pytest.raises(ValueError, match=r"^cannot identify image file$"):
        read(formats=["JPEG"])


def encoded(kind):
    file = io.BytesIO()
    gradient(24, 16).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "PCX"])
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path, kind):
    whole, rng, path = encoded(kind), np.random.default_rng(0), tmp_path / f"x.{kind.lower()}"
    damaged = [whole[:length] for length in (0, 1, 7, 20, len(whole) // 2, len(whole) - 1)]
    for _ in range(60):
        content = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(0, len(content), rng.integers(1, 8))
        content[places] = rng.integers(0, 256, len(places))
        damaged.append(content.tobytes())
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        looks_like_picture(path)
        try:
            assert open_picture(path).mode == "RGB"
        except ValueError as error:
            refused += 1
            assert str(error)
            assert "\n" not in str(error)
            assert str(path) not in str(error), "the caller names it"
    assert refused


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\0" * 500, b"GIF89a", b"\xff\xd8\xff\xe0"])
def test_what_is_no_picture(tmp_path, content):
    for name in ("x", "x.jpg"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"\w"):
            open_picture(tmp_path / name)
    assert not looks_like_picture(tmp_path / "x")


def test_a_picture_is_known_by_its_first_bytes(tmp_path):
    gradient(9, 9).save(tmp_path / "DSC0001", "JPEG")
    gradient(9, 9).save(tmp_path / "really_jpeg.png", "JPEG")
    for name in ("DSC0001", "really_jpeg.png"):
        assert looks_like_picture(tmp_path / name)
        assert open_picture(tmp_path / name).size == (9, 9)


HEIC = b"\0\0\0\x18ftypheic" + bytes(200)


@pytest.mark.parametrize("name", ["IMG_1.HEIC", "renamed.jpg", "none"])
def test_heic_names_the_package_that_reads_it(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / name).write_bytes(HEIC)
    assert looks_like_picture(tmp_path / name)
    with pytest.raises(ValueError, match="pip install pillow-heif"):
        open_picture(tmp_path / name)


class HeicFile(ImageFile.ImageFile):
    """What pillow-heif would read."""

    format = "HEIC"
    format_description = "for this test"

    def _open(self):
        self._size, self._mode = (4, 3), "RGB"
        self.im = Image.new("RGB", self._size, "red").im
        self.tile = []


def test_heic_is_read_where_that_package_is_installed(tmp_path, monkeypatch):
    def register():
        Image.register_open("HEIC", HeicFile, lambda start: start[4:12] == b"ftypheic")

    monkeypatch.setattr(Image, "ID", [*Image.ID])
    monkeypatch.setattr(Image, "OPEN", {**Image.OPEN})
    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register))
    (tmp_path / "IMG_1.HEIC").write_bytes(HEIC)
    assert open_picture(tmp_path / "IMG_1.HEIC").getpixel((0, 0)) == (255, 0, 0)
