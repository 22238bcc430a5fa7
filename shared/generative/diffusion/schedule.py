"""Noise schedule and prediction targets of diffusion models. Plain arithmetic, for NumPy and every backend."""

from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.special

Prediction = Literal["v", "noise"]
"""Prediction target: the noise ε (Ho et al. 2020, arXiv:2006.11239), or the velocity v = signal · ε − noise · image
(Salimans and Ho 2022, arXiv:2202.00512, appendix D), which is equally informative at every time."""


LEAST_SIGNAL = 0.002
"""Signal rate at time 1."""


LEAST_NOISE = 0.0125
"""Noise rate at time 0: less than two of 255 grey levels, as in Nichol and Dhariwal 2021, arXiv:2102.09672."""


ANGLES = float(np.arcsin(LEAST_NOISE)), float(np.arccos(LEAST_SIGNAL))
"""Angles of time 0 and 1, whose cosine is the signal rate."""


class Rates(NamedTuple):
    """Signal and noise rates (α and σ): a noisy image is signal · image + noise · ε, with ε standard normal.

    Both are 0 to 1, and signal² + noise² = 1.
    """

    signal: Any
    noise: Any


def cosine_rates(time: Any) -> Rates:
    """Cosine schedule (Nichol and Dhariwal 2021, arXiv:2102.09672, equation 17).

    The signal is the cosine of an angle linear in time, cut at both ends, so that neither signal nor noise is 0.

    Args:
        time: numbers or an array of any shape, 0 to 1.

    Returns:
        NumPy arrays of the same shape, in float64.
    """
    first, last = ANGLES
    angle = first + (last - first) * np.asarray(time, np.float64)
    return Rates(np.cos(angle), np.sin(angle))


def training_times(quantile: np.ndarray) -> np.ndarray:
    """Times of training examples by their quantiles, 0 to 1: most of them where images take shape.

    log(noise / signal) is normal, of mean log(0.3 / 0.5) and deviation 1.2, as in Karras et al. 2022, arXiv:2206.00364,
    table 1, for images of deviation 0.5.
    """
    ratio = np.exp(np.log(0.6) + 1.2 * scipy.special.ndtri(quantile))
    first, last = ANGLES
    return np.clip((np.arctan(ratio) - first) / (last - first), 0, 1)


def noisy_image(image: Any, noise: Any, rates: Rates) -> Any:
    """Forward diffusion: an image with noise at these rates."""
    return rates.signal * image + rates.noise * noise


def training_target(prediction: Prediction, image: Any, noise: Any, rates: Rates) -> Any:
    """Target of the network for a `noisy_image`."""
    return noise if prediction == "noise" else rates.signal * noise - rates.noise * image


def predicted_image(prediction: Prediction, noisy: Any, output: Any, rates: Rates) -> Any:
    """The image that the network's output implies."""
    if prediction == "noise":
        return (noisy - rates.noise * output) / rates.signal
    return rates.signal * noisy - rates.noise * output


def predicted_noise(prediction: Prediction, noisy: Any, output: Any, rates: Rates) -> Any:
    """The noise that the network's output implies."""
    return output if prediction == "noise" else rates.noise * noisy + rates.signal * output


class Posterior(NamedTuple):
    """A normal distribution with mean noisy_weight · noisy image + image_weight · image."""

    noisy_weight: Any
    image_weight: Any
    deviation: Any


def posterior(now: Rates, then: Rates) -> Posterior:
    """Posterior of a less noisy image, given a noisier one and the image itself.

    Ho et al. 2020, arXiv:2006.11239, equations 6 and 7; for any two times, Kingma et al. 2021, arXiv:2107.00630,
    appendix A.2.

    Args:
        now: rates of the noisier image.
        then: rates of the less noisy image.
    """
    kept = now.signal / then.signal
    added = now.noise**2 - kept**2 * then.noise**2  # variance of the noise added in between
    return Posterior(
        noisy_weight=kept * then.noise**2 / now.noise**2,
        image_weight=then.signal * added / now.noise**2,
        deviation=np.sqrt(np.maximum(added, 0)) * then.noise / now.noise,
    )
