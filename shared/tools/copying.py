"""A recipe copied away: one file that needs nothing from here, in plain Keras or in full."""

import ast
import functools
import hashlib
import importlib.metadata
import itertools
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from shared.backends.choice import BACKENDS
from shared.errors import UsageError
from shared.tools.collecting import PLAIN, Collection, names_bound
from shared.tools.plain_copy import Piece, is_constant, ordered_pieces, plain_collection, plain_docstring
from shared.tools.plain_file import (
    filled,
    with_comments,
    with_expressions,
    with_joined_attributes,
    with_one_history,
    without_blank_lines,
    without_marks,
    without_output_shapes,
)
from shared.tools.project import recipe_path

MARKER = re.compile(r"^# from (\S+): (\w+) \((\w{12})\)\n", re.MULTILINE)


# What is needed beside a package, though nothing imports it by name.
COMPANIONS = {"tensorflow-datasets": ["array-record", "importlib_resources"]}


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
            blocks += [f"# {'-' * (117 - len(title))} {title}", *joined(pieces)]
    blocks += [piece.source for piece in end]
    docstring = plain_docstring(collection.recipe.docstring, recipe.stem, backends[0])
    homes = {piece.name: piece.file for piece in [*top, *itertools.chain(*sections.values())]}
    text = docstring + "\n\n" + "\n\n\n".join(blocks) + "\n"
    text = with_one_history(without_output_shapes(without_marks(text)))
    counterparts = {name for name, file in homes.items() if file.startswith(PLAIN)}
    text = with_expressions(text, counterparts, {name for name, file in homes.items() if file.startswith("shared/")})
    wide = ("--line-length", "120")
    text = ruff("check", text, *wide, "--select", "I,F401,F841", "--fix-only", "--unsafe-fixes")
    text = ruff("format", text, *wide, "--config", "format.skip-magic-trailing-comma = true")
    text = re.sub(r"  # fmt: skip$", "", filled(text), flags=re.MULTILINE)
    text = with_joined_attributes(with_comments(without_blank_lines(text)))
    return script_metadata(text, backends, wide=True) + "\n" + text + "\n" + source_lines(text, homes)


def split_plain(text: str) -> tuple[str, dict[str, tuple[str, str]]]:
    """A plain copy without its last lines; and of each definition that these name, its file and its hash."""
    body, mark, lines = text.partition("\n" + SOURCES + "\n")
    listed = " ".join(line.removeprefix("# ") for line in lines.splitlines())
    found = {}
    for group in filter(None, listed.split("; ")):
        file, _, entries = group.partition(": ")
        home, _, rest = file.partition("/")
        file = f"{HOMES[home]}/{rest}.py" if home in HOMES else f"shared/{file.removeprefix('shared/')}.py"
        found |= {name: (file, digest) for name, _, digest in (entry.partition(" ") for entry in entries.split(", "))}
    return body if mark else text, found


def joined(pieces: list[Piece]) -> Iterator[str]:
    """The source of definitions, constants in a row together."""
    for constants, group in itertools.groupby(pieces, key=lambda piece: is_constant(piece.source)):
        sources = [piece.source for piece in group]
        yield from ["\n".join(sources)] if constants else sources


SOURCES = "# Copied from Keras Recipes: by file, each definition with the hash of its text, for `recipes copy --check`."


HOMES = {"recipes": "recipes", "plain": PLAIN}
"""The folders that files in these lines are in, by the names that they have there; the others are in `shared`."""


SHORT = 4
"""Digits of a hash in these lines."""


BANNER = re.compile(r"^# -{20,} (.*)\n", re.MULTILINE)


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
        entries.setdefault(homes[name], []).append(f"{name} {block_hash(source)[:SHORT]}")
    listed = "; ".join(
        f"{file.replace(PLAIN, 'plain', 1).removeprefix('shared/').removesuffix('.py')}: {', '.join(each)}"
        for file, each in entries.items()
    )
    lines = [SOURCES.removeprefix("# "), *textwrap.wrap(listed, 118, break_on_hyphens=False)]
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
    homes = installed_packages()
    needed = {plain_name(home) for name in imported for home in homes.get(name, ())}
    needed |= {plain_name(companion) for name in needed for companion in COMPANIONS.get(name, ())}
    base = [line for line in importlib.metadata.requires("keras-recipes") if "extra ==" not in line]
    # Some tools that build a project sort and normalize its requirements, and some do not.
    normalized = sorted(re.sub(r"^[\w.-]+", plain_name(line), line) for line in base)
    lines = [line for line in normalized if plain_name(line) in needed] + list(backends)
    dependencies = "".join(f'#     "{line}",\n' for line in lines)
    python = importlib.metadata.metadata("keras-recipes")["Requires-Python"]
    if wide:
        listed = textwrap.wrap(", ".join(f'"{line}"' for line in lines) + "]", 100, break_on_hyphens=False)
        dependencies = "dependencies = [" + "\n#     ".join(listed)
        return f'# /// script\n# requires-python = "{python}"\n# {dependencies}\n# ///\n'
    return f'# /// script\n# requires-python = "{python}"\n# dependencies = [\n{dependencies}# ]\n# ///\n'


@functools.cache
def installed_packages() -> Mapping[str, list[str]]:
    """By name of a package that can be imported, the distributions that it comes with."""
    return importlib.metadata.packages_distributions()


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
        ast.parse(text)
    except SyntaxError as error:
        raise UsageError(f"{path} is not Python (line {error.lineno}): give a file that  recipes copy  wrote") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path} ({error}): give a file that  recipes copy  wrote") from None
    header, blocks = split_blocks(text)
    body, listed = split_plain(text)
    recipes = [file for file, name, _, _ in blocks if name == "recipe"]
    recipes += sorted({file for file, _ in listed.values() if file.startswith("recipes/")})
    if len(recipes) != 1:
        raise UsageError(f"{path} is not a copy of a recipe, or its markers are gone: copy again with  recipes copy")
    backends = tuple(name for name in dependencies_of(text) if name in BACKENDS)
    fresh = copied_source(recipe_path(Path(recipes[0]).stem), backends, full=not listed)
    if listed:
        now = {(file, name): digest for name, (file, digest) in split_plain(fresh)[1].items()}
        here = {name: block_hash(source)[:SHORT] for name, source in definitions_in(text).items()}
        found = [(file, name, digest, here.get(name)) for name, (file, digest) in listed.items()]
        rest = body == split_plain(fresh)[0]
    else:
        fresh_header, fresh_blocks = split_blocks(fresh)
        now = {(file, name): digest for file, name, digest, _ in fresh_blocks}
        found = [(file, name, digest, block_hash(source)) for file, name, digest, source in blocks]
        rest = header == fresh_header
    differences = []
    for file, name, digest, digest_here in found:
        if digest_here != digest:
            differences.append(f"edited  {file}: {name}")
        if (file, name) not in now:
            differences.append(f"stale   {file}: {name} is no longer used")
        elif now.pop((file, name)) != digest:
            differences.append(f"stale   {file}: {name} was changed")
    differences += [f"stale   {file}: {name} is new" for file, name in now]
    if not differences and not rest:
        differences.append(
            f"edited  {'lines beside the definitions' if listed else 'the lines above the first marker'}"
        )
    return differences


def dependencies_of(header: str) -> list[str]:
    """The requirements that the metadata of a copy lists; none where it is damaged."""
    metadata = re.search(r"^# /// script\n((?:#.*\n)*?)# ///$", header, re.MULTILINE)
    try:
        return tomllib.loads(re.sub(r"^# ?", "", metadata[1], flags=re.MULTILINE))["dependencies"]
    except (TypeError, KeyError, tomllib.TOMLDecodeError):
        return []
