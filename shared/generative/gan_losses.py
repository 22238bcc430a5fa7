"""What a generator and a critic play for: losses of their scores, and penalties on the slope of the critic.

The critic (the discriminator, where its score is a logit) gives each image a score, high for real ones.
"""

from collections.abc import Callable
from typing import Any, Literal

from keras import ops

from shared.backends.gradients import value_and_grad

AdversarialLoss = Literal["nonsaturating", "hinge", "wgan_gp"]
"""Cross-entropy, with the generator's loss that does not flatten out where the critic sees through it (Goodfellow et
al. 2014, arXiv:1406.2661, section 3); the hinge loss (Lim and Ye 2017, arXiv:1705.02894); the Wasserstein distance,
which needs `interpolation_penalty` beside it (Gulrajani et al. 2017, arXiv:1704.00028)."""


def critic_loss(loss: AdversarialLoss, real: Any, fake: Any) -> Any:
    """What the critic makes small, a scalar.

    Args:
        loss: which.
        real: its scores of real images, of any shape.
        fake: its scores of generated ones.
    """
    match loss:
        case "nonsaturating":
            return ops.mean(ops.softplus(-real)) + ops.mean(ops.softplus(fake))
        case "hinge":
            return ops.mean(ops.relu(1 - real)) + ops.mean(ops.relu(1 + fake))
        case "wgan_gp":
            return ops.mean(fake) - ops.mean(real)


def generator_loss(loss: AdversarialLoss, fake: Any) -> Any:
    """What the generator makes small, a scalar, from the critic's scores of its images."""
    return ops.mean(ops.softplus(-fake)) if loss == "nonsaturating" else -ops.mean(fake)


def squared_slopes(score: Callable[[Any], Any], images: Any) -> Any:
    """|∇ score|² at each image, (batch,).

    Args:
        score: from images to scores, each of its own image alone; so without batch normalization in training.
        images: (batch, height, width, channels).
    """
    _, (slopes,) = value_and_grad(lambda x: ops.sum(score(x)), [images])
    return ops.sum(ops.square(slopes), axis=(1, 2, 3))


def real_penalty(score: Callable[[Any], Any], real: Any) -> Any:
    """R1: half the mean |∇ score|² at real images (Mescheder et al. 2018, arXiv:1801.04406, equation 9 with γ = 1).

    Args:
        score: see `squared_slopes`.
        real: images (batch, height, width, channels).
    """
    return ops.mean(squared_slopes(score, real)) / 2


def interpolation_penalty(score: Callable[[Any], Any], real: Any, fake: Any, shares: Any) -> Any:
    """The mean (|∇ score| − 1)² between real and generated images (Gulrajani et al. 2017, arXiv:1704.00028, eq. 3).

    Args:
        score: see `squared_slopes`.
        real: images (batch, height, width, channels).
        fake: generated images, of that shape.
        shares: (batch,), 0 to 1, of the real one in each mixture.
    """
    shares = ops.reshape(shares, (-1, 1, 1, 1))
    slopes = ops.sqrt(squared_slopes(score, shares * real + (1 - shares) * fake) + 1e-12)  # at 0 the root has no slope
    return ops.mean(ops.square(slopes - 1))


def slope_penalty(
    loss: AdversarialLoss, r1: float, score: Callable[[Any], Any], real: Any, fake: Any, shares: Any
) -> Any:
    """What is added to a critic's loss: `real_penalty` times r1, and with wgan_gp 10 times `interpolation_penalty`."""
    total = r1 * real_penalty(score, real) if r1 else 0.0
    return total + 10 * interpolation_penalty(score, real, fake, shares) if loss == "wgan_gp" else total
