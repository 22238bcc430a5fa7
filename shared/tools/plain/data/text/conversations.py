"""Conversations."""

import json
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shared.data.text.conversations import natural_spelling, without_repeated
from shared.errors import UsageError


class Conversations(NamedTuple):
    """Conversations, each a list of turns of alternating speakers, split for training, choices and measuring."""

    name: str
    train: list[list[str]]
    validation: list[list[str]]
    test: list[list[str]]
    found: str


def load_conversations(name: str, directory: Path | None, limit: int | None = None) -> Conversations:
    """Loads DailyDialog, or a file of conversations: JSON lists of turns, a line each, or turns with tabs between."""
    if name == "auto":
        name, parts = "dailydialog", read_dailydialog(directory)
    else:
        lines = [line for line in Path(name).read_text(encoding="utf-8").split("\n") if line.strip()]
        read = [json.loads(line) if line.startswith("[") else line.split("\t") for line in lines]
        answered = [turns for turns in read if len(turns) > 1]
        if len(answered) < 3:
            raise UsageError(f"{name} holds {len(answered)} conversation(s) with an answer: it takes 3")
        order = np.random.default_rng(0).permutation(len(answered))
        held_out = max(1, len(answered) // 20)
        chosen = np.split(order, [held_out, 2 * held_out])
        named = zip(("test", "validation", "train"), chosen, strict=True)
        parts = {part: [answered[index] for index in indices] for part, indices in named}
    kept = {part: without_repeated(parts[part], parts["train"]) for part in ("validation", "test")}
    found = f"{len(parts['train']):,} conversations to train on, {len(kept['test']):,} to test"
    return Conversations(Path(name).name, parts["train"][:limit], **kept, found=found)


def read_dailydialog(directory: Path | None) -> dict[str, list[list[str]]]:
    """DailyDialog (Li et al. 2017, arXiv:1710.03957) by part, from its three archives in raw/dailydialog."""
    parts = {}
    for part in ("train", "validation", "test"):
        path = (directory or Path()) / "raw" / "dailydialog" / f"{part}.zip"
        if not path.exists():
            raise UsageError(f"{path} is not there: put the three zip files of DailyDialog there, or name a file")
        text = zipfile.ZipFile(path).read(f"{part}/dialogues_{part}.txt").decode()
        turns = [[natural_spelling(turn) for turn in line.split("__eou__")] for line in text.split("\n")]
        parts[part] = [kept for each in turns if len(kept := [turn for turn in each if turn]) > 1]
    return parts
