"""Recipes copied away: the file, what it does elsewhere, and what `--check` says of it."""

import ast
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import typing

import keras
import nbformat
import numpy as np
import pytest
from conftest import PROJECT, all_but_one_slow, directory_with, refused_in_one_line
from keras.saving import load_model
from PIL import Image

from shared.backends.choice import BACKENDS
from shared.backends.runtime import synchronize_state
from shared.data.text.characters import load_text
from shared.tools import collecting, copying, plain_copy, project
from shared.tools.compare.worker import silence
from shared.tools.copying import check_copy, copied_source, copying_problems, definitions_in, split_blocks, split_plain
from shared.tools.notebook import copied_notebook, example_call
from shared.tools.plain.training.options import Options as PlainOptions
from shared.tools.plain.training.run import Run as PlainRun
from shared.tools.project import recipe_path, recipe_paths
from shared.training.batches import SeededBatches
from shared.training.run import Run
from shared.training.saving import save_model
from shared.training.tracking.tracker import TRACKERS

RECIPES = pytest.mark.parametrize("recipe", recipe_paths(), ids=lambda path: path.stem)
NAMES = [path.stem for path in recipe_paths()]
NOT_HERE = ("shared", "recipes")

MOST_LINES = {
    "cnn_cifar10": 600, "lstm_text": 600, "transfer_learning": 900, "seq2seq_chatbot": 900,
    "transformer_translation": 900, "gan_fashion": 900, "gpt_text": 900,
}  # fmt: skip
"""Of plain copies; 1,100 of the others."""


FORMS = pytest.mark.parametrize(
    ("recipe", "full"),
    [
        *(pytest.param(recipe_path(name), False, id=f"{name}, plain") for name in ("gan_fashion", "lstm_text")),
        *(pytest.param(path, True, id=path.stem) for path in recipe_paths()),
    ],
)
"""All full copies, and of the plain ones, which take longer to make, two."""


@functools.cache
def plain_copy_of(recipe, backends=BACKENDS):
    return copied_source(recipe, backends)


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
        (tmp_path / "away" / path.name).write_text(copied_source(path, full=True))
    away = hiding(*NOT_HERE)
    away["PYTHONPATH"] += f":{tmp_path / 'away'}"
    run_python("-c", IMPORTED, *NAMES, check=0, **away)


@pytest.mark.once
@pytest.mark.parametrize("recipe", all_but_one_slow(NAMES, "mlp_from_scratch"))
def test_a_copy_does_what_the_recipe_does(recipe, recipes_command, run_python, run_recipe, hiding, tmp_path):
    arguments = ("--preset", "test")
    recipes_command("copy", recipe, "away", "--full", check=0)
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
    path.write_text(copied_source(recipe, full=True))
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
@FORMS
def test_the_metadata_names_what_the_file_needs(recipe, full):
    text = copied_source(recipe, ("jax",), full=True) if full else plain_copy_of(recipe, ("jax",))
    dependencies = copying.dependencies_of(text)
    assert "jax" in dependencies
    assert "torch" not in dependencies
    assert {"keras>=3.15", "numpy"} <= set(dependencies)
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(text))
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else
                     [node.module] if isinstance(node, ast.ImportFrom) else [])
    } - set(sys.stdlib_module_names) - {"torch", "tensorflow"} - TRACKERS.keys()  # fmt: skip
    listed = {re.match(r"[\w-]+", line)[0].replace("-", "_") for line in dependencies}
    names = {"PIL": "pillow", "skimage": "scikit_image", "yaml": "pyyaml"}
    assert {names.get(name, name) for name in imported} <= listed
    for package, name in {"mlxtend": "mlxtend", "skimage": "scikit-image"}.items():
        if package in text:
            assert name in dependencies


@pytest.mark.once
def test_check_of_a_full_copy(recipes_command, tmp_path, monkeypatch):
    recipes_command("copy", "cnn_cifar10", ".", "--backends", "jax", "--full", check=0)
    path = tmp_path / "cnn_cifar10.py"
    text = path.read_text()
    assert recipes_command("copy", "--check", "cnn_cifar10.py", check=0).stdout == "current  cnn_cifar10.py\n"

    path.write_text(text.replace("flipped = rng.random(len(images)) < 0.5", "flipped = rng.random(len(images)) < 0.4"))
    process = recipes_command("copy", "--check", "cnn_cifar10.py", check=1)
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
    for module in (collecting, plain_copy, project):
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
def test_check_of_a_plain_copy(tmp_path, monkeypatch):
    path = tmp_path / "cnn_cifar10.py"
    text = plain_copy_of(recipe_path("cnn_cifar10"))
    path.write_text(text)
    assert check_copy(path) == []
    path.write_text(text.replace("flipped = rng.random(len(images)) < 0.5", "flipped = rng.random(len(images)) < 0.4"))
    assert check_copy(path) == ["edited  shared/images/augment.py: random_flip"]
    path.write_text(text.replace("GlobalMaxPooling2D", "GlobalAveragePooling2D"))
    assert check_copy(path) == ["edited  recipes/cnn_cifar10.py: build_model"]
    path.write_text(text.replace("import numpy as np", "import numpy as np  # my own"))
    assert check_copy(path) == ["edited  lines beside the definitions"]
    path.write_text(text.replace("def main(", "def main(:"))
    with refused_in_one_line("is not Python"):
        check_copy(path)

    path.write_text(text)
    for folder in ("recipes", "shared"):
        shutil.copytree(PROJECT / folder, tmp_path / "project" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for module in (collecting, plain_copy, project):
        monkeypatch.setattr(module, "PROJECT", tmp_path / "project")
    run = tmp_path / "project/shared/tools/plain/training/run.py"
    run.write_text(run.read_text().replace("dpi=120", "dpi=150"))
    assert check_copy(path) == ["stale   shared/tools/plain/training/run.py: Run was changed"]


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cnn_cifar11"], "there is no recipe cnn_cifar11: choose one of autoencoder"),
        ([], "name the recipe to copy"),
        (["cnn_cifar10", "file"], "cannot write file/cnn_cifar10.py"),
        (["cnn_cifar10", "/proc/there"], "cannot write /proc/there/cnn_cifar10.py"),
        (["cnn_cifar10", "used"], "used/cnn_cifar10.py exists already: add --force"),
        (["cnn_cifar10", "--backends", "caffe"], "--backends must be of jax, torch, tensorflow"),
        (["--check", "nowhere.py"], "cannot read nowhere.py"),
        (["--check", "file"], "file is not a copy of a recipe"),
    ],
)
def test_wrong_use(recipes_command, tmp_path, arguments, message):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "used").mkdir()
    (tmp_path / "used/cnn_cifar10.py").write_text("precious")
    process = recipes_command("copy", *arguments)
    assert process.returncode == 2
    assert process.stderr.startswith(f"error: {message}")
    assert process.stderr.count("\n") == 1
    assert (tmp_path / "file").read_text() == (tmp_path / "used/cnn_cifar10.py").read_text() == "precious"


@pytest.mark.once
def test_force_replaces(recipes_command, tmp_path):
    (tmp_path / "cnn_cifar10.py").write_text("old")
    recipes_command("copy", "cnn_cifar10", "--force", check=0)
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
    monkeypatch.setattr(collecting, "PROJECT", tmp_path)
    recipe = tmp_path / "recipes/bad.py"
    recipe.write_text(source)
    (problem,) = copying_problems(recipe)
    assert problem.startswith(f"recipes/bad.py:{line}: ")
    assert reason in problem
    recipe.write_text(GOOD)
    assert copying_problems(recipe) == []


@pytest.mark.once
@RECIPES
def test_predictions_of_notebooks_are_of_what_the_predictor_takes(recipe):
    call = example_call(recipe.read_text())
    ast.parse(call)
    assert (
        "predict(" in call and "predict()" not in call and '""' not in call.replace('"".join', "").replace('[""]', "")
    )


@pytest.mark.once
@FORMS
def test_a_notebook_ends_with_a_prediction(recipe, full):
    notebook = nbformat.reads(copied_notebook(recipe, full=full), as_version=4)
    nbformat.validate(notebook)
    sources = [cell.source for cell in notebook.cells]
    assert sources[0].startswith(f"# {ast.get_docstring(ast.parse(recipe.read_text())).splitlines()[0].rstrip('.')}\n")
    assert "predictor(finished)" in sources[-1]
    assert not any("if __name__" in source for source in sources)
    if not full:
        titles = [source.splitlines()[0][3:] for source in sources if source.startswith("## ")]
        assert titles == ["The recipe", *plain_copy.SECTIONS, "Run it", "Use the model"]


def coloured_folder(folder):
    """A folder of red and of blue images."""
    for name, colour in (("red", (220, 40, 40)), ("blue", (40, 40, 220))):
        (folder / name).mkdir(parents=True)
        for number in range(150):
            pixels = np.random.default_rng(number).integers(-40, 35, (32, 32, 3)) + colour
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True], ids=["plain", "full"])
def test_a_notebook_runs_top_to_bottom(full, run_python, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    recipes(run_python, "copy", "cnn_cifar10", "--notebook", *["--full"] * full, check=0)
    notebook = nbformat.read(tmp_path / "cnn_cifar10.ipynb", as_version=4)
    data = "mnist5k" if full else str(coloured_folder(tmp_path / "images"))
    options = "epochs=6, batch_size=10, learning_rate=0.02, train_examples=100"
    smaller = f'for_preset("smoke", data="{data}", {options}, '
    for cell in notebook.cells:
        cell.source = cell.source.replace('for_preset("smoke", ', smaller)
    monkeypatch.chdir(tmp_path)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 3
    assert "dict" in type(ast.literal_eval(notebook.cells[-1].outputs[-1]["data"]["text/plain"])).__name__
    (run,) = (tmp_path / "runs").iterdir()
    result = json.loads((run / "result.json").read_text())
    assert result["metrics"]["top1"] > (0 if full else 0.9)


@pytest.mark.slow
@pytest.mark.once
def test_a_plain_copy_runs_with_nothing_installed_but_what_it_names(run_python, tmp_path):
    recipes(run_python, "copy", "cnn_cifar10", "--backends", "jax", check=0)
    needed = copying.dependencies_of((tmp_path / "cnn_cifar10.py").read_text())
    run_python("-m", "venv", "environment", check=0)
    python = tmp_path / "environment/bin/python"
    install = ("-m", "pip", "--python", python, "install", "--quiet", "-c", PROJECT / "constraints.txt")
    run_python(*install, *needed, check=0)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.run(
        [python, "cnn_cifar10.py", "--preset", "smoke", "--data", coloured_folder(tmp_path / "images"),
         "--epochs", "6", "--batch-size", "10", "--train-examples", "100", "--learning-rate", "0.02", "--out", "run"],
        cwd=tmp_path, env=environment | {"KERAS_BACKEND": "jax"}, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert json.loads((tmp_path / "run/result.json").read_text())["metrics"]["top1"] > 0.9


@pytest.mark.slow
@pytest.mark.in_turn
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("recipe", "data", "metric"),
    [("cnn_cifar10", "tfds/cifar10", "top1"), ("lstm_text", "tfds/tiny_shakespeare", "validation_nats")],
)
def test_the_smoke_metric_of_a_plain_copy_is_that_of_the_recipe(
    recipe, data, metric, run_python, run_recipe, hiding, tmp_path
):
    arguments = ["--preset", "smoke", "--data-dir", directory_with(data)]
    if recipe == "lstm_text":  # of which a copy downloads its own
        text = load_text("tiny_shakespeare", arguments[-1])
        codes = np.concatenate([text.train, text.validation, text.test])
        (tmp_path / "text.txt").write_text("".join(text.alphabet[code] for code in codes))
        arguments += ["--data", "text.txt"]
    recipes(run_python, "copy", recipe, "away", check=0)
    for seed in range(3):
        run_recipe(recipe, *arguments, "--seed", str(seed), "--out", f"original-{seed}", check=0)
    for seed in range(2):  # which has other images to train on, as well as other weights
        own = ("--seed", str(seed), "--out", f"copy-{seed}")
        run_python(f"away/{recipe}.py", *arguments, *own, check=0, **hiding(*NOT_HERE))
    values = {
        path.parent.name: json.loads(path.read_text())["metrics"][metric] for path in tmp_path.glob("*/result.json")
    }
    ours = [value for name, value in values.items() if name.startswith("original")]
    theirs = [value for name, value in values.items() if name.startswith("copy")]
    print(values)
    assert len(ours) == 3 and len(theirs) == 2
    # Of five runs that differ by chance alone, two lie so far from the mean of the others about once in a thousand.
    assert abs(np.mean(theirs) - np.mean(ours)) < 4 * max(np.std(ours, ddof=1), 0.01 * np.mean(ours))


class Ramp(SeededBatches):
    batches_per_epoch = batch_size = 2

    def make_batch(self, index, rng):
        x = np.arange(4, dtype="float32").reshape(2, 2) + index
        return x, x.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("ema", [False, True])
def test_the_run_of_a_plain_copy_saves_a_model_that_was_evaluated(ema, tmp_path):
    run = PlainRun(PlainOptions(epochs=2, batch_size=2, learning_rate=0.1, out=tmp_path))
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01, use_ema=ema), "mse")
    run.fit(model, Ramp(0), data="a ramp", validation_data=Ramp(0)[0])
    loss = model.evaluate(*Ramp(0)[0], verbose=0)
    run.finish(model, "a ramp", "loss", {"loss": loss}, higher_is_better=False)
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.evaluate(*Ramp(0)[0], verbose=0) == pytest.approx(loss, rel=1e-6)
    assert run.history[-1]["val_loss"] == pytest.approx(loss, rel=1e-5), "the averages are validated, and kept"


TOO_LONG = (
    "seq2seq_chatbot", "transformer_translation", "gpt_text", "autoencoder",
)  # fmt: skip


@pytest.mark.once
@pytest.mark.parametrize("recipe", [
    pytest.param(path, marks=pytest.mark.xfail(strict=True, reason="longer than it should be") if path.stem in TOO_LONG
                 else [], id=path.stem) for path in recipe_paths()
])  # fmt: skip
def test_a_plain_copy_is_short(recipe):
    assert plain_copy_of(recipe).count("\n") <= MOST_LINES.get(recipe.stem, 1100)


@pytest.mark.once
@RECIPES
def test_a_plain_copy_reads_downwards(recipe, tmp_path):
    text = plain_copy_of(recipe)
    path = tmp_path / recipe.name
    path.write_text(text)
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E,F,I", "--line-length", "120", path]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout

    tree = ast.parse(text)
    lines = {node.name: node.lineno for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert lines["Config"] <= 120
    parts = [getattr(node, name, ()) for node in ast.walk(tree) for name in ("body", "orelse")]
    before_the_last = [each for part in parts if isinstance(part, list) for each in part[:-1]]
    assert not any(isinstance(each, ast.Return | ast.Raise) for each in before_the_last), "what follows it is dead"
    recipe_own = [name for name in lines if split_plain(text)[1][name][0] == f"recipes/{recipe.name}"]
    assert recipe_own == list(lines)[: len(recipe_own)]
    assert recipe_own[0] == "Config"
    titles = copying.BANNER.findall(text)
    assert titles == [title for title in plain_copy.SECTIONS if title in titles]
    assert len(titles) == len(plain_copy.SECTIONS)


@pytest.mark.once
@RECIPES
def test_a_plain_copy_speaks_of_nothing_of_this_project(recipe):
    body, listed = split_plain(plain_copy_of(recipe))
    own = r"shared\.|recipes/|recipes \w|fingerprint|UsageError|fmt: skip|cache_directory|bundled|embedded \w+ instead"
    assert re.findall(own, body) == []
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    for name, (file, _) in listed.items():
        assert name in used or file.startswith("recipes/"), f"{name} is copied and not used"
        assert (PROJECT / file).exists()


@pytest.mark.once
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recipe", ["gan_fashion", "lstm_text"])
def test_a_plain_copy_has_no_code_for_other_backends(recipe, backend):
    text = plain_copy_of(recipe_path(recipe), (backend,))
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(ast.parse(text))
        for alias in (node.names if isinstance(node, ast.Import) else ())
    }
    assert imported & set(BACKENDS) == {backend}
    assert "match keras.config.backend()" not in text or backend == "jax"
    assert f"KERAS_BACKEND={backend} python {recipe}.py" in text


def counterparts():
    """(original, counterpart) of each public function and class that both define."""
    for path in sorted((PROJECT / "shared/tools/plain").rglob("*.py")):
        module = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
        original = PROJECT / "shared" / path.relative_to(PROJECT / "shared/tools/plain")
        if path.name != "__init__.py":
            for name in sorted(definitions_in(path.read_text()).keys() & definitions_in(original.read_text()).keys()):
                yield pytest.param(module.replace("shared.tools.plain", "shared"), module, name, id=name)


def arguments_of(function):
    return {
        name: (each.kind, each.default)
        for name, each in inspect.signature(function).parameters.items()
        if name not in ("self", "cls")
    }


@pytest.fixture
def registered_as_before():
    """Puts the classes that Keras knows by name back: counterparts have the names of the originals."""
    for pair in counterparts():
        importlib.import_module(pair.values[0])
    registered = keras.saving.get_custom_objects()
    before = dict(registered)
    yield
    imported = {name: kind for name, kind in registered.items() if not kind.__module__.startswith("shared.tools.plain")}
    registered.clear()
    registered.update(imported | before)


@pytest.mark.once
@pytest.mark.parametrize(("original", "counterpart", "name"), counterparts())
@pytest.mark.usefixtures("registered_as_before")
def test_counterparts_take_what_the_originals_take(original, counterpart, name):
    ours, theirs = (getattr(importlib.import_module(module), name) for module in (original, counterpart))
    if not callable(ours) or typing.get_origin(ours):
        return
    pairs = [(ours, theirs)]
    if inspect.isclass(ours):
        if dataclasses.is_dataclass(ours) or hasattr(ours, "_fields"):  # of which a plain copy has fewer fields
            fields = [f.name for f in dataclasses.fields(theirs)] if dataclasses.is_dataclass(ours) else theirs._fields
            assert set(fields) <= set(inspect.signature(ours).parameters)
            pairs = []
        pairs += [
            (getattr(ours, method), function)
            for method, function in vars(theirs).items()
            if inspect.isfunction(function) and not method.startswith("_") and hasattr(ours, method)
        ]
    for original_function, function in pairs:
        expected, found = arguments_of(original_function), arguments_of(function)
        assert found.items() <= expected.items(), function
        assert list(found) == [each for each in expected if each in found], function


class Trained(Exception):
    """Ends a recipe after the first steps of its main training."""


STEPS = 10


def first_steps(run_class, weights, losses):
    """A kind of run that ends after ten steps without noise, their losses noted.

    Args:
        run_class: what to make it of.
        weights: initial ones by phase and model, to be noted, or to start from where there are some.
        losses: the same of each step, and the weights then.
    """

    class Watch(keras.callbacks.Callback):
        def __init__(self, found):
            super().__init__()
            self.found = found

        def on_train_batch_end(self, batch, logs=None):
            for name, value in logs.items():
                if name.endswith("loss"):
                    self.found.setdefault(name, []).append(float(value))

    class FirstSteps(run_class):
        def begin(self, models, batches):
            batches.batches_per_epoch = STEPS
            for name, model in models.items():
                silence(model)
                model.set_weights(weights.setdefault(name, [each.copy() for each in model.get_weights()]))

        def end(self, models, phase):
            for name, model in models.items():
                synchronize_state(model)
                losses[f"weights of {name}"] = [each.copy() for each in model.get_weights()]
            if not phase:
                raise Trained

        def fit(self, model, batches, data, phase="", **arguments):
            models = {phase: model}
            self.begin(models, batches)
            losses["model"], losses["inputs"] = model, batches[0][0]
            watch = Watch(losses.setdefault(phase, {}))
            # A plain copy of a recipe that trains once has no phases.
            phases = {"phase": phase} if "phase" in inspect.signature(super().fit).parameters else {}
            super().fit(model, batches, data, **phases, callbacks=[watch])
            self.end(models, phase)

        def train(self, step, batches, state, data, **arguments):
            models = {name: part for name, part in state.items() if isinstance(part, keras.Model)}
            self.begin(models, batches)
            if "generator" in models:
                _, labels, noise, _ = batches[0]
                losses["model"], losses["inputs"] = models["generator"], {"noise": noise[0], "label": labels[0]}
            else:
                losses["model"], losses["inputs"] = next(iter(models.values())), batches[0][0]
            watch = Watch(losses.setdefault("", {}))

            def watched(*batch):
                results = step(*batch)
                watch.on_train_batch_end(0, results)
                return results

            super().train(watched, batches, state, data)
            self.end(models, "")

    return FirstSteps


LOADERS = {
    "load_images": "data.images.datasets", "load_text": "data.text.characters",
    "load_conversations": "data.text.conversations", "load_parallel": "data.text.parallel_corpus",
    "load_detection": "data.detection.datasets", "load_segmentation": "data.segmentation.datasets",
}  # fmt: skip


@pytest.fixture
def imported_copy(tmp_path, monkeypatch):
    """Imports the plain copy of a recipe, with the data of this project, and forgets its layers afterwards."""
    registered = keras.saving.get_custom_objects()
    before = {}

    def load(recipe):
        before.update(registered)  # the layers of the original
        path = tmp_path / f"copied_{recipe}.py"
        path.write_text(plain_copy_of(recipe_path(recipe)))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        for name, home in LOADERS.items():
            if hasattr(module, name):
                setattr(module, name, getattr(importlib.import_module(f"shared.{home}"), name))
        if hasattr(module, "evaluation_network"):  # which Keras would download, to use it after the training
            module.evaluation_network = lambda *_: None
        return module

    def forget():
        registered.clear()
        registered.update(before)

    load.forget = forget
    yield load
    if before:
        forget()


def check_loading(original, copied, inputs, tmp_path, forget_copy):
    """Loads the model of a recipe with the layers of its plain copy, and the other way around."""
    inputs = keras.tree.map_structure(lambda x: keras.ops.convert_to_tensor(x[:2]), inputs)
    for model, save in ((original, save_model), (copied, keras.Model.save)):
        save(model, tmp_path / "model.keras")
        loaded = load_model(tmp_path / "model.keras", compile=False)
        found = {type(layer).__module__ for layer in loaded._flatten_layers()}
        homes = {type(layer).__module__ for layer in model._flatten_layers()}
        own = {module for module in found ^ homes if not module.startswith("keras.")}
        assert own or not {module for module in homes if not module.startswith("keras.")}
        expected, outputs = (keras.ops.convert_to_numpy(each(inputs, training=False)) for each in (model, loaded))
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
        forget_copy()


def check_first_steps(recipe, imported_copy, tmp_path):
    """Compares the losses and weights of the first steps of a recipe with those of its plain copy."""
    original, weights, ours, theirs = importlib.import_module(f"recipes.{recipe}"), {}, {}, {}
    config = original.Config.for_preset("test", out=tmp_path / "original", epochs=1)
    with pytest.raises(Trained):
        original.main(first_steps(Run, weights, ours)(config))
    copy = imported_copy(recipe)
    options = {field.name: getattr(config, field.name) for field in dataclasses.fields(copy.Config)}
    with pytest.raises(Trained):
        copy.main(first_steps(copy.Run, weights, theirs)(copy.Config(**options | {"out": tmp_path / "copy"})))
    assert ours.keys() == theirs.keys()
    models = [run.pop("model") for run in (ours, theirs)]
    inputs, _ = (run.pop("inputs") for run in (ours, theirs))
    check_loading(*models, inputs, tmp_path, imported_copy.forget)
    for phase, found in ours.items():
        if isinstance(found, dict):
            assert found.keys() == theirs[phase].keys()
            for name, values in found.items():
                assert len(values) == STEPS
                np.testing.assert_allclose(theirs[phase][name], values, rtol=1e-4, err_msg=f"{name} {phase}")
            continue
        start = weights[phase.removeprefix("weights of ")]
        apart = [np.linalg.norm(one - other) for one, other in zip(found, theirs[phase], strict=True)]
        moved = [np.linalg.norm(one - first) for one, first in zip(found, start, strict=True)]
        assert np.linalg.norm(moved) > 0
        assert np.linalg.norm(apart) < 1e-2 * np.linalg.norm(moved), phase


@pytest.mark.in_turn
@pytest.mark.parametrize("recipe", all_but_one_slow(NAMES, "cnn_cifar10"))
def test_a_plain_copy_takes_the_same_steps(recipe, imported_copy, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_RECIPES_CACHE", str(tmp_path / "cache"))
    check_first_steps(recipe, imported_copy, tmp_path)
