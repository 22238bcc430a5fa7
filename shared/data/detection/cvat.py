"""CVAT annotations, "CVAT for images 1.1": one XML file per task, with the edges of each box in pixels.

https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat/. Polygons and masks become their bounding boxes.
"""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

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


def find_cvat(folder: BoxFolder) -> dict[Path, ElementTree.Element]:
    """Contents by XML file, of CVAT's files."""
    files = folder.xml_files()
    return {
        path: content
        for path, content in files.items()
        if content.tag == "annotations" and content.find("image") is not None
    }


def read_cvat(folder: BoxFolder, files: dict[Path, ElementTree.Element]) -> AnnotatedPictures:
    """Class names in alphabetical order, and annotated images by part."""

    def annotations() -> Iterator[tuple[Path, AnnotationFile, None]]:
        for path, content in files.items():
            for image in content.iter("image"):
                yield path, read_cvat_image(folder, path, image), None

    return named_pictures(folder, annotations())


def read_cvat_image(folder: BoxFolder, path: Path, image: ElementTree.Element) -> AnnotationFile:
    """Annotations of an element "image"; shapes without an area are noted."""
    objects = []
    for shape in image:
        try:
            objects.append(NamedObject(shape.attrib["label"].strip(), cvat_box(shape), OBJECT))
        except (KeyError, ValueError):
            place = f"{shape.tag} of image {image.get('name')} in {folder.name(path)}"
            folder.remarks.passed_over.add("shapes without a label, or without an area", place)
    size = stated_size(image.get("width"), image.get("height"))
    return AnnotationFile(image.get("name", ""), size, objects, part_by_name([image.get("subset", "")]))


def cvat_box(shape: ElementTree.Element) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a shape.

    Raises:
        KeyError, ValueError: it has no area.
    """
    match shape.tag:
        case "box":
            left, top, right, bottom = (float(shape.attrib[edge]) for edge in ("xtl", "ytl", "xbr", "ybr"))
        case "mask":
            left, top, width, height = (float(shape.attrib[side]) for side in ("left", "top", "width", "height"))
            right, bottom = left + width, top + height
        case "polygon":
            points = [tuple(map(float, point.split(","))) for point in shape.attrib["points"].split(";")]
            (left, right), (top, bottom) = ((min(along), max(along)) for along in zip(*points, strict=True))
        case other:
            raise ValueError(other)
    return left, top, right, bottom
