"""The character model written by hand in PyTorch, for `recipes compare lstm_text --native`.

The same shapes, optimizer and batches as recipes/lstm_text.py; nothing of Keras takes part in a step.
"""

import functools
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from shared.data.randomness import random_stream
from shared.data.text import character_codes
from shared.errors import UsageError
from shared.schedules import warmup_cosine_rate

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

REPLACED = ("write_characters",)
"""What of the recipe is by hand here too, under the same name."""


class Network(nn.Module):
    """Codes of characters (batch, steps) to logits (batch, steps, characters), and the states then.

    Args:
        weights: of the Keras model.
        dropout: share of the outputs of each recurrent layer left out.
    """

    def __init__(self, weights, dropout=0.0):
        super().__init__()
        embedding, *recurrent, kernel, _ = weights
        self.embedding = nn.Embedding(*embedding.shape)
        self.recurrent = nn.ModuleList()
        for kernel_in, kernel_again in zip(recurrent[::3], recurrent[1::3], strict=True):
            units, gates = kernel_again.shape
            kind = nn.LSTM if gates == 4 * units else nn.GRU
            self.recurrent.append(kind(kernel_in.shape[0], units, batch_first=True))
        self.dropout = dropout
        self.head = nn.Linear(*kernel.shape)
        self.set_weights(weights)

    def forward(self, codes, states=None):
        x, after = self.embedding(codes), []
        for layer, state in zip(self.recurrent, states or [None] * len(self.recurrent), strict=True):
            x, state = layer(x, state)
            after.append(state)
            x = functional.dropout(x, self.dropout, self.training)
        return self.head(x), after

    def set_weights(self, weights):
        """Takes the weights of the Keras model."""
        embedding, *recurrent, kernel, bias = (torch.tensor(value) for value in weights)
        with torch.no_grad():
            self.embedding.weight.copy_(embedding)
            self.head.weight.copy_(kernel.T)
            self.head.bias.copy_(bias)
            for index, layer in enumerate(self.recurrent):
                kernel, recurrent_kernel, bias = (
                    reordered(layer, value) for value in recurrent[3 * index : 3 * index + 3]
                )
                layer.weight_ih_l0.copy_(kernel.T)
                layer.weight_hh_l0.copy_(recurrent_kernel.T)
                layer.bias_ih_l0.copy_(bias if bias.ndim == 1 else bias[0])
                layer.bias_hh_l0.copy_(torch.zeros_like(bias) if bias.ndim == 1 else bias[1])
                layer.bias_hh_l0.requires_grad = bias.ndim == 2  # of an LSTM, Keras has only one

    def weights(self):
        """The weights in the order and the shapes of the Keras model."""
        values = [self.embedding.weight]
        for layer in self.recurrent:
            biases = [layer.bias_ih_l0, layer.bias_hh_l0]
            bias = torch.stack(biases) if isinstance(layer, nn.GRU) else biases[0]
            values += [reordered(layer, value) for value in (layer.weight_ih_l0.T, layer.weight_hh_l0.T, bias)]
        values += [self.head.weight.T, self.head.bias]
        return [value.detach().cpu().numpy() for value in values]


def reordered(layer, weight):
    """A weight with the gates in the other order: of a GRU, Keras has update before reset, PyTorch reset first."""
    if isinstance(layer, nn.LSTM):
        return weight
    first, second, candidate = weight.chunk(3, dim=-1)
    return torch.cat([second, first, candidate], dim=-1)


class Trainer:
    """Trains the network, from the weights of a Keras model.

    Args:
        config: options of the recipe.
        model: the recipe's model.
        steps: of the whole training.
    """

    def __init__(self, config, model, steps):
        if config.precision != "float32":
            raise UsageError("the benchmark by hand trains in float32: leave out --precision")
        if config.temperature == 0 or config.top_k or config.top_p < 1:
            raise UsageError("the benchmark by hand draws among all characters: leave --temperature, --top-k, --top-p")
        self.config = config
        self.rate = functools.partial(warmup_cosine_rate, peak=config.learning_rate, steps=steps, warmup=config.warmup)
        self.step = 0
        dropout = next(layer.rate for layer in model.layers if hasattr(layer, "rate"))  # a comparison may have it 0
        self.network = Network(model.get_weights(), dropout).to(DEVICE).train()
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters]

    def train_on_batch(self, codes, targets):
        """One step of AdamW with the gradients clipped together; returns the loss.

        Not torch.optim.AdamW, which adds its epsilon in another place.
        """
        codes, targets = (torch.from_numpy(each.copy()).long().to(DEVICE) for each in (codes, targets))
        logits, _ = self.network(codes)
        loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        gradients = torch.autograd.grad(loss, self.parameters)
        rate = self.rate(self.step)
        self.step += 1
        size = rate * math.sqrt(1 - 0.999**self.step) / (1 - 0.9**self.step)
        with torch.no_grad():
            length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
            scale = self.config.clip / length.clamp(min=self.config.clip)
            for parameter, gradient, (mean, square) in zip(self.parameters, gradients, self.moments, strict=True):
                gradient = gradient * scale
                if parameter.ndim > 1:
                    parameter.mul_(1 - rate * self.config.weight_decay)
                mean.lerp_(gradient, 0.1)
                square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                parameter.addcdiv_(mean, square.sqrt().add_(1e-7), value=-size)
        return loss.detach()

    def weights(self):
        """The weights in the order and the shapes of the Keras model."""
        return self.network.weights()


@torch.inference_mode()
def write_characters(model, alphabet, prompt, length, seed, temperature, top_k, top_p):
    """What the recipe's writes, with the network by hand and the same random numbers, among all characters."""
    network = Network(model.get_weights()).to(DEVICE).eval()
    rng, states = random_stream(seed, "tokens"), None
    codes = [int(code) for code in character_codes(prompt, alphabet) if code] or [max(1, alphabet.find("\n"))]
    given = len(codes)
    for index in range(given + length - 1):
        logits, states = network(torch.tensor([[codes[index]]], device=DEVICE), states)
        uniform = float(rng.random(1, np.float32)[0])
        if index + 1 >= given:
            logits = logits[0, -1] / temperature
            logits[0] = -math.inf
            cumulated = logits.softmax(dim=0).cumsum(dim=0)
            codes.append(int(torch.searchsorted(cumulated, uniform * cumulated[-1], right=True)))
            yield alphabet[codes[-1]]
