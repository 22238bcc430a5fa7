"""Diffusion samplers, each as a table of coefficients. NumPy only."""

from typing import Literal, NamedTuple

import numpy as np

from shared.generative.diffusion.schedule import Rates, cosine_rates, posterior

SamplerName = Literal["ddpm", "ddim", "dpm_solver", "sde_dpm_solver"]


class SamplerSteps(NamedTuple):
    """Coefficients of each sampling step, an array (steps,) in each field:

    next = keep · noisy + image · (predicted image) + before · (image predicted one step before) + fresh · (new noise)

    The output of the network is without + scale · (with − without), with the label and with the null label, where
    scale = 1 + guided · (guidance − 1).
    """

    time: np.ndarray
    """Time at which the network is evaluated."""
    signal: np.ndarray
    """Rates of the noisy image at that time."""
    noise: np.ndarray
    guided: np.ndarray
    """1 where there is guidance, else 0."""
    keep: np.ndarray
    image: np.ndarray
    before: np.ndarray
    fresh: np.ndarray


GUIDED_RATIOS = 0.25, 4.0
"""Lowest and highest noise / signal at which there is guidance (Kynkäänniemi et al. 2024, arXiv:2404.07724): with more
noise it leaves few kinds of images, with less it does nothing for them."""


def sampler_steps(name: SamplerName, steps: int) -> SamplerSteps:
    """Coefficients of a sampler, from time 1 to 0. The last step returns the predicted image.

    The times are quadratic, so that steps are small at the end, where details appear (Song et al. 2020, appendix D.2).

    "ddpm" draws from the `posterior` at each step (Ho et al. 2020, arXiv:2006.11239, algorithm 2), with 1000 steps in
    the paper. "ddim" adds no new noise (Song et al. 2020, arXiv:2010.02502, equation 12 with σ = 0). Both are of first
    order. Of second order, and so in fewer steps, are DPM-Solver++(2M), without new noise, and SDE-DPM-Solver++(2M),
    with it (Lu et al. 2022, arXiv:2211.01095): new noise makes up for errors made before.

    Args:
        name: "ddpm", "ddim", "dpm_solver" or "sde_dpm_solver".
        steps: number of sampling steps, at least 1.
    """
    time = np.linspace(1, 0, steps + 1) ** 2
    rates = cosine_rates(time)
    now = Rates(rates.signal[:-1], rates.noise[:-1])
    # The last step removes all noise.
    then = Rates(np.append(rates.signal[1:-1], 1.0), np.append(rates.noise[1:-1], 0.0))
    ratio, zeros = now.noise / now.signal, np.zeros(steps)
    begun = time[:-1], *now, ((ratio >= GUIDED_RATIOS[0]) & (ratio <= GUIDED_RATIOS[1])).astype(float)
    if name in ("ddpm", "sde_dpm_solver"):
        keep, image, fresh = posterior(now, then)
    else:
        keep, fresh = then.noise / now.noise, zeros
        image = then.signal - now.signal * keep
    before = extrapolation_weight(now) if name in ("dpm_solver", "sde_dpm_solver") else zeros
    return SamplerSteps(*begun, keep, image * (1 + before), -image * before, fresh)


def extrapolation_weight(now: Rates) -> np.ndarray:
    """Weight with which samplers of second order extrapolate from the image predicted one step before, shape (steps,).

    1 / 2r in the paper, r the ratio of successive steps in log(signal / noise); 0, which is first order, in the first
    step and in the last, where that logarithm is infinite.
    """
    logarithm = np.log(now.signal / now.noise)
    lengths = np.diff(logarithm)  # of all steps but the last
    weight = np.zeros(len(logarithm))
    weight[1:-1] = lengths[1:] / lengths[:-1] / 2
    return weight
