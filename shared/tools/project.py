"""The checkout: its root and its recipes."""

import ast
import re
from collections import Counter
from pathlib import Path

from shared.data.catalogue import DATA_SETS, DataSet
from shared.errors import UsageError

PROJECT = Path(__file__).resolve().parents[2]


def recipe_paths() -> list[Path]:
    """Paths of the recipes, by name."""
    return sorted(path for path in (PROJECT / "recipes").glob("*.py") if not path.name.startswith("_"))


def recipe_path(name: str) -> Path:
    """The path of a recipe.

    Raises:
        UsageError: there is none of that name.
    """
    names = {path.stem: path for path in recipe_paths()}
    if name not in names:
        raise UsageError(f"there is no recipe {name}: choose one of {', '.join(names)}")
    return names[name]


def task_of(recipe: Path) -> str:
    """What a recipe does: the first line of its docstring, without the full stop."""
    return ast.get_docstring(syntax_of(recipe)).partition("\n")[0].rstrip(".")


def syntax_of(recipe: Path) -> ast.Module:
    """The syntax tree of a recipe: what is known of it without importing Keras."""
    return ast.parse(recipe.read_text(encoding="utf-8"))


def field_of(recipe: Path) -> str:
    """The field of a recipe, such as "text": the folder of `shared`, common ones apart, that it imports most from."""
    common = {"backends", "data", "layers", "tools", "training"}
    modules = [node.module for node in ast.walk(syntax_of(recipe)) if isinstance(node, ast.ImportFrom)]
    folders = Counter(module.split(".")[1] for module in modules if re.match(r"shared\.\w+\.", module))
    fields = [folder for folder, _ in folders.most_common() if folder not in common]
    return fields[0] if fields else ""


def data_sets_of(recipe: Path) -> list[DataSet]:
    """The data sets that a recipe names, in its code or as --data in its docstring, or that its loader takes."""
    tree = syntax_of(recipe)
    names = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    names |= set(re.findall(r"--data (\w+)", ast.get_docstring(tree)))
    loaders = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    return [each for each in DATA_SETS if each.name in names or each.loader in loaders]
