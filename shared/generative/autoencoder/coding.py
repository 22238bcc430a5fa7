"""Encoding, decoding and sampling with a trained autoencoder."""

from typing import Literal

import keras
import numpy as np
from keras import ops

from shared.data.randomness import random_stream
from shared.generative.autoencoder.prior import CodeSampler
from shared.generative.pixels import scaled_pixels, shown_image

AutoencoderKind = Literal["variational", "vector_quantized", "plain", "denoising"]
"""A normal posterior and a likelihood of pixels (VAE); a codebook (VQ-VAE); neither; or neither, and noise on the
inputs (Vincent et al. 2008, https://doi.org/10.1145/1390156.1390294)."""


class ImageCoder:
    """The parts of an autoencoder, for arrays.

    A latent of an image is a vector; with a codebook it is a grid of vectors (rows, columns, channels).

    Args:
        kind: of the autoencoder.
        model: with the models "encoder" and "decoder", and with a codebook the layers "latent" and "prior" inside.
        batch_size: images per batch.
    """

    def __init__(self, kind: AutoencoderKind, model: keras.Model, batch_size: int):
        self.kind = kind
        self.model = model
        self.encoder, self.decoder = model.get_layer("encoder"), model.get_layer("decoder")
        self.batch_size = batch_size

    def latents(self, images: np.ndarray, corruption: np.ndarray | float = 0.0) -> np.ndarray:
        """Latents of images (examples, height, width, channels) in uint8: the mean of the posterior where there is one,
        and the codes of a codebook.

        Args:
            images: to encode.
            corruption: noise added to them, of pixels from -1 to 1.
        """
        found = self.outputs(self.encoder, scaled_pixels(images) + corruption)
        if self.kind == "variational":
            return found[:, : found.shape[1] // 2]
        return self.quantized(self.indices_of(found)) if self.kind == "vector_quantized" else found

    def indices_of(self, vectors: np.ndarray) -> np.ndarray:
        """Code indices (examples, rows, columns) of the outputs of the encoder."""
        quantizer = self.model.get_layer("latent")
        parts = np.array_split(vectors, -(-len(vectors) // self.batch_size))
        return np.concatenate([ops.convert_to_numpy(quantizer.indices(part)) for part in parts])

    def indices(self, images: np.ndarray) -> np.ndarray:
        """Code indices (examples, rows, columns) of images."""
        count = 20 * self.batch_size  # pixels and vectors of all images at once would take gigabytes
        parts = [images[start : start + count] for start in range(0, len(images), count)]
        return np.concatenate([self.indices_of(self.outputs(self.encoder, scaled_pixels(part))) for part in parts])

    def quantized(self, indices: np.ndarray) -> np.ndarray:
        """The codes (…, channels) of indices."""
        return ops.convert_to_numpy(self.model.get_layer("latent").codebook)[indices]

    def images(self, latents: np.ndarray) -> np.ndarray:
        """Images (examples, height, width, channels) in uint8 of latents: the means of the pixels."""
        if self.kind == "vector_quantized":
            latents = self.quantized(self.indices_of(latents))
        return shown_image(self.outputs(self.decoder, latents)[..., : self.encoder.input_shape[-1]])

    def between(self, latents: np.ndarray, stages: int) -> np.ndarray:
        """Images (pairs, stages, height, width, channels) on the lines from half of the latents to the others."""
        first, second = np.split(latents, 2)
        t = np.linspace(0, 1, stages, dtype=np.float32).reshape(-1, *[1] * (latents.ndim - 1))
        return self.images_of_rows((1 - t) * first[:, None] + t * second[:, None])

    def along(self, latent: np.ndarray, directions: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Latent traversal: images (directions, steps, height, width, channels) around a latent.

        Args:
            latent: (size,).
            directions: (directions, size).
            steps: how far to go along each.
        """
        rows = latent + steps[:, None] * directions[:, None]
        return self.images_of_rows(rows.astype(np.float32))

    def images_of_rows(self, rows: np.ndarray) -> np.ndarray:
        """The images of rows of latents (rows, columns, …)."""
        images = self.images(rows.reshape(-1, *rows.shape[2:]))
        return images.reshape(*rows.shape[:2], *images.shape[1:])

    def outputs(self, model: keras.Model, inputs: np.ndarray) -> np.ndarray:
        """The outputs of a model, which is given batches of one size, so that it compiles once."""
        whole = -(-len(inputs) // self.batch_size) * self.batch_size
        padded = np.resize(inputs, (whole, *inputs.shape[1:])) if whole > len(inputs) else inputs
        return model.predict(padded, batch_size=self.batch_size, verbose=0)[: len(inputs)]


class LatentSampler:
    """Samples images by decoding random latents, drawn by NumPy.

    They come from the standard normal prior of a variational autoencoder, from the prior over codes, or else from a
    normal distribution fitted to the latents of training images (Ghosh et al. 2020, arXiv:1903.12436, section 4).

    Args:
        coder: of the autoencoder.
        latents: of training images (examples, size), where a distribution is fitted.
        seed: of the random numbers.
    """

    def __init__(self, coder: ImageCoder, seed: int, latents: np.ndarray | None = None):
        self.coder = coder
        self.seed = seed
        size = coder.decoder.input_shape[1:]
        self.mean, self.root = np.zeros(size, np.float32), np.eye(size[-1], dtype=np.float32)
        if coder.kind == "vector_quantized":
            prior = coder.model.get_layer("prior")
            self.draw_codes = CodeSampler(prior, size[0] * size[1], coder.batch_size, seed)
        elif latents is not None:
            self.mean = latents.mean(axis=0)
            covariance = np.cov(latents, rowvar=False).reshape(size * 2) + 1e-6 * np.eye(*size)
            self.root = np.linalg.cholesky(covariance).T.astype(np.float32)

    def __call__(self, count: int) -> np.ndarray:
        """Images (count, height, width, channels) in uint8, always the same."""
        size = self.coder.decoder.input_shape[1:]
        if self.coder.kind == "vector_quantized":
            return self.coder.images(self.coder.quantized(self.draw_codes(count).reshape(-1, *size[:2])))
        noise = random_stream(self.seed, "noise").standard_normal((count, *size), np.float32)
        return self.coder.images(self.mean + noise @ self.root)
