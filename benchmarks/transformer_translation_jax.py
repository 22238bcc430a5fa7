"""Native JAX baseline of recipes/transformer_translation.py, for `recipes compare --native`.

The same shapes, loss, optimizer and batches; nothing of Keras takes part in a step. Search is the recipe's.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.native import require_options
from benchmarks.native_jax import Adam, NativeTrainer, attention, dense, weights_under
from shared.text.subwords import PAD


def layer_norm(weights, name, x):
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5) * weights[f"{name}/gamma"] + weights[f"{name}/beta"]


def dropout(key, rate, x):
    return x if rate == 0 else jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0.0)


def block(weights, x, mask, key, heads, rate, memory=None):
    """A block of the encoder, or of the decoder with `memory`."""
    keys = jax.random.split(key, 3)
    normed = layer_norm(weights, "attention_norm", x)
    visible = {"mask": mask} if memory is None else {"is_causal": True}
    x = x + dropout(keys[0], rate, attention(weights_under(weights, "attention"), normed, normed, heads, **visible))
    if memory is not None:
        normed = layer_norm(weights, "cross_norm", x)
        found = attention(weights_under(weights, "cross_attention"), normed, memory, heads, mask=mask)
        x = x + dropout(keys[1], rate, found)
    hidden = jax.nn.relu(dense(weights, "feed_forward/expand", layer_norm(weights, "feed_forward_norm", x)))
    return x + dropout(keys[2], rate, dense(weights, "feed_forward/contract", hidden))


def embed(table, ids):
    width = table.shape[1]
    frequencies = jnp.exp(-math.log(10000.0) * jnp.arange(width // 2) / max(1, width // 2 - 1))
    angles = jnp.arange(ids.shape[1])[:, None] * frequencies
    return table[ids] * math.sqrt(width) + jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


def network(weights, source, target, key, depth, heads, rate):
    """Sources (batch, m) and targets (batch, n) to logits (batch, n, vocabulary)."""
    table = weights["embedding/embeddings"]
    encoder, decoder = (weights_under(weights, name) for name in ("encoder", "decoder"))
    keys = iter(jax.random.split(key, 2 * depth + 2))
    mask = (source != PAD)[:, None, None, :]
    memory = dropout(next(keys), rate, embed(table, source))
    for index in range(depth):
        memory = block(weights_under(encoder, f"block_{index}"), memory, mask, next(keys), heads, rate)
    memory = layer_norm(encoder, "norm", memory)
    x = dropout(next(keys), rate, embed(table, target))
    for index in range(depth):
        x = block(weights_under(decoder, f"block_{index}"), x, mask, next(keys), heads, rate, memory)
    return layer_norm(decoder, "norm", x) @ table.T


class Trainer(NativeTrainer):
    """Trains the network, from the weights of a Keras model.

    Args:
        config: options of the recipe.
        model: the recipe's model.
        steps: of the whole training.
    """

    def __init__(self, config, model, steps):
        require_options(config, positions="sinusoidal", precision="float32")
        rate = functools.partial(inverse_square_root_rate, peak=config.learning_rate, warmup_steps=config.warmup_steps)
        super().__init__(model, Adam(rate, betas=(0.9, 0.98), epsilon=1e-9), ema=config.ema, seed=config.seed)
        options = model.get_layer("decoder").options
        dropout_rate = model.get_layer("dropout").rate  # 0 where a comparison wants it
        self.options = {"depth": options["depth"], "heads": options["heads"], "rate": dropout_rate}
        self.smoothing = config.label_smoothing

    def loss(self, parameters, others, key, inputs, labels):
        """Cross-entropy with label smoothing, the mean of the tokens that are not padding."""
        logits = network(parameters, **inputs, key=key, **self.options)
        log_probabilities = jax.nn.log_softmax(logits)
        losses = -jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1)[..., 0]
        losses = (1 - self.smoothing) * losses - self.smoothing * log_probabilities.mean(axis=-1)
        real = labels != PAD
        return jnp.where(real, losses, 0.0).sum() / real.sum(), others


def inverse_square_root_rate(step, peak, warmup_steps):
    """Learning rate: linear warmup, then the inverse square root of the step."""
    return peak * min((step + 1) / warmup_steps, math.sqrt(warmup_steps / (step + 1)))
