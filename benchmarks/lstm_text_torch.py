"""The character model written by hand in PyTorch, for `recipes compare lstm_text --native`.

The same shapes, optimizer and batches as recipes/lstm_text.py; nothing of Keras takes part in a step.
"""

import functools
import math

import torch
from torch import nn
from torch.nn import functional

from shared.errors import UsageError
from shared.schedules import warmup_cosine_rate


class Network(nn.Module):
    """Codes of characters (batch, steps) to logits (batch, steps, characters)."""

    def __init__(self, config, characters, dropout):
        super().__init__()
        recurrent = {"lstm": nn.LSTM, "gru": nn.GRU}[config.cell]
        sizes = [config.embedding] + [config.units] * config.depth
        self.embedding = nn.Embedding(characters, config.embedding)
        self.recurrent = nn.ModuleList(recurrent(size, config.units, batch_first=True) for size in sizes[:-1])
        self.dropout = dropout
        self.head = nn.Linear(config.units, characters)

    def forward(self, codes):
        x = self.embedding(codes)
        for layer in self.recurrent:
            x, _ = layer(x)
            x = functional.dropout(x, self.dropout)
        return self.head(x)


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
        self.config = config
        self.rate = functools.partial(warmup_cosine_rate, peak=config.learning_rate, steps=steps, warmup=config.warmup)
        self.step = 0
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        rates = [layer.rate for layer in model.layers if hasattr(layer, "rate")]  # a comparison may have set them to 0
        self.network = Network(config, model.output_shape[-1], rates[0])
        self.set_weights(model.get_weights())
        self.network.to(self.device).train()
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters]

    def train_on_batch(self, codes, targets):
        """One step of AdamW with the gradients clipped together; returns the loss.

        Not torch.optim.AdamW, which adds its epsilon in another place.
        """
        codes, targets = (torch.from_numpy(each.copy()).long().to(self.device) for each in (codes, targets))
        loss = functional.cross_entropy(self.network(codes).flatten(0, 1), targets.flatten())
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

    def set_weights(self, weights):
        """Takes the weights of the Keras model."""
        embedding, *recurrent, kernel, bias = (torch.tensor(value) for value in weights)
        with torch.no_grad():
            self.network.embedding.weight.copy_(embedding)
            self.network.head.weight.copy_(kernel.T)
            self.network.head.bias.copy_(bias)
            for index, layer in enumerate(self.network.recurrent):
                kernel, recurrent_kernel, bias = (self.swapped(value) for value in recurrent[3 * index : 3 * index + 3])
                layer.weight_ih_l0.copy_(kernel.T)
                layer.weight_hh_l0.copy_(recurrent_kernel.T)
                layer.bias_ih_l0.copy_(bias if bias.ndim == 1 else bias[0])
                layer.bias_hh_l0.copy_(torch.zeros_like(bias) if bias.ndim == 1 else bias[1])
                layer.bias_hh_l0.requires_grad = bias.ndim == 2  # of an LSTM, Keras has only one

    def weights(self):
        """The weights in the order and the shapes of the Keras model."""
        values = [self.network.embedding.weight]
        for layer in self.network.recurrent:
            biases = [layer.bias_ih_l0, layer.bias_hh_l0]
            bias = torch.stack(biases) if isinstance(layer, nn.GRU) else biases[0]
            values += [self.swapped(value) for value in (layer.weight_ih_l0.T, layer.weight_hh_l0.T, bias)]
        values += [self.network.head.weight.T, self.network.head.bias]
        return [value.detach().cpu().numpy() for value in values]

    def swapped(self, weight):
        """A weight with the gates in the other order: of a GRU, Keras has update before reset, PyTorch reset first."""
        if self.config.cell == "lstm":
            return weight
        first, second, candidate = weight.chunk(3, dim=-1)
        return torch.cat([second, first, candidate], dim=-1)
