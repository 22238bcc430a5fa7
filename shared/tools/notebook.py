"""A recipe copied away as a Jupyter notebook."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from shared.backends.choice import BACKENDS
from shared.tools.collecting import SourceFile
from shared.tools.copying import BANNER, copied_source, dependencies_of, split_blocks, split_plain

RUN = """\
import time
from pathlib import Path

out = Path("runs") / time.strftime("%Y%m%d-%H%M%S")
metrics = main(Run(Config.for_preset("smoke", out=out){name}))
metrics"""


FIGURES = """\
from IPython.display import Image as Figure
from IPython.display import display

for path in sorted(out.glob("*.png")):
    display(Figure(path))"""


PREDICTION = """\
finished = FinishedRun(out, Config)
predict = predictor(finished)
{call}"""


INPUTS = {
    "Picture": 'Image.open(next(out.glob("*.png"))).convert("RGB")',  # whatever it shows: it is at hand
    "Text": '"{example}"',
    "Conversation": '["Hello, how are you?"]',
    "ClassName": '(finished.result["classes"] or [""])[0]',
}
"""What the last cell predicts from, by the type that the predictor takes."""


def copied_notebook(recipe: Path, backends: tuple[str, ...] = BACKENDS, full: bool = False) -> str:
    """A recipe as a notebook that runs top to bottom: the preset `smoke`, its figures, and a prediction.

    Args:
        recipe: path of the recipe.
        backends: the first is the one that the notebook takes unless KERAS_BACKEND is set.
        full: see `copied_source`.

    Raises:
        UsageError: the recipe breaks a rule of copying.
    """
    text = copied_source(recipe, backends, full)
    needed = " ".join(f'"{line}"' for line in dependencies_of(text))
    title, _, prose = ast.get_docstring(ast.parse(text)).partition("\n")
    cells = [
        new_markdown_cell(f"# {title.rstrip('.')}\n{prose}"),
        new_code_cell(
            f"# %pip install {needed}\nimport os\n\n"
            f'os.environ.setdefault("KERAS_BACKEND", "{backends[0]}")  # {", ".join(backends)}'
        ),
        *(full_cells(recipe, text) if full else plain_cells(text)),
        new_markdown_cell("## Run it\n\n`smoke` takes about a minute; `small` is the real experiment."),
        new_code_cell(RUN.format(name=f', "{recipe.stem}"' if full else "")),
        new_code_cell(FIGURES),
        new_markdown_cell("## Use the model\n\nOn an input of your own."),
        new_code_cell(PREDICTION.format(call=example_call(recipe.read_text(encoding="utf-8")))),
    ]
    for index, cell in enumerate(cells):
        cell["id"] = f"cell-{index}"  # nbformat would draw one, and no two copies would be equal
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.writes(new_notebook(cells=cells, metadata={"kernelspec": kernel})) + "\n"


def full_cells(recipe: Path, text: str) -> Iterator[nbformat.NotebookNode]:
    """Cells of a full copy: the imports, what the recipe uses, a cell a file, and each statement of the recipe."""
    header, blocks = split_blocks(text)
    yield new_code_cell("\n".join(ast.unparse(node) for node in ast.parse(header).body[1:]))
    yield new_markdown_cell("## What the recipe uses")
    for file, group in itertools.groupby(blocks[:-1], key=lambda block: block[0]):
        sources = [source.strip("\n") for _, _, _, source in group]
        yield new_code_cell(f"# {file}\n\n" + "\n\n\n".join(sources))
    yield new_markdown_cell("## The recipe")
    statements = SourceFile(recipe, blocks[-1][3]).statements
    yield from (new_code_cell(source) for source in statements if not source.startswith("if __name__"))


def plain_cells(text: str) -> Iterator[nbformat.NotebookNode]:
    """Cells of a plain copy: its imports, and a cell for each of its sections, under the title of that."""
    body, *_ = split_plain(text)
    imports = [node for node in ast.parse(body).body if isinstance(node, ast.Import | ast.ImportFrom)]
    first, last = imports[0].lineno, imports[-1].end_lineno
    lines = body.split("\n")
    yield new_code_cell("\n".join(lines[first - 1 : last]))
    rest = "\n".join(lines[last:]).partition("\nif __name__ ==")[0]
    recipe, *others = BANNER.split(rest)
    yield new_markdown_cell("## The recipe")
    yield new_code_cell(recipe.strip("\n"))
    for title, source in zip(others[::2], others[1::2], strict=True):
        yield new_markdown_cell(f"## {title}")
        yield new_code_cell(source.strip("\n"))


def example_call(source: str) -> str:
    """A call of what the predictor of a recipe returns, on an input as its type says."""
    tree = ast.parse(source)
    (predictor,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "predictor"]
    returned = predictor.body[-1].value.id
    (function,) = [node for node in predictor.body if isinstance(node, ast.FunctionDef) and node.name == returned]
    shown = re.search(r'recipes predict RUN "(.+)"', ast.get_docstring(tree))
    taken = INPUTS[ast.unparse(function.args.args[0].annotation)].format(example=shown[1] if shown else "")
    call = f"predict({taken})"
    return f'"".join({call})' if ast.unparse(function.returns) == "TextStream" else call
