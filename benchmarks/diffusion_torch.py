"""Native PyTorch baseline of recipes/diffusion.py, for `recipes compare --native`.

The same U-Net, optimizer and batches; nothing of Keras takes part in a step.
"""

import functools

import torch
from torch import nn
from torch.nn import functional

from benchmarks.native import require_options
from benchmarks.native_diffusion import NativeSampler, unet_options
from benchmarks.native_torch import DEVICE, Adam, NativeTrainer, load_weights
from shared.generative.diffusion.schedule import Rates, predicted_image
from shared.training.schedules import warmup_cosine_rate

REPLACED = ("ImageSampler",)
"""What of the recipe is native here too, under the same name."""

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

    def __init__(self, model):
        super().__init__()
        self.config = config = unet_options(model)
        channels, labels = model.output_shape[-1], model.get_layer("label_embedding").input_dim
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


class Trainer(NativeTrainer):
    """Trains the network, from the weights of a Keras model.

    Args:
        config: options of the recipe.
        model: the recipe's model.
        steps: of the whole training.
    """

    def __init__(self, config, model, steps):
        require_options(config, precision="float32", dropout=0)
        network = load_weights(Network(model).to(memory_format=torch.channels_last), model)
        rate = functools.partial(warmup_cosine_rate, peak=config.learning_rate, steps=steps, warmup=config.warmup)
        super().__init__(network, Adam(network.parameters(), rate), clip=1.0, ema=config.ema)

    def loss(self, inputs, targets):
        return functional.mse_loss(self.network(**inputs), targets)


class ImageSampler(NativeSampler):
    """The recipe's, but the network and the loop are native."""

    def load(self):
        network = Network(self.model).to(memory_format=torch.channels_last)
        self.network = load_weights(network, self.model).eval()

    @torch.inference_mode()
    def advance(self, row, noisy, before, labels, fresh):
        time, signal, noise, guided, noisy_weight, image_weight, before_weight, fresh_weight = row.tolist()
        noisy, before, labels = (torch.as_tensor(each, device=DEVICE) for each in (noisy, before, labels))
        times = noisy.new_full(labels.shape, time)
        if self.guidance in (0, 1):
            output = self.network(noisy, times, labels)
        else:
            both = torch.cat([labels, torch.full_like(labels, self.no_label)])
            with_label, without = self.network(torch.cat([noisy, noisy]), torch.cat([times, times]), both).chunk(2)
            output = without + (1 + guided * (self.guidance - 1)) * (with_label - without)
        image = predicted_image(self.prediction, noisy, output, Rates(signal, noise)).clip(-1, 1)
        after = noisy_weight * noisy + image_weight * image + before_weight * before
        if fresh is not None:
            after += fresh_weight * torch.as_tensor(fresh, device=DEVICE)
        return after, image
