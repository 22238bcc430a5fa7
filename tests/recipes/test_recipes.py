"""The contract of every recipe: its first steps against golden losses, saving, resuming, its models, a whole run."""

import base64
import functools
import importlib
import inspect
import io
import itertools
import json
import re
import shutil
import signal
import sys

import keras
import numpy as np
import pytest
from conftest import PROJECT, normal, numbers, refused_in_one_line
from fastapi.testclient import TestClient
from PIL import Image

from shared.backends.choice import BACKENDS
from shared.backends.compiling import compiled_inference
from shared.backends.optimizers import prepare_optimizer
from shared.backends.runtime import prepare_backend, synchronize_state
from shared.data.images.datasets import ImageData, LabelledImages
from shared.images.backbones.pretrained import load_backbone
from shared.text.subwords import kept_subwords
from shared.tools.compare.agreement import LOSS_BOUNDS, ROUNDING, UPDATE_BOUNDS
from shared.tools.compare.course import length, read_groups
from shared.tools.compare.worker import silence
from shared.tools.exporting.formats import FORMATS, Request
from shared.tools.exporting.worker import export
from shared.tools.predict import answer_facts, open_predictor
from shared.tools.serving.app import Limits, create_app
from shared.tools.serving.engines import ENGINES, served_predictor
from shared.tools.serving.worker import Worker
from shared.training.checkpoint import assign_variables, read_variables
from shared.training.custom import models_together
from shared.training.options import parse_options, write_config
from shared.training.predictors import (
    Boxes,
    ClassName,
    Conversation,
    Mask,
    Picture,
    Pictures,
    Probabilities,
    Text,
    TextStream,
    signature_of,
)
from shared.training.run import Run, launch
from shared.training.saving import read_model, save_model

RECIPES = sorted(path.stem for path in (PROJECT / "recipes").glob("[a-z]*.py"))
GOLDEN = PROJECT / "tests/recipes/golden.json"
STEPS = 3


class Trained(Exception):
    """Ends a recipe after the first steps of its main training."""


class Watch(keras.callbacks.Callback):
    """Notes the losses of each step, and how far the variables of each kind have moved after the last, as norms."""

    def __init__(self, state):
        super().__init__()
        self.state = state
        self.start = read_groups(state)
        self.losses: dict[str, list[float]] = {}
        self.updates: dict[str, float] = {}
        self.sizes: dict[str, float] = {}

    def on_train_batch_end(self, batch, logs=None):
        for name, value in logs.items():
            if name.endswith("loss"):
                self.losses.setdefault(name, []).append(float(value))
        if isinstance(self.state, keras.Model):
            synchronize_state(self.state)
        for group, arrays in read_groups(self.state).items():
            self.updates[group] = length([a - b for a, b in zip(arrays, self.start[group], strict=True)])
            self.sizes[group] = length(arrays)


class FirstSteps(Run):
    """A run whose every training is `STEPS` steps without noise, the last of them twice: the second time, from the
    checkpoint before it, after all that a checkpoint must hold has been overwritten.
    """

    def __init__(self, config):
        super().__init__(config)
        self.courses: dict[str, Watch] = {}

    def fit(self, model, batches, data, phase="", **arguments):
        prepare_optimizer(model)
        self.take_steps(model, model, batches, phase, functools.partial(super().fit, model, batches, data, phase))

    def train(self, step, batches, state, data, phase="", **arguments):
        train = functools.partial(super().train, step, batches, state, data, phase)
        self.take_steps(models_together(state), state, batches, phase, train)

    def take_steps(self, model, state, batches, phase, train):
        silence(model)
        batches.batches_per_epoch = STEPS
        watch = self.courses[phase or "main"] = Watch(state)
        train(epochs=1, callbacks=[watch])
        whole = read_variables(state)

        last = max((self.directory / "checkpoint" / phase).glob("step-*.npz"))
        assert last.stem == f"step-{STEPS:09}"
        last.unlink()
        kept = [name for name in whole if not name.startswith("metrics")]
        assign_variables(state, {name: whole[name] + np.ones_like(whole[name]) for name in kept})
        self.config.resume = True
        again = Watch(state)
        train(epochs=1, callbacks=[again])
        self.config.resume = False
        for name, values in watch.losses.items():
            assert again.losses[name] == values[-1:], f"the last {name} after a resume"
        resumed = read_variables(state)
        for name in kept:
            np.testing.assert_array_equal(resumed[name], whole[name], err_msg=f"{name} after a resume")
        if not phase:
            raise Trained


def first_steps(recipe: str, directory) -> dict[str, Watch]:
    """The first steps of the recipe with the preset test, by the phase of the training; see `FirstSteps`."""
    module = importlib.import_module(f"recipes.{recipe}")
    options = ("--preset", "test", "--out", str(directory), "--checkpoint-seconds", "0")
    run = FirstSteps(parse_options(module.Config, list(options)))
    with pytest.raises(Trained):
        module.main(run)
    return run.courses


def deviations(course: Watch, golden: dict) -> list[str]:
    """What of a course is not as the golden one, beyond the tolerance of `recipes compare`."""
    found = []
    if course.losses.keys() != golden["losses"].keys() or course.updates.keys() != golden["updates"].keys():
        return [f"losses {list(course.losses)}, updates {list(course.updates)}"]
    for name, values in course.losses.items():
        expected = golden["losses"][name]
        if not np.allclose(values, expected, rtol=LOSS_BOUNDS.tolerance, atol=0):
            found.append(f"{name} {expected} -> {values}")
    for name, value in course.updates.items():
        expected = golden["updates"][name]
        rounded = np.hypot(expected, 4 * ROUNDING * course.sizes[name]) - expected
        if abs(value - expected) > UPDATE_BOUNDS.tolerance * expected + rounded:
            found.append(f"update of the {name} {expected} -> {value}")
    return found


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_first_steps_are_golden_and_resumed_with_the_same_bits(recipe, tmp_path, request):
    """The same initial weights, batches, losses and updates on every backend, as when golden.json was written:
    `python -m pytest tests/recipes --update-golden` writes it anew, and shows what changed.
    """
    courses = first_steps(recipe, tmp_path / "run")
    golden = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    none = {"losses": {}, "updates": {}}
    found = [
        f"{recipe}, {phase}: {deviation}"
        for phase, course in courses.items()
        for deviation in deviations(course, golden.get(recipe, {}).get(phase, none))
    ]
    if not request.config.option.update_golden:
        assert found == [], "where the change is meant: python -m pytest tests/recipes --update-golden"
        assert courses.keys() == golden[recipe].keys()
        return
    request.node.user_properties += [("golden", line) for line in found]
    if found or courses.keys() != golden.get(recipe, {}).keys():
        fresh = {phase: {"losses": course.losses, "updates": course.updates} for phase, course in courses.items()}
        GOLDEN.write_text(
            json.dumps(dict(sorted((golden | {recipe: fresh}).items())), indent=1) + "\n", encoding="utf-8"
        )


def image_data(*shape: int) -> ImageData:
    """Six images of noise, in three classes."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, *shape), np.uint8)
    images = LabelledImages(pixels, np.arange(6) % 3)
    channels = shape[-1]
    return ImageData("noise", list("abc"), images, images, images, [128.0] * channels, [74.0] * channels, False, "0")


def built_models(recipe: str, config, shape=(28, 28, 1), vocabulary: int = 12) -> list[keras.Model]:
    """The untrained models of a recipe, on an image or a few words.

    What `build_model` takes beside the options, its arguments say by their names.
    """
    module = importlib.import_module(f"recipes.{recipe}")
    prepare_backend(0, config.precision)
    try:
        given = {"config": config, "data": image_data(*shape), "classes": 3, "characters": 12, "tokens": 12}
        given["vocabulary"] = vocabulary
        wanted = inspect.signature(module.build_model).parameters.keys()
        if "backbone" in wanted:
            given["backbone"], _ = load_backbone(config.backbone, config.image_size, pretrained=False)
        built = module.build_model(**{name: given[name] for name in wanted & given.keys()})
    finally:
        keras.config.set_dtype_policy("float32")
    return list(built) if isinstance(built, tuple) else [built]


def moved_models(recipe: str, *options: str) -> list[keras.Model]:
    """The models of a recipe with the preset test; all weights are moved off their first values."""
    config_class = importlib.import_module(f"recipes.{recipe}").Config
    models = built_models(recipe, parse_options(config_class, ["--preset", "test", *options]))
    for model in models:
        weights = enumerate(model.get_weights())
        model.set_weights([weight + 0.01 * normal(*weight.shape, seed=index) for index, weight in weights])
    return models


def inputs_of(model: keras.Model):
    """Two examples of what a model takes: pixels, ids below 3, or normal numbers, in sequences of 5."""

    def example(spec):
        shape = (2, *(length or 5 for length in spec.shape[1:]))
        if spec.dtype.startswith("float"):
            return normal(*shape)
        return np.random.default_rng(0).integers(0, 256 if spec.dtype == "uint8" else 3, shape).astype(spec.dtype)

    return keras.tree.map_structure(example, model.input)


def called(model: keras.Model, inputs, times: int = 1) -> np.ndarray:
    """What a model gives, compiled: JAX takes a minute to run a large one operation by operation."""
    call = compiled_inference(model, [model])
    return [numbers(call(inputs)) for _ in range(times)][-1]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_model_saved_and_loaded_gives_the_same_outputs_and_stays_as_it_is(recipe, tmp_path):
    for model in moved_models(recipe):
        save_model(model, tmp_path / "model.keras")
        inputs = inputs_of(model)
        expected = called(read_model(tmp_path / "model.keras"), inputs)
        before = [numbers(variable).copy() for variable in model.variables]
        found = called(model, inputs, times=2)  # PyTorch records the operations when it meets them again
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
        for variable, value in zip(model.variables, before, strict=True):
            np.testing.assert_array_equal(numbers(variable), value, err_msg=variable.path)


@pytest.mark.in_turn
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_model_predicts_as_it_is_called(recipe):
    for model in moved_models(recipe):
        inputs = inputs_of(model)
        expected = called(model, inputs)
        found = model.predict(inputs, verbose=0)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_full_preset_is_built(recipe):
    config = importlib.import_module(f"recipes.{recipe}").Config.for_preset("full")
    for model in built_models(recipe, config, shape=(32, 32, 3)):
        assert model.built and model.count_params() > 0
        # By these PyTorch knows the weights of nested models: of two alike, only one has its gradients reset.
        paths = [variable.path for variable in model.variables]
        assert len(set(paths)) == len(paths)


@pytest.mark.in_turn
@pytest.mark.parametrize("recipe", RECIPES)
def test_outputs_are_not_rounded_to_half_precision(recipe):
    """They are float32, and hold numbers that bfloat16, which has the first 16 of their bits, does not."""
    for model in moved_models(recipe, "--precision", "mixed_bfloat16"):
        outputs = model.predict(inputs_of(model), verbose=0)
        assert outputs.dtype == np.float32
        assert np.mean(outputs.view(np.uint32) & 0xFFFF != 0) > 0.5, model.name


INPUTS = {
    Picture: Image.new("RGB", (50, 30), "navy"),
    Text: "ab ba",
    Conversation: ["ab", "ba ab", "b"],
    ClassName: "b",
}
QUICK = {"lstm_text": {"length": 5}, "gpt_text": {"length": 5}, "diffusion": {"count": 2, "steps": 2}}
"""Options with which a prediction takes less time."""


def finished_run(recipe: str, directory):
    """The directory of a finished run of a model that has not learned anything."""
    module = importlib.import_module(f"recipes.{recipe}")
    directory.mkdir()
    config = module.Config.for_preset("smoke")
    write_config(directory, recipe, config)
    words = ["".join(letters) for letters in itertools.product("ab", repeat=6)]
    subwords = kept_subwords(directory / "subwords.model", words, 300, exactly=False)
    result = {"metrics": {}, "classes": list("abc"), "alphabet": "\ufffd\nab cdefghi"}
    (directory / "result.json").write_text(json.dumps(result))
    save_model(built_models(recipe, config, vocabulary=len(subwords))[0], directory / "model.keras")
    return directory


def check_answer(kind, answer):
    """Whether an answer to one of INPUTS is of its kind."""
    if kind is Probabilities:
        assert list(answer) == list("abc")
        assert sum(answer.values()) == pytest.approx(1)
    elif kind is Boxes:
        for label, score, left, top, right, bottom in answer:
            assert label in "abc"
            assert 0 <= score <= 1
            assert 0 <= left <= right <= 50
            assert 0 <= top <= bottom <= 30
    elif kind is Mask:
        assert answer.size == (50, 30)
        assert np.asarray(answer).max() < 3
    elif kind is Pictures:
        assert {picture.size for picture in answer} == {(28, 28)}
        assert np.std([np.asarray(picture) for picture in answer]) > 1
    else:
        assert isinstance(answer, str)


def served_answer(run, predict, given, options):
    """What `recipes serve` answers to one of INPUTS."""
    worker = Worker(lambda: served_predictor(run, predict))
    try:
        client = TestClient(create_app(worker, Limits()))
        name = client.get("/info").json()["input"]["name"]
        if isinstance(given, Image.Image):
            content = io.BytesIO()
            given.save(content, format="PNG")
            response = client.post("/predict", files={name: content.getvalue()}, data=options)
        else:
            response = client.post("/predict", json={name: given} | options)
        assert response.status_code == 200, response.text
        return response.json()
    finally:
        worker.close()


def decoded(picture: str) -> np.ndarray:
    """The pixels of a served picture."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_finished_run_predicts_on_any_backend_wherever_it_is(recipe, tmp_path):
    first = finished_run(recipe, tmp_path / "run")
    config = json.loads((first / "config.json").read_text())
    config["backend"] = "another"
    config["options"] |= {"data": "/gone", "data_dir": "/gone", "out": str(first), "option_of_other_code": 1}
    (first / "config.json").write_text(json.dumps(config))
    before = {path: path.read_bytes() for path in first.iterdir()}
    (first / "checkpoint").mkdir()
    moved = shutil.move(first, tmp_path / "moved")
    try:
        run, predict = open_predictor(moved)
        signature = signature_of(predict)
        answers = [predict(INPUTS[signature.takes], **QUICK.get(recipe, {})) for _ in range(2)]
        served = served_answer(run, predict, INPUTS[signature.takes], QUICK.get(recipe, {}))
    finally:
        keras.config.set_dtype_policy("float32")
    if signature.gives is TextStream:
        answers = ["".join(answer) for answer in answers]
        assert len(answers[0]) == 5
    assert answers[0] == answers[1]
    check_answer(signature.gives, answers[0])
    if signature.gives is Pictures:
        np.testing.assert_array_equal([decoded(picture) for picture in served["pictures"]], answers[0])
    elif signature.gives is Mask:
        np.testing.assert_array_equal(decoded(served["mask"]), answers[0])
        assert decoded(served["drawn"]).shape == (30, 50, 3)
    else:
        assert served == answer_facts(signature.gives, INPUTS[signature.takes], answers[0])
    assert {path.name: path.read_bytes() for path in moved.iterdir() if path.is_file()} == {
        path.name: content for path, content in before.items()
    }
    assert list((moved / "checkpoint").iterdir()) == [], "not even a lock"


def printed_by(run_python, hiding, program: str, *arguments, **keywords) -> str:
    """What a program of docs/deploy prints where no framework is installed."""
    hidden = hiding("keras", "tensorflow", "torch", "jax", "shared")
    process = run_python(PROJECT / "docs/deploy" / program, *arguments, check=0, **hidden, **keywords)
    return process.stdout


def check_program(predict, about, run_python, hiding):
    """Whether the program of docs/deploy for what a recipe takes and gives says what its predictor says."""
    signature = signature_of(predict)
    given = INPUTS[signature.takes]
    facts = json.loads(about.read_text(encoding="utf-8"))
    if not hasattr(predict, "exported") and (signature.takes, signature.gives) != (Picture, Probabilities):
        return  # the model as it is, for which there is no program
    picture = about.with_name("picture.png")
    if signature.takes is Picture:
        given.save(picture)
    if signature.gives is Probabilities:
        shown = printed_by(run_python, hiding, "classify.py", about, picture)
        answer = predict(given)
        for label, percent in re.findall(r"(\w+) ([\d.]+)%", shown.removeprefix(str(picture))):
            assert float(percent) / 100 == pytest.approx(answer[label], abs=1e-3)
    elif signature.gives is Boxes:
        boxes = predict(given, confidence=1e-4)
        confidence = float(np.mean([box.score for box in boxes[9:11]]))
        facts["graphs"]["model"]["inputs"]["confidence"]["default"] = confidence
        about.write_text(json.dumps(facts))
        lines = printed_by(run_python, hiding, "detect.py", about, picture).splitlines()
        assert len(lines) == 10
        for line, (label, score, *sides) in zip(lines, boxes, strict=False):
            assert line.split(": ")[1].startswith(f"{label} {score:.2f} at ")
            np.testing.assert_allclose([float(side) for side in line.rpartition(" at ")[2].split()], sides, atol=0.06)
    elif signature.gives is Mask:
        printed_by(run_python, hiding, "segment.py", about, picture)
        with Image.open(about.with_name("picture-mask.png")) as mask:
            np.testing.assert_array_equal(mask, predict(given))
    elif (signature.takes, signature.gives) == (Text, Text):
        assert printed_by(run_python, hiding, "translate.py", about, given) == f"{predict(given)}\n"
    elif signature.takes is Conversation:
        shown = printed_by(run_python, hiding, "chat.py", about, said="ab\n")
        assert shown == f"{predict(['ab'], beams=1)}\n"
    elif signature.gives is TextStream:
        program = "complete.py" if "encode" in facts["graphs"] else "write.py"
        about.write_text(json.dumps(facts | {"temperature": 0}))
        shown = printed_by(run_python, hiding, program, about, given, 80, 0)
        assert shown == "".join(predict(given, length=80, temperature=0)) + "\n"
    elif signature.gives is Pictures:
        program = "denoise.py" if "steps" in facts else "generate.py"
        printed_by(run_python, hiding, program, about, given, about.with_name("images.png"))
        with Image.open(about.with_name("images.png")) as images:
            assert images.size == (8 * 28, 28)
            assert np.std(np.asarray(images)) > 1


def check_engine(recipe, directory, predict):
    """Whether `recipes serve` answers by the exported graphs as the predictor does."""
    signature = signature_of(predict)
    served = ENGINES["auto"](directory)
    if not hasattr(predict, "exported") and (signature.takes, signature.gives) != (Picture, Probabilities):
        assert served.engine == "keras"
        return
    assert served.engine == "onnx"
    assert "onnxruntime" in served.versions
    options = {name: default for name, (_, default) in signature.options.items()} | QUICK.get(recipe, {})
    given = INPUTS[signature.takes]
    found, expected = (each(given, **options) for each in (served.predict, predict))
    if signature.gives is Pictures:
        np.testing.assert_allclose(*(np.array(each, int) for each in (found, expected)), atol=2)
    elif signature.gives is Mask:
        np.testing.assert_array_equal(found, expected)
    elif signature.gives is Probabilities:
        assert found == pytest.approx(expected, abs=1e-5)
    elif signature.gives is Boxes:
        assert [box.label for box in found] == [box.label for box in expected]
        np.testing.assert_allclose([box[1:] for box in found], [box[1:] for box in expected], atol=1e-2)
    else:
        assert "".join(found) == "".join(expected)


def exported_run(recipe: str, directory, format_name: str):
    """The directory of a finished run of a recipe, and the model.json of its export, beside what was compared."""
    run = finished_run(recipe, directory / "run")
    out = run / "export" / format_name / f"model{FORMATS[format_name].suffix}"
    assert export(Request(run, format_name, out), timed=False) == 0
    about = out.with_suffix(".json")
    facts = json.loads(about.read_text(encoding="utf-8"))
    assert all((out.parent / graph["file"]).exists() for graph in facts["graphs"].values())
    assert facts["checked"]["largest_difference"] < 1e-4
    return run, about


@pytest.mark.only_on("tensorflow")
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_finished_run_is_exported_and_a_program_without_keras_uses_it(recipe, run_python, hiding, tmp_path):
    run, about = exported_run(recipe, tmp_path, "onnx")
    predict = open_predictor(run)[1]
    check_engine(recipe, run, predict)
    check_program(predict, about, run_python, hiding)


@pytest.mark.only_on("tensorflow")
def test_only_an_export_of_the_model_is_served(tmp_path, capsys):
    run, about = exported_run("mlp_from_scratch", tmp_path, "onnx")
    facts = json.loads(about.read_text(encoding="utf-8"))
    assert ENGINES["onnx"](run).engine == "onnx"
    capsys.readouterr()
    for change in ({"model_sha256": "0"}, {"raw": True}, {"graphs": {}}):
        about.write_text(json.dumps(facts | change))
        assert ENGINES["auto"](run).engine == "keras"
        reason = f"{about.parent} is of another model, of other code, or raw"
        assert capsys.readouterr().err == f"WARNING: {reason}: served by Keras instead\n"
        with refused_in_one_line(f"{reason}: run  recipes export {run}  or leave --engine out"):
            ENGINES["onnx"](run)
    about.write_text(json.dumps(facts))
    assert ENGINES["keras"](run).engine == "keras"
    shutil.rmtree(run / "export")
    assert ENGINES["auto"](run).engine == "keras"
    assert capsys.readouterr().err == ""
    with refused_in_one_line("holds no exported model: run  recipes export"):
        ENGINES["onnx"](run)


@pytest.mark.only_on("tensorflow")
def test_the_command_exports_on_its_backend_whatever_is_asked_for(run_python, tmp_path):
    run = finished_run("mlp_from_scratch", tmp_path / "run")
    command = ("-m", "shared.tools.cli", "export", run, "--raw")
    process = run_python(*command, check=0, KERAS_BACKEND="jax", PYTHONPATH=str(PROJECT))
    facts = json.loads((run / "export/onnx/model.json").read_text(encoding="utf-8"))
    assert list(facts["graphs"]["model"]["outputs"]) == ["logits"]
    assert (run / "export/onnx/model.onnx").stat().st_size == facts["checked"]["bytes"]
    assert "ms of processor time; tensorflow takes" in process.stdout
    assert process.stderr == ""


@pytest.mark.slow
@pytest.mark.only_on("jax")
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_finished_run_is_exported_as_stablehlo(recipe, tmp_path):
    exported_run(recipe, tmp_path, "stablehlo")


@pytest.mark.once
@pytest.mark.parametrize("recipe", RECIPES)
def test_refused_data_leave_no_directory(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_RECIPES_CACHE", str(tmp_path / "cache"))
    (tmp_path / "empty").mkdir()
    handler = signal.getsignal(signal.SIGTERM)
    module = importlib.import_module(f"recipes.{recipe}")
    for out in ("new", "empty"):
        words = ["--preset", "test", "--data", str(tmp_path / "gone"), "--out", str(tmp_path / out)]
        monkeypatch.setattr(sys, "argv", [f"{recipe}.py", *words])
        with pytest.raises(SystemExit) as ended:
            launch(module.main, module.Config)
        signal.signal(signal.SIGTERM, handler)
        assert ended.value.code == 2
        assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.in_turn
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_whole_run(recipe, run_recipe, tmp_path):
    process = run_recipe(recipe, "--preset", "test", "--out", "run", check=0, PYTHONPROFILEIMPORTTIME="1")
    modules = [line.rpartition("|")[2].split(".") for line in process.stderr.splitlines() if "import time:" in line]
    imported = {package.strip() for package, *below in modules if below}
    assert imported & set(BACKENDS) == {keras.config.backend()}
    result = json.loads(process.stdout.splitlines()[-1].removeprefix("result "))
    assert result == json.loads((tmp_path / "run/result.json").read_text(encoding="utf-8"))
    assert (result["recipe"], result["backend"]) == (recipe, keras.config.backend())
    assert result["value"] == result["metrics"][result["metric"]]
    assert {"config.json", "history.csv", "model.keras", "checkpoint", "curves.png"} < {
        path.name for path in (tmp_path / "run").iterdir()
    }
    importlib.import_module(f"recipes.{recipe}")  # registers what the model is made of
    assert read_model(tmp_path / "run/model.keras").count_params() == result["parameters"]
