"""A recipe and the definitions of `shared` that it uses, collected from their source."""

import ast
import copy
import functools
import symtable
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from shared.tools.project import PROJECT

PLAIN = "shared/tools/plain"
"""Where the counterparts are that a plain copy takes in place of the originals."""


@functools.lru_cache(1024)
def parsed(text: str) -> ast.Module:
    """The syntax tree of a text, which is parsed once: not to be changed."""
    return ast.parse(text)


@functools.lru_cache(4096)
def nodes_of(tree: ast.AST) -> tuple[ast.AST, ...]:
    """All nodes of a syntax tree, which is walked once."""
    return tuple(ast.walk(tree))


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
        tree = parsed(self.text)
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
            id(node) for guard in tree.body if guards_backend(guard) for node in nodes_of(guard)
        }
        for node in nodes_of(tree):
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


@functools.lru_cache(256)
def first_reading(path: Path, text: str) -> SourceFile:
    """A file as `source_file` found it first."""
    return SourceFile(path, text)


def source_file(path: Path, text: str) -> SourceFile:
    """A file with the text, to note problems in; texts that were read before are not read again."""
    file = copy.copy(first_reading(path, text))
    file.problems = list(file.problems)
    return file


def without_export(recipe: str) -> str:
    """The source of a recipe without what only `recipes export` and `recipes serve` ask its predictor for."""
    lines = recipe.splitlines(keepends=True)
    for node in nodes_of(parsed(recipe)):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith((".exported", ".several")):
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    return "".join(lines)


def guards_backend(node: ast.stmt) -> bool:
    """Whether a statement is part of what stands before `import keras` in a recipe: a copy needs no guard, its
    dependencies being its own."""
    return isinstance(node, ast.Try | ast.Expr) and "require_backend" in ast.unparse(node)


def is_main_guard(node: ast.stmt) -> bool:
    """Whether a statement is `if __name__ == "__main__"`."""
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)


def counterpart_of(module: str) -> ast.Module | None:
    """The syntax tree of what a plain copy takes in place of a module, where there is something."""
    path = PROJECT / (module.replace("shared", PLAIN, 1).replace(".", "/") + ".py")
    return parsed(path.read_text(encoding="utf-8")) if module.startswith("shared.") and path.exists() else None


def module_of(path: Path) -> str:
    """The module of a file, for a counterpart that of its original."""
    place = path.relative_to(PROJECT).with_suffix("").as_posix()
    return place.replace(PLAIN, "shared", 1).replace("/", ".")


def names_bound(node: ast.stmt) -> list[str]:
    """The names that a function, a class or an assignment binds."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]


@functools.lru_cache(2048)
def names_used(source: str) -> frozenset[str]:
    """The names that statements look up outside themselves: globals and builtins, annotations included."""

    def walk(table: symtable.SymbolTable) -> Iterator[str]:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global()):
                yield symbol.get_name()
        for child in table.get_children():
            yield from walk(child)

    return frozenset(walk(symtable.symtable(source, "<source>", "exec")))


class Collection:
    """A recipe, the definitions of `shared` that it uses, and the imports that these and it need.

    Args:
        recipe: path of the recipe.
        plain: whether to take the counterparts in `PLAIN` where there are some.
        edit: what to make of the text of each file before it is read.
    """

    def __init__(self, recipe: Path, plain: bool = False, edit: Callable[[str], str] = str):
        self.plain = plain
        self.edit = edit
        self.files: dict[str, SourceFile | None] = {}
        self.wanted: dict[str, set[str]] = {}
        self.order: list[str] = []
        self.imports: dict[str, set[str]] = {}
        self.recipe = source_file(recipe, edit(without_export(recipe.read_text(encoding="utf-8"))))
        self.problems = self.recipe.problems
        for name in sorted(names_used("\n".join(self.recipe.statements))):
            self.resolve(self.recipe, name)
        for bound in () if plain else self.recipe.imports:  # modules in the order in which the recipe names them
            for _, module, _ in self.recipe.imports[bound]:
                self.place(module)
        self.order = self.order or list(self.wanted)
        self.check_names()

    def read(self, module: str) -> SourceFile | None:
        """The file of a module; None where there is none."""
        if module not in self.files:
            path = PROJECT / (module.replace(".", "/") + ".py")
            file = source_file(path, self.edit(path.read_text(encoding="utf-8"))) if path.exists() else None
            self.problems.extend(file.problems if file else ())
            self.files[module] = file
        return self.files[module]

    def resolve(self, file: SourceFile, name: str) -> None:
        """Takes in what a name means in a file."""
        if name in file.definitions:
            if file is not self.recipe:
                self.want(module_of(file.path), name)
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
        if self.plain:
            counterpart = module.replace("shared", PLAIN.replace("/", "."), 1)
            file = self.read(counterpart)
            if file and name in file.definitions:
                module = counterpart
            elif file and any(not home.startswith("shared.") for _, home, _ in file.imports.get(name, ())):
                self.resolve(file, name)  # from a package
                return
        if name in self.wanted.get(module, ()):
            return
        if not (file := self.read(module)):
            where[0].problem(where[1], f"there is no {module}")
            return
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
        for module in self.wanted:
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
