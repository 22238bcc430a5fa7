"""Options of a recipe that generates images and measures them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.data.images.datasets import ImageData, load_images
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
    """Evaluation network: a classifier of these images, a model.keras of cnn_cifar10; also gives the class accuracy."""

    def load_data(self, preferred: str, validation: float) -> ImageData:
        return load_images(
            self.data, self.data_dir, preferred, validation, self.train_examples, self.image_size,
            test_limit=self.test_examples,
        )  # fmt: skip

    def facts(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*names, "samples")}
