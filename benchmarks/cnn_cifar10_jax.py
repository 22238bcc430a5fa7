"""The image classifier written by hand in JAX, for `recipes compare cnn_cifar10 --native`.

The same shapes, optimizer and batches as recipes/cnn_cifar10.py; nothing of Keras takes part in a step.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from shared.errors import UsageError


def convolution(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def block(weights, x, pool):
    """Convolution, optional pooling, batch normalization, ReLU; returns the output and the new running averages."""
    kernel, gamma, beta, running_mean, running_variance = weights
    x = convolution(x, kernel)
    if pool:
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    x = (x - mean) * (gamma * lax.rsqrt(variance + 1e-3)) + beta
    averages = [0.9 * running_mean + 0.1 * mean, 0.9 * running_variance + 0.1 * variance]
    return jax.nn.relu(x), averages


def network(parameters, averages, images, depth, mean, deviation):
    """Pixels (batch, height, width, channels) in uint8 to logits (batch, classes), and the new running averages."""
    weights = iter([[*p, *a] for p, a in zip(parameters[:-1], averages, strict=True)])
    new_averages = []

    def apply(x, pool=False):
        x, changed = block(next(weights), x, pool)
        new_averages.append(changed)
        return x

    x = apply((images.astype(jnp.float32) - mean) / deviation)
    for _ in range((len(averages) - 1) // (1 + depth)):
        x = entrance = apply(x, pool=True)
        for _ in range(depth):
            x = apply(x)
        x = entrance + x
    return x.max(axis=(1, 2)) @ parameters[-1][0] / 8, new_averages


def loss_of(parameters, averages, images, labels, smoothing, **arguments):
    """Cross-entropy with label smoothing."""
    logits, averages = network(parameters, averages, images, **arguments)
    labels = labels * (1 - smoothing) + smoothing / labels.shape[-1]
    return -(labels * jax.nn.log_softmax(logits)).sum(axis=-1).mean(), averages


def train_step(state, images, labels, peak, rising, falling, decay, **arguments):
    """One step of SGD with Nesterov momentum and decoupled decay of the kernels."""
    parameters, averages, momenta, step = state
    (loss, averages), gradients = jax.value_and_grad(loss_of, has_aux=True)(
        parameters, averages, images, labels, **arguments
    )
    fallen = jnp.clip((step + 1 - rising) / falling, 0, 1)
    rate = peak * jnp.minimum((step + 1) / rising, 0.5 * (1 + jnp.cos(jnp.pi * fallen)))
    momenta = jax.tree.map(lambda m, g: 0.9 * m - rate * g, momenta, gradients)

    def updated(parameter, momentum, gradient):
        kept = 1 - rate * decay if parameter.ndim > 1 else 1.0
        return parameter * kept + 0.9 * momentum - rate * gradient

    return (jax.tree.map(updated, parameters, momenta, gradients), averages, momenta, step + 1), loss


class Trainer:
    """Trains the network, from the weights of a Keras model.

    Args:
        config: options of the recipe.
        model: the recipe's model.
        steps: of the whole training.
    """

    def __init__(self, config, model, steps):
        if config.optimizer != "sgd" or config.ema or config.precision != "float32":
            raise UsageError("the benchmark by hand trains with SGD in float32 and without --ema: leave those options")
        *values, head = model.get_weights()
        blocks = [values[i : i + 5] for i in range(0, len(values), 5)]
        parameters = [b[:3] for b in blocks] + [[head]]
        averages = [b[3:] for b in blocks]
        # Copies: the step takes the memory of its state, and Keras may hold the same.
        self.state = jax.tree.map(
            lambda x: jnp.array(x, copy=True), (parameters, averages, jax.tree.map(np.zeros_like, parameters), 0)
        )
        pixels = model.get_layer(index=1)
        rising = max(1, round(steps * config.warmup))
        self.step = jax.jit(
            functools.partial(
                train_step,
                peak=config.learning_rate,
                rising=rising,
                falling=steps + 1 - rising,
                decay=config.weight_decay,
                smoothing=config.label_smoothing,
                depth=config.depth,
                mean=np.ravel(pixels.mean),
                deviation=np.sqrt(np.ravel(pixels.variance)),
            ),
            donate_argnums=0,
        )

    def train_on_batch(self, images, labels):
        """One step; returns the loss."""
        self.state, loss = self.step(self.state, images, labels)
        return loss

    def weights(self):
        """The weights in the order and the shapes of the Keras model."""
        parameters, averages, _, _ = self.state
        blocks = [[*p, *a] for p, a in zip(parameters, [*averages, []], strict=True)]
        return [np.asarray(value) for block in blocks for value in block]
