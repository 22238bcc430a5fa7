"""Native JAX baseline of recipes/gan_fashion.py, for `recipes compare --native`.

The same networks, optimizers and batches; nothing of Keras takes part in a step.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.native import require_options
from benchmarks.native_jax import Adam, convolution, depth_to_space, split_weights, weights_under
from shared.training.schedules import warmup_cosine_rate


def generate(weights, others, noise, label, start):
    """Noise and labels to images (batch, height, width, channels), and the new running averages.

    Args:
        weights: trainable ones by path.
        others: running averages by path.
        noise: (batch, latent).
        label: (batch,).
        start: rows and columns of the lowest resolution.
    """
    others = dict(others)
    x = (noise @ weights["first/kernel"]).reshape(len(noise), *start, -1)
    for level in reversed(range(sum(path.endswith("gamma") for path in weights))):
        mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        for name, value in (("mean", mean), ("variance", variance)):
            path = f"norm_{level}/moving_{name}"
            others[path] = 0.9 * others[path] + 0.1 * value
        norm = weights_under(weights, f"norm_{level}")
        x = (x - mean) * (norm["gamma"] * lax.rsqrt(variance + 1e-3)) + norm["beta"]
        scale, shift = jnp.split(weights[f"modulation_{level}/embeddings"][label][:, None, None], 2, axis=-1)
        x = convolution(jax.nn.relu(x * (1 + scale) + shift), weights[f"up_{level}/kernel"])
        x = depth_to_space(x if level else x + weights["up_0/bias"], 2)
    return jnp.tanh(x), others


def normalize(x):
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


def limited(weights, others, name, learning):
    """The weights of a layer, its kernel divided by its largest singular value if normalized; and its direction."""
    path = f"limited_{name}/direction"
    if path not in others:
        return weights_under(weights, name), {}
    layer = weights_under(weights, f"limited_{name}/{name}")
    kernel = "embeddings" if "embeddings" in layer else "kernel"
    matrix = layer[kernel].reshape(-1, layer[kernel].shape[-1])
    fixed = lax.stop_gradient(matrix)
    right = normalize(others[path])
    left = normalize(fixed @ right)
    right = normalize(left @ fixed) if learning else right
    layer[kernel] = layer[kernel] / (left @ (matrix @ right))
    return layer, {path: right if learning else others[path]}


def criticize(weights, others, image, label, learning=False):
    """Images and labels to scores (batch,), and the new directions of spectral normalization."""
    changed = {}

    def layer(name):
        found, direction = limited(weights, others, name, learning)
        changed.update(direction)
        return found

    x = image
    for level in range(sum(path.endswith("kernel") for path in weights) - 1):  # but that of the score
        down = layer(f"down_{level}")
        x = jax.nn.leaky_relu(convolution(x, down["kernel"], stride=2) + down["bias"], 0.2)
    x = x.reshape(len(x), -1)
    score = layer("score")
    scores = (x @ score["kernel"])[:, 0] + score.get("bias", 0.0)
    return scores + (x * layer("label_embedding")["embeddings"][label]).sum(axis=1), changed


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
        self.start = [length >> len(config.widths) for length in models[0].output_shape[1:3]]
        self.paths = [[weight.path for weight in model.weights] for model in models]
        rate = functools.partial(warmup_cosine_rate, warmup=0.02)
        learning_rate = functools.partial(rate, peak=config.learning_rate, steps=steps)
        critic_rate = functools.partial(rate, peak=config.critic_learning_rate, steps=steps * config.critic_steps)
        self.generator_optimizer = Adam(learning_rate, betas=(0.5, 0.99))
        self.critic_optimizer = Adam(critic_rate, betas=(0.5, 0.99))
        generator, critic, average = map(split_weights, models)
        slots = self.generator_optimizer.start(generator[0]), self.critic_optimizer.start(critic[0])
        self.state = generator, critic, average, slots
        self.steps = 0
        self.step = jax.jit(self.next_state, donate_argnums=0)

    def critic_loss(self, weights, others, fake, real, labels, epsilon):
        """The loss of the critic, penalties included, and its new directions."""
        images, both = jnp.concatenate([real, fake]), jnp.concatenate([labels, labels])
        scores, changed = criticize(weights, others, images, both, learning=True)
        of_real, of_fake = jnp.split(scores, 2)
        match self.config.loss:
            case "nonsaturating":
                loss = jax.nn.softplus(-of_real).mean() + jax.nn.softplus(of_fake).mean()
            case "hinge":
                loss = jax.nn.relu(1 - of_real).mean() + jax.nn.relu(1 + of_fake).mean()
            case "wgan_gp":
                loss = of_fake.mean() - of_real.mean()
        if epsilon is None:
            return loss, changed

        def squared_gradient_norm(images):
            slopes = jax.grad(lambda x: criticize(weights, others | changed, x, labels)[0].sum())(images)
            return jnp.square(slopes).sum(axis=(1, 2, 3))

        penalty = 0.0
        if self.config.r1:
            penalty = self.config.r1 * squared_gradient_norm(real).mean() / 2
        if self.config.loss == "wgan_gp":
            epsilon = epsilon[:, None, None, None]
            squared_norms = squared_gradient_norm(epsilon * real + (1 - epsilon) * fake)
            penalty = penalty + 10 * jnp.square(jnp.sqrt(squared_norms + 1e-12) - 1).mean()
        return loss + self.config.penalty_every * penalty, changed

    def generator_loss(self, weights, others, critic, noise, labels):
        """The loss of the generator, and its new running averages."""
        fake, others = generate(weights, others, noise, labels, self.start)
        scores, _ = criticize(*critic, fake, labels)
        return (jax.nn.softplus(-scores) if self.config.loss == "nonsaturating" else -scores).mean(), others

    def next_state(self, state, rates, step, images, labels, noise, epsilon):
        """One step, compiled: the state after it, and the sum of both losses."""
        (generator, running), critic, average, (generator_slots, critic_slots) = state
        losses = []
        for part in range(self.config.critic_steps):
            fake, running = generate(generator, running, noise[part], labels[part], self.start)
            some = None if epsilon is None else epsilon[part]
            value_and_gradients = jax.value_and_grad(self.critic_loss, has_aux=True)
            (loss, directions), gradients = value_and_gradients(*critic, fake, images[part], labels[part], some)
            losses.append(loss)
            weights, critic_slots = self.critic_optimizer.update(
                critic[0], critic_slots, gradients, rates[1][part], step * self.config.critic_steps + part
            )
            critic = weights, directions
        value_and_gradients = jax.value_and_grad(self.generator_loss, has_aux=True)
        (loss, running), gradients = value_and_gradients(generator, running, critic, noise[-1], labels[-1])
        generator, generator_slots = self.generator_optimizer.update(
            generator, generator_slots, gradients, rates[0], step
        )
        kept = self.config.ema
        average = jax.tree.map(lambda a, w: kept * a + (1 - kept) * w, average, (generator, running))
        state = (generator, running), critic, average, (generator_slots, critic_slots)
        return state, sum(losses) / len(losses) + loss

    def train_on_batch(self, *batch):
        """One step; returns the sum of both losses, that of the critic the mean over its steps."""
        parts = range(self.steps * self.config.critic_steps, (self.steps + 1) * self.config.critic_steps)
        rates = self.generator_optimizer.rate(self.steps), [self.critic_optimizer.rate(part) for part in parts]
        self.state, loss = self.step(self.state, rates, self.steps, *batch)
        self.steps += 1
        return loss

    def weights(self):
        """The weights of all networks, as those of the Keras models, one after the other."""
        networks = zip(self.paths, self.state[:3], strict=True)
        return [np.asarray((trained | others)[path]) for paths, (trained, others) in networks for path in paths]
