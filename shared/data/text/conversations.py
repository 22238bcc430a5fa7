"""Conversations from DailyDialog, the bundled package chitchat-dataset or a user's file."""

import ast
import functools
import importlib.resources
import itertools
import json
import os
import re
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shared.data.encoding import DAMAGED_ARCHIVE, read_text, replace_surrogates
from shared.data.places import PassedOver, data_directory, fingerprint_of
from shared.data.text.records import (
    RECORD_FORMATS,
    RecordFormat,
    TextRecord,
    numbered_lines,
    read_records_of,
    read_separated,
    usable_values,
)
from shared.errors import UsageError

LONGEST_ANSWER = 400
"""Maximum answer length in subwords, which bounds memory."""


class Conversations(NamedTuple):
    """Conversations, each a list of turns of alternating speakers, split into training, validation and test parts."""

    name: str
    train: list[list[str]]
    validation: list[list[str]]
    test: list[list[str]]
    fingerprint: str
    """Short hash of the source files."""
    repeated: int
    """Number of held-out conversations removed because they occur in the training part."""
    found: str
    """One-line summary: conversations in each part, and what was passed over."""


def load_conversations(name: str, directory: Path | None, limit: int | None = None) -> Conversations:
    """Loads conversations, split by whole conversations.

    Held-out conversations are removed if half of their exchanges occur in the training part, which DailyDialog's own
    split does not ensure.

    Args:
        name: "dailydialog" (Li et al. 2017, arXiv:1710.03957; its own split), "chitchat" (of the package
            chitchat-dataset), the path of a file (see `read_conversations`), or "auto": dailydialog if it is in the
            data directory, else chitchat with a warning.
        directory: the data directory, or None for the default.
        limit: train on the first N conversations; None for all.

    Raises:
        UsageError: there is no such data, or the file is not UTF-8, in no known format, or too short to split.
    """
    if name == "auto":
        try:
            return load_conversations("dailydialog", directory, limit)
        except UsageError as error:
            print(f"WARNING: no dailydialog, training on the bundled chitchat instead: {error}", file=sys.stderr)
            name = "chitchat"
    path, kind, passed_over = Path(os.path.expanduser(name)), "", PassedOver()
    if name == "dailydialog":
        archives, parts = read_dailydialog(data_directory(directory) / "raw" / "dailydialog")
        fingerprint = fingerprint_of(archives, archives[0].parent)
    elif name == "chitchat":
        path = Path(str(importlib.resources.files("chitchat_dataset"))) / "dataset.json"
        parts, fingerprint = split_conversations(read_chitchat(path), path), fingerprint_of([path], path.parent)
    elif os.path.isfile(path):
        kind, files, conversations = read_conversations(path, passed_over)
        parts, fingerprint = split_conversations(conversations, path), fingerprint_of(files, path.parent)
        name = path.name
    elif os.path.isdir(path):
        raise UsageError(f"--data {name} is a folder: name the file in it that holds the conversations")
    else:
        raise UsageError(f"no conversations {name!r}: choose auto, dailydialog, chitchat or a file of conversations")
    held_out = {part: without_repeated(parts[part], parts["train"]) for part in ("validation", "test")}
    repeated = sum(len(parts[part]) - len(held_out[part]) for part in held_out)
    if not all(held_out.values()):
        raise UsageError(f"{path} repeats itself: all held-out conversations occur in training too")
    train = parts["train"][:limit]
    used = f" (the first {limit:,} are used)" if len(train) < len(parts["train"]) else ""
    found = (
        f"{kind}{len(parts['train']):,} conversations for training{used}, "
        f"{len(held_out['validation']):,} for validation, {len(held_out['test']):,} for testing "
        f"({repeated:,} more are left out that occur in training); {passed_over}"
    )
    return Conversations(name, train, **held_out, fingerprint=fingerprint, repeated=repeated, found=found)


def read_blocks(content: str) -> list[TextRecord] | None:
    """One turn per line, with a blank line between conversations."""
    blocks: list[TextRecord] = []
    last = None
    for number, line in numbered_lines(content):
        if last is None or number > last + 1:
            blocks.append(TextRecord(number, []))
        blocks[-1].value.append(line)
        last = number
    return blocks if len(blocks) > 1 and any(len(block.value) > 1 for block in blocks) else None


CORNELL = "+++$+++"


CONVERSATION_FORMATS = (
    RecordFormat(f"columns with {CORNELL} between", functools.partial(read_separated, separator=CORNELL)),
    RecordFormat("turns with __eou__ between", functools.partial(read_separated, separator="__eou__")),
    *RECORD_FORMATS,
    RecordFormat("a turn a line, a blank line after each conversation", read_blocks),
)


LIST_FIELDS = ("turns", "messages", "conversations", "conversation", "dialog", "dialogue", "utterances", "log")
"""Field names of a list of turns or messages."""


TEXT_FIELDS = ("content", "value", "text", "utterance", "message")
"""Field names of a message's text."""


ROLE_FIELDS = ("role", "from", "speaker", "sender")


NOT_SPEAKERS = ("system", "developer", "tool", "function", "observation")
"""Roles of messages that are not turns of the conversation."""


PAIR_OF_TURNS = (
    ("question", "answer"), ("instruction", "output"), ("instruction", "response"), ("prompt", "completion"),
    ("prompt", "response"), ("input", "output"), ("input", "response"), ("context", "response"), ("query", "response"),
    ("message", "reply"), ("text", "response"), ("user", "assistant"), ("user", "bot"), ("human", "assistant"),
    ("human", "bot"), ("source", "target"), ("q", "a"),
)  # fmt: skip
"""Field names of a turn and its answer."""


CONVERSATION_IDS = ("conversation_id", "conv_id", "dialogue_id", "dialog_id", "conversation id", "dialogue id")
"""Field names of a message's conversation id."""


def read_conversations(path: Path, passed_over: PassedOver) -> tuple[str, list[Path], list[list[str]]]:
    """Format of a file, one of `CONVERSATION_FORMATS`, the files read, and their conversations.

    A record is a conversation: a list of turns or of messages with roles, an object that holds such a list, or one with
    a turn and its answer. Or it is a message with a conversation id. Conversations of a single turn, and a few invalid
    lines, are passed over.

    Raises:
        UsageError: it cannot be read, is in no known form, or most of its records are not conversations.
    """
    file = read_records_of(path, CONVERSATION_FORMATS, "put the turns of a conversation in a line, tabs between them")
    files = [path]
    if CORNELL in file.format:
        files, conversations = read_cornell(path)
    elif id_field := next((each for each in CONVERSATION_IDS if is_message_with(each, file.records)), None):
        messages = usable_values(file, path, lambda value: (str(value[id_field]), message_text(value)), passed_over)
        by_id: dict[str, list[str]] = {}
        for conversation, text in messages:
            by_id.setdefault(conversation, []).append(text)
        conversations = list(by_id.values())
    else:
        conversations = usable_values(file, path, turns_of, passed_over)
    plain = [[turn for turn in map(plain_spaces, turns) if turn] for turns in conversations]
    for number, turns in enumerate(plain, 1):
        if len(turns) < 2:
            passed_over.add("without an answer", f"{path.name}, conversation {number:,}")
    return f"{file.format}: ", files, plain


def is_message_with(id_field: str, records: list[TextRecord]) -> bool:
    """Whether the first readable record is a message with a conversation id."""
    first = next((record.value for record in records if not record.problem), None)
    return (
        isinstance(first, dict) and id_field in first and any(isinstance(first.get(each), str) for each in TEXT_FIELDS)
    )


def turns_of(value: Any) -> list[str]:
    """The turns of a conversation; see `read_conversations`.

    Raises:
        TypeError: it is not a conversation.
    """
    if isinstance(value, list):
        if all(isinstance(turn, str) for turn in value):
            return [replace_surrogates(turn) for turn in value]
        return turns_of_messages(value)
    if isinstance(value, dict):
        fields = {name.lower(): content for name, content in value.items()}
        for name in LIST_FIELDS:
            if isinstance(fields.get(name), list):
                return turns_of(fields[name])
        for asked, answered in PAIR_OF_TURNS:
            if isinstance(fields.get(asked), str) and isinstance(fields.get(answered), str):
                more = fields.get("input", "") if asked == "instruction" else ""
                return [replace_surrogates(text) for text in (f"{fields[asked]} {more}", fields[answered])]
        raise TypeError(f"none of the fields {', '.join(value)} holds turns, or a turn and its answer")
    raise TypeError('expected ["turn", "answer", …], {"turns": [ … ]} or {"question": …, "answer": …}')


def turns_of_messages(messages: list[dict]) -> list[str]:
    """Turns of messages with roles; consecutive messages of a speaker are joined, system messages dropped."""
    if not all(isinstance(message, dict) for message in messages):
        raise TypeError("expected a list of strings, or of messages")
    spoken = []
    for number, message in enumerate(messages):
        role = next((str(message[field]) for field in ROLE_FIELDS if field in message), None)
        if role is None or role.lower() not in NOT_SPEAKERS:
            spoken.append((number if role is None else role, message_text(message)))
    turns = itertools.groupby(((role, text) for role, text in spoken if text.strip()), key=lambda each: each[0])
    return [" ".join(text for _, text in turn) for _, turn in turns]


def message_text(message: dict) -> str:
    """The text of a message, which may consist of parts."""
    for field in TEXT_FIELDS:
        match message.get(field):
            case str(text):
                return replace_surrogates(text)
            case [*parts]:
                texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
                return replace_surrogates(" ".join(text for text in texts if isinstance(text, str)))
    raise TypeError(f"a message has none of the fields {', '.join(TEXT_FIELDS)}")


def read_cornell(path: Path) -> tuple[list[Path], list[list[str]]]:
    """Cornell's movie dialogs (Danescu-Niculescu-Mizil and Lee 2011): lines, and conversations as lists of their ids.

    Args:
        path: of movie_lines.txt or of movie_conversations.txt, which lie in one folder.

    Raises:
        UsageError: the other file is not there, or a conversation names a line that is not there.
    """
    files = [path.with_name("movie_conversations.txt"), path.with_name("movie_lines.txt")]
    for needed in files:
        if not needed.is_file():
            raise UsageError(
                f"{path} holds a part of Cornell's movie dialogs, and {needed.name} is not beside it: movie_lines.txt "
                "holds the lines, and movie_conversations.txt which of them make a conversation"
            )
    conversations, lines = (
        [[cell.strip() for cell in line.split(CORNELL)] for _, line in numbered_lines(read_text(file))]
        for file in files
    )
    texts = {cells[0]: cells[-1] for cells in lines}
    try:
        return files, [[texts[line] for line in ast.literal_eval(cells[-1])] for cells in conversations]
    except (ValueError, SyntaxError, KeyError, TypeError) as error:
        raise UsageError(f"{files[0]} does not list lines of {files[1].name} ({error}): fetch both again") from None


def plain_spaces(text: str) -> str:
    """The text with runs of whitespace and control characters as one space, stripped."""
    return re.sub(r"[\s\x00-\x1f\x7f]+", " ", text).strip()


def split_conversations(conversations: list[list[str]], path: Path) -> dict[str, list[list[str]]]:
    """Random 90 / 5 / 5 % split with a fixed seed; conversations of a single turn are dropped.

    Raises:
        UsageError: there are fewer than three.
    """
    answered = [turns for turns in conversations if len(turns) > 1]
    if len(answered) < 3:
        raise UsageError(f"{path} holds {len(answered)} conversation(s) with an answer: at least 3 are needed")
    order = np.random.default_rng(0).permutation(len(answered))
    held_out = max(1, len(answered) // 20)
    parts = {"test": order[:held_out], "validation": order[held_out : 2 * held_out], "train": order[2 * held_out :]}
    return {part: [answered[index] for index in chosen] for part, chosen in parts.items()}


def without_repeated(held_out: list[list[str]], train: list[list[str]]) -> list[list[str]]:
    """Held-out conversations with less than half of their exchanges in the training part.

    An exchange is a turn and the next, compared without case, spaces and punctuation.
    """

    def exchanges(turns: list[str]) -> list[tuple[str, str]]:
        return list(itertools.pairwise(re.sub(r"[\W_]+", "", turn).lower() for turn in turns))

    known = {exchange for turns in train for exchange in exchanges(turns)}
    repeated = [np.mean([exchange in known for exchange in exchanges(turns)]) for turns in held_out]
    return [turns for turns, fraction in zip(held_out, repeated, strict=True) if fraction < 0.5]


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
        except DAMAGED_ARCHIVE as error:
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
    """The conversations of the package chitchat-dataset; consecutive messages of a speaker are joined."""
    conversations = []
    for conversation in json.loads(path.read_text(encoding="utf-8")).values():
        messages = itertools.chain.from_iterable(conversation["messages"])
        spoken = [(message["sender"], plain_spaces(message["text"])) for message in messages]
        turns = itertools.groupby(((sender, text) for sender, text in spoken if text), key=lambda each: each[0])
        conversations.append([" ".join(text for _, text in turn) for _, turn in turns])
    return conversations
