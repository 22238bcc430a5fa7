"""Texts as character codes, from TFDS, files of any size, or a bundled package."""

import importlib.resources
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shared.data.arrays import cached_arrays, writing_to_cache
from shared.data.download import Download, fetch, verified
from shared.data.encoding import is_text_file, text_blocks
from shared.data.places import PassedOver, data_directory, fingerprint_of, left_by_system
from shared.data.text.conversations import read_chitchat
from shared.errors import UsageError
from shared.files import cache_directory

BUNDLED_TEXT = "chitchat"
"""The bundled text: conversations in the package chitchat-dataset, without download or data directory."""


BUNDLED_CONVERSATIONS = 700
"""Number of its conversations used, for about the length of tiny Shakespeare."""


# The address, size and hash that TFDS's own builder uses.
TINY_SHAKESPEARE = Download(
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt", 1115394,
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)  # fmt: skip


UNKNOWN_CHARACTER = "\N{REPLACEMENT CHARACTER}"


LARGEST_ALPHABET = 4096
"""Maximum alphabet size; rarer characters share code 0."""


SHORTEST_TEXT = 1000


CODE_POINTS = 0x110000


class TextData(NamedTuple):
    """A text as character codes (characters,) in uint16, split into training, validation and test parts."""

    name: str
    alphabet: str
    """The character of each code; code 0 stands for all others."""
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    fingerprint: str
    """Short hash of the text."""
    found: str
    """One-line summary: characters in each part, and what was passed over."""


def load_text(name: str, directory: Path | None) -> TextData:
    """Loads a text, split 90/5/5 in its order, as TFDS splits tiny Shakespeare; the codes are memory-mapped.

    Args:
        name: "tiny_shakespeare" (Karpathy 2015), from TFDS in the data directory or downloaded; another text prepared
            there by TFDS; "chitchat"; the path of a text file, or of a folder, whose text files are joined by name; or
            "auto": tiny_shakespeare if available, else chitchat with a warning.
        directory: the data directory, or None for the default.

    Raises:
        UsageError: there is no such text, it is not in UTF-8, or it is shorter than 1,000 characters.
    """
    if name == "auto":
        try:
            return load_text("tiny_shakespeare", directory)
        except UsageError as error:
            print(f"WARNING: no tiny_shakespeare, training on the bundled chitchat instead: {error}", file=sys.stderr)
            name = BUNDLED_TEXT
    passed_over = PassedOver()
    fingerprint, blocks = find_text(name, data_directory(directory), passed_over)
    arrays, facts = cached_arrays(
        cache_directory() / "decoded" / f"text-{fingerprint}", lambda: encoded_text(name, blocks)
    )
    codes = arrays["codes"]
    train = int(len(codes) * 0.9)
    validation = int((len(codes) - train) * 0.5)
    parts = np.split(codes, [train, train + validation])
    unknown = len(codes) - np.count_nonzero(codes)
    rare = f", {unknown:,} of them not among the {LARGEST_ALPHABET - 1:,} most frequent" if unknown else ""
    found = (
        f"{len(codes):,} characters, {len(facts['alphabet']) - 1:,} different{rare}: {len(parts[0]):,} for training, "
        f"{len(parts[1]):,} for validation, {len(parts[2]):,} for testing; {passed_over}"
    )
    return TextData(Path(name).name, facts["alphabet"], *parts, fingerprint, found)


def find_text(name: str, directory: Path, passed_over: PassedOver) -> tuple[str, Callable[[], Iterator[str]]]:
    """Finds a text: its fingerprint, and a function that reads it in blocks."""
    if name == BUNDLED_TEXT:
        path = Path(str(importlib.resources.files("chitchat_dataset"))) / "dataset.json"
        return fingerprint_of([path], path.parent, BUNDLED_CONVERSATIONS), lambda: read_chitchat_text(path)
    path, prepared = Path(os.path.expanduser(name)), directory / "tfds" / name
    infos = sorted(prepared.glob("[0-9]*/dataset_info.json")) if os.path.isdir(prepared) else []
    if infos:
        version = infos[-1].parent
        return fingerprint_of(version.iterdir(), version), lambda: read_tfds_text(version)
    if name == "tiny_shakespeare":
        (path,) = verified(fetch(name, [TINY_SHAKESPEARE], directory / "raw" / name), [TINY_SHAKESPEARE])
    elif os.path.isdir(path):
        files = text_files(path, passed_over)
        return fingerprint_of(files, path), lambda: joined_texts(files)
    elif not os.path.exists(path):
        raise UsageError(
            f"no text {name!r}: choose one of auto, tiny_shakespeare, {BUNDLED_TEXT}, a text file or a folder of "
            "them, or set --data-dir"
        )
    return fingerprint_of([path], path.parent), lambda: text_blocks(path)


def text_files(folder: Path, passed_over: PassedOver) -> list[Path]:
    """The text files in a folder and the folders in it, in order of their names; others are passed over.

    Raises:
        UsageError: there are none.
    """
    files = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not left_by_system(path.relative_to(folder)):
            if is_text_file(path):
                files.append(path)
            else:
                passed_over.add("that are no text", path.relative_to(folder))
    if not files:
        raise UsageError(f"--data {folder} holds no text files; {passed_over}")
    return files


def joined_texts(files: list[Path]) -> Iterator[str]:
    """The text of several files, each ending with a newline."""
    for path in files:
        end = "\n"
        for block in text_blocks(path):
            yield block
            end = block[-1:] or end
        if end != "\n":
            yield "\n"


def read_chitchat_text(path: Path) -> Iterator[str]:
    """Conversations with one turn per line, separated by blank lines."""
    for turns in read_chitchat(path)[:BUNDLED_CONVERSATIONS]:
        yield "\n".join([*turns, "\n"])


def read_tfds_text(version: Path) -> Iterator[str]:
    """The texts of a data set prepared by TFDS as array_record, in order, without TensorFlow."""
    import tensorflow_datasets as tfds

    name = f"{version.parent.name}:{version.name}"
    try:
        for split in ("train", "validation", "test"):
            source = tfds.data_source(name, split=split, data_dir=version.parents[1], download=False)
            for example in source:
                yield example["text"].decode()
    except KeyError as error:
        raise UsageError(f"{version} is not a text with train, validation and test splits: no {error}") from None
    except Exception as error:  # noqa: BLE001 - array_record raises its own for a damaged file
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"{version} cannot be read as a text ({reason})") from None


def encoded_text(name: str, blocks: Callable[[], Iterator[str]]) -> tuple[dict[str, np.ndarray], dict]:
    """A text as memory-mapped codes, and its alphabet; see `TextData`.

    Raises:
        UsageError: it is too short, or not text.
    """
    counts = np.zeros(CODE_POINTS, np.int64)
    for block in blocks():
        counts += np.bincount(code_points(block), minlength=CODE_POINTS)
    characters = int(counts.sum())
    if characters < SHORTEST_TEXT:
        size = f"has only {characters:,} characters" if characters else "is empty"
        raise UsageError(f"{name} {size}: at least {SHORTEST_TEXT:,} are needed to learn from")
    counts[ord(UNKNOWN_CHARACTER)] = 0
    frequent = np.argsort(-counts, kind="stable")[: LARGEST_ALPHABET - 1]
    alphabet = UNKNOWN_CHARACTER + "".join(chr(point) for point in sorted(frequent[counts[frequent] > 0]))
    with writing_to_cache():
        cache_directory().mkdir(parents=True, exist_ok=True)
    with writing_to_cache(), tempfile.TemporaryFile(dir=cache_directory()) as file:
        for block in blocks():
            character_codes(block, alphabet).tofile(file)
        file.flush()
        return {"codes": np.memmap(file, np.uint16, "r")}, {"alphabet": alphabet}


def code_points(text: str) -> np.ndarray:
    """The Unicode code points of a text, in uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def character_codes(text: str, alphabet: str) -> np.ndarray:
    """The codes (characters,) in uint16 of a text; 0 for characters outside the alphabet."""
    table = np.zeros(CODE_POINTS, np.uint16)
    table[code_points(alphabet)] = np.arange(len(alphabet))
    return table[code_points(text)]
