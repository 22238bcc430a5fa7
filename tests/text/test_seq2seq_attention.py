"""Attention over encoder outputs against NumPy, with padding and in half precision."""

import keras
import numpy as np
import pytest

from shared.text.seq2seq_attention import GlobalAttention

BATCH, TARGETS, SOURCES, SIZE = 3, 4, 6, 5
LENGTHS = np.array([6, 1, 4])
MASK = np.arange(SOURCES) < LENGTHS[:, None]

scores = pytest.mark.parametrize("score", ["dot", "general", "additive"])


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def built(score, **options):
    layer = GlobalAttention(score, units=7, **options)
    layer.build((None, None, SIZE), (None, None, SIZE))
    layer.set_weights([random(*weight.shape, seed=9 + i) for i, weight in enumerate(layer.weights)])
    return layer


def outputs_of(layer, queries, memory, mask):
    return [keras.ops.convert_to_numpy(each) for each in layer(queries, memory, mask)]


def reference(layer, queries, memory):
    """Contexts and weights, position by position in NumPy."""
    weights = dict(zip([weight.name for weight in layer.weights], layer.get_weights(), strict=True))
    contexts, attention = np.zeros((BATCH, TARGETS, SIZE)), np.zeros((BATCH, TARGETS, SOURCES))
    for b in range(BATCH):
        for t in range(TARGETS):
            found = []
            for h in memory[b, : LENGTHS[b]]:
                q = queries[b, t]
                if layer.score == "dot":
                    found.append(q @ h / np.sqrt(SIZE))
                elif layer.score == "general":
                    found.append(q @ weights["query_kernel"] @ h / np.sqrt(SIZE))
                else:
                    hidden = q @ weights["query_kernel"] + h @ weights["memory_kernel"] + weights["bias"]
                    found.append((np.tanh(hidden) @ weights["direction"]).item())
            softmax = np.exp(found) / np.exp(found).sum()
            attention[b, t, : LENGTHS[b]] = softmax
            contexts[b, t] = softmax @ memory[b, : LENGTHS[b]]
    return contexts, attention


@scores
def test_same_numbers_as_numpy(score):
    layer, queries, memory = built(score), random(BATCH, TARGETS, SIZE), random(BATCH, SOURCES, SIZE, seed=1)
    for ours, expected in zip(outputs_of(layer, queries, memory, MASK), reference(layer, queries, memory), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@scores
def test_what_stands_in_the_padding_and_how_much_of_it_changes_nothing(score):
    layer, queries, memory = built(score), random(BATCH, TARGETS, SIZE), random(BATCH, SOURCES, SIZE, seed=1)
    contexts, weights = outputs_of(layer, queries, memory, MASK)
    longer = np.concatenate([np.where(MASK[..., None], memory, 50.0), random(BATCH, 3, SIZE, seed=2) * 50], axis=1)
    contexts_too, weights_too = outputs_of(layer, queries, longer.astype("float32"), np.pad(MASK, ((0, 0), (0, 3))))
    np.testing.assert_allclose(contexts_too, contexts, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weights_too[..., :SOURCES], weights, rtol=1e-5, atol=1e-7)
    assert (weights_too[~np.broadcast_to(np.pad(MASK, ((0, 0), (0, 3)))[:, None], weights_too.shape)] == 0).all()


@scores
def test_rows_that_share_a_memory(score):
    layer, queries, memory = built(score), random(2 * BATCH, TARGETS, SIZE), random(BATCH, SOURCES, SIZE, seed=1)
    repeated, mask = (np.repeat(each, 2, axis=0) for each in (memory, MASK))
    found = outputs_of(layer, queries, memory, MASK)
    for ours, expected in zip(found, outputs_of(layer, queries, repeated, mask), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


@scores
def test_all_targets_at_once_or_one_by_one(score):
    layer, queries, memory = built(score), random(BATCH, TARGETS, SIZE), random(BATCH, SOURCES, SIZE, seed=1)
    contexts, _ = outputs_of(layer, queries, memory, MASK)
    for target in range(TARGETS):
        one, _ = outputs_of(layer, queries[:, target : target + 1], memory, MASK)
        np.testing.assert_allclose(one[:, 0], contexts[:, target], rtol=1e-5, atol=1e-6)


@scores
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(score, policy):
    layer = built(score, dtype=policy)
    contexts, weights = layer(random(BATCH, TARGETS, SIZE), random(BATCH, SOURCES, SIZE, seed=1), MASK)
    for each in (contexts, weights):
        assert keras.backend.standardize_dtype(each.dtype) == policy.removeprefix("mixed_")
    weights = keras.ops.convert_to_numpy(keras.ops.cast(weights, "float32"))
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=2e-2)
    assert {weight.dtype for weight in layer.weights} <= {"float32"}


def test_wrong_sizes_and_scores_are_refused():
    with pytest.raises(ValueError, match="dot, general or additive"):
        GlobalAttention("cosine")
    with pytest.raises(ValueError, match="one size, not 5 and 4"):
        GlobalAttention("dot").build((None, None, 5), (None, None, 4))


def test_sizes_are_known_without_being_told():
    """Plain copies leave out `compute_output_shape`, and TensorFlow could not build the decoder from what was left."""

    class Untold(GlobalAttention):
        compute_output_shape = keras.layers.Layer.compute_output_shape

    queries, memory, mask = keras.Input((None, 8)), keras.Input((None, 8)), keras.Input((None,), dtype="bool")
    contexts, _ = Untold("dot")(queries, memory, mask)
    assert contexts.shape[-1] == 8
