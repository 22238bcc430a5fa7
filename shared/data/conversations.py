"""Conversations: DailyDialog, the chitchat-dataset package or a file of one's own, as pairs of context and answer."""

import hashlib
import importlib.resources
import itertools
import json
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shared.data.encoding import decoded_text
from shared.data.places import data_directory, fingerprint_of
from shared.data.sequences import SequencePairs
from shared.data.subwords import END, Subwords
from shared.errors import UsageError

CONVERSATION_FILES = (".jsonl", ".tsv", ".txt")
LONGEST_ANSWER = 400
"""In subwords; longer ones are left out, for one of a million would take all memory. DailyDialog has none."""


class Conversations(NamedTuple):
    """Conversations, each a list of turns of alternating speakers, split for training, choices and measuring."""

    name: str
    train: list[list[str]]
    validation: list[list[str]]
    test: list[list[str]]
    fingerprint: str
    """Changes when the source of the data does."""
    repeated: int
    """How many held-out conversations were left out because they occur in the training part."""


def load_conversations(name: str, directory: Path | None, limit: int | None = None) -> Conversations:
    """Loads conversations, split as a whole each, never by pair.

    Held-out conversations of which half of the exchanges occur in the training part are left out: of DailyDialog's
    1,000 test conversations about a quarter, most of them word for word.

    Args:
        name: "dailydialog" (Li et al. 2017, arXiv:1710.03957; its own split), "chitchat" (of the package
            chitchat-dataset), the path of a file, or "auto": dailydialog where it is in the data directory, else
            chitchat, which is then said on stderr. In a .jsonl file each line is a JSON list of turns, or an object
            with such a list as "turns"; in a .tsv or .txt file each line is a conversation, its turns separated by
            tabs.
        directory: the data directory, or None for the usual one.
        limit: train on only so many conversations; None for all.

    Raises:
        UsageError: there is no such data, or the file is not in UTF-8, not in that form, or too short to be split.
    """
    if name == "auto":
        try:
            return load_conversations("dailydialog", directory, limit)
        except UsageError as error:
            print(f"WARNING: no dailydialog, training on the embedded chitchat instead: {error}", file=sys.stderr)
            name = "chitchat"
    path = Path(name)
    if name == "dailydialog":
        archives, parts = read_dailydialog(data_directory(directory) / "raw" / "dailydialog")
        fingerprint = fingerprint_of(archives, archives[0].parent)
    elif name == "chitchat":
        path = Path(str(importlib.resources.files("chitchat_dataset"))) / "dataset.json"
        parts, fingerprint = split_conversations(read_chitchat(path), path), fingerprint_of([path], path.parent)
    elif path.suffix in CONVERSATION_FILES:
        content = read_file(path)
        turns_of = turns_of_json if path.suffix == ".jsonl" else turns_of_columns
        parts = split_conversations(read_lines(content, path, turns_of), path)
        name, fingerprint = path.name, hashlib.sha256(content.encode()).hexdigest()[:12]
    else:
        known = f"auto, dailydialog, chitchat or a file that ends in {', '.join(CONVERSATION_FILES)}"
        raise UsageError(f"no conversations {name!r}: choose {known}")
    held_out = {part: without_repeated(parts[part], parts["train"]) for part in ("validation", "test")}
    repeated = sum(len(parts[part]) - len(held_out[part]) for part in held_out)
    if not all(held_out.values()):
        raise UsageError(f"{path} repeats itself: no conversation is left to measure on that is not trained on too")
    return Conversations(name, parts["train"][:limit], **held_out, fingerprint=fingerprint, repeated=repeated)


def read_file(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        UsageError: it cannot be read, is empty or in another encoding.
    """
    try:
        content = decoded_text(path.read_bytes(), path)
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror}): name another file with --data") from None
    if not content.strip():
        raise UsageError(f"{path} is empty: name another file with --data")
    return content


def read_lines(content: str, path: Path, turns_of: Callable[[str], list[str]]) -> list[list[str]]:
    """The conversations in the lines of a file, those without an answer left out; blank lines and turns are skipped."""
    conversations = []
    for number, line in enumerate(content.split("\n"), 1):  # splitlines would also cut at characters inside of turns
        if line.strip():
            try:
                turns = turns_of(line)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise UsageError(f"{path}, line {number}, is not a list of turns ({error}): mend that line") from None
            conversations.append([turn for turn in map(plain_spaces, turns) if turn])
    return conversations


def turns_of_json(line: str) -> list[str]:
    """The turns in a line of a .jsonl file."""
    found: Any = json.loads(line)
    turns = found["turns"] if isinstance(found, dict) else found
    if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
        raise TypeError('expected ["turn", "answer", …] or {"turns": [ … ]}')
    return [turn.encode(errors="replace").decode() for turn in turns]  # JSON can hold half of a surrogate pair


def turns_of_columns(line: str) -> list[str]:
    """The turns in a line of a .tsv or .txt file."""
    if "\t" not in line:
        raise ValueError("there is no tab between turn and answer")
    return line.split("\t")


def plain_spaces(text: str) -> str:
    """The text with each run of white space and control characters as one space, and none around it."""
    return re.sub(r"[\s\x00-\x1f\x7f]+", " ", text).strip()


def split_conversations(conversations: list[list[str]], path: Path) -> dict[str, list[list[str]]]:
    """Splits 90 / 5 / 5 %, drawn once and for all; conversations of a single turn are left out.

    Raises:
        UsageError: there are fewer than three.
    """
    answered = [turns for turns in conversations if len(turns) > 1]
    if len(answered) < 3:
        raise UsageError(f"{path} holds {len(answered)} conversation(s) with an answer: to train and measure takes 3")
    order = np.random.default_rng(0).permutation(len(answered))
    held_out = max(1, len(answered) // 20)
    parts = {"test": order[:held_out], "validation": order[held_out : 2 * held_out], "train": order[2 * held_out :]}
    return {part: [answered[index] for index in chosen] for part, chosen in parts.items()}


def without_repeated(held_out: list[list[str]], train: list[list[str]]) -> list[list[str]]:
    """The held-out conversations of which less than half of the exchanges occur in training.

    An exchange is a turn and the one after it, compared without regard to case, spaces and punctuation.
    """

    def exchanges(turns: list[str]) -> list[tuple[str, str]]:
        return list(itertools.pairwise(re.sub(r"[\W_]+", "", turn).lower() for turn in turns))

    known = {exchange for turns in train for exchange in exchanges(turns)}
    shares = [np.mean([exchange in known for exchange in exchanges(turns)]) for turns in held_out]
    return [turns for turns, share in zip(held_out, shares, strict=True) if share < 0.5]


def read_dailydialog(directory: Path) -> tuple[list[Path], dict[str, list[list[str]]]]:
    """The paths of DailyDialog's three archives, and its conversations by part."""
    archives, parts = [], {}
    for part in ("train", "validation", "test"):
        path = directory / f"{part}.zip"
        try:
            with zipfile.ZipFile(path) as archive:
                content = archive.read(f"{part}/dialogues_{part}.txt").decode()
        except FileNotFoundError:
            raise UsageError(
                f"{path} is not there: put DailyDialog's train.zip, validation.zip and test.zip in {directory}"
            ) from None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UsageError(f"{path} is damaged ({error}): fetch it again") from None
        archives.append(path)
        turns = [[natural_spelling(turn) for turn in line.split("__eou__")] for line in content.split("\n")]
        conversations = [[turn for turn in each if turn] for each in turns]
        parts[part] = [each for each in conversations if len(each) > 1]
    return archives, parts


def natural_spelling(text: str) -> str:
    """Undoes the spaces that DailyDialog puts around punctuation: "I ’ m fine , thanks ." → "I'm fine, thanks."."""
    text = text.translate(str.maketrans("‘’′“”。、", "'''\"\".,"))
    text = re.sub(r"(\w) ?' ?(s|m|t|d|re|ve|ll|clock)\b", r"\1'\2", text, flags=re.IGNORECASE)
    text = re.sub(r"([\"]) ([^\"]*?) \1", r"\1\2\1", text)
    text = re.sub(r" ([.,?!:;%)])", r"\1", text)
    text = re.sub(r"([(£¥$]) (?=\w)", r"\1", text)
    text = re.sub(r"(?<=[a-z][.?!,])(?=[A-Z])", " ", text)
    return plain_spaces(text)


def read_chitchat(path: Path) -> list[list[str]]:
    """The conversations of the package chitchat-dataset, the messages that a speaker sent in a row as one turn."""
    conversations = []
    for conversation in json.loads(path.read_text(encoding="utf-8")).values():
        messages = itertools.chain.from_iterable(conversation["messages"])
        spoken = [(message["sender"], plain_spaces(message["text"])) for message in messages]
        turns = itertools.groupby(((sender, text) for sender, text in spoken if text), key=lambda each: each[0])
        conversations.append([" ".join(text for _, text in turn) for _, turn in turns])
    return conversations


def encode_context(turns: list[list[int]], length: int) -> list[int]:
    """Turns in subwords as one sequence, with END between them; of more than `length` subwords the last remain."""
    joined = [subword for turn in turns for subword in (END, *turn)]
    return joined[1:][-length:]


def pairs_of(conversations: list[list[str]], subwords: Subwords, turns: int, length: int) -> SequencePairs:
    """Each turn but the first as the answer to those before it, unless it is longer than `LONGEST_ANSWER`.

    Args:
        conversations: lists of turns.
        subwords: the vocabulary.
        turns: how many turns the context holds at most.
        length: how many subwords the context holds at most; what was said first is cut off.
    """
    sources, targets = [], []
    for conversation in conversations:
        encoded = [subwords.encode(turn) for turn in conversation]
        for index in range(1, len(encoded)):
            if len(encoded[index]) <= LONGEST_ANSWER:
                sources.append(encode_context(encoded[max(0, index - turns) : index], length))
                targets.append(encoded[index])
    return SequencePairs(sources, targets)


def answer_pairs(
    data: Conversations, subwords: Subwords, turns: int, context: int, answer: int, held_out: int | None = None
) -> dict[str, SequencePairs]:
    """Contexts and answers of the parts "train", "validation" and "test".

    Args:
        data: the conversations.
        subwords: the vocabulary.
        turns: how many turns a context holds at most.
        context: how many subwords a context holds at most; what was said first is cut off.
        answer: how many subwords an answer to train on has at most. Others are left out, for to cut them would teach to
            stop in the middle; they are held out for measuring all the same.
        held_out: how many pairs of each of the other parts are taken, from all over; None for all.

    Raises:
        UsageError: all answers of a part are too long.
    """
    parts = {part: pairs_of(getattr(data, part), subwords, turns, context) for part in ("train", "validation", "test")}
    parts["train"] = parts["train"].within(context, answer)
    for part, pairs in parts.items():
        if not pairs.targets:
            most = answer if part == "train" else LONGEST_ANSWER
            raise UsageError(f"{data.name}: all answers in the part {part} have more than {most} subwords")
    return {part: pairs if part == "train" else evenly_spread(pairs, held_out) for part, pairs in parts.items()}


def spoken_context(source: list[int], subwords: Subwords) -> str:
    """A context as people read it, a slash between turns."""
    turns = (list(turn) for ended, turn in itertools.groupby(source, key=lambda number: number == END) if not ended)
    return " / ".join(subwords.decode(turn) for turn in turns)


def evenly_spread(pairs: SequencePairs, count: int | None) -> SequencePairs:
    """So many pairs from all over; all of them where there are fewer, or where `count` is None."""
    chosen = np.linspace(0, len(pairs.targets), min(count or len(pairs.targets), len(pairs.targets)), False, dtype=int)
    return SequencePairs(*([side[index] for index in chosen] for side in pairs))
