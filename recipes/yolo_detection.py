"""Object detection with an anchor-free detector, in the manner of YOLOv8.

Finds what is where in an image, all at once: a convolutional network describes each place at three resolutions, and
says of each place what is there and how far it reaches (Redmon et al. 2015, "You Only Look Once",
https://arxiv.org/abs/1506.02640; Jocher et al. 2023, YOLOv8, https://github.com/ultralytics/ultralytics). It is trained
from scratch.

    KERAS_BACKEND=jax python recipes/yolo_detection.py                        blood cells (BCCD), on two CPU cores
    KERAS_BACKEND=jax python recipes/yolo_detection.py --data digit_scenes    digits on photographs, made on the spot
    KERAS_BACKEND=jax python recipes/yolo_detection.py --data photos          a folder of your own, see docs/data.md
    KERAS_BACKEND=jax python recipes/yolo_detection.py --preset full          blood cells, on one GPU
    KERAS_BACKEND=jax recipes predict RUN new.jpg                             draws what it finds in other images

The recorded runs are under results/yolo_detection.
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

from shared.data.detection.boxed_images import DetectionData, letterbox
from shared.data.detection.datasets import load_detection
from shared.detection.batches import DetectionBatches, detection_targets
from shared.detection.decoding import Detections, boxes_in_picture, compiled_detector
from shared.detection.exports import exported_detector
from shared.detection.layers import CrossStageBlock, DetectionHead, NormalizedConvolution, PyramidPooling
from shared.detection.losses import DetectionLoss
from shared.detection.metrics import RECALLS, detection_metrics
from shared.detection.plots import plot_detections, plot_precision_recall
from shared.training.options import Options
from shared.training.plots import plot_curves
from shared.training.predictors import Boxes, FinishedRun, Picture
from shared.training.ranges import Count, Fraction, Limit, NonNegative, Part, Positive, Rate, Whole, ranged
from shared.training.run import Run, launch
from shared.training.schedules import WarmupCosine

# Blocks and channels of each stage of the backbone: YOLOv8n, s and m.
SIZES = {
    "n": ((1, 2, 2, 1), (16, 32, 64, 128, 256)),
    "s": ((1, 2, 2, 1), (32, 64, 128, 256, 512)),
    "m": ((2, 4, 4, 2), (48, 96, 192, 384, 576)),
}


@dataclass(kw_only=True)
class Config(Options):
    """Trains an object detector: on blood cells, scenes of digits, any TFDS set with boxes, or a folder of images."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "test": {
            "data": "digit_scenes", "image_size": 64, "train_examples": 64, "test_examples": 8, "epochs": 3,
            "plain_epochs": 1, "learning_rate": 1e-5,
        },
        "smoke": {
            "epochs": 8, "plain_epochs": 4, "image_size": 128, "train_examples": 64, "test_examples": 16, "ema": 0.0,
        },
        "full": {
            "size": "s", "image_size": 640, "epochs": 200, "batch_size": 32, "images_per_epoch": None,
            "plain_epochs": 20, "ema": 0.999,
        },
    }  # fmt: skip

    epochs: Count = 120
    batch_size: Count = 8
    images_per_epoch: Limit = 400
    """Images per epoch, about; a pass over a larger set takes several epochs."""
    learning_rate: Positive = 1.5e-3
    """The highest learning rate, of AdamW."""
    weight_decay: NonNegative = 0.05
    """Weight decay of the kernels."""
    warmup: Rate = 0.1
    """Learning-rate warmup: fraction of the steps over which it rises, before cosine decay."""
    ema: Rate = 0.995
    """Decay of an exponential moving average (EMA) of the weights, which is then evaluated; 0: none."""
    size: Literal["n", "s", "m"] = "n"
    """Depth and width of the network, as YOLOv8's: nano, small or medium."""
    image_size: ranged(int, least=64) = 320
    """Images are letterboxed to N×N pixels, a multiple of 32."""
    mosaic: Fraction = 1.0
    """Mosaic augmentation: fraction of the training images that are put together from four."""
    plain_epochs: Whole = 15
    """Number of final epochs without mosaic."""
    scale: Rate = 0.5
    """Random scale: by a factor of up to 1 ± this."""
    shift: Rate = 0.1
    """Random translation: by up to this fraction of the size."""
    flip: bool = True
    """Random horizontal flip, where that does not change the class of an object."""
    colour: NonNegative = 1.0
    """Color jitter: strength; 1 is about that of YOLOv8."""
    max_boxes: Count = 100
    """Maximum number of boxes per training image; the largest are kept."""
    overlap: Fraction = 0.7
    """IoU threshold of non-maximum suppression (NMS)."""
    confidence: Fraction = 0.25
    """Confidence threshold: draw detections of at least this score."""
    validation: Part = 0.1
    """Fraction of the training images held out for validation, unless the data have a split."""
    train_examples: Limit = None
    """Limit training to the first N images."""
    test_examples: Limit = None
    """Limit validation and evaluation to the first N images each."""

    def __post_init__(self):
        super().__post_init__()
        self.require("image_size", self.image_size % 32 == 0, "must be 64, 96, 128, …")

    def load(self) -> DetectionData:
        """The data; a UsageError if the options do not fit them."""
        data = load_detection(self.data, self.data_dir, "bccd", self.validation, self.image_size, self.train_examples)
        examples = len(data.train.images)
        self.require("batch_size", self.batch_size <= examples, f"must be at most the {examples} training images")
        few = {part: getattr(data, part).between(None, self.test_examples) for part in ("validation", "test")}
        return data._replace(**few)


def build_model(config: Config, classes: int) -> keras.Model:
    """Raw pixels (batch, size, size, 3) in uint8 to logits (batch, anchors, 64 + classes) in float32."""
    depths, channels = SIZES[config.size]
    inputs = keras.Input((config.image_size, config.image_size, 3), dtype="uint8")
    x = layers.Rescaling(1 / 255)(inputs)
    x = NormalizedConvolution(channels[0], 3, strides=2)(x)
    levels = []
    for filters, depth in zip(channels[1:], depths, strict=True):
        x = NormalizedConvolution(filters, 3, strides=2)(x)
        x = CrossStageBlock(filters, depth)(x)
        levels.append(x)
    _, fine, middle, _ = levels
    coarse = PyramidPooling(channels[4])(x)

    def merged(*parts):
        x = layers.Concatenate()(parts)
        return CrossStageBlock(parts[-1].shape[-1], depths[0], shortcut=False)(x)

    # A path aggregation network (PAN): features pass from coarse to fine levels, then back.
    middle = merged(layers.UpSampling2D()(coarse), middle)
    fine = merged(layers.UpSampling2D()(middle), fine)
    middle = merged(NormalizedConvolution(channels[2], 3, strides=2)(fine), middle)
    coarse = merged(NormalizedConvolution(channels[3], 3, strides=2)(middle), coarse)

    box_filters, class_filters = max(64, channels[2] // 4), max(channels[2], min(classes, 100))
    outputs = [DetectionHead(classes, box_filters, class_filters)(level) for level in (fine, middle, coarse)]
    return keras.Model(inputs, layers.Concatenate(axis=1, dtype="float32")(outputs), name="detector")


def build_optimizer(config: Config, steps: int) -> keras.optimizers.Optimizer:
    """AdamW for `steps` steps; biases and normalization weights have no weight decay."""
    optimizer = keras.optimizers.AdamW(
        WarmupCosine(config.learning_rate, steps, config.warmup),
        weight_decay=config.weight_decay,
        use_ema=config.ema > 0,
        ema_momentum=config.ema or 0.99,
        global_clipnorm=10.0,
    )
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


def main(run: Run) -> dict[str, float]:
    config = run.config
    data = config.load()
    batches = DetectionBatches(
        data.train,
        batch_size=config.batch_size,
        seed=config.seed,
        max_boxes=config.max_boxes,
        images_per_epoch=config.images_per_epoch,
        mosaic=config.mosaic,
        mosaic_epochs=config.epochs - config.plain_epochs,
        scale=config.scale,
        shift=config.shift,
        flip=config.flip and data.mirrored,
        colour=config.colour,
    )

    model = build_model(config, len(data.classes))
    model.compile(build_optimizer(config, config.epochs * len(batches)), DetectionLoss(config.image_size))
    model.summary()
    validation = data.validation
    run.fit(
        model,
        batches,
        data=f"{data.name} {data.fingerprint}",
        validation_data=(validation.images, detection_targets(validation.boxes, validation.labels, config.max_boxes)),
        validation_batch_size=config.batch_size,
    )

    detect, images = compiled_detector(model), data.test.images
    parts = [detect(images[i : i + 8], 0.001, config.overlap) for i in range(0, len(images), 8)]
    found = Detections(*map(np.concatenate, zip(*parts, strict=True)))
    values, precision = detection_metrics(data.test, found, data.classes)
    run.save_figure("curves.png", plot_curves(run.history, ["loss"]))
    run.save_figure("precision.png", plot_precision_recall(RECALLS, precision, data.classes))
    sure = found._replace(labels=np.where(found.scores >= config.confidence, found.labels, -1))
    run.save_figure("detections.png", plot_detections(data.test, sure, data.classes))
    return run.finish(model, data.name, "map50", values, classes=data.classes)


def predictor(run: FinishedRun) -> Callable:
    """Function from an image to detected objects."""
    detector = compiled_detector(run.model)

    def detect(image: Picture, confidence: float = run.config.confidence, overlap: float = run.config.overlap) -> Boxes:
        """Detects objects in an image."""
        replace(run.config, confidence=confidence, overlap=overlap)  # checks the ranges
        square = letterbox(image, run.model.input_shape[1])
        found = detector(square.pixels[None], confidence, overlap)
        return boxes_in_picture(found, square, image.size, run.result["classes"])

    detect.exported = lambda: exported_detector(
        run.model, run.result["classes"], run.config.confidence, run.config.overlap
    )
    return detect


if __name__ == "__main__":
    launch(main, Config)
