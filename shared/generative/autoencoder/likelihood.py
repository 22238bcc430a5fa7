"""The likelihood of 8-bit pixels, and the divergence and bounds of variational autoencoders."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

LEAST_LOG_SCALE = -7.0
"""Least logarithm of the scale of a discretized logistic distribution of pixels from -1 to 1: nearly all probability is
then on one level, and no gradient overflows (Salimans et al. 2017, arXiv:1701.05517)."""


def split_parameters(parameters: Any) -> tuple[Any, Any]:
    """The first and the second half of the channels (…, 2 · channels), in float32."""
    first, second = ops.split(ops.cast(parameters, "float32"), 2, axis=-1)
    return first, second


def discretized_logistic(pixels: Any, parameters: Any) -> Any:
    """Log-probability of 8-bit levels under a logistic distribution that is cut at the middles between them.

    A probability of each of 256 levels, which add up to 1, so that nats and bits are those of a code for the image
    (Kingma et al. 2016, arXiv:1606.04934, section 5.2; Salimans et al. 2017, equation 2). A normal density or a
    Bernoulli likelihood of grey levels gives none. The lowest and the highest level have all that lies beyond them.

    With a and b the standardized bounds, σ(b) − σ(a) = σ(b) · σ(−a) · (1 − exp(a − b)), whose logarithm is exact
    however small the probability is.

    Args:
        pixels: levels (…, channels), -1 to 1 in steps of 2 / 255, float32.
        parameters: (…, 2 · channels): means, then logarithms of the scales.

    Returns:
        (…, channels), in nats, float32.
    """
    pixels = ops.cast(pixels, "float32")
    mean, log_scale = split_parameters(parameters)
    log_scale = ops.maximum(log_scale, LEAST_LOG_SCALE)
    per_scale = ops.exp(-log_scale)
    half = 1 / 255
    below = ops.log_sigmoid((pixels + half - mean) * per_scale)
    above = ops.log_sigmoid((mean - pixels + half) * per_scale)
    width = ops.log(-ops.expm1(-2 * half * per_scale))
    inside = below + above + width
    return ops.where(pixels < half - 1, below, ops.where(pixels > 1 - half, above, inside))


@keras.saving.register_keras_serializable("keras_recipes")
def negative_log_likelihood(y_true: Any, y_pred: Any) -> Any:
    """Negative log-likelihood of images by `discretized_logistic`, in nats an image: (batch,).

    Args:
        y_true: images (batch, height, width, channels), -1 to 1.
        y_pred: (batch, height, width, 2 · channels).
    """
    return -ops.sum(discretized_logistic(y_true, y_pred), axis=(1, 2, 3))


def gaussian_divergence(mean: Any, log_variance: Any) -> Any:
    """KL divergence of a normal distribution from the standard normal one, in nats.

    Kingma and Welling 2013, arXiv:1312.6114, appendix B.

    Args:
        mean: of any shape.
        log_variance: of the same shape; the covariance is diagonal.

    Returns:
        The divergence of each dimension, of the same shape; their sum is that of all together.
    """
    return 0.5 * (ops.square(mean) + ops.exp(log_variance) - 1 - log_variance)


def log_importance_weights(log_likelihood: Any, log_variance: Any, noise: Any, latent: Any) -> Any:
    """log p(x|z) + log p(z) − log q(z|x) of latents z = mean + deviation · noise: (batch,), in nats.

    Its mean over noise is the evidence lower bound (ELBO).

    Args:
        log_likelihood: log p(x|z), (batch,).
        log_variance: of the posterior q, (batch, latent).
        noise: standard normal, (batch, latent).
        latent: z, (batch, latent).
    """
    return log_likelihood + 0.5 * ops.sum(ops.square(noise) - ops.square(latent) + log_variance, axis=-1)


def importance_weighted_bound(log_weights: np.ndarray) -> np.ndarray:
    """Importance-weighted bound on the log-likelihood, IWAE (Burda et al. 2015, arXiv:1509.00519, equation 8).

    At least the mean of the logarithms, which is the ELBO by the same samples, and nearer to the likelihood with more.

    Args:
        log_weights: (samples, examples), in nats; see `log_importance_weights`.

    Returns:
        (examples,), in nats.
    """
    highest = log_weights.max(axis=0)
    return highest + np.log(np.mean(np.exp(log_weights - highest), axis=0))


def bits_per_dimension(nats: float, image_shape: tuple[int, ...]) -> float:
    """Bits a dimension, of an image of so many nats.

    Args:
        nats: of a whole image.
        image_shape: (height, width, channels), each pixel of each channel a dimension.
    """
    return nats / math.prod(image_shape) / math.log(2)
