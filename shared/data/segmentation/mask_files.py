"""Files of masks: numbers, palettes, colours."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from shared.data.segmentation.class_tables import ClassTable
from shared.data.segmentation.segmented_images import UNLABELLED
from shared.errors import UsageError

UNLABELLED_NAMES = {"unlabelled", "unlabeled", "void", "ignore", "ignored", "unknown"}
"""Names of classes, in lower case, that are neither trained on nor counted."""


MOST_MASK_CLASSES = 64
"""Maximum number of classes; masks with more values number objects, or were compressed with losses."""


def read_mask(path: Path, table: ClassTable) -> np.ndarray:
    """The value of each pixel of a mask, (height, width): a number, or a colour.

    Colours are red · 65536 + green · 256 + blue. Grey images and those with a palette hold numbers, unless a table of
    colours is given.

    Raises:
        ValueError: the file is not an image, or one in which compression changes values.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as file:
            if file.format == "JPEG":
                raise ValueError(f"the mask {path.name} is a JPEG, whose compression changes values: save it as PNG")
            if file.mode in ("LA", "PA", "RGBA"):
                file = file.convert({"LA": "L", "PA": "P", "RGBA": "RGB"}[file.mode])
            if table.colours or file.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "F", "RGB"):
                file = file.convert("RGB")
            values = np.asarray(file)
            values = values.astype(np.int32) if values.dtype.kind in "bf" else values
    except Exception as error:  # noqa: BLE001 - each format of Pillow's raises its own for a damaged file
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ValueError(reason or type(error).__name__) from None
    if values.ndim == 2:
        return values
    grey = (values[..., 0] == values[..., 1]).all() and (values[..., 0] == values[..., 2]).all()
    if grey and not table.colours:
        return values[..., 0]
    return values.astype(np.int32) @ np.array([65536, 256, 1], np.int32)


class MaskReader:
    """Finds out what the values of masks mean.

    Args:
        table: the table of classes.
        objects: whether masks number objects, instead of classes.
    """

    def __init__(self, table: ClassTable, objects: bool):
        self.table = table
        self.objects = objects
        self.values: set[int] = set()
        self.most_objects = 0

    def see(self, mask: np.ndarray) -> None:
        """Notes the values of a mask (height, width)."""
        values = np.unique(mask)
        self.most_objects = max(self.most_objects, int((values > 0).sum()))
        if not self.objects:
            self.values |= set(values.tolist())

    def classes(self, folder: Path) -> tuple[list[str], Callable[[np.ndarray], np.ndarray]]:
        """Names of the classes, and a function from values (height, width) to a mask in uint16.

        Raises:
            UsageError: the values cannot be classes or objects.
        """
        if self.objects:
            if self.most_objects < 2:
                raise UsageError(f"--data {folder}: no mask holds two objects: each needs a number of its own")
            return self.table.names or ["background", "object"], numbered_objects
        meaning = self.meaning(folder)
        ignored = {value for value, name in meaning.items() if name.lower() in UNLABELLED_NAMES}
        names = list(dict.fromkeys(name for value, name in meaning.items() if value not in ignored))
        if len(names) < 2:
            raise UsageError(
                f"--data {folder}: the masks hold only the class {''.join(names)}: at least two are needed"
            )
        indices = {value: UNLABELLED if value in ignored else names.index(name) for value, name in meaning.items()}
        known = np.array(sorted(indices))
        target = np.array([indices[value] for value in known.tolist()], np.uint16)
        return names, lambda mask: target[np.searchsorted(known, mask)]

    def meaning(self, folder: Path) -> dict[int, str]:
        """Name of each value."""
        names, colours = self.table
        if colours:
            values = (np.array(colours) @ [65536, 256, 1]).tolist()
            known = dict(zip(values, names, strict=True))
            self.check_known(folder, known, lambda value: f"the colour {shown_colour(value)}")
            return known
        if names:
            known = dict(enumerate(names)) | ({} if len(names) > 255 else {255: "unlabelled"})
            self.check_known(folder, known, lambda value: f"the number {value}")
            return known
        if len(self.values) == 2 and 0 in self.values:
            return dict(zip(sorted(self.values), ("background", "foreground"), strict=True))
        if len(self.values) > MOST_MASK_CLASSES:
            raise UsageError(
                f"--data {folder}: the masks hold {len(self.values):,} values, too many for classes: where they number "
                "objects, add --objects; where they are blurred, save them without interpolation"
            )
        if max(self.values) > 255:
            return {value: f"class {shown_colour(value)}" for value in sorted(self.values)}
        return {value: "unlabelled" if value == 255 else f"class {value}" for value in sorted(self.values)}

    def check_known(self, folder: Path, known: dict[int, str], shown: Callable[[int], str]) -> None:
        """Raises a UsageError where masks hold a value without a class."""
        if strange := sorted(self.values - known.keys()):
            raise UsageError(
                f"--data {folder}: the masks hold {shown(strange[0])}, which is none of the {len(known)} classes of "
                "its table: add a line"
            )


def shown_colour(value: int) -> str:
    """A colour as #rrggbb."""
    return f"#{value:06x}"


def numbered_objects(mask: np.ndarray) -> np.ndarray:
    """A mask in uint16 whose objects are numbered from 1, from values that are 0 for the background."""
    values, numbers = np.unique(mask, return_inverse=True)
    return (numbers.reshape(mask.shape) + (values[0] != 0)).astype(np.uint16)
