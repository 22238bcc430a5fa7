"""Image classification with a residual network.

Ten kinds of small colour photographs, told apart by a residual network after He et al. 2015, "Deep Residual Learning
for Image Recognition" (https://arxiv.org/abs/1512.03385), shortened so that it trains on a laptop.

    KERAS_BACKEND=jax python recipes/cnn_cifar10.py                        CIFAR-10, on two CPU cores
    KERAS_BACKEND=jax python recipes/cnn_cifar10.py --data fashion_mnist   Fashion-MNIST
    KERAS_BACKEND=jax python recipes/cnn_cifar10.py --data photos --image-size 64    a folder of images for each class
    KERAS_BACKEND=jax python recipes/cnn_cifar10.py --preset full          CIFAR-10, on one GPU
    KERAS_BACKEND=jax recipes predict RUN new.jpg                          the classes of other images

The recorded runs are under results/cnn_cifar10.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

try:
    from shared.backends.choice import require_backend
except ModuleNotFoundError:
    print("error: the package shared is not installed: run  pip install -e .  in keras-recipes", file=sys.stderr)
    sys.exit(2)
require_backend()

import keras
import numpy as np
from keras import layers

from shared.data.images.datasets import ImageData, load_images
from shared.images.batches import ImageBatches
from shared.images.metrics import confusion_matrix, softmax, top_k_accuracy
from shared.images.plots import plot_confusion, plot_mistakes
from shared.images.prediction import image_classifier
from shared.layers.residual import ConvolutionBlock, ResidualBlock
from shared.training.options import Options
from shared.training.plots import plot_curves
from shared.training.predictors import FinishedRun, Picture, Probabilities
from shared.training.ranges import Count, Limit, NonNegative, Part, Positive, Rate, Whole
from shared.training.run import Run, launch
from shared.training.saving import check_initial_classes
from shared.training.schedules import WarmupCosine


@dataclass(kw_only=True)
class Config(Options):
    """Trains a residual network on labelled images: CIFAR-10, Fashion-MNIST or any set from TFDS, or a folder."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "test": {"data": "mnist5k", "train_examples": 1500, "epochs": 1, "learning_rate": 5e-4},
        "smoke": {
            "epochs": 3, "batch_size": 50, "learning_rate": 0.1, "stem": 8, "widths": (16, 32), "train_examples": 4000,
        },
        "full": {
            "epochs": 60, "batch_size": 512, "learning_rate": 0.4, "stem": 64, "widths": (128, 256, 512), "depth": 2,
            "cutout": 8,
        },
    }  # fmt: skip

    epochs: Count = 12
    batch_size: Count = 128
    learning_rate: Positive = 0.2
    """The highest learning rate; for AdamW try 0.002."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with Nesterov momentum 0.9, or AdamW."""
    weight_decay: NonNegative = 5e-3
    """Weight decay of the kernels; for AdamW try 0.05."""
    warmup: Rate = 0.2
    """Learning-rate warmup: fraction of the steps over which it rises, before cosine decay."""
    label_smoothing: Rate = 0.1
    """Label smoothing factor."""
    ema: Rate = 0.0
    """Decay of an exponential moving average (EMA) of the weights, such as 0.999, to evaluate; 0: none."""
    stem: Count = 16
    """Channels after the first convolution."""
    widths: tuple[Count, ...] = (32, 128, 256)
    """Channels of each stage; a stage halves the resolution."""
    depth: Count = 1
    """Convolutions in the residual block of each stage."""
    crop: Whole = 4
    """Random crop: shift training images by up to N pixels."""
    flip: bool = True
    """Random horizontal flip, where that does not change the class."""
    flip_test: bool = True
    """Test-time augmentation: average the predictions for an image and its mirror image."""
    cutout: Whole = 0
    """Cutout: side of the square masked in each training image, in pixels."""
    image_size: Limit = None
    """Resize images to N×N pixels, cropped around the middle (default: as they are)."""
    validation: Part = 0.1
    """Fraction of the training images held out for validation."""
    train_examples: Limit = None
    """Limit training to the first N images."""

    def load(self) -> ImageData:
        """The data; a UsageError if the options do not fit them."""
        data = load_images(self.data, self.data_dir, "cifar10", self.validation, self.train_examples, self.image_size)
        examples, height, width, _ = data.train.images.shape
        size = min(height, width)
        self.require("train_examples", examples > 0, "must be at least 1")
        self.require("batch_size", self.batch_size <= examples, f"must be at most the {examples} training images")
        self.require("widths", size >> len(self.widths) >= 1, f"must be fewer, to halve images of {size} pixels")
        self.require("crop", self.crop < size, f"must be below the image size, {size}")
        self.require("cutout", self.cutout <= size, f"must be at most the image size, {size}")
        return data


def build_model(config: Config, data: ImageData) -> keras.Model:
    """Raw pixels (batch, height, width, channels) in uint8 to logits (batch, classes) in float32."""
    image_shape = data.train.images.shape[1:]
    inputs = keras.Input(image_shape, dtype="uint8")
    x = layers.Normalization(mean=data.mean, variance=np.square(data.deviation))(inputs)
    x = ConvolutionBlock(config.stem)(x)
    for width in config.widths:
        x = ConvolutionBlock(width, pool=True)(x)
        x = ResidualBlock(config.depth)(x)
    x = layers.GlobalMaxPooling2D()(x)
    x = layers.Dense(len(data.classes), use_bias=False, dtype="float32")(x)
    logits = layers.Rescaling(1 / 8, dtype="float32")(x)  # max pooling makes large logits, and so large first losses
    return keras.Model(inputs, logits, name="residual_network")


def build_optimizer(config: Config, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer for `steps` steps; biases and normalization weights have no weight decay."""
    rate = WarmupCosine(config.learning_rate, steps, config.warmup)
    common = {
        "weight_decay": config.weight_decay or None,
        "use_ema": config.ema > 0,
        "ema_momentum": config.ema or 0.99,
    }
    if config.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(rate, **common)
    else:
        optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, **common)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


def main(run: Run) -> dict[str, float]:
    config = run.config
    data = config.load()
    check_initial_classes(config.initial_weights, data.classes)
    batches = ImageBatches(
        data.train,
        classes=len(data.classes),
        batch_size=config.batch_size,
        seed=config.seed,
        crop=config.crop,
        flip=config.flip and data.mirrored,
        cutout=config.cutout,
        fill=data.mean,
    )

    model = build_model(config, data)
    top5 = keras.metrics.TopKCategoricalAccuracy(min(5, len(data.classes)), "top5")
    model.compile(
        optimizer=build_optimizer(config, steps=config.epochs * len(batches)),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy("top1"), top5],
    )
    model.summary()
    run.fit(
        model,
        batches,
        data=f"{data.name} {data.fingerprint}",
        validation_data=(data.validation.images, np.eye(len(data.classes))[data.validation.labels]),
        validation_batch_size=250,
    )

    images, labels = data.test
    logits = model.predict(images, batch_size=250, verbose=0)
    if config.flip_test and data.mirrored:
        logits = (logits + model.predict(images[:, :, ::-1], batch_size=250, verbose=0)) / 2
    probabilities = softmax(logits)
    metrics = {"top1": top_k_accuracy(probabilities, labels, 1), "top5": top_k_accuracy(probabilities, labels, 5)}
    run.save_figure("curves.png", plot_curves(run.history, ["loss", "top1"]))
    confusion = confusion_matrix(probabilities.argmax(axis=1), labels, len(data.classes))
    run.save_figure("confusion.png", plot_confusion(confusion, data.classes))
    run.save_figure("mistakes.png", plot_mistakes(images, labels, probabilities, data.classes))
    return run.finish(model, data.name, "top1", metrics, classes=data.classes)


def predictor(run: FinishedRun) -> Callable:
    """Function from an image to class probabilities."""
    classifier = image_classifier(run.model, run.result["classes"])

    def classify(image: Picture) -> Probabilities:
        """Classifies an image."""
        return classifier(image)

    return classify


if __name__ == "__main__":
    launch(main, Config)
