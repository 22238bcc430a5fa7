"""Runs the tests on every installed backend, each in a worker process; with KERAS_BACKEND set, on that one here.

A test marked `once` does not depend on the backend and runs on one of them only. One marked `in_turn` is costly, and
runs on one of them, for each next parameter on another; without parameters, its name decides on which; with `--slow`,
on all. One marked `only_on` runs on the backend that it names. One marked `slow` runs with `--slow` only, and what it
tests is tested in smaller without. Any other that takes more than MOST_SECONDS of processor time fails.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import urllib.request
import zlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from shared.backends.choice import BACKENDS, installed_backends
from shared.errors import UsageError

PROJECT = Path(__file__).resolve().parents[1]

MOST_SECONDS = 120.0
"""Processor time that a test may take unless it is marked slow, in seconds, its fixtures and processes included. It
should take less than a sixth of that: where the threads of a core share it, a test takes twice its time."""

SLOW = "slow, needs --slow"


@contextlib.contextmanager
def refused_in_one_line(message: str):
    """What is done here is to be refused in one line that holds the message."""
    with pytest.raises(UsageError) as caught:
        yield
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal numbers of deviation 1 in 32 bits, always the same."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def with_normal_weights(model):
    """The model with weights that are all of use: normal numbers, for scales around 1; always the same."""
    for index, weight in enumerate(model.trainable_weights):
        weight.assign(0.3 * normal(*weight.shape, seed=index) + weight.path.endswith(("gamma", "scale")))
    return model


def numbers(tensor) -> np.ndarray:
    """A tensor of the running backend as an array."""
    import keras  # the process that only starts a worker for each backend does without

    return keras.ops.convert_to_numpy(tensor)


def gradients_of(function, variables) -> tuple[np.ndarray, list[np.ndarray]]:
    """The value of a function of variables, and its gradients, as arrays."""
    from shared.backends.gradients import value_and_grad
    from shared.backends.steps import compiled_step

    value, gradients = compiled_step(lambda: value_and_grad(function, variables))()
    return numbers(value), [numbers(gradient) for gradient in gradients]


def all_but_one_slow(names, one) -> list:
    """Parameters of a test that all but one are slow for."""
    return [name if name == one else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    missing = [name for name in BACKENDS if name not in installed_backends()]
    wanted = os.environ.get("RECIPES_TEST_BACKENDS", ",".join(BACKENDS) if os.environ.get("CI") else "").split(",")
    if failing := [name for name in missing if name in wanted]:
        raise pytest.UsageError(f"not installed, so not tested: {', '.join(failing)}")
    if config.option.update_golden:  # by one process
        os.environ.setdefault("KERAS_BACKEND", installed_backends()[0])
    if "KERAS_BACKEND" not in os.environ and not config.option.collectonly:
        config.option.dist = "each"
        config.option.tx = [f"popen//env:KERAS_BACKEND={name}" for name in installed_backends()]
        # PyTorch's threads wait for each other at each operation, too long where other processes keep them waiting.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        if not config.option.slow:
            # Most of the time was LLVM's, at work on programs that run for a second. Level 0 makes some too slow.
            os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")


def pytest_report_header():
    missing = [name for name in BACKENDS if name not in installed_backends()]
    backends = os.environ.get("KERAS_BACKEND") or ", ".join(installed_backends())
    data = os.environ.get("KERAS_RECIPES_DATA")
    return [
        f"backends: {backends}" + (f"; NOT INSTALLED, NOT TESTED: {', '.join(missing)}" if missing else ""),
        f"data: {data}" if data else "data: KERAS_RECIPES_DATA is not set, tests on CIFAR-10 are skipped",
    ]


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")
    parser.addoption(
        "--update-golden", action="store_true", help="write tests/recipes/golden.json anew, and show what changed"
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "once: does not depend on the backend; runs on one of them")
    config.addinivalue_line("markers", "in_turn: costly; each parameter on another backend; with --slow, all on all")
    config.addinivalue_line("markers", "only_on(backend): of what this backend alone does")
    config.addinivalue_line("markers", "slow: runs with --slow only; what it tests is tested in smaller without")
    in_its_worker = os.environ.get("KERAS_BACKEND") == "tensorflow" and "tensorflow" in installed_backends()
    if in_its_worker and not config.option.slow:
        import tensorflow as tf

        # Most programs run a few times, and TensorFlow took longer to rewrite them. Recipes in processes it does.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def is_of_another(item, backend):
    """Whether a test is of what another backend alone does."""
    mark = item.get_closest_marker("only_on")
    return mark is not None and mark.args[0] != backend


def belongs_to(item, backend, slow):
    """Whether a test is to run on this backend, where each installed backend has its worker."""
    # PyTorch compiles nothing, and JAX most: the worker that has the most to do is the last to end.
    turns = [name for name in ("torch", "tensorflow", "torch", "jax") if name in installed_backends()]
    turn = 0
    if item.get_closest_marker("in_turn"):
        if slow:
            return True
        name = zlib.crc32(f"{item.path.name}::{item.name}".encode())
        turn = sum(item.callspec.indices.values()) if hasattr(item, "callspec") else name
    elif not item.get_closest_marker("once"):
        return True
    return backend == turns[turn % len(turns)]


def pytest_collection_modifyitems(config, items):
    if backend := os.environ.get("KERAS_BACKEND"):
        alone, slow = not hasattr(config, "workerinput"), config.option.slow
        runs = [not is_of_another(item, backend) and (alone or belongs_to(item, backend, slow)) for item in items]
        config.hook.pytest_deselected(items=[item for item, here in zip(items, runs, strict=True) if not here])
        items[:] = [item for item, here in zip(items, runs, strict=True) if here]
    for item in items:
        if item.get_closest_marker("slow") and not config.option.slow:
            item.add_marker(pytest.mark.skip(reason=SLOW))


def processor_seconds() -> float:
    """Processor time of this process and its ended children so far, in seconds."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    item.started = processor_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = yield
    seconds = processor_seconds() - item.started
    item.user_properties.append(("seconds", (os.environ.get("KERAS_BACKEND"), seconds)))
    if seconds > MOST_SECONDS and not item.get_closest_marker("slow"):
        pytest.fail(f"took {seconds:.0f} s of processor time: make it smaller, or mark it slow", pytrace=False)
    return result


def pytest_terminal_summary(terminalreporter, config):
    spent, contracts = Counter(), defaultdict(Counter)
    for report in terminalreporter.stats.get("passed", ()):
        for name, value in report.user_properties:
            if name == "golden":
                terminalreporter.write_line(f"golden.json: {value}")
                continue
            backend, seconds = value
            spent[f"{report.nodeid} on {backend}"] += seconds
            if report.nodeid.startswith("tests/recipes/test_recipes.py"):
                contracts[report.nodeid.partition("[")[2].rstrip("]")][backend] += seconds
    for recipe, each in contracts.items():
        shown = ", ".join(f"{backend} {seconds:.0f} s" for backend, seconds in each.items())
        terminalreporter.write_line(f"processor time of the contract of {recipe}: {shown}")
    for test, seconds in spent.most_common(config.option.durations or 0):
        terminalreporter.write_line(f"{seconds:4.0f} s of processor time  {test}")
    skipped = terminalreporter.stats.get("skipped", ())
    if left := sum(SLOW in str(report.longrepr) for report in skipped):
        terminalreporter.write_line(f"{left} slow tests not run: --slow", yellow=True, bold=True)


def directory_with(data: str) -> Path:
    """The data directory, where it holds `data`, such as "tfds/cifar10"; elsewhere the test is skipped."""
    directory = Path(os.environ.get("KERAS_RECIPES_DATA", ""))
    if not (directory / data).exists():
        pytest.skip(f"KERAS_RECIPES_DATA does not name a directory with {data}")
    return directory


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, without a network."""
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"none of {', '.join(names)} is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def real_data() -> Path:
    """The data directory with real CIFAR-10; the test is skipped without it."""
    return directory_with("tfds/cifar10")


@pytest.fixture
def flowers() -> Path:
    """The data directory with tf_flowers, which has no test split; the test is skipped without it."""
    return directory_with("tfds/tf_flowers")


@pytest.fixture
def offline(monkeypatch, tmp_path) -> Path:
    """A machine without data and without network: returns its empty data directory."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "_opener", None)  # which remembers the proxies of its first use
    monkeypatch.setenv("KERAS_RECIPES_DATA", str(tmp_path / "no-data"))
    return tmp_path / "no-data"


@pytest.fixture
def run_python(tmp_path):
    """Runs Python with arguments in an empty directory; returns the finished process, its output as text."""

    def run(*arguments, check=None, said=None, **environment):
        command = [sys.executable, *map(str, arguments)]
        process = subprocess.run(
            command, cwd=tmp_path, env=os.environ | environment, input=said, capture_output=True, text=True, timeout=600
        )
        if check is not None:
            assert process.returncode == check, process.stdout[-2000:] + process.stderr[-4000:]
        return process

    return run


@pytest.fixture
def run_recipe(run_python):
    """Runs a recipe as a script."""

    def run(name, *arguments, **keywords):
        return run_python(PROJECT / "recipes" / f"{name}.py", *arguments, **keywords)

    return run


@pytest.fixture
def recipes_command(tmp_path, monkeypatch, capsys):
    """Runs the command `recipes` in this process, in an empty directory; returns what a process would."""

    def run(*arguments, check=None):
        from shared.tools.cli import main

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["recipes", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        process = subprocess.CompletedProcess(sys.argv, ended.value.code, *capsys.readouterr())
        if check is not None:
            assert process.returncode == check, process.stdout[-2000:] + process.stderr[-4000:]
        return process

    return run


HIDE = """
import os, sys
hidden = os.environ["HIDDEN_PACKAGES"].split(",")
class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
"""


@pytest.fixture
def hiding(tmp_path_factory):
    """Environment variables of a Python that does not find the given packages."""
    folder = tmp_path_factory.mktemp("hide")
    (folder / "sitecustomize.py").write_text(HIDE)
    return lambda *names: {"PYTHONPATH": str(folder), "HIDDEN_PACKAGES": ",".join(names)}
