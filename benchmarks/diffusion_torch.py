"""The diffusion model's training step written by hand in PyTorch, for `recipes compare diffusion --native`.

The same U-Net, optimizer and batches as recipes/diffusion.py; nothing of Keras takes part in a step.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from shared.errors import UsageError

GROUPS = 8


class TimeEmbedding(nn.Module):
    """Times (batch,) to (batch, features)."""

    def __init__(self, features):
        super().__init__()
        half = features // 2
        self.register_buffer("frequencies", 1000 ** (torch.arange(half) / (half - 1)), persistent=False)
        self.hidden = nn.Linear(features, features)
        self.last = nn.Linear(features, features)

    def forward(self, time):
        angles = time[:, None] * self.frequencies
        return self.last(functional.silu(self.hidden(torch.cat([angles.sin(), angles.cos()], dim=1))))


class Block(nn.Module):
    """Two convolutions with a shortcut; the condition scales and shifts what is between them."""

    def __init__(self, inputs, filters, features):
        super().__init__()
        self.first_norm = nn.GroupNorm(GROUPS, inputs)
        self.first = nn.Conv2d(inputs, filters, 3, padding=1, bias=False)
        self.modulation = nn.Linear(features, 2 * filters)
        self.second_norm = nn.GroupNorm(GROUPS, filters, affine=False)
        self.second = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.shortcut = nn.Identity() if inputs == filters else nn.Conv2d(inputs, filters, 1, bias=False)

    def forward(self, inputs, condition):
        scale, shift = self.modulation(functional.silu(condition))[:, :, None, None].chunk(2, dim=1)
        x = self.first(functional.silu(self.first_norm(inputs)))
        x = self.second(functional.silu(torch.addcmul(shift, self.second_norm(x), 1 + scale)))
        return x + self.shortcut(inputs)


class Attention(nn.Module):
    """Self-attention over the places of an image, added to it."""

    def __init__(self, channels):
        super().__init__()
        self.heads = max(n for n in range(1, max(1, channels // 64) + 1) if channels % n == 0)
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.attention = nn.ModuleDict({
            "query": nn.Linear(channels, channels),
            "key_value": nn.Linear(channels, 2 * channels),
            "output": nn.Linear(channels, channels),
        })  # fmt: skip

    def forward(self, inputs):
        places = self.norm(inputs).flatten(2).transpose(1, 2)

        def heads(x):
            return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

        keys, values = self.attention["key_value"](places).chunk(2, dim=2)
        queries = self.attention["query"](places)
        found = functional.scaled_dot_product_attention(heads(queries), heads(keys), heads(values))
        found = self.attention["output"](found.transpose(1, 2).flatten(2))
        return inputs + found.transpose(1, 2).unflatten(2, inputs.shape[2:])


class Network(nn.Module):
    """Noisy images (batch, height, width, channels), times and labels to predictions; parts named as in Keras."""

    def __init__(self, config, channels, labels):
        super().__init__()
        self.config = config
        widths, features = config.widths, 4 * config.widths[0]
        pixels = channels * config.patch**2
        attending = len(widths) - config.attention
        parts = {"time_embedding": TimeEmbedding(features), "label_embedding": nn.Embedding(labels, features)}

        def add_block(name, inputs, level):
            parts[name] = Block(inputs, widths[level], features)
            if level >= attending:
                parts[f"{name}_attention"] = Attention(widths[level])

        parts["stem"] = nn.Conv2d(pixels, widths[0], 3, padding=1, bias=False)
        for level, width in enumerate(widths):
            if level:
                parts[f"down_{level}"] = nn.Conv2d(widths[level - 1], width, 3, stride=2, bias=False)
            for index in range(config.depth):
                add_block(f"down_{level}_{index}", width, level)
        add_block("middle", widths[-1], len(widths) - 1)
        below = widths[-1]
        for level in reversed(range(len(widths))):
            for index in range(config.depth):
                add_block(f"up_{level}_{index}", below + widths[level], level)
                below = widths[level]
        parts["last_norm"] = nn.GroupNorm(GROUPS, below)
        parts["last"] = nn.Conv2d(below, pixels, 3, padding=1)
        self.parts = nn.ModuleDict(parts)

    def blocks(self, name, x, condition):
        x = self.parts[name](x, condition)
        return self.parts[f"{name}_attention"](x) if f"{name}_attention" in self.parts else x

    def forward(self, image, time, label):
        depth, patch = self.config.depth, self.config.patch
        condition = self.parts["time_embedding"](time) + self.parts["label_embedding"](label)
        batch, height, width, channels = image.shape
        x = image.reshape(batch, height // patch, patch, width // patch, patch, channels)
        x = x.permute(0, 1, 3, 2, 4, 5).flatten(3).permute(0, 3, 1, 2)
        x = self.parts["stem"](x)
        skips = []
        for level in range(len(self.config.widths)):
            if level:
                x = self.parts[f"down_{level}"](functional.pad(x, same_padding(x)))
            for index in range(depth):
                x = self.blocks(f"down_{level}_{index}", x, condition)
                skips.append(x)
        x = self.blocks("middle", x, condition)
        for level in reversed(range(len(self.config.widths))):
            rows, columns = skips[-1].shape[2:]
            if x.shape[2:] != (rows, columns):
                x = functional.interpolate(x, scale_factor=2)[:, :, :rows, :columns]
            for index in range(depth):
                x = self.blocks(f"up_{level}_{index}", torch.cat([x, skips.pop()], dim=1), condition)
        x = self.parts["last"](functional.silu(self.parts["last_norm"](x)))
        x = x.permute(0, 2, 3, 1).unflatten(3, (patch, patch, channels))
        return x.permute(0, 1, 3, 2, 4, 5).reshape(image.shape)


def same_padding(x):
    """What Keras's same padding adds for a 3×3 kernel and a stride of 2: behind an even length, around an odd one."""
    height, width = x.shape[2:]
    return (width % 2, 1, height % 2, 1)


class Trainer:
    """Trains the network, from the weights of a Keras model.

    Args:
        config: options of the recipe.
        model: the recipe's model.
        steps: of the whole training.
    """

    def __init__(self, config, model, steps):
        if config.precision != "float32" or config.dropout:
            raise UsageError("the benchmark by hand trains in float32 without --dropout: leave those options")
        self.config = config
        self.rising = max(1, round(steps * config.warmup))
        self.falling = max(1, steps - self.rising)
        self.step = 0
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        labels = model.get_layer("label_embedding").input_dim
        self.network = Network(config, model.output_shape[-1], labels)
        self.names = [torch_name(weight.path) for weight in model.weights]
        with torch.no_grad():
            for name, value in zip(self.names, model.get_weights(), strict=True):
                self.network.get_parameter(name).copy_(torch.tensor(to_torch(value, name)))
        self.network.to(self.device, memory_format=torch.channels_last).train()
        self.averages = (
            AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None
        )
        self.optimizer = torch.optim.Adam(self.network.parameters(), fused=True)

    def learning_rate(self):
        """Warm-up, then half a cosine."""
        if self.step < self.rising:
            return self.config.learning_rate * self.step / self.rising
        done = min(1.0, (self.step - self.rising) / self.falling)
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def train_on_batch(self, inputs, targets):
        """One step; returns the loss."""
        image, time, label = (torch.from_numpy(inputs[name]).to(self.device) for name in ("image", "time", "label"))
        targets = torch.from_numpy(targets).to(self.device)
        loss = functional.mse_loss(self.network(image, time, label), targets)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
            group["eps"] = 1e-7 / math.sqrt(1 - 0.999 ** (self.step + 1))  # Keras adds it before correcting the bias
        self.optimizer.step()
        if self.averages:
            self.averages.update_parameters(self.network)
        self.step += 1
        return loss.detach()

    def weights(self):
        """The weights that are measured, averaged where that was asked for, as those of the Keras model."""
        network = self.averages.module if self.averages else self.network
        return [to_keras(network.get_parameter(name).detach().cpu().numpy(), name) for name in self.names]


def torch_name(path):
    """The name of a parameter here, from the path of the Keras model's weight."""
    layer, _, name = path.rpartition("/")
    names = {"kernel": "weight", "gamma": "weight", "beta": "bias", "embeddings": "weight"}
    return f"parts.{layer.replace('/', '.')}.{names.get(name, name)}"


def to_torch(value, name):
    """A weight of Keras in the shape that PyTorch gives it."""
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    return np.ascontiguousarray(value.T) if value.ndim == 2 and "label_embedding" not in name else value


def to_keras(value, name):
    """A weight of PyTorch in the shape that Keras gives it."""
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    return value.T if value.ndim == 2 and "label_embedding" not in name else value
