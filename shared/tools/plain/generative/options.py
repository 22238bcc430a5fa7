"""Options of a recipe that generates images and measures them."""

from dataclasses import dataclass
from pathlib import Path

from shared.training.options import Options
from shared.training.ranges import Count, Limit, ranged


@dataclass(kw_only=True)
class GenerativeOptions(Options):
    """Those of a recipe that generates images and measures them."""

    image_size: ranged(int, least=8, optional=True) = None
    """Resize images to N×N pixels, cropped around the middle (default: as they are)."""
    train_examples: Limit = None
    """Limit training to the first N images."""
    test_examples: ranged(int, least=10, optional=True) = None
    """Limit the test images to the first N (default: all)."""
    samples: ranged(int, least=20) = 10_000
    """Number of images to generate and evaluate."""
    sample_batch: Count = 250
    """Batch size of sampling."""
    judge: Path | None = None
    """Evaluation classifier, a model.keras of cnn_cifar10; also gives the class accuracy."""
