"""Autoencoders: plain, denoising, variational, vector-quantized.

An encoder makes a small latent of an image, a decoder the image of the latent. By `--kind`: variational, VAE, whose
latents come from a prior, so that new images can be sampled (Kingma and Welling 2013, https://arxiv.org/abs/1312.6114);
with `--beta`, β-VAE (Higgins et al. 2017, https://openreview.net/forum?id=Sy2fzU9gl); vector_quantized, VQ-VAE, with a
codebook and an autoregressive prior (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937); denoising (Vincent et
al. 2008, https://doi.org/10.1145/1390156.1390294); plain.

    KERAS_BACKEND=jax python recipes/autoencoder.py                                    Fashion-MNIST, on two CPU cores
    KERAS_BACKEND=jax python recipes/autoencoder.py --kind vector_quantized --data cifar10    discrete latents
    KERAS_BACKEND=jax python recipes/autoencoder.py --preset full                      CIFAR-10, on one GPU
    KERAS_BACKEND=jax python recipes/autoencoder.py --data tf_flowers --image-size 64  photographs, or --data FOLDER
    KERAS_BACKEND=jax recipes predict RUN --count 10                                   new images
    KERAS_BACKEND=jax recipes predict RUN noisy.png                                    of plain and denoising: an image

The headline of the variational kind is the bits a dimension of the evidence lower bound (ELBO), by a discretized
logistic likelihood of each pixel's 256 levels; van den Oord et al. have 4.51 on CIFAR-10, to which `full` is held. That
of the others is the mean squared error of reconstructed test images, of pixels from 0 to 1.
"""

import math
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

from shared.data.images.datasets import ImageData
from shared.generative.autoencoder.batches import AutoencoderBatches, autoencoder_examples
from shared.generative.autoencoder.coding import AutoencoderKind, ImageCoder, LatentSampler
from shared.generative.autoencoder.latents import GaussianLatent, VectorQuantizer
from shared.generative.autoencoder.likelihood import negative_log_likelihood
from shared.generative.autoencoder.prediction import reconstructed_picture
from shared.generative.autoencoder.prior import CodePrior
from shared.generative.autoencoder.report import evaluate_autoencoder
from shared.generative.evaluation_networks import evaluation_network
from shared.generative.exports import exported_autoencoder
from shared.generative.options import GenerativeOptions
from shared.generative.prediction import pictures_of_class
from shared.layers.convolution import Convolution
from shared.layers.resampling import DepthToSpace
from shared.training.batches import ArrayBatches
from shared.training.plots import plot_curves
from shared.training.predictors import ClassName, FinishedRun, Picture, Pictures
from shared.training.ranges import Count, NonNegative, Part, Positive, Rate, ranged
from shared.training.run import Run, launch
from shared.training.schedules import WarmupCosine


@dataclass(kw_only=True)
class Config(GenerativeOptions):
    """Trains an autoencoder of images, and evaluates its latents, reconstructions and samples."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "test": {
            "data": "mnist5k", "train_examples": 1500, "epochs": 1, "samples": 40, "test_examples": 100,
            "learning_rate": 1e-5, "importance_samples": 2,
        },
        "smoke": {
            "epochs": 6, "batch_size": 50, "widths": (16, 32), "latent": 16, "codes": 64, "prior_channels": 32,
            "train_examples": 5000, "test_examples": 1000, "samples": 200, "sample_batch": 100,
        },
        "full": {
            "data": "cifar10", "epochs": 100, "batch_size": 128, "widths": (128, 256), "latent": 256, "blocks": 3,
            "prior_channels": 256, "prior_depth": 6, "prior_epochs": 50, "flip": True, "importance_samples": 64,
        },
    }  # fmt: skip

    kind: AutoencoderKind = "variational"
    """Kind of autoencoder: variational (VAE), vector_quantized (VQ-VAE), plain or denoising."""
    epochs: Count = 8
    batch_size: Count = 100
    learning_rate: Positive = 2e-3
    """The highest learning rate, of Adam."""
    widths: tuple[Count, ...] = (32, 64)
    """Channels of each resolution of the encoder, that of half the image's first; the decoder has the same."""
    blocks: Count = 1
    """Residual blocks at the lowest resolution, of encoder and decoder each."""
    latent: Count = 64
    """Latent size; of each code, with a codebook."""
    beta: NonNegative = 1.0
    """Weight of the KL divergence: 1 is the evidence lower bound; above, fewer latent units carry more meaning each."""
    corruption: Positive = 0.5
    """Denoising: standard deviation of the noise on the inputs, of pixels from -1 to 1."""
    codes: ranged(int, least=2) = 512
    """Codebook size."""
    commitment: NonNegative = 0.25
    """Weight of the commitment loss of the encoder to the codebook."""
    codebook_decay: Rate = 0.99
    """Decay of the moving averages (EMA) that the codebook follows."""
    prior_channels: ranged(int, least=4) = 64
    """Channels of the prior over codes, a causal Transformer; a multiple of 4."""
    prior_depth: Count = 3
    """Blocks of the prior."""
    prior_epochs: Count = 4
    """Passes of the prior over the codes of the training images."""
    importance_samples: Count = 16
    """Samples of the importance-weighted bound (IWAE)."""
    flip: bool = False
    """Random horizontal flip, where that does not change the class."""
    validation: Part = 0.02
    """Fraction of the training images held out for validation."""

    def load(self) -> ImageData:
        """The training and test images."""
        data = self.load_data("fashion_mnist", self.validation)
        examples, height, width, _ = data.train.images.shape
        parts = 2 ** len(self.widths)
        self.require("batch_size", self.batch_size <= examples, f"must be at most the {examples} training images")
        self.require("widths", height % parts == width % parts == 0, f"must be fewer, to halve {height} by {width}")
        self.require("prior_channels", self.prior_channels % 4 == 0, "must be a multiple of 4")
        return data

    def noise(self, image_shape: tuple[int, ...]) -> dict[str, Any]:
        """Random numbers of a batch, see `autoencoder_examples`: of the latent layer, or on the inputs."""
        if self.kind == "vector_quantized":
            return {"noise": math.prod(self.grid(image_shape)), "uniform": True}
        return {"variational": {"noise": self.latent}, "denoising": {"corruption": self.corruption}}.get(self.kind, {})

    def grid(self, image_shape: tuple[int, ...]) -> list[int]:
        """Height and width of the lowest resolution."""
        return [length >> len(self.widths) for length in image_shape[:2]]


def build_model(config: Config, data: ImageData) -> keras.Model:
    """Images, -1 to 1, and noise to means of pixels, for the variational kind also logarithms of their scales."""
    image_shape = data.train.images.shape[1:]
    inputs = image = keras.Input(image_shape, name="image")
    latent = build_encoder(config, image_shape)(image)
    if numbers := config.noise(image_shape).get("noise"):
        inputs = {"image": image, "noise": keras.Input((numbers,), name="noise")}
        if config.kind == "variational":
            layer = GaussianLatent(config.beta, name="latent")
        else:
            layer = VectorQuantizer(config.codes, config.codebook_decay, config.commitment, name="latent")
        latent = layer(latent, inputs["noise"])
    return keras.Model(inputs, build_decoder(config, latent.shape[1:], image_shape)(latent), name="autoencoder")


def residual_blocks(config: Config, x: Any, name: str) -> Any:
    width = config.widths[-1]
    for index in range(config.blocks):
        y = Convolution(width // 2, 3, activation="relu", use_bias=True, name=f"{name}_{index}")(layers.ReLU()(x))
        x = layers.Add()([x, Convolution(width, 1, use_bias=True, name=f"{name}_{index}_out")(y)])
    return layers.ReLU()(x)


def build_encoder(config: Config, image_shape: tuple[int, int, int]) -> keras.Model:
    """Images to latents, to means and logarithms of variances, or to the vectors to be quantized."""
    x = image = keras.Input(image_shape)
    for level, width in enumerate(config.widths):
        x = Convolution(width, 4, strides=2, activation="relu", use_bias=True, name=f"down_{level}")(x)
    x = residual_blocks(config, x, "encoder_block")
    if config.kind == "vector_quantized":
        x = Convolution(config.latent, 1, use_bias=True, dtype="float32", name="vectors")(x)
    else:
        size = config.latent * (2 if config.kind == "variational" else 1)
        x = layers.Dense(size, dtype="float32", name="statistics")(layers.Flatten()(x))
    return keras.Model(image, x, name="encoder")


def build_decoder(config: Config, latent_shape: tuple[int, ...], image_shape: tuple[int, int, int]) -> keras.Model:
    x = latent = keras.Input(latent_shape)
    grid = (*config.grid(image_shape), config.widths[-1])
    if config.kind == "vector_quantized":
        x = Convolution(grid[-1], 3, use_bias=True, name="first")(x)
    else:
        x = layers.Reshape(grid)(layers.Dense(math.prod(grid), name="first")(x))
    x = residual_blocks(config, x, "decoder_block")
    for level in reversed(range(len(config.widths))):
        filters = config.widths[level - 1] if level else image_shape[2] * (2 if config.kind == "variational" else 1)
        dtype = None if level else "float32"
        x = DepthToSpace(2, dtype=dtype)(Convolution(4 * filters, 3, use_bias=True, dtype=dtype, name=f"up_{level}")(x))
        x = layers.ReLU()(x) if level else x
    return keras.Model(latent, x, name="decoder")


def train_prior(run: Run, model: keras.Model, data: ImageData, identity: str) -> keras.Model:
    """Trains a prior over the codes of the training images; returns the model with the prior beside the autoencoder."""
    config = run.config
    coder = ImageCoder(config.kind, model, config.sample_batch)
    codes = [coder.indices(part.images).reshape(len(part.labels), -1) for part in (data.train, data.validation)]
    inputs = keras.Input(codes[0].shape[1:], dtype="int32", name="codes")
    layer = CodePrior(config.codes, config.prior_channels, config.prior_depth, dtype="float32", name="prior")
    prior = keras.Model(inputs, layer(inputs), name="code_prior")
    batches = ArrayBatches(codes[0], codes[0], config.batch_size, config.seed)
    optimizer = keras.optimizers.Adam(WarmupCosine(1e-3, config.prior_epochs * len(batches), 0.05), global_clipnorm=1.0)
    prior.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    run.fit(prior, batches, identity, "prior", epochs=config.prior_epochs, validation_data=(codes[1], codes[1]))
    return keras.Model({**model.input, "codes": inputs}, {"pixels": model.output, "logits": prior.output})


def main(run: Run) -> dict[str, float]:
    config = run.config
    data = config.load()
    image_shape, identity = data.train.images.shape[1:], f"{data.name} {data.fingerprint}"
    noise, flip = config.noise(image_shape), config.flip and data.mirrored
    batches = AutoencoderBatches(data.train.images, config.batch_size, config.seed, flip, **noise)
    model = build_model(config, data)
    network = evaluation_network(config, data)
    optimizer = keras.optimizers.Adam(WarmupCosine(config.learning_rate, config.epochs * len(batches), 0.05))
    # A squared error is in units of the variance of the pixels: 1 is the error of a grey image.
    per_variance = ("mse", float(127.5**2 / np.mean(np.square(data.deviation))))
    loss, weight = (negative_log_likelihood, 1.0) if config.kind == "variational" else per_variance
    model.compile(optimizer, loss, loss_weights=[weight], metrics=[loss])
    model.summary()
    validation = autoencoder_examples(data.validation.images, np.random.default_rng(0), **noise)
    run.fit(model, batches, data=identity, validation_data=validation, validation_batch_size=100)
    run.save_figure("curves.png", plot_curves(run.history, ["loss", getattr(loss, "__name__", loss)]))
    if config.kind == "vector_quantized":
        model = train_prior(run, model, data, identity)

    coder = ImageCoder(config.kind, model, config.sample_batch)
    metrics, found = evaluate_autoencoder(run, coder, data, network, noise.get("corruption", 0.0))
    facts = config.facts("kind", "beta", "latent") | found | network.facts
    metric = "bits_per_dim" if config.kind == "variational" else "reconstruction_mse"
    return run.finish(model, data.name, metric, metrics, higher_is_better=False, classes=None, **facts)


def predictor(run: FinishedRun) -> Callable:
    """Function that samples images, or one that reconstructs an image where no prior was trained."""
    config = run.config

    def generate(name: ClassName, count: int = 4, seed: int = config.seed) -> Pictures:
        """Generates images."""
        draw = LatentSampler(ImageCoder(config.kind, run.model, count), replace(config, seed=seed).seed)
        return pictures_of_class(lambda labels: [draw(len(labels))], name, run.result["classes"], count)

    def reconstruct(image: Picture) -> Pictures:
        """Reconstructs an image from its latent; a denoising autoencoder removes noise from it."""
        return reconstructed_picture(ImageCoder(config.kind, run.model, 1), image)

    generate.exported = lambda: exported_autoencoder(config.kind, run.model, run.result["classes"])
    if config.kind in ("plain", "denoising"):
        return reconstruct
    return generate


if __name__ == "__main__":
    launch(main, Config)
