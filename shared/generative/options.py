"""Options of a recipe that generates and evaluates images."""

import dataclasses
import sys
from pathlib import Path
from typing import Any, ClassVar, Literal

from shared.data.images.datasets import ImageData, load_images
from shared.errors import UsageError
from shared.images.backbones.pretrained import PACKAGED
from shared.training.options import Options
from shared.training.ranges import Count, Limit, ranged
from shared.training.saving import check_initial_classes

MeasuredPart = Literal["test", "validation"]


@dataclasses.dataclass(kw_only=True)
class GenerativeOptions(Options):
    """Options of a recipe that generates and evaluates images."""

    free_on_resume: ClassVar[tuple[str, ...]] = ("samples", "sample_batch", "test_examples", "judge", "backbone")
    beside_result: ClassVar[tuple[str, ...]] = ("sample_batch", "judge", "backbone")  # a result names the network

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
    backbone: str = PACKAGED
    """Evaluation network without --judge: trained on ImageNet, one of keras.applications or the bundled one."""
    measure_on: MeasuredPart = "test"
    """To choose options by: measure on validation images, a tenth of those to train on unless a folder holds some."""

    def __post_init__(self):
        super().__post_init__()
        self.judge = self.judge and Path(self.judge)
        alone = self.judge is None or self.backbone == PACKAGED
        self.require("backbone", alone, f"must be left at {PACKAGED} where --judge is given")

    def load_data(self, preferred: str, validation: float) -> ImageData:
        """The training and test images; see `load_images`.

        Raises:
            UsageError: there are too few, or they are too small.
        """
        choosing = self.measure_on == "validation"
        fraction = max(validation, 0.1) if choosing else validation
        data = load_images(
            self.data, self.data_dir, preferred, fraction, self.train_examples, self.image_size, needs_classes=False,
            test_limit=self.test_examples,
        )  # fmt: skip
        if choosing:
            data = data._replace(test=data.validation.first(self.test_examples))
            print(f"evaluating on {len(data.test.labels):,} validation images instead of test images", file=sys.stderr)
        _, height, width, _ = data.train.images.shape
        train, test = len(data.train.labels), len(data.test.labels)
        if train < 20 or test < 10:
            raise UsageError(f"there are {train} training and {test} test images: at least 20 and 10 are needed")
        if min(height, width) < 8:
            raise UsageError(
                f"the images have {width}×{height} pixels: at least 8×8 are needed, so try --image-size 32"
            )
        check_initial_classes(self.initial_weights, data.classes)
        return data

    def facts(self, *names: str) -> dict[str, Any]:
        """The named options, and those of the evaluation, for a result."""
        return {name: getattr(self, name) for name in (*names, "samples", "measure_on")}
