"""Native PyTorch baseline of recipes/gan_fashion.py, for `recipes compare --native`.

The same networks, optimizers and batches; nothing of Keras takes part in a step.
"""

import copy
import functools
import math
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional

from benchmarks.native import require_options
from benchmarks.native_torch import Adam, keras_weights, load_weights, on_device
from shared.generative import gan_sampling
from shared.generative.modulation import ClassModulation
from shared.training.schedules import warmup_cosine_rate

REPLACED = ("NoiseSampler",)
"""What of the recipe is native here too, under the same name."""


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


class SpectralNormalized(nn.Module):
    """A layer whose weight is divided by its largest singular value, if `normalized`; else it is as it was."""

    def __init__(self, layer, normalized):
        super().__init__()
        self.embeds = isinstance(layer, nn.Embedding)
        length = layer.weight.shape[1 if self.embeds else 0]
        self.register_buffer("direction", torch.zeros(length) if normalized else None)
        self.layer = layer

    @property
    def bias(self):
        return self.layer.bias

    def weight(self, learning):
        weight = self.layer.weight
        if self.direction is None:
            return weight
        matrix = weight.T if self.embeds else weight.flatten(1)
        with torch.no_grad():
            right = functional.normalize(self.direction, dim=0)
            left = functional.normalize(right @ matrix, dim=0)
            if learning:
                right = functional.normalize(matrix @ left, dim=0)
                self.direction.copy_(right)
        return weight / (right @ (matrix @ left))


class Critic(nn.Module):
    """Images (batch, height, width, channels) and labels to scores (batch,)."""

    def __init__(self, config, shape, classes):
        super().__init__()
        height, width, channels = shape
        self.downs = nn.ModuleList()
        for filters in config.critic_widths:
            convolution = nn.Conv2d(channels, filters, 4, stride=2, padding=1)
            self.downs.append(SpectralNormalized(convolution, config.spectral_norm))
            height, width, channels = -(-height // 2), -(-width // 2), filters
        features = height * width * channels
        score = nn.Linear(features, 1, bias=config.loss != "wgan_gp")
        self.label_embedding = SpectralNormalized(nn.Embedding(classes, features), config.spectral_norm)
        self.score = SpectralNormalized(score, config.spectral_norm)

    def forward(self, image, label, learning=False):
        x = image.permute(0, 3, 1, 2)
        for down in self.downs:
            rows, columns = (length % 2 for length in x.shape[2:])  # one more behind an odd length, as Keras does
            x = functional.pad(x, (0, columns, 0, rows)) if rows or columns else x
            x = functional.leaky_relu(functional.conv2d(x, down.weight(learning), down.bias, stride=2, padding=1), 0.2)
        x = x.permute(0, 2, 3, 1).flatten(1)
        of_label = functional.embedding(label, self.label_embedding.weight(learning))
        score = functional.linear(x, self.score.weight(learning), self.score.bias)
        return score[:, 0] + (x * of_label).sum(dim=1)


class Trainer:
    """Trains both networks, from the weights of the Keras models.

    Args:
        config: options of the recipe.
        state: what the recipe trains, by name.
        steps: of the whole training.
    """

    def __init__(self, config, state, steps):
        require_options(config, precision="float32")
        self.config = config
        models = [state[name] for name in ("generator", "critic", "average")]
        shape, classes = models[0].output_shape[1:], models[0].get_layer("modulation_0").classes
        self.generator, self.critic = Generator(config, shape, classes), Critic(config, shape, classes)
        self.average = copy.deepcopy(self.generator)
        self.networks = self.generator, self.critic, self.average
        for model, network in zip(models, self.networks, strict=True):
            load_weights(network.to(memory_format=torch.channels_last), model).train()
        rate = functools.partial(warmup_cosine_rate, warmup=0.02)
        learning_rate = functools.partial(rate, peak=config.learning_rate, steps=steps)
        critic_rate = functools.partial(rate, peak=config.critic_learning_rate, steps=steps * config.critic_steps)
        self.generator_optimizer = Adam(self.generator.parameters(), learning_rate, betas=(0.5, 0.99))
        self.critic_optimizer = Adam(self.critic.parameters(), critic_rate, betas=(0.5, 0.99))
        own, others = self.generator.state_dict(), self.average.state_dict()
        moving = [name for name, tensor in own.items() if tensor.is_floating_point()]
        self.followed, self.following = ([tensors[name] for name in moving] for tensors in (own, others))

    def minimize(self, optimizer, loss):
        """One step of an optimizer."""
        optimizer.zero_grad()
        loss.backward(inputs=optimizer.param_groups[0]["params"])
        optimizer.step()
        return loss.detach()

    def critic_loss(self, real, labels, noise, epsilon):
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
        if epsilon is None:
            return loss
        penalty = 0.0
        if self.config.r1:
            penalty = self.config.r1 * self.squared_gradient_norm(real, labels).mean() / 2
        if self.config.loss == "wgan_gp":
            epsilon = epsilon[:, None, None, None]
            squared_norms = self.squared_gradient_norm(epsilon * real + (1 - epsilon) * fake, labels)
            penalty = penalty + 10 * ((squared_norms + 1e-12).sqrt() - 1).square().mean()
        return loss + self.config.penalty_every * penalty

    def squared_gradient_norm(self, images, labels):
        images = images.detach().requires_grad_()
        (gradients,) = torch.autograd.grad(self.critic(images, labels).sum(), images, create_graph=True)
        return gradients.square().sum(dim=(1, 2, 3))

    def train_on_batch(self, images, labels, noise, epsilon):
        """One step; returns the sum of both losses, that of the critic the mean over its steps."""
        images, labels, noise, epsilon = on_device((images, labels, noise, epsilon))
        losses = []
        for part in range(self.config.critic_steps):
            some = None if epsilon is None else epsilon[part]
            loss = self.critic_loss(images[part], labels[part], noise[part], some)
            losses.append(self.minimize(self.critic_optimizer, loss))
        score = self.critic(self.generator(noise[-1], labels[-1]), labels[-1])
        loss = functional.softplus(-score).mean() if self.config.loss == "nonsaturating" else -score.mean()
        loss = self.minimize(self.generator_optimizer, loss)
        torch._foreach_lerp_(self.following, self.followed, 1 - self.config.ema)
        return torch.stack(losses).mean() + loss

    def weights(self):
        """The weights of all networks, as those of the Keras models, one after the other."""
        return [value for network in self.networks for value in keras_weights(network)]


class NoiseSampler(gan_sampling.NoiseSampler):
    """The recipe's, but the generator is native."""

    def __init__(self, model, latent, *options):
        super().__init__(model, latent, *options)
        self.model = model
        self.generate = self.generated

    @torch.inference_mode()
    def generated(self, inputs):
        return self.network(**on_device(inputs)).cpu().numpy()

    def images(self, noise, labels):
        """See there; with the weights that the model has now."""
        modulations = [layer for layer in reversed(self.model.layers) if isinstance(layer, ClassModulation)]
        options = SimpleNamespace(latent=self.latent, widths=[layer.table.shape[1] // 2 for layer in modulations])
        network = Generator(options, self.model.output_shape[1:], modulations[0].classes)
        self.network = load_weights(network.to(memory_format=torch.channels_last), self.model).eval()
        return super().images(noise, labels)
