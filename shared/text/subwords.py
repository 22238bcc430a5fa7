"""Subword vocabulary by byte-pair encoding (BPE)."""

import io
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from shared.data.encoding import replace_surrogates
from shared.errors import UsageError
from shared.files import replacing

PAD = 0
"""Padding; ignored by losses and metrics."""


UNKNOWN = 1


START = 2


END = 3


class VocabularySizeError(UsageError):
    """The vocabulary size is impossible for this text.

    Args:
        problem: the message, without the number that it ends with.
        nearest: the nearest size that the text allows.
    """

    def __init__(self, problem: str, nearest: int):
        super().__init__(f"{problem} {nearest}")
        self.nearest = nearest


def train_subwords(lines: Iterable[str], size: int, symbols: tuple[str, ...] = (), keep_spaces: bool = False) -> bytes:
    """Trains a byte-pair encoding, BPE (Sennrich et al. 2016, arXiv:1508.07909); deterministic.

    Characters outside the vocabulary fall back to bytes, so that any text survives.

    Args:
        lines: training text.
        size: vocabulary size, with `PAD`, `UNKNOWN`, `START`, `END` and 256 bytes included.
        symbols: strings that are never split, such as a separator of turns.
        keep_spaces: whether all spaces are kept, for running text; otherwise repeated ones become one, and those at
            both ends are dropped.

    Returns:
        A sentencepiece model.

    Raises:
        VocabularySizeError: the size is too large or too small for the text.
        UsageError: there is no text.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(replace_surrogates(line) for line in lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=size,
            pad_id=PAD,
            unk_id=UNKNOWN,
            bos_id=START,
            eos_id=END,
            user_defined_symbols=list(symbols),
            byte_fallback=True,
            character_coverage=0.9995,
            normalization_rule_name="identity",
            remove_extra_whitespaces=not keep_spaces,
            add_dummy_prefix=not keep_spaces,
            max_sentence_length=2**24,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise subwords_problem(str(error), size) from None
    return model.getvalue()


def subwords_problem(message: str, size: int) -> UsageError:
    """The error to raise for an error message of sentencepiece."""
    if found := re.search(r"too high.*<= (\d+)", message):
        return VocabularySizeError(f"--vocabulary {size} is more than this text allows: take at most", int(found[1]))
    if found := re.search(r"smaller than required_chars. \d+ vs (\d+)", message):
        return VocabularySizeError(f"--vocabulary {size} is too small for this text: take at least", int(found[1]))
    if "empty" in message or "all_chars_count" in message:
        return UsageError("there is no text to learn subwords from: take another file")
    return UsageError(f"--vocabulary {size} is impossible for this text ({message.strip()})")


class Subwords:
    """Tokenizer: text to subword ids and back.

    Args:
        model: a sentencepiece model from `train_subwords`.

    Raises:
        UsageError: it is anything else.
    """

    def __init__(self, model: bytes):
        try:
            self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            special = [self.processor.pad_id(), self.processor.unk_id(), self.processor.bos_id()]
            if special != [PAD, UNKNOWN, START] or self.processor.eos_id() != END:
                raise RuntimeError("padding, unknown, start and end have other ids")
        except RuntimeError as error:
            raise UsageError(f"not a vocabulary of this project ({error}): train it again") from None

    def __len__(self) -> int:
        return self.processor.get_piece_size()

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without `START` and `END`."""
        return self.processor.encode(replace_surrogates(text))

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, without `PAD`, `START` and `END`."""
        return self.processor.decode([int(number) for number in ids])

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Each subword as text, with a leading space at the start of a word."""
        return [self.processor.id_to_piece(int(number)).replace("▁", " ") for number in ids]


def kept_subwords(
    path: Path,
    lines: Iterable[str],
    size: int,
    symbols: tuple[str, ...] = (),
    keep_spaces: bool = False,
    exactly: bool = True,
    data: str = "",
) -> Subwords:
    """The vocabulary in a file; if there is no file, one is trained (see `train_subwords`) and saved.

    Args:
        path: of the file, in the directory of a run.
        lines: training text.
        size: vocabulary size.
        symbols: strings that are never split.
        keep_spaces: whether all spaces are kept.
        exactly: whether an impossible size is an error; otherwise the nearest possible one is used, with a warning.
        data: name and fingerprint of the text, saved beside the file.

    Raises:
        UsageError: the file is damaged or of other data, or no vocabulary can be trained.
    """
    origin, made_of = path.with_suffix(".json"), json.dumps({"data": data}) + "\n"
    if not path.exists():
        lines = list(lines)
        try:
            model = train_subwords(lines, size, symbols, keep_spaces)
        except VocabularySizeError as error:
            if exactly:
                raise
            print(f"WARNING: {error}; taking {error.nearest}", file=sys.stderr)
            model = train_subwords(lines, error.nearest, symbols, keep_spaces)
        with replacing(origin) as unfinished:
            unfinished.write_text(made_of, encoding="utf-8")
        with replacing(path) as unfinished:
            unfinished.write_bytes(model)
    elif origin.exists() and (started := origin.read_text(encoding="utf-8", errors="replace")) != made_of:
        raise UsageError(f"{path} is of {started.strip()}, not of {made_of.strip()}: start with another --out")
    return read_subwords(path)


def read_subwords(path: Path) -> Subwords:
    """The vocabulary of a run.

    Raises:
        UsageError: the file is missing or damaged.
    """
    try:
        return Subwords(path.read_bytes())
    except (OSError, UsageError) as error:
        raise UsageError(f"{path} holds no vocabulary ({error}): start anew with another --out") from None
