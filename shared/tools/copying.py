"""A recipe copied away: one file that needs nothing from here, or a notebook, in plain Keras or in full."""

import ast
import hashlib
import importlib.metadata
import itertools
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from shared.backends.choice import BACKENDS
from shared.errors import UsageError
from shared.tools.collecting import Collection, SourceFile, names_bound
from shared.tools.plain_copy import Piece, filled, is_constant, ordered_pieces, plain_collection, plain_docstring
from shared.tools.project import recipe_path

MARKER = re.compile(r"^# from (\S+): (\w+) \((\w{12})\)\n", re.MULTILINE)


# What is needed beside a package, though nothing imports it by name.
COMPANIONS = {"tensorflow-datasets": ["array-record", "importlib_resources"]}


NOTEBOOK_RUN = """\
import time
from pathlib import Path

out = Path("runs") / time.strftime("%Y%m%d-%H%M%S")
metrics = main(Run(Config.for_preset("smoke", out=out), "{recipe}"))
metrics"""


NOTEBOOK_FIGURES = """\
from IPython.display import Image, display

for path in sorted(out.glob("*.png")):
    display(Image(path))"""


def copying_problems(recipe: Path) -> list[str]:
    """What keeps a recipe from being copied: a line "file:line: reason" each."""
    return sorted(set(Collection(recipe).problems))


def copied_source(recipe: Path, backends: tuple[str, ...] = BACKENDS, full: bool = False) -> str:
    """A recipe as one file, formatted by ruff: metadata after PEP 723, docstring, imports, recipe, definitions.

    Args:
        recipe: path of the recipe.
        backends: those that the metadata asks for, and that there is code for.
        full: with all that the recipe does here, rather than in plain Keras.

    Raises:
        UsageError: the recipe breaks a rule of copying.
    """
    return full_source(recipe, backends) if full else plain_source(recipe, backends)


def plain_source(recipe: Path, backends: tuple[str, ...] = BACKENDS) -> str:
    """A recipe in plain Keras; see `copied_source`.

    The last lines of the file name the definitions of this project that it consists of, each with the hash of its text.
    """
    collection = plain_collection(recipe, backends)
    if collection.problems:
        raise UsageError("; ".join(sorted(set(collection.problems))))
    top, sections, end = ordered_pieces(collection)
    imports = sorted(statement for statements in collection.imports.values() for statement in statements)
    blocks = ["from __future__ import annotations\n" + "\n".join(imports), *joined(top)]
    for title, pieces in sections.items():
        if pieces:
            blocks += [f"# {'-' * (115 - len(title))}- {title}", *joined(pieces)]
    blocks += [piece.source for piece in end]
    text = plain_docstring(collection.recipe.docstring, recipe.stem, backends[0]) + "\n\n" + "\n\n\n".join(blocks) + "\n"
    wide = ("--line-length", "120")
    text = ruff("check", text, *wide, "--select", "I,F841", "--fix-only", "--unsafe-fixes")
    text = ruff("format", text, *wide, "--config", "format.skip-magic-trailing-comma = true")
    text = re.sub(r"  # fmt: skip$", "", filled(text), flags=re.MULTILINE)
    text = re.sub(r"^(# -{20,} .*\n)\n+", r"\1\n", text, flags=re.MULTILINE)
    homes = {piece.name: piece.file for piece in [*top, *itertools.chain(*sections.values())]}
    return script_metadata(text, backends, wide=True) + "\n" + text + "\n\n" + source_lines(text, homes)


def joined(pieces: list[Piece]) -> Iterator[str]:
    """The source of definitions, constants in a row together."""
    for constants, group in itertools.groupby(pieces, key=lambda piece: is_constant(piece.source)):
        sources = [piece.source for piece in group]
        yield from ["\n".join(sources)] if constants else sources


SOURCES = "# Made of these definitions of Keras Recipes, each with the hash of its text here; `recipes copy --check` reads it:"


def definitions_in(text: str) -> dict[str, str]:
    """The source of each function, class and constant of a file, by its name."""
    lines, found, name = text.splitlines(), {}, None
    for node in ast.parse(text).body:
        first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
        source = "\n".join(lines[first - 1 : node.end_lineno])
        if bound := names_bound(node):
            name, *_ = bound
            found[name] = source
        elif name and isinstance(node, ast.Expr):  # says what a constant means
            found[name] += "\n" + source
    return found


def source_lines(text: str, homes: dict[str, str]) -> str:
    """The comment at the end of a plain copy: by file, each definition that is from there, and the hash of its text."""
    entries: dict[str, list[str]] = {}
    for name, source in definitions_in(text).items():
        entries.setdefault(homes[name], []).append(f"{name} {block_hash(source)[:6]}")
    listed = "; ".join(f"{file}: {', '.join(each)}" for file, each in entries.items())
    lines = [SOURCES[2:], *textwrap.wrap(listed, 118, break_on_hyphens=False)]
    return "".join(f"# {line}\n" for line in lines)


def full_source(recipe: Path, backends: tuple[str, ...] = BACKENDS) -> str:
    """A recipe as one file, formatted by ruff: metadata after PEP 723, docstring, imports, definitions, recipe.

    Each definition stands below a marker `# from FILE: NAME (HASH)`, and ends at the next; the hash is that of the
    text between.

    Args:
        recipe: path of the recipe.
        backends: those that the metadata asks for.

    Raises:
        UsageError: the recipe breaks a rule of copying.
    """
    collection = Collection(recipe)
    if collection.problems:
        raise UsageError("; ".join(sorted(set(collection.problems))))
    # The hash of each block is that of its formatted text, so it can only be filled in after formatting.
    blocks = [f"# from {file}: {name} ({'0' * 12})\n{source}" for file, name, source in collection.blocks()]
    imports = sorted(statement for statements in collection.imports.values() for statement in statements)
    docstring = collection.recipe.docstring.replace(f"recipes/{recipe.name}", recipe.name)
    text = "\n\n\n".join([docstring, "\n".join(imports), *blocks]) + "\n"
    text = ruff("format", ruff("check", text, "--select", "I", "--fix-only"))
    header, parts = split_blocks(text)
    marked = [f"# from {file}: {name} ({block_hash(source)})\n{source}" for file, name, _, source in parts]
    above = (
        script_metadata(text, backends) + "# The recipe begins at line {}; what it uses of Keras Recipes is above.\n"
    )
    before = above + header + "".join(marked[:-1])
    return before.replace("{}", str(before.count("\n") + 1), 1) + marked[-1]


def copied_notebook(recipe: Path, backends: tuple[str, ...] = BACKENDS) -> str:
    """A recipe as a Jupyter notebook that runs top to bottom, the preset `smoke` at its end.

    Args:
        recipe: path of the recipe.
        backends: the first is the one that the notebook takes unless KERAS_BACKEND is set.

    Raises:
        UsageError: the recipe breaks a rule of copying.
    """
    header, blocks = split_blocks(copied_source(recipe, backends))
    top = ast.parse(header)
    title, _, description = ast.get_docstring(top).partition("\n")
    needed = " ".join(f'"{line}"' for line in dependencies_of(header))
    cells = [
        new_markdown_cell(f"# {title.rstrip('.')}\n{description}"),
        new_code_cell(
            f"# %pip install {needed}\nimport os\n\n"
            f'os.environ.setdefault("KERAS_BACKEND", "{backends[0]}")  # {", ".join(BACKENDS)}'
        ),
        new_code_cell("\n".join(ast.unparse(node) for node in top.body[1:])),
        new_markdown_cell("## What the recipe uses"),
    ]
    for file, group in itertools.groupby(blocks[:-1], key=lambda block: block[0]):
        sources = [source.strip("\n") for _, _, _, source in group]
        cells.append(new_code_cell(f"# {file}\n\n" + "\n\n\n".join(sources)))
    cells.append(new_markdown_cell("## The recipe"))
    statements = SourceFile(recipe, blocks[-1][3]).statements
    cells += [new_code_cell(source) for source in statements if not source.startswith("if __name__")]
    cells += [
        new_markdown_cell("## Run it\n\n`smoke` takes under a minute; `small` is the real experiment."),
        new_code_cell(NOTEBOOK_RUN.format(recipe=recipe.stem)),
        new_code_cell(NOTEBOOK_FIGURES),
    ]
    for index, cell in enumerate(cells):
        cell["id"] = f"cell-{index}"  # nbformat would draw one, and no two copies would be equal
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.writes(new_notebook(cells=cells, metadata={"kernelspec": kernel})) + "\n"


def ruff(command: str, text: str, *options: str) -> str:
    """A text after `ruff COMMAND`, with ruff's own defaults, whatever settings lie about."""
    process = subprocess.run(
        [sys.executable, "-m", "ruff", command, "--isolated", "--quiet", "--target-version", "py311", *options, "-"],
        input=text, capture_output=True, encoding="utf-8",
    )  # fmt: skip
    if process.returncode:
        raise UsageError(f"ruff {command} failed: {process.stderr.strip()}: fix: pip install ruff")
    return process.stdout


def block_hash(source: str) -> str:
    """The first twelve digits of the SHA-256 of a text, blank lines around it not counted."""
    return hashlib.sha256(source.strip("\n").encode()).hexdigest()[:12]


def split_blocks(text: str) -> tuple[str, list[tuple[str, str, str, str]]]:
    """What stands above the first marker, and (file, name, hash, source) of each block."""
    header, *parts = MARKER.split(text)
    return header, list(zip(*[iter(parts)] * 4, strict=True))


def script_metadata(text: str, backends: tuple[str, ...], wide: bool = False) -> str:
    """The comment of PEP 723 that lists what a file needs, as far as this project's own requirements name it."""
    strings = set(re.findall(r"[\"'](\w+)[.\w]*[\"']", text))  # such as importlib.resources.files("mlxtend.data")
    imported = set(re.findall(r"^\s*(?:import|from) (\w+)", text, re.MULTILINE)) | strings
    homes = importlib.metadata.packages_distributions()
    needed = {plain_name(home) for name in imported for home in homes.get(name, ())}
    needed |= {plain_name(companion) for name in needed for companion in COMPANIONS.get(name, ())}
    base = [line for line in importlib.metadata.requires("keras-recipes") if "extra ==" not in line]
    lines = [line for line in base if plain_name(line) in needed] + list(backends)
    dependencies = "".join(f'#     "{line}",\n' for line in lines)
    if wide:
        listed = textwrap.wrap(", ".join(f'"{line}"' for line in lines) + ",", 114, break_on_hyphens=False)
        dependencies = "".join(f"#     {line}\n" for line in listed)
    python = importlib.metadata.metadata("keras-recipes")["Requires-Python"]
    return f'# /// script\n# requires-python = "{python}"\n# dependencies = [\n{dependencies}# ]\n# ///\n'


def plain_name(requirement: str) -> str:
    """The normalized name of a distribution, without versions (PEP 503)."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def check_copy(path: Path) -> list[str]:
    """Compares a copy with the recipe as it is now.

    Returns:
        What differs, one line each: "edited" where the copy was changed by hand, "stale" where the recipe or `shared`
        was changed since. Empty if the copy is current.

    Raises:
        UsageError: the file cannot be read, or is no copy of a recipe.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path} ({error}): give a file that  recipes copy  wrote") from None
    header, blocks = split_blocks(text)
    recipes = [file for file, name, _, _ in blocks if name == "recipe"]
    if len(recipes) != 1:
        raise UsageError(f"{path} is not a copy of a recipe, or its markers are gone: copy again with  recipes copy")
    backends = tuple(name for name in dependencies_of(header) if name in BACKENDS)
    fresh = copied_source(recipe_path(Path(recipes[0]).stem), backends)
    fresh_header, fresh_blocks = split_blocks(fresh)
    now = {(file, name): digest for file, name, digest, _ in fresh_blocks}
    differences = []
    for file, name, digest, source in blocks:
        if block_hash(source) != digest:
            differences.append(f"edited  {file}: {name}")
        if (file, name) not in now:
            differences.append(f"stale   {file}: {name} is no longer used")
        elif now.pop((file, name)) != digest:
            differences.append(f"stale   {file}: {name} was changed")
    differences += [f"stale   {file}: {name} is new" for file, name in now]
    if not differences and header != fresh_header:
        differences.append("edited  the lines above the first marker")
    return differences


def dependencies_of(header: str) -> list[str]:
    """The requirements that the metadata of a copy lists; none where it is damaged."""
    metadata = re.search(r"^# /// script\n((?:#.*\n)*?)# ///$", header, re.MULTILINE)
    try:
        return tomllib.loads(re.sub(r"^# ?", "", metadata[1], flags=re.MULTILINE))["dependencies"]
    except (TypeError, KeyError, tomllib.TOMLDecodeError):
        return []
