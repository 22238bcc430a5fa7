"""Native PyTorch baseline of recipes/transformer_translation.py, for `recipes compare --native`.

The same shapes, loss, optimizer and batches; nothing of Keras takes part in a step.
"""

import functools
import math

import torch
from torch import nn
from torch.nn import functional

from benchmarks.native import require_options
from benchmarks.native_decoding_torch import search
from benchmarks.native_torch import DEVICE, Adam, NativeTrainer, load_weights
from shared.text import translator as translation
from shared.text.subwords import PAD

REPLACED = ("Translator",)
"""What of the recipe is native here too, under the same name."""


class Attention(nn.Module):
    """Multi-head attention."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x, keys, values, mask=None, causal=False):
        queries = self.split(self.query(x))
        x = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=causal)
        return self.output(x.transpose(1, 2).flatten(2))

    def split(self, x):
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, x):
        return [self.split(each) for each in self.key_value(x).chunk(2, dim=-1)]


class Block(nn.Module):
    """A block of the encoder, or of the decoder with `cross`; its modules in the order of the Keras layer's."""

    def __init__(self, width, heads, hidden, dropout, cross):
        super().__init__()
        self.attention = Attention(width, heads)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.feed_forward_norm = nn.LayerNorm(width)
        if cross:
            self.cross_attention = Attention(width, heads)
            self.cross_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, mask, memory=None):
        normed = self.attention_norm(x)
        keys_values = self.attention.keys_values(normed)
        if memory is None:
            return self.finish(x + self.dropout(self.attention(normed, *keys_values, mask)))
        x = x + self.dropout(self.attention(normed, *keys_values, causal=True))
        return self.look_back(x, self.cross_attention.keys_values(memory), mask)

    def step(self, x, before, memory, mask):
        """One token, after those with the keys and values `before`; those with its own, too."""
        normed = self.attention_norm(x)
        keys_values = [torch.cat(pair, dim=2) for pair in zip(before, self.attention.keys_values(normed), strict=True)]
        return self.look_back(x + self.attention(normed, *keys_values), memory, mask), keys_values

    def look_back(self, x, memory, mask):
        """The other parts of a block of the decoder, from the memory's keys and values."""
        return self.finish(x + self.dropout(self.cross_attention(self.cross_norm(x), *memory, mask)))

    def finish(self, x):
        """The last part of each block."""
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Transformer(nn.Module):
    """Sources (batch, m) and targets (batch, n) to logits (batch, n, vocabulary), with the weights of a Keras model."""

    def __init__(self, model):
        super().__init__()
        table, options = model.get_layer("embedding"), model.get_layer("decoder").options
        dropout = model.get_layer("dropout").rate  # 0 where a comparison wants it
        shape = (table.output_dim, options["heads"], options["hidden"], dropout)
        self.embedding = nn.Embedding(table.input_dim, table.output_dim)
        self.encoder = nn.ModuleList(Block(*shape, cross=False) for _ in range(options["depth"]))
        self.encoder_norm = nn.LayerNorm(table.output_dim)
        self.decoder = nn.ModuleList(Block(*shape, cross=True) for _ in range(options["depth"]))
        self.decoder_norm = nn.LayerNorm(table.output_dim)
        self.dropout = nn.Dropout(dropout)
        load_weights(self, model)

    def embed(self, ids, start=0):
        width = self.embedding.embedding_dim
        steps = torch.arange(width // 2, device=ids.device)
        frequencies = torch.exp(-math.log(10000.0) * steps / max(1, width // 2 - 1))
        angles = torch.arange(start, start + ids.shape[1], device=ids.device)[:, None] * frequencies
        places = torch.cat([angles.sin(), angles.cos()], dim=1)
        return self.dropout(self.embedding(ids) * math.sqrt(width) + places)

    def encode(self, source):
        """What each place of the sources says (batch, m, width), and which places are real."""
        mask = (source != PAD)[:, None, None, :]
        memory = self.embed(source)
        for block in self.encoder:
            memory = block(memory, mask)
        return self.encoder_norm(memory), mask

    def logits(self, x):
        return functional.linear(self.decoder_norm(x), self.embedding.weight)

    def forward(self, source, target):
        memory, mask = self.encode(source)
        x = self.embed(target)
        for block in self.decoder:
            x = block(x, mask, memory)
        return self.logits(x)


class Trainer(NativeTrainer):
    """Trains the network, from the weights of a Keras model.

    Args:
        config: options of the recipe.
        model: the recipe's model.
        steps: of the whole training.
    """

    def __init__(self, config, model, steps):
        require_options(config, positions="sinusoidal", precision="float32")
        network = Transformer(model)
        rate = functools.partial(inverse_square_root_rate, peak=config.learning_rate, warmup_steps=config.warmup_steps)
        optimizer = Adam(network.parameters(), rate, betas=(0.9, 0.98), epsilon=1e-9)
        super().__init__(network, optimizer, ema=config.ema)
        self.smoothing = config.label_smoothing

    def loss(self, inputs, labels):
        logits = self.network(**inputs).flatten(0, 1)
        labels = labels.flatten().long()
        return functional.cross_entropy(logits, labels, ignore_index=PAD, label_smoothing=self.smoothing)


def inverse_square_root_rate(step, peak, warmup_steps):
    """Learning rate: linear warmup, then the inverse square root of the step."""
    return peak * min((step + 1) / warmup_steps, math.sqrt(warmup_steps / (step + 1)))


class Translator(translation.Translator):
    """The recipe's, but the network and the search are native."""

    def __init__(self, model, subwords, beams, length_penalty):
        super().__init__(model, subwords, beams, length_penalty)
        self.network = Transformer(model).eval()
        self.beams, self.penalty = beams, length_penalty

    @torch.inference_mode()
    def decode(self, sources, length):
        encoded = self.network.encode(torch.from_numpy(sources).to(DEVICE))
        memory, mask = (each.repeat_interleave(self.beams, dim=0) for each in encoded)
        fixed = [block.cross_attention.keys_values(memory) for block in self.network.decoder]

        def step(tokens, index, caches):
            x, grown = self.network.embed(tokens[:, None], start=index), []
            for block, cache, keys_values in zip(self.network.decoder, caches, fixed, strict=True):
                x, cache = block.step(x, cache, keys_values, mask)
                grown.append(cache)
            return self.network.logits(x)[:, 0], grown

        caches = [[each[:, :, :0] for each in keys_values] for keys_values in fixed]
        return search(step, caches, len(sources), length, self.beams, self.penalty)
