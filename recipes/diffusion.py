"""Images out of noise with a diffusion model.

A U-Net learns to take noise away from images (Ho et al. 2020, "Denoising Diffusion Probabilistic Models",
https://arxiv.org/abs/2006.11239, on the cosine schedule of Nichol and Dhariwal 2021, https://arxiv.org/abs/2102.09672),
and so makes images from nothing but noise, of a class that is asked for (classifier-free guidance, Ho and Salimans
2022, https://arxiv.org/abs/2207.12598), in 20 steps (SDE-DPM-Solver++, Lu et al. 2022, https://arxiv.org/abs/2211.01095).

    KERAS_BACKEND=jax python recipes/diffusion.py                          Fashion-MNIST, on two CPU cores
    KERAS_BACKEND=jax python recipes/diffusion.py --preset full            CIFAR-10, on one GPU
    KERAS_BACKEND=jax python recipes/diffusion.py --data photos --image-size 32    a folder of images
    KERAS_BACKEND=jax python recipes/diffusion.py --judge model.keras      evaluated by a classifier of cnn_cifar10
    KERAS_BACKEND=jax recipes predict RUN Sneaker --guidance 3             images of a class; without one, of each
    KERAS_BACKEND=jax python recipes/diffusion.py --out RUN --resume --chain-samples 2000    against 1000 steps of DDPM

The headline is the Fréchet distance of its images to the test images, in the features of a network trained on ImageNet,
or of the classifier that --judge names: compare only numbers of the same network. The runs recorded under
results/diffusion were measured with --judge results/judges/fashion_mnist.keras; sandals come out worst there.
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
import numpy as np
from keras import layers

from shared.backends.initializers import RandomNormal
from shared.backends.runtime import copied_weights
from shared.data.images.datasets import ImageData
from shared.generative.diffusion.batches import NoisyImageBatches, noisy_examples
from shared.generative.diffusion.samplers import SamplerName, sampler_steps
from shared.generative.diffusion.sampling import ImageSampler
from shared.generative.diffusion.schedule import Prediction
from shared.generative.diffusion.unet import ConditionedResidualBlock, ImageAttention, TimeEmbedding, attention_heads
from shared.generative.evaluation import evaluate_generator, labels_like_test
from shared.generative.evaluation_networks import EvaluationNetwork, evaluation_network
from shared.generative.exports import exported_denoiser
from shared.generative.metrics import frechet_distance
from shared.generative.options import GenerativeOptions
from shared.generative.plots import plot_denoising
from shared.generative.prediction import pictures_of_class
from shared.layers.convolution import Convolution
from shared.layers.normalization import GroupNormalization
from shared.layers.resampling import DepthToSpace, NearestUpsampling, SpaceToDepth
from shared.training.plots import plot_curves
from shared.training.predictors import ClassName, FinishedRun, Pictures, Watcher
from shared.training.ranges import Count, NonNegative, Part, Positive, Rate, Whole
from shared.training.run import Run, launch
from shared.training.schedules import WarmupCosine


@dataclass(kw_only=True)
class Config(GenerativeOptions):
    """Trains a diffusion model on labelled images, and evaluates its samples."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "test": {
            "data": "mnist5k", "train_examples": 1000, "epochs": 1, "samples": 40, "test_examples": 100,
            "learning_rate": 1e-5,
        },
        "smoke": {
            "epochs": 6, "batch_size": 50, "learning_rate": 1e-2, "widths": (16, 32), "patch": 2, "ema": 0.98,
            "samples": 200, "train_examples": 2500, "test_examples": 1000, "validation": 0.005, "sample_batch": 100,
        },
        "full": {
            "data": "cifar10", "epochs": 200, "batch_size": 256, "learning_rate": 4e-4, "widths": (128, 256, 256),
            "depth": 2, "attention": 2, "dropout": 0.1, "ema": 0.9995, "flip": True, "sample_batch": 500,
        },
    }  # fmt: skip
    free_on_resume: ClassVar[tuple[str, ...]] = (
        *GenerativeOptions.free_on_resume, "sampler", "steps", "guidance", "chain_samples",
    )  # fmt: skip
    beside_result: ClassVar[tuple[str, ...]] = (*GenerativeOptions.beside_result, "chain_samples")

    epochs: Count = 10
    batch_size: Count = 64
    learning_rate: Positive = 4e-3
    """The highest learning rate, of Adam."""
    warmup: Rate = 0.05
    """Learning-rate warmup: fraction of the steps over which it rises, before cosine decay."""
    ema: Rate = 0.995
    """Decay of an exponential moving average (EMA) of the weights, which then generates the images; 0: none."""
    prediction: Prediction = "v"
    """Prediction target: the noise (epsilon), or v."""
    label_dropout: Rate = 0.1
    """Label dropout rate, for classifier-free guidance."""
    widths: tuple[Count, ...] = (16, 32, 64)
    """Channels of each resolution, multiples of 8; each further one has half as many pixels each way."""
    depth: Count = 1
    """Residual blocks of each resolution, down and up."""
    patch: Count = 1
    """Patch size: N×N pixels are one position of the highest resolution; quicker, but coarser."""
    attention: Whole = 1
    """Number of the lowest resolutions with self-attention."""
    dropout: Rate = 0.0
    """Dropout rate in each residual block."""
    flip: bool = False
    """Random horizontal flip, where that does not change the class."""
    validation: Part = 0.02
    """Fraction of the training images held out for validation."""
    sampler: SamplerName = "sde_dpm_solver"
    """Sampler: DPM-Solver++(2M), with new noise (SDE) or without, and DDIM in few steps, DDPM in up to 1000."""
    steps: Count = 20
    """Number of sampling steps."""
    guidance: NonNegative = 2.0
    """Classifier-free guidance scale, where images take shape: 0 ignores the label, 1 is none, in half the time."""
    chain_samples: Whole = 0
    """Compare N images of DDIM in 20 steps with as many of DDPM in 1000, which takes a while."""

    def __post_init__(self):
        super().__post_init__()
        self.require("guidance", self.guidance == 1 or self.label_dropout > 0, "must be 1 where --label-dropout is 0")
        self.require(
            "widths", self.widths and all(w >= 8 and w % 8 == 0 for w in self.widths), "must be of 8, 16, 24, …"
        )
        self.require("chain_samples", self.chain_samples == 0 or self.chain_samples >= 20, "must be 0 or at least 20")

    def load(self) -> ImageData:
        """The training and test images."""
        data = self.load_data("fashion_mnist", self.validation)
        examples, height, width, _ = data.train.images.shape
        self.require("batch_size", self.batch_size <= examples, f"must be at most the {examples} training images")
        self.require("patch", height % self.patch == width % self.patch == 0, f"must divide {height} and {width}")
        return data


def build_model(config: Config, data: ImageData) -> keras.Model:
    """Noisy images, times (batch,) and labels (batch,) to predictions of the images' shape, in float32."""
    *size, channels = data.train.images.shape[1:]
    image = keras.Input((*size, channels), name="image")
    time = keras.Input((), name="time")
    label = keras.Input((), dtype="int32", name="label")
    features = 4 * config.widths[0]
    wide = RandomNormal(stddev=1.0)  # so that classes differ from the first step
    class_embedding = layers.Embedding(len(data.classes) + 1, features, wide, name="label_embedding")(label)
    condition = layers.Add()([TimeEmbedding(features, name="time_embedding")(time), class_embedding])

    def blocks(x, name, level):
        width = config.widths[level]
        x = ConditionedResidualBlock(width, dropout=config.dropout, name=name)(x, condition)
        return ImageAttention(attention_heads(width), name=f"{name}_attention")(x) if level >= attending else x

    attending, lowest = len(config.widths) - config.attention, len(config.widths) - 1
    x = SpaceToDepth(config.patch)(image)
    x = Convolution(config.widths[0], 3, name="stem")(x)
    skips = []
    for level, width in enumerate(config.widths):
        x = Convolution(width, 3, strides=2, name=f"down_{level}")(x) if level else x
        for index in range(config.depth):
            x = blocks(x, f"down_{level}_{index}", level)
            skips.append(x)
    x = blocks(x, "middle", lowest)
    for level in reversed(range(len(config.widths))):
        x = NearestUpsampling(*skips[-1].shape[1:3])(x) if level < lowest else x
        for index in range(config.depth):
            x = blocks(layers.Concatenate()([x, skips.pop()]), f"up_{level}_{index}", level)
    x = layers.Activation("silu")(GroupNormalization(name="last_norm")(x))
    last = {"use_bias": True, "kernel_initializer": "zeros", "dtype": "float32", "name": "last"}
    x = DepthToSpace(config.patch, dtype="float32")(Convolution(channels * config.patch**2, 3, **last)(x))
    return keras.Model({"image": image, "time": time, "label": label}, x, name="unet")


def image_sampler(config: Config, model: keras.Model, classes: int, batch_size: int) -> ImageSampler:
    return ImageSampler(
        model, sampler_steps(config.sampler, config.steps), config.prediction, config.guidance, no_label=classes,
        batch_size=batch_size, seed=config.seed,
    )  # fmt: skip


def compare_chains(config: Config, model: keras.Model, network: EvaluationNetwork, data: ImageData) -> dict[str, float]:
    """Fréchet distances of so many images of DDIM in 20 steps, and of DDPM in 1000."""
    labels = labels_like_test(data, config.chain_samples, config.seed)
    real, metrics = network.outputs(data.test.images)["features"], {}
    for name, steps in (("ddim", 20), ("ddpm", 1000)):
        draw = image_sampler(replace(config, sampler=name, steps=steps), model, len(data.classes), config.sample_batch)
        metrics[f"frechet_{name}_{steps}"] = frechet_distance(network.outputs(draw(labels))["features"], real)
    return metrics


def main(run: Run) -> dict[str, float]:
    config = run.config
    data = config.load()
    classes = len(data.classes)
    batches = NoisyImageBatches(
        data.train, config.prediction, classes=classes, batch_size=config.batch_size, seed=config.seed,
        label_dropout=config.label_dropout, flip=config.flip and data.mirrored,
    )  # fmt: skip
    model = build_model(config, data)
    untrained = copied_weights(model)

    rate = WarmupCosine(config.learning_rate, config.epochs * len(batches), config.warmup)
    averaging = {"use_ema": config.ema > 0, "ema_momentum": config.ema or 0.99}
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0, **averaging), "mse")
    model.summary()
    network = evaluation_network(config, data)
    validation = noisy_examples(data.validation, config.prediction, np.random.default_rng(0), classes)
    identity = f"{data.name} {data.fingerprint}"
    run.fit(model, batches, data=identity, validation_data=validation, validation_batch_size=100)
    draw = image_sampler(config, model, classes, config.sample_batch)
    samples, metrics = evaluate_generator(run, draw, network, data, model=model, untrained=untrained)
    metrics |= compare_chains(config, model, network, data) if config.chain_samples else {}
    run.save_figure("denoising.png", plot_denoising(draw.chain(samples.labels[:8], stages=11)))
    run.save_figure("curves.png", plot_curves(run.history, ["loss"]))
    facts = config.facts("prediction", "sampler", "steps", "guidance") | {"classes": data.classes}
    return run.finish(model, data.name, "frechet", metrics, higher_is_better=False, **facts, **network.facts)


def predictor(run: FinishedRun) -> Callable:
    """Function from a class name to generated images."""
    config, classes = run.config, run.result["classes"]
    sampling = image_sampler(config, run.model, len(classes), batch_size=1)

    def generate(
        name: ClassName, count: int = 4, seed: int = config.seed, sampler: SamplerName = config.sampler,
        steps: int = config.steps, guidance: float = config.guidance,
        watch: Watcher | None = None,
    ) -> Pictures:  # fmt: skip
        """Generates images of a class."""
        replace(config, seed=seed, sampler=sampler, steps=steps, guidance=guidance)  # checks the ranges
        chosen = sampling.with_options(sampler_steps(sampler, steps), guidance, count, seed)
        return pictures_of_class(
            lambda labels: chosen.stages(labels, 0, chosen.stops(11)), name, classes, count, watch=watch
        )

    generate.exported = lambda: exported_denoiser(
        run.model, sampler_steps(config.sampler, config.steps), config.prediction, config.guidance, classes
    )
    return generate


if __name__ == "__main__":
    launch(main, Config)
