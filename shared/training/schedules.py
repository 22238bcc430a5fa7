"""Learning-rate schedules."""

import math

import keras


@keras.saving.register_keras_serializable("keras_recipes")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear learning-rate warmup and cosine decay (Loshchilov and Hutter 2017, arXiv:1608.03983).

    The rate is above 0 in every step: the zeros are one step before the first and one after the last. Unlike Keras's
    CosineDecay it does not synchronize with the device in each step on PyTorch.

    Args:
        peak: the highest learning rate.
        steps: optimizer steps of the whole training.
        warmup: fraction of the steps with warmup, 0 to 1.
    """

    def __init__(self, peak: float, steps: int, warmup: float):
        self.peak = peak
        self.steps = steps
        self.warmup = warmup

    def __call__(self, step):
        warmup_steps = max(1, round(self.steps * self.warmup))
        step = keras.ops.cast(step, "float32") + 1
        progress = keras.ops.clip((step - warmup_steps) / (self.steps + 1 - warmup_steps), 0.0, 1.0)
        return self.peak * keras.ops.minimum(step / warmup_steps, 0.5 * (1 + keras.ops.cos(math.pi * progress)))

    def get_config(self):
        return {"peak": self.peak, "steps": self.steps, "warmup": self.warmup}


def warmup_cosine_rate(step: int, peak: float, steps: int, warmup: float) -> float:
    """Learning rate of `WarmupCosine` at a step, counted from 0, for the native baselines."""
    warmup_steps = max(1, round(steps * warmup))
    step += 1
    if step < warmup_steps:
        return peak * step / warmup_steps
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup_steps) / (steps + 1 - warmup_steps))))


@keras.saving.register_keras_serializable("keras_recipes")
class WarmupInverseSquareRoot(keras.optimizers.schedules.LearningRateSchedule):
    """Linear learning-rate warmup and inverse square root decay.

    Vaswani et al. 2017, arXiv:1706.03762, equation 3, with an explicit peak instead of one derived from the width.

    Args:
        peak: the highest learning rate, reached after `warmup_steps`.
        warmup_steps: optimizer steps of warmup, at least 1.
    """

    def __init__(self, peak: float, warmup_steps: int):
        self.peak = peak
        self.warmup_steps = warmup_steps

    def __call__(self, step):
        step = keras.ops.cast(step, "float32") + 1
        return self.peak * keras.ops.minimum(step / self.warmup_steps, keras.ops.sqrt(self.warmup_steps / step))

    def get_config(self):
        return {"peak": self.peak, "warmup_steps": self.warmup_steps}


@keras.saving.register_keras_serializable("keras_recipes")
class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """One-cycle policy (Smith and Topin 2018, arXiv:1708.07120): up, and down to much less than at first, by cosines.

    The rates are those of PyTorch's OneCycleLR; the momentum stays as it is.

    Args:
        peak: the highest learning rate.
        steps: optimizer steps of the whole training.
        rising: fraction of the steps until the peak, 0 to 1.
        start: the first rate, as a fraction of the peak.
        end: the last one, as a fraction of the first.
    """

    def __init__(self, peak: float, steps: int, rising: float = 0.3, start: float = 1 / 25, end: float = 1e-4):
        self.peak = peak
        self.steps = steps
        self.rising = rising
        self.start = start
        self.end = end

    def __call__(self, step):
        first, last = self.peak * self.start, self.peak * self.start * self.end
        turn = max(1.0, self.rising * self.steps - 1)
        step = keras.ops.cast(step, "float32")
        up = 0.5 * (1 - keras.ops.cos(math.pi * keras.ops.minimum(step / turn, 1.0)))
        fall = keras.ops.clip((step - turn) / max(1.0, self.steps - 1 - turn), 0.0, 1.0)
        down = 0.5 * (1 + keras.ops.cos(math.pi * fall))
        return keras.ops.where(step < turn, first + (self.peak - first) * up, last + (self.peak - last) * down)

    def get_config(self):
        names = ("peak", "steps", "rising", "start", "end")
        return {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable("keras_recipes")
class ScheduleOfUpdates(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule by the number of updates, for an optimizer that accumulates gradients.

    Keras 3.15 hands a schedule the number of batches instead, of which there are several an update.

    Args:
        schedule: of the learning rate, by the number of updates.
        batches: of which an update is made, `gradient_accumulation_steps`.
    """

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, batches: int):
        self.schedule = schedule
        self.batches = batches

    def __call__(self, step):
        return self.schedule(step // self.batches)

    def get_config(self):
        return {"schedule": keras.saving.serialize_keras_object(self.schedule), "batches": self.batches}

    @classmethod
    def from_config(cls, config):
        return cls(**config | {"schedule": keras.saving.deserialize_keras_object(config["schedule"])})
