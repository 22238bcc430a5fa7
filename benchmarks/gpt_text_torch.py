"""Native PyTorch baseline of recipes/gpt_text.py, for `recipes compare --native`.

The same shapes, optimizer and batches; nothing of Keras takes part in a step.
"""

import functools
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.native import dropout_rate, require_options
from benchmarks.native_torch import DEVICE, Adam, NativeTrainer, kernels_and_others, load_weights
from shared.data.randomness import random_stream
from shared.errors import UsageError
from shared.training.schedules import warmup_cosine_rate

REPLACED = ("CachedWriter",)
"""What of the recipe is native here too, under the same name."""


def rotated(x, start=0):
    """Queries or keys (batch, heads, length, depth) with rotary position embeddings."""
    half = x.shape[-1] // 2
    frequencies = 10000.0 ** (-torch.arange(half, device=x.device) / half)
    angles = torch.arange(start, start + x.shape[2], device=x.device)[:, None] * frequencies
    sines, cosines = angles.sin(), angles.cos()
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)


class Attention(nn.Module):
    """Causal self-attention with grouped queries."""

    def __init__(self, width, heads, key_value_heads):
        super().__init__()
        self.depth = width // heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * self.depth * key_value_heads)
        self.output = nn.Linear(width, width)

    def forward(self, x, cache=None):
        """Of a sequence; with the keys and values of earlier tokens, of one that follows them."""
        start = 0 if cache is None else cache[0].shape[2]
        keys, values = (self.split(each) for each in self.key_value(x).chunk(2, dim=-1))
        queries, keys = rotated(self.split(self.query(x)), start), rotated(keys, start)
        if cache is not None:
            keys, values = (torch.cat(pair, dim=2) for pair in zip(cache, (keys, values), strict=True))
        shared = keys.shape[1] < queries.shape[1]
        x = functional.scaled_dot_product_attention(queries, keys, values, is_causal=cache is None, enable_gqa=shared)
        return self.output(x.transpose(1, 2).flatten(2)), (keys, values)

    def split(self, x):
        return x.unflatten(2, (-1, self.depth)).transpose(1, 2)


class Block(nn.Module):
    """A block; its modules in the order of the Keras layer's."""

    def __init__(self, width, heads, key_value_heads, hidden, dropout):
        super().__init__()
        self.attention = Attention(width, heads, key_value_heads)
        self.attention_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * hidden)
        self.contract = nn.Linear(hidden, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, cache=None):
        found, cache = self.attention(self.attention_norm(x), cache)
        x = x + self.dropout(found)
        gate, up = self.expand(self.feed_forward_norm(x)).chunk(2, dim=-1)
        return x + self.dropout(self.contract(functional.silu(gate) * up)), cache


class Network(nn.Module):
    """Ids (batch, length) to logits (batch, length, tokens), and the key-value caches; with a Keras model's weights."""

    def __init__(self, model):
        super().__init__()
        table, options = model.get_layer("embedding"), model.get_layer("decoder").options
        heads, width = options["heads"], table.output_dim
        self.dropout = nn.Dropout(dropout_rate(model))
        self.embedding = nn.Embedding(table.input_dim, width)
        self.blocks = nn.ModuleList(
            Block(width, heads, options["key_value_heads"] or heads, options["hidden"], self.dropout.p)
            for _ in range(options["depth"])
        )
        self.norm = nn.LayerNorm(width)
        load_weights(self, model)

    def forward(self, ids, caches=None):
        x, grown = self.dropout(self.embedding(ids) * math.sqrt(self.embedding.embedding_dim)), []
        for block, cache in zip(self.blocks, caches or [None] * len(self.blocks), strict=True):
            x, cache = block(x, cache)
            grown.append(cache)
        return functional.linear(self.norm(x), self.embedding.weight), grown


class Trainer(NativeTrainer):
    """Trains the network, from the weights of a Keras model.

    Args:
        config: options of the recipe.
        model: the recipe's model.
        steps: of the whole training.
    """

    def __init__(self, config, model, steps):
        require_options(
            config, precision="float32", positions="rotary", normalization="layer", activation="swiglu", tied=True,
            top_k=0, top_p=1, min_p=0, repetition_penalty=1,
        )  # fmt: skip
        if config.temperature == 0:
            raise UsageError("the native baseline samples each token: say --temperature 1, or leave out --native")
        network = Network(model)
        rate = functools.partial(warmup_cosine_rate, peak=config.learning_rate, steps=steps, warmup=config.warmup)
        groups = kernels_and_others(network)
        optimizer = Adam(groups, rate, betas=(0.9, 0.99), weight_decay=config.weight_decay)
        super().__init__(network, optimizer, clip=config.clip)

    def loss(self, ids, targets):
        logits, _ = self.network(ids)
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten().long())


class CachedWriter:
    """What the recipe's writes for one prompt, with this network and the same random numbers.

    Args:
        model: the Keras model.
        window: sequence length.
        method: of sampling, of which the temperature is taken.
    """

    def __init__(self, model, window, method):
        self.network = Network(model).eval()
        self.window = window
        self.temperature = method.temperature

    @torch.inference_mode()
    def __call__(self, prompts, length, seed):
        (text,), rng, caches = [list(prompt) for prompt in prompts], random_stream(seed, "tokens"), None
        for _ in range(length):
            if caches is None or caches[0][0].shape[2] == self.window - 1:
                start = len(text) - self.window // 2 if len(text) >= self.window else 0
                caches, new = None, text[start:]
            logits, caches = self.network(torch.tensor([new], device=DEVICE), caches)
            logits = logits[0, -1] / self.temperature
            logits[0] = -math.inf
            cumulated = logits.softmax(dim=0).cumsum(dim=0)
            uniform = float(rng.random(1, np.float32)[0])
            new = [int(torch.searchsorted(cumulated, uniform * cumulated[-1], right=True))]
            text += new
            yield np.array(new)
