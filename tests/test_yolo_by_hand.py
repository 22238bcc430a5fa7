"""The detector by hand in PyTorch trains as the recipe's does."""

import runpy
from pathlib import Path

import keras
import numpy as np
import pytest

from recipes.yolo_detection import Config, build_model, build_optimizer
from shared.detection.losses import DetectionLoss

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks/yolo_detection_torch.py"
pytestmark = pytest.mark.skipif(keras.config.backend() != "torch", reason="by hand on PyTorch only")


def random_batch(rng, examples=4, size=64, rows=6, classes=3):
    """Noise, which does not tie in max pooling, and targets of 0 to `rows` boxes, one thinner than a cell."""
    corners = np.sort(rng.uniform(0, size, (examples, rows, 2, 2)), axis=2)
    targets = np.concatenate(
        [rng.integers(0, classes, (examples, rows, 1)), corners.reshape(examples, rows, 4)], axis=2
    )
    targets[0] = targets[1, 3:] = targets[:, 2] = [-1, 0, 0, 0, 0]
    targets[3, 0, 1:] = [20, 20, 21, 40]
    return rng.integers(0, 256, (examples, size, size, 3), "uint8"), targets.astype("float32")


@pytest.mark.parametrize(("size", "ema"), [("n", 0.0), ("n", 0.5), ("m", 0.5)])
def test_trains_as_keras_does(size, ema):
    keras.utils.set_random_seed(0)
    config = Config.for_preset(
        "small", size=size, image_size=64, batch_size=4, learning_rate=0.001, weight_decay=1.0, warmup=0.5, ema=ema
    )
    model = build_model(config, classes=3)
    model.compile(build_optimizer(config, 4), DetectionLoss(config.image_size))
    trainer = runpy.run_path(str(BENCHMARK))["Trainer"](config, model, 4)
    rng = np.random.default_rng(0)
    initial = model.get_weights()
    for _ in range(4):
        batch = random_batch(rng)
        model.reset_metrics()
        np.testing.assert_allclose(float(trainer.train_on_batch(*batch)), model.train_on_batch(*batch), rtol=1e-5)
    model.optimizer.finalize_variable_values(model.trainable_weights)  # as at the end of `fit`: the averages
    for start, ours, theirs, weight in zip(initial, trainer.weights(), model.get_weights(), model.weights, strict=True):
        if "variance" not in weight.path:  # of which PyTorch keeps the unbiased estimate
            moved = np.abs(theirs - start).max()
            assert moved > 0
            assert np.abs(ours - theirs).max() < 1e-2 * moved, weight.path
