"""Conversations as pairs of context and answer, in subwords."""

import itertools

import numpy as np

from shared.data.text.conversations import LONGEST_ANSWER, Conversations
from shared.errors import UsageError
from shared.text.pairs import SequencePairs
from shared.text.subwords import END, Subwords


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
            option = ": raise --answer" if part == "train" else ""
            raise UsageError(f"{data.name}: all answers in the part {part} have more than {most} subwords{option}")
    return {part: pairs if part == "train" else evenly_spread(pairs, held_out) for part, pairs in parts.items()}


def answers_used(data: Conversations, parts: dict[str, SequencePairs]) -> str:
    """How many answers there are in each of the parts that `answer_pairs` gave, and how many were too long."""
    train, validation, test = (len(parts[part].targets) for part in ("train", "validation", "test"))
    too_long = sum(len(turns) - 1 for turns in data.train) - train
    return (
        f"{train:,} answers to train on ({too_long:,} longer than --answer left out), {validation:,} to validate, "
        f"{test:,} to test"
    )


def spoken_context(source: list[int], subwords: Subwords) -> str:
    """A context as people read it, a slash between turns."""
    turns = (list(turn) for ended, turn in itertools.groupby(source, key=lambda number: number == END) if not ended)
    return " / ".join(subwords.decode(turn) for turn in turns)


def evenly_spread(pairs: SequencePairs, count: int | None) -> SequencePairs:
    """So many pairs from all over; all of them where there are fewer, or where `count` is None."""
    chosen = np.linspace(0, len(pairs.targets), min(count or len(pairs.targets), len(pairs.targets)), False, dtype=int)
    return SequencePairs(*([side[index] for index in chosen] for side in pairs))
