"""Dialogue data: conversations as pairs of context and answer, in subwords."""

import itertools

import numpy as np

from shared.data.text.conversations import LONGEST_ANSWER, Conversations
from shared.errors import UsageError
from shared.text.pairs import SequencePairs
from shared.text.subwords import END, Subwords


def encode_context(turns: list[list[int]], length: int) -> list[int]:
    """Turns in subwords as one sequence, separated by END, truncated to the last `length` subwords."""
    joined = [subword for turn in turns for subword in (END, *turn)]
    return joined[1:][-length:]


def pairs_of(conversations: list[list[str]], subwords: Subwords, turns: int, length: int) -> SequencePairs:
    """Pairs of context and answer: each turn after the first, unless it is longer than `LONGEST_ANSWER`.

    Args:
        conversations: lists of turns.
        subwords: the vocabulary.
        turns: maximum number of turns in a context.
        length: maximum context length in subwords; the oldest are cut off.
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
        turns: maximum number of turns in a context.
        context: maximum context length in subwords; the oldest are cut off.
        answer: maximum length of a training answer in subwords. Longer ones are not truncated, which would teach the
            model to stop in the middle, but dropped; held-out parts keep them.
        held_out: limit of pairs in each held-out part, evenly spaced; None for all.

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


def answer_counts(data: Conversations, parts: dict[str, SequencePairs]) -> str:
    """Summary of `answer_pairs`: answers in each part, and how many were too long."""
    train, validation, test = (len(parts[part].targets) for part in ("train", "validation", "test"))
    too_long = sum(len(turns) - 1 for turns in data.train) - train
    return (
        f"{train:,} answers for training ({too_long:,} longer than --answer left out), {validation:,} for validation, "
        f"{test:,} for testing"
    )


def readable_context(source: list[int], subwords: Subwords) -> str:
    """A context as text, with a slash between turns."""
    turns = (list(turn) for ended, turn in itertools.groupby(source, key=lambda number: number == END) if not ended)
    return " / ".join(subwords.decode(turn) for turn in turns)


def evenly_spread(pairs: SequencePairs, count: int | None) -> SequencePairs:
    """`count` evenly spaced pairs; all if there are fewer, or if `count` is None."""
    chosen = np.linspace(0, len(pairs.targets), min(count or len(pairs.targets), len(pairs.targets)), False, dtype=int)
    return SequencePairs(*([side[index] for index in chosen] for side in pairs))
