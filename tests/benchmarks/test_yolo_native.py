"""The native PyTorch baseline of the detector trains as the recipe does."""

import runpy

import keras
import numpy as np
import pytest
from conftest import PROJECT

from recipes.yolo_detection import SIZES, Config, build_model, build_optimizer
from shared.detection.losses import DetectionLoss
from shared.errors import UsageError

BENCHMARK = PROJECT / "benchmarks/yolo_detection_torch.py"
pytestmark = pytest.mark.skipif(keras.config.backend() != "torch", reason="the native baseline is in PyTorch")


def random_batch(rng, examples, size, rows=30, classes=3):
    """Noise, as flat images tie in max pooling; many boxes, as a few small sums would round the loss more coarsely."""
    corners = np.sort(rng.uniform(0, size, (examples, rows, 2, 2)), axis=2).reshape(examples, rows, 4)
    targets = np.concatenate([rng.integers(0, classes, (examples, rows, 1)), corners], axis=2)
    targets[0] = targets[1, 3:] = targets[:, 2] = [-1, 0, 0, 0, 0]
    targets[2, 0, 1:] = [20, 20, 21, 40]  # less wide than a cell
    targets[3, 0, 1:] = [-200, -200, 264, 264]  # as large as the coarsest anchors predict at first
    return rng.integers(0, 256, (examples, size, size, 3), "uint8"), targets.astype("float32")


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_trains_as_keras_does(ema, monkeypatch):
    monkeypatch.setitem(SIZES, "m", ((2, 1, 2, 1), (8, 16, 24, 32, 48)))  # all that differs between the sizes, smaller
    keras.utils.set_random_seed(0)
    config = Config.for_preset(
        "small", size="m", image_size=64, batch_size=16, learning_rate=0.001, weight_decay=1.0, warmup=0.5, ema=ema
    )
    model = build_model(config, classes=3)
    model.compile(build_optimizer(config, 4), DetectionLoss(config.image_size))
    trainer = runpy.run_path(str(BENCHMARK))["Trainer"](config, model, 4)
    initial = model.get_weights()
    rng = np.random.default_rng(0)
    for _ in range(4):
        batch = random_batch(rng, config.batch_size, config.image_size)
        model.reset_metrics()
        np.testing.assert_allclose(float(trainer.train_on_batch(*batch)), model.train_on_batch(*batch), rtol=3e-5)
    model.optimizer.finalize_variable_values(model.trainable_weights)  # as at the end of `fit`: the averages
    for start, ours, theirs, weight in zip(initial, trainer.weights(), model.get_weights(), model.weights, strict=True):
        variance = weight.path.endswith("moving_variance")
        learned = np.linalg.norm(theirs - (start * 0.97**4 if variance else start))
        assert learned > 0, weight.path
        # PyTorch's moving variance is the unbiased one: of 16 images of 2 by 2 places, larger by 1/63.
        assert np.linalg.norm(ours - theirs) < (1.1 / 63 if variance else 5e-3) * learned, weight.path


def test_other_precisions_are_refused():
    config = Config.for_preset("smoke", precision="mixed_bfloat16")
    with pytest.raises(UsageError, match="the native baseline needs --precision float32"):
        runpy.run_path(str(BENCHMARK))["Trainer"](config, None, 4)
