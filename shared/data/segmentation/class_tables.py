"""Tables of classes beside masks: names, and the colours that stand for them."""

import re
from pathlib import Path
from typing import NamedTuple

from shared.data.encoding import read_text
from shared.errors import UsageError

TABLE_NAMES = {
    "classes.txt", "labels.txt", "classes.csv", "class_dict.csv", "colors.txt", "colours.txt", "labelmap.txt",
    "label_colors.txt", "labels.csv",
}  # fmt: skip


class ClassTable(NamedTuple):
    """Names of classes, and the colour (red, green, blue) of each; either may be empty."""

    names: list[str]
    colours: list[tuple[int, int, int]]


def table_files(folder: Path) -> list[Path]:
    """The table right inside a folder, if there is one."""
    return sorted(path for path in folder.iterdir() if path.name.lower() in TABLE_NAMES)[:1]


def find_table(folder: Path) -> ClassTable:
    """Reads the table of classes right inside a folder; empty if there is none.

    A line is a class: its name, with its colour before or behind it as three numbers or as #rrggbb, whatever is between
    them; in classes.txt the names alone may stand, in the order of their indices.

    Raises:
        UsageError: two classes have one colour, or the table cannot be read.
    """
    for path in table_files(folder):
        names, colours = [], []
        for line in read_text(path).splitlines():
            name, colour = table_line(line)
            if name and not line.lstrip().startswith("# "):
                names.append(name)
                colours.append(colour)
        if any(colours):  # lines without a colour are a header
            names = [name for name, colour in zip(names, colours, strict=True) if colour]
            colours = [colour for colour in colours if colour]
        else:
            colours = []
        if twice := [name for name, colour in zip(names, colours, strict=False) if colours.count(colour) > 1]:
            raise UsageError(f"{path}: {' and '.join(twice[:2])} have the same colour")
        if names:
            return ClassTable(names, colours)
        raise UsageError(f"{path} names no classes: write a line for each, such as  sky 70 130 180")
    return ClassTable([], [])


def table_line(line: str) -> tuple[str, tuple[int, int, int] | None]:
    """Name and colour of a line of a table."""
    if match := re.search(r"#([0-9a-fA-F]{6})\b", line):
        colour = tuple(bytes.fromhex(match[1]))
    elif match := re.search(r"(?<!\w)(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})(?!\w)", line):
        colour = tuple(int(number) for number in match.groups())
        if max(colour) > 255:
            colour = None
    else:
        colour = None
    rest = line[: match.start()] + line[match.end() :] if match and colour else line
    return rest.strip(" \t,;:=\"'"), colour
