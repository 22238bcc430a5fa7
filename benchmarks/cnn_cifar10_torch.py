"""Native PyTorch baseline of recipes/cnn_cifar10.py, for `recipes compare --native`.

The same shapes, optimizer and batches; nothing of Keras takes part in a step.
"""

import functools

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.native import require_options
from benchmarks.native_torch import NativeTrainer, NesterovSGD, load_weights
from shared.training.schedules import warmup_cosine_rate


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
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).reshape(1, -1, 1, 1), persistent=False)
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


class Trainer(NativeTrainer):
    """Trains the network, from the weights of a Keras model.

    Args:
        config: options of the recipe.
        model: the recipe's model.
        steps: of the whole training.
    """

    def __init__(self, config, model, steps):
        require_options(config, optimizer="sgd", ema=0, precision="float32")
        pixels = model.get_layer(index=1)
        mean, variance = (np.asarray(x.cpu() if torch.is_tensor(x) else x) for x in (pixels.mean, pixels.variance))
        network = Network(config, mean.ravel(), np.sqrt(variance.ravel()), model.output_shape[-1])
        load_weights(network, model)
        rate = functools.partial(warmup_cosine_rate, peak=config.learning_rate, steps=steps, warmup=config.warmup)
        super().__init__(network, NesterovSGD(network.parameters(), rate, weight_decay=config.weight_decay))
        self.smoothing = config.label_smoothing

    def loss(self, images, labels):
        return functional.cross_entropy(self.network(images), labels, label_smoothing=self.smoothing)
