"""Learning rates as functions of the step."""

import math

import keras


@keras.saving.register_keras_serializable("keras_recipes")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to `peak`, then falls along half a cosine (Loshchilov and Hutter 2017, arXiv:1608.03983).

    The rate is above 0 in every step: it would be 0 in the step before the first and in the one after the last. As
    Keras's CosineDecay, which on PyTorch waits for the device in each step, to see on which side of the peak it is.

    Args:
        peak: the highest learning rate.
        steps: optimizer steps of the whole training.
        warmup: share of the steps spent rising, 0 to 1.
    """

    def __init__(self, peak: float, steps: int, warmup: float):
        self.peak = peak
        self.steps = steps
        self.warmup = warmup

    def __call__(self, step):
        rising = max(1, round(self.steps * self.warmup))
        step = keras.ops.cast(step, "float32") + 1
        fallen = keras.ops.clip((step - rising) / (self.steps + 1 - rising), 0.0, 1.0)
        return self.peak * keras.ops.minimum(step / rising, 0.5 * (1 + keras.ops.cos(math.pi * fallen)))

    def get_config(self):
        return {"peak": self.peak, "steps": self.steps, "warmup": self.warmup}


def warmup_cosine_rate(step: int, peak: float, steps: int, warmup: float) -> float:
    """What `WarmupCosine` gives at a step, counted from 0, for training without Keras."""
    rising = max(1, round(steps * warmup))
    step += 1
    if step < rising:
        return peak * step / rising
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / (steps + 1 - rising))))


@keras.saving.register_keras_serializable("keras_recipes")
class WarmupInverseSquareRoot(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to `peak`, then falls with the inverse square root of the step.

    Vaswani et al. 2017, arXiv:1706.03762, equation 3, with the peak named instead of following from the width.

    Args:
        peak: the highest learning rate, reached after `warmup_steps`.
        warmup_steps: optimizer steps spent rising, at least 1.
    """

    def __init__(self, peak: float, warmup_steps: int):
        self.peak = peak
        self.warmup_steps = warmup_steps

    def __call__(self, step):
        step = keras.ops.cast(step, "float32") + 1
        return self.peak * keras.ops.minimum(step / self.warmup_steps, keras.ops.sqrt(self.warmup_steps / step))

    def get_config(self):
        return {"peak": self.peak, "warmup_steps": self.warmup_steps}
