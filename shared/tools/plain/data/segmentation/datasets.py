"""Images with masks."""

from pathlib import Path

import numpy as np
from PIL import Image

from shared.data.segmentation.segmented_images import UNLABELLED, SegmentationData, SegmentedImages
from shared.errors import UsageError

# Class names of the data sets whose masks number objects.
OBJECT_CLASSES = {"dsb2018": ["background", "nucleus"]}


def load_segmentation(
    name: str,
    directory: Path | None,
    preferred: str,
    validation: float,
    objects: bool = False,
    limit: int | None = None,
    test_limit: int | None = None,
) -> SegmentationData:
    """Loads folders images and masks of PNG files of the same names, which may lie in folders train, val and test.

    Masks hold class indices, 255 where a pixel is unlabelled, or numbers of objects; classes.txt names the classes.
    """
    name = preferred if name == "auto" else name
    folder = Path(name) if Path(name).is_dir() else (directory or Path.home() / ".keras") / "raw" / name
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}: put images and masks there, or name another by --data")
    places = {"train": folder / "train", "validation": folder / "val", "test": folder / "test"}
    places = {part: place for part, place in places.items() if place.is_dir()} or {"train": folder}
    objects = objects or name in OBJECT_CLASSES
    parts = {part: read_masks(place, objects) for part, place in places.items()}
    for part, fraction in {"test": 1 / 5, "validation": validation}.items():
        if part not in parts:
            train = parts["train"]
            count = max(1, round(len(train.masks) * fraction))
            parts[part], parts["train"] = train.between(None, count), train.between(count, None)
    if objects:
        classes = OBJECT_CLASSES.get(name, ["background", "object"])
    elif (folder / "classes.txt").exists():
        classes = (folder / "classes.txt").read_text(encoding="utf-8").split("\n")
        classes = [each for each in classes if each not in ("", "Unlabelled")]
    else:
        most = max(mask[mask != UNLABELLED].max() for mask in parts["train"].masks)
        classes = [f"class {index}" for index in range(most + 1)]
    parts["train"] = parts["train"].between(None, limit)
    parts |= {part: parts[part].between(None, test_limit) for part in ("validation", "test")}
    print(f"{name}: {', '.join(f'{len(each.masks):,} images for {part}' for part, each in parts.items())}")
    return SegmentationData(name, classes, **parts, objects=objects, upright=not objects)


def read_masks(folder: Path, objects: bool) -> SegmentedImages:
    """The images of a folder with their masks, in random order."""
    paths = sorted((folder / "images").glob("*.*"))
    pixels, masks = [], []
    for index in np.random.default_rng(0).permutation(len(paths)):
        with Image.open(paths[index]) as image, Image.open(folder / "masks" / f"{paths[index].stem}.png") as mask:
            image = image.convert("L" if image.mode == "L" else "RGB")
            pixels.append(np.asarray(image).reshape(image.height, image.width, -1))
            values = np.asarray(mask).astype(np.uint16)
            masks.append(values if objects else np.where(values == 255, UNLABELLED, values).astype(np.uint16))
    return SegmentedImages(pixels, masks)
