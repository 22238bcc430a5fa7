"""Images out of noise with a generative adversarial network.

A generator learns to make images that a critic takes for real ones, while the critic learns to tell them apart
(Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661); both are convolutional (DCGAN, Radford et al. 2015,
https://arxiv.org/abs/1511.06434). What has made that stable since: spectral normalization of the critic (Miyato et al.
2018, https://arxiv.org/abs/1802.05957); classes that scale and shift the generator's channels and that the critic
projects on (Miyato and Koyama 2018, https://arxiv.org/abs/1802.05637); by option, a penalty on the critic's slope (R1,
Mescheder et al. 2018, https://arxiv.org/abs/1801.04406); a moving average of the generator, which makes the images.

    KERAS_BACKEND=jax python recipes/gan_fashion.py                          Fashion-MNIST, on two CPU cores
    KERAS_BACKEND=jax python recipes/gan_fashion.py --preset full            CIFAR-10, on one GPU
    KERAS_BACKEND=jax python recipes/gan_fashion.py --data photos --image-size 32    a folder of images
    KERAS_BACKEND=jax python recipes/gan_fashion.py --judge model.keras      evaluated by a classifier of cnn_cifar10
    KERAS_BACKEND=jax recipes predict RUN Sneaker --count 10                 images of a class; without one, of each

The headline is the Fréchet distance of its images to the test images, in the features of a network trained on ImageNet,
or of the classifier that --judge names: compare only numbers of the same network. The runs recorded under
results/gan_fashion were measured with --judge results/judges/fashion_mnist.keras.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

try:
    from shared.backends.choice import require_backend
except ModuleNotFoundError:
    print("error: the package shared is not installed: run  pip install -e .  in keras-recipes", file=sys.stderr)
    sys.exit(2)
require_backend()

import keras
from keras import layers, ops

from shared.backends.gradients import minimize
from shared.backends.optimizers import built_optimizer
from shared.backends.runtime import copied_model, copied_weights
from shared.backends.steps import compiled_step
from shared.data.images.datasets import ImageData
from shared.generative.evaluation import evaluate_generator
from shared.generative.evaluation_networks import evaluation_network
from shared.generative.exports import exported_generator
from shared.generative.gan_batches import AdversarialBatches
from shared.generative.gan_losses import AdversarialLoss, critic_loss, critic_penalty, generator_loss
from shared.generative.gan_sampling import EpochSheets, NoiseSampler, warn_if_collapsed
from shared.generative.modulation import ClassModulation
from shared.generative.options import GenerativeOptions
from shared.generative.plots import plot_rows
from shared.generative.prediction import pictures_of_class
from shared.generative.spectral import SpectralNormalization
from shared.layers.convolution import Convolution
from shared.layers.normalization import BatchNormalization
from shared.layers.resampling import DepthToSpace
from shared.training.custom import update_averages
from shared.training.plots import plot_curves
from shared.training.predictors import ClassName, FinishedRun, Pictures
from shared.training.ranges import Count, NonNegative, Positive, Rate
from shared.training.run import Run, launch
from shared.training.schedules import WarmupCosine


@dataclass(kw_only=True)
class Config(GenerativeOptions):
    """Trains a generator of labelled images against a critic, and evaluates its samples."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "test": {
            "data": "mnist5k", "train_examples": 1500, "epochs": 1, "samples": 40, "test_examples": 100,
            "learning_rate": 1e-5, "critic_learning_rate": 1e-5,
        },
        "smoke": {
            "epochs": 16, "batch_size": 50, "learning_rate": 2e-3, "critic_learning_rate": 2e-3, "widths": (16, 32),
            "critic_widths": (16, 32), "latent": 32, "ema": 0.98, "samples": 200, "train_examples": 2500,
            "test_examples": 1000,
        },
        "full": {
            "data": "cifar10", "epochs": 200, "batch_size": 128, "learning_rate": 2e-4, "critic_learning_rate": 2e-4,
            "widths": (128, 256, 512), "critic_widths": (64, 128, 256, 512), "latent": 128, "ema": 0.9999, "flip": True,
        },
    }  # fmt: skip

    epochs: Count = 12
    batch_size: Count = 64
    learning_rate: Positive = 1e-3
    """The highest learning rate of the generator, of Adam."""
    critic_learning_rate: Positive = 1e-3
    """The highest learning rate of the critic."""
    loss: AdversarialLoss = "hinge"
    """Adversarial loss."""
    spectral_norm: bool = True
    """Spectral normalization of the critic."""
    r1: NonNegative = 0.0
    """Weight of the R1 gradient penalty; 0: none. wgan_gp has a gradient penalty of its own."""
    penalty_every: Count = 1
    """Lazy regularization: apply the gradient penalty every N steps, N times as strong."""
    critic_steps: Count = 1
    """Critic steps per generator step."""
    class_conditional: bool = True
    """Condition both networks on the class of each image."""
    latent: Count = 64
    """Latent size."""
    widths: tuple[Count, ...] = (48, 96)
    """Channels of each resolution of the generator, that of half the image's first."""
    critic_widths: tuple[Count, ...] = (32, 64, 128)
    """Channels of each resolution of the critic, likewise."""
    ema: Rate = 0.999
    """Decay of the moving average (EMA) of the generator, which then makes the images; 0: none."""
    flip: bool = False
    """Random horizontal flip, where that does not change the class."""

    def load(self) -> ImageData:
        """The training and test images."""
        data = self.load_data("fashion_mnist", validation=0.0)
        examples, height, width, _ = data.train.images.shape
        needed, parts = self.critic_steps * self.batch_size, 2 ** len(self.widths)
        self.require("batch_size", needed <= examples, f"times --critic-steps must be at most the {examples} images")
        self.require("widths", height % parts == width % parts == 0, f"must be fewer, to halve {height} by {width}")
        return data


def build_model(config: Config, data: ImageData) -> tuple[keras.Model, keras.Model]:
    """The generator, and the critic: from images and labels to scores (batch, 1), high for real images."""
    image_shape = data.train.images.shape[1:]
    classes = len(data.classes) if config.class_conditional else 1
    return build_generator(config, image_shape, classes), build_critic(config, image_shape, classes)


def build_generator(config: Config, image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Noise (batch, latent) and labels (batch,) to images (batch, height, width, channels), −1 to 1, in float32."""
    rows, columns = (length >> len(config.widths) for length in image_shape[:2])
    noise, label = keras.Input((config.latent,), name="noise"), keras.Input((), dtype="int32", name="label")
    x = layers.Dense(rows * columns * config.widths[-1], use_bias=False, name="first")(noise)
    x = layers.Reshape((rows, columns, config.widths[-1]))(x)
    for level in reversed(range(len(config.widths))):
        x = BatchNormalization(momentum=0.9, name=f"norm_{level}")(x)
        x = layers.ReLU()(ClassModulation(classes, name=f"modulation_{level}")(x, label))
        filters = config.widths[level - 1] if level else image_shape[2]
        dtype = None if level else "float32"
        x = Convolution(4 * filters, 3, use_bias=level == 0, dtype=dtype, name=f"up_{level}")(x)
        x = DepthToSpace(2, dtype=dtype)(x)
    x = layers.Activation("tanh", dtype="float32")(x)
    return keras.Model({"noise": noise, "label": label}, x, name="generator")


def build_critic(config: Config, image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    def normalized(layer):
        return SpectralNormalization(layer, name=f"limited_{layer.name}") if config.spectral_norm else layer

    x = image = keras.Input(image_shape, name="image")
    label = keras.Input((), dtype="int32", name="label")
    for level, width in enumerate(config.critic_widths):
        x = layers.LeakyReLU(0.2)(normalized(Convolution(width, 4, strides=2, use_bias=True, name=f"down_{level}"))(x))
    x = layers.Flatten(dtype="float32")(x)
    bias = config.loss != "wgan_gp"  # whose gradient with respect to it is 0 but for rounding
    score = normalized(layers.Dense(1, use_bias=bias, dtype="float32", name="score"))(x)
    projection = normalized(layers.Embedding(classes, x.shape[-1], dtype="float32", name="label_embedding"))(label)
    class_score = ops.sum(x * projection, axis=-1, keepdims=True)
    return keras.Model({"image": image, "label": label}, score + class_score, name="critic")


def adversarial_step(config: Config, networks: tuple[keras.Model, ...], steps: int) -> tuple[Callable, dict[str, Any]]:
    """The training step, for a training of `steps` steps, and its state: networks, optimizers and metrics."""
    generator, critic = networks
    average = copied_model(generator)
    generator_optimizer = build_optimizer(config, generator, config.learning_rate, steps)
    critic_optimizer = build_optimizer(config, critic, config.critic_learning_rate, steps * config.critic_steps)
    means = {name: keras.metrics.Mean(name) for name in ("critic_loss", "generator_loss")}

    def train_critic(real, labels, noise, epsilon):
        fake = generator({"noise": noise, "label": labels}, training=True)

        def loss():
            both = {"image": ops.concatenate([real, fake]), "label": ops.concatenate([labels, labels])}
            value = critic_loss(config.loss, *ops.split(critic(both, training=True), 2))
            if epsilon is None:
                return value

            def score(image):
                return critic({"image": image, "label": labels}, training=False)

            return value + config.penalty_every * critic_penalty(config.loss, config.r1, score, real, fake, epsilon)

        means["critic_loss"].update_state(minimize(critic_optimizer, loss, critic.trainable_variables))

    @compiled_step
    def step(images, labels, noise, epsilon):
        for part in range(config.critic_steps):
            train_critic(images[part], labels[part], noise[part], None if epsilon is None else epsilon[part])

        def loss():
            fake = generator({"noise": noise[-1], "label": labels[-1]}, training=True)
            return generator_loss(config.loss, critic({"image": fake, "label": labels[-1]}, training=False))

        means["generator_loss"].update_state(minimize(generator_optimizer, loss, generator.trainable_variables))
        update_averages(average.weights, generator.weights, config.ema)
        return {name: mean.result() for name, mean in means.items()}

    optimizers = {"generator_optimizer": generator_optimizer, "critic_optimizer": critic_optimizer}
    return step, {"generator": generator, "critic": critic, "average": average} | optimizers | means


def build_optimizer(config: Config, model: keras.Model, rate: float, steps: int) -> keras.optimizers.Optimizer:
    adam = keras.optimizers.Adam(WarmupCosine(rate, steps, 0.02), beta_1=0.5, beta_2=0.99)
    return built_optimizer(adam, model, config.precision)


def main(run: Run) -> dict[str, float]:
    config = run.config
    data = config.load()
    batches = AdversarialBatches(
        data.train, config.batch_size, config.seed, latent=config.latent, critic_steps=config.critic_steps,
        conditional=config.class_conditional, flip=config.flip and data.mirrored,
        penalty_every=config.penalty_every if config.r1 or config.loss == "wgan_gp" else 0,
    )  # fmt: skip
    step, state = adversarial_step(config, build_model(config, data), config.epochs * len(batches))
    generator = state["average"]
    untrained = copied_weights(generator)
    generator.summary()
    sampler = NoiseSampler(generator, config.latent, config.class_conditional, config.sample_batch, config.seed)
    sheets = EpochSheets(run, sampler, data)
    network = evaluation_network(config, data)
    run.train(step, batches, state, data=f"{data.name} {data.fingerprint}", after_epoch=sheets)

    samples, metrics = evaluate_generator(
        run, sampler, network, data, config.class_conditional, model=generator, untrained=untrained
    )
    run.save_figure("interpolation.png", plot_rows(sampler.between(samples.labels[:8], 11), "latent interpolation"))
    run.save_figure("curves.png", plot_curves(run.history, ["critic_loss", "generator_loss", "diversity"]))
    sheets.animate()
    facts = config.facts("loss", "spectral_norm", "r1", "class_conditional")
    facts |= {"classes": data.classes if config.class_conditional else None}
    facts["collapsed"] = warn_if_collapsed(metrics["diversity"])
    return run.finish(generator, data.name, "frechet", metrics, higher_is_better=False, **facts, **network.facts)


def predictor(run: FinishedRun) -> Callable:
    latent, conditional = run.config.latent, run.config.class_conditional

    def generate(name: ClassName, count: int = 4, seed: int = run.config.seed) -> Pictures:
        """Generates images of a class."""
        draw = NoiseSampler(run.model, latent, conditional, count, replace(run.config, seed=seed).seed)
        return pictures_of_class(lambda labels: [draw(labels)], name, run.result["classes"], count)

    generate.exported = lambda: exported_generator(run.model, run.result["classes"])
    return generate


if __name__ == "__main__":
    launch(main, Config)
