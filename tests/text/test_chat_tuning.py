"""Fine-tuning on conversations: the template, the labels, LoRA, and answers."""

import itertools

import keras
import numpy as np
import pytest
from conftest import numbers, with_normal_weights

from recipes.gpt_text import Config, build_model
from shared.text.causal_model import CachedWriter
from shared.text.chat_tuning import LENGTH_STEP, AnswerBatches, chat_answer, chat_prompt, enable_lora
from shared.text.pairs import SequencePairs
from shared.text.sampling import Sampling
from shared.text.subwords import END, PAD, START
from shared.training.saving import read_model, save_model

PAIRS = SequencePairs([[7, 8, END, 9], [5], list(range(4, 20)), [6, 6]], [[10, 11], [], [4], [12, 13, 14]])


@pytest.fixture
def model():
    config = Config.for_preset("smoke", depth=2, width=16, heads=2, hidden=24, window=16)
    return with_normal_weights(build_model(config, 20))


def test_the_template():
    assert chat_prompt([7, 8, END, 9]) == [START, 7, 8, START, 9, START]


def test_labels_are_the_answers_alone():
    batches = AnswerBatches(PAIRS, 3, seed=0)
    assert len(batches) == 2
    found = []
    for ids, labels in (batches[0], batches[1]):
        assert ids.shape == labels.shape
        assert ids.shape[0] == 3
        assert ids.shape[1] % LENGTH_STEP == 0
        for row, label in zip(ids.tolist(), labels.tolist(), strict=True):
            counts = [index for index, token in enumerate(label) if token != PAD]
            if not counts:
                assert set(row) == {PAD}
                continue
            target = [token for token in label if token != PAD]
            assert target[-1] == END
            assert row[counts[0]] == START, "the first label is what follows the START of the answer"
            assert [row[index + 1] for index in counts[:-1]] == target[:-1]
            found.append((row[: counts[0] + 1], target[:-1]))
    expected = [(chat_prompt(source), target) for source, target in zip(*PAIRS, strict=True)]
    assert sorted(found) == sorted(expected)


def test_no_two_neighbours_have_the_same_length():
    """Else Keras on TensorFlow would take it for fixed, and refuse the next batch."""
    batches = AnswerBatches(SequencePairs([[5] * n for n in range(40)], [[6]] * 40), 4, seed=0)
    lengths = [batches[index][0].shape[1] for index in range(len(batches))]
    assert all(a != b for a, b in itertools.pairwise(lengths))
    assert len(set(lengths)) > 2


def test_each_epoch_has_its_order():
    batches = AnswerBatches(SequencePairs([[5] * n for n in range(40)], [[6]] * 40), 4, seed=0)
    orders = []
    for epoch in (0, 1, 0):
        batches.epoch = epoch
        orders.append([batches[index][0].sum() for index in range(10)])
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


@pytest.mark.in_turn
def test_lora_changes_the_dense_layers_alone_and_is_saved(model, tmp_path):
    ids = np.array([[START, 5, 6, START, 7]], "int32")
    before, outputs = {weight.path: numbers(weight) for weight in model.weights}, numbers(model(ids))
    trained = enable_lora(model, 2)
    assert trained == sum(int(np.prod(weight.shape)) for weight in model.trainable_variables)
    assert {weight.path.rpartition("/")[2] for weight in model.trainable_variables} == {
        "lora_kernel_a",
        "lora_kernel_b",
    }
    assert len(model.trainable_variables) == 2 * 5 * 2  # of query, key_value, output, expand and contract in each block
    np.testing.assert_allclose(numbers(model(ids)), outputs, rtol=1e-5, atol=1e-6)
    model.compile(keras.optimizers.Adam(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(ids, ids)
    changed = numbers(model(ids))
    assert np.abs(changed - outputs).max() > 1e-3
    for weight in model.weights:
        if weight.path in before:
            np.testing.assert_array_equal(numbers(weight), before[weight.path])
    save_model(model, tmp_path / "model.keras")
    np.testing.assert_allclose(numbers(read_model(tmp_path / "model.keras")(ids)), changed, rtol=1e-4, atol=1e-5)


class Letters:
    """A vocabulary of single letters, from 4 on."""

    def encode(self, text):
        return [ord(letter) - ord("a") + 4 for letter in text]

    def decode(self, ids):
        return "".join(chr(number - 4 + ord("a")) for number in ids)


def test_an_answer_ends_where_the_model_says_so(model):
    write = CachedWriter(model, 16, Sampling(0, end=END))
    options = Config.for_preset("smoke", turns=2, context=8, answer=6)
    answer = chat_answer(write, Letters(), ["left out", "abc", "de"], options, seed=0)
    ids = chat_prompt([*Letters().encode("abc"), END, *Letters().encode("de")])
    for _ in range(6):
        filled = np.array([[*ids, *[PAD] * (16 - len(ids))]], "int32")  # behind, for one shape
        logits = numbers(model(filled))[0, len(ids) - 1].copy()
        logits[:END] = -np.inf
        ids.append(int(logits.argmax()))
        if ids[-1] == END:
            break
    assert answer == Letters().decode([token for token in ids[8:] if token != END])
