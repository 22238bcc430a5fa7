"""Sampling: the probabilities against NumPy, the draws against the probabilities, the same on every backend."""

import keras
import numpy as np
import pytest

from shared.text.sampling import Sampling, draw_tokens, penalized_logits, sample_tokens, sampling_probabilities


def numpy_of(tensor):
    return keras.ops.convert_to_numpy(tensor)


def logits(*shape, seed=0):
    return (2 * np.random.default_rng(seed).normal(size=shape)).astype("float32")


def expected_probabilities(row, temperature, top_k, top_p):
    """Sorts the tokens of a row, and leaves the first of them."""
    p = np.exp(row.astype("float64") / temperature)
    order = np.argsort(-p)
    p[order[top_k or len(p) :]] = 0
    p /= p.sum()
    kept = int(np.searchsorted(np.cumsum(p[order]), top_p)) + 1
    p[order[kept:]] = 0
    return p / p.sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [0, 1, 4, 99])
@pytest.mark.parametrize("top_p", [1.0, 0.7, 0.01])
def test_probabilities(temperature, top_k, top_p):
    x = logits(6, 9)
    expected = np.stack([expected_probabilities(row, temperature, top_k, top_p) for row in x])
    actual = numpy_of(sampling_probabilities(x, temperature, top_k, top_p))
    np.testing.assert_array_equal(actual > 0, expected > 0)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("top_p", "min_p"), [(1.0, 0.2), (0.8, 0.5), (1.0, 1.0)])
def test_min_p_keeps_a_fraction_of_the_highest_probability(top_p, min_p):
    x = logits(6, 9)
    expected = np.stack([expected_probabilities(row, 0.7, 0, top_p) for row in x])
    expected[expected < min_p * expected.max(axis=1, keepdims=True)] = 0
    expected /= expected.sum(axis=1, keepdims=True)
    actual = numpy_of(sampling_probabilities(x, 0.7, top_p=top_p, min_p=min_p))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-7)


def test_the_repetition_penalty_is_that_of_transformers():
    """By its definition there: the logit of a token that occurred is divided where it is positive, else multiplied."""
    x, ids = logits(2, 5), np.array([[3, 1, 3, 0], [4, 0, 0, 0]], "int32")
    expected = x.copy()
    for row, seen in enumerate(ids):
        for token in set(seen.tolist()):
            value = x[row, token]
            expected[row, token] = value / 1.7 if value > 0 else value * 1.7
    found = numpy_of(penalized_logits(x, (ids[:, :, None] == np.arange(5)).any(axis=1), 1.7))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_repetition_penalty_is_of_the_tokens_so_far():
    """At position 1 of a sequence whose third token is given: that one has not occurred yet."""
    method = Sampling(temperature=0, end=None, repetition_penalty=2.0)
    sequences = method.start(np.array([[1, 2, 0, 3, 0], [1, 2, 4, 3, 0]], "int32"))
    x = np.array([[0.0, 3.0, 2.0, 1.4, 1.0]] * 2, "float32")
    sequences, *_ = method.extend(sequences, x, lambda logits: logits, None, 1, np.zeros(2))
    assert numpy_of(sequences.last).tolist() == [1, 4]
    sequences, *_ = method.extend(sequences, x, lambda logits: logits, None, 3, np.zeros(2))
    assert numpy_of(sequences.last).tolist() == [1, 1]


def test_equally_likely_tokens_stay_or_go_together():
    row = np.array([[0.0, 3.0, 3.0, 3.0, -1.0]], "float32")
    for options in ({"top_k": 2}, {"top_p": 0.5}):
        actual = numpy_of(sampling_probabilities(row, **options))
        np.testing.assert_allclose(actual, [[0, 1 / 3, 1 / 3, 1 / 3, 0]], atol=1e-6)


def test_draws_have_the_probabilities():
    p = np.array([0.0, 0.5, 0.0, 0.2, 0.3, 0.0])
    uniform = (np.arange(1000) + 0.5) / 1000
    drawn = numpy_of(draw_tokens(np.tile(p.astype("float32"), (1000, 1)), uniform))
    np.testing.assert_allclose(np.bincount(drawn, minlength=6) / 1000, p, atol=0.002)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24, 1.0])
def test_the_ends_never_draw_an_impossible_token(uniform):
    rng = np.random.default_rng(0)
    p = np.where(rng.random((200, 50)) < 0.5, 0, rng.random((200, 50))).astype("float32")
    p /= p.sum(axis=1, keepdims=True)
    drawn = numpy_of(draw_tokens(p, np.full(200, uniform, "float32")))
    assert (p[np.arange(200), drawn] > 0).all()


def test_temperature_0_takes_the_likeliest():
    x = logits(5, 7)
    np.testing.assert_array_equal(numpy_of(sample_tokens(x, np.full(5, 0.9), temperature=0)), x.argmax(axis=1))


def test_a_seed_draws_the_same_on_every_backend():
    uniform = np.random.default_rng(3).random(12)
    drawn = numpy_of(sample_tokens(logits(12, 40, seed=1), uniform, temperature=0.9, top_k=30, top_p=0.95))
    assert drawn.dtype == np.int32
    assert drawn.tolist() == [7, 12, 28, 4, 6, 1, 33, 13, 29, 6, 6, 17]
