"""Native JAX baseline of recipes/cnn_cifar10.py, for `recipes compare --native`.

The same shapes, optimizer and batches; nothing of Keras takes part in a step.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.native import require_options
from benchmarks.native_jax import NativeTrainer, NesterovSGD, convolution
from shared.training.schedules import warmup_cosine_rate


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
    *parameters, head = parameters
    blocks = zip(parameters[::3], parameters[1::3], parameters[2::3], averages[::2], averages[1::2], strict=True)
    new_averages = []

    def apply(x, pool=False):
        x, changed = block(next(blocks), x, pool)
        new_averages.extend(changed)
        return x

    x = apply((images.astype(jnp.float32) - mean) / deviation)
    for _ in range((len(averages) // 2 - 1) // (1 + depth)):
        x = entrance = apply(x, pool=True)
        for _ in range(depth):
            x = apply(x)
        x = entrance + x
    return x.max(axis=(1, 2)) @ head / 8, new_averages


class Trainer(NativeTrainer):
    """Trains the network, from the weights of a Keras model.

    Args:
        config: options of the recipe.
        model: the recipe's model.
        steps: of the whole training.
    """

    def __init__(self, config, model, steps):
        require_options(config, optimizer="sgd", ema=0, precision="float32")
        rate = functools.partial(warmup_cosine_rate, peak=config.learning_rate, steps=steps, warmup=config.warmup)
        super().__init__(model, NesterovSGD(rate, config.weight_decay))
        pixels = model.get_layer(index=1)
        self.scaling = {"mean": np.ravel(pixels.mean), "deviation": np.sqrt(np.ravel(pixels.variance))}
        self.depth = config.depth
        self.smoothing = config.label_smoothing

    def loss(self, parameters, others, key, images, labels):
        """Cross-entropy with label smoothing."""
        averages = {path: others[path] for path in self.paths if path in others}
        parameters = [parameters[path] for path in self.paths if path in parameters]
        logits, changed = network(parameters, [*averages.values()], images, self.depth, **self.scaling)
        labels = labels * (1 - self.smoothing) + self.smoothing / labels.shape[-1]
        loss = -(labels * jax.nn.log_softmax(logits)).sum(axis=-1).mean()
        return loss, dict(zip(averages, changed, strict=True))
