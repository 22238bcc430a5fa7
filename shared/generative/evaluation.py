"""A classifier that judges generated images: how far from real ones, and whether they show what they should."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import keras
import numpy as np
from keras import layers

from shared.backends.runtime import copied_weights, dtype_policy, prepare_backend
from shared.data.images.datasets import ImageData, LabelledImages, load_images
from shared.data.places import file_hash
from shared.data.randomness import random_stream
from shared.errors import UsageError
from shared.generative.metrics import frechet_distance, generation_metrics, kernel_distance, nearest, neighbourhood
from shared.generative.plots import plot_neighbours, plot_samples
from shared.images.backbones.pretrained import load_backbone
from shared.images.batches import ImageBatches
from shared.images.metrics import top_k_accuracy
from shared.layers.residual import ConvolutionBlock, ResidualBlock
from shared.training.options import Options
from shared.training.run import Run
from shared.training.saving import check_initial_classes, read_model, save_model
from shared.training.schedules import WarmupCosine

MeasuredPart = Literal["test", "validation"]


@dataclasses.dataclass(kw_only=True)
class JudgedOptions(Options):
    """Those of a recipe that makes images and has them judged."""

    free_on_resume: ClassVar[tuple[str, ...]] = ("samples", "sample_batch", "judge", "backbone")
    beside_result: ClassVar[tuple[str, ...]] = ("sample_batch", "judge", "backbone")  # a result says by which judge

    image_size: int | None = None
    """Cut images to squares of so many pixels (default: as they are)."""
    train_examples: int | None = None
    """Train on only so many images."""
    samples: int = 10_000
    """Make and measure so many images."""
    sample_batch: int = 250
    """So many at a time."""
    judge: Path | None = None
    """Measure with this classifier, a model.keras of cnn_cifar10 (default: a small one, trained in this run)."""
    judge_epochs: int = 2
    """Passes over the data to train that small one."""
    judge_flip: bool = True
    """Mirror half of the images that it learns from, where that does not change their class."""
    backbone: str | None = None
    """Also measure in the features of this network trained on ImageNet: inceptionv3, efficientnet_lite0, …"""
    measure_on: MeasuredPart = "test"
    """To choose options by: measure on validation images, a tenth of those to train on unless a folder holds some."""

    def __post_init__(self):
        super().__post_init__()
        self.judge = self.judge and Path(self.judge)
        for name, least in (("samples", 20), ("sample_batch", 1), ("judge_epochs", 1)):
            self.require(name, getattr(self, name) >= least, f"must be at least {least}")

    def load_data(self, preferred: str, validation: float) -> ImageData:
        """The images to learn from and to measure against; see `load_images`.

        Raises:
            UsageError: there are too few, or they are too small.
        """
        self.require("image_size", self.image_size is None or self.image_size >= 8, "must be at least 8")
        choosing = self.measure_on == "validation"
        share = max(validation, 0.1) if choosing else validation
        data = load_images(
            self.data, self.data_dir, preferred, share, self.train_examples, self.image_size, needs_classes=False
        )
        if choosing:
            print(f"measuring on the {len(data.validation.labels):,} images for validation instead", file=sys.stderr)
            data = data._replace(test=data.validation)
        _, height, width, _ = data.train.images.shape
        train, test = len(data.train.labels), len(data.test.labels)
        if train < 20 or test < 10:
            raise UsageError(f"there are {train} images to train on, and {test} to measure on: it takes 20 and 10")
        if min(height, width) < 8:
            raise UsageError(f"the images have {width}×{height} pixels: it takes 8 each way, so try --image-size 32")
        check_initial_classes(self.initial_weights, data.classes)
        return data

    def facts(self, *names: str) -> dict[str, Any]:
        """These options and how images were measured, for a result."""
        return {name: getattr(self, name) for name in (*names, "samples", "backbone", "measure_on")}


class Opinion(NamedTuple):
    """What a judge says of images: features (examples, features), and logits (examples, classes)."""

    features: np.ndarray
    logits: np.ndarray


def in_float32(model: keras.Model) -> keras.Model:
    """A copy that computes in float32, whatever the precision of the model was."""

    def remade(layer):
        return layer.__class__.from_config(layer.get_config() | {"dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=remade, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


class Judge:
    """A classifier of images in uint8. Its features are what its last dense layer is given, computed in float32.

    Args:
        path: a .keras file, such as the one that the recipe cnn_cifar10 writes.
        data: images of the kind that it is to judge.

    Raises:
        UsageError: the file cannot be read, or is no such classifier, or one of other images or classes.
    """

    def __init__(self, path: Path, data: ImageData):
        self.path = path
        try:
            model = in_float32(read_model(path, compile=False))
            self.sha256 = file_hash(path)
            dense = [layer for layer in model.layers if isinstance(layer, layers.Dense)]
            found = (model.input_shape[1:], model.output_shape[-1])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(f"--judge {path} cannot be used ({reason}): give the model.keras of cnn_cifar10") from None
        if not dense or found != (data.train.images.shape[1:], len(data.classes)):
            source = "PATH --image-size N" if data.name == "folder" else data.name
            remedy = f"train one with  recipes/cnn_cifar10.py --data {source}"
            raise UsageError(f"--judge {path} does not classify images like those of {data.name}: {remedy}")
        self.model = keras.Model(model.inputs, [dense[-1].input, model.output])

    def look(self, images: np.ndarray) -> Opinion:
        """What it says of images (examples, height, width, channels) in uint8."""
        return Opinion(*self.model.predict(images, batch_size=250, verbose=0))

    def facts(self) -> dict[str, str]:
        """What names this judge in a result."""
        return {"judge": str(self.path), "judge_sha256": self.sha256}


def trained_judge(run: Run, data: ImageData, epochs: int) -> Judge:
    """A small classifier, trained in this run where no judge was given, always alike; `judge.keras` in its directory.

    It is not as good as one that the recipe cnn_cifar10 trains, and no number that it gives compares with those of
    another judge.
    """
    path = run.directory / "judge.keras"
    if not path.exists():
        print(f"WARNING: no --judge: training a small one, {path}; compare no numbers of another", file=sys.stderr)
        if len(data.classes) == 1:
            print("WARNING: one class teaches it nothing; measure with --backbone efficientnet_lite0", file=sys.stderr)
        policy = keras.config.dtype_policy()
        prepare_backend(run.config.seed, "float32")
        batches = ImageBatches(
            data.train, len(data.classes), min(100, len(data.train.labels)), run.config.seed,
            flip=run.config.judge_flip and data.mirrored, crop=2,
        )  # fmt: skip
        model = judge_model(data)
        optimizer = keras.optimizers.SGD(WarmupCosine(0.1, epochs * len(batches), 0.2), momentum=0.9, nesterov=True)
        model.compile(
            optimizer,
            keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
            metrics=[keras.metrics.CategoricalAccuracy("top1")],
        )
        run.fit(model, batches, data=f"{data.name} {data.fingerprint}", phase="judge", epochs=epochs)
        save_model(model, path)
        keras.config.set_dtype_policy(policy)
    return Judge(path, data)


def judge_model(data: ImageData) -> keras.Model:
    """A small residual network in the form of the recipe cnn_cifar10."""
    inputs = keras.Input(data.train.images.shape[1:], dtype="uint8")
    x = layers.Normalization(mean=data.mean, variance=np.square(data.deviation))(inputs)
    x = ConvolutionBlock(16)(x)
    for width in (32, 64, 128):
        x = ResidualBlock(1)(ConvolutionBlock(width, pool=True)(x))
    x = layers.Dense(len(data.classes), use_bias=False)(layers.GlobalMaxPooling2D()(x))
    return keras.Model(inputs, layers.Rescaling(1 / 8, dtype="float32")(x), name="judge")


class ImageNetFeatures:
    """The features that a network trained on ImageNet gives: those before its classifier, their mean over the image.

    They are computed in float32, whatever the precision of the run.

    Distances in those of "inceptionv3" are of the usual kind, but not to be compared with published ones, which are in
    the features of another Inception, on other sizes of sets.

    Args:
        backbone: see `shared.images.backbones.pretrained.load_backbone`.
        image_shape: (height, width, channels), of one channel or three.

    Raises:
        UsageError: there is no such network, or its weights cannot be had.
    """

    def __init__(self, backbone: str, image_shape: tuple[int, int, int]):
        size = 299 if backbone == "inceptionv3" else 224
        with dtype_policy("float32"):
            network, _ = load_backbone(backbone, size)
            pixels = keras.Input(image_shape)
            x = layers.Concatenate()([pixels] * 3) if image_shape[-1] == 1 else pixels
            # Left to itself, Keras 3.15's Resizing makes the layers behind it run as in training.
            x = network(layers.Resizing(size, size)(x, training=False))
            self.model = keras.Model(pixels, layers.GlobalAveragePooling2D()(x))

    def look(self, images: np.ndarray) -> np.ndarray:
        """The features (examples, features) of images (examples, height, width, channels) in uint8."""
        return self.model.predict(images, batch_size=50, verbose=0)


def labels_like_test(data: ImageData, count: int, seed: int) -> np.ndarray:
    """Labels (count,) to make images of, each class as frequent as in the test images."""
    return np.resize(random_stream(seed, "labels").permutation(data.test.labels), count)


def judged_images(
    judge: Judge, data: ImageData, samples: LabelledImages, untrained: LabelledImages
) -> dict[str, float]:
    """Every measure of generated images against the test images.

    Args:
        judge: whose features and classes these are.
        data: the real images.
        samples: generated images, each with the class that it should be of.
        untrained: the same from an untrained generator.

    Returns:
        Those of `generation_metrics`, and "class_accuracy", the share of images that the judge finds in their class;
        the same names with "_floor", measured on as many training images, and with "_ceiling", on `untrained`; and
        "times_nearer", how many times nearer "frechet" is to its floor than the ceiling is. "memorizing" is the
        distance of a sample in pixels to the nearest training image over that of a test image, medians; far below 1
        if training images are repeated.
    """
    real = neighbourhood(judge.look(data.test.images).features)
    metrics = {}
    for suffix, (images, labels) in {
        "": samples,
        "_floor": data.train.first(len(samples.labels)),
        "_ceiling": untrained,
    }.items():
        opinion = judge.look(images)
        found = generation_metrics(opinion.features, real)
        found["class_accuracy"] = top_k_accuracy(opinion.logits, labels, 1)
        metrics |= {name + suffix: value for name, value in found.items()}
    floor = metrics["frechet_floor"]
    ceiling = metrics["frechet_ceiling"] - floor
    metrics["times_nearer"] = ceiling / max(metrics["frechet"] - floor, 1e-3 * abs(ceiling))
    ours, theirs = (
        np.median(nearest(images[:500], data.train.images, 1).distances)
        for images in (samples.images, data.test.images)
    )
    metrics["memorizing"] = float(ours / max(theirs, 1e-9))
    return metrics


def imagenet_distances(
    judge: ImageNetFeatures, data: ImageData, samples: LabelledImages, untrained: LabelledImages
) -> dict[str, float]:
    """Distances of generated images from the test images in other features than a judge's; see `judged_images`.

    Returns:
        "imagenet_frechet", "imagenet_kid" and "imagenet_kid_error", each also with "_floor" and "_ceiling".
    """
    real, metrics = judge.look(data.test.images), {}
    floor = data.train.first(len(samples.labels))
    for suffix, each in {"": samples, "_floor": floor, "_ceiling": untrained}.items():
        features = judge.look(each.images)
        kid = kernel_distance(features, real)
        metrics[f"imagenet_frechet{suffix}"] = frechet_distance(features, real)
        metrics |= {f"imagenet_kid{suffix}": kid.value, f"imagenet_kid_error{suffix}": kid.error}
    return metrics


def measured_generator(
    run: Run,
    model: keras.Model,
    draw: Callable[[np.ndarray], np.ndarray],
    judge: Judge,
    data: ImageData,
    untrained: list[np.ndarray],
    conditional: bool = True,
) -> tuple[LabelledImages, dict[str, float]]:
    """Makes images with a trained model, draws samples.png and neighbours.png, and measures.

    Args:
        run: of `JudgedOptions`.
        model: that makes the images.
        draw: makes an image, in uint8, for each of the labels that it is given, with the weights that the model has.
        judge: of these images.
        data: the real ones.
        untrained: weights of the model before training.
        conditional: whether images show what their label asks for. If not, the judge puts them in classes for the
            figure, and no "class_accuracy" is given.

    Returns:
        The images, and what `judged_images` says of them, and `imagenet_distances` where `--backbone` is given.
    """
    imagenet = ImageNetFeatures(run.config.backbone, data.test.images.shape[1:]) if run.config.backbone else None
    labels = labels_like_test(data, run.config.samples, run.config.seed)
    trained = copied_weights(model)
    model.set_weights(untrained)
    ceiling = LabelledImages(draw(labels), labels)
    model.set_weights(trained)
    samples = LabelledImages(draw(labels), labels)
    metrics = judged_images(judge, data, samples, ceiling)
    if imagenet:
        metrics |= imagenet_distances(imagenet, data, samples, ceiling)
    if not conditional:
        samples = samples._replace(labels=judge.look(samples.images).logits.argmax(axis=1))
        metrics = {name: value for name, value in metrics.items() if not name.startswith("class_accuracy")}
    near = nearest(samples.images[:10], data.train.images, 7).places
    run.save_figure("samples.png", plot_samples(samples, data.classes))
    run.save_figure("neighbours.png", plot_neighbours(samples.images[:10], data.train.images, near))
    return samples, metrics
