"""The wheel: what is in it, and what its command does in an environment that has no checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest
from conftest import PROJECT

from shared.backends.choice import installed_backends
from shared.tools.copying import definitions_in
from shared.tools.project import recipe_paths
from shared.tools.records import headline_records

pytestmark = pytest.mark.once

SOURCE = "keras_recipes/source"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that `pip wheel` or `python -m build` makes, by their backend."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    process = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    [path] = folder.glob("keras_recipes-*.whl")
    return path


def test_a_wheel_has_one_top_level_package_and_all_that_is_tracked(wheel):
    with zipfile.ZipFile(wheel) as archive:
        texts = {name: archive.read(name) for name in archive.namelist()}
    names = {name for name in texts if ".dist-info/" not in name}
    metadata = {name.rpartition("/")[2]: text.decode() for name, text in texts.items() if name not in names}
    assert {name.partition("/")[0] for name in names} == {"keras_recipes"}
    assert not any(name.endswith((".pyc", ".png")) for name in names)
    tracked = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    folders = ("recipes/", "shared/", "benchmarks/", "results/")
    read = [name for name in tracked.splitlines() if name.startswith(folders) and not name.endswith(".png")]
    assert {f"{SOURCE}/{name}" for name in read} <= names
    for command in ("keras-recipes", "recipes"):
        assert f"\n{command} = keras_recipes.__main__:main\n" in metadata["entry_points.txt"]
    assert "Requires-Dist: keras>=3.15" in metadata["METADATA"]
    assert "Provides-Extra: jax" in metadata["METADATA"]
    assert wheel.stat().st_size < 5_000_000


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory):
    """Runs the wheel's command, in an environment with the packages of this one but without this project."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv/bin/python"
    packages = folder / f"venv/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True)
    # The .pth files of that folder, by which the project is installed for development, are not read from here.
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    def run(*arguments, check=0, **environment):
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        process = subprocess.run(
            [folder / "venv/bin/keras-recipes", *map(str, arguments)],
            cwd=folder, env=kept | environment, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert process.returncode == check, process.stdout[-2000:] + process.stderr[-4000:]
        return process.stdout

    run.folder = folder
    run.python = python
    return run


def test_the_environment_has_no_checkout(elsewhere):
    found = "import importlib.util as u; print(*(u.find_spec(name) for name in ('shared', 'recipes', 'benchmarks')))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    output = subprocess.run([elsewhere.python, "-c", found], cwd=elsewhere.folder, env=environment, capture_output=True)
    assert output.stdout.split() == [b"None"] * 3


def test_commands_of_a_wheel_read_what_is_in_it(elsewhere):
    listed = elsewhere("list")
    for path in recipe_paths():
        assert f"{path.stem}\n  task " in listed
    assert listed.count("not yet measured") == sum(not headline_records(path.stem) for path in recipe_paths())
    doctor = elsewhere("doctor")
    assert "pip install -c constraints.txt -e" not in doctor
    assert "data in " in doctor
    assert "--native" in elsewhere("compare", "--help")
    assert "| field |" in elsewhere("tables")


@pytest.mark.parametrize("form", [(), ("--full",)])
def test_a_wheel_copies_what_the_checkout_copies(elsewhere, form, run_python, tmp_path):
    elsewhere("copy", "cnn_cifar10", "away", "--force", *form)
    run_python("-m", "shared.tools.cli", "copy", "cnn_cifar10", "here", *form, check=0, PYTHONPATH=str(PROJECT))
    there, here = ((folder / "cnn_cifar10.py").read_text() for folder in (elsewhere.folder / "away", tmp_path / "here"))
    assert there == here
    assert "Config" in definitions_in(there)


@pytest.mark.slow
def test_a_wheel_runs_predicts_and_compares(elsewhere):
    elsewhere("run", "cnn_cifar10", "--preset", "test", "--out", "one")
    config = json.loads((elsewhere.folder / "one/config.json").read_text())
    assert config["commit"] is None
    assert config["backend"] == os.environ["KERAS_BACKEND"]
    picture = elsewhere.folder / "one/curves.png"
    assert "curves.png" in elsewhere("predict", "one", picture)
    elsewhere("compare", "cnn_cifar10", "--preset", "test", "--repeats", "0", "--agreement-steps", "2",
              "--backends", os.environ["KERAS_BACKEND"])  # fmt: skip
    assert "--train-examples" in elsewhere("run", "cnn_cifar10", "--help")


@pytest.fixture
def arguments_of(tmp_path):
    """A program that prints its arguments, in place of uv."""
    program = tmp_path / "uv"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    return program


@pytest.mark.skipif(installed_backends() == ["tensorflow"], reason="needs a backend besides TensorFlow")
def test_run_takes_an_installed_backend_or_lets_uv_bring_one(run_python, hiding, arguments_of, tmp_path):
    run = ("-m", "shared.tools.cli", "run", "cnn_cifar10", "--preset", "test", "--out", "one", "--epochs", "0")
    environment = {"KERAS_BACKEND": "", "KERAS_HOME": str(tmp_path)}
    away = hiding("tensorflow")  # Keras's own choice
    away["PYTHONPATH"] += f"{os.pathsep}{PROJECT}"
    process = run_python(*run, **environment, **away)
    assert process.stdout == f"tensorflow is not installed: runs on {installed_backends()[0]}\n"
    assert process.stderr.splitlines()[-1].startswith("error: --epochs must be at least 1")

    away = hiding("jax", "torch", "tensorflow")
    away["PYTHONPATH"] += f"{os.pathsep}{PROJECT}"
    process = run_python(*run, **environment, **away, UV=str(arguments_of), check=0)
    command = "tool run --from keras-recipes[jax] keras-recipes run cnn_cifar10 --preset test --out one --epochs 0"
    assert process.stdout.splitlines()[-1] == command
    process = run_python(*run, **environment, **away, UV="")
    assert (process.returncode, process.stderr.count("\n")) == (2, 1)
    assert "none is installed here" in process.stderr
    process = run_python("-m", "shared.tools.cli", "run", "cnn_cifar11")
    assert process.stderr.startswith("error: there is no recipe cnn_cifar11")
