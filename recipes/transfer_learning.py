"""Transfer learning from ImageNet to a few labelled images.

A network that has learned on ImageNet is fine-tuned in two phases, after Yosinski et al. 2014, "How transferable are
features in deep neural networks?" (https://arxiv.org/abs/1411.1792): first a new head on its frozen features, then its
upper layers too, at a low learning rate, with batch normalization as it was learned. The same network trained from
scratch on the same images shows what the transfer is worth.

    KERAS_BACKEND=jax python recipes/transfer_learning.py                          CIFAR-10, 100 images a class
    KERAS_BACKEND=jax python recipes/transfer_learning.py --data photos            a folder of images for each class
    KERAS_BACKEND=jax python recipes/transfer_learning.py --scratch-epochs 0       without that comparison
    KERAS_BACKEND=jax python recipes/transfer_learning.py --backbone efficientnetv2b0
    KERAS_BACKEND=jax recipes predict RUN new.jpg

The recorded runs are under results/transfer_learning.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

try:
    from shared.backends.choice import require_backend
except ModuleNotFoundError:
    print("error: the package shared is not installed: run  pip install -e .  in keras-recipes", file=sys.stderr)
    sys.exit(2)
require_backend()

import keras
import numpy as np
from keras import layers

from shared.data.arrays import cached_arrays
from shared.data.images.datasets import ImageData, load_images
from shared.files import cache_directory
from shared.images.backbones.pretrained import load_backbone, single_layers
from shared.images.batches import ImageBatches
from shared.images.grad_cam import class_activation_maps
from shared.images.metrics import softmax, top_k_accuracy
from shared.images.plots import plot_heatmaps, plot_predictions
from shared.images.prediction import image_classifier
from shared.training.batches import ArrayBatches
from shared.training.options import Options
from shared.training.plots import plot_curves
from shared.training.predictors import FinishedRun, Picture, Probabilities
from shared.training.ranges import Count, Fraction, Limit, Part, Positive, Rate, Whole, ranged
from shared.training.run import Run, launch
from shared.training.saving import check_initial_classes
from shared.training.schedules import WarmupCosine


@dataclass(kw_only=True)
class Config(Options):
    """Fine-tunes an ImageNet network on a few labelled images, and trains it from scratch for comparison."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "test": {
            "data": "mnist5k", "image_size": 32, "test_examples": 50, "head_epochs": 2, "scratch_epochs": 0,
            "learning_rate": 1e-5,
        },
        "smoke": {
            "epochs": 1, "head_epochs": 30, "scratch_epochs": 1, "image_size": 64, "per_class": 40,
            "test_examples": 500,
        },
        "full": {"epochs": 30, "scratch_epochs": 60, "image_size": 224, "batch_size": 64},
    }  # fmt: skip

    epochs: Count = 10
    """Passes over the images while fine-tuning."""
    head_epochs: Count = 40
    """Passes over the frozen features while training the head."""
    scratch_epochs: Whole = 20
    """Passes over the images while training from scratch, to compare; 0 to leave that out."""
    batch_size: Count = 32
    learning_rate: Positive = 2e-4
    """The highest learning rate while fine-tuning."""
    head_learning_rate: Positive = 2e-3
    """The highest learning rate of the head, and of training from scratch."""
    backbone: str = "efficientnet_lite0"
    """efficientnet_lite0, whose weights come in a package, or any of keras.applications, such as efficientnetv2b0."""
    unfreeze: Fraction = 0.5
    """Fraction of the backbone's layers, from the top, that are fine-tuned."""
    image_size: ranged(int, least=32) = 112
    """Height and width of the images, in pixels."""
    per_class: ranged(int, least=2, optional=True) = 100
    """Limit training to N images per class."""
    test_examples: Limit = None
    """Limit evaluation to the first N test images."""
    dropout: Rate = 0.2
    """Dropout rate before the classifier."""
    crop: Whole = 4
    """Random crop: shift training images by up to N pixels."""
    flip: bool = True
    """Random horizontal flip, where that does not change the class."""
    patience: Count = 4
    """Early stopping of the head: epochs without a lower validation loss."""
    validation: Part = 0.1
    """Fraction of the training images held out for validation."""

    def load(self) -> ImageData:
        """Training and validation images, `per_class` of each class together, and test images."""
        data = load_images(
            self.data, self.data_dir, "cifar10", self.validation, size=self.image_size, own_size=True,
            per_class=self.per_class, test_limit=self.test_examples,
        )  # fmt: skip
        examples, height, width, _ = data.train.images.shape
        self.require("batch_size", self.batch_size <= examples, f"must be at most the {examples} training images")
        self.require("crop", self.crop < min(height, width), f"must be below the image size, {min(height, width)}")
        return data


def build_model(config: Config, data: ImageData, backbone: keras.Model) -> keras.Model:
    """Raw pixels (batch, height, width, channels) in uint8 to logits (batch, classes)."""
    inputs = keras.Input(data.train.images.shape[1:], dtype="uint8")
    x = layers.Rescaling(1.0)(inputs)  # to floats, which Resizing does not round
    x = layers.Concatenate()([x] * 3) if x.shape[-1] == 1 else x
    # Left to itself, Keras 3.15's Resizing makes the layers behind it run as in training when the model is called.
    x = layers.Resizing(config.image_size, config.image_size, name="resizing")(x, training=False)
    x = layers.GlobalAveragePooling2D(dtype="float32", name="pooling")(backbone(x))
    classifier = keras.Sequential(
        [
            keras.Input((x.shape[-1],)),
            layers.Dropout(config.dropout),
            layers.Dense(len(data.classes), dtype="float32", name="logits"),
        ],
        name="classifier",
    )
    return keras.Model(inputs, classifier(x), name="transfer")


def compile_model(model: keras.Model, rate: float, steps: int) -> None:
    model.compile(
        optimizer=keras.optimizers.AdamW(WarmupCosine(rate, steps, 0.1), weight_decay=1e-4),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        metrics=[keras.metrics.CategoricalAccuracy("top1")],
    )


def unfreeze(backbone: keras.Model, fraction: float) -> None:
    """Unfreezes a fraction of the layers, from the top; batch normalization stays frozen."""
    parts = single_layers(backbone)
    first = round(len(parts) * (1 - fraction))
    for index, layer in enumerate(parts):
        layer.trainable = index >= first and not isinstance(layer, layers.BatchNormalization)


def train_on_pixels(run: Run, model: keras.Model, data: ImageData, rate: float, epochs: int, phase: str = "") -> None:
    """Trains on augmented images; ends with the weights of the best validation loss.

    No early stopping, since the learning-rate decay is part of the training.
    """
    config, classes = run.config, np.eye(len(data.classes), dtype="float32")
    batches = ImageBatches(
        data.train, len(classes), config.batch_size, config.seed,
        flip=config.flip and data.mirrored, crop=config.crop, fill=data.mean,
    )  # fmt: skip
    compile_model(model, rate, epochs * len(batches))
    run.fit(
        model, batches, data=f"{data.name} {data.fingerprint}", phase=phase, epochs=epochs, patience=epochs,
        validation_data=(data.validation.images, classes[data.validation.labels]), validation_batch_size=100,
    )  # fmt: skip


def train_head(run: Run, model: keras.Model, data: ImageData, weights: str) -> None:
    """Trains the classifier alone, on cached features."""
    config, classes = run.config, np.eye(len(data.classes), dtype="float32")
    trunk = keras.Model(model.input, model.get_layer("pooling").output)
    facts = (weights, config.image_size, config.per_class, config.validation, config.precision)
    name = "-".join(map(str, (data.name, data.fingerprint, *facts)))

    def compute():
        parts = {"train": data.train.images, "validation": data.validation.images}
        return {part: trunk.predict(images, batch_size=100, verbose=0) for part, images in parts.items()}, {}

    features, _ = cached_arrays(cache_directory() / "features" / name, compute)
    batches = ArrayBatches(features["train"], classes[data.train.labels], config.batch_size, config.seed)
    classifier = model.get_layer("classifier")
    compile_model(classifier, config.head_learning_rate, config.head_epochs * len(batches))
    run.fit(
        classifier, batches, data=f"{data.name} {data.fingerprint}", phase="head", epochs=config.head_epochs,
        patience=config.patience, validation_data=(features["validation"], classes[data.validation.labels]),
    )  # fmt: skip


def predicted(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Probabilities (images, classes)."""
    return softmax(model.predict(images, batch_size=100, verbose=0))


def main(run: Run) -> dict[str, float]:
    config = run.config
    data = config.load()
    check_initial_classes(config.initial_weights, data.classes)
    images, labels = data.test

    backbone, weights = load_backbone(config.backbone, config.image_size)
    model = build_model(config, data, backbone)
    model.summary()
    train_head(run, model, data, weights)
    metrics = {"head_top1": top_k_accuracy(predicted(model, images), labels, 1)}

    unfreeze(backbone, config.unfreeze)
    train_on_pixels(run, model, data, rate=config.learning_rate, epochs=config.epochs)
    probabilities = predicted(model, images)
    metrics["top1"] = top_k_accuracy(probabilities, labels, 1)
    run.save_figure("curves.png", plot_curves(run.history, ["loss", "top1"]))
    run.save_figure("curves-head.png", plot_curves(run.recorders["head"].history, ["loss", "top1"]))
    run.save_figure("predictions.png", plot_predictions(images, labels, probabilities, data.classes))
    classes, maps = class_activation_maps(model, images[:12], "pooling")
    run.save_figure("evidence.png", plot_heatmaps(images[:12], maps, [f"for {data.classes[i]}" for i in classes]))

    if epochs := config.scratch_epochs:
        fresh, _ = load_backbone(config.backbone, config.image_size, pretrained=False)
        scratch = build_model(config, data, fresh)
        train_on_pixels(run, scratch, data, rate=config.head_learning_rate, epochs=epochs, phase="scratch")
        metrics["scratch_top1"] = top_k_accuracy(predicted(scratch, images), labels, 1)
    return run.finish(model, data.name, "top1", metrics, weights=weights, classes=data.classes)


def predictor(run: FinishedRun) -> Callable:
    """Function from an image to class probabilities."""
    classifier = image_classifier(run.model, run.result["classes"])

    def classify(image: Picture) -> Probabilities:
        """Classifies an image."""
        return classifier(image)

    return classify


if __name__ == "__main__":
    launch(main, Config)
