"""Options of a recipe that generates images and measures them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
    measure_on: Literal["test", "validation"] = "test"
    """To choose options by: measure on validation images, a tenth of those to train on."""

    def load_data(self, preferred: str, validation: float) -> ImageData:
        fraction = max(validation, 0.1) if self.measure_on == "validation" else validation
        data = load_images(
            self.data, self.data_dir, preferred, fraction, self.train_examples, self.image_size, needs_classes=False,
            test_limit=self.test_examples,
        )  # fmt: skip
        return data._replace(test=data.validation) if self.measure_on == "validation" else data

    def facts(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*names, "samples", "measure_on")}
