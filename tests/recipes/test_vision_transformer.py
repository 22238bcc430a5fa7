"""Vision Transformers as the recipe builds and trains them."""

import json

import keras
import numpy as np
import pytest
from conftest import refused_in_one_line

from recipes.vision_transformer import Config, Run, build_model, main
from shared.data.images.datasets import ImageData, LabelledImages


@pytest.mark.once
@pytest.mark.parametrize(("architecture", "millions"), [("vit", 6.3), ("swin", 7.1), ("cct", 3.76)])
def test_references_are_as_large_as_published(architecture, millions):
    """ViT-CIFAR, the Swin of arXiv:2112.13492 and CCT-7/3×1."""
    images = LabelledImages(np.zeros((1, 32, 32, 3), "uint8"), np.zeros(1, int))
    data = ImageData("", list("0123456789"), images, images, images, [0.0] * 3, [1.0] * 3, True, "")
    model = build_model(Config.for_preset("full", architecture=architecture), data)
    assert model.count_params() == pytest.approx(1e6 * millions, rel=0.01)
    assert model.output_shape == (None, 10)
    rates = [rate for layer in model.layers if (rate := getattr(layer, "stochastic_depth", None)) is not None]
    assert [rates[0].rate, rates[-1].rate] == [0.0, 0.1]


@pytest.mark.only_on("torch")
@pytest.mark.parametrize("architecture", ["vit", "swin"])
def test_the_other_architectures_train_on_images_that_windows_do_not_fill(architecture, tmp_path):
    options = {"architecture": architecture, "train_examples": 320, "stochastic_depth": 0.2, "dropout": 0.1}
    run = Run(Config.for_preset("test", **options, epochs=2, learning_rate=2e-3, out=tmp_path / "run"))
    metrics = main(run)
    assert run.history[1]["loss"] < run.history[0]["loss"]
    assert 0 <= metrics["top1"] <= metrics["top5"] <= 1
    assert {path.name for path in (tmp_path / "run").glob("*.png")} == {
        *("attention.png", "confusion.png", "curves.png", "mistakes.png"),
    }
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["architecture"] == result["options"]["architecture"] == architecture
    assert keras.saving.load_model(tmp_path / "run/model.keras").count_params() == result["parameters"]


@pytest.mark.once
def test_images_that_patches_do_not_fill_are_refused():
    with refused_in_one_line("--image-size must be a multiple of 4 where images have 30×30 pixels"):
        Config.for_preset("test", architecture="vit", image_size=30).load()
    with refused_in_one_line("--image-size must be a multiple of 8 where images have 6×6 pixels"):
        Config.for_preset("test", image_size=6).load()
    with refused_in_one_line("--magnitude must be between 0 and 10"):
        Config.for_preset("test", magnitude=11)
