"""The object detector as people run it: as a script, in a process of its own."""

import json
import math

import keras
import numpy as np
import pytest
from conftest import directory_with, gradients_of, refused_in_one_line
from PIL import Image

from recipes.yolo_detection import Config, build_model
from shared.detection.losses import DetectionLoss
from shared.detection.plots import annotated_picture
from shared.errors import UsageError
from shared.tools.predict import predict_from


@pytest.fixture
def blood_cells():
    """The data directory with BCCD; the test is skipped without it."""
    return directory_with("tfds/bccd")


@pytest.mark.slow
@pytest.mark.in_turn
def test_smoke_on_real_photographs(run_recipe, blood_cells, tmp_path, monkeypatch):
    process = run_recipe("yolo_detection", "--preset", "smoke", "--out", "run", check=0)
    result = json.loads(process.stdout.splitlines()[-1].removeprefix("result "))
    assert (result["data"], result["metric"]) == ("bccd", "map50")
    assert result["classes"] == ["RBC", "WBC", "Platelets"]
    assert set(result["metrics"]) == {"map50", "map", "ap50_RBC", "ap50_WBC", "ap50_Platelets"}
    assert "WARNING: no bccd" not in process.stderr
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {
        *("checkpoint", "config.json", "history.csv", "result.json", "model.keras"),
        *("curves.png", "precision.png", "detections.png"),
    }
    rows = np.genfromtxt(tmp_path / "run/history.csv", delimiter=",", names=True)
    assert rows["loss"][-1] < 0.7 * rows["loss"][0]
    assert 0 < result["value"] == result["metrics"]["map50"] <= 1

    Image.new("RGB", (300, 200), "navy").save(tmp_path / "blue.png")
    (tmp_path / "torn.jpg").write_bytes(b"torn")
    monkeypatch.chdir(tmp_path)
    with refused_in_one_line("torn.jpg cannot be read as an image"):
        predict_from(tmp_path / "run", ["torn.jpg", "blue.png", "--confidence", "0.1"])
    (entry,) = json.loads((tmp_path / "run/predictions.json").read_text())
    assert (entry["file"], entry["width"], entry["height"]) == ("blue.png", 300, 200)
    with Image.open(entry["drawn"]) as drawn:
        assert drawn.size == (300, 200)
    for found in entry["objects"]:
        left, top, right, bottom = found["box"]
        assert 0 <= left <= right <= 300
        assert 0 <= top <= bottom <= 200
        assert found["class"] in result["classes"]
        assert found["score"] >= 0.1


@pytest.mark.once
def test_names_of_boxes_at_the_top_are_seen():
    boxes = np.array([[20, 0, 90, 60], [120, 3, 180, 80], [100, 120, 160, 180]], "float32")
    figure = annotated_picture(np.zeros((200, 300, 3), "uint8"), boxes, np.zeros(3, int), ["cell"], np.full(3, 0.5))
    figure.draw_without_rendering()
    shown = [text.get_window_extent() for text in figure.axes[0].texts]
    assert [text.y1 <= 200 for text in shown] == [True] * 3
    assert shown[2].y0 == pytest.approx(200 - 120, abs=3), "others stand on their box"


@pytest.mark.once
def test_networks_are_as_large_as_published():
    """The parameters that YOLOv8's own log gives for 80 classes."""
    for size, parameters in {"n": 3157184, "s": 11166544, "m": 25902624}.items():
        model = build_model(Config.for_preset("small", size=size, image_size=64), classes=80)
        assert sum(math.prod(weight.shape) for weight in model.trainable_weights) == parameters
        assert model.output_shape == (None, 64 + 16 + 4, 64 + 80)


@pytest.mark.in_turn
def test_all_of_the_network_learns_and_is_saved(tmp_path):
    """Every weight has a gradient, and the same outputs come of the saved model."""
    keras.utils.set_random_seed(0)
    config = Config.for_preset("small", image_size=64)
    model = build_model(config, classes=3)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype("uint8")
    targets = np.array([[[0, 4, 4, 30, 40], [2, 20, 10, 60, 60]], [[1, 0, 0, 64, 64], [-1, 0, 0, 0, 0]]], "float32")
    loss = DetectionLoss(64)
    value, gradients = gradients_of(lambda: loss(targets, model(images, training=True)), model.trainable_weights)
    assert np.isfinite(value)
    moved = {
        weight.path: np.abs(gradient).max() for weight, gradient in zip(model.trainable_weights, gradients, strict=True)
    }
    assert np.isfinite(list(moved.values())).all()
    # At which of the three resolutions the few boxes are learned depends on the initial weights.
    of_boxes = {path for path in moved if path.startswith("detection_head") and "/box" in path}
    assert all(moved[path] > 0 for path in moved.keys() - of_boxes)
    assert sum(moved[path] > 0 for path in of_boxes) >= len(of_boxes) / 3
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(each(images)) for each in (model, loaded)))


@pytest.mark.once
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 300}, "--image-size must be 64, 96"),
        ({"image_size": 32}, "--image-size must be at least 64"),
        ({"mosaic": 1.5}, "--mosaic must be between 0 and 1"),
        ({"scale": 1.0}, "--scale must be at least 0 and below 1"),
        ({"max_boxes": 0}, "--max-boxes must be at least 1"),
        ({"images_per_epoch": 0}, "--images-per-epoch must be at least 1"),
        ({"plain_epochs": -1}, "--plain-epochs must be at least 0"),
    ],
)
def test_options(changes, message):
    with pytest.raises(UsageError, match=message):
        Config.for_preset("smoke", **changes)
