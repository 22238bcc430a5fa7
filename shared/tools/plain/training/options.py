"""The options of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from shared.errors import UsageError


@dataclass(kw_only=True)
class Options:
    """The options of every run; `presets` holds what each preset changes in those of "small"."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    preset: Literal["smoke", "small", "full"] = "small"
    """A minute on two cores, minutes on a laptop, or one GPU."""
    data: str = "auto"
    """Data set by name, or the path of your own; auto takes that which the presets are made for."""
    data_dir: Path | None = None
    """Where data sets are kept (default: ~/.keras)."""
    epochs: int
    """Passes over the training data."""
    batch_size: int
    """Examples per step."""
    learning_rate: float
    """The highest learning rate."""
    seed: int = 0
    """Seed of initial weights, shuffling, augmentation and dropout."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Type that layers compute in."""
    out: Path | None = None
    """Directory of the run (default: runs/TIME)."""
    initial_weights: Path | None = None
    """Start from the weights in this .weights.h5 or .keras file."""

    def require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise UsageError(f"--{name.replace('_', '-')} {rule}, not {getattr(self, name)}")

    @classmethod
    def for_preset(cls, preset: str, **changes: Any) -> Self:
        return cls(**{"preset": preset, **cls.presets.get(preset, {}), **changes})

    def is_of_preset(self, name: str) -> bool:
        return getattr(self, name) == getattr(self.for_preset(self.preset), name)
