"""Measures of a classifier, against hand-counted cases and scikit-learn."""

import keras
import numpy as np
import pytest
from sklearn import metrics as reference

from shared.images.grad_cam import class_activation_maps
from shared.images.metrics import confusion_matrix, softmax, top_k_accuracy

pytestmark = pytest.mark.once


def test_top_k_by_hand():
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    labels = np.array([1, 1, 0, 0])
    assert top_k_accuracy(scores, labels, 1) == 0.5
    assert top_k_accuracy(scores, labels, 2) == 0.75
    assert top_k_accuracy(scores, labels, 3) == 1
    assert top_k_accuracy(scores, labels, 5) == 1


def test_ties_and_nan_count_against_the_model():
    labels = np.array([0])
    assert top_k_accuracy(np.array([[1.0, 1.0, 0.0]]), labels, 1) == 0
    assert top_k_accuracy(np.full((1, 3), np.nan), labels, 2) == 0


@pytest.mark.parametrize("k", [1, 2, 5])
def test_as_scikit_learn(k):
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(500, 10)), rng.integers(0, 10, 500)
    expected = reference.top_k_accuracy_score(labels, scores, k=k, labels=range(10))
    assert top_k_accuracy(scores, labels, k) == pytest.approx(expected)
    predicted = scores.argmax(axis=1)
    np.testing.assert_array_equal(
        confusion_matrix(predicted, labels, 10), reference.confusion_matrix(labels, predicted)
    )


def test_softmax_does_not_overflow():
    probabilities = softmax(np.array([[1000.0, 1000.0, -1000.0]]))
    np.testing.assert_allclose(probabilities, [[0.5, 0.5, 0.0]])


def test_class_activation_maps_find_the_evidence():
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(2, 1, use_bias=False, name="features")(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="pooling")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, use_bias=False, name="logits")(x))
    model.set_weights([np.array([[[[1.0, -1.0]]]]), np.eye(2)])
    images = np.zeros((2, 8, 8, 1), "float32")
    images[0, 1, 2] = 5  # bright: evidence for class 0
    images[1, 6, 4] = -5
    classes, maps = class_activation_maps(model, images, "pooling")
    assert classes.tolist() == [0, 1]
    assert [np.unravel_index(each.argmax(), each.shape) for each in maps] == [(1, 2), (6, 4)]
    assert maps.min() >= 0
    assert maps.max() == pytest.approx(1)
    assert (maps > 0).sum() == 2
