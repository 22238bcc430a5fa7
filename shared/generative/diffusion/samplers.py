"""Ways from noise to an image, each as a table of numbers. NumPy only."""

from typing import Literal, NamedTuple

import numpy as np

from shared.generative.diffusion.schedule import Rates, cosine_rates, posterior

SamplerName = Literal["ddpm", "ddim", "dpm_solver"]


class SamplerSteps(NamedTuple):
    """What each step does, an array (steps,) a field:

    next = keep · noisy + image · (predicted image) + before · (image predicted a step before) + fresh · (new noise)
    """

    time: np.ndarray
    """When the network is asked."""
    signal: np.ndarray
    """Rates of the noisy image at that time."""
    noise: np.ndarray
    keep: np.ndarray
    image: np.ndarray
    before: np.ndarray
    fresh: np.ndarray


def sampler_steps(name: SamplerName, steps: int) -> SamplerSteps:
    """The steps of a sampler, from time 1 to 0. The last one gives the image that is predicted there.

    The times are squares of equal parts of 1, so that steps are small at the end, where details come out (Song et al.
    2020, appendix D.2); with equal steps, 20 of them leave but half of the contrast of the faintest.

    "ddpm" draws from the `posterior` at each step (Ho et al. 2020, arXiv:2006.11239, algorithm 2), its full chain in
    1000 steps. "ddim" adds no new noise (Song et al. 2020, arXiv:2010.02502, equation 12 with σ = 0). "dpm_solver" is
    DPM-Solver++(2M), of second order, which needs the fewest steps (Lu et al. 2022, arXiv:2211.01095, algorithm 2).

    Args:
        name: see above.
        steps: how many times the network is asked, at least 1.
    """
    time = np.linspace(1, 0, steps + 1) ** 2
    rates = cosine_rates(time)
    now = Rates(rates.signal[:-1], rates.noise[:-1])
    # At the end nothing is left of the noise.
    then = Rates(np.append(rates.signal[1:-1], 1.0), np.append(rates.noise[1:-1], 0.0))
    zeros = np.zeros(steps)
    if name == "ddpm":
        of_noisy, of_image, deviation = posterior(now, then)
        return SamplerSteps(time[:-1], *now, of_noisy, of_image, zeros, deviation)
    keep = then.noise / now.noise
    image = then.signal - now.signal * keep
    before = share_of_step_before(now, then) if name == "dpm_solver" else zeros
    return SamplerSteps(time[:-1], *now, keep, image * (1 + before), -image * before, zeros)


def share_of_step_before(now: Rates, then: Rates) -> np.ndarray:
    """By how much DPM-Solver++(2M) extrapolates the predicted image from that of the step before, shape (steps,).

    1 / 2r in the paper, r the ratio of the steps in the logarithm of signal / noise; 0, which is first order, in the
    first step, and in the last, where that logarithm ends at infinity.
    """
    logarithm = np.log(now.signal / now.noise)
    lengths = np.diff(logarithm)  # of all steps but the last
    share = np.zeros(len(logarithm))
    share[1:-1] = lengths[1:] / lengths[:-1] / 2
    return share
