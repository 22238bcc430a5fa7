"""Step times of the architectures of recipes/cnn_families.py, in processor time.

A step is forward, backward and update on a batch of random images of 32 pixels. Its time is the least of a few: other
work on the machine disturbs that least. Below it stands the command of a run whose steps take three minutes of one
core.

    KERAS_BACKEND=jax python benchmarks/architectures.py resnet20 vgg11   milliseconds per step
    KERAS_BACKEND=jax python benchmarks/architectures.py jax.json         of all, added to a file as in results/
    KERAS_BACKEND=jax python benchmarks/architectures.py --sizes          without step times
"""

import json
import sys
import time
from pathlib import Path

import keras
import numpy as np

from recipes.cnn_families import Config, build_model, build_optimizer
from shared.backends.optimizers import prepare_optimizer
from shared.backends.runtime import backend_version, machine_name, prepare_backend
from shared.data.images.datasets import ImageData, LabelledImages
from shared.images.backbones.families import ARCHITECTURES
from shared.images.complexity import multiply_adds
from shared.training.options import source_commit

BATCH, CLASSES, MINUTES = 32, 10, 3
TRAINING_IMAGES = 49_000
"""Of CIFAR-10, without two percent for validation."""
WITHOUT_BATCH_NORMALIZATION = ("lenet5", "alexnet", "convnext_atto", "convnext_tiny")


def noise() -> ImageData:
    """A batch of random images."""
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, 32, 32, 3), np.uint8)
    images = LabelledImages(pixels, np.arange(BATCH) % CLASSES)
    return ImageData("noise", list("abcdefghij"), images, images, images, [128.0] * 3, [74.0] * 3, False, "0")


def measured(architecture: str, steps: int = 5) -> dict[str, float]:
    """Size and cost of an architecture, and the least of its step times, without the first, which compiles.

    Without steps, there is no time.
    """
    data, config, times = noise(), Config(architecture=architecture, learning_rate=1e-3), []
    model = build_model(config, data)
    model.compile(build_optimizer(config, 100), keras.losses.CategoricalCrossentropy(from_logits=True))
    prepare_optimizer(model)
    labels = np.eye(CLASSES, dtype="float32")[data.train.labels]
    for _ in range(steps + 1 if steps else 0):
        start = time.process_time()
        model.train_on_batch(data.train.images, labels)
        times.append(time.process_time() - start)
    found = {
        "parameters": sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
        "multiply_adds": multiply_adds(model),
    }
    return found | ({"milliseconds": round(1000 * min(times[1:]), 2)} if steps else {})


def command_at_budget(architecture: str, milliseconds: float) -> str:
    """The command of a run for `MINUTES`, in whole epochs of as many steps as it takes to fill them."""
    steps = max(1, round(MINUTES * 60_000 / milliseconds))
    epochs = -(-steps * BATCH // TRAINING_IMAGES)
    adamw = architecture in WITHOUT_BATCH_NORMALIZATION
    rate = 0.01 if architecture.startswith("vgg") else 0.05  # VGG's dense layers have none; at 0.05 it does not begin
    optimizer = "--optimizer adamw --learning-rate 0.001 --weight-decay 0.05" if adamw else f"--learning-rate {rate}"
    return (
        f"python recipes/cnn_families.py --architecture {architecture} --batch-size {BATCH} --validation 0.02 "
        f"--no-flip-test --epochs {epochs} --epoch-steps {steps // epochs} {optimizer}"
    )


def main(architectures: list[str], path: Path | None, timed: bool) -> None:
    prepare_backend(0, "float32")
    for name in architectures:
        found, variant = measured(name, steps=5 if timed else 0), ARCHITECTURES[name]
        print(f"{name:20} {found['parameters']:>10,} parameters {found['multiply_adds']:>13,} multiply-adds")
        if timed:
            print(f"    {found['milliseconds']:.1f} ms for {BATCH} images")
            print(f"    {command_at_budget(name, found['milliseconds'])}", flush=True)
        if path:
            before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"architectures": {}}
            published = {"parameters": variant.parameters, "multiply_adds": variant.multiply_adds, "top1": variant.top1}
            found |= {"published": published, "source": variant.source}
            facts = {"backend": keras.config.backend(), "version": backend_version(), "keras": keras.__version__}
            facts |= {"machine": machine_name(), "commit": source_commit(), "batch_size": BATCH}
            facts["architectures"] = before["architectures"] | {name: before["architectures"].get(name, {}) | found}
            path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        keras.backend.clear_session()


if __name__ == "__main__":
    files = [Path(word) for word in sys.argv[1:] if word.endswith(".json")]
    names = [word for word in sys.argv[1:] if word in ARCHITECTURES]
    main(names or list(ARCHITECTURES), files[0] if files else None, timed="--sizes" not in sys.argv)
