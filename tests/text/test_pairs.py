"""Batches of pairs of sequences, and the losses that leave their padding out."""

import itertools

import keras
import numpy as np
import pytest

from shared.text.losses import Perplexity, SequenceLoss
from shared.text.pairs import (
    HeldOutPairs,
    LengthBucket,
    PairBatches,
    SequencePairs,
    choose_buckets,
    encoder_inputs,
    padded_pairs,
)
from shared.text.subwords import END, PAD, START


def some_pairs(count=500, seed=0, longest=40):
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.gamma(4, 4, count), 0, longest).astype(int)
    others = np.clip(lengths + rng.integers(-3, 4, count), 0, longest)
    return SequencePairs(*([rng.integers(4, 60, n).tolist() for n in side] for side in (lengths, others)))


def every_batch(batches):
    return [batches[index] for index in range(len(batches))]


def read_back(batch):
    """The pairs in a batch, rows without labels left out."""
    inputs, labels = batch
    for source, target, label in zip(inputs["source"], inputs["target"], labels, strict=True):
        if not label.any():
            continue
        source, label = source[source != PAD], label[label != PAD]
        assert source[-1] == label[-1] == END
        np.testing.assert_array_equal(target[: len(label)], [START, *label[:-1]])
        assert not target[len(label) :].any()
        yield tuple(source[:-1].tolist()), tuple(label[:-1].tolist())


def keyed(pairs):
    return sorted((tuple(source), tuple(target)) for source, target in zip(*pairs, strict=True))


def test_teacher_forcing():
    pairs = SequencePairs([[5, 6], [7]], [[8], []])
    inputs, labels = padded_pairs(pairs, np.array([0, 1]), LengthBucket(4, 3, 3))
    np.testing.assert_array_equal(inputs["source"], [[5, 6, END, 0], [7, END, 0, 0], [5, 6, END, 0]])
    np.testing.assert_array_equal(inputs["target"], [[START, 8, 0], [START, 0, 0], [START, 0, 0]])
    np.testing.assert_array_equal(labels, [[8, END, 0], [END, 0, 0], [0, 0, 0]])
    assert {each.dtype for each in (*inputs.values(), labels)} == {np.dtype("int32")}
    np.testing.assert_array_equal(encoder_inputs([[5, 6, 7], []], 3), [[5, 6, END], [END, 0, 0]])


@pytest.mark.parametrize("buckets", [1, 3, 8])
def test_an_epoch(buckets):
    pairs = some_pairs()
    batches = PairBatches(pairs, batch_size=20, seed=1, buckets=buckets)
    assert 1 <= len(batches.buckets) <= buckets
    found = every_batch(batches)
    assert {(*inputs["source"].shape, inputs["target"].shape[1]) for inputs, _ in found} == {
        (shape.pairs, shape.source, shape.target) for shape in batches.buckets
    }
    seen = [pair for batch in found for pair in read_back(batch)]
    left_out = list(keyed(pairs))
    for pair in seen:
        left_out.remove(pair)  # each pair at most once
    assert len(left_out) < sum(shape.pairs for shape in batches.buckets)
    assert 14 <= batches.batch_size <= 26
    assert batches.batch_size == pytest.approx(np.mean([len(labels) for _, labels in found]))


def test_batches_have_about_as_many_tokens_and_little_padding():
    batches = PairBatches(some_pairs(3000), batch_size=50, seed=0)
    tokens = [(shape.source + shape.target) * shape.pairs for shape in batches.buckets]
    assert max(tokens) / min(tokens) < 1.5
    labels = np.concatenate([labels.ravel() for _, labels in every_batch(batches)])
    assert (labels != PAD).mean() > 0.75
    one_shape = PairBatches(some_pairs(3000), batch_size=50, seed=0, buckets=1)
    assert np.mean(np.concatenate([labels.ravel() for _, labels in every_batch(one_shape)]) != PAD) < 0.5


def test_a_batch_depends_on_seed_epoch_and_index_alone():
    def batch(seed, epoch, index, first=0):
        batches = PairBatches(some_pairs(), 20, seed)
        batches.epoch, batches.first = epoch, first
        return [*batches[index][0].values(), batches[index][1]]

    for ours, theirs in zip(batch(1, 2, 5), batch(1, 2, 3, first=2), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for other in (batch(2, 2, 5), batch(1, 3, 5), batch(1, 2, 6)):
        assert not np.array_equal(other[-1], batch(1, 2, 5)[-1])


@pytest.mark.parametrize("count", [1, 2, 3, 7, 30, 200])
def test_neighbours_differ_in_every_axis_or_there_is_one_shape(count):
    """What Keras on TensorFlow needs: see choose_buckets."""
    for seed in range(5):
        batches = PairBatches(some_pairs(count, seed), 8, seed)
        found = [(*labels.shape, inputs["source"].shape[1]) for inputs, labels in every_batch(batches)]
        assert found
        for one, next_one in itertools.pairwise(found):
            assert len(set(found)) == 1 or all(a != b for a, b in zip(one, next_one, strict=True))


def test_many_lengths_take_no_longer():
    rng = np.random.default_rng(0)
    shapes = choose_buckets(rng.integers(1, 900, (20000, 2)), 50, 6)
    assert len(shapes) == 6
    assert max(shape.source for shape in shapes) >= 899


def test_alike_lengths_give_one_shape():
    lengths = np.full((50, 2), 7)
    assert choose_buckets(lengths, 10, 8) == [LengthBucket(7, 7, 10)]


@pytest.mark.parametrize("longest", [40, 90])
def test_held_out_pairs_are_all_there_once(longest):
    batches = PairBatches(some_pairs(), 20, seed=0)
    pairs = some_pairs(123, seed=5, longest=longest)
    if longest == 90:
        pairs.sources[7] = [5] * 90
    held_out = HeldOutPairs(pairs, batches.buckets)
    found = every_batch(held_out)
    assert sorted(pair for batch in found for pair in read_back(batch)) == keyed(pairs)
    shapes = {(*inputs["source"].shape, inputs["target"].shape[1]) for inputs, _ in found}
    ours = {(shape.pairs, shape.source, shape.target) for shape in batches.buckets}
    assert len(shapes - ours) == (1 if longest == 90 else 0)
    if len(shapes) > 1:
        first, second = (found[index][1].shape for index in range(2))
        assert first[0] != second[0]
        assert first[1] != second[1]


def test_within():
    pairs = SequencePairs([[4], [4, 5], [4, 5, 6]], [[7, 8], [7], []])
    assert pairs.within(2, 1) == SequencePairs([[4, 5]], [[7]])


def little_model():
    """Reads both sides, so that what it says of a target depends on padding nowhere."""
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("source", "target")}
    x = keras.layers.Embedding(60, 8, name="embedding")(inputs["target"])
    y = keras.layers.Embedding(60, 8, name="sources")(inputs["source"])
    model = keras.Model(inputs, keras.layers.Dense(60, name="logits")(x + y[:, :1]))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.get_weights()])
    return model


def token_log_probabilities(model, pairs):
    """Of every token that there is, one pair after the other, in NumPy."""
    found = []
    for source, target in zip(*pairs, strict=True):
        shape = LengthBucket(len(source) + 1, len(target) + 1, 1)
        inputs, labels = padded_pairs(SequencePairs([source], [target]), np.array([0]), shape)
        logits = keras.ops.convert_to_numpy(model(inputs))[0].astype("float64")
        found += [
            (row[label] - np.log(np.exp(row).sum()), (row - np.log(np.exp(row).sum())).mean())
            for row, label in zip(logits, labels[0], strict=True)
        ]
    return np.array(found)


def test_padding_changes_nothing():
    pairs, model = some_pairs(12), little_model()
    chosen, smoothed = token_log_probabilities(model, pairs).T
    expected = -chosen.mean()
    expected_smooth = -(0.9 * chosen + 0.1 * smoothed).mean()
    for shape in (LengthBucket(60, 60, 12), LengthBucket(60, 45, 20), LengthBucket(99, 88, 12)):
        inputs, labels = padded_pairs(pairs, np.arange(12), shape)
        logits = model(inputs)
        loss = keras.ops.convert_to_numpy(SequenceLoss(0.1)(labels, logits))
        np.testing.assert_allclose(loss, expected_smooth, rtol=1e-5)
        metric = Perplexity()
        metric.update_state(labels, logits)
        np.testing.assert_allclose(float(metric.result()), np.exp(expected), rtol=1e-5)


def test_masks_of_keras_change_nothing():
    pairs = some_pairs(6)
    inputs, labels = padded_pairs(pairs, np.arange(6), LengthBucket(50, 50, 6))
    layers = [keras.layers.Embedding(60, 60, mask_zero=masking) for masking in (False, True)]
    for layer in layers:
        layer.build()
        layer.set_weights([np.random.default_rng(0).normal(size=(60, 60))])
    assert layers[1](inputs["target"])._keras_mask is not None
    losses = [float(SequenceLoss()(labels, layer(inputs["target"]))) for layer in layers]
    assert losses[0] == losses[1]


def test_evaluation_and_training_do_not_depend_on_the_batches():
    pairs, model = some_pairs(40), little_model()
    model.compile("sgd", SequenceLoss(0.1), metrics=[Perplexity()])
    expected = np.exp(-token_log_probabilities(model, pairs)[:, 0].mean())
    for shapes in ([LengthBucket(50, 50, 7)], PairBatches(pairs, 6, seed=0).buckets):
        found = model.evaluate(HeldOutPairs(pairs, shapes), return_dict=True, verbose=0)
        assert found["perplexity"] == pytest.approx(expected, rel=1e-4)
    batches = PairBatches(pairs, 6, seed=0)
    model.fit(batches, verbose=0, shuffle=False)
    assert model.evaluate(HeldOutPairs(pairs, batches.buckets), verbose=0)[1] < expected


@pytest.mark.parametrize("first", [0, 1, 2])
def test_training_may_begin_anywhere_in_an_epoch(first):
    """TensorFlow takes from the first two batches which axes may vary."""
    batches = PairBatches(some_pairs(30), 4, seed=0, buckets=3)
    assert len(batches.buckets) > 1
    batches.first = first
    model = little_model()
    model.compile("sgd", SequenceLoss())
    history = model.fit(batches, epochs=2, verbose=0, shuffle=False)
    assert np.isfinite(history.history["loss"]).all()
    assert model.optimizer.iterations == 2 * (batches.batches_per_epoch - first)


def test_gradients_do_not_depend_on_padding():
    pairs, weights = some_pairs(6), []
    for shape in (LengthBucket(50, 50, 6), LengthBucket(77, 66, 9)):
        model = little_model()
        model.compile(keras.optimizers.SGD(1.0), SequenceLoss(0.1))
        model.train_on_batch(*padded_pairs(pairs, np.arange(6), shape))
        weights.append(model.get_weights())
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_saved_and_loaded():
    for thing in (SequenceLoss(0.3), Perplexity()):
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(thing))
        assert again.get_config() == thing.get_config()
