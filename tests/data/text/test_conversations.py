"""Conversations from archives, packages and files, as pairs of context and answer."""

import csv
import io
import json
import os
import zipfile

import numpy as np
import pytest
from conftest import directory_with, refused_in_one_line

from shared.data.text.conversations import (
    LONGEST_ANSWER,
    Conversations,
    load_conversations,
    natural_spelling,
    without_repeated,
)
from shared.errors import UsageError
from shared.text.dialogue import answer_counts, answer_pairs, encode_context, evenly_spread, pairs_of, readable_context
from shared.text.pairs import SequencePairs
from shared.text.subwords import END, Subwords, train_subwords

pytestmark = pytest.mark.once

ALL = ("train", "validation", "test")


def all_turns(data):
    return [turns for part in ALL for turns in getattr(data, part)]


@pytest.mark.parametrize(
    ("tokenised", "natural"),
    [
        ("I ’ m fine , thanks .", "I'm fine, thanks."),
        ("It ' s 10 o ' clock ! Don't you know ?", "It's 10 o'clock! Don't you know?"),
        ("That's $ 20 ( 5 % off ) ; all right ...", "That's $20 (5% off); all right..."),
        ("He said “ Happy Birthday ” to me .", 'He said "Happy Birthday" to me.'),
        ('say " Thank you " , and " Bye "', 'say "Thank you", and "Bye"'),
        ("Here is $ 150.Keep it.Please .", "Here is $150.Keep it. Please."),
        ("the boys ' names", "the boys ' names"),
        ("  one\x7f two  ", "one two"),
        ("", ""),
    ],
)
def test_natural_spelling(tokenised, natural):
    assert natural_spelling(tokenised) == natural


def write_dailydialog(directory, **parts):
    directory.mkdir(parents=True)
    for part, conversations in parts.items():
        text = "".join("".join(f"{turn} __eou__ " for turn in turns).rstrip() + "\n" for turns in conversations)
        with zipfile.ZipFile(directory / f"{part}.zip", "w") as archive:
            archive.writestr(f"{part}/dialogues_{part}.txt", text)


def test_dailydialog_keeps_its_split_and_leaves_out_what_is_trained_on(tmp_path):
    write_dailydialog(
        tmp_path / "raw/dailydialog",
        train=[["Hello , Jim !", "Hi .", "How are you ?", "Fine ."], ["Alone ."], ["A ?", "B ."]],
        validation=[["Hello ,  Jim", "hi", "Well ?"], ["New ?", "Yes ."]],
        test=[["What ?", "A", "B !", "C"], ["HOW are you", "Fine"]],
    )
    data = load_conversations("dailydialog", tmp_path)
    assert data.train == [["Hello, Jim!", "Hi.", "How are you?", "Fine."], ["A?", "B."]]
    assert data.validation == [["New?", "Yes."]]  # of the other a half occurs in training
    assert data.test == [["What?", "A", "B!", "C"]]  # of which a third does
    assert data.repeated == 2
    few = load_conversations("dailydialog", tmp_path, limit=1)
    assert few._replace(found="") == data._replace(
        train=data.train[:1], found=""
    )  # what is held out does not depend on how much is trained on


@pytest.mark.parametrize("damage", [b"torn", None])
def test_damaged_dailydialog(tmp_path, damage):
    write_dailydialog(tmp_path / "raw/dailydialog", train=[["A", "B"]], validation=[["C", "D"]])
    if damage:
        (tmp_path / "raw/dailydialog/test.zip").write_bytes(damage)
    with pytest.raises(UsageError, match=r"test\.zip is damaged" if damage else r"test\.zip is not there: put"):
        load_conversations("dailydialog", tmp_path)


def test_real_dailydialog():
    directory_with("raw/dailydialog")
    data = load_conversations("auto", None)
    assert data.name == "dailydialog"
    assert [len(getattr(data, part)) for part in ALL] == [11118, 814, 759]
    assert data.repeated == 186 + 241
    turns = [turn for conversation in all_turns(data) for turn in conversation]
    assert not any(turn != turn.strip() or "__eou__" in turn or not turn for turn in turns)
    assert sum(" ," in turn or " ." in turn for turn in turns) / len(turns) < 0.001


def test_auto_without_data_takes_chitchat_and_says_so(tmp_path, capsys):
    data = load_conversations("auto", tmp_path)
    assert "WARNING: no dailydialog, training on the bundled chitchat instead" in capsys.readouterr().err
    assert data.name == "chitchat"
    assert [len(getattr(data, part)) for part in ALL] == [3617, 200, 200]
    assert data.repeated == 0
    assert all(len(turns) > 1 and all(turns) for turns in all_turns(data))
    train, *held_out = ({tuple(turns) for turns in getattr(data, part)} for part in ALL)
    assert not any(train & part for part in held_out)  # split by conversation: none is in two parts
    assert any("How are you doing today?" in turns[0] and turns[1].startswith("whats up MD im") for turns in train)


CONVERSATIONS = [[f"turn {number}", f"answer {number * number}"] for number in range(40)]
STRANGE = ["😀🤖 ok", "你好吗", "שלום עולם", "x" * 200_000, "one\u2028line\x85here", "tab less"]


def test_files(tmp_path):
    rows = [*CONVERSATIONS, STRANGE, ["", "  "], ["only one"], ["a", "", " b "]]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(turns) for turns in rows) + "\n\n")
    (tmp_path / "b.jsonl").write_bytes(
        "\r\n".join(json.dumps({"turns": turns}, ensure_ascii=False) for turns in rows).encode("utf-8-sig")
    )
    (tmp_path / "c.tsv").write_text("\n".join("\t".join(turns) for turns in rows if len(turns) > 1))
    (tmp_path / "d.txt").write_text("\n".join("\t".join(turns) for turns in rows if len(turns) > 1) + "\n")
    parts = [load_conversations(str(tmp_path / name), None) for name in ("a.jsonl", "b.jsonl", "c.tsv", "d.txt")]
    assert [data.name for data in parts] == ["a.jsonl", "b.jsonl", "c.tsv", "d.txt"]
    for data in parts:
        assert [len(getattr(data, part)) for part in ALL] == [38, 2, 2]
        assert all_turns(data) == all_turns(parts[0])
        strange = [turn.replace("\u2028", " ").replace("\x85", " ") for turn in STRANGE]
        assert sorted(all_turns(data)) == sorted([*CONVERSATIONS, strange, ["a", "b"]])
    assert len({data.fingerprint for data in parts}) == 4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", b"", "a.tsv is empty"),
        ("a.jsonl", b" \n\n", "a.jsonl is empty"),
        ("a.tsv", b"hi\tho\n", "holds 1 conversation(s) with an answer: at least 3 are needed"),
        ("a.tsv", b"hi\t\na\tb\n \tb\n", "holds 1 conversation(s) with an answer"),
        ("a.tsv", "ich\tmöchte\n".encode("latin-1"), "a.tsv, line 1: byte 0xf6 is not UTF-8"),
        ("a.txt", "hi\tho\n".encode("utf-16-le"), "a.txt, line 1: a null byte"),
        (
            "a.txt",
            b"hi\tho\nhello\n",
            "1 of 2 records cannot be used, the first of them in line 2: there is no tab in it",
        ),
        (
            "a.jsonl",
            b'["a", "b"]\n["a", 3]\n',
            "1 of 2 records cannot be used, the first of them in line 2: expected a list of",
        ),
        ("a.jsonl", b'["a", "b"]\n{"a": 3}\n', "in line 2: none of the fields a holds turns"),
        ("a.jsonl", b'["a", "b"\n', "a.jsonl holds no records in JSON: line 2, column 1: Expecting ',' delimiter"),
        ("a.jsonl", b"3\n", "a.jsonl holds no records in JSON: there are no lists or objects in it"),
        ("a.jsonl", b"[" * 100_000, "line 1 is nested too deeply"),
        ("a.tsv", b"hi\tho\n" * 50, "repeats itself"),
        ("a.csv", b"hi,ho\n", "holds 1 conversation(s) with an answer"),
        ("a.txt", b"hi\nho\n", "a.txt is in none of the known formats (columns with +++$+++ between"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with refused_in_one_line(message):
        load_conversations(str(tmp_path / name), None)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"no conversations '.*nothing\.tsv': choose auto, dailydialog, chitchat or a"):
        load_conversations(str(tmp_path / "nothing.tsv"), None)
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(UsageError, match=r"folder\.txt is a folder: name the file"):
        load_conversations(str(tmp_path / "folder.txt"), None)


TALKS = [
    [f'May I have {n}, "please"?', f"Yes, {n} of them.", "And the rest?", f"No, {n * n} are gone."] for n in range(60)
]
TWO_TURNS = [turns[:2] for turns in TALKS]


def in_lines(conversations, line_of):
    return "".join(line_of(turns) + "\n" for turns in conversations)


def json_lines(conversations, value_of):
    return in_lines(conversations, lambda turns: json.dumps(value_of(turns)))


def in_csv(header, rows):
    text = io.StringIO()
    csv.writer(text).writerows([*header, *rows])
    return text.getvalue()


def messages(turns, role="role", text="content", roles=("user", "assistant")):
    return [{role: roles[index % 2], text: turn} for index, turn in enumerate(turns)]


SYSTEM = {"role": "system", "content": "Be kind."}
CALL = {"role": "tool", "content": "{}"}
FORMATS = {
    "lists": ("JSON lines", TALKS, json_lines(TALKS, lambda turns: turns)),
    "array": ("JSON", TALKS, json.dumps(TALKS)),
    "array of a line each": ("JSON", TALKS, json.dumps(TALKS, indent=0)),
    "dialog": ("JSON lines", TALKS, json_lines(TALKS, lambda turns: {"id": 1, "dialog": turns, "topic": "work"})),
    "dialogue": ("JSON", TALKS, json.dumps({"data": [{"dialogue": turns} for turns in TALKS], "version": "1"})),
    "by name": ("JSON", TALKS, json.dumps({f"talk {n}": {"Turns": turns} for n, turns in enumerate(TALKS)})),
    "messages": (
        "JSON lines", TALKS, json_lines(TALKS, lambda turns: {"messages": [SYSTEM, *messages(turns), CALL], "n": 1}),
    ),
    "messages alone": ("JSON lines", TALKS, json_lines(TALKS, messages)),
    "parts": (
        "JSON lines", TALKS,
        json_lines(TALKS, lambda turns: {"messages": messages([[{"type": "text", "text": turn}] for turn in turns])}),
    ),
    "from and value": (
        "JSON", TALKS,
        json.dumps([{"conversations": messages(talk, "from", "value", ("human", "gpt"))} for talk in TALKS], indent=1),
    ),
    "in a row": (
        "JSON lines", TALKS,
        json_lines(TALKS, lambda turns: [{"speaker": "A", "text": word} for word in turns[0].split()]
                   + messages(turns[1:], "speaker", "text", ("B", "A"))),
    ),
    "instruction": (
        "JSON", [[f"{asked} now", answer] for asked, answer in TWO_TURNS],
        json.dumps([{"instruction": asked, "input": "now", "output": answer} for asked, answer in TWO_TURNS]),
    ),
    "prompt": (
        "JSON lines", TWO_TURNS, json_lines(TWO_TURNS, lambda turns: {"prompt": turns[0], "completion": turns[1]}),
    ),
    "__eou__": ("turns with __eou__ between", TALKS, in_lines(TALKS, lambda turns: " __eou__ ".join([*turns, ""]))),
    "tabs": ("tab-separated values", TALKS, in_lines(TALKS, "\t".join)),
    "tabs, a header": (
        "tab-separated values with a header", TWO_TURNS, "Question\tAnswer\n" + in_lines(TWO_TURNS, "\t".join)
    ),
    "csv": (
        "CSV with a header", TWO_TURNS, in_csv([("answer", "topic", "question")], [(b, "", a) for a, b in TWO_TURNS]),
    ),
    "csv of turns": ("CSV", TALKS, in_csv([], TALKS)),
    "a message a row": (
        "CSV with a header", TALKS,
        in_csv([("dialog_id", "id", "utterance")], [(n, "A", turn) for n, turns in enumerate(TALKS) for turn in turns]),
    ),
    "blocks": (
        "a turn a line, a blank line after each conversation", TALKS,
        in_lines(TALKS, lambda turns: "\n".join([*turns, ""])),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_of_conversations_is_known_by_what_is_in_it(tmp_path, kind):
    form, conversations, content = FORMATS[kind]
    path = tmp_path / "my talks.DAT"
    path.write_bytes(content.replace("\n", "\r\n").encode("utf-8-sig"))
    data = load_conversations(str(path), None)
    assert sorted(all_turns(data)) == sorted(conversations)
    assert data.name == path.name
    held_out = "3 for validation, 3 for testing (0 more are left out that occur in training)"
    assert data.found == f"{form}: 54 conversations for training, {held_out}; nothing passed over"


def test_what_is_passed_over_and_what_is_used_is_said(tmp_path, subwords):
    path = tmp_path / "talks.tsv"
    path.write_text(in_lines(TALKS, "\t".join) + "just a note\n" + "hello\t\n" + "yes?\tno\n")
    data = load_conversations(str(path), None, limit=10)
    assert data.found == (
        "tab-separated values: 55 conversations for training (the first 10 are used), 3 for validation, "
        "3 for testing (0 more are left out that occur in training); passed over 2: "
        "1 that cannot be read (talks.tsv, line 61); 1 without an answer (talks.tsv, conversation 61)"
    )
    longest = max(len(subwords.encode(turn)) for turns in data.train for turn in turns[1:])
    parts = answer_pairs(data, subwords, turns=2, context=30, answer=longest - 1)
    learned = len(parts["train"].targets)
    assert answer_counts(data, parts) == (
        f"{learned} answers for training ({30 - learned} longer than --answer left out), 9 for validation, "
        "9 for testing"
    )


def write_cornell(folder):
    between = " +++$+++ "
    numbered = [(f"L{4 * n + i}", turn) for n, turns in enumerate(TALKS) for i, turn in enumerate(turns)]
    lines = [between.join((name, "u0", "m0", "ANNA", turn)) for name, turn in reversed(numbered)]
    (folder / "movie_lines.txt").write_text("\n".join(lines))
    talks = [between.join(("u0", "u2", "m0", str([f"L{4 * n + i}" for i in range(4)]))) for n in range(60)]
    (folder / "movie_conversations.txt").write_text("\n".join(talks))


def test_cornell(tmp_path):
    write_cornell(tmp_path)
    data = load_conversations(str(tmp_path / "movie_lines.txt"), None)
    assert sorted(all_turns(data)) == sorted(TALKS)
    assert all_turns(load_conversations(str(tmp_path / "movie_conversations.txt"), None)) == all_turns(data)
    path = tmp_path / "movie_conversations.txt"
    path.write_text(path.read_text().replace("L0", "L1"))
    assert load_conversations(str(tmp_path / "movie_lines.txt"), None).fingerprint != data.fingerprint
    path.write_text(path.read_text().replace("L7", "L999"))
    with refused_in_one_line("does not list lines of movie_lines.txt ('L999')"):
        load_conversations(str(path), None)
    path.unlink()
    with refused_in_one_line("movie_conversations.txt is not beside it: movie_lines.txt holds the lines"):
        load_conversations(str(tmp_path / "movie_lines.txt"), None)


BAD_FILES = {
    "null": b"null", "number": b"3", "string": b'"hi"', "empty list": b"[]", "empty object": b"{}",
    "lists of nothing": b"[[], [], []]", "deep": b"[" * 20_000 + b"]" * 20_000, "numbers": b"[[1, 2], [3, 4], [5, 6]]",
    "mixed": b'[["a", {"text": "b"}], 5, null, {"turns": 3}]', "no text": b'[{"role": "user"}, {"role": "bot"}]',
    "odd parts": b'{"messages": [{"role": null, "content": [1, null]}, {"role": 7, "content": {}}]}\n' * 5,
    "fields of other types": b'{"question": 1, "answer": null}\n' * 5, "surrogates": b'["\\ud83d", "\\udc00"]\n',
    "infinity": b"[NaN, Infinity]\n", "open quotation mark": b'question,answer\n"a,b\n' * 9, "comma": b",",
    "tab": b"\t", "eou": b"__eou__", "bars": b"|||", "cornell": b" +++$+++ ", "header": b"question\tanswer\n" * 3,
    "control characters": bytes(range(1, 32)) * 50, "a long line": b"x" * 3_000_000, "zip": b"PK\x03\x04" + bytes(99),
    "gzip": b"\x1f\x8b\x08" + bytes(99), "random": bytes(range(256)) * 9, "one byte": b"a", "quotation mark": b'"',
    "byte order mark": b"\xff\xfe", "only ends of lines": b"\r\n\r" * 99,
    "messages by id": b'[{"conv_id": 1, "text": 5}]',
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_FILES)
def test_whatever_is_in_a_file_there_is_no_traceback(tmp_path, kind):
    (tmp_path / "talks").write_bytes(BAD_FILES[kind])
    with refused_in_one_line("talks"):
        load_conversations(str(tmp_path / "talks"), None)


def test_other_contents_of_the_same_size_are_other_data(tmp_path):
    path, found = tmp_path / "talks.tsv", []
    for word in ("red", "sad"):
        path.write_text("".join(f"{n}?\t{n} {word}\n" for n in range(40)))
        os.utime(path, (0, 0))
        found.append(load_conversations(str(path), None))
    assert all(turns[1].endswith(" sad") for turns in all_turns(found[1]))
    assert found[0].fingerprint != found[1].fingerprint


def damaged_archives(path):
    """The bytes of a zip archive with each of the faults that Python's module has an error of its own for."""
    content = path.read_bytes()
    start, central = content.index(b"dialogues_") + 60, content.index(b"PK\x01\x02")
    yield content[:start] + bytes([content[start] ^ 0xFF, content[start + 1] ^ 0xFF]) + content[start + 2 :]
    for field, value in ((8, 1), (10, 99), (10, 12)):  # encrypted; methods that are unknown or do not fit
        both = bytearray(content)
        both[central + field], both[field - 2] = value, value
        yield bytes(both)
    yield content[: len(content) // 2]
    yield b""


@pytest.mark.parametrize("damage", range(6))
def test_a_damaged_archive_ends_in_one_line(tmp_path, damage):
    folder = tmp_path / "raw/dailydialog"
    write_dailydialog(folder, **dict.fromkeys(ALL, TALKS))
    for name in ALL:
        content = zipfile.ZipFile(folder / f"{name}.zip").read(f"{name}/dialogues_{name}.txt")
        with zipfile.ZipFile(folder / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{name}/dialogues_{name}.txt", content)
    (folder / "test.zip").write_bytes(list(damaged_archives(folder / "test.zip"))[damage])
    with refused_in_one_line("test.zip is damaged ("):
        load_conversations("dailydialog", tmp_path)


def test_half_of_the_exchanges_is_too_much():
    train = [["a", "b", "c"], ["d", "e"]]
    assert without_repeated([["a", "b", "x"]], train) == []
    assert without_repeated([["a", "b", "x", "y"]], train) == [["a", "b", "x", "y"]]
    assert without_repeated([["a", "c"], ["b", "a"], ["e", "d"]], train) == [["a", "c"], ["b", "a"], ["e", "d"]]


@pytest.fixture(scope="module")
def subwords():
    return Subwords(train_subwords([turn for turns in CONVERSATIONS for turn in turns] * 3, 290))


def test_contexts_end_with_what_was_said_last():
    assert encode_context([[11, 12], [13], [14, 15]], 9) == [11, 12, END, 13, END, 14, 15]
    assert encode_context([[11, 12], [13], [14, 15]], 4) == [13, END, 14, 15]
    assert encode_context([[11, 12], [13], [14, 15]], 1) == [15]
    assert encode_context([[], []], 5) == [END]


def test_each_turn_answers_those_before(subwords):
    one, two, three, four = (subwords.encode(text) for text in ("turn 1", "answer 2", "turn 3", "answer 4"))
    pairs = pairs_of([["turn 1", "answer 2", "turn 3", "answer 4"], ["turn 3", "turn 1"]], subwords, 2, 50)
    assert pairs.targets == [two, three, four, one]
    assert pairs.sources == [one, [*one, END, *two], [*two, END, *three], three]
    assert [readable_context(source, subwords) for source in pairs.sources][1:3] == [
        "turn 1 / answer 2",
        "answer 2 / turn 3",
    ]


def test_long_answers_are_measured_and_not_learned(subwords):
    talk = ["turn 1", "answer 2", "turn 3 " * 20]
    data = Conversations("some", [talk], [talk], [talk], "", 0, "")
    parts = answer_pairs(data, subwords, turns=2, context=30, answer=20)
    assert len(parts["train"].targets) == 1
    assert len(parts["validation"].targets) == len(parts["test"].targets) == 2
    assert len(answer_pairs(data, subwords, 2, 30, 20, held_out=1)["test"].targets) == 1
    with pytest.raises(UsageError, match="all answers in the part train have more than 1 subwords: raise --answer"):
        answer_pairs(data, subwords, turns=2, context=30, answer=1)
    endless = data._replace(test=[["turn 1", "🤖" * LONGEST_ANSWER]])
    with pytest.raises(UsageError, match=f"all answers in the part test have more than {LONGEST_ANSWER} subwords"):
        answer_pairs(endless, subwords, turns=2, context=30, answer=20)


def test_evenly_spread():
    pairs = SequencePairs([[index] for index in range(10)], [[-index] for index in range(10)])
    assert evenly_spread(pairs, None) == evenly_spread(pairs, 99) == pairs
    assert np.ravel(evenly_spread(pairs, 3).sources).tolist() == [0, 3, 6]
    assert np.ravel(evenly_spread(pairs, 3).targets).tolist() == [0, -3, -6]
