"""A sheet of what recipes make, for the front page: a panel for each of some finished runs.

    python docs/sheet.py RUN RUN …      directories of runs, or names of recipes with figures in results/

Each panel shows the first figure of FIGURES that the run left, cropped at the bottom, or else the first text of TEXTS.
Below it stand the recipe, its preset with the options beside it, backend, data and result; for a recipe, of whose
recorded runs one left the figure, the range of their results.
"""

import io
import json
import sys
import textwrap
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from shared.tools.project import PROJECT, recipe_path, task_of
from shared.tools.records import headline_records, result_and_time

FIGURES = ("predictions.png", "detections.png", "samples.png", "mistakes.png")
TEXTS = ("translations.txt", "samples.txt")
COLUMNS = 3
PANEL_SIZE = (5.0, 3.4)
"""Width and height of a panel, in inches."""
LINES = 17


def read_run(word: str) -> tuple[Path, str, str]:
    """The folder of the figures of a run or a recipe, the name of its recipe, and the caption."""
    directory = Path(word)
    if not (directory / "result.json").exists():
        records = headline_records(recipe_path(word).stem)
        caption = (
            f"{word} --preset small, one of the recorded runs\n{records[0]['data']}: {result_and_time(records)[0]}"
        )
        return PROJECT / "results" / word, word, caption
    result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    options = "".join(f" --{name.replace('_', '-')} {value}" for name, value in result.get("options", {}).items())
    made_by = f"{result['recipe']} --preset {result['preset']}{options}"
    measured = f"{result['backend']}, {result['data']}: {result['metric']} {result['value']:.4f}"
    return directory, result["recipe"], f"{made_by}\n{measured}"


def draw_panel(axes: Axes, width: float, folder: Path, recipe: str, caption: str) -> None:
    """Draws what a run left, so many inches wide."""
    title = textwrap.shorten(task_of(recipe_path(recipe)).partition(",")[0], 58, placeholder=" …")
    axes.set_title(title, fontsize=10.5, loc="left", weight="bold")
    axes.text(0, -0.02, caption, transform=axes.transAxes, va="top", fontsize=8, color="dimgray")
    axes.axis("off")
    for name in FIGURES:
        if (folder / name).exists():
            picture = Image.open(folder / name).convert("RGB")
            height = min(picture.height, round(picture.width * PANEL_SIZE[1] / width))
            axes.imshow(picture.crop((0, 0, picture.width, height)), interpolation="lanczos")
            axes.set_anchor("NW")
            return
    text = next(folder / name for name in TEXTS if (folder / name).exists())
    written = text.read_text(encoding="utf-8").splitlines()
    lines = [part for line in written for part in textwrap.wrap(line, 50, subsequent_indent="  ")]
    for column in range(round(width / PANEL_SIZE[0])):
        shown = "\n".join(lines[column * LINES : (column + 1) * LINES])
        place = column * PANEL_SIZE[0] / width
        axes.text(place, 0.97, shown, transform=axes.transAxes, va="top", fontsize=10.5, family="monospace")


def main(words: list[str]) -> None:
    """Writes docs/figures/sheet.png; the last panel fills its row."""
    rows = -(-len(words) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * PANEL_SIZE[0], rows * (PANEL_SIZE[1] + 1)), layout="constrained", dpi=90)
    grid = figure.add_gridspec(rows, COLUMNS)
    for index, word in enumerate(words):
        row, column = divmod(index, COLUMNS)
        last = COLUMNS if index == len(words) - 1 else column + 1
        axes = figure.add_subplot(grid[row, column:last])
        draw_panel(axes, (last - column) * PANEL_SIZE[0], *read_run(word))
    drawn = io.BytesIO()
    figure.savefig(drawn)
    sheet = PROJECT / "docs" / "figures" / "sheet.png"
    sheet.parent.mkdir(exist_ok=True)
    Image.open(drawn).convert("RGB").quantize(256).save(sheet, optimize=True)
    print(sheet)


if __name__ == "__main__":
    main(sys.argv[1:])
