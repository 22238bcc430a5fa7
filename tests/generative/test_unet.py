"""The layers of the U-Net against NumPy and Keras, and the U-Net of the recipe."""

import keras
import numpy as np
import pytest
from conftest import numbers

from recipes.diffusion import Config, build_model
from shared.data.images.datasets import ImageData, LabelledImages
from shared.generative.diffusion.unet import ConditionedResidualBlock, TimeEmbedding, attention_heads
from shared.layers.normalization import GroupNormalization
from shared.layers.resampling import DepthToSpace, NearestUpsampling, SpaceToDepth


def random(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def randomize(layer):
    """Gives every weight a value of its own, so that none can hide behind its initial 0 or 1."""
    for index, weight in enumerate(layer.weights):
        weight.assign(0.3 * random(weight.shape, seed=index + 1) + ("gamma" in weight.path))


def assert_all_learns(model, inputs, targets):
    """One step of gradient descent changes every weight."""
    model.compile(keras.optimizers.SGD(1.0), "mse")
    before = [numbers(weight.value).copy() for weight in model.trainable_weights]
    model.train_on_batch(inputs, targets)
    for old, weight in zip(before, model.trainable_weights, strict=True):
        change = numbers(weight.value) - old
        assert np.isfinite(change).all()
        assert np.abs(change).max() > 1e-6, weight.path


def reference_group_normalization(x, groups, scale, shift, epsilon=1e-5):
    grouped = x.astype("float64").reshape(*x.shape[:3], groups, -1)
    axes = (1, 2, 4)
    grouped = (grouped - grouped.mean(axes, keepdims=True)) / np.sqrt(grouped.var(axes, keepdims=True) + epsilon)
    scale, shift = (each.reshape(-1, 1, 1, x.shape[-1]) for each in (scale, shift))
    return grouped.reshape(x.shape) * scale + shift


@pytest.mark.parametrize("learned", [True, False])
def test_group_normalization_is_that_of_numpy(learned):
    layer, x = GroupNormalization(4, learned), 3 * random((3, 5, 4, 8)) + 10
    given = [] if learned else [random((3, 8), 1), random((3, 8), 2)]
    layer(x, *given)
    randomize(layer)
    expected = reference_group_normalization(x, 4, *(layer.get_weights() if learned else given))
    np.testing.assert_allclose(numbers(layer(x, *given)), expected, rtol=1e-4, atol=2e-5)


def test_group_normalization_is_that_of_keras():
    ours, theirs, x = GroupNormalization(2), keras.layers.GroupNormalization(2, epsilon=1e-5), random((3, 5, 4, 6))
    ours(x)
    theirs(x)
    randomize(ours)
    theirs.set_weights(ours.get_weights())
    np.testing.assert_allclose(numbers(ours(x)), numbers(theirs(x)), rtol=1e-5, atol=1e-5)


def test_group_normalization_of_channels_that_do_not_fit():
    with pytest.raises(ValueError, match="8 channels cannot be divided into 3 equal groups"):
        GroupNormalization(3)(random((2, 3, 3, 8)))


def test_time_embedding_is_exact_in_half_precision_too():
    """Times that half precision cannot tell apart must give embeddings that it can."""
    full = TimeEmbedding(64)
    full(np.zeros(2, "float32"))
    half = TimeEmbedding(64, dtype="mixed_bfloat16")
    half(np.zeros(2, "float32"))
    half.set_weights(full.get_weights())
    time = np.array([0.9, 0.9005], "float32")
    expected = numbers(full(time))
    assert np.abs(expected[0] - expected[1]).max() > 0.02
    found = numbers(keras.ops.cast(half(time), "float32"))
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
    np.testing.assert_allclose(found[0] - found[1], expected[0] - expected[1], atol=0.3 * np.ptp(expected, 0).max())


def test_a_block_begins_by_passing_on_its_input():
    block, x = ConditionedResidualBlock(8, 4), random((2, 4, 4, 8))
    np.testing.assert_array_equal(numbers(block(x, random((2, 3)))), x)


def test_upsampling_repeats():
    x = random((1, 4, 3, 2))
    np.testing.assert_array_equal(numbers(NearestUpsampling(7, 6)(x)), x.repeat(2, axis=1).repeat(2, axis=2)[:, :7, :6])


@pytest.mark.once
def test_attention_heads_divide_every_width():
    widths = range(8, 2049, 8)
    assert all(width % attention_heads(width) == 0 for width in widths)
    assert all(width // attention_heads(width) >= min(width, 64) for width in widths)
    assert [attention_heads(width) for width in (48, 96, 128, 200, 256, 1024)] == [1, 1, 2, 2, 4, 16]


def test_to_depth_and_back():
    x = random((2, 6, 4, 3))
    deep = SpaceToDepth(2)(x)
    np.testing.assert_array_equal(numbers(deep)[:, 1, 1], x[:, 2:4, 2:4].reshape(2, -1))
    np.testing.assert_array_equal(numbers(DepthToSpace(2)(deep)), x)


def digits(height, width, channels=1, examples=4):
    """Random images of three classes."""
    rng = np.random.default_rng(0)
    images = LabelledImages(rng.integers(0, 256, (examples, height, width, channels), "uint8"), np.arange(examples) % 3)
    return ImageData("random", ["a", "b", "c"], images, images, images, [127.0], [70.0], True, "0")


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"widths": (8, 8, 16), "patch": 1, "attention": 2, "depth": 2}, (28, 28, 1)),  # 28, 14, 7
        ({"widths": (8, 8, 16, 16), "patch": 1, "attention": 0}, (14, 9, 3)),  # 14, 7, 4, 2; 9, 5, 3, 2
        ({"widths": (8, 8), "patch": 2}, (28, 28, 1)),  # 14, 7
        ({"widths": (8, 200), "patch": 2}, (8, 8, 1)),  # 3 heads of at least 64 channels do not share 200
    ],
)
def test_predictions_of_the_unet_have_the_shape_of_the_images(options, shape):
    assert build_model(Config.for_preset("smoke", **options), digits(*shape)).output_shape == (None, *shape)


@pytest.mark.in_turn
def test_all_of_the_unet_learns_is_saved_and_heeded(tmp_path):
    shape = (7, 9, 3)
    config = Config.for_preset("smoke", widths=(16, 24), patch=1, attention=1, dropout=0.1)
    model = build_model(config, digits(*shape))
    inputs = {"image": random((4, *shape)), "time": np.linspace(0, 0.9, 4, dtype="float32"), "label": np.arange(4)}
    assert np.abs(model.predict(inputs, verbose=0)).max() == 0  # its last convolution begins as zeros
    randomize(model)
    before = model.predict(inputs, verbose=0)
    for name, other in {"time": inputs["time"] + 0.1, "label": np.array([1, 3, 0, 2])}.items():
        changed = model.predict(inputs | {name: other}, verbose=0)
        assert np.abs(changed - before).max(axis=(1, 2, 3)).min() > 1e-3, name
    model.save(tmp_path / "unet.keras")
    loaded = keras.saving.load_model(tmp_path / "unet.keras")
    np.testing.assert_array_equal(loaded.predict(inputs, verbose=0), before)
    assert_all_learns(model, inputs, random((4, *shape), seed=1))
