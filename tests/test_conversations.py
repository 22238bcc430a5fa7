"""Conversations from archives, packages and files, as pairs of context and answer."""

import json
import zipfile

import numpy as np
import pytest
from conftest import directory_with, refused_in_one_line

from shared.data.conversations import (
    LONGEST_ANSWER,
    Conversations,
    answer_pairs,
    encode_context,
    evenly_spread,
    load_conversations,
    natural_spelling,
    pairs_of,
    spoken_context,
    without_repeated,
)
from shared.data.sequences import SequencePairs
from shared.data.subwords import END, Subwords, train_subwords
from shared.errors import UsageError

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
    assert few == data._replace(train=data.train[:1])  # what is held out does not depend on how much is trained on


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
    assert "WARNING: no dailydialog, training on the embedded chitchat instead" in capsys.readouterr().err
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
        ("a.tsv", b"hi\tho\n", "holds 1 conversation(s) with an answer: to train and measure takes 3"),
        ("a.tsv", b"hi\t\na\tb\n \tb\n", "holds 1 conversation(s) with an answer"),
        ("a.tsv", "ich\tmöchte\n".encode("latin-1"), "a.tsv, line 1: byte 0xf6 is not UTF-8"),
        ("a.txt", "hi\tho\n".encode("utf-16-le"), "a.txt, line 1: a null byte"),
        ("a.txt", b"hi\tho\nhello\n", "line 2, is not a list of turns (there is no tab"),
        ("a.jsonl", b'["a", "b"]\n["a", 3]\n', "line 2, is not a list of turns (expected"),
        ("a.jsonl", b'["a", "b"]\n{"a": 3}\n', "line 2, is not a list of turns"),
        ("a.jsonl", b'["a", "b"\n', "line 1, is not a list of turns"),
        ("a.jsonl", b"3\n", "line 1, is not a list of turns (expected"),
        ("a.jsonl", b"[" * 100_000, "line 1, is not a list of turns"),
        ("a.tsv", b"hi\tho\n" * 50, "repeats itself"),
        ("a.csv", b"hi,ho\n", "choose auto, dailydialog, chitchat or a file"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with refused_in_one_line(message):
        load_conversations(str(tmp_path / name), None)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read .*nothing\.tsv"):
        load_conversations(str(tmp_path / "nothing.tsv"), None)
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(UsageError, match=r"cannot read .*folder\.txt"):
        load_conversations(str(tmp_path / "folder.txt"), None)


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
    assert [spoken_context(source, subwords) for source in pairs.sources][1:3] == [
        "turn 1 / answer 2",
        "answer 2 / turn 3",
    ]


def test_long_answers_are_measured_and_not_learned(subwords):
    talk = ["turn 1", "answer 2", "turn 3 " * 20]
    data = Conversations("some", [talk], [talk], [talk], "", 0)
    parts = answer_pairs(data, subwords, turns=2, context=30, answer=20)
    assert len(parts["train"].targets) == 1
    assert len(parts["validation"].targets) == len(parts["test"].targets) == 2
    assert len(answer_pairs(data, subwords, 2, 30, 20, held_out=1)["test"].targets) == 1
    with pytest.raises(UsageError, match="all answers in the part train have more than 1 subwords"):
        answer_pairs(data, subwords, turns=2, context=30, answer=1)
    endless = data._replace(test=[["turn 1", "🤖" * LONGEST_ANSWER]])
    with pytest.raises(UsageError, match=f"all answers in the part test have more than {LONGEST_ANSWER} subwords"):
        answer_pairs(endless, subwords, turns=2, context=30, answer=20)


def test_evenly_spread():
    pairs = SequencePairs([[index] for index in range(10)], [[-index] for index in range(10)])
    assert evenly_spread(pairs, None) == evenly_spread(pairs, 99) == pairs
    assert np.ravel(evenly_spread(pairs, 3).sources).tolist() == [0, 3, 6]
    assert np.ravel(evenly_spread(pairs, 3).targets).tolist() == [0, -3, -6]
