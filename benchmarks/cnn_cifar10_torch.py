"""The image classifier written by hand in PyTorch, for `recipes compare cnn_cifar10 --native`.

The same shapes, optimizer and batches as recipes/cnn_cifar10.py; nothing of Keras takes part in a step.
"""

import functools

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from shared.errors import UsageError
from shared.schedules import warmup_cosine_rate


class Block(nn.Module):
    """Convolution, optional pooling, batch normalization, ReLU."""

    def __init__(self, inputs, outputs, pool=False):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.pool = pool
        self.normalization = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.1)

    def forward(self, x):
        x = self.convolution(x)
        if self.pool:
            x = functional.max_pool2d(x, 2)
        return functional.relu(self.normalization(x))


class Network(nn.Module):
    """Pixels (batch, height, width, channels) in uint8 to logits (batch, classes)."""

    def __init__(self, config, mean, deviation, classes):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).reshape(1, -1, 1, 1))
        self.stem = Block(len(mean), config.stem)
        self.stages = nn.ModuleList()
        width = config.stem
        for outputs in config.widths:
            residual = nn.Sequential(*[Block(outputs, outputs) for _ in range(config.depth)])
            self.stages.append(nn.ModuleList([Block(width, outputs, pool=True), residual]))
            width = outputs
        self.head = nn.Linear(width, classes, bias=False)

    def forward(self, images):
        x = (images.permute(0, 3, 1, 2).float() - self.mean) / self.deviation
        x = self.stem(x)
        for entrance, residual in self.stages:
            x = entrance(x)
            x = x + residual(x)
        return self.head(x.amax(dim=(2, 3))) / 8


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
        self.config = config
        self.rate = functools.partial(warmup_cosine_rate, peak=config.learning_rate, steps=steps, warmup=config.warmup)
        self.step = 0
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        pixels = model.get_layer(index=1)
        mean, variance = (np.asarray(x.cpu() if torch.is_tensor(x) else x) for x in (pixels.mean, pixels.variance))
        self.network = Network(config, mean.ravel(), np.sqrt(variance.ravel()), model.output_shape[-1])
        for module, values in zip(self.modules(), grouped(model.get_weights()), strict=True):
            with torch.no_grad():
                for name, value in values.items():
                    getattr(module, name).copy_(torch.tensor(value))
        self.network.to(self.device).train()
        self.parameters = list(self.network.parameters())
        self.momenta = [torch.zeros_like(p) for p in self.parameters]

    def modules(self):
        """The modules with weights, in the order of the Keras model."""
        return [m for m in self.network.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.Linear)]

    def train_on_batch(self, images, labels):
        """One step of SGD with Nesterov momentum and decoupled decay of the kernels; returns the loss.

        Not torch.optim.SGD, whose momentum leaves the learning rate out and so goes another way where that changes.
        """
        images = torch.from_numpy(images).to(self.device)
        labels = torch.from_numpy(labels).to(self.device)
        loss = functional.cross_entropy(self.network(images), labels, label_smoothing=self.config.label_smoothing)
        gradients = torch.autograd.grad(loss, self.parameters)
        rate = self.rate(self.step)
        with torch.no_grad():
            for parameter, gradient, momentum in zip(self.parameters, gradients, self.momenta, strict=True):
                if parameter.ndim > 1:
                    parameter.mul_(1 - rate * self.config.weight_decay)
                momentum.mul_(0.9).add_(gradient, alpha=-rate)
                parameter.add_(momentum, alpha=0.9).add_(gradient, alpha=-rate)
        self.step += 1
        return loss.detach()

    def weights(self):
        """The weights in the order and the shapes of the Keras model."""
        values = []
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                values += [module.weight, module.bias, module.running_mean, module.running_var]
            else:
                values.append(module.weight.permute(2, 3, 1, 0) if module.weight.ndim == 4 else module.weight.T)
        return [value.detach().cpu().numpy() for value in values]


def grouped(weights):
    """The weights of the Keras model, module by module, in PyTorch's names and shapes."""
    weights = iter(weights)
    for value in weights:
        if value.ndim == 4:
            yield {"weight": value.transpose(3, 2, 0, 1)}
        elif value.ndim == 2:
            yield {"weight": value.T}
        else:
            names = ("weight", "bias", "running_mean", "running_var")
            yield dict(zip(names, (value, next(weights), next(weights), next(weights)), strict=True))
