"""The GAN's training step written by hand in PyTorch, for `recipes compare gan_fashion --native`.

The same networks, optimizers and batches as recipes/gan_fashion.py; nothing of Keras takes part in a step.
"""

import copy
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from shared.errors import UsageError
from shared.schedules import warmup_cosine_rate


class Generator(nn.Module):
    """Noise and labels to images (batch, height, width, channels); parts named as in Keras."""

    def __init__(self, config, shape, classes):
        super().__init__()
        height, width, channels = shape
        levels = len(config.widths)
        self.start = (height >> levels, width >> levels, config.widths[-1])
        parts = {"first": nn.Linear(config.latent, math.prod(self.start), bias=False)}
        for level in reversed(range(levels)):
            filters = config.widths[level - 1] if level else channels
            parts[f"norm_{level}"] = nn.BatchNorm2d(config.widths[level], eps=1e-3, momentum=0.1)
            parts[f"modulation_{level}"] = nn.Embedding(classes, 2 * config.widths[level])
            parts[f"up_{level}"] = nn.Conv2d(config.widths[level], 4 * filters, 3, padding=1, bias=level == 0)
        self.parts = nn.ModuleDict(parts)
        self.levels = levels

    def forward(self, noise, label):
        x = self.parts["first"](noise).unflatten(1, self.start)
        for level in reversed(range(self.levels)):
            x = self.parts[f"norm_{level}"](x.permute(0, 3, 1, 2))
            scale, shift = self.parts[f"modulation_{level}"](label)[:, :, None, None].chunk(2, dim=1)
            x = functional.relu(torch.addcmul(shift, x, 1 + scale))
            x = self.parts[f"up_{level}"](x).permute(0, 2, 3, 1)
            batch, rows, columns, channels = x.shape
            x = x.reshape(batch, rows, columns, 2, 2, channels // 4).permute(0, 1, 3, 2, 4, 5)
            x = x.reshape(batch, 2 * rows, 2 * columns, channels // 4)
        return x.tanh()


class Kernel(nn.Module):
    """A weight and a bias; the weight divided by its largest singular value where that is asked for."""

    def __init__(self, shape, limited, bias=True, embeds=False):
        super().__init__()
        self.embeds = embeds
        self.weight = nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
        self.register_buffer("direction", torch.zeros(shape[1 if embeds else 0]) if limited else None)

    def forward(self, learning):
        if self.direction is None:
            return self.weight
        matrix = self.weight.T if self.embeds else self.weight.flatten(1)
        with torch.no_grad():
            right = functional.normalize(self.direction, dim=0)
            left = functional.normalize(right @ matrix, dim=0)
            if learning:
                right = functional.normalize(matrix @ left, dim=0)
                self.direction.copy_(right)
        return self.weight / (right @ (matrix @ left))


class Critic(nn.Module):
    """Images (batch, height, width, channels) and labels to scores (batch,)."""

    def __init__(self, config, shape, classes):
        super().__init__()
        height, width, channels = shape
        kernels = {}
        for level, filters in enumerate(config.critic_widths):
            kernels[f"down_{level}"] = Kernel((filters, channels, 4, 4), config.spectral_norm)
            height, width, channels = -(-height // 2), -(-width // 2), filters
        features = height * width * channels
        kernels["score"] = Kernel((1, features), config.spectral_norm, bias=config.loss != "wgan_gp")
        kernels["label_embedding"] = Kernel((classes, features), config.spectral_norm, bias=False, embeds=True)
        self.kernels = nn.ModuleDict(kernels)
        self.levels = len(config.critic_widths)

    def forward(self, image, label, learning=False):
        x = image.permute(0, 3, 1, 2)
        for level in range(self.levels):
            kernel = self.kernels[f"down_{level}"]
            rows, columns = (length % 2 for length in x.shape[2:])  # one more behind an odd length, as Keras does
            x = functional.pad(x, (0, columns, 0, rows)) if rows or columns else x
            x = functional.leaky_relu(functional.conv2d(x, kernel(learning), kernel.bias, stride=2, padding=1), 0.2)
        x = x.permute(0, 2, 3, 1).flatten(1)
        kernel = self.kernels["score"]
        of_label = functional.embedding(label, self.kernels["label_embedding"](learning))
        return functional.linear(x, kernel(learning), kernel.bias)[:, 0] + (x * of_label).sum(dim=1)


class Trainer:
    """Trains both networks, from the weights of the Keras models.

    Args:
        config: options of the recipe.
        state: what the recipe trains, by name.
        steps: of the whole training.
    """

    def __init__(self, config, state, steps):
        if config.precision != "float32":
            raise UsageError("the benchmark by hand trains in float32: leave --precision")
        self.config = config
        self.steps = {"generator": steps, "critic": steps * config.critic_steps}
        self.done = {"generator": 0, "critic": 0}
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.models = [state[name] for name in ("generator", "critic", "average")]
        shape, classes = self.models[0].output_shape[1:], self.models[0].get_layer("modulation_0").classes
        self.generator, self.critic = Generator(config, shape, classes), Critic(config, shape, classes)
        self.average = copy.deepcopy(self.generator)
        self.networks = [self.generator, self.critic, self.average]
        for model, network in zip(self.models, self.networks, strict=True):
            tensors = network.state_dict()
            for variable, value in zip(model.weights, model.get_weights(), strict=True):
                name = torch_name(variable.path, tensors)
                tensors[name].copy_(torch.tensor(to_torch(value, name)))
            network.to(self.device, memory_format=torch.channels_last).train()
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), betas=(0.5, 0.99), fused=True)
            for name, network in (("generator", self.generator), ("critic", self.critic))
        }
        own, others = self.generator.state_dict(), self.average.state_dict()
        moving = [name for name, tensor in own.items() if tensor.is_floating_point()]
        self.followed, self.following = ([tensors[name] for name in moving] for tensors in (own, others))

    def minimize(self, name, loss):
        """One step of an optimizer."""
        optimizer, done = self.optimizers[name], self.done[name]
        optimizer.zero_grad()
        loss.backward(inputs=[parameter for group in optimizer.param_groups for parameter in group["params"]])
        peak = self.config.learning_rate if name == "generator" else self.config.critic_learning_rate
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine_rate(done, peak, self.steps[name], warmup=0.02)
            group["eps"] = 1e-7 / math.sqrt(1 - 0.99 ** (done + 1))  # Keras adds it before correcting the bias
        optimizer.step()
        self.done[name] += 1
        return loss.detach()

    def critic_loss(self, real, labels, noise, shares):
        """The loss of the critic, penalties included."""
        with torch.no_grad():
            fake = self.generator(noise, labels)
        scores = self.critic(torch.cat([real, fake]), torch.cat([labels, labels]), learning=True)
        of_real, of_fake = scores.chunk(2)
        match self.config.loss:
            case "nonsaturating":
                loss = functional.softplus(-of_real).mean() + functional.softplus(of_fake).mean()
            case "hinge":
                loss = functional.relu(1 - of_real).mean() + functional.relu(1 + of_fake).mean()
            case "wgan_gp":
                loss = of_fake.mean() - of_real.mean()
        if shares is None:
            return loss
        penalty = 0.0
        if self.config.r1:
            penalty = self.config.r1 * self.squared_slopes(real, labels).mean() / 2
        if self.config.loss == "wgan_gp":
            shares = shares[:, None, None, None]
            slopes = self.squared_slopes(shares * real + (1 - shares) * fake, labels)
            penalty = penalty + 10 * ((slopes + 1e-12).sqrt() - 1).square().mean()
        return loss + self.config.penalty_every * penalty

    def squared_slopes(self, images, labels):
        images = images.detach().requires_grad_()
        (slopes,) = torch.autograd.grad(self.critic(images, labels).sum(), images, create_graph=True)
        return slopes.square().sum(dim=(1, 2, 3))

    def train_on_batch(self, images, labels, noise, shares):
        """One step; returns the sum of both losses, that of the critic the mean over its steps."""
        images, labels, noise, shares = (
            None if each is None else torch.from_numpy(each).to(self.device) for each in (images, labels, noise, shares)
        )
        losses = []
        for part in range(self.config.critic_steps):
            some = None if shares is None else shares[part]
            losses.append(self.minimize("critic", self.critic_loss(images[part], labels[part], noise[part], some)))
        score = self.critic(self.generator(noise[-1], labels[-1]), labels[-1])
        loss = functional.softplus(-score).mean() if self.config.loss == "nonsaturating" else -score.mean()
        loss = self.minimize("generator", loss)
        torch._foreach_lerp_(self.following, self.followed, 1 - self.config.ema)
        return torch.stack(losses).mean() + loss

    def weights(self):
        """The weights of all networks, as those of the Keras models, one after the other."""
        found = []
        for model, network in zip(self.models, self.networks, strict=True):
            tensors = network.state_dict()
            names = [torch_name(variable.path, tensors) for variable in model.weights]
            found += [to_keras(tensors[name].detach().cpu().numpy(), name) for name in names]
        return found


def torch_name(path, tensors):
    """Which of the tensors of a network it is, from the path of the Keras model's weight."""
    *_, layer, name = path.split("/")
    names = {"kernel": "weight", "gamma": "weight", "beta": "bias", "embeddings": "weight",
             "moving_mean": "running_mean", "moving_variance": "running_var"}  # fmt: skip
    end = f".{layer.removeprefix('limited_')}.{names.get(name, name)}"
    return next(each for each in tensors if each.endswith(end))


def to_torch(value, name):
    """A weight of Keras in the shape that PyTorch gives it."""
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    return np.ascontiguousarray(value.T) if value.ndim == 2 and not is_table(name) else value


def to_keras(value, name):
    """A weight of PyTorch in the shape that Keras gives it."""
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    return value.T if value.ndim == 2 and not is_table(name) else value


def is_table(name):
    """Whether a weight holds a row a class, which both keep alike."""
    return "label_embedding" in name or "modulation" in name
