"""Beam search against a search through everything, on vocabularies so small that this is possible."""

import itertools
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import ops

from shared.backends.compiling import compiled_inference
from shared.data.randomness import random_stream
from shared.text.beam_search import (
    IMPOSSIBLE,
    BeamSearch,
    GreedySearch,
    largest_entries,
    length_penalty,
    without_repetition,
)
from shared.text.decoding import decoding_step, generate
from shared.text.pairs import padded
from shared.text.subwords import END, PAD, START

VOCABULARY = 7  # PAD, UNKNOWN, START, END and three tokens
WORDS = (4, 5, 6)


def tables(batch, length, seed=0):
    """Log-probabilities (batch, place, token before, next token) of a model that knows place and last token."""
    logits = np.random.default_rng(seed).normal(size=(batch, length, VOCABULARY, VOCABULARY)) * 2
    return (logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))).astype(np.float32)


def step(tokens, index, state, context):
    """Looks the logits up in tables of its own for each row; the state counts what each row has seen."""
    at_index = ops.take(context, ops.reshape(index, (1,)), axis=1)[:, 0]
    logits = ops.take_along_axis(at_index, ops.broadcast_to(tokens[:, None, None], (*tokens.shape, 1, VOCABULARY)), 1)
    return logits[:, 0] + 3.0, {"sum": state["sum"] * 10 + ops.cast(tokens, "float32")[:, None]}


def search(logs, beams, penalty=0.0, no_repeat=0):
    batch, length = logs.shape[:2]
    state = {"sum": np.zeros((batch * beams, 1), np.float32)}
    return found_by(BeamSearch(beams, penalty, no_repeat), step, state, np.repeat(logs, beams, axis=0), batch, length)


def found_by(method, step, state, context, batch, length):
    """The ended sequences and their scores, as NumPy has them, START left out; and the number of steps."""
    advance = compiled_inference(decoding_step(step, method))
    start = method.start(padded([[START]] * batch, 1 + length))
    steps = list(generate(advance, start, state, context, random_stream(0, "tokens")))
    ids, scores = (ops.convert_to_numpy(each) for each in (steps[-1].ended_ids, steps[-1].ended_scores))
    return Found(ids[:, :, 1:], scores, len(steps))


class Found(NamedTuple):
    ids: np.ndarray
    scores: np.ndarray
    steps: int


def log_probability(logs, sequence):
    return sum(
        logs[place, before, after] for place, (before, after) in enumerate(itertools.pairwise((START, *sequence)))
    )


def repeats(sequence, size):
    runs = [sequence[start : start + size] for start in range(len(sequence) - size + 1)]
    return len(set(runs)) < len(runs)


def exhaustive(logs, penalty, no_repeat=0):
    """All sequences of one item with their scores, the best first."""
    length = len(logs)
    found = []
    for words in itertools.chain.from_iterable(itertools.product(WORDS, repeat=n) for n in range(length)):
        if not (no_repeat and repeats(words, no_repeat)):
            sequence = (*words, END)
            score = log_probability(logs, sequence) / float(length_penalty(len(sequence), penalty))
            found.append((score, sequence))
    return sorted(found, reverse=True)


@pytest.mark.in_turn
@pytest.mark.parametrize(("penalty", "no_repeat"), [(0.0, 0), (0.6, 0), (1.0, 2), (0.0, 1)])
def test_enough_beams_find_the_best_of_all(penalty, no_repeat):
    logs = tables(3, 4)
    everything = [exhaustive(each, penalty, no_repeat) for each in logs]
    beams = len(everything[0])
    found = search(logs, beams, penalty, no_repeat)
    for item, expected in enumerate(everything):
        np.testing.assert_allclose(found.scores[item], [score for score, _ in expected], rtol=1e-4)
        for row, (_, sequence) in zip(found.ids[item], expected, strict=True):
            assert tuple(row) == sequence + (PAD,) * (4 - len(sequence))


def test_one_beam_is_greedy():
    logs = tables(5, 6, seed=1)
    found = search(logs, beams=1, penalty=0.6)
    for item, each in enumerate(logs):
        expected, before = [], START
        for place in range(6):
            allowed = (END,) if place == 5 else (END, *WORDS)
            before = max(allowed, key=lambda token, row=each[place, before]: row[token])
            expected.append(before)
            if before == END:
                break
        assert [token for token in found.ids[item, 0] if token != PAD] == expected


@pytest.mark.parametrize("no_repeat", [0, 2])
def test_greedy_search_finds_what_one_beam_finds(no_repeat):
    logs = tables(5, 12, seed=1)
    state = {"sum": np.zeros((5, 1), np.float32)}
    expected = search(logs, beams=1, no_repeat=no_repeat)
    advance = compiled_inference(decoding_step(step, GreedySearch(no_repeat)))
    start = GreedySearch().start(padded([[START]] * 5, 13))
    found = [
        ops.convert_to_numpy(each.best) for each in generate(advance, start, state, logs, random_stream(0, "tokens"))
    ]
    assert len(found) == expected.steps
    np.testing.assert_array_equal(found[-1][:, 1:], expected.ids[:, 0])


def test_a_search_does_not_depend_on_what_stands_beside():
    logs = tables(4, 6, seed=2)
    together = search(logs, beams=3, penalty=0.6)
    for item in range(4):
        alone = search(logs[item : item + 1], beams=3, penalty=0.6)
        np.testing.assert_array_equal(alone.ids[0], together.ids[item])
        np.testing.assert_allclose(alone.scores[0], together.scores[item], rtol=1e-5)


def test_scores_are_those_of_the_sequences_and_fall():
    logs = tables(4, 6, seed=3)
    found = search(logs, beams=4, penalty=0.8)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    for each, ids, scores in zip(logs, found.ids, found.scores, strict=True):
        for row, score in zip(ids, scores, strict=True):
            sequence = tuple(token for token in row.tolist() if token != PAD)
            assert sequence[-1] == END
            expected = log_probability(each, sequence) / float(length_penalty(len(sequence), 0.8))
            np.testing.assert_allclose(score, expected, rtol=1e-4)


def test_the_state_goes_with_its_sequence():
    """The state of a row spells the tokens that it has been fed, so a model that predicts from it must agree."""
    words = np.array(WORDS)

    def spelling(tokens, index, state, context):
        spelled = state * 10 + ops.cast(tokens, "int32")
        logits = ops.cast(ops.one_hot(4 + spelled % 3, VOCABULARY), "float32") * 4 + context
        return logits, spelled

    rng = np.random.default_rng(0)
    context = np.repeat(rng.normal(size=(2, VOCABULARY)).astype(np.float32), 3, axis=0)
    found = found_by(BeamSearch(beams=3), spelling, np.zeros(6, np.int32), context, batch=2, length=5)
    for item in range(2):
        for row, score in zip(found.ids[item], found.scores[item], strict=True):
            spelled, expected = START, 0.0
            for place, token in enumerate(row[row != PAD]):
                logits = np.eye(VOCABULARY)[4 + spelled % 3] * 4 + context[item * 3]
                expected += logits[token] - np.log(np.exp(logits).sum())
                spelled = spelled * 10 + token
                assert token in (words if place < 4 else []) or token == END
            np.testing.assert_allclose(score, expected, rtol=1e-4)


def test_it_stops_when_all_have_ended():
    certain = np.zeros((2, 9, VOCABULARY, VOCABULARY), np.float32)
    certain[..., END] = 9
    found = search(certain, beams=1)
    assert found.steps == 1
    assert (found.ids[:, 0, 0] == END).all()


def test_fewer_sequences_than_beams():
    found = search(tables(1, 2), beams=6)  # END, or one of three tokens and END
    assert (found.scores[0, :4] > IMPOSSIBLE / 2).all()
    assert (found.scores[0, 4:] <= IMPOSSIBLE / 2).all()


@pytest.mark.in_turn
@pytest.mark.parametrize("size", [1, 2, 3, 8, 9])
def test_tokens_that_repeat_an_n_gram_are_impossible(size):
    rng = np.random.default_rng(size)
    ids = rng.integers(4, 7, size=(20, 8)).astype(np.int32)
    scores = rng.normal(size=(20, VOCABULARY)).astype(np.float32)
    for index in range(8):
        ids_so_far = np.where(np.arange(8) < index, ids, PAD)
        found = without_repetition(*map(ops.convert_to_tensor, (scores, ids_so_far)), index, size)
        for row, before, after in zip(ids, scores, ops.convert_to_numpy(found), strict=True):
            so_far = tuple(row[:index].tolist())
            runs = {so_far[start : start + size] for start in range(len(so_far) - size + 1)}
            expected = [IMPOSSIBLE if (*so_far, token)[-size:] in runs else before[token] for token in WORDS]
            assert after[list(WORDS)].tolist() == pytest.approx(expected)
            assert after[END] == before[END]


@pytest.mark.parametrize(("entries", "count"), [(1, 1), (7, 7), (10, 3), (101, 6), (4000, 10)])
def test_largest_entries(entries, count):
    values = np.random.default_rng(entries).normal(size=(5, entries)).astype(np.float32)
    found, places = (keras.ops.convert_to_numpy(each) for each in largest_entries(ops.convert_to_tensor(values), count))
    order = np.argsort(-values, axis=1)[:, :count]
    np.testing.assert_array_equal(places, order)
    np.testing.assert_array_equal(found, np.take_along_axis(values, order, axis=1))
