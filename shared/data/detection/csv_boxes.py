"""CSV annotations: one row per box, as TensorFlow's Object Detection API and Roboflow write them.

The columns filename, class, xmin, ymin, xmax and ymax, and perhaps width and height of the image, in any order, named
in the first row; all in pixels. The part of a file is named by its name, as in train_labels.csv, or by its folders.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from shared.data.detection.annotations import (
    AnnotatedPictures,
    AnnotationFile,
    BoxFolder,
    NamedObject,
    named_pictures,
    part_by_name,
    stated_size,
)
from shared.data.detection.boxed_images import OBJECT
from shared.data.encoding import read_text

COLUMNS = {
    "filename": ("filename", "file", "image", "imagename", "imagepath", "path"),
    "class": ("class", "label", "classname", "category", "name"),
    "xmin": ("xmin", "x1", "left"),
    "ymin": ("ymin", "y1", "top"),
    "xmax": ("xmax", "x2", "right"),
    "ymax": ("ymax", "y2", "bottom"),
    "width": ("width", "imagewidth"),
    "height": ("height", "imageheight"),
}
"""Column names, compared without case, blanks and underscores."""


def find_csv(folder: BoxFolder) -> dict[Path, list[dict[str, str]]]:
    """Rows by CSV file, of the files with the columns of boxes."""
    files = {}
    for path in folder.files_of([".csv"]):
        lines = read_text(path).splitlines()
        delimiter = max(",;\t", key=lambda character: lines[0].count(character)) if lines else ","
        header, *rows = [*csv.reader(lines, delimiter=delimiter)] or [[]]
        plain = [re.sub(r"[\W_]", "", name.lower()) for name in header]
        columns = {column: plain.index(name) for column, names in COLUMNS.items() for name in names if name in plain}
        if missing := [column for column in COLUMNS if column not in columns and column not in ("width", "height")]:
            folder.hints.append(f"{path} has no column {missing[0]}: name the columns in its first row")
            continue
        files[path] = [
            {column: row[place].strip() for column, place in columns.items() if place < len(row)} for row in rows if row
        ]
    return files


def read_box_csv(folder: BoxFolder, files: dict[Path, list[dict[str, str]]]) -> AnnotatedPictures:
    """Class names in alphabetical order, and annotated images by part."""

    def annotations() -> Iterator[tuple[Path, AnnotationFile, None]]:
        for path, rows in files.items():
            part = part_by_name(re.findall("[A-Za-z]+", "/".join(path.relative_to(folder.root).parts[::-1])))
            objects: dict[str, list[NamedObject]] = defaultdict(list)
            sizes = {}
            for number, row in enumerate(rows, 2):
                try:
                    name = row["class"]
                    box = tuple(float(row[edge]) for edge in ("xmin", "ymin", "xmax", "ymax"))
                    objects[row["filename"]].append(NamedObject(name, box, OBJECT))
                    sizes[row["filename"]] = stated_size(row.get("width"), row.get("height"))
                except (KeyError, ValueError):
                    reason = "rows without a filename, a class, or a box of four numbers"
                    folder.remarks.passed_over.add(reason, f"{folder.name(path)}:{number}")
            for name, its_objects in objects.items():
                yield path, AnnotationFile(name, sizes[name], its_objects, part), None

    return named_pictures(folder, annotations())
