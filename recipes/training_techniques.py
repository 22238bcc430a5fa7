"""Training techniques, compared: one network, one thing varied.

Optimizers, learning-rate schedules, initializations, activation functions, normalization, regularization,
augmentation, losses, precisions and gradient accumulation. Every technique gets the learning rate that suits it, of a
few, by the validation images; then it is trained with three seeds, and measured on the test images once, at the end.

    KERAS_BACKEND=jax python recipes/training_techniques.py                          optimizers, on Fashion-MNIST
    KERAS_BACKEND=jax python recipes/training_techniques.py --out RUN --resume       go on with the next training
    KERAS_BACKEND=jax python recipes/training_techniques.py --vary normalization --network cnn     a CNN
    KERAS_BACKEND=jax python recipes/training_techniques.py --vary schedule --optimizer adam --values cosine constant
    KERAS_BACKEND=jax python recipes/training_techniques.py --data photos --image-size 32    a folder of images
    KERAS_BACKEND=jax python recipes/training_techniques.py --preset full            a CNN on CIFAR-10, on one GPU
    KERAS_BACKEND=jax recipes predict RUN new.jpg                                    the classes of other images

The techniques are the tables of shared/foundations/techniques.py, the recorded runs are under
results/training_techniques.
"""

import functools
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

from shared.backends.runtime import dtype_policy, seed_everything
from shared.data.images.datasets import ImageData, load_images
from shared.errors import UsageError
from shared.foundations.gradient_norms import gradient_norms
from shared.foundations.sweep_results import save_sweep, sweep_rows
from shared.foundations.technique_options import TechniqueOptions
from shared.foundations.techniques import (
    AUGMENTATIONS,
    LOSSES,
    NORMALIZATIONS,
    OPTIMIZERS,
    REGULARIZATIONS,
    SCHEDULES,
    SMOOTHED_LOSSES,
)
from shared.images.metrics import top_k_accuracy
from shared.images.mixed_batches import MixedImageBatches
from shared.images.prediction import image_classifier
from shared.layers.convolution import Convolution
from shared.training.predictors import FinishedRun, Picture, Probabilities
from shared.training.ranges import Count, Limit, Part, Positive, Whole
from shared.training.run import Run, launch
from shared.training.schedules import ScheduleOfUpdates
from shared.training.sweep import Sweep, Trials


@dataclass(kw_only=True)
class Config(TechniqueOptions):
    """Compares training techniques on labelled images: tries one after the other, the rest left as it is."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "test": {
            "data": "mnist5k", "train_examples": 500, "epochs": 1, "batch_size": 50, "learning_rate": 1e-3,
            "widths": (32, 16), "values": ("momentum", "adam"), "factors": (1.0, 3.0),
            "further": 0, "seeds": 2,
        },
        "smoke": {"train_examples": 5000, "epochs": 3, "widths": (64, 64), "values": ("sgd", "momentum", "adam")},
        "full": {"data": "cifar10", "network": "cnn", "widths": (64, 128, 256), "epochs": 30, "train_examples": None},
    }  # fmt: skip

    factors: tuple[Positive, ...] = (0.3, 1.0, 3.0)
    """Learning rates to choose from, as multiples of the usual one."""
    further: Whole = 3
    """Try up to N more learning rates, while the best is the lowest or the highest one."""
    seeds: Count = 3
    """Number of seeds, from --seed on."""
    network: Literal["mlp", "cnn"] = "mlp"
    """Dense layers, or convolutions with max pooling."""
    widths: tuple[Count, ...] = (128, 128, 128, 128)
    """Units of each hidden layer, or channels of each convolution."""
    epochs: Count = 10
    batch_size: Count = 128
    learning_rate: Positive = 0.03
    """The usual learning rate of SGD with momentum; those of other optimizers have a fixed ratio to it."""
    image_size: Limit = None
    """Resize images to N×N pixels, cropped around the middle (default: as they are)."""
    validation: Part = 0.1
    """Fraction of the training images held out for validation."""
    train_examples: Limit = 10000
    """Limit training to the first N images."""

    def load(self) -> tuple[ImageData, list[str]]:
        """The data, and what to try; a UsageError if the options do not fit them."""
        self.require("initial_weights", not self.initial_weights, "must be left out: each training draws its own")
        self.require("factors", len(set(self.factors)) == len(self.factors), "must differ from each other")
        data = load_images(
            self.data, self.data_dir, "fashion_mnist", self.validation, self.train_examples, self.image_size
        )
        few = len(data.train.labels)
        self.require("batch_size", self.batch_size <= few, f"must be at most the {few} training images")
        return data, self.fitting(lambda each: each.misfit(data))

    def misfit(self, data: ImageData) -> str:
        """Why the options of one training do not go together, or with the data; empty where they do."""
        few = self.batch_size // self.accumulation
        rules = {
            "--normalization instance needs --network cnn: in a dense layer each channel is one number":
                self.normalization == "instance" and self.network == "mlp",
            "--normalization group needs --widths that 16 divides":
                self.normalization == "group" and any(width % 16 for width in self.widths),
            "--augmentation flip changes the class of these images": self.augmentation == "flip" and not data.mirrored,
            f"--regularization label_smoothing needs --loss {' or '.join(SMOOTHED_LOSSES)}":
                self.regularization == "label_smoothing" and self.loss not in SMOOTHED_LOSSES,
            f"--accumulation {self.accumulation} must divide --batch-size {self.batch_size}":
                few * self.accumulation != self.batch_size,
        }  # fmt: skip
        return next((reason for reason, holds in rules.items() if holds), "")


def build_model(config: Config, data: ImageData) -> keras.Model:
    """Pixels (batch, height, width, channels) in uint8 to logits (batch, classes) in float32."""
    regularization, normalization = REGULARIZATIONS[config.regularization], NORMALIZATIONS[config.normalization]
    kernel = {"kernel_initializer": config.initialization}
    if regularization.kernel:
        kernel["kernel_regularizer"] = regularization.kernel()
    x = inputs = keras.Input(data.train.images.shape[1:], dtype="uint8")
    x = layers.Normalization(mean=data.mean, variance=np.square(data.deviation))(x)
    if config.network == "mlp":
        x = layers.Flatten()(x)
    for width in config.widths:
        hidden = layers.Dense(width, **kernel) if config.network == "mlp" else Convolution(width, 3, **kernel)
        x = hidden(x)
        if normalization:
            x = normalization()(x)
        x = layers.Activation(config.activation)(x)
        if config.network == "cnn":
            x = layers.MaxPooling2D(padding="same")(x)
        if regularization.dropout:
            x = layers.Dropout(regularization.dropout)(x)
    if config.network == "cnn":
        x = layers.GlobalAveragePooling2D()(x)
    logits = layers.Dense(len(data.classes), **kernel, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name=config.network)


def seeded_model(config: Config, data: ImageData) -> keras.Model:
    """The model with the weights and the precision of one training, whatever was trained before it."""
    seed_everything(config.seed)
    with dtype_policy(config.precision):
        return build_model(config, data)


def build_optimizer(config: Config, rate: float, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer for `steps` steps; biases and normalization weights have no weight decay."""
    options: dict[str, Any] = {}
    schedule = SCHEDULES[config.schedule](rate, steps)
    if decay := REGULARIZATIONS[config.regularization].weight_decay:
        options["weight_decay"] = decay
    if config.accumulation > 1:
        options["gradient_accumulation_steps"] = config.accumulation
        schedule = ScheduleOfUpdates(schedule, config.accumulation) if callable(schedule) else schedule
    optimizer = OPTIMIZERS[config.optimizer].build(schedule, **options)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def train(
    run: Run, data: ImageData, value: str, rate: float, seed: int, phase: str
) -> tuple[keras.Model, float, dict[str, Any]]:
    """One training: the model, its accuracy on the validation images, and what else is shown of it."""
    config = run.config.trying(value, seed)
    regularization = REGULARIZATIONS[config.regularization]
    few, classes = config.batch_size // config.accumulation, len(data.classes)
    batches = MixedImageBatches(data.train, classes, few, seed, fill=data.mean, **AUGMENTATIONS[config.augmentation])
    batches.batches_per_epoch -= batches.batches_per_epoch % config.accumulation
    steps = config.epochs * batches.batches_per_epoch // config.accumulation
    model = seeded_model(config, data)
    smoothing = {"label_smoothing": regularization.label_smoothing} if regularization.label_smoothing else {}
    loss = LOSSES[config.loss](**smoothing)
    model.compile(build_optimizer(config, rate, steps), loss, metrics=[keras.metrics.CategoricalAccuracy("top1")])
    examples = data.train.images[:256], batches.one_hot[data.train.labels[:256]]
    before = gradient_norms(model, loss, examples)
    run.fit(
        model,
        batches,
        data=f"{data.name} {data.fingerprint}",
        phase=phase,
        patience=regularization.patience,
        validation_data=(data.validation.images, batches.one_hot[data.validation.labels]),
        validation_batch_size=1000,
        verbose=0,
    )
    history = run.recorders[phase].history
    last = min(history, key=lambda row: row["val_loss"]) if regularization.patience else history[-1]
    after = gradient_norms(model, loss, examples)
    return model, last["val_top1"], {"last": last, "gradients_before": before, "gradients_after": after}


def test_accuracies(run: Run, data: ImageData, sweep: Sweep, trials: Trials) -> list[float]:
    """Top-1 accuracy on the test images of each training of a technique, at its best learning rate."""
    accuracies = []
    for outcome in trials.chosen:
        if outcome.score is not None:
            model = seeded_model(run.config.trying(outcome.setting, outcome.seed), data)
            sweep.load_weights(outcome, model)
            logits = model.predict(data.test.images, batch_size=1000, verbose=0)
            accuracies.append(top_k_accuracy(logits, data.test.labels, 1))
    return accuracies


def main(run: Run) -> dict[str, float]:
    config = run.config
    data, values = config.load()
    usual = {value: config.learning_rate * OPTIMIZERS[config.trying(value, 0).optimizer].scale for value in values}
    rates = {value: [float(f"{rate * factor:.6g}") for factor in config.factors] for value, rate in usual.items()}
    sweep = Sweep(run, f"{data.name} {data.fingerprint}", functools.partial(train, run, data))
    found = sweep.search(rates, range(config.seed, config.seed + config.seeds), config.further)
    best = max(found, key=lambda value: found[value].score)  # on the validation images: the test images choose nothing
    if not np.isfinite(found[best].score):
        raise UsageError(f"every training diverged: try a --learning-rate below {config.learning_rate:g}")
    rows = sweep_rows(found, {value: test_accuracies(run, data, sweep, trials) for value, trials in found.items()})
    save_sweep(run, config.vary, rows, found)

    winner = max(found[best].chosen, key=lambda each: each.score)
    model = seeded_model(config.trying(best, winner.seed), data)
    sweep.load_weights(winner, model)
    means = {row["value"]: row["top1"] for row in rows if row["top1"] is not None}
    metrics = {"top1": means[best]} | {f"top1_{value}": mean for value, mean in means.items()}
    facts = {"vary": config.vary, "best": best, "sweep": rows, "train_seconds": round(sweep.seconds, 1)}
    return run.finish(model, data.name, "top1", metrics, classes=data.classes, **facts)


def predictor(run: FinishedRun) -> Callable:
    """Function from an image to class probabilities."""
    classifier = image_classifier(run.model, run.result["classes"])

    def classify(image: Picture) -> Probabilities:
        """Classifies an image."""
        return classifier(image)

    return classify


if __name__ == "__main__":
    launch(main, Config)
