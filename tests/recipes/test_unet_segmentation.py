"""The segmentation recipe as people use it: its encoder, masks of other images, what is refused."""

import json

import keras
import numpy as np
import pytest
from conftest import PROJECT, directory_with, numbers, refused_in_one_line
from PIL import Image

from recipes.unet_segmentation import Config, build_model, evaluate, load_encoder, main
from shared.data.segmentation.segmented_images import UNLABELLED, SegmentationData, SegmentedImages
from shared.errors import UsageError
from shared.images.backbones.pretrained import load_backbone
from shared.segmentation.instances import separate_objects
from shared.segmentation.losses import SegmentationLoss
from shared.segmentation.prediction import predict_in_tiles, tile_predictor
from shared.tools.predict import predict_from
from shared.training.run import Run


def test_tiles_are_what_the_whole_is_where_it_fits():
    model = build_model(Config.for_preset("test"), classes=3, channels=1)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 1), np.uint8)
    probabilities = predict_in_tiles(tile_predictor(model), pixels, 32, 0.5)
    expected = numbers(keras.ops.softmax(model(pixels[None], training=False)))[0]
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.in_turn
def test_the_encoder_has_the_features_of_imagenet(tmp_path):
    config = Config.for_preset("test", encoder="efficientnet_lite0", widths=(8, 8, 8, 8, 8), size=64)
    encoder = load_encoder(config)
    levels = [level.shape[1:] for level in encoder.output]
    assert levels == [(32, 32, 16), (16, 16, 24), (8, 8, 40), (4, 4, 112), (2, 2, 320)]
    backbone, _ = load_backbone("efficientnet_lite0", 64)
    model = build_model(config, 4, 3, encoder)
    for one, other in zip(model.get_layer("encoder").get_weights(), backbone.get_weights(), strict=False):
        np.testing.assert_array_equal(one, other)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    outputs = model.predict(pixels, verbose=0)
    assert outputs.shape == (1, 64, 64, 4)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras").predict(pixels, verbose=0), outputs)


@pytest.mark.in_turn
@pytest.mark.parametrize("head", ["deeplabv3plus", "pspnet"])
def test_the_heads_see_the_whole_image_and_learn(head):
    """Every pixel of the output depends on every part of the image, as it does not within a small U-Net."""
    config = Config.for_preset("test", head=head, widths=(4, 4, 4, 4, 8), learning_rate=0.01)
    model = build_model(config, classes=3, channels=1)
    assert model.output_shape == (None, 32, 32, 3)
    pixels = np.zeros((2, 32, 32, 1), np.uint8)
    pixels[1, :8, :8] = 255
    one, other = model.predict(pixels, verbose=0)
    assert (np.abs(one - other).max(axis=-1) > 0).all()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1), np.uint8)
    model.compile(keras.optimizers.Adam(0.01), SegmentationLoss(("cross_entropy",)))
    losses = [float(model.train_on_batch(pixels, (pixels[..., 0] > 100).astype("int32"))) for _ in range(10)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.once
def test_unlabelled_pixels_are_not_counted_and_classes_are():
    """A model that always predicts the class 1."""
    config = Config.for_preset("test")
    model = build_model(config, classes=3)
    logits = model.get_layer("logits")
    logits.set_weights([np.zeros_like(logits.get_weights()[0]), np.array([0, 9, 0], "float32")])
    mask = np.array([[1] * 30 + [0] * 10 + [UNLABELLED] * 5] * 20, np.uint16)
    images = SegmentedImages([np.zeros((20, 45, 3), np.uint8)], [mask])
    data = SegmentationData("x", list("abc"), images, images, images, objects=False, upright=True, fingerprint="")
    metrics, masks = evaluate(model, config, data)
    assert metrics == pytest.approx({"miou": 0.375, "pixel_accuracy": 0.75, "iou_a": 0, "iou_b": 0.75})
    assert (masks[0] == 1).all()


@pytest.mark.in_turn
def test_masks_of_other_images(tmp_path, monkeypatch, capsys):
    """A folder of two classes, trained on and then predicted; a damaged image is named and passed over."""
    for index in range(12):
        mask = np.zeros((40, 50), np.uint8)
        mask[10:30, 5 + index : 30 + index] = 1
        pixels = np.random.default_rng(index).integers(0, 60, (40, 50, 3)) + 150 * mask[..., None]
        for place, array in (("images", pixels), ("masks", 255 * mask)):
            (tmp_path / "scans" / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(tmp_path / f"scans/{place}/{index}.png")
    options = {"data": str(tmp_path / "scans"), "batch_size": 2, "epochs": 12, "learning_rate": 0.01}
    metrics = main(Run(Config.for_preset("test", out=tmp_path / "run", **options), "unet_segmentation"))
    assert set(metrics) == {"dice", "miou", "pixel_accuracy", "iou_background", "iou_foreground"}
    assert metrics["dice"] > 0.9
    capsys.readouterr()

    (tmp_path / "torn.png").write_bytes(b"torn")
    monkeypatch.chdir(tmp_path)
    with refused_in_one_line("torn.png cannot be read as an image"):
        predict_from(tmp_path / "run", ["torn.png", "scans/images/3.png"])
    assert "3.png: background " in capsys.readouterr().out
    (entry,) = json.loads((tmp_path / "run/predictions.json").read_text())
    with Image.open(entry["mask"]) as mask, Image.open(entry["drawn"]) as drawn:
        assert (mask.size, drawn.size, mask.mode) == ((50, 40), (50, 40), "P")
        assert np.mean(np.asarray(mask) == np.asarray(Image.open("scans/masks/3.png")) // 255) > 0.95
    assert sum(entry["fractions"].values()) == pytest.approx(1, abs=1e-3)
    predict_from(tmp_path / "run", ["--json", "scans/images/4.png", "--overlap", "0"])
    assert json.loads(capsys.readouterr().out)["fractions"].keys() == {"background", "foreground"}
    with refused_in_one_line("--overlap must be at least 0 and below 1, not 1.0"):
        predict_from(tmp_path / "run", ["scans/images/4.png", "--overlap", "1"])


@pytest.mark.once
def test_objects_without_keras_are_nearly_those_of_the_watershed(run_python, hiding, tmp_path):
    """Of a graph whose probabilities are the channels of the image."""
    onnx = pytest.importorskip("onnx")
    tile = ["batch", 32, 32, 3]
    values = {"image": onnx.TensorProto.UINT8, "probabilities": onnx.TensorProto.FLOAT}
    given, found = (onnx.helper.make_tensor_value_info(name, kind, tile) for name, kind in values.items())
    scale = onnx.numpy_helper.from_array(np.array(255, np.float32), "scale")
    nodes = [("Cast", ["image"], "pixels", {"to": 1}), ("Div", ["pixels", "scale"], "probabilities", {})]
    nodes = [onnx.helper.make_node(kind, taken, [named], **more) for kind, taken, named, more in nodes]
    graph = onnx.helper.make_graph(nodes, "model", [given], [found], [scale])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9),
              tmp_path / "model.onnx")  # fmt: skip
    described = {
        "file": "model.onnx",
        "inputs": {"image": {"shape": tile}},
        "outputs": {"probabilities": {"shape": tile}},
    }
    facts = {"graphs": {"model": described}, "objects": True, "overlap": 0.5, "smallest": 12}
    (tmp_path / "model.json").write_text(json.dumps(facts))

    rows, columns = np.indices((70, 100))
    distances = [np.hypot(rows - row, columns - column) for row, column in ((20, 20), (20, 39), (50, 60), (30, 85))]
    inside, near = (np.any([each < radius for each in distances], axis=0) for radius in (8, 11))
    chosen = np.where(inside, 1, np.where(near, 2, 0))
    pixels = np.eye(3)[chosen] * 200 + 15
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "cells.png")
    process = run_python(PROJECT / "docs/deploy/segment.py", "model.json", "cells.png", check=0, **hiding("keras"))
    assert process.stdout == "cells.png: 4 objects\n"
    with Image.open(tmp_path / "cells-mask.png") as mask:
        objects, expected = np.asarray(mask), separate_objects(pixels / 245, 12)
    pairs = np.unique(np.stack([objects, expected])[:, inside], axis=1)
    assert pairs.shape == (2, 5 - 1), "an object is one of the others"
    assert np.mean((objects > 0) == (expected > 0)) == 1
    numbers_of = dict(pairs.T.tolist()) | {0: 0}
    assert np.mean(np.vectorize(numbers_of.get)(objects) == expected) > 0.99


@pytest.mark.once
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 36, "widths": (8, 8, 8, 8)}, "--size must be a multiple of 8, for 4 levels, not 36"),
        ({"size": 8}, "--size must be at least 16"),
        ({"scale": 0.5}, "--scale must be at least 1"),
        ({"overlap": 1.0}, "--overlap must be at least 0 and below 1"),
        ({"loss": ()}, "--loss must name a loss"),
        ({"encoder": "efficientnet_lite0"}, "--widths must be 5, with an encoder"),
        ({"encoder": "efficientnet_lite0", "widths": (8,) * 5, "size": 48}, "--size must be a multiple of 32"),
        ({"head": "pspnet", "widths": (8,) * 4}, "--widths must be at least 5, with the head of pspnet"),
        ({"crops": 0}, "--crops must be at least 1"),
    ],
)
def test_options(changes, message):
    with pytest.raises(UsageError, match=message):
        Config.for_preset("smoke", **changes)


@pytest.mark.once
def test_more_in_a_batch_than_there_are_crops():
    with refused_in_one_line("--batch-size must be at most the 96 crops of an epoch, not 97"):
        Config.for_preset("test", batch_size=97, crops=2).load()


@pytest.mark.slow
@pytest.mark.in_turn
def test_smoke_on_real_nuclei(run_recipe, tmp_path):
    directory_with("raw/dsb2018")
    process = run_recipe("unet_segmentation", "--preset", "smoke", "--out", "run", check=0)
    result = json.loads(process.stdout.splitlines()[-1].removeprefix("result "))
    assert (result["data"], result["metric"], result["classes"]) == ("dsb2018", "dice", ["background", "nucleus"])
    assert set(result["metrics"]) == {"dice", "ap50", "miou", "pixel_accuracy", "iou_background", "iou_nucleus"}
    assert result["value"] > 0.8
    assert result["metrics"]["ap50"] > 0.4
    assert "segmentations.png" in {path.name for path in (tmp_path / "run").iterdir()}
