"""Texts as codes of characters: from TFDS, a file of any size, or embedded in a package."""

import codecs
import importlib.resources
import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shared.data.arrays import cached_arrays, file_hash, writing_to_cache
from shared.data.batches import SeededBatches
from shared.data.conversations import read_chitchat
from shared.data.download import Download, fetch, verified
from shared.data.encoding import not_in_utf8
from shared.data.images import data_directory, fingerprint_of
from shared.errors import UsageError
from shared.files import cache_directory

EMBEDDED_TEXT = "chitchat"
"""The text that needs neither download nor data directory: conversations in the package chitchat-dataset."""
EMBEDDED_CONVERSATIONS = 700
"""So many of its 7,168 conversations are about as long as tiny Shakespeare."""

# The address, size and hash that TFDS's own builder uses.
TINY_SHAKESPEARE = Download(
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt", 1115394,
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)  # fmt: skip

UNKNOWN_CHARACTER = "\N{REPLACEMENT CHARACTER}"
LARGEST_ALPHABET = 4096
"""Of a text with more characters, the most frequent are told apart."""
SHORTEST_TEXT = 1000
CODE_POINTS = 0x110000


class TextData(NamedTuple):
    """A text as codes of its characters (characters,) in uint16, split for training, choices and measuring."""

    name: str
    alphabet: str
    """The character of each code; code 0 stands for every character that is not in it."""
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    fingerprint: str
    """Changes when the text does."""


def load_text(name: str, directory: Path | None) -> TextData:
    """Loads a text, split 90/5/5 in its order, as TFDS splits tiny Shakespeare; the codes are mapped, not read whole.

    Args:
        name: "tiny_shakespeare" (Karpathy 2015), from TFDS in the data directory or downloaded; another text that TFDS
            prepared there; "chitchat"; the path of a file in UTF-8; or "auto": tiny_shakespeare where it can be had,
            else chitchat, which is then said on stderr.
        directory: the data directory, or None for the usual one.

    Raises:
        UsageError: there is no such text, it is not in UTF-8, or it is shorter than 1,000 characters.
    """
    if name == "auto":
        try:
            return load_text("tiny_shakespeare", directory)
        except UsageError as error:
            print(f"WARNING: no tiny_shakespeare, training on the embedded chitchat instead: {error}", file=sys.stderr)
            name = EMBEDDED_TEXT
    fingerprint, blocks = find_text(name, data_directory(directory))
    arrays, facts = cached_arrays(
        cache_directory() / "decoded" / f"text-{fingerprint}", lambda: encoded_text(name, blocks)
    )
    codes = arrays["codes"]
    train = int(len(codes) * 0.9)
    validation = int((len(codes) - train) * 0.5)
    parts = np.split(codes, [train, train + validation])
    return TextData(Path(name).name, facts["alphabet"], *parts, fingerprint)


def find_text(name: str, directory: Path) -> tuple[str, Callable[[], Iterator[str]]]:
    """Finds a text: its fingerprint, and the function that gives it in blocks."""
    if name == EMBEDDED_TEXT:
        path = Path(str(importlib.resources.files("chitchat_dataset"))) / "dataset.json"
        return fingerprint_of([path], EMBEDDED_CONVERSATIONS), lambda: read_chitchat_text(path)
    if versions := sorted((directory / "tfds" / name).glob("[0-9]*")):
        return fingerprint_of(sorted(versions[-1].iterdir())), lambda: read_tfds_text(versions[-1])
    path = Path(name)
    if name == "tiny_shakespeare":
        (path,) = verified(fetch(name, [TINY_SHAKESPEARE], directory / "raw" / name), [TINY_SHAKESPEARE])
    elif path.is_dir():
        raise UsageError(f"--data {name} is a folder: name a text file in UTF-8")
    elif not path.exists():
        raise UsageError(
            f"no text {name!r}: choose one of auto, tiny_shakespeare, {EMBEDDED_TEXT} or a text file, or set --data-dir"
        )
    try:
        return file_hash(path)[:12], lambda: read_text_blocks(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from None


def read_chitchat_text(path: Path) -> Iterator[str]:
    """Conversations, a turn a line, a blank line after each."""
    for turns in read_chitchat(path)[:EMBEDDED_CONVERSATIONS]:
        yield "\n".join([*turns, "\n"])


def read_tfds_text(version: Path) -> Iterator[str]:
    """The texts of a set that TFDS prepared as array_record, one after the other, without TensorFlow."""
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


def read_text_blocks(path: Path, size: int = 1 << 20) -> Iterator[str]:
    """A file in UTF-8, so many bytes at a time; ends of lines become "\\n", a byte order mark is left out.

    Raises:
        UsageError: it is not in UTF-8.
    """
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(), translate=True)
    with open(path, "rb") as file:
        if file.read(3) != codecs.BOM_UTF8:
            file.seek(0)
        while True:
            place = file.tell()
            block = file.read(size)
            place -= len(decoder.getstate()[0])  # what is left of the block before is decoded again
            try:
                yield decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise not_in_utf8(path, place + error.start, error.object[error.start]) from None
            if not block:
                return


def encoded_text(name: str, blocks: Callable[[], Iterator[str]]) -> tuple[dict[str, np.ndarray], dict]:
    """A text as codes, which lie in a file, not in memory, and the alphabet; see `TextData`.

    Raises:
        UsageError: it is too short, or no text.
    """
    counts = np.zeros(CODE_POINTS, np.int64)
    for block in blocks():
        counts += np.bincount(code_points(block), minlength=CODE_POINTS)
    characters = int(counts.sum())
    if characters < SHORTEST_TEXT:
        size = f"has only {characters:,} characters" if characters else "is empty"
        raise UsageError(f"{name} {size}: at least {SHORTEST_TEXT:,} are needed to learn from")
    if counts[0]:
        raise UsageError(f"{name} holds null characters, so it is no text in UTF-8: save it in UTF-8")
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
    """The codes (characters,) in uint16 of a text; 0 for what is not in the alphabet."""
    table = np.zeros(CODE_POINTS, np.uint16)
    table[code_points(alphabet)] = np.arange(len(alphabet))
    return table[code_points(text)]


class TextBatches(SeededBatches):
    """Windows of a text in random order, cut anew in each epoch, with the characters that follow as targets.

    Yields codes (batch_size, window) and the same one character on, both in int32. What does not fill a batch is left
    out.

    Args:
        codes: (characters,), at least window × (batch_size + 1) of them.
        window: characters a window.
        batch_size: windows a batch.
        seed: of where the text is cut, and of the order.
    """

    def __init__(self, codes: np.ndarray, window: int, batch_size: int, seed: int):
        super().__init__(seed)
        self.codes = codes
        self.window = window
        self.batch_size = batch_size
        self.batches_per_epoch = (len(codes) - window) // window // batch_size

    def make_batch(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        first = np.random.default_rng([self.seed, self.epoch, self.batches_per_epoch]).integers(self.window)
        windows = (len(self.codes) - self.window) // self.window
        chosen = self.shuffled(windows, self.epoch)[index * self.batch_size :][: self.batch_size]
        starts = first + self.window * chosen
        codes = self.codes[starts[:, None] + np.arange(self.window + 1)].astype(np.int32)
        return codes[:, :-1], codes[:, 1:]


def consecutive_windows(codes: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """A text cut into windows (windows, window), and the characters that follow each; the rest is left out."""
    windows = (len(codes) - 1) // window
    inputs, targets = (codes[i : i + windows * window].astype(np.int32).reshape(windows, window) for i in (0, 1))
    return inputs, targets
