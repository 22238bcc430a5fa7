"""Training techniques, a table for each: a line is a technique, its name the value of an option.

All are Keras's own but for the one-cycle schedule. `TECHNIQUES` names the tables by the options that choose from them.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple

import keras
from keras import layers, losses, optimizers, regularizers
from keras.optimizers import schedules

from shared.layers.normalization import BatchNormalization
from shared.training.schedules import OneCycle


class OptimizerTechnique(NamedTuple):
    """An optimizer, and its usual learning rate."""

    scale: float
    """The learning rate, as a multiple of that of SGD with momentum."""
    build: Callable[..., keras.optimizers.Optimizer]
    """From a learning rate or schedule."""


# Muon is for the matrices within a network: its Adam takes the last layer, biases, and kernels of convolutions.
OPTIMIZERS = {
    "sgd": OptimizerTechnique(3, optimizers.SGD),  # Robbins and Monro 1951
    "momentum": OptimizerTechnique(1, partial(optimizers.SGD, momentum=0.9)),  # Polyak 1964
    "nesterov": OptimizerTechnique(1, partial(optimizers.SGD, momentum=0.9, nesterov=True)),  # Sutskever et al. 2013
    "adagrad": OptimizerTechnique(2, optimizers.Adagrad),  # Duchi, Hazan and Singer 2011
    "rmsprop": OptimizerTechnique(0.05, optimizers.RMSprop),  # Hinton 2012
    "adam": OptimizerTechnique(0.1, optimizers.Adam),  # Kingma and Ba 2015
    "adamw": OptimizerTechnique(0.1, partial(optimizers.AdamW, weight_decay=0.01)),  # Loshchilov and Hutter 2019
    "lion": OptimizerTechnique(0.01, optimizers.Lion),  # Chen et al. 2023
    "muon": OptimizerTechnique(0.2, partial(optimizers.Muon, exclude_layers=["logits"])),  # Jordan et al. 2024
}

# From the highest learning rate and the number of steps.
SCHEDULES: dict[str, Callable[[float, int], Any]] = {
    "constant": lambda peak, steps: peak,
    "step_decay": lambda peak, steps: schedules.PiecewiseConstantDecay(
        [steps // 2, steps * 3 // 4], [peak, peak / 10, peak / 100]
    ),
    "exponential": lambda peak, steps: schedules.ExponentialDecay(peak, steps, 0.01),
    "linear": lambda peak, steps: schedules.PolynomialDecay(peak, steps, 0.0),
    "cosine": lambda peak, steps: schedules.CosineDecay(peak, steps),  # Loshchilov and Hutter 2017
    "warmup": lambda peak, steps: schedules.CosineDecay(  # Goyal et al. 2017
        0.0, steps - steps // 10, warmup_target=peak, warmup_steps=max(1, steps // 10)
    ),
    "one_cycle": lambda peak, steps: OneCycle(peak, steps),  # Smith and Topin 2018
}

INITIALIZATIONS = (
    "zeros",
    "random_normal",  # of deviation 0.05, whatever the width
    "lecun_normal",  # LeCun et al. 1998: variance 1 / inputs
    "glorot_uniform",  # Glorot and Bengio 2010: variance 2 / (inputs + outputs)
    "he_normal",  # He et al. 2015: variance 2 / inputs
    "orthogonal",  # Saxe et al. 2013
)

ACTIVATION_FUNCTIONS = ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "swish", "mish")

# Over a batch, or within each image: over all channels, over each, over groups of them, or without the mean.
NORMALIZATIONS: dict[str, Callable[[], layers.Layer] | None] = {
    "none": None,
    "batch": BatchNormalization,  # Ioffe and Szegedy 2015
    "layer": layers.LayerNormalization,  # Ba, Kiros and Hinton 2016
    "instance": partial(layers.GroupNormalization, groups=-1),  # Ulyanov, Vedaldi and Lempitsky 2016
    "group": partial(layers.GroupNormalization, groups=8),  # Wu and He 2018
    "rms": layers.RMSNormalization,  # Zhang and Sennrich 2019
}


class Regularization(NamedTuple):
    """What keeps a network from learning its training images by heart; each is off by default."""

    dropout: float = 0.0
    kernel: Callable[[], keras.regularizers.Regularizer] | None = None
    """Penalty on the kernels, part of the loss."""
    weight_decay: float | None = None
    """Of the kernels, part of the update."""
    label_smoothing: float = 0.0
    patience: int | None = None
    """Early stopping: epochs without a lower validation loss."""


REGULARIZATIONS = {
    "none": Regularization(),
    "dropout": Regularization(dropout=0.2),  # Srivastava et al. 2014
    "l1": Regularization(kernel=partial(regularizers.L1, 1e-5)),
    "l2": Regularization(kernel=partial(regularizers.L2, 5e-4)),
    "weight_decay": Regularization(weight_decay=1e-2),
    "label_smoothing": Regularization(label_smoothing=0.1),  # Szegedy et al. 2016
    "early_stopping": Regularization(patience=3),
}

# Arguments of MixedImageBatches.
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "flip": {"flip": True},
    "crop": {"crop": 2},
    "cutout": {"cutout": 8},  # DeVries and Taylor 2017
    "mixup": {"mixup": 0.2},  # Zhang et al. 2018
    "cutmix": {"cutmix": 1.0},  # Yun et al. 2019
}

LOSSES = {
    "cross_entropy": partial(losses.CategoricalCrossentropy, from_logits=True),
    "focal": partial(losses.CategoricalFocalCrossentropy, from_logits=True),  # Lin et al. 2017
    "squared_error": losses.MeanSquaredError,  # of the logits from 0 and 1: Hui and Belkin 2021
    "hinge": losses.CategoricalHinge,  # Crammer and Singer 2001
}

SMOOTHED_LOSSES = ("cross_entropy", "focal")
"""Those that Keras smooths labels for."""

PRECISIONS = (
    "float32",
    "mixed_bfloat16",
    "mixed_float16",
)  # Keras scales the loss in float16: Micikevicius et al. 2018

ACCUMULATIONS = (1, 2, 4, 8)  # micro-batches a step, which is the same step

TECHNIQUES: dict[str, Collection[Any]] = {
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "initialization": INITIALIZATIONS,
    "activation": ACTIVATION_FUNCTIONS,
    "normalization": NORMALIZATIONS,
    "regularization": REGULARIZATIONS,
    "augmentation": AUGMENTATIONS,
    "loss": LOSSES,
    "precision": PRECISIONS,
    "accumulation": ACCUMULATIONS,
}
