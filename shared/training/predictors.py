"""Predictors: the argument of a recipe's `predictor(run)`, and the input and output types of the returned function.

The function's annotations define the interface: its first parameter is the input, of one of the types below; the others
are options, each with a default; it returns another of the types. An optional `Watcher` is no option. The commands
`recipes predict` and `recipes serve` are built from them.

    def predictor(run: FinishedRun) -> Callable:
        def translate(sentence: Text, beams: int = run.config.beams) -> Text:
            return translator(run.model, beams)(sentence)

        return translate

Where texts together are generated in less time than one after the other, the predictor may have an attribute
`several`, a function of up to `TOGETHER` inputs and of the options, to the output that the predictor has for each.
`recipes serve` answers requests by it that wait beside each other:

    translate.several = lambda sentences, **options: translator(run.model, **options).several(sentences)
"""

import inspect
import json
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NewType

import keras
from PIL import Image

from shared.backends.runtime import prepare_backend
from shared.errors import UsageError
from shared.training.options import Options, read_config
from shared.training.saving import read_model

TOGETHER = 8
"""Most inputs that a predictor's `several` takes."""

Picture = NewType("Picture", Image.Image)
"""An image of any size, in RGB."""


Pictures = NewType("Pictures", list[Image.Image])
"""Images, in RGB or grey."""


Text = NewType("Text", str)
"""A text: a sentence, a prompt, an answer."""


TextStream = NewType("TextStream", Iterator[str])
"""A text, streamed as it is generated."""


Conversation = NewType("Conversation", list[str])
"""The turns so far; the last one is to be answered."""


ClassName = NewType("ClassName", str)
"""A class of the training data; empty for a model without classes."""


Probabilities = NewType("Probabilities", dict[str, float])
"""The probability of each class, by its name."""


class Box(NamedTuple):
    """A detected object: class, score (0 to 1), and bounding box in pixels of the image."""

    label: str
    score: float
    left: float
    top: float
    right: float
    bottom: float


Boxes = NewType("Boxes", list[Box])
"""The detected objects in an image, by descending score."""


Mask = NewType("Mask", Image.Image)
"""A segmentation, of the size of its image: class indices with a palette (mode P), or numbers of objects, 0 for none
(mode I;16)."""


Watcher = NewType("Watcher", Callable[[list[Image.Image]], None])
"""A function that is shown the images while they are made; the predictor ends with what it raises."""


class InputError(ValueError):
    """An input that cannot be answered, whatever the options; the message is one line that names it."""


class FinishedRun:
    """A finished run, opened for prediction on any backend. Nothing in its directory is changed or locked.

    Args:
        directory: of the run, which may have been moved.
        config_class: the `Config` of its recipe.

    Raises:
        UsageError: the run has not finished, its files are damaged, or it belongs to another recipe.
    """

    def __init__(self, directory: Path, config_class: type[Options]):
        self.directory = directory
        self.recipe, _, self.config = read_config(directory, config_class, other_code=True)
        prepare_backend(self.config.seed, self.config.precision)
        try:
            self.result: dict[str, Any] = json.loads((directory / "result.json").read_text(encoding="utf-8"))
            if not isinstance(self.result, dict) or "metrics" not in self.result:
                raise ValueError("result.json is damaged")
            self.model: keras.Model = read_model(directory / "model.keras", compile=False)
        except (OSError, ValueError) as error:
            reason = f"no {Path(error.filename).name}" if isinstance(error, FileNotFoundError) else error
            raise UsageError(f"{directory} holds no finished run ({reason}): let it end first") from None


class Signature(NamedTuple):
    """Input type, output type and options of a predictor."""

    takes: Any
    gives: Any
    options: dict[str, tuple[Any, Any]]
    """Type and default of each option, by name."""
    watcher: str | None = None
    """Name of the parameter for a `Watcher`."""


def signature_of(predict: Callable) -> Signature:
    """The types of a predictor's input, output and options.

    Raises:
        TypeError: the predictor has no input, or an annotation or a default is missing.
    """
    hints = typing.get_type_hints(predict, include_extras=True)
    first, *others = inspect.signature(predict).parameters.values()
    for each in (first, *others):
        if each.name not in hints or (each is not first and each.default is each.empty):
            raise TypeError(f"{each.name} of {predict.__name__} needs a type, and an option a default too")
    options = {each.name: (hints[each.name], each.default) for each in others}
    watchers = [name for name, (kind, _) in options.items() if kind in (Watcher, Watcher | None)]
    options = {name: option for name, option in options.items() if name not in watchers}
    return Signature(hints[first.name], hints["return"], options, next(iter(watchers), None))
