"""The command `recipes predict`: predictions of a finished run for files and texts."""

import contextlib
import dataclasses
import importlib
import inspect
import io
import json
import os
import re
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro
from docstring_parser import parse_from_object
from PIL import Image

from shared.data.encoding import read_text, text_lines
from shared.data.images.files import open_picture
from shared.data.images.folders import picture_files
from shared.data.places import PassedOver
from shared.data.text.characters import text_files
from shared.detection.plots import box_facts, draw_objects
from shared.errors import UsageError
from shared.files import replacing
from shared.segmentation.plots import draw_mask
from shared.text.chat import exchanges, talk
from shared.tools.project import recipe_path
from shared.tools.video import draw_on_video, is_camera, is_video
from shared.training.command_line import parse_command_line
from shared.training.options import Options
from shared.training.predictors import (
    Boxes,
    ClassName,
    Conversation,
    FinishedRun,
    InputError,
    Mask,
    Picture,
    Pictures,
    Probabilities,
    Signature,
    Text,
    TextStream,
    signature_of,
)

WHAT_TO_NAME = {
    Picture: "images, folders of them, or - for an image from standard input; for boxes and masks also videos, or a "
    "camera such as /dev/video0",
    Text: "texts, text files, folders of them, or - for standard input",
    Conversation: "a message, or text files with one turn per line; none, or -: chat, one turn per line, until Ctrl-D",
    ClassName: "classes of the data; none: all of them",
}
"""Inputs on the command line, by input type of the predictor."""


OWN_MEANING = {"count": "Number of images.", "seed": "Seed of what is drawn at random."}
"""Help of options of predictors that the recipe has no option for, or one for its training."""


class Option(NamedTuple):
    """An option of a predictor."""

    kind: Any
    """Its type, with the range where it has one."""
    default: Any
    meaning: str | None


class Input(NamedTuple):
    """An input: its name, and a function that reads it."""

    name: str
    read: Callable[[], Any]


def predict_from(directory: Path, words: list[str]) -> int:
    """The command `recipes predict DIRECTORY WORDS`; returns its exit code.

    Raises:
        UsageError: there is no finished run of a recipe of this checkout, an option is wrong, or some inputs are
            invalid; these are named on stderr, and the others are answered.
    """
    run, predict = open_predictor(directory)
    signature = signature_of(predict)
    command = read_options(run, predict, signature, words)
    inputs, as_json, as_frames = (command.pop(name, False) for name in ("inputs", "json", "video"))
    if signature.takes is Conversation and inputs in ((), ("-",)):
        converse(lambda turns: predict(turns, **command), as_json)
        return 0
    if signature.takes is ClassName and not inputs:
        inputs = run.result["classes"] or [""]
    if not inputs:
        raise UsageError(f"name {WHAT_TO_NAME[signature.takes]}")
    answers = Answers(run, predict, signature, command, as_json)
    for word in inputs:
        with answers.naming_what_cannot_be_answered(word):
            if signature.takes is Picture and (is_video(word) or (as_frames and os.path.isdir(word))):
                answers.answer_video(word)
                continue
            for each in inputs_named(word, signature):
                with answers.naming_what_cannot_be_answered(each.name):
                    answers.answer(each)
    answers.end()
    return 0


def open_predictor(directory: Path) -> tuple[FinishedRun, Callable]:
    """A finished run, and the predictor of its recipe.

    Raises:
        UsageError: it is not the directory of a finished run of a recipe of this checkout.
    """
    try:
        recipe = json.loads((directory / "config.json").read_text(encoding="utf-8"))["recipe"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{directory} is not the directory of a run (config.json: {reason}): name another") from None
    recipe_path(recipe)
    module = importlib.import_module(f"recipes.{recipe}")
    run = FinishedRun(directory, module.Config)
    try:
        return run, module.predictor(run)
    except KeyError as error:
        raise UsageError(f"{directory} is a run of other code, its result has no {error}: train it again") from None


def meaning_of_options(config_class: type[Options]) -> dict[str, str | None]:
    """Help of a recipe's options, from the docstrings of the fields, which its predictor shares."""
    classes = [each for each in reversed(config_class.__mro__) if dataclasses.is_dataclass(each)]
    return {field.arg_name: field.description for each in classes for field in parse_from_object(each).params}


def options_of(run: FinishedRun, signature: Signature) -> dict[str, Option]:
    """Options of a predictor by name; where the recipe has one of that name, with its range and meaning."""
    meaning = meaning_of_options(type(run.config)) | OWN_MEANING
    kinds = typing.get_type_hints(type(run.config), include_extras=True)
    return {
        name: Option(kinds.get(name, kind), default, meaning.get(name))
        for name, (kind, default) in signature.options.items()
    }


def answer_facts(gives: Any, given: Any, answer: Any) -> dict[str, Any]:
    """An answer as JSON; one of pictures, which have none, is not among those.

    Args:
        gives: output type of the predictor.
        given: its input.
        answer: its output.
    """
    if gives is Probabilities:
        return {"probabilities": answer}
    if gives is Boxes:
        return {"width": given.width, "height": given.height, "objects": [box_facts(box) for box in answer]}
    return {"text": "".join(answer)}


def read_options(run: FinishedRun, predict: Callable, signature: Signature, words: list[str]) -> dict[str, Any]:
    """Parses a command line for a predictor: "inputs", "json", and its options.

    Raises:
        UsageError: an unknown option or a value of the wrong type.
    """
    inputs = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(help=WHAT_TO_NAME[signature.takes])]
    as_json = Annotated[bool, tyro.conf.arg(help="Print a line of JSON for each input.")]
    options = [
        (name, Annotated[option.kind, tyro.conf.arg(help=option.meaning)], option.default)
        for name, option in options_of(run, signature).items()
    ]
    fields = [("inputs", inputs, ()), ("json", as_json, False), *options]
    if signature.gives in (Boxes, Mask):
        as_frames = Annotated[bool, tyro.conf.arg(help="Take the images of a folder for the frames of a video.")]
        fields.insert(2, ("video", as_frames, False))
    form = dataclasses.make_dataclass("Prediction", fields, kw_only=True)
    description = inspect.getdoc(predict)
    end = words.index("--") if "--" in words else len(words)  # all that follows are inputs, even with a leading -
    found, further = parse_command_line(
        form, words[:end], prog=f"recipes predict {run.directory}", description=description, return_unknown_args=True
    )
    for word in further:  # inputs after options
        if word.startswith("-") and word != "-":
            raise UsageError(f"unrecognized: {word} (see --help)")
    return vars(found) | {"inputs": (*found.inputs, *further, *words[end + 1 :])}


def inputs_named(word: str, signature: Signature) -> Iterator[Input]:
    """Inputs named by a word of the command line: itself, a file, a folder, or standard input.

    Raises:
        InputError: there are none.
    """
    if signature.takes is Picture:
        yield from pictures_named(word)
    elif signature.takes is ClassName:
        yield Input(word, lambda: word)
    elif signature.takes is Conversation:
        yield from conversations_named(word)
    else:
        yield from texts_named(word, whole=signature.gives is TextStream)


def pictures_named(word: str) -> Iterator[Input]:
    """An image file, those of a folder, or the image on standard input."""
    if word == "-":
        yield Input("stdin", read_standard_picture)
    elif os.path.isdir(word):
        files = picture_files(Path(word))
        if not files:
            raise InputError(f"{word} holds no image files")
        yield from (Input(str(path), lambda path=path: read_picture(path)) for path in files)
    else:
        yield Input(word, lambda: read_picture(Path(word)))


def read_picture(path: Path) -> Image.Image:
    """Reads an image file."""
    try:
        return open_picture(path)
    except ValueError as error:
        raise InputError(f"{path} cannot be read as an image ({error})") from None


def read_standard_picture() -> Image.Image:
    """Reads an image from standard input."""
    try:
        return open_picture(io.BytesIO(sys.stdin.buffer.read()))
    except ValueError as error:
        raise InputError(f"standard input cannot be read as an image ({error})") from None


def texts_named(word: str, whole: bool) -> Iterator[Input]:
    """Texts: a word itself, or the lines of a file, of the files in a folder or of standard input, as they arrive.

    Args:
        word: of the command line.
        whole: whether a file is one text, instead of one per line.
    """
    if word == "-" and not whole:
        yield from (Input(line, lambda line=line: line) for line in text_lines(sys.stdin.buffer))
    elif word == "-":
        yield Input("stdin", lambda: "\n".join(text_lines(sys.stdin.buffer)))
    elif not os.path.exists(word):
        yield Input(word, lambda: word)
    for path in files_named(word):
        text = read_text_file(path)
        if whole:
            yield Input(str(path), lambda text=text: text)
        else:
            yield from (Input(line, lambda line=line: line) for line in text.splitlines())


def conversations_named(word: str) -> Iterator[Input]:
    """Conversations: a word as a single turn, or text files with one turn per line."""
    if not os.path.exists(word):
        yield Input(word, lambda: [word])
    for path in files_named(word):
        yield Input(str(path), lambda path=path: [turn for turn in read_text_file(path).splitlines() if turn.strip()])


def files_named(word: str) -> list[Path]:
    """The text file of that name, or those in the folder of that name; empty if there is neither."""
    if not os.path.isdir(word):
        return [Path(word)] if os.path.exists(word) else []
    passed_over = PassedOver()
    try:
        files = text_files(Path(word), passed_over)
    except UsageError:
        raise InputError(f"{word} holds no text files") from None
    if passed_over:
        print(f"{word}: {passed_over}", file=sys.stderr)
    return files


def read_text_file(path: Path) -> str:
    """Reads a text file."""
    try:
        return read_text(path)
    except UsageError as error:
        raise InputError(str(error)) from None


def converse(answer: Callable[[list[str]], str], as_json: bool) -> None:
    """Chat on standard input."""
    if as_json:
        for said, answered in exchanges(answer):
            print(json.dumps({"input": said, "text": answered}), flush=True)
    else:
        talk(answer)


class Answers:
    """Answers inputs one by one and shows the answers.

    Args:
        run: the finished run; figures are written to `predictions` in its directory.
        predict: its predictor.
        signature: of the predictor.
        options: for the predictor.
        as_json: whether to print answers as lines of JSON.
    """

    def __init__(self, run: FinishedRun, predict: Callable, signature: Signature, options: dict, as_json: bool):
        self.run = run
        self.predict = predict
        self.gives = signature.gives
        self.options = options
        self.as_json = as_json
        self.count = 0
        self.drawn: list[dict[str, Any]] = []
        self.bad: list[str] = []

    @contextlib.contextmanager
    def naming_what_cannot_be_answered(self, name: str) -> Iterator[None]:
        """Context that reports an invalid input on stderr and continues."""
        try:
            yield
        except InputError as error:
            self.bad.append(str(error))
            print(f"skipped: {error}", file=sys.stderr)
            if self.as_json:
                print(json.dumps({"input": name, "error": str(error)}), flush=True)

    def answer(self, each: Input) -> None:
        """Answers an input and shows the answer.

        Raises:
            InputError: it is invalid.
            UsageError: the options are wrong, or a figure cannot be written.
        """
        given = each.read()
        answer = self.predict(given, **self.options)
        if self.gives is TextStream and not self.as_json:
            print(given, end="", flush=True)
            for piece in answer:
                print(piece, end="", flush=True)
            print()
            return
        facts = self.facts(each.name, given, answer)
        print(json.dumps({"input": each.name} | facts) if self.as_json else shown(each.name, facts), flush=True)
        if "drawn" in facts:
            self.drawn.append({"file": each.name} | facts)
        self.count += 1

    def answer_video(self, word: str) -> None:
        """Answers each frame of a video and writes a copy of it; Ctrl-C ends that of a camera.

        Raises:
            InputError: it cannot be read; what was read before is kept.
            UsageError: PyAV is not installed, the options are wrong, or the copy cannot be written.
        """
        if self.gives not in (Boxes, Mask):
            raise InputError(f"{word} is a video, which only recipes that find boxes or masks take")
        path = self.picture_path(Path(word).stem).with_suffix(".webm")
        with self.writing(path):
            classes = self.run.result["classes"]
            frames, stopped = draw_on_video(word, path, self.gives, self.predict, self.options, classes)
        facts = {"drawn": str(path), "frames": frames}
        summary = {"input": word, "drawn": str(path), "frames": len(frames)}
        print(json.dumps(summary) if self.as_json else f"{word}: {len(frames)} frames, drawn in {path}", flush=True)
        self.drawn.append({"file": word} | facts)
        self.count += 1
        if isinstance(stopped, KeyboardInterrupt) and not is_camera(word):
            self.end()
            raise stopped
        if isinstance(stopped, InputError):
            raise InputError(f"{stopped}, after {len(frames)} frames")

    def facts(self, name: str, given: Any, answer: Any) -> dict[str, Any]:
        """An answer as JSON; pictures are written to files, and so are drawings of boxes."""
        if self.gives is Boxes:
            path = self.picture_path(Path(name).stem)
            with self.writing(path):
                draw_objects(path, given, answer, self.run.result["classes"])
            return {"drawn": str(path)} | answer_facts(self.gives, given, answer)
        if self.gives is Mask:
            path = self.picture_path(Path(name).stem)
            with self.writing(path):
                return draw_mask(path, given, answer, self.run.result["classes"])
        if self.gives is Pictures:
            paths = [self.picture_path(f"{name or 'image'}-{index:03}") for index in range(len(answer))]
            for path, picture in zip(paths, answer, strict=True):
                with self.writing(path), replacing(path) as unfinished:
                    picture.save(unfinished)
            return {"pictures": [str(path) for path in paths]}
        return answer_facts(self.gives, given, answer)

    def picture_path(self, name: str) -> Path:
        """Path of an output image, by the number of the answer."""
        plain = re.sub(r"[^\w.-]+", "-", name)
        return self.run.directory / "predictions" / f"{self.count:03}-{plain}.png"

    @contextlib.contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """Context for writing a file: creates its folder, and turns failures into a UsageError."""
        try:
            path.parent.mkdir(exist_ok=True)
            yield
        except OSError as error:
            remedy = "make room, or copy the run to where you may write"
            raise UsageError(f"cannot write {path} ({error.strerror or error}): {remedy}") from None

    def end(self) -> None:
        """Writes predictions.json, the drawn boxes.

        Raises:
            UsageError: some inputs could not be answered.
        """
        if self.drawn:
            path = self.run.directory / "predictions.json"
            with self.writing(path), replacing(path) as unfinished:
                unfinished.write_text(json.dumps(self.drawn, indent=1) + "\n", encoding="utf-8")
        if self.bad:
            more = f", and {len(self.bad) - 1} more inputs could not be answered" if len(self.bad) > 1 else ""
            raise UsageError(self.bad[0] + more)


def shown(name: str, facts: dict[str, Any], most: int = 3) -> str:
    """An answer as one line, with the highest probabilities."""
    if "probabilities" in facts:
        likeliest = sorted(facts["probabilities"].items(), key=lambda item: -item[1])[:most]
        return f"{name}: " + ", ".join(f"{label} {probability:.1%}" for label, probability in likeliest)
    if "objects" in facts:
        return f"{name}: {len(facts['objects'])} objects, drawn in {facts['drawn']}"
    if "count" in facts:
        return f"{name}: {facts['count']} objects, in {facts['mask']}, drawn in {facts['drawn']}"
    if "fractions" in facts:
        largest = sorted(facts["fractions"].items(), key=lambda item: -item[1])[:most]
        shares = ", ".join(f"{label} {fraction:.1%}" for label, fraction in largest)
        return f"{name}: {shares}, in {facts['mask']}, drawn in {facts['drawn']}"
    if "pictures" in facts:
        return "\n".join(facts["pictures"])
    return facts["text"]
