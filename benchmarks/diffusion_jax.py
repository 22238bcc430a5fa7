"""Native JAX baseline of recipes/diffusion.py, for `recipes compare --native`.

The same U-Net, optimizer and batches; nothing of Keras takes part in a step.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.native import require_options
from benchmarks.native_diffusion import NativeSampler, unet_options
from benchmarks.native_jax import (
    Adam,
    NativeTrainer,
    attention,
    convolution,
    dense,
    depth_to_space,
    split_weights,
    weights_under,
)
from shared.generative.diffusion.schedule import Rates, predicted_image
from shared.training.schedules import warmup_cosine_rate

REPLACED = ("ImageSampler",)
"""What of the recipe is native here too, under the same name."""

GROUPS = 8


def group_norm(x, scale, shift):
    """Scale and shift are broadcast to x (batch, height, width, channels)."""
    grouped = x.reshape(*x.shape[:3], GROUPS, -1)
    mean, variance = (f(axis=(1, 2, 4), keepdims=True) for f in (grouped.mean, grouped.var))
    return ((grouped - mean) * lax.rsqrt(variance + 1e-5)).reshape(x.shape) * scale + shift


def learned_norm(weights, name, x):
    return group_norm(x, weights[f"{name}/gamma"], weights[f"{name}/beta"])


def time_embedding(weights, time):
    half = weights["hidden/kernel"].shape[0] // 2
    angles = time[:, None] * 1000 ** (jnp.arange(half) / max(1, half - 1))
    hidden = jax.nn.silu(dense(weights, "hidden", jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)))
    return dense(weights, "last", hidden)


def block(weights, inputs, condition):
    """Two convolutions with a shortcut; the condition scales and shifts what is between them."""
    scale, shift = jnp.split(dense(weights, "modulation", jax.nn.silu(condition))[:, None, None], 2, axis=-1)
    x = convolution(jax.nn.silu(learned_norm(weights, "first_norm", inputs)), weights["first/kernel"])
    x = convolution(jax.nn.silu(group_norm(x, 1 + scale, shift)), weights["second/kernel"])
    return x + (convolution(inputs, weights["shortcut/kernel"]) if "shortcut/kernel" in weights else inputs)


def image_attention(weights, inputs):
    """Self-attention over the places of an image, added to it."""
    batch, height, width, channels = inputs.shape
    heads = max(n for n in range(1, max(1, channels // 64) + 1) if channels % n == 0)
    places = learned_norm(weights, "norm", inputs).reshape(batch, height * width, channels)
    return inputs + attention(weights_under(weights, "attention"), places, places, heads).reshape(inputs.shape)


def network(weights, image, time, label, levels, depth, patch):
    """Noisy images (batch, height, width, channels), times and labels to predictions."""
    condition = time_embedding(weights_under(weights, "time_embedding"), time)
    condition = condition + weights["label_embedding/embeddings"][label]

    def blocks(name, x):
        x = block(weights_under(weights, name), x, condition)
        of_attention = weights_under(weights, f"{name}_attention")
        return image_attention(of_attention, x) if of_attention else x

    batch, height, width, channels = image.shape
    x = image.reshape(batch, height // patch, patch, width // patch, patch, channels).transpose(0, 1, 3, 2, 4, 5)
    x = convolution(x.reshape(batch, height // patch, width // patch, -1), weights["stem/kernel"])
    skips = []
    for level in range(levels):
        if level:
            x = convolution(x, weights[f"down_{level}/kernel"], stride=2)
        for index in range(depth):
            x = blocks(f"down_{level}_{index}", x)
            skips.append(x)
    x = blocks("middle", x)
    for level in reversed(range(levels)):
        if level < levels - 1:
            x = x.repeat(2, axis=1).repeat(2, axis=2)[:, : skips[-1].shape[1], : skips[-1].shape[2]]
        for index in range(depth):
            x = blocks(f"up_{level}_{index}", jnp.concatenate([x, skips.pop()], axis=-1))
    x = jax.nn.silu(learned_norm(weights, "last_norm", x))
    return depth_to_space(convolution(x, weights["last/kernel"]) + weights["last/bias"], patch)


class Trainer(NativeTrainer):
    """Trains the network, from the weights of a Keras model.

    Args:
        config: options of the recipe.
        model: the recipe's model.
        steps: of the whole training.
    """

    def __init__(self, config, model, steps):
        require_options(config, precision="float32", dropout=0)
        rate = functools.partial(warmup_cosine_rate, peak=config.learning_rate, steps=steps, warmup=config.warmup)
        super().__init__(model, Adam(rate), clip=1.0, ema=config.ema)
        self.options = {"levels": len(config.widths), "depth": config.depth, "patch": config.patch}

    def loss(self, parameters, others, key, inputs, targets):
        """Mean squared error."""
        return jnp.square(network(parameters, **inputs, **self.options) - targets).mean(), others


class ImageSampler(NativeSampler):
    """The recipe's, but the network and the loop are native, with a compiled step."""

    def __init__(self, model, *options, **named):
        super().__init__(model, *options, **named)
        shape = unet_options(model)
        self.options = {"levels": len(shape.widths), "depth": shape.depth, "patch": shape.patch}
        self.step = jax.jit(self.next_images)

    def load(self):
        self.weights, _ = split_weights(self.model)

    def advance(self, *arguments):
        return self.step(self.weights, *arguments)

    def next_images(self, weights, row, noisy, before, labels, fresh):
        """What `advance` gives, with these weights."""
        time, signal, noise, guided, noisy_weight, image_weight, before_weight, fresh_weight = row
        times = jnp.full(labels.shape, time)
        if self.guidance in (0, 1):
            output = network(weights, noisy, times, labels, **self.options)
        else:
            pairs = (noisy, noisy), (times, times), (labels, jnp.full_like(labels, self.no_label))
            both = network(weights, *map(jnp.concatenate, pairs), **self.options)
            with_label, without = jnp.split(both, 2)
            output = without + (1 + guided * (self.guidance - 1)) * (with_label - without)
        image = predicted_image(self.prediction, noisy, output, Rates(signal, noise)).clip(-1, 1)
        after = noisy_weight * noisy + image_weight * image + before_weight * before
        return after if fresh is None else after + fresh_weight * fresh, image
