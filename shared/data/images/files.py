"""Reading of image files of any format."""

import contextlib
import importlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageOps

from shared.errors import UsageError

LUMINANCE = np.array([0.299, 0.587, 0.114])
"""Luminance weights of red, green and blue (ITU-R BT.601)."""


HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


class TooManyPixels(ValueError):
    """An image of more pixels than are to be decoded."""


def is_heif(file: Path | BinaryIO) -> bool:
    """Whether a file is HEIF (HEIC), the format of phones, by its first bytes."""
    try:
        with open(file, "rb") if isinstance(file, Path) else contextlib.nullcontext(file) as opened:
            start = opened.read(12)
            opened.seek(0)
    except OSError:
        return False
    return start[4:8] == b"ftyp" and start[8:] in HEIF_BRANDS


def reads_heif() -> bool:
    """Enables HEIF in Pillow by the package pillow-heif; False if that is not installed."""
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
        return True
    return False


def looks_like_picture(path: Path) -> bool:
    """Whether a file is an image by its suffix, or else by its first bytes."""
    if path.suffix.lower() in Image.registered_extensions() or is_heif(path):
        return True
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path):
            return True
    except Exception as error:  # noqa: BLE001 - each format of Pillow's raises its own for what is none
        return isinstance(error, Image.DecompressionBombError)


def open_picture(
    file: Path | BinaryIO, most_pixels: int | None = None, formats: Sequence[str] | None = None
) -> Image.Image:
    """Reads an image file of any format as RGB: its first frame, with the EXIF orientation applied.

    Transparency becomes white. Grey levels of more than 8 bits are converted to 8: see `eight_bit_levels`.

    Args:
        file: its path, or the file itself.
        most_pixels: images of more are not decoded; None: as many as Pillow takes for no attack.
        formats: accepted formats, by Pillow's names; None: all.

    Raises:
        ValueError: the file is not an image, damaged, or too large, then `TooManyPixels`.
    """
    try:
        if is_heif(file) and not reads_heif():
            raise ValueError("an image in HEIC, which can be read after  pip install pillow-heif")
        # Pillow warns of what it can read all the same, such as damaged EXIF data and large pictures.
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=formats) as opened:
            width, height = opened.size
            if most_pixels is not None and width * height > most_pixels:
                raise TooManyPixels(f"{width}×{height} pixels: at most {most_pixels:,} are decoded")
            picture = ImageOps.exif_transpose(opened)
            if picture.mode == "F" or picture.mode.startswith("I"):
                picture = Image.fromarray(eight_bit_levels(np.asarray(picture)))
            if picture.mode == "LAB":
                profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
                picture = ImageCms.profileToProfile(picture, *profiles, outputMode="RGB")
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            return picture.convert("RGB")
    except TooManyPixels:
        raise
    except Exception as error:  # noqa: BLE001 - each format of Pillow's raises its own for a damaged file
        name = repr(str(file) if isinstance(file, Path) else file)
        reason = getattr(error, "strerror", None) or " ".join(str(error).replace(f" {name}", "").split())
        raise ValueError(reason or type(error).__name__) from None


def eight_bit_levels(levels: np.ndarray) -> np.ndarray:
    """Grey levels (height, width) of any dtype in uint8, on the same scale for all images.

    16-bit integers range from 0 to 65,535. Wider integers are assumed to do so too, or up to 255 if none is higher;
    floats to range from 0 to 1, or up to 255 if one is above 2. Values outside are clipped; NaN becomes 0.

    Raises:
        ValueError: integers that need more than 16 bits.
    """
    largest = np.nanmax(levels)
    if levels.dtype.kind == "f":
        highest = 255 if largest > 2 else 1
    elif largest > 65535:
        raise ValueError(f"grey levels up to {largest:,}: save it with 8 or 16 bits")
    else:
        highest = 65535 if levels.dtype.itemsize == 2 or largest > 255 else 255
    return np.round(np.clip(np.nan_to_num(levels.astype(np.float64)) / highest, 0, 1) * 255).astype(np.uint8)


def squared(picture: Image.Image, size: int) -> np.ndarray:
    """Pixels (size, size, 3) in uint8 of a picture, cropped to a square around the middle."""
    return np.asarray(ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.BILINEAR))


def fitted_pixels(picture: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """Pixels (height, width, channels) in uint8, with one channel or three, of an RGB picture of any size.

    It is resized and cropped around the middle.
    """
    height, width, channels = shape
    pixels = np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR))
    return pixels if channels == 3 else np.round(pixels @ LUMINANCE).astype(np.uint8)[..., None]


def open_pictures(paths: tuple[Path, ...]) -> list[Image.Image]:
    """Reads image files of any format as RGB.

    Raises:
        UsageError: a file is not an image, or damaged.
    """
    pictures = []
    for path in paths:
        try:
            pictures.append(open_picture(path))
        except ValueError as error:
            raise UsageError(f"{path} cannot be read as an image ({error}): leave it out") from None
    return pictures
