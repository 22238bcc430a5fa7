"""The interface of a served model, made from the annotations of its predictor."""

import base64
import binascii
import functools
import io
import math
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

from PIL import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, create_model

from shared.data.images.files import TooManyPixels, open_picture, reads_heif
from shared.segmentation.plots import mask_facts, mask_over
from shared.tools.predict import Option, answer_facts
from shared.tools.serving.worker import Alike, Computation
from shared.training.predictors import (
    Boxes,
    ClassName,
    Conversation,
    InputError,
    Mask,
    Picture,
    Pictures,
    Probabilities,
    Text,
    TextStream,
)
from shared.training.ranges import Range

PICTURE_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "TIFF", "WEBP")
"""What is decoded, by Pillow's names; others start programs, as EPS does, or are rare."""

LONGEST_TEXT = 10_000
"""Most characters of a text or of a turn."""

MOST_TURNS = 100
"""Most turns of a conversation."""


class Served(NamedTuple):
    """An opened model, as an engine gives it."""

    recipe: str
    task: str
    predict: Callable
    """The predictor, see `shared.training.predictors`."""
    input_name: str
    takes: Any
    gives: Any
    options: dict[str, Option]
    watcher: str | None
    """Name of the predictor's parameter for a `Watcher`."""
    classes: list[str] | None
    picture_shape: tuple[int, int, int] | None
    """(height, width, channels) that pictures are brought to; None where it takes none."""
    result: dict[str, Any]
    """What is known of the run."""
    versions: dict[str, str]
    engine: str = "keras"
    """What computes: "keras", or "onnx" for an exported model."""

    def alike(self, arguments: dict[str, Any], streamed: bool) -> Alike | None:
        """How a validated request may be answered with others of the same options; None: by itself."""
        options = dict(arguments)
        given, several = options.pop(self.input_name), getattr(self.predict, "several", None)
        if several is None or streamed or self.takes is Picture:  # a picture is not read before its turn
            return None
        return Alike(tuple(options.items()), given, functools.partial(several, **options))

    @property
    def streams(self) -> bool:
        """Whether there is something of an answer before all of it."""
        return self.gives is TextStream or self.watcher is not None


def decoded_base64(value: Any) -> bytes:
    """The bytes of a file, which JSON holds in base64, also as a data URL, and a form as they are."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("must be a file, in base64")  # noqa: TRY004 - only of these Pydantic makes a message
    try:
        return base64.b64decode(value.partition(",")[2] if value.startswith("data:") else value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"is not base64 ({error})") from None


def input_type(served: Served) -> tuple[Any, Any]:
    """Type and default of the input in a request."""
    if served.takes is Picture:
        encoded = {"type": "string", "contentEncoding": "base64", "description": "An image file."}
        return Annotated[bytes, BeforeValidator(decoded_base64), WithJsonSchema(encoded)], ...
    if served.takes is ClassName and served.classes:
        return Literal[tuple(served.classes)], ...
    if served.takes is ClassName:
        return Literal[""], ""
    text = Annotated[str, Field(max_length=LONGEST_TEXT)]
    if served.takes is Conversation:
        turns = Field(min_length=1, max_length=MOST_TURNS, description="The turns so far; the last one is answered.")
        return Annotated[list[text], turns], ...
    return text, ...


def option_type(option: Option) -> tuple[Any, Any]:
    """Type and default of an option in a request.

    An integer without an upper bound may be ten times its default, and 100 in any case: a request must not take all of
    the server's memory or time.
    """
    kind, *rules = typing.get_args(option.kind) if typing.get_origin(option.kind) is Annotated else (option.kind,)
    ranges = [rule for rule in rules if isinstance(rule, Range)] or [Range()]
    allowed, bounds = ranges[0], {}
    if kind in (int, float, int | None, float | None):
        most = allowed.most
        if kind in (int, int | None) and min(most, allowed.below) == math.inf:
            most = max(100, 10 * (option.default or 0))
        limits = {"ge": allowed.least, "le": most, "gt": allowed.above, "lt": allowed.below}
        bounds = {name: limit for name, limit in limits.items() if math.isfinite(limit)}
        bounds["allow_inf_nan"] = False
    return Annotated[kind, Field(description=option.meaning, **bounds)], option.default


def request_model(served: Served) -> type[BaseModel]:
    """The body of a request: the arguments of the predictor."""
    fields = {name: option_type(option) for name, option in served.options.items()}
    return create_model(
        "Request", __config__=ConfigDict(extra="forbid"), **{served.input_name: input_type(served)}, **fields
    )


class FoundObject(BaseModel):
    """A detected object."""

    class_name: str = Field(alias="class")
    score: float = Field(ge=0, le=1)
    box: tuple[float, float, float, float] = Field(description="Left, top, right and bottom, in pixels of the image.")


class FoundObjects(BaseModel):
    """The objects in an image, by descending score."""

    width: int
    height: int
    objects: list[FoundObject]


class ClassProbabilities(BaseModel):
    """The probability of each class."""

    probabilities: dict[str, float]


class WrittenText(BaseModel):
    """A text."""

    text: str


class MadePictures(BaseModel):
    """Images."""

    pictures: list[str] = Field(description="PNG files, in base64.")


class SegmentedPicture(BaseModel):
    """A segmented image, with the number of its objects or the fraction of each class."""

    width: int
    height: int
    mask: str = Field(description="PNG file, in base64: class indices, or numbers of objects in 16 bits, 0 for none.")
    drawn: str = Field(description="The image with the mask over it: PNG file, in base64.")
    count: int | None = None
    fractions: dict[str, float] | None = None


ANSWERS = {
    Probabilities: ClassProbabilities,
    Boxes: FoundObjects,
    Mask: SegmentedPicture,
    Text: WrittenText,
    TextStream: WrittenText,
    Pictures: MadePictures,
}
"""The body of an answer, by output type of the predictor."""


def read_input(served: Served, value: Any, most_pixels: int) -> Any:
    """The input of the predictor, from a validated request.

    Raises:
        InputError: it is not an image.
        TooManyPixels: it is too large an image.
    """
    if served.takes is not Picture:
        return value
    Image.init()
    formats = [name for name in (*PICTURE_FORMATS, *["HEIF"] * reads_heif()) if name in Image.OPEN]
    try:
        return open_picture(io.BytesIO(value), most_pixels, formats)
    except TooManyPixels:
        raise
    except ValueError as error:
        raise InputError(f"{served.input_name} cannot be read as an image ({error})") from None


def answer_request(
    served: Served, arguments: dict[str, Any], most_pixels: int, streamed: bool, computation: Computation
) -> None:
    """Answers a validated request in JSON, a piece of a text or a stage of images at a time where it is streamed.

    Raises:
        InputError: the input cannot be answered.
        UsageError: an option is wrong.
        Abandoned: nobody waits any more.
    """
    options, shown = dict(arguments), []
    given = read_input(served, options.pop(served.input_name), most_pixels)

    def watch(pictures: list[Image.Image]) -> None:
        if streamed:
            computation.emit(pictures_facts(pictures))
            shown[:] = [pictures]
        computation.check()

    answer = computation.answer
    if answer is None:
        answer = served.predict(given, **options, **({served.watcher: watch} if served.watcher else {}))
    if served.gives is TextStream:
        pieces = []
        for piece in answer:
            computation.check()
            if streamed:
                computation.emit({"text": piece})
            pieces.append(piece)
        answer = pieces
    elif shown and shown[0] is answer:
        return
    if served.gives is Pictures:
        computation.emit(pictures_facts(answer))
    elif served.gives is Mask:
        drawn = {"mask": encoded_png(answer), "drawn": encoded_png(mask_over(given, answer))}
        computation.emit(mask_facts(answer, served.classes) | drawn)
    elif not streamed:
        computation.emit(answer_facts(served.gives, given, answer))


def pictures_facts(pictures: list[Image.Image]) -> dict[str, list[str]]:
    """Images as JSON."""
    return {"pictures": [encoded_png(picture) for picture in pictures]}


def encoded_png(picture: Image.Image) -> str:
    """A picture as a PNG file in base64."""
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return base64.b64encode(content.getvalue()).decode("ascii")
