"""What a finished run exports."""

from collections.abc import Callable
from typing import Any

from shared.images.exports import exported_classifier
from shared.training.exports import Exported, exported_model
from shared.training.predictors import Picture, Probabilities, signature_of


def exported_of(run: Any, predict: Callable) -> Exported:
    """What a run exports: what its predictor says, or by its annotations, or else its model."""
    if hasattr(predict, "exported"):
        return predict.exported()
    signature = signature_of(predict)
    if (signature.takes, signature.gives) == (Picture, Probabilities):
        return exported_classifier(run.model, run.result["classes"], getattr(run.config, "load", None))
    return exported_model(run.model)
