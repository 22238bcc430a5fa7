"""The rules of the house, read from the source."""

import ast
import collections
import os
import re
import subprocess

import pytest
from conftest import PROJECT

pytestmark = pytest.mark.once

RECIPES = sorted((PROJECT / "recipes").glob("[a-z]*.py"))
SHARED = sorted((PROJECT / "shared").rglob("*.py"))
BACKEND_PACKAGES = {"tensorflow", "torch", "jax"}


def imports(path):
    """(line, module) of every import in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module


@pytest.mark.parametrize("path", RECIPES + SHARED, ids=lambda path: str(path.relative_to(PROJECT)))
def test_only_shared_backends_names_a_backend(path):
    for line, module in imports(path):
        where = f"{path}:{line} imports {module}"
        assert not module.startswith("keras.src"), where
        if "backends" not in path.parts:
            assert module.partition(".")[0] not in BACKEND_PACKAGES, where
    assert "Lambda(" not in path.read_text()
    assert not re.search(r"KERAS_BACKEND.\]\s*=", path.read_text())


@pytest.mark.parametrize("path", [path for path in SHARED if "layers" in path.parts], ids=lambda path: path.stem)
def test_layers_import_keras_alone_other_layers_and_what_a_backend_does_quicker(path):
    for line, module in imports(path):
        assert module.partition(".")[0] in ("collections", "keras", "math", "typing") or module.startswith(
            ("shared.backends.", "shared.layers.")
        ), f"{path}:{line}"


def test_imports_point_one_way():
    """The layers of the house, in pyproject.toml."""
    lint = ["lint-imports", "--no-cache"]
    process = subprocess.run(lint, cwd=PROJECT, env=os.environ | {"PYTHONPATH": "."}, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout


def test_top_level_names_are_unique():
    homes = collections.defaultdict(list)
    for path in SHARED:
        if "plain" in path.parts:  # counterparts, which have the names of the originals
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                homes[node.name].append(path)
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    homes[target.id].append(path)
    homes.pop("main")
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def test_shared_is_imported_by_name():
    for path in RECIPES + SHARED:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("shared") for alias in node.names), f"{path}:{node.lineno}"
            if isinstance(node, ast.ImportFrom) and node.module.startswith("shared"):
                assert not any(alias.asname or alias.name == "*" for alias in node.names), f"{path}:{node.lineno}"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_stay_readable(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 250
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert {"main", "build_model"} <= set(functions)
    for name, node in functions.items():
        assert node.end_lineno - node.lineno < 50, name


def test_public_functions_have_docstrings():
    for path in SHARED:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert ast.get_docstring(node), f"{path}:{node.lineno} {node.name}"


def opens_in_encoding_of_locale(call):
    """Whether a call opens a file as text, or runs a process that speaks text, without saying in which encoding."""
    options = {keyword.arg for keyword in call.keywords}
    match call.func:
        case ast.Attribute(attr="read_text" | "write_text"):
            return "encoding" not in options
        case ast.Name(id="open"):
            mode = ast.unparse(call.args[1]) if len(call.args) > 1 else "'r'"
            return "b" not in mode and "encoding" not in options
        case ast.Attribute(value=ast.Name(id="Image" | "gzip" | "os" | "tarfile")):
            return False
        case ast.Attribute(attr="open"):
            return "encoding" not in options
    return bool(options & {"text", "universal_newlines"}) and "encoding" not in options


@pytest.mark.parametrize("path", RECIPES + SHARED, ids=lambda path: str(path.relative_to(PROJECT)))
def test_no_file_is_read_or_written_in_the_encoding_of_the_locale(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert [f"{path}:{call.lineno}" for call in calls if opens_in_encoding_of_locale(call)] == []


def test_no_real_data_in_the_project():
    data = {".npz", ".npy", ".array_record", ".gz", ".zip", ".h5", ".keras", ".bin"}
    tracked = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True).stdout.splitlines()
    judge = "results/judges/fashion_mnist.keras"  # weights of a classifier, without which no two records would compare
    assert [name for name in tracked if any(name.endswith(suffix) for suffix in data)] == [judge]


def test_only_errors_and_files_lie_loose():
    assert {path.name for path in (PROJECT / "shared").glob("*.py")} == {"__init__.py", "errors.py", "files.py"}
