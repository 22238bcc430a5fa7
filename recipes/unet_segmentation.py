"""Semantic and instance segmentation with a U-Net.

Predicts the class of each pixel of an image: an encoder halves the resolution several times for more context, and a
decoder doubles it again, with skip connections from the encoder's features at each resolution (Ronneberger et al. 2015,
"U-Net", https://arxiv.org/abs/1505.04597). Objects of one class that touch, such as nuclei, are separated by a border
class and a watershed (instance segmentation). DeepLabV3+ and PSPNet are options.

    KERAS_BACKEND=torch python recipes/unet_segmentation.py                      nuclei (DSB 2018), on two CPU cores
    KERAS_BACKEND=torch python recipes/unet_segmentation.py --data scans         a folder of your own, see docs/data.md
    KERAS_BACKEND=torch python recipes/unet_segmentation.py --data camvid --encoder efficientnet_lite0 --size 192
    KERAS_BACKEND=torch python recipes/unet_segmentation.py --preset full        nuclei, on one GPU
    KERAS_BACKEND=torch recipes predict RUN new.png                              masks of other images, of any size

The recorded runs are under results/unet_segmentation; that of CamVid has --loss cross_entropy lovasz --epochs 45, too.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
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

from shared.data.images.files import channel_pixels
from shared.data.segmentation.datasets import load_segmentation
from shared.data.segmentation.segmented_images import SegmentationData
from shared.images.backbones.efficientnet_lite import efficientnet_lite0, feature_levels, load_imagenet_weights
from shared.layers.convolution import Convolution
from shared.layers.resampling import MaxPooling, NearestUpsampling
from shared.layers.residual import ConvolutionBlock
from shared.segmentation.batches import SegmentationBatches, centre_crops
from shared.segmentation.exports import exported_segmenter
from shared.segmentation.heads import HEADS, enlarge
from shared.segmentation.instances import separate_objects
from shared.segmentation.losses import LossName, SegmentationLoss
from shared.segmentation.metrics import average_precision, class_metrics, mean_dice, object_counts, pixel_counts
from shared.segmentation.plots import plot_segmentations
from shared.segmentation.prediction import mask_of, predict_in_tiles, predicted_classes, tile_predictor
from shared.training.options import Options
from shared.training.plots import plot_curves
from shared.training.predictors import FinishedRun, Mask, Picture
from shared.training.ranges import Count, Limit, NonNegative, Part, Positive, Rate, Whole, ranged
from shared.training.run import Run, launch
from shared.training.schedules import WarmupCosine

ENCODER_LEVELS = 5
"""Levels of the U-Net above the last one of an encoder, which is of 1/32 of the resolution."""


@dataclass(kw_only=True)
class Config(Options):
    """Trains a U-Net: on nuclei, road scenes, or a folder of images and masks."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "test": {
            "data": "synthetic_cells", "widths": (8, 16), "size": 32, "epochs": 1, "train_examples": 48,
            "test_examples": 4, "learning_rate": 1e-5,
        },
        "smoke": {"epochs": 8, "widths": (8, 16, 32), "size": 96, "train_examples": 160, "test_examples": 10},
        "full": {"epochs": 200, "widths": (64, 128, 256, 512, 1024), "size": 256, "batch_size": 16},
    }  # fmt: skip

    epochs: Count = 50
    batch_size: Count = 4
    learning_rate: Positive = 2e-3
    """The highest learning rate, of AdamW."""
    weight_decay: NonNegative = 1e-4
    """Weight decay of all weights."""
    warmup: Rate = 0.05
    """Learning-rate warmup: fraction of the steps over which it rises, before cosine decay."""
    loss: tuple[LossName, ...] = ("cross_entropy", "dice")
    """Losses that are added up."""
    widths: tuple[Count, ...] = (8, 16, 32, 64, 128)
    """Filters at each level, from the full resolution down; each level halves it."""
    encoder: Literal["", "efficientnet_lite0"] = ""
    """Encoder with ImageNet weights, whose features take the place of all levels but the first; "": none."""
    head: Literal["unet", *HEADS] = "unet"
    """Decoder of the U-Net, or the head of DeepLabV3+ or PSPNet, which see more context and less detail."""
    size: ranged(int, least=16) = 128
    """Height and width of the training crops, and of the tiles in which images are predicted, in pixels."""
    crops: Count = 1
    """Random crops of each image per epoch."""
    scale: ranged(float, least=1) = 1.25
    """Random scale: by a factor of up to this, down or up."""
    turn: bool = True
    """Random quarter turns beside the horizontal flips, where images have no upright orientation."""
    brightness: NonNegative = 0.5
    """Random brightness: by a factor of up to exp of this, down or up."""
    overlap: Rate = 0.5
    """Fraction of a tile by which it overlaps the next one, at least; there predictions are blended."""
    objects: bool = False
    """Instance segmentation of a folder of your own: its masks hold numbers of objects instead of classes."""
    smallest: Whole = 20
    """Smallest object, in pixels; smaller ones are dropped."""
    validation: Part = 0.15
    """Fraction of the training images held out for validation, unless the data have a split."""
    train_examples: Limit = None
    """Limit training to the first N images."""
    test_examples: Limit = None
    """Limit validation and evaluation to the first N images each."""

    def __post_init__(self):
        super().__post_init__()
        levels = len(self.widths)
        self.require(
            "widths", levels == ENCODER_LEVELS or not self.encoder, f"must be {ENCODER_LEVELS}, with an encoder"
        )
        self.require("widths", levels >= 5 or self.head == "unet", f"must be at least 5, with the head of {self.head}")
        step = 2 ** (levels if self.encoder else levels - 1)
        self.require("size", self.size % step == 0, f"must be a multiple of {step}, for {levels} levels")
        self.require("loss", len(self.loss) > 0, "must name a loss")

    def load(self) -> SegmentationData:
        """The data; a UsageError if the options do not fit them."""
        data = load_segmentation(
            self.data, self.data_dir, "dsb2018", self.validation, self.objects, self.train_examples, self.test_examples
        )
        examples = self.crops * len(data.train.masks)
        self.require("batch_size", self.batch_size <= examples, f"must be at most the {examples} crops of an epoch")
        return data


def build_model(config: Config, classes: int, channels: int = 3, encoder: keras.Model | None = None) -> keras.Model:
    """Raw pixels (batch, size, size, channels) in uint8 to logits (batch, size, size, classes) in float32."""

    def twice(x, filters):
        return ConvolutionBlock(filters)(ConvolutionBlock(filters)(x))

    inputs = keras.Input((config.size, config.size, channels), dtype="uint8")
    levels = [twice(layers.Rescaling(1 / 255)(inputs), config.widths[0])]
    if encoder:
        pixels = layers.Rescaling(1.0)(inputs)
        levels += encoder(layers.Concatenate()([pixels] * 3) if channels == 1 else pixels)
    else:
        for filters in config.widths[1:]:
            levels.append(twice(MaxPooling()(levels[-1]), filters))
    if config.head == "unet":
        *levels, x = levels
        for level, filters in reversed(list(zip(levels, config.widths, strict=False))):
            x = twice(layers.Concatenate()([NearestUpsampling(*level.shape[1:3])(x), level]), filters)
    else:
        x = HEADS[config.head](levels, config.widths[-1])
    logits = Convolution(classes, 1, use_bias=True, dtype="float32", name="logits")(x)
    if x.shape[1] < config.size:
        logits = enlarge(logits, config.size // x.shape[1], dtype="float32")
    return keras.Model(inputs, logits, name=config.head)


def load_encoder(config: Config) -> keras.Model:
    """Pixels (batch, size, size, 3) to features of ImageNet at each resolution, the highest first."""
    backbone = efficientnet_lite0((config.size, config.size, 3))
    load_imagenet_weights(backbone)
    return keras.Model(backbone.input, feature_levels(backbone), name="encoder")


def evaluate(model: keras.Model, config: Config, data: SegmentationData) -> tuple[dict[str, float], list[np.ndarray]]:
    """Metrics of the test images, and their predicted masks: classes or, for instance segmentation, objects."""
    predict = tile_predictor(model)
    pixels, objects, masks = [], [], []
    for image, truth in zip(data.test.pixels, data.test.masks, strict=True):
        probabilities = predict_in_tiles(predict, image, config.size, config.overlap)
        masks.append(predicted_classes(probabilities, data.objects))
        pixels.append(pixel_counts(np.minimum(truth, 1) if data.objects else truth, masks[-1], len(data.classes)))
        if data.objects:
            masks[-1] = separate_objects(probabilities, config.smallest)
            objects.append(object_counts(truth, masks[-1], 0.5))
    metrics = class_metrics(sum(pixels), data.classes)
    if len(data.classes) == 2:
        metrics["dice"] = mean_dice(pixels)
    if data.objects:
        metrics["ap50"] = average_precision(objects)
    return metrics, masks


def main(run: Run) -> dict[str, float]:
    config = run.config
    data = config.load()
    batches = SegmentationBatches(
        data.train,
        batch_size=config.batch_size,
        seed=config.seed,
        size=config.size,
        crops=config.crops,
        objects=data.objects,
        scale=config.scale,
        turn=config.turn and not data.upright,
        brightness=config.brightness,
    )
    encoder = load_encoder(config) if config.encoder else None
    model = build_model(config, len(data.classes) + data.objects, data.channels, encoder)
    schedule = WarmupCosine(config.learning_rate, config.epochs * len(batches), config.warmup)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay)
    model.compile(optimizer, SegmentationLoss(config.loss))
    model.summary()
    run.fit(
        model,
        batches,
        data=f"{data.name} {data.fingerprint}",
        validation_data=centre_crops(data.validation, config.size, data.objects),
        validation_batch_size=config.batch_size,
    )

    metrics, masks = evaluate(model, config, data)
    run.save_figure("curves.png", plot_curves(run.history, ["loss"]))
    shown = [list(each[:6]) for each in (*data.test, masks)]
    run.save_figure("segmentations.png", plot_segmentations(*shown, data.classes, data.objects))
    metric = "dice" if len(data.classes) == 2 else "miou"
    return run.finish(model, data.name, metric, metrics, classes=data.classes, objects=data.objects)


def predictor(run: FinishedRun) -> Callable:
    """Function from an image to its mask."""
    config, objects, predict = run.config, run.result.get("objects", False), tile_predictor(run.model)
    _, size, _, channels = run.model.input_shape

    def segment(image: Picture, overlap: float = config.overlap, smallest: int = config.smallest) -> Mask:
        """Gives each pixel of an image a class, or the number of the object that it belongs to."""
        replace(config, overlap=overlap, smallest=smallest)  # checks the ranges
        probabilities = predict_in_tiles(predict, channel_pixels(image, channels), size, overlap)
        return mask_of(probabilities, objects, smallest)

    segment.exported = lambda: exported_segmenter(
        run.model, run.result["classes"], objects, config.overlap, config.smallest
    )
    return segment


if __name__ == "__main__":
    launch(main, Config)
