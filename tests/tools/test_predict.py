"""The command `recipes predict`, with predictors of every kind in place of those of trained models."""

import io
import json
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import refused_in_one_line
from PIL import Image

from shared.errors import UsageError
from shared.tools import predict
from shared.tools.cli import main
from shared.tools.predict import open_predictor, predict_from
from shared.training.options import Options
from shared.training.predictors import (
    Box,
    Boxes,
    ClassName,
    Conversation,
    InputError,
    Picture,
    Pictures,
    Probabilities,
    Text,
    TextStream,
)

pytestmark = pytest.mark.once


@dataclass(kw_only=True)
class Config(Options):
    epochs: int = 1
    batch_size: int = 1
    learning_rate: float = 1.0
    confidence: float = 0.25
    """Lowest score of a detection."""


def classify(image: Picture) -> Probabilities:
    red, green, blue = np.asarray(image).reshape(-1, 3).mean(axis=0) / 255
    return Probabilities({"red": float(red), "green": float(green), "blue": float(blue), "none": 0.0})


def detect(image: Picture, confidence: float = 0.25) -> Boxes:
    """Finds objects."""
    if not 0 <= confidence <= 1:
        raise UsageError(f"--confidence must be between 0 and 1, not {confidence}")
    found = [Box("cat", 0.75, 0.0, 1.0, image.width / 3, 9.0), Box("dog", 0.125, 2.0, 2.0, 4.0, 5.0)]
    return Boxes([box for box in found if box.score >= confidence])


def translate(text: Text, beams: int = 4) -> Text:
    return Text(f"{text.upper()} {beams}")


def answer(conversation: Conversation) -> Text:
    return Text(f"{conversation[-1]}?  {len(conversation)}\n")


def write(prompt: Text, length: int = 3) -> TextStream:
    return TextStream(letter for letter in "abcdef"[:length])


def make(name: ClassName, count: int = 2) -> Pictures:
    if name not in ("T-shirt/top", "Bag"):
        raise InputError(f"{name!r} is not a class")
    return Pictures([Image.new("L", (4, 4), 10 * index) for index in range(count)])


@pytest.fixture
def ask(monkeypatch, tmp_path, capsys):
    """Gives a predictor words of the command line, and what is on standard input; returns what it printed."""
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "there").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "there")

    def ask(predictor, *words, said=b"", classes=("cat", "dog")):
        run = SimpleNamespace(directory=tmp_path / "run", config=Config(), result={"classes": classes})
        monkeypatch.setattr(predict, "open_predictor", lambda directory: (run, predictor))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said), encoding="utf-8"))
        assert predict_from(run.directory, list(words)) == 0
        return capsys.readouterr().out

    return ask


@pytest.fixture
def pictures(ask, tmp_path):
    """A folder of images, one of them torn; torn.jpg beside it."""
    folder = tmp_path / "there" / "folder"
    for name, colour in {"b.png": "blue", "a.jpg": "red", "deep/c.gif": "lime", "._a.jpg": "black"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), colour).save(folder / name, format="PNG")
    (folder / "notes.txt").write_text("no image")
    (tmp_path / "there/torn.jpg").write_bytes(b"torn")
    return folder


def test_a_folder_stands_for_its_images(ask, pictures):
    lines = ask(classify, "folder", "folder/b.png").splitlines()
    assert lines == [
        "folder/a.jpg: red 100.0%, green 0.0%, blue 0.0%", "folder/b.png: blue 100.0%, red 0.0%, green 0.0%",
        "folder/deep/c.gif: green 100.0%, red 0.0%, blue 0.0%", "folder/b.png: blue 100.0%, red 0.0%, green 0.0%",
    ]  # fmt: skip


def test_an_image_from_standard_input(ask, pictures):
    said = (pictures / "b.png").read_bytes()
    assert ask(classify, "-", said=said).startswith("stdin: blue 100.0%")
    with refused_in_one_line("standard input cannot be read as an image"):
        ask(classify, "-", said=b"torn")


@pytest.mark.parametrize("as_json", [False, True])
def test_good_inputs_are_answered_and_bad_ones_named(ask, pictures, capsys, as_json):
    Image.new("RGB", (4, 4)).save(pictures / "good.png")
    (pictures / "bad.png").write_bytes(b"torn")
    empty = pictures.parent / "empty"
    empty.mkdir()
    words = ["torn.jpg", "gone.png", "folder/good.png", "empty", "folder/notes.txt", "folder"]
    message = (
        "torn.jpg cannot be read as an image (cannot identify image file), and 4 more inputs could not be answered"
    )
    with refused_in_one_line(message):
        ask(classify, *words, *["--json"] * as_json)
    out, err = capsys.readouterr()
    bad = [
        "torn.jpg cannot be read as an image", "gone.png cannot be read as an image", "empty holds no image files",
        "folder/notes.txt cannot be read as an image", "folder/bad.png cannot be read as an image",
    ]  # fmt: skip
    assert len(err.splitlines()) == len(bad)
    for line, reason in zip(err.splitlines(), bad, strict=True):
        assert line.startswith(f"skipped: {reason}")
    if as_json:
        records = [json.loads(line) for line in out.splitlines()]
        assert [list(record) for record in records].count(["input", "error"]) == len(bad)
        answered = [record["input"] for record in records if "probabilities" in record]
        assert records[0]["error"].startswith("torn.jpg cannot")
    else:
        answered = [line.partition(": ")[0] for line in out.splitlines()]
    names = ["good.png", "a.jpg", "b.png", "deep/c.gif", "good.png"]
    assert answered == [f"folder/{name}" for name in names]


def test_what_is_found_is_drawn_on_copies(ask, pictures, tmp_path):
    out = ask(detect, "folder", "--confidence", "0.1", "folder/a.jpg")
    drawn = tmp_path / "run/predictions"
    names = ["000-a.png", "001-b.png", "002-c.png", "003-a.png"]
    assert sorted(path.name for path in drawn.iterdir()) == names
    assert out.splitlines()[0] == f"folder/a.jpg: 2 objects, drawn in {drawn / '000-a.png'}"
    report = json.loads((tmp_path / "run/predictions.json").read_text())
    assert [entry["file"] for entry in report] == [f"folder/{n}" for n in ("a.jpg", "b.png", "deep/c.gif", "a.jpg")]
    assert report[0] == {
        "file": "folder/a.jpg", "drawn": str(drawn / names[0]), "width": 30, "height": 20,
        "objects": [
            {"class": "cat", "score": 0.75, "box": [0.0, 1.0, 10.0, 9.0]},
            {"class": "dog", "score": 0.125, "box": [2.0, 2.0, 4.0, 5.0]},
        ],
    }  # fmt: skip
    with Image.open(drawn / names[0]) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == (20, 30, 3)
    assert (pixels != [255, 0, 0]).any(axis=-1).mean() > 0.05, "boxes on what was red"
    (record,) = map(json.loads, ask(detect, "folder/b.png", "--json").splitlines())
    assert record["input"] == "folder/b.png"
    assert [found["class"] for found in record["objects"]] == ["cat"]


def test_a_wrong_option_is_refused_at_once(ask, pictures, capsys):
    with refused_in_one_line("--confidence must be between 0 and 1, not 2.0"):
        ask(detect, "folder", "--confidence", "2")
    assert capsys.readouterr() == ("", "")


def test_a_drawing_that_cannot_be_written(ask, pictures, tmp_path):
    (tmp_path / "run/predictions").write_text("in the way")
    with refused_in_one_line("predictions/000-b.png (File exists): make room, or copy the run"):
        ask(detect, "folder/b.png")


def test_texts(ask, tmp_path):
    assert ask(translate, "ein Hund", "--beams", "2", "a") == "EIN HUND 2\nA 2\n"
    (tmp_path / "there/german.txt").write_text("eins\n\nzwei", encoding="utf-8")
    assert ask(translate, "german.txt") == "EINS 4\n 4\nZWEI 4\n"
    assert ask(translate, "-", said=b"eins\n\nx\xff\nzwei") == "EINS 4\n 4\nX\ufffd 4\nZWEI 4\n"
    records = ask(translate, "a", "--json", "-", said="é".encode())
    assert list(map(json.loads, records.splitlines())) == [
        {"input": "a", "text": "A 4"}, {"input": "é", "text": "É 4"}
    ]  # fmt: skip
    (tmp_path / "there/latin.txt").write_bytes("für".encode("latin-1"))
    with refused_in_one_line("latin.txt, line 1: byte 0xfc is not UTF-8"):
        ask(translate, "latin.txt", "b")


def test_a_folder_of_texts(ask, tmp_path, capsys):
    for name, content in {"b.txt": b"zwei", "a.txt": b"eins", "c.png": b"\x89PNG\0"}.items():
        (tmp_path / "there" / name).write_bytes(content)
    assert ask(translate, ".") == "EINS 4\nZWEI 4\n"
    (tmp_path / "there/empty").mkdir()
    with refused_in_one_line("empty holds no text files"):
        ask(translate, "empty")


def test_text_is_written_as_it_comes(ask, monkeypatch, tmp_path):
    assert ask(write, "To be", "--length", "2") == "To beab\n"
    assert ask(write, "") == "abc\n"
    assert ask(write, "-", said=b"To\nbe") == "To\nbeabc\n", "a file is one prompt"
    (tmp_path / "there/prompt.txt").write_text("To\nbe\n")
    assert ask(write, "prompt.txt") == "To\nbe\nabc\n"
    assert json.loads(ask(write, "To be", "--json")) == {"input": "To be", "text": "abc"}
    printed = []
    monkeypatch.setattr("builtins.print", lambda *words, **keywords: printed.append((words, keywords.get("flush"))))
    ask(write, "x")
    assert printed[:4] == [(("x",), True), (("a",), True), (("b",), True), (("c",), True)]


def test_a_conversation(ask, tmp_path):
    said = b"hello\n\n  \nhow are you\nlast"
    expected = "bot: hello? 1\nbot: how are you? 3\nbot: last? 5\n\n"
    assert ask(answer, said=said) == ask(answer, "-", said=said) == expected
    records = [json.loads(line) for line in ask(answer, "--json", said=said).splitlines()]
    assert records[1] == {"input": "how are you", "text": "how are you? 3"}
    assert ask(answer, "hello", "you?") == "hello?  1\n\nyou??  1\n\n"
    (tmp_path / "there/talk.txt").write_text("hi\n\nhi you\nbye\n")
    assert ask(answer, "talk.txt") == "bye?  3\n\n"


def test_images_of_classes(ask, tmp_path):
    classes = ["T-shirt/top", "Bag"]
    names = ["000-T-shirt-top-000.png", "000-T-shirt-top-001.png", "001-Bag-000.png", "001-Bag-001.png"]
    drawn = [str(tmp_path / "run/predictions" / name) for name in names]
    assert ask(make, classes=classes).splitlines() == drawn, "some of each"
    with Image.open(drawn[1]) as picture:
        assert np.asarray(picture).tolist() == [[10] * 4] * 4
    (record,) = map(json.loads, ask(make, "Bag", "--count", "1", "--json", classes=classes).splitlines())
    assert record == {"input": "Bag", "pictures": [str(tmp_path / "run/predictions/000-Bag-000.png")]}
    with refused_in_one_line("'Boot' is not a class"):
        ask(make, "Boot", classes=classes)


def test_images_of_a_generator_without_classes(ask, tmp_path):
    def make_any(name: ClassName) -> Pictures:
        assert name == ""
        return Pictures([Image.new("RGB", (4, 4))])

    assert ask(make_any, classes=None) == f"{tmp_path / 'run/predictions/000-image-000.png'}\n"


@pytest.mark.parametrize(
    ("predictor", "words", "message"),
    [
        (classify, [], "name images, folders of them, or - for an image"),
        (translate, [], "name texts, text files"),
        (translate, ["a", "--beams", "many"], "--beams"),
        (translate, ["a", "--loud"], "--loud"),
        (translate, ["--beams", "1", "a", "-x"], "-x"),
    ],
)
def test_wrong_use(ask, predictor, words, message):
    with refused_in_one_line(message):
        ask(predictor, *words)


def test_help_says_what_the_options_mean(ask, capsys):
    with pytest.raises(SystemExit):
        ask(detect, "--help")
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Finds objects." in text
    assert "images, folders of them, or - for an image from standard input" in text
    assert "--confidence FLOAT Lowest score of a detection. (default: 0.25)" in text


def test_the_command_line(ask, monkeypatch, capsys, tmp_path):
    def command(*words):
        monkeypatch.setattr(sys, "argv", ["recipes", "predict", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    ask(translate, "a")
    run = str(tmp_path / "run")
    assert command(run, "a", "--beams", "2", "--", "-b") == (0, "A 2\n-B 2\n", "")
    assert command(run, "a", "--beams", "x")[0] == 2
    code, out, _ = command(run, "--help")
    assert (code, "--beams" in out) == (0, True), "what this run can do"
    assert "predict RUN --help" in command("--help")[1]
    ask(classify, "-", said=png("red"))
    code, out, err = command(run, "gone.png")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: gone.png cannot be read as an image")
    monkeypatch.setattr(predict, "predict_from", interrupted)
    assert command(run, "a") == (130, "", "")


def interrupted(*_):
    raise KeyboardInterrupt


def png(colour):
    content = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(content, format="PNG")
    return content.getvalue()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "is not the directory of a run (config.json: No such file or directory): name another"),
        ("{", "is not the directory of a run"),
        ("[]", "is not the directory of a run"),
        ('{"recipe": "gone", "options": {}}', "there is no recipe gone: choose one of autoencoder"),
        ('{"recipe": "cnn_cifar10"}', "does not hold the options of this recipe"),
    ],
)
def test_what_is_no_run(tmp_path, config, message):
    if config:
        (tmp_path / "config.json").write_text(config)
    with refused_in_one_line(message):
        open_predictor(tmp_path)


def test_a_result_of_other_code(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"recipe": "cnn_cifar10"}')
    run = SimpleNamespace(directory=tmp_path, config=Config(), result={})
    monkeypatch.setattr(predict, "FinishedRun", lambda *_: run)
    monkeypatch.setattr("recipes.cnn_cifar10.predictor", lambda run: run.result["classes"])
    with refused_in_one_line("is a run of other code, its result has no 'classes': train it again"):
        open_predictor(tmp_path)
