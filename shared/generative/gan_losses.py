"""Adversarial losses and gradient penalties.

The critic (the discriminator, where its score is a logit) maps an image to a score, high for real images.
"""

from collections.abc import Callable
from typing import Any, Literal

from keras import ops

from shared.backends.gradients import value_and_grad

AdversarialLoss = Literal["nonsaturating", "hinge", "wgan_gp"]
"""Non-saturating cross-entropy (Goodfellow et al. 2014, arXiv:1406.2661, section 3); hinge loss (Lim and Ye 2017,
arXiv:1705.02894); Wasserstein loss with `gradient_penalty` (Gulrajani et al. 2017, arXiv:1704.00028)."""


def critic_loss(loss: AdversarialLoss, real: Any, fake: Any) -> Any:
    """Discriminator loss, a scalar.

    Args:
        loss: the adversarial loss.
        real: scores of real images, of any shape.
        fake: scores of generated images.
    """
    match loss:
        case "nonsaturating":
            return ops.mean(ops.softplus(-real)) + ops.mean(ops.softplus(fake))
        case "hinge":
            return ops.mean(ops.relu(1 - real)) + ops.mean(ops.relu(1 + fake))
        case "wgan_gp":
            return ops.mean(fake) - ops.mean(real)


def generator_loss(loss: AdversarialLoss, fake: Any) -> Any:
    """Generator loss, a scalar, from the critic's scores of generated images."""
    return ops.mean(ops.softplus(-fake)) if loss == "nonsaturating" else -ops.mean(fake)


def squared_gradient_norm(score: Callable[[Any], Any], images: Any) -> Any:
    """Squared gradient norm |∇ score|² at each image, (batch,).

    Args:
        score: function from images to scores, without batch normalization in training, which would mix the images.
        images: (batch, height, width, channels).
    """
    _, (gradients,) = value_and_grad(lambda x: ops.sum(score(x)), [images])
    return ops.sum(ops.square(gradients), axis=(1, 2, 3))


def r1_penalty(score: Callable[[Any], Any], real: Any) -> Any:
    """R1 penalty: half the mean |∇ score|² at real images (Mescheder et al. 2018, arXiv:1801.04406, eq. 9, γ = 1).

    Args:
        score: see `squared_gradient_norm`.
        real: images (batch, height, width, channels).
    """
    return ops.mean(squared_gradient_norm(score, real)) / 2


def gradient_penalty(score: Callable[[Any], Any], real: Any, fake: Any, epsilon: Any) -> Any:
    """Gradient penalty: mean (|∇ score| − 1)² at interpolated images (WGAN-GP, arXiv:1704.00028, equation 3).

    Args:
        score: see `squared_gradient_norm`.
        real: images (batch, height, width, channels).
        fake: generated images, of that shape.
        epsilon: (batch,), 0 to 1, the weight of the real image in each interpolation.
    """
    epsilon = ops.reshape(epsilon, (-1, 1, 1, 1))
    squared_norms = squared_gradient_norm(score, epsilon * real + (1 - epsilon) * fake)
    norms = ops.sqrt(squared_norms + 1e-12)  # the root has no derivative at 0
    return ops.mean(ops.square(norms - 1))


def critic_penalty(loss: AdversarialLoss, r1: float, score: Callable, real: Any, fake: Any, epsilon: Any) -> Any:
    """Regularization of the critic: `r1_penalty` times r1, and with wgan_gp 10 times `gradient_penalty`."""
    total = r1 * r1_penalty(score, real) if r1 else 0.0
    return total + 10 * gradient_penalty(score, real, fake, epsilon) if loss == "wgan_gp" else total
