"""Fine-tuning written by hand in PyTorch, for `recipes compare transfer_learning --native`.

The same shapes, frozen layers, optimizer and batches as recipes/transfer_learning.py; nothing of Keras takes part in a
step.
"""

import functools
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from shared.backbones.efficientnet_lite import LITE0_STAGES
from shared.errors import UsageError
from shared.schedules import warmup_cosine_rate

NAMES = {
    "kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean",
    "moving_variance": "running_var",
}  # fmt: skip


class Convolution(nn.Conv2d):
    """Without bias, padded as Keras's "same" is: with a stride, more behind than before."""

    def __init__(self, inputs, outputs, size=1, stride=1, groups=1):
        super().__init__(inputs, outputs, size, stride, groups=groups, bias=False)

    def forward(self, x):
        size, stride = self.kernel_size[0], self.stride[0]
        missing = [max((-(-length // stride) - 1) * stride + size - length, 0) for length in (x.shape[3], x.shape[2])]
        if any(missing):
            x = functional.pad(x, [part for m in missing for part in (m // 2, m - m // 2)])
        return super().forward(x)


class Network(nn.Module):
    """Pixels (batch, height, width, channels) in uint8 to logits (batch, classes), through EfficientNet-Lite0.

    The layers are called as in the Keras model.
    """

    def __init__(self, image_size, dropout, classes):
        super().__init__()
        self.image_size = image_size
        self.stages = []
        self.parts = nn.ModuleDict()
        self.add("stem", Convolution(3, 32, 3, 2))
        channels = 32
        for repeats, size, stride, expansion, outputs in LITE0_STAGES:
            for repeat in range(repeats):
                name, width = f"block_{len(self.stages):02}", channels * expansion
                if expansion != 1:
                    self.add(f"{name}_expand", Convolution(channels, width))
                self.add(f"{name}_filter", Convolution(width, width, size, 1 if repeat else stride, groups=width))
                self.add(f"{name}_project", Convolution(width, outputs))
                self.stages.append((name, repeat > 0))
                channels = outputs
        self.add("head", Convolution(channels, 1280))
        self.dropout = nn.Dropout(dropout)
        self.parts["logits"] = nn.Linear(1280, classes)

    def add(self, name, convolution):
        self.parts[name] = convolution
        self.parts[f"{name}_normalization"] = nn.BatchNorm2d(convolution.out_channels, eps=1e-3)

    def normalized(self, name, x):
        return self.parts[f"{name}_normalization"](self.parts[name](x))

    def forward(self, images):
        x = images.permute(0, 3, 1, 2).float()
        x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
        x = functional.interpolate(x, size=(self.image_size, self.image_size), mode="bilinear")
        x = functional.relu6(self.normalized("stem", (x - 127) / 128))
        for name, residual in self.stages:
            inputs = x
            if f"{name}_expand" in self.parts:
                x = functional.relu6(self.normalized(f"{name}_expand", x))
            x = functional.relu6(self.normalized(f"{name}_filter", x))
            x = self.normalized(f"{name}_project", x)
            x = x + inputs if residual else x
        x = functional.relu6(self.normalized("head", x))
        return self.parts["logits"](self.dropout(x.mean(dim=(2, 3))))


class Trainer:
    """Fine-tunes the network, from the weights of a Keras model.

    Args:
        config: options of the recipe.
        model: the recipe's model.
        steps: of the whole training.
    """

    def __init__(self, config, model, steps):
        if config.backbone != "efficientnet_lite0" or config.precision != "float32":
            raise UsageError("the benchmark by hand fine-tunes efficientnet_lite0 in float32: leave those options")
        self.rate = functools.partial(warmup_cosine_rate, peak=config.learning_rate, steps=steps, warmup=0.1)
        self.step = 0
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        dropout = next(layer.rate for layer in model.get_layer("classifier").layers if hasattr(layer, "rate"))
        self.network = Network(config.image_size, dropout, model.output_shape[-1])
        self.places = [self.place(weight.path) for weight in model.weights]
        learned = {weight.path for weight in model.trainable_weights}
        with torch.no_grad():
            for (module, name), weight, value in zip(self.places, model.weights, model.get_weights(), strict=True):
                getattr(module, name).copy_(torch.tensor(to_torch(value, module)))
                getattr(module, name).requires_grad_(weight.path in learned)
        self.network.to(self.device).train()
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, weight_decay=1e-4)

    def place(self, path):
        """The module that holds a weight of the Keras model, and its name there."""
        *block, part, name = path.removeprefix("classifier/").split("/")
        return self.network.parts["_".join([*block, part])], NAMES[name]

    def train_on_batch(self, images, labels):
        """One step; returns the loss."""
        images = torch.from_numpy(images).to(self.device)
        labels = torch.from_numpy(labels).to(self.device)
        loss = functional.cross_entropy(self.network(images), labels, label_smoothing=0.1)
        self.optimizer.zero_grad()
        loss.backward()
        group = self.optimizer.param_groups[0]
        group["lr"] = self.rate(self.step)
        group["eps"] = 1e-7 / math.sqrt(1 - 0.999 ** (self.step + 1))  # Keras adds it before correcting the bias
        self.optimizer.step()
        self.step += 1
        return loss.detach()

    def weights(self):
        """The weights in the order and the shapes of the Keras model."""
        return [to_keras(getattr(module, name).detach().cpu().numpy(), module) for module, name in self.places]


def to_torch(value, module):
    """A weight of Keras in the shape that PyTorch gives it."""
    if value.ndim == 4:
        return value.transpose((2, 3, 0, 1) if module.groups > 1 else (3, 2, 0, 1))
    return np.ascontiguousarray(value.T)


def to_keras(value, module):
    """A weight of PyTorch in the shape that Keras gives it."""
    if value.ndim == 4:
        return value.transpose((2, 3, 0, 1) if module.groups > 1 else (2, 3, 1, 0))
    return value.T
