"""The command `recipes export`: what it keeps, what it refuses, and what it says."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import PROJECT, normal, refused_in_one_line
from keras import layers

from shared.backends.exporting import Graph
from shared.backends.runtime import dtype_policy
from shared.data.images.datasets import load_images
from shared.images.exports import exported_classifier
from shared.images.metrics import top_k_accuracy
from shared.tools.exporting import formats, records, worker
from shared.tools.exporting.formats import FORMATS, Request
from shared.tools.exporting.records import batches_table, exports_table, record_export, servers_table
from shared.tools.exporting.runtimes import caller
from shared.tools.exporting.worker import export
from shared.tools.project import recipe_paths
from shared.training.exports import Exported, largest_difference, model_graph
from shared.training.predictors import Text

FORMAT = {"tensorflow": "onnx", "torch": "onnx", "jax": "stablehlo"}[keras.config.backend()]
"""What the running backend writes."""


@pytest.fixture
def exporting(monkeypatch, tmp_path):
    """Exports a model, and gives the exit code and the request; the predictor may say what."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(json.dumps({"recipe": "toy"}))
    (tmp_path / "run/model.keras").touch()

    def export_toy(model, exported=None, precision="float32", timed=True, **options):
        def predict(text: Text) -> Text:
            return text

        run = SimpleNamespace(
            model=model,
            result={"preset": "test", "data": "toys", "metric": "top1"},
            config=SimpleNamespace(precision=precision),
        )
        if exported:
            predict.exported = lambda: exported
        monkeypatch.setattr(
            worker,
            "open_predictor",
            lambda directory: (run, predict),
        )
        out = tmp_path / "out" / f"toy{FORMATS[FORMAT].suffix}"
        request = Request(tmp_path / "run", FORMAT, out, **options)
        return export(request, timed), request

    return export_toy


def toy() -> keras.Model:
    """Sequences of any length of three numbers, to two numbers each."""
    inputs = keras.Input((None, 3))
    return keras.Model(inputs, layers.Dense(2)(layers.Dropout(0.5)(inputs)))


def test_a_model_of_mixed_precision_computes_in_float32(exporting, tmp_path):
    with dtype_policy("mixed_bfloat16"):
        model = toy()
    model.save(tmp_path / "run/model.keras")
    code, request = exporting(model, precision="mixed_bfloat16")
    assert code == 0
    weights, x = model.get_weights(), normal(2, 5, 3)
    outputs = caller(FORMAT, request.out, model_graph(toy()))({"inputs": x})["outputs"]
    np.testing.assert_allclose(outputs, x @ weights[0] + weights[1], atol=1e-5)


def test_a_recipe_that_says_nothing_exports_its_model_as_it_is(exporting, capsys):
    model = toy()
    code, request = exporting(model)
    assert code == 0
    assert {path.name for path in request.out.parent.iterdir()} == {request.out.name, "toy.json"}
    facts = json.loads(request.out.with_suffix(".json").read_text(encoding="utf-8"))
    assert facts["graphs"]["model"]["file"] == request.out.name
    assert facts["graphs"]["model"]["inputs"] == {
        "inputs": {"shape": ["batch", "inputs_length", 3], "dtype": "float32"}
    }
    assert facts["checked"]["bytes"] == request.out.stat().st_size
    assert set(facts["checked"]["milliseconds"]) == {"exported", "model(x)", "predict"}
    x = normal(4, 7, 3)
    outputs = caller(FORMAT, request.out, model_graph(model))({"inputs": x})["outputs"]
    np.testing.assert_allclose(outputs, model.predict(x, verbose=0), atol=1e-6)
    assert "largest difference to model(x, training=False) in" in capsys.readouterr().out


def test_several_inputs_and_outputs_are_numbered(exporting):
    inputs = [keras.Input((2,)), keras.Input((3,))]
    outputs = [layers.Dense(1)(each) for each in inputs]
    code, request = exporting(keras.Model(inputs, outputs), timed=False)
    assert code == 0
    graph = json.loads(request.out.with_suffix(".json").read_text(encoding="utf-8"))["graphs"]["model"]
    assert (list(graph["inputs"]), list(graph["outputs"])) == (["inputs_0", "inputs_1"], ["outputs_0", "outputs_1"])


def test_a_file_that_computes_something_else_is_not_kept(exporting, capsys):
    model = toy()
    raw = model_graph(model)

    def off(inputs):
        return {"outputs": raw.function(inputs=inputs)["outputs"] + 1e-3}

    code, request = exporting(model, Exported(model, "", raw, [Graph("model", off, raw.inputs, raw.outputs)]))
    assert code == 1
    assert list(request.out.parent.iterdir()) == []
    printed = capsys.readouterr()
    assert ": 1.0e-03" in printed.out
    assert printed.err == f"error: above 0.0001: nothing is kept of {request.out}\n"


def test_what_is_not_a_number_differs():
    assert largest_difference(np.array([1.0, np.nan]), np.array([1.0, 2.0])) == np.inf
    assert largest_difference(np.zeros(2), np.zeros((1, 2))) == np.inf
    assert largest_difference(np.zeros((0, 2)), np.zeros((0, 2))) == 0


@pytest.mark.once
def test_a_run_that_has_not_finished_is_refused(tmp_path):
    request = Request(tmp_path, "onnx", tmp_path / "model.onnx")
    with refused_in_one_line("is not the directory of a run"):
        export(request)
    config = {"recipe": recipe_paths()[0].stem, "backend": "jax", "code": "", "options": {"preset": "test"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with refused_in_one_line("let it end first"):
        export(request)


@pytest.mark.once
@pytest.mark.parametrize(
    ("words", "hidden", "message"),
    [
        (("--format", "pdf"), (), "invalid choice"),
        ((), ("tf2onnx", "onnxruntime"), 'not installed: onnxruntime, tf2onnx: run  pip install'),
        (("--format", "litert"), ("tensorflow",), 'litert is written by tensorflow, not installed here'),
        (("--format", "stablehlo"), ("flatbuffers",), "not installed: flatbuffers: run  pip install"),
        (("--format", "onnx"), ("tensorflow", "torch"), 'onnx is written by tensorflow or torch'),
        (("--format", "litert", "--int8"), (), "--int8 is for --format onnx"),
        (("--raw", "--int8"), (), "--int8 is for whole classifiers"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_said_in_one_line(words, hidden, message, run_python, hiding):
    """And at once: no framework is imported."""
    paths = {**hiding(*hidden)} if hidden else {}
    folder = [paths["PYTHONPATH"]] if paths else []
    process = run_python(
        "-m", "shared.tools.cli", "export", "RUN", *words, check=2,
        **paths | {"PYTHONPATH": ":".join([*folder, str(PROJECT)])},
    )  # fmt: skip
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1
    assert message in process.stderr


def test_only_what_has_a_metric_is_quantized(exporting):
    with refused_in_one_line("--int8 is for image classification"):
        exporting(toy(), int8=True)


@pytest.mark.only_on("tensorflow")
def test_quantization_keeps_the_accuracy_and_more_loss_is_refused(exporting, capsys):
    data = load_images("mnist5k", None, "mnist5k", validation=0.1)
    inputs = keras.Input((28, 28, 1), dtype="uint8")
    x = layers.Flatten()(layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, layers.Dense(10)(layers.Dense(64, "relu")(x)))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*data.train, epochs=3, verbose=0)
    exported = exported_classifier(model, data.classes, lambda: data)

    code, request = exporting(model, exported, timed=False)
    assert code == 0
    before = request.out.stat().st_size
    code, request = exporting(model, exported, timed=False, int8=True)
    assert code == 0
    assert request.out.stat().st_size < before / 3
    checked = json.loads(request.out.with_suffix(".json").read_text(encoding="utf-8"))["checked"]
    accuracy = top_k_accuracy(model.predict(data.test.images, verbose=0), data.test.labels, 1)
    assert checked["metric_before"] == accuracy > 0.8
    assert abs(checked["metric_after"] - accuracy) < 0.01
    assert 1e-4 < checked["largest_difference"] < 0.5
    capsys.readouterr()

    code, request = exporting(model, exported, timed=False, int8=True, most_loss=-2)
    assert code == 1
    assert "percentage points are lost, more than -2" in capsys.readouterr().err


def test_what_was_measured_is_recorded_and_shown_in_a_table(exporting, monkeypatch, tmp_path):
    monkeypatch.setattr(records, "MEASURED", tmp_path / "exports")
    recipe = recipe_paths()[0].stem
    (tmp_path / "run/config.json").write_text(json.dumps({"recipe": recipe}))
    _, request = exporting(toy())
    path = record_export(request.out.with_suffix(".json"))
    assert path.name == f"{recipe}-{FORMAT}.json"
    quantized = json.loads(path.read_text(encoding="utf-8")) | {"int8": True}
    quantized |= {"metric_before": 0.5, "metric_after": 0.25}
    path.with_name("more.json").write_text(json.dumps(quantized))
    *_, first, second = exports_table().splitlines()
    assert first.startswith(f"| {recipe} | test, toys | {FORMAT} | ")
    assert f"| {FORMAT} int8 | " in second
    assert second.endswith(" | top1 0.2500, 0.5000 before |")
    with refused_in_one_line("describes no exported model"):
        record_export(tmp_path / "run/config.json")


@pytest.mark.once
def test_a_directory_is_not_replaced_but_a_saved_model_is(tmp_path, monkeypatch):
    monkeypatch.setattr(formats.subprocess, "run", lambda *_, **__: SimpleNamespace(stderr="", returncode=0))
    options = {"raw": False, "int8": False, "most_loss": 1.0}
    for format_name in ("onnx", "saved_model"):
        with refused_in_one_line("is a directory, which the export would replace: name a file in it"):
            formats.export_run(tmp_path / "run", format_name, tmp_path, **options)
    (tmp_path / "saved_model.pb").touch()
    monkeypatch.setattr(formats, "writer_of", lambda name: "tensorflow")
    assert formats.export_run(tmp_path / "run", "saved_model", tmp_path, **options) == 0


@pytest.mark.once
def test_batches_are_shown_by_engine(monkeypatch, tmp_path):
    monkeypatch.setattr(records, "BATCHED", tmp_path)
    times = {"onnx": {"1": 1.5, "8": 0.25}, "keras": {"1": 4.0, "8": 0.5}}
    record = {"recipe": "some", "preset": "test", "backend": "jax", "milliseconds": times}
    (tmp_path / "some-jax.json").write_text(json.dumps(record))
    assert batches_table().splitlines()[2:] == [
        "| some | test | ONNX Runtime | 1.50 ms | 0.25 ms |",
        "| some | test | Keras, jax | 4.00 ms | 0.50 ms |",
    ]


@pytest.mark.once
def test_servers_are_shown_by_engine(monkeypatch, tmp_path):
    monkeypatch.setattr(records, "SERVED", tmp_path)
    row = {
        "backend": "jax", "engine": "keras", "requests_per_second": 100.4, "p50_milliseconds": 8.25,
        "p95_milliseconds": 20.0, "processor_milliseconds": 3.04, "megabytes": 400,
    }  # fmt: skip
    record = {"recipe": "some", "preset": "test", "rows": [row, row | {"engine": "onnx"}]}
    (tmp_path / "some.json").write_text(json.dumps(record))
    assert servers_table().splitlines()[2:] == [
        "| some | test | Keras, jax | 100 | 8.2 ms | 20.0 ms | 3.0 ms | 400 MB |",
        "| some | test | ONNX Runtime | 100 | 8.2 ms | 20.0 ms | 3.0 ms | 400 MB |",
    ]


@pytest.mark.only_on("jax")
def test_a_model_is_timed_as_one_program_on_jax():
    """Operation by operation, a large one takes minutes to compile."""
    model = toy()
    raw, calls = model_graph(model), []

    def counted(**inputs):
        calls.append(inputs)
        return raw.function(**inputs)

    exported = Exported(model, "", raw._replace(function=counted))
    assert set(worker.milliseconds(exported, lambda name, inputs: {})) == {"exported", "model(x)", "predict"}
    assert len(calls) == 1
