"""Pascal VOC annotations: one XML file per image, with the edges of each box in pixels and a difficult flag.

Everingham et al. 2010, http://host.robots.ox.ac.uk/pascal/VOC/. Edges are taken as they stand, as TFDS and most tools
have them; VOC itself counts pixels from 1. The parts are named by ImageSets/Main/train.txt, val.txt and test.txt,
as in VOC, or else by folders.
"""

from pathlib import Path
from xml.etree import ElementTree

from shared.data.detection.annotations import (
    AnnotatedPictures,
    AnnotationFile,
    BoxFolder,
    NamedObject,
    one_file_each,
    stated_size,
)
from shared.data.detection.boxed_images import DIFFICULT, OBJECT
from shared.data.encoding import read_text
from shared.data.images.folders import PART_NAMES

BOX_EDGES = ("xmin", "ymin", "xmax", "ymax")


def find_voc(folder: BoxFolder) -> dict[Path, ElementTree.Element]:
    """Contents by XML file, of VOC's files."""
    return {path: content for path, content in folder.xml_files().items() if content.tag == "annotation"}


def read_voc(folder: BoxFolder, files: dict[Path, ElementTree.Element]) -> AnnotatedPictures:
    """Class names in alphabetical order, and annotated images by part."""

    def read(path: Path) -> AnnotationFile:
        content, objects = files[path], []
        for number, entry in enumerate(content.findall("object"), 1):
            try:
                edges = tuple(float(entry.findtext(f"bndbox/{edge}", "")) for edge in BOX_EDGES)
                kind = DIFFICULT if int(entry.findtext("difficult") or 0) else OBJECT
                name = entry.findtext("name", "").strip()
                if not name:
                    raise ValueError
            except ValueError:
                place = f"object {number} of {folder.name(path)}"
                folder.remarks.passed_over.add("objects without a name, or a bndbox of four numbers", place)
                continue
            objects.append(NamedObject(name, edges, kind))
        size = stated_size(content.findtext("size/width"), content.findtext("size/height"))
        name = (content.findtext("filename") or path.stem).strip()
        return AnnotationFile(name, size, objects, listed.get(path.stem))

    parts = PART_NAMES | {"trainval": "train"}  # train and val in one: for what only that lists
    lists = [path for path in folder.files_of([".txt"]) if path.parent.name == "Main" and path.stem in parts]
    listed: dict[str, str] = {}
    for path in sorted(lists, key=lambda path: path.stem == "trainval"):
        for line in read_text(path).splitlines():
            if words := line.split():
                listed.setdefault(words[0], parts[path.stem])
    return one_file_each(folder, list(files), read)
