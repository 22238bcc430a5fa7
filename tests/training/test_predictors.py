"""What a predictor is given, and what its annotations say."""

import json
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from conftest import numbers, refused_in_one_line

from shared.backends.runtime import prepare_backend
from shared.training.options import Options, write_config
from shared.training.predictors import (
    ClassName,
    FinishedRun,
    Pictures,
    Signature,
    Text,
    TextStream,
    Watcher,
    signature_of,
)
from shared.training.saving import save_model


@dataclass(kw_only=True)
class Config(Options):
    epochs: int = 1
    batch_size: int = 1
    learning_rate: float = 1.0


@pytest.fixture
def directory(tmp_path):
    """A finished run."""
    prepare_backend(0, "float32")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    save_model(model, tmp_path / "model.keras")
    write_config(tmp_path, "toy", Config(seed=7))
    (tmp_path / "result.json").write_text(json.dumps({"metrics": {"loss": 1.0}, "classes": ["a"]}))
    return tmp_path


def test_a_finished_run(directory):
    run = FinishedRun(directory, Config)
    assert (run.directory, run.config.seed, run.result["classes"]) == (directory, 7, ["a"])
    expected = keras.saving.load_model(directory / "model.keras")(np.ones((1, 3)))
    np.testing.assert_array_equal(numbers(run.model(np.ones((1, 3)))), numbers(expected))


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "does not hold the options of this recipe"),
        ("result.json", None, "holds no finished run (no result.json): let it end first"),
        ("result.json", "{", "holds no finished run"),
        ("result.json", "[]", "holds no finished run (result.json is damaged)"),
        ("model.keras", None, "holds no finished run"),
        ("model.keras", "torn", "holds no finished run"),
    ],
)
def test_what_is_not_finished_or_damaged(directory, name, content, message):
    (directory / name).unlink()
    if content:
        (directory / name).write_text(content)
    with refused_in_one_line(message):
        FinishedRun(directory, Config)


@pytest.mark.once
def test_annotations_say_what_a_predictor_takes_and_gives():
    def write(prompt: Text, length: int = 3, seed: int | None = None) -> TextStream: ...

    assert signature_of(write) == Signature(Text, TextStream, {"length": (int, 3), "seed": (int | None, None)})

    def paint(name: ClassName, count: int = 3, watch: Watcher | None = None) -> Pictures: ...

    assert signature_of(paint) == Signature(ClassName, Pictures, {"count": (int, 3)}, "watch")

    def bare(prompt) -> Text: ...
    def no_default(prompt: Text, length: int) -> Text: ...
    def no_type(prompt: Text, length=3) -> Text: ...

    for predict, name in ((bare, "prompt"), (no_default, "length"), (no_type, "length")):
        with pytest.raises(TypeError, match=f"{name} of {predict.__name__} needs a type"):
            signature_of(predict)
