"""Image classification with Vision Transformers: ViT, Swin and CCT.

Three ways from pixels to tokens, and between tokens by attention: patches, and attention over all of them (ViT;
Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929); attention within windows that are shifted in turn (Swin; Liu
et al. 2021, https://arxiv.org/abs/2103.14030); and a convolutional tokenizer with sequence pooling, the compact
convolutional Transformer (CCT; Hassani et al. 2021, https://arxiv.org/abs/2104.05704), which learns from least data.
Attention rollout is drawn over the images.

    KERAS_BACKEND=jax python recipes/vision_transformer.py                      CCT on CIFAR-10, on two CPU cores
    KERAS_BACKEND=jax python recipes/vision_transformer.py --architecture vit   ViT; the same for swin
    KERAS_BACKEND=jax python recipes/vision_transformer.py --data photos --image-size 64   a folder for each class
    KERAS_BACKEND=jax python recipes/vision_transformer.py --preset full        CCT-7, on one GPU
    KERAS_BACKEND=jax recipes predict RUN new.jpg                               the classes of other images

The preset full is held to what is published: 96.5 % for CCT-7, 90.9 % for ViT (https://github.com/omihub777/ViT-CIFAR),
94.5 % for Swin (https://arxiv.org/abs/2112.13492). The recorded runs are under results/vision_transformer.
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

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
from shared.images.attention_rollout import attention_rollout
from shared.images.metrics import confusion_matrix, softmax, top_k_accuracy
from shared.images.mixed_batches import MixedImageBatches
from shared.images.plots import plot_confusion, plot_heatmaps, plot_mistakes
from shared.images.prediction import image_classifier
from shared.images.rand_augment import rand_augment
from shared.images.swin import PatchMerging, SwinBlock
from shared.images.vision_transformer import ClassToken, ConvolutionalTokenizer, SequencePooling, VisionBlock
from shared.layers.dense import SequenceDense
from shared.layers.positions import LearnedPositions
from shared.layers.resampling import SpaceToDepth
from shared.training.options import Options
from shared.training.plots import plot_curves
from shared.training.predictors import FinishedRun, Picture, Probabilities
from shared.training.ranges import Count, Limit, NonNegative, Part, Positive, Rate, Whole, ranged
from shared.training.run import Run, launch
from shared.training.saving import check_initial_classes
from shared.training.schedules import WarmupCosine


@dataclass(kw_only=True)
class Config(Options):
    """Trains a Vision Transformer on labelled images: CIFAR-10, Fashion-MNIST or any set from TFDS, or a folder."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "test": {
            "data": "mnist5k", "train_examples": 1500, "epochs": 1, "learning_rate": 5e-4, "rand_augment": 1,
            "mixup": 0.2,
        },
        "smoke": {"epochs": 3, "train_examples": 4000},
        "full": {
            "size": "reference", "epochs": 300, "batch_size": 128, "learning_rate": 6e-4, "weight_decay": 0.06,
            "warmup": 0.03, "rand_augment": 2, "mixup": 0.8, "stochastic_depth": 0.1,
        },
    }  # fmt: skip

    architecture: Literal["vit", "swin", "cct"] = "cct"
    """ViT, Swin, or CCT, the compact convolutional Transformer."""
    size: Literal["mini", "reference"] = "mini"
    """Size of the network: for a laptop, or as published for CIFAR-10."""
    epochs: Count = 10
    batch_size: Count = 64
    learning_rate: Positive = 2e-3
    """The highest learning rate, of AdamW."""
    weight_decay: NonNegative = 0.05
    """Weight decay of the kernels."""
    warmup: Rate = 0.2
    """Learning-rate warmup: fraction of the steps over which it rises, before cosine decay."""
    label_smoothing: Rate = 0.1
    """Label smoothing factor."""
    dropout: Rate = 0.0
    """Dropout rate of each branch of a block."""
    stochastic_depth: Rate = 0.0
    """Stochastic depth: probability to drop a branch of the last block in training, from 0 for the first on."""
    rand_augment: Whole = 0
    """RandAugment: number of operations on each training image."""
    magnitude: ranged(float, least=0, most=10) = 9.0
    """RandAugment: strength of the operations."""
    mixup: NonNegative = 0.0
    """Mixup: alpha of the beta distribution from which the weights of two images are drawn; 0: none."""
    crop: Whole = 4
    """Random crop: shift training images by up to N pixels."""
    flip: bool = True
    """Random horizontal flip, where that does not change the class."""
    flip_test: bool = True
    """Test-time augmentation: average the predictions for an image and its mirror image, where that keeps the class."""
    image_size: Limit = None
    """Resize images to N×N pixels, cropped around the middle (default: as they are)."""
    validation: Part = 0.1
    """Fraction of the training images held out for validation."""
    train_examples: Limit = None
    """Limit training to the first N images."""

    def load(self) -> ImageData:
        """The data; a UsageError if the options do not fit them."""
        data = load_images(
            self.data, self.data_dir, "cifar10", validation=self.validation, limit=self.train_examples,
            size=self.image_size,
        )  # fmt: skip
        examples, height, width, _ = data.train.images.shape
        patch = SIZES[self.architecture, self.size].patch
        fits = height % patch == width % patch == 0 or (self.architecture == "cct" and min(height, width) >= patch)
        self.require("batch_size", self.batch_size <= examples, f"must be at most the {examples} training images")
        self.require("image_size", fits, f"must be a multiple of {patch} where images have {width}×{height} pixels")
        self.require("crop", self.crop < min(height, width), f"must be below the image size, {min(height, width)}")
        return data


class Size(NamedTuple):
    """Dimensions of a network; of Swin, those of each stage."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    ratio: int
    """Hidden width of the feed-forward layers, divided by the width."""
    patch: int
    """Side of the patches, in pixels; of CCT 2 to the number of convolutions, each of which halves the image."""
    window: int = 0
    """Swin: side of the windows, in tokens."""
    normalize: bool = False
    """CCT: batch normalization in the tokenizer."""


SIZES = {
    ("vit", "mini"): Size((128,), (3,), (4,), ratio=1, patch=4),
    ("vit", "reference"): Size((384,), (7,), (12,), ratio=1, patch=4),
    ("swin", "mini"): Size((96, 192), (2, 2), (3, 6), ratio=2, patch=4, window=4),
    ("swin", "reference"): Size((96, 192, 384), (2, 6, 4), (3, 6, 12), ratio=2, patch=2, window=4),
    ("cct", "mini"): Size((128,), (3,), (2,), ratio=1, patch=8, normalize=True),
    ("cct", "reference"): Size((256,), (7,), (4,), ratio=2, patch=2),
}


def build_model(config: Config, data: ImageData) -> keras.Model:
    """Raw pixels (batch, height, width, channels) in uint8 to logits (batch, classes) in float32."""
    inputs = keras.Input(data.train.images.shape[1:], dtype="uint8")
    x = layers.Normalization(mean=data.mean, variance=np.square(data.deviation))(inputs)
    size = SIZES[config.architecture, config.size]
    rates = iter(np.linspace(0, config.stochastic_depth, sum(size.depths)).tolist())
    if config.architecture == "swin":
        x = swin_features(x, size, config.dropout, rates)
    else:
        x = token_features(x, size, config.dropout, rates, convolutional=config.architecture == "cct")
    logits = layers.Dense(len(data.classes), dtype="float32")(x)
    return keras.Model(inputs, logits, name=config.architecture)


def token_features(x, size, dropout, rates, convolutional):
    """ViT and CCT: images (batch, height, width, channels) to features (batch, width of the network)."""
    (width,), (depth,), (heads,) = size.widths, size.depths, size.heads
    if convolutional:
        filters = [width * 2**number // size.patch * 2 for number in range(size.patch.bit_length() - 1)]
        x = ConvolutionalTokenizer(filters, size.normalize, name="patches")(x)
    else:
        x = SequenceDense(width, name="patches")(SpaceToDepth(size.patch)(x))
    x = layers.Reshape((-1, width))(x)
    if not convolutional:
        x = ClassToken()(x)
    x = LearnedPositions(x.shape[1])(x)
    for _ in range(depth):
        x = VisionBlock(heads, size.ratio * width, dropout, next(rates))(x)
    x = layers.LayerNormalization(epsilon=1e-5)(x)
    return SequencePooling()(x) if convolutional else x[:, 0]


def swin_features(x, size, dropout, rates):
    """Swin: images (batch, height, width, channels) to features (batch, width of the last stage)."""
    x = SequenceDense(size.widths[0], name="patches")(SpaceToDepth(size.patch)(x))
    x = layers.LayerNormalization(epsilon=1e-5)(x)
    for stage, (width, depth, heads) in enumerate(zip(size.widths, size.depths, size.heads, strict=True)):
        if stage:
            x = PatchMerging(width)(x)
        for block in range(depth):
            shift = size.window // 2 * (block % 2)
            thinning = {"dropout": dropout, "stochastic_depth": next(rates)}
            x = SwinBlock(heads, size.ratio * width, size.window, shift, **thinning)(x)
    return layers.GlobalAveragePooling2D()(layers.LayerNormalization(epsilon=1e-5)(x))


def main(run: Run) -> dict[str, float]:
    config = run.config
    data = config.load()
    check_initial_classes(config.initial_weights, data.classes)
    batches = MixedImageBatches(
        data.train, len(data.classes), config.batch_size, config.seed, flip=config.flip and data.mirrored,
        crop=config.crop, mixup=config.mixup,
        augment=functools.partial(rand_augment, operations=config.rand_augment, magnitude=config.magnitude),
    )  # fmt: skip

    model = build_model(config, data)
    rate = WarmupCosine(config.learning_rate, config.epochs * len(batches), config.warmup)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=config.weight_decay or None)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias", "embeddings", "token"])
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy("top1")],
    )
    model.summary()
    run.fit(
        model, batches, data=f"{data.name} {data.fingerprint}", validation_batch_size=250,
        validation_data=(data.validation.images, np.eye(len(data.classes))[data.validation.labels]),
    )  # fmt: skip

    images, labels = data.test
    logits = model.predict(images, batch_size=250, verbose=0)
    if config.flip_test and data.mirrored:
        logits = (logits + model.predict(images[:, :, ::-1], batch_size=250, verbose=0)) / 2
    probabilities = softmax(logits)
    metrics = {"top1": top_k_accuracy(probabilities, labels, 1), "top5": top_k_accuracy(probabilities, labels, 5)}
    run.save_figure("curves.png", plot_curves(run.history, ["loss", "top1"]))
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_matrix(predicted, labels, len(data.classes))
    run.save_figure("confusion.png", plot_confusion(confusion, data.classes))
    run.save_figure("mistakes.png", plot_mistakes(images, labels, probabilities, data.classes))
    titles = [f"{data.classes[a]} (true: {data.classes[b]})" for a, b in zip(predicted[:16], labels, strict=False)]
    run.save_figure("attention.png", plot_heatmaps(images[:16], attention_rollout(model, images[:16]), titles))
    return run.finish(model, data.name, "top1", metrics, architecture=config.architecture, classes=data.classes)


def predictor(run: FinishedRun) -> Callable:
    """Function from an image to class probabilities."""
    classifier = image_classifier(run.model, run.result["classes"])

    def classify(image: Picture) -> Probabilities:
        """Classifies an image."""
        return classifier(image)

    return classify


if __name__ == "__main__":
    launch(main, Config)
