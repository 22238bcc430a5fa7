"""Image files as people have them."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from shared.errors import UsageError

LUMINANCE = np.array([0.299, 0.587, 0.114])
"""What red, green and blue add to how light a pixel is (ITU-R BT.601)."""


def open_picture(path: Path) -> Image.Image:
    """Reads an image file of any kind as RGB.

    Turned as its EXIF data say; transparent parts become white, 16-bit grey levels 8-bit ones.

    Raises:
        ValueError: the file is no image, or damaged.
    """
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I") or picture.mode == "F":
                levels = np.asarray(picture, np.float64)
                picture = Image.fromarray((levels / max(levels.max(), 1) * 255).astype(np.uint8))
            if "transparency" in picture.info or "A" in picture.getbands():
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            return picture.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(str(error) or type(error).__name__) from None


def open_pictures(paths: tuple[Path, ...]) -> list[Image.Image]:
    """Reads image files of any kind as RGB.

    Raises:
        UsageError: a file is no image, or damaged.
    """
    pictures = []
    for path in paths:
        try:
            pictures.append(open_picture(path))
        except ValueError as error:
            raise UsageError(f"{path} cannot be read as an image ({error}): leave it out") from None
    return pictures
