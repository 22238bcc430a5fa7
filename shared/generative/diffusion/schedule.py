"""How noise is added to images, and what a network predicts of it. Plain arithmetic, for NumPy and every backend."""

from typing import Any, Literal, NamedTuple

import numpy as np

Prediction = Literal["v", "noise"]
"""What a network predicts: the noise ε (Ho et al. 2020, arXiv:2006.11239), or the velocity v = signal · ε − noise ·
image (Salimans and Ho 2022, arXiv:2202.00512, appendix D), which says as much at every time."""


LEAST_SIGNAL = 0.002
"""What is left of the image at time 1."""


LEAST_NOISE = 0.0125
"""The noise at time 0: less than two of 255 levels of grey, as in Nichol and Dhariwal 2021, arXiv:2102.09672."""


class Rates(NamedTuple):
    """A noisy image is signal · image + noise · ε, where ε is drawn from a normal distribution of deviation 1.

    Both 0 to 1, and signal² + noise² = 1.
    """

    signal: Any
    noise: Any


def cosine_rates(time: Any) -> Rates:
    """The cosine schedule (Nichol and Dhariwal 2021, arXiv:2102.09672, equation 17).

    The signal is the cosine of an angle in proportion to time, cut at both ends, so that neither signal nor noise is 0.

    Args:
        time: numbers or an array of any shape, 0 to 1.

    Returns:
        NumPy arrays of the same shape, in floats of 64 bits.
    """
    first, last = np.arcsin(LEAST_NOISE), np.arccos(LEAST_SIGNAL)
    angle = first + (last - first) * np.asarray(time, np.float64)
    return Rates(np.cos(angle), np.sin(angle))


def noisy_image(image: Any, noise: Any, rates: Rates) -> Any:
    """What an image is at the time of these rates."""
    return rates.signal * image + rates.noise * noise


def training_target(prediction: Prediction, image: Any, noise: Any, rates: Rates) -> Any:
    """What the network should say of `noisy_image`."""
    return noise if prediction == "noise" else rates.signal * noise - rates.noise * image


def predicted_image(prediction: Prediction, noisy: Any, output: Any, rates: Rates) -> Any:
    """The image that the network's output means."""
    if prediction == "noise":
        return (noisy - rates.noise * output) / rates.signal
    return rates.signal * noisy - rates.noise * output


def predicted_noise(prediction: Prediction, noisy: Any, output: Any, rates: Rates) -> Any:
    """The noise that the network's output means."""
    return output if prediction == "noise" else rates.noise * noisy + rates.signal * output


class Posterior(NamedTuple):
    """How an image and its noisy version say what a less noisy one was: normal, its mean linear in both."""

    of_noisy: Any
    of_image: Any
    deviation: Any


def posterior(now: Rates, then: Rates) -> Posterior:
    """The distribution of a less noisy image, given a noisier version of it and the image itself.

    Ho et al. 2020, arXiv:2006.11239, equations 6 and 7; for any two times, Kingma et al. 2021, arXiv:2107.00630,
    appendix A.2.

    Args:
        now: rates of the noisier.
        then: rates of the less noisy.
    """
    kept = now.signal / then.signal
    added = now.noise**2 - kept**2 * then.noise**2  # variance of the noise that came in between
    return Posterior(
        of_noisy=kept * then.noise**2 / now.noise**2,
        of_image=then.signal * added / now.noise**2,
        deviation=np.sqrt(np.maximum(added, 0)) * then.noise / now.noise,
    )
