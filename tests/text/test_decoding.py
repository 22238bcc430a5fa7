"""Sampling by the loop that all writers share, against NumPy; beam search has tests of its own."""

import numpy as np
import pytest
from keras import ops

from shared.backends.compiling import compiled_inference
from shared.data.randomness import random_stream
from shared.text.decoding import decoding_step, generate
from shared.text.pairs import padded
from shared.text.sampling import Sampling
from shared.text.subwords import END, PAD, START

VOCABULARY = 9
TABLE = np.random.default_rng(0).normal(size=(VOCABULARY, VOCABULARY)).astype("float32")


def step(tokens, index, state, context):
    return ops.take(context, tokens, axis=0), state


def sampled(method, prompts, length, table=TABLE):
    """The sequences (batch, length) after each token."""
    advance = compiled_inference(decoding_step(step, method))
    texts = generate(advance, method.start(padded(prompts, length)), [], table, random_stream(0, "tokens"))
    return [ops.convert_to_numpy(text.ids) for text in texts]


def expected(prompts, length, temperature, end):
    """A reference in NumPy: one token after the other, from the same random numbers."""
    ids, rng = padded(prompts, length), random_stream(0, "tokens")
    for index in range(length - 1):
        for row, uniform in zip(ids, rng.random(len(ids), np.float32), strict=True):
            weights = np.exp(TABLE[row[index]].astype("float64") / temperature)
            weights[: 1 if end is None else END] = 0
            cumulated = weights.cumsum() / weights.sum()
            if row[index + 1] == PAD and not (end is not None and END in row):
                row[index + 1] = np.searchsorted(cumulated, uniform, side="right")
        if end is not None and (ids == END).any(axis=1).all():
            break
    return ids


@pytest.mark.parametrize(("prompts", "end"), [([[START]] * 4, END), ([[1, 2, 3, 1], [8]], None)])
def test_sampling_keeps_the_prompt_and_stops_when_all_have_ended(prompts, end):
    texts = sampled(Sampling(temperature=1.3, end=end), prompts, 30)
    np.testing.assert_array_equal(texts[-1], expected(prompts, 30, 1.3, end))
    assert (len(texts) < 29) == (end is not None)
    for row, prompt in zip(texts[-1], prompts, strict=True):
        assert row[: len(prompt)].tolist() == prompt


def test_tokens_are_given_as_they_are_written():
    texts = sampled(Sampling(end=None), [[1, 2]], 12)
    assert len(texts) == 11
    for index, text in enumerate(texts, 1):
        written = max(index + 1, 2)
        np.testing.assert_array_equal(text[:, :written], texts[-1][:, :written])
        assert (text[:, written:] == PAD).all() and (text[:, :written] != PAD).all()


def test_a_run_that_would_repeat_is_never_drawn():
    table = np.full((VOCABULARY, VOCABULARY), -9, np.float32)
    table[:, 4] = 9
    (row,) = sampled(Sampling(temperature=0, no_repeat=2), [[START]], 5, table)[-1].tolist()
    assert row[:3] == [START, 4, 4] and row[3] != 4
