"""A neural network from scratch, to see what happens inside.

First Rosenblatt's perceptron (1958): two classes, two features, a line between them. Then a multilayer perceptron in
plain tensor operations: forward propagation, cross-entropy, backpropagation by the chain rule (Rumelhart, Hinton and
Williams 1986), stochastic gradient descent with momentum. Layers of Keras only hold the weights, to save them, and
automatic differentiation only checks the gradients.

    KERAS_BACKEND=jax python recipes/mlp_from_scratch.py                               Fashion-MNIST, on two CPU cores
    KERAS_BACKEND=jax python recipes/mlp_from_scratch.py --widths 90 90 90 --activation swish    other layers
    KERAS_BACKEND=jax python recipes/mlp_from_scratch.py --data photos --image-size 32    a folder of images
    KERAS_BACKEND=jax recipes predict RUN new.jpg                                      the classes of other images

The recorded runs are under results/mlp_from_scratch.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

try:
    from shared.backends.choice import require_backend
except ModuleNotFoundError:
    print("error: the package shared is not installed: run  pip install -e .  in keras-recipes", file=sys.stderr)
    sys.exit(2)
require_backend()

import keras
import numpy as np
from keras import layers, ops

from shared.backends.compiling import compiled_inference
from shared.backends.steps import compiled_step
from shared.data.images.datasets import ImageData, load_images
from shared.foundations.activations import ACTIVATIONS, ActivationName
from shared.foundations.checks import gradient_error
from shared.foundations.features import FEATURES, points_of_pair
from shared.foundations.perceptron import train_perceptron
from shared.foundations.plots import plot_perceptron, plot_signals, plot_surface, plot_units
from shared.foundations.surface import loss_surface
from shared.images.batches import ImageBatches
from shared.images.metrics import top_k_accuracy
from shared.images.prediction import image_classifier
from shared.training.options import Options
from shared.training.plots import plot_curves
from shared.training.predictors import FinishedRun, Picture, Probabilities
from shared.training.ranges import Count, Limit, Part, Positive, Rate
from shared.training.run import Run, launch
from shared.training.schedules import WarmupCosine


@dataclass(kw_only=True)
class Config(Options):
    """Trains a perceptron and a multilayer perceptron, written out, on labelled images."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "test": {"data": "mnist5k", "train_examples": 1500, "epochs": 1, "learning_rate": 1e-3},
        "smoke": {"epochs": 8, "batch_size": 50, "widths": (64, 32), "train_examples": 10000},
        "full": {"epochs": 60, "widths": (1024, 512, 256)},
    }

    epochs: Count = 15
    batch_size: Count = 100
    learning_rate: Positive = 0.05
    """The highest learning rate, before cosine decay."""
    momentum: Rate = 0.9
    """Momentum of SGD."""
    widths: tuple[Count, ...] = (256, 128)
    """Units of each hidden layer."""
    activation: ActivationName = "relu"
    """Activation function of the hidden layers."""
    pair: tuple[str, ...] = ()
    """The two classes of the perceptron, by name (default: the first two)."""
    image_size: Limit = None
    """Resize images to N×N pixels, cropped around the middle (default: as they are)."""
    validation: Part = 0.1
    """Fraction of the training images held out for validation."""
    train_examples: Limit = None
    """Limit training to the first N images."""

    def load(self) -> ImageData:
        """The data; a UsageError if the options do not fit them."""
        self.require("precision", self.precision == "float32", "must be float32, in which the proof is computed")
        data = load_images(
            self.data, self.data_dir, "fashion_mnist", self.validation, self.train_examples, self.image_size
        )
        few = len(data.train.labels)
        self.require("batch_size", self.batch_size <= few, f"must be at most the {few} training images")
        two = len(set(self.pair)) == len(self.pair) == 2 and set(self.pair) <= set(data.classes)
        self.require("data", len(data.classes) >= 2, "must have two classes or more")
        self.require("pair", two or not self.pair, f"must be two of the classes {', '.join(data.classes)}")
        return data


def build_model(config: Config, data: ImageData) -> keras.Model:
    """Pixels (batch, height, width, channels) in uint8 to logits (batch, classes): the weights, as they are saved."""
    hidden = {"activation": config.activation, "kernel_initializer": ACTIVATIONS[config.activation].initializer}
    x = inputs = keras.Input(data.train.images.shape[1:], dtype="uint8")
    x = layers.Normalization(mean=data.mean, variance=np.square(data.deviation), dtype="float32")(x)
    x = layers.Flatten(dtype="float32")(x)
    for width in config.widths:
        x = layers.Dense(width, **hidden, dtype="float32")(x)
    return keras.Model(inputs, layers.Dense(len(data.classes), dtype="float32")(x), name="multilayer_perceptron")


def forward(parameters: list[tuple[Any, Any]], x: Any, activation: str) -> tuple[list[Any], list[Any]]:
    """Forward propagation of x (batch, pixels): z and a of each layer, where a[0] is x, z[-1] the logits."""
    z, a = [], [x]
    for W, b in parameters:
        z.append(ops.add(ops.matmul(a[-1], W), b))  # z = a W + b
        a.append(ACTIVATIONS[activation].value(z[-1]))  # a = f(z)
    a[-1] = ops.softmax(z[-1])  # the last layer's f: probabilities
    return z, a


def cross_entropy(logits: Any, y: Any) -> Any:
    """−log of the probability of the true class, averaged: log Σ exp(z) − z of the class, which does not overflow."""
    return ops.mean(ops.logsumexp(logits, axis=-1) - ops.sum(ops.multiply(y, logits), axis=-1))


def backward(parameters: list[tuple[Any, Any]], z: list[Any], a: list[Any], y: Any, activation: str) -> list[Any]:
    """Backpropagation: the gradient of the cross-entropy by W and b of each layer. delta is its gradient by z."""
    gradients = []
    delta = (a[-1] - y) / y.shape[0]  # softmax and cross-entropy together: what is left is the error
    for i in reversed(range(len(parameters))):
        W, _ = parameters[i]
        # z = a W + b: each weight is multiplied by the activation that enters it, each bias by 1.
        gradients.insert(0, (ops.matmul(ops.transpose(a[i]), delta), ops.sum(delta, axis=0)))
        if i > 0:  # through the weights to the layer before, then through its activation function
            delta = ops.matmul(delta, ops.transpose(W)) * ACTIVATIONS[activation].derivative(z[i - 1])
    return gradients


class Network:
    """The weights W and biases b of a model of dense layers, and what is computed with them here."""

    def __init__(self, config: Config, data: ImageData):
        self.model, self.activation = build_model(config, data), config.activation
        dense = [layer for layer in self.model.layers if isinstance(layer, layers.Dense)]
        self.parameters = [(layer.kernel, layer.bias) for layer in dense]
        self.mean, self.deviation = (ops.convert_to_tensor(each, "float32") for each in (data.mean, data.deviation))

    def inputs(self, images: Any) -> Any:
        """Images in uint8 as rows of pixels, of mean 0 and deviation 1 over the training images."""
        x = (ops.cast(images, "float32") - self.mean) / self.deviation
        return ops.reshape(x, (x.shape[0], -1))

    def logits(self, images: Any) -> Any:
        z, _ = forward(self.parameters, self.inputs(images), self.activation)
        return z[-1]

    def loss(self, images: Any, y: Any) -> Any:
        return cross_entropy(self.logits(images), y)

    def gradients(self, images: Any, y: Any) -> tuple[list[Any], tuple[list[Any], list[Any]]]:
        """The gradients by W and b of each layer; and z and a, by which they were computed."""
        z, a = forward(self.parameters, self.inputs(images), self.activation)
        return backward(self.parameters, z, a, y, self.activation), (z, a)


def training_step(config: Config, network: Network, steps: int) -> tuple[Callable, dict[str, Any]]:
    """The step of SGD with momentum, for a training of `steps` steps, and all that it changes."""
    velocities = [[keras.Variable(ops.zeros(each.shape)) for each in pair] for pair in network.parameters]
    number = keras.Variable(0, dtype="int32", trainable=False)
    rate = WarmupCosine(config.learning_rate, steps, 0.02)
    means = {"loss": keras.metrics.Mean("loss"), "top1": keras.metrics.CategoricalAccuracy("top1")}

    @compiled_step
    def step(images, y):
        gradients, (z, a) = network.gradients(images, y)
        means["loss"].update_state(cross_entropy(z[-1], y))
        means["top1"].update_state(y, a[-1])
        for parameters, speeds, slopes in zip(network.parameters, velocities, gradients, strict=True):
            for w, v, g in zip(parameters, speeds, slopes, strict=True):
                v.assign(config.momentum * v - rate(number) * g)  # a ball that rolls downhill, with friction
                w.assign(w + v)
        number.assign(number + 1)
        return {name: mean.result() for name, mean in means.items()}

    state = {f"velocity_{i}{kind}": v for i, pair in enumerate(velocities) for kind, v in zip("Wb", pair, strict=True)}
    return step, {"network": network.model, "step_number": number} | state | means


def show_perceptron(run: Run, data: ImageData) -> float:
    """Trains a perceptron on brightness and width, draws its line; returns its accuracy on the test images."""
    names = run.config.pair or tuple(data.classes[:2])
    labels = [data.classes.index(name) for name in names]
    train, test = points_of_pair(data.train, labels), points_of_pair(data.test, labels)
    perceptron = train_perceptron(*train, epochs=10)
    run.save_figure("perceptron.png", plot_perceptron(perceptron, *train, names, FEATURES))
    return perceptron.accuracy(*test)


def show_signals(run: Run, data: ImageData, images: np.ndarray, y: np.ndarray) -> None:
    """Draws activations and gradients of two untrained networks of eight hidden layers."""
    signals = {}
    for activation in ("sigmoid", "relu"):
        network = Network(replace(run.config, activation=activation, widths=(100,) * 8), data)
        gradients, (_, a) = compiled_inference(network.gradients, [network.model])(images, y)
        signals[f"{activation}, {ACTIVATIONS[activation].initializer}"] = a[1:-1], [dW for dW, _ in gradients]
    run.save_figure("signals.png", plot_signals(signals))


def main(run: Run) -> dict[str, float]:
    config = run.config
    data = config.load()
    metrics = {"perceptron_top1": show_perceptron(run, data)}
    batches = ImageBatches(data.train, len(data.classes), config.batch_size, config.seed)
    network = Network(config, data)
    network.model.summary()
    metrics["gradient_error"] = gradient_error(network.loss, network.gradients, network.parameters, batches[0])
    print(f"backpropagation and automatic differentiation differ by {metrics['gradient_error']:.1e}")
    show_signals(run, data, *batches[0])
    compute = compiled_inference(network.logits, [network.model])

    def logits_of(images: np.ndarray) -> np.ndarray:
        parts = np.array_split(images, -(-len(images) // 1000))
        return np.concatenate([ops.convert_to_numpy(compute(part)) for part in parts])

    def validate(epoch: int) -> dict[str, float]:
        logits, labels = logits_of(data.validation.images), data.validation.labels
        loss = float(cross_entropy(logits, batches.one_hot[labels]))
        return {"val_loss": loss, "val_top1": top_k_accuracy(logits, labels, 1)}

    step, state = training_step(config, network, config.epochs * len(batches))
    run.train(step, batches, state, data=f"{data.name} {data.fingerprint}", after_epoch=validate)

    logits = logits_of(data.test.images)
    metrics["top1"] = top_k_accuracy(logits, data.test.labels, 1)
    metrics["layers_error"] = float(np.abs(network.model.predict(data.test.images, verbose=0) - logits).max())
    run.save_figure("curves.png", plot_curves(run.history, ["loss", "top1"]))
    run.save_figure("weights.png", plot_units(network.parameters[0][0], data.train.images.shape[1:]))
    examples = data.train.images[:1000], batches.one_hot[data.train.labels[:1000]]
    run.save_figure("surface.png", plot_surface(loss_surface(network.loss, examples, network.model, config.seed)))
    return run.finish(network.model, data.name, "top1", metrics, classes=data.classes)


def predictor(run: FinishedRun) -> Callable:
    """Function from an image to class probabilities."""
    classifier = image_classifier(run.model, run.result["classes"])

    def classify(image: Picture) -> Probabilities:
        """Classifies an image."""
        return classifier(image)

    return classify


if __name__ == "__main__":
    launch(main, Config)
