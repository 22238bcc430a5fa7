"""Comparisons: run as a command on every backend, and what its parts make of numbers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import psutil
import pytest
from conftest import PROJECT, all_but_one_slow

from recipes.cnn_cifar10 import Config, build_model, build_optimizer
from shared.backends.choice import installed_backends
from shared.backends.gradients import value_and_grad
from shared.data.images.datasets import load_images
from shared.tools.cli import Compare
from shared.tools.compare.agreement import compare_courses, compare_layers, judge, read_layers, relative_difference
from shared.tools.compare.comparison import Comparison, Row, WorkerFailed, interrupted_by_signals
from shared.tools.compare.course import initial_course, sketch, training_course, variable_groups
from shared.tools.compare.layers import layer_arrays
from shared.tools.compare.report import report_html
from shared.tools.compare.summary import failed, measures_table, report_text, verdict
from shared.tools.compare.worker import REORDERINGS, StepMemory, nudged, reordered, silence
from shared.tools.project import recipe_paths

NATIVE = ("jax", "torch")


def compare_command(*arguments):
    return [sys.executable, "-m", "shared.tools.cli", "compare", *arguments]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A function that compares a recipe on all backends, once: its process and the directory of its report."""
    done = {}

    def compare(recipe):
        if recipe not in done:
            directory = tmp_path_factory.mktemp("compare")
            thorough = ("--repeats", "2", "--native", "--layers") if recipe == "cnn_cifar10" else ("--repeats", "0")
            options = (*thorough, "--preset", "test")
            process = subprocess.run(
                compare_command(
                    recipe, "--backends", ",".join(installed_backends()), "--out", "report", *options
                ),
                cwd=directory, capture_output=True, text=True,
            )  # fmt: skip
            done[recipe] = process, directory / "report"
        return done[recipe]

    return compare


@pytest.mark.in_turn
@pytest.mark.parametrize("recipe", all_but_one_slow([path.stem for path in recipe_paths()], "gan_fashion"))
def test_every_backend_agrees(compared, recipe):
    process, directory = compared(recipe)
    assert process.returncode == 0, process.stdout[-4000:] + process.stderr[-2000:]
    report = json.loads((directory / "report.json").read_text())
    assert {row["name"] for row in report["rows"] if not row["native"]} == set(installed_backends())
    for row in report["rows"]:
        assert row["problem"] is None
        assert len(row["losses"]) == 20
        assert [len(losses) for losses in row["reordered"]] == [20] * REORDERINGS
    found = judge(report["compared"])
    assert (found["agrees"], found["findings"]) == ("yes", []), verdict(report)
    assert set(found["judged"].values()) == {20}
    names = [series["name"] for series in report["compared"]]
    assert {"loss", "initial weights"} < set(names)
    assert any(name.endswith("weights") for name in names)
    assert "The losses and updates agree within rounding" in process.stdout
    assert process.stdout.splitlines()[-1] == "report/report.html"


@pytest.mark.slow
@pytest.mark.once
def test_every_backend_is_measured(compared):
    process, directory = compared("cnn_cifar10")
    report = json.loads((directory / "report.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    native = [name for name in NATIVE if name in installed_backends()]
    assert set(rows) == {*installed_backends(), *(f"native {name}" for name in native)}
    for name, row in rows.items():
        measures = row["measures"]
        needed = {
            "first_step_seconds",
            "median_step_seconds",
            "slow_step_seconds",
            "examples_per_second",
            "data_fraction",
        }
        if sys.platform == "linux":
            needed.add("training_memory_bytes")
        if not row["native"]:
            needed |= {
                "import_seconds", "setup_seconds", "start_processor_seconds", "peak_memory_bytes", "model_bytes",
            }  # fmt: skip
        assert needed | {"value"} == set(measures), name
        for measure in measures.values():
            assert len(measure["values"]) == 2
            assert measure["lowest"] <= measure["median"] <= measure["highest"]
        assert measures["median_step_seconds"]["median"] <= measures["slow_step_seconds"]["median"]
        assert measures["value"]["lowest"] == measures["value"]["highest"], "two runs alike gave two results"
    assert set(report["native"]) == set(native)
    assert len(report["layers"]) > 3 * (len(installed_backends()) - 1)
    assert [row for row in report["layers"] if not row["agrees"]] == []
    for line in measures_table(report):
        assert line[0] in process.stdout
    assert ": round 1 of " in process.stdout


@pytest.mark.slow
@pytest.mark.once
def test_a_recipe_of_several_phases_is_measured(tmp_path):
    options = ("--repeats", "1", "--agreement-steps", "1", "--preset", "test")
    process = subprocess.run(
        compare_command("transfer_learning", "--backends", keras.config.backend(), "--out", "report", *options),
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout[-4000:] + process.stderr[-2000:]
    (row,) = json.loads((tmp_path / "report/report.json").read_text())["rows"]
    assert row["metric"] == "top1"
    assert row["measures"]["median_step_seconds"]["median"] > 0
    run = tmp_path / "report" / f"{keras.config.backend()}-measure-1" / "run"
    assert {path.name for path in run.glob("history*.csv")} == {"history.csv", "history-head.csv"}
    assert json.loads((run / "result.json").read_text())["value"] == row["measures"]["value"]["median"]


@pytest.mark.slow
@pytest.mark.once
def test_rounds_are_interleaved(compared):
    process, _ = compared("cnn_cifar10")
    rounds = [line for line in process.stdout.splitlines() if ": round " in line]
    names = [line.partition("] ")[2].partition(":")[0] for line in rounds]
    assert names == names[: len(names) // 2] * 2
    assert len(set(names)) == len(names) // 2


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_in_a_browser(compared, browser, tmp_path, width, scheme):
    _, directory = compared("cnn_cifar10")
    page = browser.new_context(offline=True, viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"file://{shutil.copy(directory / 'report.html', tmp_path)}")
    assert said == []
    assert asked == [f"file://{tmp_path}/report.html"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("figure svg").count() == 4
    for name in installed_backends():
        assert page.locator("thead th", has_text=name).first.is_visible()

    def brightness(selector, what):
        color = page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).{what}")
        return np.mean([float(part) for part in color[color.index("(") + 1 : -1].split(",")[:3]])

    ground = brightness("body", "backgroundColor")
    assert (ground > 200) == (scheme == "light")
    for selector in ("h1", "td", "figcaption"):
        assert abs(brightness(selector, "color") - ground) > 90
    assert abs(brightness("figure svg text", "fill") - ground) > 150
    sizes = page.evaluate("[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height)")
    assert min(sizes) > 7


def quick(*arguments):
    return ("cnn_cifar10", "--preset", "smoke", "--data", "mnist5k", "--epochs", "1", "--train-examples", "200",
            "--repeats", "1", "--agreement-steps", "3", "--out", "report", *arguments)  # fmt: skip


def report_of(directory):
    report = json.loads((directory / "report/report.json").read_text())
    return report, {row["name"]: row for row in report["rows"]}


CRASHES = {
    "os.kill(os.getpid(), 9)": "killed by SIGKILL; out of memory?",
    "raise SystemExit('no more memory')": "no more memory (exit code",
}


@pytest.mark.once
@pytest.mark.skipif(len(installed_backends()) < 3, reason="needs three backends")
@pytest.mark.parametrize("code", all_but_one_slow(CRASHES, next(iter(CRASHES))), ids=["killed", "crashed"])
def test_what_fails_on_a_backend_is_a_row_with_its_reason(run_python, hiding, tmp_path, code):
    """One backend is missing, one crashes, one misses the target."""
    missing, crashing, missed = "jax", "tensorflow", "torch"
    hidden = hiding(missing)
    with (Path(hidden["PYTHONPATH"]) / "sitecustomize.py").open("a") as customize:
        customize.write(f"\nif os.environ['KERAS_BACKEND'] == '{crashing}': {code}")
    options = quick("--backends", f"{missing},{crashing},{missed}", "--target", "1")
    process = run_python("-m", "shared.tools.cli", "compare", *options, check=1, KERAS_BACKEND="", **hidden)
    assert process.stderr.startswith(f"{crashing}: ") and CRASHES[code] in process.stderr
    assert f"{missing}: FAILED: not installed" in process.stdout
    _, rows = report_of(tmp_path)
    assert rows[missing]["problem"].startswith("not installed: pip install")
    assert CRASHES[code] in rows[crashing]["problem"]
    assert rows[missed]["problem"].startswith("target missed: top1 is 0.")
    assert rows[missed]["measures"]["value"]["median"] < 1
    assert f"{crashing}: " in (tmp_path / "report/report.html").read_text()


@pytest.mark.once
def test_an_interrupt_leaves_what_was_measured(tmp_path):
    name = installed_backends()[0]
    process = subprocess.Popen(
        compare_command(*quick("--backends", name)), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
        # What is started in the background is born deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    for line in process.stdout:
        if "round 1 of 1" in line:
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "Traceback" not in err
    report, rows = report_of(tmp_path)
    assert report["interrupted"]
    assert len(rows[name]["losses"]) == 3
    assert "Interrupted: this is what was measured until then." in out
    assert "Interrupted" in (tmp_path / "report/report.html").read_text()


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cnn_cifar11"], "there is no recipe cnn_cifar11"),
        (["cnn_cifar10", "--repeats", "-1"], "--repeats must be at least 0, not -1"),
        (["cnn_cifar10", "--agreement-steps", "0"], "--agreement-steps must be at least 1, not 0"),
        (["cnn_cifar10", "--backends", "jax,caffe"], "--backends must be of"),
        (["cnn_cifar10", "--out", "used"], "cannot make used (File exists): take another --out"),
        (["cnn_cifar10", "--loud"], "Unrecognized options: --loud"),
        (["cnn_cifar10", "--preset", "smoke", "--batch-size", "0"], "--batch-size must be at least 1, not 0"),
        (["cnn_cifar10", "--resume"], "--resume does not go with a comparison"),
    ],
)
def test_wrong_use(recipes_command, tmp_path, arguments, message):
    (tmp_path / "used").mkdir()
    process = recipes_command("compare", *arguments)
    assert process.returncode == 2, process.stdout + process.stderr
    assert process.stderr.startswith(f"error: {message}"), process.stderr
    assert process.stderr.count("\n") == 1
    assert not list((tmp_path / "runs").glob("*"))


def made_up(losses, **updates):
    """The course of a training whose losses, and updates after 1, 2, 4, … steps, are made up."""
    course = {"loss": {"steps": list(range(1, len(losses) + 1)), "values": [[x] for x in losses], "sizes": losses}}
    for name, values in updates.items():
        steps = [2**i for i in range(len(values))]
        course[name] = {"steps": steps, "values": [[x] for x in values], "sizes": [1.0] * len(values)}
    return course


def judged(courses, reordered=None):
    reordered = {name: [made_up(losses) for losses in curves] for name, curves in (reordered or {}).items()}
    courses = {name: made_up(course) if isinstance(course, list) else course for name, course in courses.items()}
    return judge(compare_courses(courses, reordered))


FALLING = np.linspace(2, 1, 10)
GROWING = 10.0 ** np.arange(-8, 2)  # as rounding grows: 1e-8, 1e-7, …


def parted(*differences):
    """The losses of `FALLING`, parted from them by relative differences, the last ones not at all."""
    return (FALLING * (1 + np.array([*differences, *[0] * (10 - len(differences))]))).tolist()


@pytest.fixture
def in_process(tmp_path, monkeypatch):
    """A function that makes a comparison whose jobs are a given function, and the command's report of it."""

    def compare(answer_of):
        monkeypatch.setattr(Comparison, "answer_of", answer_of)
        monkeypatch.setattr(sys, "argv", ["recipes", "compare", "cnn_cifar10"])
        code = Compare("cnn_cifar10", native=True, layers=True, out=tmp_path / "report").run()
        return code, *report_of(tmp_path), (tmp_path / "report/report.html").read_text()

    return compare


@pytest.mark.once
def test_a_failure_on_every_backend_is_a_report(in_process, capsys):
    def fail(self, row, *arguments, **keywords):
        raise WorkerFailed("no space left")

    code, report, rows, page = in_process(fail)
    assert code == 1
    assert {row["problem"] for row in rows.values() if not row["native"]} == {"no space left"}
    assert rows["native torch"]["problem"] == "no backend of Keras began the training"
    assert report["compared"] == report["layers"] == []
    out = capsys.readouterr().out
    assert "Agreement: not judged" in out
    for text in (out, page):
        assert "no space left" in text


@pytest.mark.once
def test_an_interrupt_while_preparing_is_a_report(in_process, capsys):
    def interrupt(self, row, *arguments, **keywords):
        raise KeyboardInterrupt

    code, report, _, page = in_process(interrupt)
    assert code == 130
    assert report["interrupted"]
    assert "Interrupted" in capsys.readouterr().out and "Interrupted" in page


@pytest.mark.once
def test_the_memory_of_the_steps_is_that_of_the_first_epoch_before_validation(monkeypatch):
    peaks = iter([300, 500, 900])
    monkeypatch.setattr("shared.tools.compare.worker.forget_peak_memory", lambda: 100)
    monkeypatch.setattr("shared.tools.compare.worker.peak_memory", lambda: next(peaks))
    memory = StepMemory()
    assert memory.bytes is None
    memory.on_train_batch_end(0)
    memory.on_train_batch_end(1)
    memory.on_test_begin()
    memory.on_train_batch_end(2)
    assert memory.bytes == 400


WATCHING = """
import sys
from pathlib import Path
from shared.tools.compare.comparison import interrupted_by_signals, run_watched
with interrupted_by_signals():
    run_watched([sys.executable, "-c", Path("worker.py").read_text()], None, Path("log.txt"), "toy")
"""
WORKING = """
import os, subprocess, sys, time
from pathlib import Path
from shared.tools.compare.job import end_with_parent
end_with_parent()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path("unfinished").write_text(f"{os.getpid()} {child.pid}")
os.rename("unfinished", "started")
time.sleep(600)
"""


@pytest.mark.once
@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP", "SIGKILL"])
def test_nothing_goes_on_when_the_comparison_is_ended(tmp_path, number):
    (tmp_path / "worker.py").write_text(WORKING)
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHING], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(PROJECT)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        time.sleep(0.05)
    workers = [psutil.Process(int(pid)) for pid in (tmp_path / "started").read_text().split()]
    process.send_signal(getattr(signal, number))
    process.wait(60)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.once
def test_signals_that_are_ignored_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupted_by_signals():
            signal.raise_signal(signal.SIGHUP)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_rounding_agrees():
    assert judged({"a": parted(), "b": parted(1e-7, 2e-7, 1e-6, 2e-6)})["agrees"] == "yes", "a control of exactly 0"
    found = judged(
        {"a": parted(), "b": parted(*(5 * GROWING))}, {"a": [parted(*GROWING)], "b": [parted(*(6 * GROWING))]}
    )
    assert found["agrees"] == "yes"
    assert judged({"a": [0.0], "b": [0.0]})["agrees"] == "yes"
    assert judged({"a": [1.0]})["agrees"] is None
    assert judged({})["agrees"] is None


def test_what_reordering_does_not_explain_is_named_within_the_tolerance_too():
    found = judged({"a": parted(), "b": parted(), "c": parted(0, 0, 2e-5, 4e-5)})
    assert found["agrees"] == "unexplained"
    (finding,) = found["findings"]
    assert (finding["series"], finding["step"], finding["rows"][0]) == ("loss", 3, "c")
    assert finding["difference"] == pytest.approx(4e-5, rel=1e-3)
    assert finding["ratio"] == pytest.approx(4e-5 / 2**-22, rel=0.1)
    assert judged({"a": parted(), "b": parted(0, 0, 2e-4)})["agrees"] == "no"
    assert judged({"a": parted(), "b": parted(2e-4)})["findings"][0]["step"] == 1
    nan = [*parted()[:3], float("nan"), *parted()[4:]]
    found = judged({"a": nan, "b": parted()}, {"a": [nan]})
    assert (found["agrees"], found["findings"][0]["step"]) == ("no", 4), "one backend has no losses any more"


def test_judging_ends_where_reordering_moves_the_loss_too_far():
    control = {"a": [parted(*GROWING)]}
    late = parted(*GROWING[:6], 0.9)
    found = judged({"a": parted(), "b": late}, control | {"b": [late]})
    assert found["agrees"] == "yes"
    assert found["judged"] == {"a": 6, "b": 10}
    early = parted(*GROWING[:5], 0.9)
    assert judged({"a": parted(), "b": early}, control | {"b": [early]})["agrees"] == "no"


def test_each_backend_has_its_own_control():
    loose = {"c": [parted(1e-5, 1e-5, 1e-4, 9e-4, 9e-4, 9e-4, 9e-4, 9e-4, 9e-4, 9e-4)]}
    found = judged({"a": parted(), "b": parted(0, 0, 0, 5e-4), "c": parted()}, loose)
    assert found["agrees"] == "no"
    assert set(found["findings"][0]["rows"]) == {"a", "b"}, "what c does explains nothing of the other two"


def test_a_kink_where_rounding_decides_is_no_difference():
    other_way = parted(0, 0, 2e-5, 2e-5)
    assert judged({"a": parted(), "b": other_way}, {"b": [parted()]})["agrees"] == "yes"


def test_a_loss_that_depends_on_the_order_of_the_examples_is_named():
    found = judged({"a": parted(), "b": parted()}, {"b": [parted(0.01)]})
    assert found["agrees"] == "no"
    assert found["order"] == {"b": pytest.approx(0.01, rel=1e-3)}


def test_updates_are_judged_too():
    def agrees(ours, theirs):
        found = judged({"a": made_up(parted(), statistics=ours), "b": made_up(parted(), statistics=theirs)})
        return found["agrees"], [finding["series"] for finding in found["findings"]]

    assert agrees([1.0, 2.0], [1.0, 2.001]) == ("yes", [])
    assert agrees([1.0, 2.0], [1.0, 2.01]) == ("unexplained", ["statistics"])
    assert agrees([1.0, 2.0], [1.0, 4.0]) == ("no", ["statistics"])
    assert agrees([1.0, 2.0], [0.0, 0.0]) == ("no", ["statistics"]), "nothing moved on one of them"
    assert agrees([0.0, 0.0], [0.0, 0.0]) == ("yes", [])
    assert agrees([1e-6, 2e-6], [1e-6, 2.05e-6])[0] == "yes", "an update below the last places of the weights"


def small_network(seed, plant):
    """A small network that is trained for some steps, with a fault where one is planted; its course."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    settings = {
        "momentum": 0.9, "epsilon": 1e-7, "smoothing": 0.1, "averaging": 0.99, "clip": 0.5, "masked": True,
        "initializer": "glorot_uniform", "weighted": False,
    } | plant  # fmt: skip
    inputs = keras.Input((12,), dtype="int32")
    x = keras.layers.Embedding(20, 16, mask_zero=True, embeddings_initializer="glorot_uniform")(inputs)
    x = keras.layers.Dense(24, kernel_initializer=settings["initializer"])(x)
    x = keras.layers.BatchNormalization(momentum=settings["averaging"])(keras.ops.tanh(x))
    mask = keras.ops.cast(inputs != 0, "float32") if settings["masked"] else keras.ops.ones_like(inputs, "float32")
    x = keras.ops.sum(x * mask[..., None], axis=1)
    model = keras.Model(inputs, keras.layers.Dense(4)(x))
    drawn = initial_course(model)
    for variable in model.trainable_variables:
        if len(variable.shape) > 1:
            variable.assign(0.3 * rng.normal(size=variable.shape))

    def loss(y_true, y_pred):
        losses = keras.losses.categorical_crossentropy(
            y_true, y_pred, from_logits=True, label_smoothing=settings["smoothing"]
        )
        return losses[:1] if settings["weighted"] else losses

    optimizer = keras.optimizers.Adam(
        1e-3, beta_1=settings["momentum"], epsilon=settings["epsilon"], global_clipnorm=settings["clip"]
    )
    model.compile(optimizer, loss)
    optimizer.build(model.trainable_variables)
    texts = rng.integers(0, 20, (8, 16, 12)).astype("int32")
    targets = np.eye(4, dtype="float32")[texts.sum(axis=2) % 4]
    return model, drawn, list(zip(texts, targets, strict=True))


def small_course(seed=0, order=None, **plant):
    model, drawn, batches = small_network(seed, plant)
    if order is not None:
        batches = [reordered(batch, 0, order) for batch in batches]
        model.set_weights(nudged(dict(enumerate(model.get_weights())), order).values())

    def loss_on(*batch):
        model.reset_metrics()
        return model.train_on_batch(*batch, return_dict=True)["loss"]

    return training_course(loss_on, batches, model) | drawn


PLANTS = {
    "masked": (False, "loss"),
    "momentum": (0.89, "weights"),
    "epsilon": (1e-8, "weights"),
    "initializer": ("he_normal", "initial weights"),
    "smoothing": (0.0, "loss"),
    "averaging": (0.98, "moving statistics"),
    "clip": (0.515, "optimizer momentum"),
}


@pytest.fixture(scope="module")
def untouched():
    """A course and its control, of a small network without a fault."""
    return small_course(), [small_course(order=order) for order in range(2)]


@pytest.mark.in_turn
@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_difference_is_named(untouched, name):
    course, control = untouched
    value, series = PLANTS[name]
    found = judge(compare_courses({"a": course, "b": small_course(**{name: value})}, {"a": control}))
    assert found["agrees"] != "yes"
    assert found["order"] == {}
    assert series in [finding["series"] for finding in found["findings"]]
    if name in ("averaging", "initializer"):
        assert [finding["series"] for finding in found["findings"]] == [series]


def test_a_planted_dependence_on_the_order_is_named(untouched):
    first_only = small_course(weighted=True), [small_course(order=0, weighted=True)]
    found = judge(compare_courses({"a": first_only[0], "b": first_only[0]}, {"b": first_only[1]}))
    assert found["agrees"] == "no"
    assert found["order"]["b"] > 0.01
    course, control = untouched
    assert judge(compare_courses({"a": course, "b": course}, {"a": control, "b": control}))["order"] == {}


@pytest.mark.parametrize("seed", range(2))
def test_a_reordering_is_no_difference(seed):
    courses = [small_course(seed, order=order) for order in (None, 0, 1)]
    compared = compare_courses({"a": courses[0], "b": courses[1]}, {"a": courses[2:]})
    found = judge(compared)
    assert (found["agrees"], found["findings"]) == ("yes", [])
    assert set(found["judged"].values()) == {8}
    assert {series["name"] for series in compared} == {
        "loss", "weights", "moving statistics", "optimizer momentum", "optimizer velocity", "initial weights",
    }  # fmt: skip


def test_nudged_variables_are_one_place_away():
    variables = {"kernel": random((20, 30)), "bias": np.zeros(30, "float32"), "steps": np.array(7, "int32")}
    found = nudged(variables, 0)
    assert (found["kernel"] != variables["kernel"]).all()
    assert found["kernel"].dtype == np.float32
    np.testing.assert_array_max_ulp(found["kernel"], variables["kernel"], 1)
    assert 0.4 < (found["kernel"] > variables["kernel"]).mean() < 0.6
    np.testing.assert_array_equal(found["bias"], 0)
    assert found["steps"] == 7
    assert (nudged(variables, 1)["kernel"] != found["kernel"]).any()


def test_the_variables_of_several_models_are_grouped():
    generator, critic = small_model(), small_model()
    optimizer = keras.optimizers.Adam()
    optimizer.build(critic.trainable_variables)
    state = {
        "generator": generator, "critic": critic, "critic_optimizer": optimizer, "loss": keras.metrics.Mean(),
        "seeds": keras.random.SeedGenerator(0), "scale": keras.Variable(1.0),
    }  # fmt: skip
    groups = variable_groups(state)
    assert set(groups) == {
        "generator weights", "generator moving statistics", "critic weights", "critic moving statistics",
        "critic_optimizer rate", "critic_optimizer momentum", "critic_optimizer velocity", "scale",
    }  # fmt: skip
    assert len(groups["critic_optimizer momentum"]) == len(groups["critic weights"]) == 6


def test_a_sketch_keeps_norms():
    one, other = random((300, 70)), random((300, 70), seed=1)
    ratio = np.linalg.norm(sketch([one]) - sketch([other])) / np.linalg.norm(one - other)
    assert 0.5 < ratio < 1.5
    np.testing.assert_array_equal(sketch([one]), sketch([one[:100], one[100:]]))


def test_relative_difference():
    assert relative_difference(np.array([1.0, 2.02]), np.array([1.0, 2.0])) == pytest.approx(0.01)
    assert relative_difference(np.zeros(3), np.zeros(3)) == 0
    assert relative_difference(np.array([np.nan]), np.ones(1)) == float("inf")
    assert relative_difference(np.ones(2), np.ones(3)) == float("inf")


def random(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@keras.saving.register_keras_serializable("tests")
class Scaled(keras.layers.Layer):
    """Multiplies by a factor; the gradient is that of another factor where they differ."""

    factor, gradient_factor = 1.0, 1.0

    def call(self, inputs):
        fixed = keras.ops.stop_gradient(inputs)
        return fixed * self.factor + (inputs - fixed) * self.gradient_factor


def small_model():
    return keras.Sequential([
        keras.Input((6,)),
        keras.layers.Dense(5, activation="tanh", name="before"),
        Scaled(name="suspect"),
        keras.layers.BatchNormalization(name="normalization"),
        keras.layers.Dense(2, name="after"),
    ])  # fmt: skip


@pytest.mark.parametrize("fault", [None, "factor", "gradient_factor"])
def test_the_layer_that_differs_is_found(tmp_path, monkeypatch, fault):
    model = small_model()
    folders = {name: tmp_path / name for name in ("one", "other")}
    for folder in folders.values():
        folder.mkdir()
    batch = (random((8, 6)), random((8, 2)))
    layer_arrays(model, batch, folders["one"], None)
    if fault:
        monkeypatch.setattr(Scaled, fault, 1.001)
    layer_arrays(model, batch, folders["other"], folders["one"])
    rows = {row["layer"]: row for row in compare_layers(folders)}
    assert set(rows) == {"before", "suspect", "normalization", "after"}
    assert [name for name, row in rows.items() if not row["agrees"]] == (["suspect"] if fault else [])
    if fault == "factor":
        assert rows["suspect"]["forward"] == pytest.approx(1e-3, rel=0.1)
        assert rows["after"]["in_place"] > 1e-6 > rows["after"]["forward"]
    if fault == "gradient_factor":
        assert rows["suspect"]["gradient"] == pytest.approx(1e-3, rel=0.1)
        assert rows["suspect"]["gradient_of"] == "input 0"


def test_a_layer_that_was_not_compared_says_so(tmp_path):
    class Looping(keras.Model):
        """Calls one layer as usual, one inside of what a backend may trace, and one never."""

        def __init__(self):
            super().__init__(name="looping")
            self.usual, self.inside, self.unused = (
                keras.layers.Dense(6, name=x) for x in ("usual", "inside", "unused")
            )
            for layer in (self.usual, self.inside, self.unused):
                layer.build((None, 6))

        def call(self, inputs):
            return self.inside(self.usual(inputs))

    folders = {name: tmp_path / name for name in ("one", "other")}
    for folder in folders.values():
        folder.mkdir()
        layer_arrays(Looping(), (random((8, 6)), random((8, 6))), folder, None)
    arrays, facts = read_layers(folders["other"])
    del facts["missing"]["002 unused"], facts["kinds"]["002 unused"]
    facts["missing"]["001 inside"] = "runs inside a loop of the backend"
    kept = {name: array for name, array in arrays.items() if "001 inside" not in name and "bias" not in name}
    np.savez(folders["other"] / "layers.npz", facts=np.array(json.dumps(facts)), **kept)
    layer_arrays(Looping(), (random((8, 6)), random((8, 6))), folders["one"], folders["other"])

    rows = {row["layer"]: row for row in compare_layers(folders)}
    assert {name: row["not_compared"] for name, row in rows.items()} == {
        "usual": "gradient of 02 bias only on one of one and other",
        "inside": "runs inside a loop of the backend on other",
        "unused": "is not called in training on one; is not in the model on other",
    }
    assert [row["forward"] for row in rows.values()][1:] == [None, None]
    report = finished(layers=list(rows.values()))
    assert "not compared: is not called in training on one" in report_text(report)
    assert "not compared: is not called in training on one" in report_html(report)


def test_layers_are_as_before_afterwards(tmp_path):
    model = small_model()
    x = random((8, 6))
    before = keras.ops.convert_to_numpy(model(x))
    layer_arrays(model, (x, random((8, 2))), tmp_path, None)
    for layer in model.layers:
        assert "recording" not in repr(layer.call)
    model.set_weights(small_model().get_weights())
    assert np.isfinite(before).all()
    assert model(x).shape == (8, 2)


def test_gradients():
    x, y = keras.Variable([1.0, 2.0]), keras.Variable(3.0)
    counter = keras.Variable(0.0, trainable=False)

    def loss():
        counter.assign(counter + 1)
        return keras.ops.sum(keras.ops.square(x)) * y

    with keras.StatelessScope():
        value, (by_x, by_y) = value_and_grad(loss, [x, y])
    assert float(value) == 15
    np.testing.assert_allclose(keras.ops.convert_to_numpy(by_x), [6, 12])
    assert float(by_y) == 5
    assert float(counter.value) == 0


@pytest.mark.in_turn
def test_noise_is_silenced():
    inputs = keras.Input((4, 6))
    x = keras.layers.GaussianNoise(1.0)(keras.layers.Dropout(0.5)(inputs))
    x = keras.layers.LSTM(3, dropout=0.5, recurrent_dropout=0.5, return_sequences=True)(x)
    x = keras.layers.MultiHeadAttention(2, 3, dropout=0.5)(x, x)
    model = keras.Model(inputs, x)
    values = random((2, 4, 6))

    def difference():
        outputs = [keras.ops.convert_to_numpy(model(values, training=training)) for training in (True, False)]
        return np.abs(outputs[0] - outputs[1]).max()

    assert difference() > 1e-3
    silence(model)
    assert difference() < 1e-6


@pytest.mark.skipif(keras.config.backend() not in NATIVE, reason="no native baseline on this backend")
@pytest.mark.parametrize("depth", all_but_one_slow([1, 2], 1))
def test_the_native_baseline_trains_as_keras_does(depth):
    import runpy

    keras.utils.set_random_seed(0)  # by chance a unit stands just at the kink of its activation, and rounding decides
    trainer_class = runpy.run_path(str(PROJECT / f"benchmarks/cnn_cifar10_{keras.config.backend()}.py"))["Trainer"]
    config = Config.for_preset(
        "smoke", data="mnist5k", depth=depth, widths=(8, 12), learning_rate=0.005, weight_decay=1.0, warmup=0.5
    )
    data = load_images("mnist5k", None, "mnist5k", 0.1, 64)
    model = build_model(config, data)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing)
    model.compile(build_optimizer(config, 6), loss)
    trainer = trainer_class(config, model, 6)
    initial = model.get_weights()
    labels = np.eye(10, dtype=np.float32)[data.train.labels]
    # The digits' flat background ties in max pooling, and rounding would choose where the gradient goes.
    images = np.random.default_rng(0).integers(0, 256, data.train.images.shape, "uint8")
    for step in range(6):
        batch = images[step * 8 :][:16], labels[step * 8 :][:16]
        model.reset_metrics()
        np.testing.assert_allclose(float(trainer.train_on_batch(*batch)), model.train_on_batch(*batch), rtol=1e-5)
    for start, ours, theirs, weight in zip(initial, trainer.weights(), model.get_weights(), model.weights, strict=True):
        if "variance" not in weight.path:  # of which PyTorch keeps the unbiased estimate
            moved = np.abs(theirs - start).max()
            assert moved > 0
            assert np.abs(ours - theirs).max() < 1e-2 * moved, weight.path


def finished(**further):
    """The report of a comparison whose numbers are made up."""
    comparison = Comparison.__new__(Comparison)
    measured = {"median_step_seconds": 0.02, "slow_step_seconds": 0.03, "value": 0.5, "first_step_seconds": 1.0}
    measured["generated_images_per_second"] = 90.0
    faster = measured | {"median_step_seconds": 0.01, "generated_images_per_second": 100.0}
    facts = {"metric": "top1", "data": "mnist5k"}
    rows = [
        Row("jax", "jax", facts=facts, course=made_up([1.0, 0.5]), measured=[measured, measured | {"value": 0.6}]),
        Row("native jax", "jax", native=Path("x"), course=made_up([1.0, 0.5]), measured=[faster]),
        Row("torch", "torch", problem="killed <by> SIGKILL"),
    ]  # fmt: skip
    comparison.__dict__ |= {
        "layers": False, "recipe": "x", "options": [], "repeats": 2, "steps": 2, "interrupted": False, "rows": rows,
        "facts": {"precision": "float32", "preset": "smoke", "machine": "box", "commit": None,
                  "batch_size": 5, "parameters": 10},
    }  # fmt: skip
    return {"command": "recipes compare x", "date": "2026-11-21", **comparison.report(), **further}


def test_the_report_says_what_failed_and_what_was_measured():
    report = finished()
    assert failed(report)
    assert report["native"] == {"jax": {"median_step_seconds": 2.0, "generated_images_per_second": 0.9}}
    text = report_text(report)
    assert "torch: FAILED: killed <by> SIGKILL" in text
    table = {line[0]: line[1:] for line in measures_table(report)}
    assert table["top1"] == ["0.5500 (0.5000–0.6000)", "0.5000", "–"]
    assert table["step, native = 1"] == ["2.00", "–", "–"]
    assert table["images generated a second, native = 1"] == ["0.90", "–", "–"]
    assert "import" not in table
    assert "killed &lt;by&gt; SIGKILL" in report_html(report)
    assert "batches of 5, 10 parameters" in report_html(report)
    assert "batches of 63.63, 10" in report_html(report | {"batch_size": 63.630434782608695})


def test_verdicts():
    report = finished()
    report["rows"] = report["rows"][:2]
    assert not failed(report)
    assert verdict(report).startswith("The losses agree within rounding (reordering a batch")
    assert "Judged over all 2 steps: largest relative difference of the losses 0.0e+00" in verdict(report)

    def compared(losses, reordered=(), **updates):
        courses = {"a": made_up([1.0, 1.0, 1.0], **updates), "b": made_up(losses, **{name: [2.0] for name in updates})}
        report["compared"] = compare_courses(courses, {"b": [made_up(each) for each in reordered]})
        return verdict(report)

    text = compared([1.0, 1.0, 1.00005])
    assert text.startswith("The losses agree within the tolerance, but not within rounding. ")
    assert "in the losses from step 3 on by up to 5.0e-05, 210 times what reordering explains: look at" in text
    assert not failed(report)
    assert 'class="verdict bad"' in report_html(report)

    text = compared([1.1, 1.0, 1.0])
    assert text.startswith("The losses DO NOT AGREE. ")
    assert "from step 1 on by up to 9.1e-02" in text and "look at the loss, masks" in text
    assert failed(report)

    text = compared([1.0, 1.0, 1.0], [[1.0, 1.0, 1.1]])
    assert "Judged over the first 2 of 3 steps" in text
    assert "Beyond, reordering alone moves the loss by up to 1.0e-01." in text
    assert not failed(report)
    assert "end of what is judged" in report_html(report)

    text = compared([1.0, 1.0, 1.0], [[1.5, 1.0, 1.0]])
    assert (
        "The loss on b depends on the order of the examples: in another order, the first one differs by 5.0e-01" in text
    )
    assert failed(report)

    text = compared([1.0, 1.0, 1.0], **{"moving statistics": [1.0]})
    assert "the size of the updates of the moving statistics from step 1 on by up to 5.0e-01" in text
    assert "look at batch normalization" in text

    compared([1.0, 1.1, 1.0])
    report["precision"] = "mixed_bfloat16"
    assert verdict(report).startswith("Agreement is judged in float32 only; in mixed_bfloat16 the largest")
    assert not failed(report)


@pytest.mark.once
def test_an_older_record_is_judged_by_its_losses():
    rows = [{"name": name, "losses": parted(0, 0, difference), "problem": None} for name, difference in
            (("jax", 0), ("torch", 0), ("tensorflow", 5e-5))]  # fmt: skip
    report = {"rows": rows, "precision": "float32", "agreement": {"agrees": "yes", "reordered": [1e-7] * 10}}
    assert verdict(report).startswith(
        "The losses agree within the tolerance, but not within rounding. tensorflow differs"
    )
    report["agreement"]["reordered"] = [0, 0, *[1e-5] * 8]
    assert verdict(report).startswith("The losses agree within rounding")
