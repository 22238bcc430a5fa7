"""Initial weights drawn on the host: a seed gives the same weights on every backend, bit for bit.

Keras draws them by the generator of the running backend; on JAX, it also compiles a program for each shape, which for a
deep network takes longer than its first training steps.
"""

import math
import re
from typing import Any

import keras
import numpy as np
from scipy.special import ndtri


def draw_weights_on_host() -> None:
    """Lets the layers that are made from now on draw their weights by NumPy, where they name an initializer of Keras.

    What Keras draws by itself has the same distribution. An initializer given as an object of `keras.initializers` is
    left as it is: use one of this module.
    """
    named = keras.saving.get_custom_objects()
    for kind in HOST_INITIALIZERS:
        named[kind.__name__] = named[re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()] = kind
    named |= {"normal": RandomNormal, "uniform": RandomUniform, "zero": Zeros, "one": Ones}


class DrawnOnHost:
    """Mixed into an initializer of Keras: the same distribution, drawn by NumPy from the initializer's seed.

    As with Keras's own, an initializer whose seed is an integer gives the same values each time.
    """

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        values = self.draw(np.random.default_rng(getattr(self, "seed", 0)), tuple(shape))
        # In the order of the axes, also where they were transposed: PyTorch keeps the order that it is given in memory,
        # and its quick optimizer wants this one.
        return keras.ops.convert_to_tensor(values.astype("float32", order="C"), dtype=dtype or keras.config.floatx())

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """The values, of the shape."""
        raise NotImplementedError


class FanScaled(DrawnOnHost):
    """Mixed into those whose variance depends on the number of inputs and outputs of a unit."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        fans = dict(zip(("fan_in", "fan_out"), self.fans(shape), strict=True))
        deviation = math.sqrt(self.scale / max(1.0, fans.get(self.mode, sum(fans.values()) / 2)))
        if self.distribution == "uniform":
            return rng.uniform(-math.sqrt(3) * deviation, math.sqrt(3) * deviation, shape)
        if self.distribution == "untruncated_normal":
            return rng.normal(0.0, deviation, shape)
        return deviation / TRUNCATED_DEVIATION * truncated_normal(rng, shape)

    def fans(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Inputs and outputs of a unit whose kernel has this shape."""
        if self.input_axes is not None and self.output_axes is not None:
            return tuple(math.prod(shape[axis] for axis in axes) for axes in (self.input_axes, self.output_axes))
        if len(shape) < 2:
            return (math.prod(shape),) * 2
        return math.prod(shape[:-1]), math.prod(shape[:-2]) * shape[-1]


TRUNCATED_DEVIATION = 0.87962566103423978
"""The deviation of a normal distribution of deviation 1 that is cut off at −2 and 2."""


def truncated_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draws from a normal distribution of deviation 1, cut off at −2 and 2, by inverting its distribution function."""
    beyond = 0.5 * math.erfc(math.sqrt(2))
    return ndtri(rng.uniform(beyond, 1 - beyond, shape))


class Zeros(DrawnOnHost, keras.initializers.Zeros):
    """0 everywhere."""

    def draw(self, rng, shape):
        return np.zeros(shape)


class Ones(DrawnOnHost, keras.initializers.Ones):
    """1 everywhere."""

    def draw(self, rng, shape):
        return np.ones(shape)


class RandomNormal(DrawnOnHost, keras.initializers.RandomNormal):
    """Normal, of `mean` and `stddev`."""

    def draw(self, rng, shape):
        return rng.normal(self.mean, self.stddev, shape)


class TruncatedNormal(DrawnOnHost, keras.initializers.TruncatedNormal):
    """Normal, what is more than two deviations off drawn again."""

    def draw(self, rng, shape):
        return self.mean + self.stddev * truncated_normal(rng, shape)


class RandomUniform(DrawnOnHost, keras.initializers.RandomUniform):
    """Uniform between `minval` and `maxval`."""

    def draw(self, rng, shape):
        return rng.uniform(self.minval, self.maxval, shape)


class Orthogonal(DrawnOnHost, keras.initializers.Orthogonal):
    """The Q of a random matrix, its signs made uniform (Saxe et al. 2013, arXiv:1312.6120; Mezzadri 2006)."""

    def draw(self, rng, shape):
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
        q = q * np.sign(np.diag(r))
        return self.gain * (q if rows >= columns else q.T).reshape(shape)


class VarianceScaling(FanScaled, keras.initializers.VarianceScaling):
    """Of variance `scale` over the number of inputs, outputs, or their mean."""


class GlorotUniform(FanScaled, keras.initializers.GlorotUniform):
    """Uniform, of variance 1 over the mean of inputs and outputs (Glorot and Bengio 2010)."""


class GlorotNormal(FanScaled, keras.initializers.GlorotNormal):
    """Truncated normal, of variance 1 over the mean of inputs and outputs (Glorot and Bengio 2010)."""


class HeUniform(FanScaled, keras.initializers.HeUniform):
    """Uniform, of variance 2 over the inputs (He et al. 2015, arXiv:1502.01852)."""


class HeNormal(FanScaled, keras.initializers.HeNormal):
    """Truncated normal, of variance 2 over the inputs (He et al. 2015, arXiv:1502.01852)."""


class LecunUniform(FanScaled, keras.initializers.LecunUniform):
    """Uniform, of variance 1 over the inputs (LeCun et al. 1998)."""


class LecunNormal(FanScaled, keras.initializers.LecunNormal):
    """Truncated normal, of variance 1 over the inputs (LeCun et al. 1998)."""


HOST_INITIALIZERS = (
    Zeros, Ones, RandomNormal, TruncatedNormal, RandomUniform, Orthogonal, VarianceScaling, GlorotUniform, GlorotNormal,
    HeUniform, HeNormal, LecunUniform, LecunNormal,
)  # fmt: skip
