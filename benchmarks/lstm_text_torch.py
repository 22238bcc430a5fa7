"""Native PyTorch baseline of recipes/lstm_text.py, for `recipes compare --native`.

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
from shared.data.text.characters import character_codes
from shared.errors import UsageError
from shared.training.schedules import warmup_cosine_rate

REPLACED = ("CharacterWriter",)
"""What of the recipe is native here too, under the same name."""


class Network(nn.Module):
    """Codes of characters (batch, steps) to logits (batch, steps, characters), and the states then.

    Args:
        characters: number of different codes.
        embedding: embedding size.
        recurrent: the recurrent layers.
        dropout: dropout rate after each recurrent layer.
    """

    def __init__(self, characters, embedding, recurrent, dropout):
        super().__init__()
        self.embedding = nn.Embedding(characters, embedding)
        self.recurrent = nn.ModuleList(recurrent)
        self.dropout = dropout
        self.head = nn.Linear(recurrent[-1].hidden_size, characters)

    def forward(self, codes, states=None):
        x, after = self.embedding(codes), []
        for layer, state in zip(self.recurrent, states or [None] * len(self.recurrent), strict=True):
            x, state = layer(x, state)
            after.append(state)
            x = functional.dropout(x, self.dropout, self.training)
        return self.head(x), after


def native_network(model):
    """The network of a Keras model, with its weights."""
    embedding, *recurrent, _, _ = model.get_weights()
    layers = []
    for kernel, recurrent_kernel in zip(recurrent[::3], recurrent[1::3], strict=True):
        units, gates = recurrent_kernel.shape
        layers.append((nn.LSTM if gates == 4 * units else nn.GRU)(kernel.shape[0], units, batch_first=True))
    return load_weights(Network(*embedding.shape, layers, dropout_rate(model)), model)


class Trainer(NativeTrainer):
    """Trains the network, from the weights of a Keras model.

    Args:
        config: options of the recipe.
        model: the recipe's model.
        steps: of the whole training.
    """

    def __init__(self, config, model, steps):
        require_options(config, precision="float32", top_k=0, top_p=1, min_p=0, repetition_penalty=1)
        if config.temperature == 0:
            raise UsageError("the native baseline samples each character: say --temperature 1, or leave out --native")
        network = native_network(model)
        rate = functools.partial(warmup_cosine_rate, peak=config.learning_rate, steps=steps, warmup=config.warmup)
        optimizer = Adam(kernels_and_others(network), rate, weight_decay=config.weight_decay)
        super().__init__(network, optimizer, clip=config.clip)

    def loss(self, codes, targets):
        logits, _ = self.network(codes)
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten().long())


class CharacterWriter:
    """Writes what the recipe's writes, with this network and the same random numbers, among all characters."""

    def __init__(self, model, alphabet):
        self.network, self.alphabet = native_network(model).eval(), alphabet

    @torch.inference_mode()
    def __call__(self, prompt, length, seed, temperature, top_k, top_p, min_p=0, repetition_penalty=1):
        """See there."""
        rng, states = random_stream(seed, "tokens"), None
        codes = [int(code) for code in character_codes(prompt, self.alphabet) if code]
        codes = codes or [max(1, self.alphabet.find("\n"))]
        given = len(codes)
        for index in range(given + length - 1):
            logits, states = self.network(torch.tensor([[codes[index]]], device=DEVICE), states)
            uniform = float(rng.random(1, np.float32)[0])
            if index + 1 >= given:
                logits = logits[0, -1] / temperature
                logits[0] = -math.inf
                cumulated = logits.softmax(dim=0).cumsum(dim=0)
                codes.append(int(torch.searchsorted(cumulated, uniform * cumulated[-1], right=True)))
                yield self.alphabet[codes[-1]]
