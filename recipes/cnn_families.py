"""Families of convolutional networks, from LeNet-5 to ConvNeXt, on small images.

Thirty years of image classification by one option: LeNet-5, AlexNet, VGG, ResNet, DenseNet, MobileNetV2, ShuffleNetV2,
EfficientNet and ConvNeXt, each as it is common for images of 32 pixels, with the parameters and multiply-adds that are
published. The default is ResNet-20 of He et al. 2015, "Deep Residual Learning for Image Recognition"
(https://arxiv.org/abs/1512.03385).

    KERAS_BACKEND=jax python recipes/cnn_families.py                               ResNet-20, on two CPU cores
    KERAS_BACKEND=jax python recipes/cnn_families.py --architecture mobilenet_v2
    KERAS_BACKEND=jax python recipes/cnn_families.py --architecture lenet5 --optimizer adamw --learning-rate 2e-3
    KERAS_BACKEND=jax python recipes/cnn_families.py --data photos --image-size 64     a folder of images for each class
    KERAS_BACKEND=jax python recipes/cnn_families.py --preset full                 on one GPU
    KERAS_BACKEND=jax recipes predict RUN new.jpg                                  the classes of other images

The recorded runs are under results/cnn_families.
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
from shared.images.backbones.families import ARCHITECTURES
from shared.images.batches import ImageBatches
from shared.images.complexity import multiply_adds
from shared.images.metrics import confusion_matrix, softmax, top_k_accuracy
from shared.images.plots import plot_confusion, plot_mistakes
from shared.images.prediction import image_classifier
from shared.training.options import Options
from shared.training.plots import plot_curves
from shared.training.predictors import FinishedRun, Picture, Probabilities
from shared.training.ranges import Count, Limit, NonNegative, Part, Positive, Rate, Whole
from shared.training.run import Run, launch
from shared.training.saving import check_initial_classes
from shared.training.schedules import WarmupCosine


@dataclass(kw_only=True)
class Config(Options):
    """Trains a convolutional network of nine families on labelled images: CIFAR-10, any set from TFDS, or a folder."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "test": {"data": "mnist5k", "train_examples": 1500, "epochs": 1, "learning_rate": 5e-4},
        "smoke": {
            "architecture": "resnet8", "epochs": 4, "batch_size": 50, "learning_rate": 0.1, "train_examples": 4000,
        },
        "full": {"epochs": 200, "learning_rate": 0.1, "label_smoothing": 0.0, "validation": 0.02, "crop": 4},
    }  # fmt: skip

    architecture: str = "resnet20"
    """Network, such as lenet5, alexnet, vgg11, resnet20, preact_resnet20, densenet_bc100, mobilenet_v2, shufflenet_v2,
    efficientnet_b0 or convnext_atto; a wrong name lists all."""
    epochs: Count = 14
    epoch_steps: Limit = None
    """Steps of an epoch, at most one pass over the training images (default: that)."""
    batch_size: Count = 128
    learning_rate: Positive = 0.2
    """The highest learning rate; for AdamW try 0.002."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with Nesterov momentum 0.9, or AdamW, which LeNet-5, AlexNet and ConvNeXt need."""
    weight_decay: NonNegative = 5e-3
    """Weight decay of the kernels; for AdamW try 0.05."""
    warmup: Rate = 0.2
    """Learning-rate warmup: fraction of the steps over which it rises, before cosine decay."""
    label_smoothing: Rate = 0.1
    """Label smoothing factor."""
    crop: Whole = 2
    """Random crop: shift training images by up to N pixels."""
    flip: bool = True
    """Random horizontal flip, where that does not change the class."""
    flip_test: bool = True
    """Test-time augmentation: average the predictions for an image and its mirror image, where that keeps the class."""
    cutout: Whole = 0
    """Cutout: side of the square masked in each training image, in pixels."""
    image_size: Limit = None
    """Resize images to N×N pixels, cropped around the middle (default: as they are)."""
    validation: Part = 0.1
    """Fraction of the training images held out for validation."""
    train_examples: Limit = None
    """Limit training to the first N images."""

    def __post_init__(self):
        super().__post_init__()
        self.require("architecture", self.architecture in ARCHITECTURES, f"must be one of {', '.join(ARCHITECTURES)}")

    def load(self) -> ImageData:
        """The data; a UsageError if the options do not fit them."""
        data = load_images(
            self.data, self.data_dir, "cifar10", validation=self.validation, limit=self.train_examples,
            size=self.image_size,
        )  # fmt: skip
        examples, height, width, _ = data.train.images.shape
        size, least = min(height, width), ARCHITECTURES[self.architecture].least
        self.require("batch_size", self.batch_size <= examples, f"must be at most the {examples} training images")
        self.require("architecture", size >= least, f"must take images of {size} pixels, or add --image-size {least}")
        self.require("crop", self.crop < size, f"must be below the image size, {size}")
        self.require("cutout", self.cutout <= size, f"must be at most the image size, {size}")
        return data


def build_model(config: Config, data: ImageData) -> keras.Model:
    """Raw pixels (batch, height, width, channels) in uint8 to logits (batch, classes) in float32."""
    variant = ARCHITECTURES[config.architecture]
    inputs = keras.Input(data.train.images.shape[1:], dtype="uint8")
    x = layers.Normalization(mean=data.mean, variance=np.square(data.deviation))(inputs)
    logits = variant.network(x, len(data.classes), **variant.settings)
    return keras.Model(inputs, logits, name=config.architecture)


def build_optimizer(config: Config, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer for `steps` steps; biases, factors and normalization weights have no weight decay."""
    rate = WarmupCosine(config.learning_rate, steps, config.warmup)
    decay = config.weight_decay or None
    if config.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(rate, weight_decay=decay)
    else:
        optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay)
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
    batches.batches_per_epoch = min(len(batches), config.epoch_steps or len(batches))

    model = build_model(config, data)
    model.compile(
        optimizer=build_optimizer(config, steps=config.epochs * len(batches)),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy("top1")],
    )
    model.summary()
    cost, variant = multiply_adds(model), ARCHITECTURES[config.architecture]
    published = {"parameters": variant.parameters, "multiply_adds": variant.multiply_adds, "top1": variant.top1}
    print(f"{config.architecture}: {cost / 1e6:.2f} M multiply-adds an image; of {variant.source}: {published}")
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
    passes = config.epochs * len(batches) * config.batch_size / len(data.train.labels)
    facts = {"architecture": config.architecture, "multiply_adds": cost, "passes": round(passes, 3)}
    return run.finish(model, data.name, "top1", metrics, **facts, classes=data.classes)


def predictor(run: FinishedRun) -> Callable:
    """Function from an image to class probabilities."""
    classifier = image_classifier(run.model, run.result["classes"])

    def classify(image: Picture) -> Probabilities:
        """Classifies an image."""
        return classifier(image)

    return classify


if __name__ == "__main__":
    launch(main, Config)
