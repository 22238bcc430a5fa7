"""A recipe and what it uses of `shared`, in one file that needs nothing from here."""

import ast
import hashlib
import importlib.metadata
import itertools
import re
import subprocess
import symtable
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from shared.backends.choice import BACKENDS
from shared.errors import UsageError
from shared.tools.project import PROJECT, recipe_path

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


@dataclass
class SourceFile:
    """A Python file, cut into its imports and its other statements, each with the comments above it."""

    path: Path
    text: str
    docstring: str = ""
    imports: dict[str, list[tuple[int, str, str]]] = field(default_factory=dict)
    """For each name that an import binds: line, module ("" for `import x`) and the imported name."""
    definitions: dict[str, str] = field(default_factory=dict)
    """Source of each top-level function, class and constant, by name."""
    statements: list[str] = field(default_factory=list)
    """Source of each top-level statement but the imports, in order."""
    problems: list[str] = field(default_factory=list)
    """What keeps it from being copied, each with its line."""

    def __post_init__(self):
        tree = ast.parse(self.text)
        self.read_imports(tree)
        lines = self.text.splitlines()
        end, constants = 0, []
        for node in tree.body:
            source = "\n".join(lines[end : node.end_lineno]).strip("\n")
            bound = names_bound(node)
            is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            end = node.end_lineno
            if is_text and node is tree.body[0]:
                self.docstring = "\n".join(lines[node.lineno - 1 : end])
            elif is_text and constants:  # says what a constant means
                self.statements[-1] += "\n" + source
                self.definitions |= dict.fromkeys(constants, self.statements[-1])
            elif not isinstance(node, ast.Import | ast.ImportFrom) and not guards_backend(node):
                self.statements.append(source)
                self.definitions |= dict.fromkeys(bound, source)
                if self.path.relative_to(PROJECT).parts[0] == "shared" and not bound and not is_main_guard(node):
                    self.problem(node.lineno, "does work at import, which a copy would leave out")
            constants = bound if isinstance(node, ast.Assign | ast.AnnAssign) else []

    def problem(self, line: int, reason: str) -> None:
        self.problems.append(f"{self.path.relative_to(PROJECT)}:{line}: {reason}")

    def read_imports(self, tree: ast.Module) -> None:
        outer = {id(node) for node in tree.body} | {
            id(node) for guard in tree.body if guards_backend(guard) for node in ast.walk(guard)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [(alias, "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(alias, "." * node.level + (node.module or "")) for alias in node.names]
            else:
                continue
            for alias, module in names:
                self.check_import(node.lineno, module, alias, id(node) in outer)
                if id(node) in outer:
                    bound = alias.asname or (alias.name if module else alias.name.partition(".")[0])
                    imported = f"{alias.name} as {alias.asname}" if alias.asname else alias.name
                    self.imports.setdefault(bound, []).append((node.lineno, module, imported))

    def check_import(self, line: int, module: str, alias: ast.alias, outer: bool) -> None:
        package = (module or alias.name).partition(".")[0]
        if module.startswith("."):
            self.problem(line, "a relative import: write  from shared.x import a")
        elif package == "recipes":
            self.problem(line, "imports from a recipe: move what both use to shared")
        elif alias.name == "*":
            self.problem(line, f"from {module} import *: import by name")
        elif package == "shared":
            if not module or module == "shared":
                self.problem(line, f"imports the module {alias.name}: write  from shared.x import a")
            elif alias.asname:
                self.problem(line, f"{alias.name} as {alias.asname}: names from shared keep their names")
            elif not outer:
                self.problem(line, "imports from shared inside a function: put it at the top of the file")


def guards_backend(node: ast.stmt) -> bool:
    """Whether a statement is part of what stands before `import keras` in a recipe: a copy needs no guard, its
    dependencies being its own."""
    return isinstance(node, ast.Try | ast.Expr) and "require_backend" in ast.unparse(node)


def is_main_guard(node: ast.stmt) -> bool:
    """Whether a statement is `if __name__ == "__main__"`."""
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)


def names_bound(node: ast.stmt) -> list[str]:
    """The names that a function, a class or an assignment binds."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]


def names_used(source: str) -> set[str]:
    """The names that statements look up outside themselves: globals and builtins, annotations included."""

    def walk(table: symtable.SymbolTable) -> Iterator[str]:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global()):
                yield symbol.get_name()
        for child in table.get_children():
            yield from walk(child)

    return set(walk(symtable.symtable(source, "<source>", "exec")))


class Collection:
    """A recipe, the definitions of `shared` that it uses, and the imports that these and it need.

    Args:
        recipe: path of the recipe.
    """

    def __init__(self, recipe: Path):
        self.files: dict[str, SourceFile] = {}
        self.wanted: dict[str, set[str]] = {}
        self.order: list[str] = []
        self.imports: dict[str, set[str]] = {}
        self.recipe = SourceFile(recipe, recipe.read_text(encoding="utf-8"))
        self.problems = self.recipe.problems
        for name in sorted(names_used("\n".join(self.recipe.statements))):
            self.resolve(self.recipe, name)
        for bound in self.recipe.imports:  # modules in the order in which the recipe names them
            for _, module, _ in self.recipe.imports[bound]:
                self.place(module)
        self.check_names()

    def resolve(self, file: SourceFile, name: str) -> None:
        """Takes in what a name means in a file."""
        if name in file.definitions:
            if file is not self.recipe:
                self.want(".".join(file.path.relative_to(PROJECT).with_suffix("").parts), name)
            return
        for line, module, imported in file.imports.get(name, []):
            if module.startswith("shared."):
                self.want(module, imported, (file, line))
            else:
                self.imports.setdefault(name, set()).add(
                    f"from {module} import {imported}" if module else f"import {imported}"
                )

    def want(self, module: str, name: str, where: tuple[SourceFile, int] | None = None) -> None:
        """Takes in a definition and all that it uses."""
        if name in self.wanted.get(module, ()):
            return
        if module not in self.files:
            path = PROJECT / (module.replace(".", "/") + ".py")
            if not path.exists():
                where[0].problem(where[1], f"there is no {module}")
                return
            self.files[module] = SourceFile(path, path.read_text(encoding="utf-8"))
            self.problems.extend(self.files[module].problems)
        file = self.files[module]
        if name not in file.definitions:
            where[0].problem(where[1], f"{name} is not defined in {module}: import it from where it is defined")
            return
        self.wanted.setdefault(module, set()).add(name)
        for used in sorted(names_used(file.definitions[name])):
            self.resolve(file, used)

    def place(self, module: str) -> None:
        """Puts a module in order, after those that it imports from."""
        if module in self.order or module not in self.wanted:
            return
        for found in self.files[module].imports.values():
            for _, imported_module, _ in found:
                self.place(imported_module)
        self.order.append(module)

    def check_names(self) -> None:
        """Notes names that would mean two things in one file."""
        homes: dict[str, set[str]] = {}
        for name in self.recipe.definitions:
            homes.setdefault(name, set()).add(str(self.recipe.path.relative_to(PROJECT)))
        for module in self.order:
            for name in self.wanted[module]:
                homes.setdefault(name, set()).add(module)
        for name, statements in self.imports.items():
            plain = {s for s in statements if s.startswith("import ") and " as " not in s}
            homes.setdefault(name, set()).update(statements - plain, {f"import {name}"} if plain else ())
        for name, places in homes.items():
            if len(places) > 1:
                line = next((i for i, text in enumerate(self.recipe.text.splitlines(), 1) if name in text), 1)
                self.recipe.problem(line, f"{name} would mean two things: {', '.join(sorted(places))}")

    def blocks(self) -> Iterator[tuple[str, str, str]]:
        """(file, name, source) of each definition in reading order, the rest of the recipe last."""
        for module in self.order:
            file = self.files[module]
            for name, source in file.definitions.items():
                if name in self.wanted[module]:
                    yield file.path.relative_to(PROJECT).as_posix(), name, source
        yield self.recipe.path.relative_to(PROJECT).as_posix(), "recipe", "\n\n\n".join(self.recipe.statements)


def copying_problems(recipe: Path) -> list[str]:
    """What keeps a recipe from being copied: a line "file:line: reason" each."""
    return sorted(set(Collection(recipe).problems))


def copied_source(recipe: Path, backends: tuple[str, ...] = BACKENDS) -> str:
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


def script_metadata(text: str, backends: tuple[str, ...]) -> str:
    """The comment of PEP 723 that lists what a file needs, as far as this project's own requirements name it."""
    strings = set(re.findall(r"[\"'](\w+)[.\w]*[\"']", text))  # such as importlib.resources.files("mlxtend.data")
    imported = set(re.findall(r"^\s*(?:import|from) (\w+)", text, re.MULTILINE)) | strings
    homes = importlib.metadata.packages_distributions()
    needed = {plain_name(home) for name in imported for home in homes.get(name, ())}
    needed |= {plain_name(companion) for name in needed for companion in COMPANIONS.get(name, ())}
    base = [line for line in importlib.metadata.requires("keras-recipes") if "extra ==" not in line]
    lines = [line for line in base if plain_name(line) in needed] + list(backends)
    dependencies = "".join(f'#     "{line}",\n' for line in lines)
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
