"""The checkout: its root and its recipes."""

import ast
from pathlib import Path

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
    """Task of a recipe: the first line of its docstring, without the full stop."""
    return ast.get_docstring(ast.parse(recipe.read_text(encoding="utf-8"))).partition("\n")[0].rstrip(".")
