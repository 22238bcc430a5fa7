"""Learning rates as functions of the step."""

import keras


def warmup_cosine(peak: float, steps: int, warmup: float) -> keras.optimizers.schedules.LearningRateSchedule:
    """Rises linearly from 0 to `peak`, then falls to 0 along half a cosine (Loshchilov and Hutter, arXiv:1608.03983).

    Args:
        peak: the highest learning rate.
        steps: optimizer steps of the whole training.
        warmup: share of the steps spent rising, 0 to 1.
    """
    rising = max(1, round(steps * warmup))
    return keras.optimizers.schedules.CosineDecay(0.0, max(1, steps - rising), warmup_target=peak, warmup_steps=rising)
