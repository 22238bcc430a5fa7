"""Options by which a recipe has training techniques, one of which it varies."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Self

from shared.errors import UsageError
from shared.foundations.techniques import (
    ACTIVATION_FUNCTIONS,
    AUGMENTATIONS,
    INITIALIZATIONS,
    LOSSES,
    NORMALIZATIONS,
    OPTIMIZERS,
    REGULARIZATIONS,
    SCHEDULES,
    TECHNIQUES,
)
from shared.training.options import Options
from shared.training.ranges import Count


@dataclass(kw_only=True)
class TechniqueOptions(Options):
    """What is varied, and everything else that is not."""

    vary: Literal[*TECHNIQUES] = "optimizer"
    """What is tried; of everything else, one, by its option."""
    values: tuple[str, ...] = ()
    """Try only these (default: all)."""
    optimizer: Literal[*OPTIMIZERS] = "momentum"
    schedule: Literal[*SCHEDULES] = "cosine"
    """Learning-rate schedule."""
    initialization: Literal[*INITIALIZATIONS] = "he_normal"
    """Initial kernels."""
    activation: Literal[*ACTIVATION_FUNCTIONS] = "relu"
    """Activation function of the hidden layers."""
    normalization: Literal[*NORMALIZATIONS] = "none"
    """Normalization between each hidden layer and its activation function."""
    regularization: Literal[*REGULARIZATIONS] = "none"
    augmentation: Literal[*AUGMENTATIONS] = "none"
    loss: Literal[*LOSSES] = "cross_entropy"
    accumulation: Count = 1
    """Gradient accumulation: micro-batches that a batch is divided into."""

    def trying(self, value: str, seed: int) -> Self:
        """The options of one training."""
        return replace(self, **{self.vary: type(getattr(self, self.vary))(value)}, seed=seed)

    def fitting(self, misfit: Callable[[Self], str]) -> list[str]:
        """The techniques to try: those that are asked for, else all that fit.

        Args:
            misfit: why the options of a training do not go together, or with the data; empty where they do.

        Raises:
            UsageError: one that is asked for is unknown or does not fit, or none fits.
        """
        known = [str(name) for name in TECHNIQUES[self.vary]]
        unknown = sorted(set(self.values) - set(known))
        self.require("values", not unknown, f"must be among {', '.join(known)}")
        reasons = {value: misfit(self.trying(value, self.seed)) for value in dict.fromkeys(self.values or known)}
        for value, reason in reasons.items():
            if reason and (self.values or all(reasons.values())):
                raise UsageError(reason)
            if reason:
                print(f"WARNING: {value} is left out: {reason}", file=sys.stderr)
        return [value for value, reason in reasons.items() if not reason]
