"""Recipes copied away: the file, what it does elsewhere, and what `--check` says of it."""

import ast
import importlib
import json
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import PROJECT, all_but_one_slow
from keras.saving import load_model

from shared.tools import copying, project
from shared.tools.copying import check_copy, copied_source, copying_problems, split_blocks
from shared.tools.project import recipe_paths

RECIPES = pytest.mark.parametrize("recipe", recipe_paths(), ids=lambda path: path.stem)
NAMES = [path.stem for path in recipe_paths()]
NOT_HERE = ("shared", "recipes")


def recipes(run_python, *arguments, **keywords):
    return run_python("-m", "shared.tools.cli", *arguments, **keywords)


@pytest.mark.once
@RECIPES
def test_recipes_can_be_copied(recipe):
    assert copying_problems(recipe) == []


IMPORTED = """
import importlib, importlib.util, sys
assert importlib.util.find_spec("shared") is None
for name in sys.argv[1:]:
    importlib.import_module(name).Config.for_preset("full")
"""


@pytest.mark.once
def test_copies_are_imported_without_the_project(run_python, hiding, tmp_path):
    (tmp_path / "away").mkdir()
    for path in recipe_paths():
        (tmp_path / "away" / path.name).write_text(copied_source(path))
    away = hiding(*NOT_HERE)
    away["PYTHONPATH"] += f":{tmp_path / 'away'}"
    run_python("-c", IMPORTED, *NAMES, check=0, **away)


@pytest.mark.once
@pytest.mark.parametrize("recipe", all_but_one_slow(NAMES, "transformer_translation"))
def test_a_copy_does_what_the_recipe_does(recipe, run_python, run_recipe, hiding, tmp_path):
    arguments = ("--preset", "test")
    recipes(run_python, "copy", recipe, "away", check=0)
    run_python(f"away/{recipe}.py", *arguments, "--out", "copy", check=0, **hiding(*NOT_HERE))
    run_recipe(recipe, *arguments, "--out", "original", check=0)
    ours, theirs = (json.loads((tmp_path / run / "result.json").read_text()) for run in ("original", "copy"))
    assert theirs["metrics"] == ours["metrics"]
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {p.name for p in (tmp_path / "original").iterdir()}

    load = (
        "import sys, importlib, keras, numpy as np; importlib.import_module(sys.argv[1]);"
        "np.savez('away.npz', *[w for run in ('original', 'copy')"
        "         for w in keras.saving.load_model(f'{run}/model.keras').get_weights()])"
    )
    away = hiding(*NOT_HERE)
    away["PYTHONPATH"] += f":{tmp_path / 'away'}"
    run_python("-c", load, recipe, check=0, **away)
    importlib.import_module(f"recipes.{recipe}")
    models = [load_model(tmp_path / run / "model.keras") for run in ("original", "copy")]
    here = [weight for model in models for weight in model.get_weights()]
    with np.load(tmp_path / "away.npz") as archive:
        there = [archive[name] for name in archive.files]
    half = len(here) // 2
    for weight, same in zip(here[:half] * 2, here[half:] + there[half:], strict=True):
        np.testing.assert_array_equal(weight, same)


@pytest.mark.once
@RECIPES
def test_the_file_reads_well(recipe, tmp_path):
    path = tmp_path / recipe.name
    path.write_text(copied_source(recipe))
    for command in ("check", "format --check"):
        process = subprocess.run(
            [sys.executable, "-m", "ruff", *command.split(), path.name], cwd=tmp_path, capture_output=True, text=True
        )
        assert process.returncode == 0, process.stdout + process.stderr
    text = path.read_text()
    tree = ast.parse(text)
    assert (
        ast.get_docstring(tree).partition("\n")[0]
        == ast.get_docstring(ast.parse(recipe.read_text())).partition("\n")[0]
    )
    assert "recipes/" not in ast.get_docstring(tree)
    modules = {name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in [node.module]}
    assert not any(module.startswith(("shared", "recipes")) for module in modules)

    _, blocks = split_blocks(text)
    assert blocks[-1][1] == "recipe"
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for file, name, _, source in blocks[:-1]:
        assert name in used, f"{file}: {name} is copied and not used"
        original = (PROJECT / file).read_text()
        for comment in re.findall(r"# .*", source):
            assert comment in original


@pytest.mark.once
@RECIPES
def test_the_metadata_names_what_the_file_needs(recipe, tmp_path):
    text = copied_source(recipe, ("jax",))
    dependencies = copying.dependencies_of(text)
    assert "jax" in dependencies
    assert "torch" not in dependencies
    assert {"keras>=3.15", "numpy"} <= set(dependencies)
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(text))
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else
                     [node.module] if isinstance(node, ast.ImportFrom) else [])
    } - set(sys.stdlib_module_names) - {"torch", "tensorflow"}  # fmt: skip
    listed = {re.match(r"[\w-]+", line)[0].replace("-", "_") for line in dependencies}
    names = {"PIL": "pillow", "skimage": "scikit_image", "yaml": "pyyaml"}
    assert {names.get(name, name) for name in imported} <= listed
    for package, name in {"mlxtend": "mlxtend", "skimage": "scikit-image"}.items():
        if package in text:
            assert name in dependencies


@pytest.mark.once
def test_check(run_python, tmp_path, monkeypatch):
    recipes(run_python, "copy", "cnn_cifar10", ".", "--backends", "jax", check=0)
    path = tmp_path / "cnn_cifar10.py"
    text = path.read_text()
    assert recipes(run_python, "copy", "--check", "cnn_cifar10.py", check=0).stdout == "current  cnn_cifar10.py\n"

    path.write_text(text.replace("flipped = rng.random(len(images)) < 0.5", "flipped = rng.random(len(images)) < 0.4"))
    process = recipes(run_python, "copy", "--check", "cnn_cifar10.py", check=1)
    assert process.stdout == "edited  shared/images/augment.py: random_flip\n"
    path.write_text(text.replace("GlobalMaxPooling2D", "GlobalAveragePooling2D"))
    assert check_copy(path) == ["edited  recipes/cnn_cifar10.py: recipe"]
    path.write_text(text.replace("import numpy as np", "import numpy as np  # my own"))
    assert check_copy(path) == ["edited  the lines above the first marker"]

    path.write_text(text)
    changed = tmp_path / "project"
    for folder in ("recipes", "shared"):
        for source in (PROJECT / folder).rglob("*.py"):
            target = changed / source.relative_to(PROJECT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(source.read_text())
    for module in (copying, project):
        monkeypatch.setattr(module, "PROJECT", changed)
    assert check_copy(path) == []
    augment = changed / "shared/images/augment.py"
    augment.write_text(augment.read_text().replace("< 0.5", "< 0.25").replace("def mirror_index", "def reflected_index")
                       .replace("mirror_index(np", "reflected_index(np"))  # fmt: skip
    assert check_copy(path) == [
        "stale   shared/images/augment.py: random_flip was changed",
        "stale   shared/images/augment.py: random_crop was changed",
        "stale   shared/images/augment.py: mirror_index is no longer used",
        "stale   shared/images/augment.py: reflected_index is new",
    ]


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cnn_cifar11"], "there is no recipe cnn_cifar11: choose one of cnn_cifar10"),
        ([], "name the recipe to copy"),
        (["cnn_cifar10", "file"], "cannot write file/cnn_cifar10.py"),
        (["cnn_cifar10", "/proc/there"], "cannot write /proc/there/cnn_cifar10.py"),
        (["cnn_cifar10", "used"], "used/cnn_cifar10.py exists already: add --force"),
        (["cnn_cifar10", "--backends", "caffe"], "--backends must be of jax, torch, tensorflow"),
        (["--check", "nowhere.py"], "cannot read nowhere.py"),
        (["--check", "file"], "file is not a copy of a recipe"),
    ],
)
def test_wrong_use(run_python, tmp_path, arguments, message):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "used").mkdir()
    (tmp_path / "used/cnn_cifar10.py").write_text("precious")
    process = recipes(run_python, "copy", *arguments)
    assert process.returncode == 2
    assert process.stderr.startswith(f"error: {message}")
    assert process.stderr.count("\n") == 1
    assert (tmp_path / "file").read_text() == (tmp_path / "used/cnn_cifar10.py").read_text() == "precious"


@pytest.mark.once
def test_force_replaces(run_python, tmp_path):
    (tmp_path / "cnn_cifar10.py").write_text("old")
    recipes(run_python, "copy", "cnn_cifar10", "--force", check=0)
    assert check_copy(tmp_path / "cnn_cifar10.py") == []


GOOD = '"""Does something."""\n\nfrom shared.training.schedules import WarmupCosine\n\nprint(WarmupCosine)\n'


@pytest.mark.once
@pytest.mark.parametrize(
    ("source", "line", "reason"),
    [
        ("from shared.training.schedules import WarmupCosine as w\n", 1, "names from shared keep their names"),
        ("from shared.training.schedules import *\n", 1, "import by name"),
        ("\nimport shared.training.schedules\n", 2, "imports the module shared.training.schedules"),
        ("from shared import schedules\n", 1, "imports the module schedules"),
        ("from .other import a\n", 1, "a relative import"),
        ("from recipes.cnn_cifar10 import Config\n", 1, "imports from a recipe"),
        ("def main():\n    from shared.training.schedules import WarmupCosine\n", 2, "inside a function"),
        ("from shared.nothing import a\nprint(a)\n", 1, "there is no shared.nothing"),
        ("from shared.training.run import UsageError\nprint(UsageError)\n", 1, "import it from where it is defined"),
        ("from shared.data.places import fingerprint_of\ndef file_hash(): fingerprint_of\n", 2,
         "file_hash would mean two things: recipes/bad.py, shared.data.places"),
        ("from time import time as np\nfrom shared.images.metrics import softmax\nprint(np, softmax)\n", 1,
         "np would mean two things: from time import time as np, import numpy as np"),
    ],
)  # fmt: skip
def test_what_cannot_be_copied_is_said_with_its_line(tmp_path, monkeypatch, source, line, reason):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "shared").symlink_to(PROJECT / "shared")
    monkeypatch.setattr(copying, "PROJECT", tmp_path)
    recipe = tmp_path / "recipes/bad.py"
    recipe.write_text(source)
    (problem,) = copying_problems(recipe)
    assert problem.startswith(f"recipes/bad.py:{line}: ")
    assert reason in problem
    recipe.write_text(GOOD)
    assert copying_problems(recipe) == []


@pytest.mark.slow
def test_a_notebook_runs_top_to_bottom(run_python, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    recipes(run_python, "copy", "cnn_cifar10", "--notebook", check=0)
    notebook = nbformat.read(tmp_path / "cnn_cifar10.ipynb", as_version=4)
    nbformat.validate(notebook)
    smaller = 'for_preset("smoke", data="mnist5k", epochs=1, train_examples=500, '
    for cell in notebook.cells:
        cell.source = cell.source.replace('for_preset("smoke", ', smaller)
    monkeypatch.chdir(tmp_path)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 3
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "result.json").read_text())["backend"] == keras.config.backend()
