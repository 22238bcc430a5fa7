"""What the models of all recipes have in common."""

import importlib
import inspect
import itertools
import json
import shutil

import keras
import numpy as np
import pytest
from conftest import PROJECT, normal, numbers
from PIL import Image

from shared.backends.compiling import compiled_inference
from shared.backends.runtime import prepare_backend
from shared.data.images.datasets import ImageData, LabelledImages
from shared.images.backbones.pretrained import load_backbone
from shared.text.subwords import kept_subwords
from shared.tools.predict import open_predictor
from shared.training.options import write_config
from shared.training.predictors import (
    Boxes,
    ClassName,
    Conversation,
    Picture,
    Pictures,
    Probabilities,
    Text,
    TextStream,
    signature_of,
)
from shared.training.saving import save_model

RECIPES = sorted(path.stem for path in (PROJECT / "recipes").glob("[a-z]*.py"))


def image_data() -> ImageData:
    """Six images of noise, in three classes."""
    images = LabelledImages(np.random.default_rng(0).integers(0, 256, (6, 28, 28, 1), np.uint8), np.arange(6) % 3)
    return ImageData("noise", list("abc"), images, images, images, [128.0], [74.0], False, "0")


def built_models(recipe: str, preset: str, precision: str = "float32", vocabulary: int = 12) -> list[keras.Model]:
    """The untrained models of a recipe, on a grey image or a few words; all weights are moved off their first values.

    What `build_model` takes beside the options, its arguments say by their names.
    """
    module = importlib.import_module(f"recipes.{recipe}")
    config = module.Config.for_preset(preset, precision=precision)
    prepare_backend(0, precision)
    try:
        given = {"config": config, "data": image_data(), "classes": 3, "characters": 12, "vocabulary": vocabulary}
        wanted = inspect.signature(module.build_model).parameters.keys()
        if "backbone" in wanted:
            given["backbone"], _ = load_backbone(config.backbone, config.image_size, pretrained=False)
        built = module.build_model(**{name: given[name] for name in wanted & given.keys()})
    finally:
        keras.config.set_dtype_policy("float32")
    models = list(built) if isinstance(built, tuple) else [built]
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


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_model_called_is_as_it_predicts_and_stays_as_it_is(recipe):
    for model in built_models(recipe, "smoke"):
        inputs = inputs_of(model)
        expected = model.predict(inputs, verbose=0)
        before = [numbers(variable).copy() for variable in model.variables]
        call = compiled_inference(model, [model])  # JAX takes a minute to run a large model operation by operation
        for _ in range(2):
            np.testing.assert_allclose(numbers(call(inputs)), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
        for variable, value in zip(model.variables, before, strict=True):
            np.testing.assert_array_equal(numbers(variable), value, err_msg=variable.path)


@pytest.mark.in_turn
@pytest.mark.parametrize("recipe", RECIPES)
def test_outputs_are_not_rounded_to_half_precision(recipe):
    """They are float32, and hold numbers that bfloat16, which has the first 16 of their bits, does not."""
    for model in built_models(recipe, "smoke", "mixed_bfloat16"):
        outputs = model.predict(inputs_of(model), verbose=0)
        assert outputs.dtype == np.float32
        assert np.mean(outputs.view(np.uint32) & 0xFFFF != 0) > 0.5, model.name


INPUTS = {
    Picture: Image.new("RGB", (50, 30), "navy"),
    Text: "ab ba",
    Conversation: ["ab", "ba ab", "b"],
    ClassName: "b",
}
QUICK = {"lstm_text": {"length": 5}, "diffusion": {"count": 2, "steps": 2}}
"""Options with which a prediction takes less time."""


def finished_run(recipe: str, directory):
    """The directory of a finished run of a model that has not learned anything."""
    module = importlib.import_module(f"recipes.{recipe}")
    directory.mkdir()
    write_config(directory, recipe, module.Config.for_preset("smoke"))
    words = ["".join(letters) for letters in itertools.product("ab", repeat=6)]
    subwords = kept_subwords(directory / "subwords.model", words, 300, exactly=False)
    result = {"metrics": {}, "classes": list("abc"), "alphabet": "\ufffd\nab cdefghi"}
    (directory / "result.json").write_text(json.dumps(result))
    save_model(built_models(recipe, "smoke", vocabulary=len(subwords))[0], directory / "model.keras")
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
    elif kind is Pictures:
        assert {picture.size for picture in answer} == {(28, 28)}
        assert np.std([np.asarray(picture) for picture in answer]) > 1
    else:
        assert isinstance(answer, str)


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
        _, predict = open_predictor(moved)
        signature = signature_of(predict)
        answers = [predict(INPUTS[signature.takes], **QUICK.get(recipe, {})) for _ in range(2)]
    finally:
        keras.config.set_dtype_policy("float32")
    if signature.gives is TextStream:
        answers = ["".join(answer) for answer in answers]
        assert len(answers[0]) == 5
    assert answers[0] == answers[1]
    check_answer(signature.gives, answers[0])
    assert {path.name: path.read_bytes() for path in moved.iterdir() if path.is_file()} == {
        path.name: content for path, content in before.items()
    }
    assert list((moved / "checkpoint").iterdir()) == [], "not even a lock"
