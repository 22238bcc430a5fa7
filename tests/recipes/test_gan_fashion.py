"""The GAN: losses, penalties, spectral normalization, collapse, batches, native baseline, the recipe as a script."""

import itertools
import json
import runpy
import signal
import types

import keras
import numpy as np
import pytest
from conftest import PROJECT, normal, numbers, refused_in_one_line
from keras import layers, ops
from PIL import Image

from recipes.gan_fashion import Config, adversarial_step, build_model
from shared.backends.gradients import value_and_grad
from shared.backends.runtime import dtype_policy, prepare_backend
from shared.backends.steps import compiled_step
from shared.data.images.datasets import ImageData, LabelledImages
from shared.errors import Interrupted, UsageError
from shared.generative.gan_batches import AdversarialBatches
from shared.generative.gan_losses import (
    critic_loss,
    generator_loss,
    gradient_penalty,
    r1_penalty,
    squared_gradient_norm,
)
from shared.generative.gan_sampling import EpochSheets, NoiseSampler, interpolated_noise, warn_if_collapsed
from shared.generative.metrics import COLLAPSED, diversity, effective_number
from shared.generative.modulation import ClassModulation
from shared.generative.plots import animate_sheets, plot_rows, save_sheet
from shared.generative.spectral import SpectralNormalization
from shared.layers.convolution import Convolution
from shared.tools.compare.worker import reordered
from shared.tools.records import read_records
from shared.training.options import parse_options
from shared.training.run import Run
from shared.training.saving import save_model, with_public_classes
from shared.training.tracking.tracking import Tracking


def test_losses():
    real, fake = np.array([[2.0], [-1.0]], "float32"), np.array([[0.5], [-3.0]], "float32")
    sure_of_real, sure_of_fake = (1 / (1 + np.exp(-each)) for each in (real, fake))
    expected = {
        "nonsaturating": (-np.log(sure_of_real).mean() - np.log(1 - sure_of_fake).mean(), -np.log(sure_of_fake).mean()),
        "hinge": ((0 + 2) / 2 + (1.5 + 0) / 2, (-0.5 + 3) / 2),
        "wgan_gp": ((0.5 - 3) / 2 - (2 - 1) / 2, (-0.5 + 3) / 2),
    }  # fmt: skip
    for name, (of_critic, of_generator) in expected.items():
        scores = [ops.convert_to_tensor(each) for each in (real, fake)]
        np.testing.assert_allclose(float(critic_loss(name, *scores)), of_critic, rtol=1e-5)
        np.testing.assert_allclose(float(generator_loss(name, scores[1])), of_generator, rtol=1e-5)
    certain = ops.convert_to_tensor(np.array([-200.0, 200.0], "float32"))
    assert float(generator_loss("nonsaturating", certain)) == pytest.approx(100)  # neither infinite nor NaN
    assert float(critic_loss("nonsaturating", certain, certain)) == pytest.approx(200)


def small_critic():
    """Scores v · tanh(images W), as a model of images (batch, 2, 3, 1), and as a function of W, v and images."""
    model = keras.Sequential(
        [keras.Input((2, 3, 1)), layers.Flatten(), layers.Dense(4, "tanh", use_bias=False), layers.Dense(1)]
    )
    model.set_weights([normal(6, 4), normal(4, 1, seed=1), np.zeros(1)])

    def slopes(weights, v, images):
        flat = images.reshape(len(images), 6)
        return ((1 - np.tanh(flat @ weights) ** 2) * v[:, 0]) @ weights.T

    return model, slopes


def numeric_gradient(function, array, step=1e-5):
    found = np.zeros_like(array)
    for place in np.ndindex(array.shape):
        ends = []
        for change in (step, -step):
            moved = array.copy()
            moved[place] += change
            ends.append(function(moved))
        found[place] = (ends[0] - ends[1]) / (2 * step)
    return found


@pytest.mark.parametrize("kind", ["real", "interpolation"])
def test_penalties_and_their_gradients_are_those_of_finite_differences(kind):
    model, slopes = small_critic()
    real, fake, epsilon = normal(5, 2, 3, 1), normal(5, 2, 3, 1, seed=1), np.linspace(0, 1, 5).astype("float32")
    weights, v = (each.astype("float64") for each in model.get_weights()[:2])

    def expected(weights, v):
        if kind == "real":
            return np.square(slopes(weights, v, real)).sum(axis=1).mean() / 2
        mixed = epsilon[:, None, None, None] * real + (1 - epsilon[:, None, None, None]) * fake
        return np.square(np.linalg.norm(slopes(weights, v, mixed), axis=1) - 1).mean()

    @compiled_step
    def step(real, fake, epsilon):
        def penalty():
            return r1_penalty(model, real) if kind == "real" else gradient_penalty(model, real, fake, epsilon)

        return value_and_grad(penalty, model.trainable_variables[:2])

    found, gradients = step(real, fake, epsilon)
    np.testing.assert_allclose(float(found), expected(weights, v), rtol=1e-4)
    by_weights = numeric_gradient(lambda weights: expected(weights, v), weights)
    by_v = numeric_gradient(lambda v: expected(weights, v), v)
    for gradient, numeric in zip(gradients, (by_weights, by_v), strict=True):
        np.testing.assert_allclose(numbers(gradient), numeric, rtol=1e-3, atol=1e-4)


def test_gradient_norms_are_those_of_finite_differences():
    model, _ = small_critic()
    weights, v, _ = (each.astype("float64") for each in model.get_weights())
    images = normal(3, 2, 3, 1).astype("float64")
    by_images = numeric_gradient(lambda x: np.sum(np.tanh(x.reshape(3, 6) @ weights) @ v), images)
    found = squared_gradient_norm(model, ops.convert_to_tensor(images.astype("float32")))
    np.testing.assert_allclose(numbers(found), np.square(by_images).sum(axis=(1, 2, 3)), rtol=1e-4)


def test_a_flat_critic_has_a_gradient():
    model, _ = small_critic()
    model.set_weights([np.zeros_like(each) for each in model.get_weights()])
    images = ops.convert_to_tensor(normal(2, 2, 3, 1))
    value, gradients = value_and_grad(
        lambda: gradient_penalty(model, images, images, ops.ones(2)), model.trainable_variables[:2]
    )
    assert float(value) == pytest.approx(1, rel=1e-5)
    assert all(np.isfinite(numbers(each)).all() for each in gradients)


LIMITED = {
    "dense": (lambda: layers.Dense(5), normal(7, 4)),
    "convolution": (lambda: Convolution(5, 4, strides=2, use_bias=True), normal(2, 6, 6, 3)),
    "embedding": (lambda: layers.Embedding(6, 4), np.arange(6)),
}


def limited(name):
    make, inputs = LIMITED[name]
    layer = SpectralNormalization(make())
    inputs = ops.convert_to_tensor(inputs)
    layer(inputs)
    layer.weight.assign(normal(*layer.weight.shape, seed=5))
    return layer, inputs


@pytest.mark.parametrize("name", LIMITED)
def test_spectral_norm_is_that_of_svd(name):
    layer, inputs = limited(name)
    kernel = numbers(layer.weight.value)
    train = compiled_step(lambda x: layer(x, training=True))
    for _ in range(100):
        outputs = train(inputs)
    np.testing.assert_array_equal(numbers(layer.weight.value), kernel)
    largest = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
    plain = LIMITED[name][0]()
    plain.build(inputs.shape)
    plain.set_weights([kernel / largest, *[np.zeros(5)] * (name != "embedding")])
    np.testing.assert_allclose(numbers(outputs), numbers(plain(inputs)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(numbers(layer(inputs, training=False)), numbers(plain(inputs)), rtol=1e-3, atol=1e-4)


def test_spectral_norm_is_estimated_by_power_iteration():
    layer, inputs = limited("dense")
    layer.direction.assign(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    matrix, right = numbers(layer.weight.value), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    left = matrix @ right / np.linalg.norm(matrix @ right)
    layer(inputs, training=False)
    np.testing.assert_array_equal(numbers(layer.direction.value), right)
    outputs = layer(inputs, training=True)
    right = left @ matrix / np.linalg.norm(left @ matrix)
    np.testing.assert_allclose(numbers(layer.direction.value), right, rtol=1e-5)
    np.testing.assert_allclose(numbers(outputs), numbers(inputs) @ matrix / (left @ matrix @ right), rtol=1e-4)


def test_gradients_flow_through_the_spectral_norm():
    layer, inputs = limited("dense")
    factors = ops.convert_to_tensor(normal(7, 5, seed=2))
    left, values, right = np.linalg.svd(numbers(layer.weight.value).astype("float64"), full_matrices=False)
    values[0] = 2 * values[0]  # far enough from the next one for power iteration
    layer.weight.assign((left * values) @ right)

    @compiled_step
    def step(inputs):
        return value_and_grad(lambda: ops.sum(layer(inputs, training=True) * factors), [layer.weight])[1][0]

    for _ in range(30):
        found = step(inputs)

    def loss(kernel):
        return np.sum(numbers(inputs) @ kernel / np.linalg.svd(kernel, compute_uv=False)[0] * numbers(factors))

    np.testing.assert_allclose(numbers(found), numeric_gradient(loss, (left * values) @ right), rtol=1e-3, atol=1e-3)


def test_spectral_norm_saves_and_loads_and_keeps_its_precision(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = keras.Sequential([keras.Input((6, 6, 3)), SpectralNormalization(Convolution(4, 3), name="limited")])
    finally:
        keras.config.set_dtype_policy("float32")
    layer = model.layers[0]
    layer.direction.assign(normal(4))
    model(normal(2, 6, 6, 3), training=True)
    assert [each.dtype for each in layer.weights] == ["float32", "float32"]
    assert keras.backend.standardize_dtype(model(normal(2, 6, 6, 3)).dtype) == "bfloat16"
    save_model(model, tmp_path / "limited.keras")
    loaded = keras.saving.load_model(tmp_path / "limited.keras")
    outputs = [numbers(ops.cast(each(normal(2, 6, 6, 3)), "float32")) for each in (model, loaded)]
    np.testing.assert_array_equal(*outputs)
    assert loaded.layers[0].layer.get_config() == with_public_classes(layer.layer.get_config())


def test_class_modulation(tmp_path):
    inputs, labels = keras.Input((2, 3, 4)), keras.Input((), dtype="int32")
    model = keras.Model([inputs, labels], ClassModulation(5)(inputs, labels))
    (table,) = model.get_weights()
    assert table.shape == (5, 8)
    assert len(np.unique(table)) == 40  # classes differ from the first step
    x, chosen = normal(6, 2, 3, 4), np.array([0, 4, 1, 1, 2, 0], "int32")
    scale, shift = table[chosen][:, None, None, :4], table[chosen][:, None, None, 4:]
    np.testing.assert_allclose(model.predict([x, chosen], verbose=0), x * (1 + scale) + shift, rtol=1e-5, atol=1e-6)
    save_model(model, tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.get_weights()[0], table)


@pytest.mark.once
def test_effective_number():
    far = 1000 * np.eye(20)
    assert effective_number(far, width=1) == pytest.approx(20)
    assert effective_number(np.ones((20, 3)), width=1) == pytest.approx(1)
    assert effective_number(far.repeat(3, axis=0), width=1) == pytest.approx(20)
    uneven = far[[0] * 3 + [1]]  # the entropy of 3/4 and 1/4
    assert effective_number(uneven, width=1) == pytest.approx(np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)))


def clusters(examples=1000, kinds=10, seed=0, spread=1.0):
    """Points about as many centres, which are the same for each seed."""
    rng = np.random.default_rng(seed)
    return 20 * normal(kinds, 8, seed=99)[rng.integers(0, kinds, examples)] + spread * rng.normal(size=(examples, 8))


@pytest.mark.once
def test_mode_collapse_is_detected(capsys):
    real = clusters()
    found = {
        "as diverse": diversity(clusters(seed=1), real),
        "one image": diversity(np.repeat(real[:1], 1000, axis=0), real),
        "an image of each kind": diversity(clusters(seed=1, spread=0.01), real),
        "a kind of ten": diversity(clusters(seed=1, kinds=1), real),
    }
    assert found["as diverse"] == pytest.approx(1, abs=0.05)
    assert all(0 < found[name] < COLLAPSED for name in list(found)[1:]), found
    assert capsys.readouterr().err == ""
    assert [warn_if_collapsed(value) for value in found.values()] == [False, True, True, True]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("WARNING: mode collapse: the generated images have 0.0")
    assert diversity(clusters(30), real) == pytest.approx(1, abs=0.3)  # few of them are compared with as few


@pytest.mark.once
def test_mode_collapse_during_training_is_reported(tmp_path, capsys):
    data = image_data(examples=120)

    class Remembering(NoiseSampler):
        def images(self, noise, labels):
            places = np.zeros_like(labels) if kind == "collapsed" else np.arange(len(labels))
            return data.train.images[places]

    model, tracking = types.SimpleNamespace(variables=[]), Tracking((), tmp_path)
    for kind, before, warnings in [("collapsed", 0.9, 1), ("collapsed", 0.1, 0), ("diverse", 0.9, 0)]:
        run = types.SimpleNamespace(directory=tmp_path, history=[{"diversity": before}], tracking=tracking)
        found = EpochSheets(run, Remembering(model, 5, True, 4, seed=0), data)(epoch=2)
        assert (found["diversity"] < 0.1) == (kind == "collapsed")
        assert capsys.readouterr().err.count("WARNING: mode collapse") == warnings


@pytest.mark.once
def test_interpolated_noise():
    first, second = normal(3, 50), normal(3, 50, seed=1)
    found = interpolated_noise(first, second, 5)
    assert found.shape == (3, 5, 50)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0], first, atol=1e-5)
    np.testing.assert_allclose(found[:, -1], second, atol=1e-5)
    circle = interpolated_noise(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), 4)[0]
    angles = np.pi / 2 * np.arange(4) / 3
    np.testing.assert_allclose(circle, np.stack([np.cos(angles), np.sin(angles)], axis=1), atol=1e-12)
    np.testing.assert_allclose(interpolated_noise(first, first, 3), np.repeat(first[:, None], 3, axis=1), rtol=1e-3)


@pytest.mark.once
@pytest.mark.parametrize("channels", [1, 3])
def test_sheets_and_their_animation(channels, tmp_path):
    paths = [tmp_path / "epochs" / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        save_sheet(path, np.full((6, 4, channels), 50 * number, "uint8"))
    animate_sheets(tmp_path / "all.gif", paths, most=3)
    with Image.open(tmp_path / "all.gif") as image:
        assert image.n_frames == 3
        for index, level in enumerate((0, 100, 200)):
            image.seek(index)
            assert abs(np.asarray(image.convert("L")).astype(int) - level).max() <= 4
    plot_rows(np.zeros((2, 3, 6, 4, channels), "uint8"), "rows").savefig(tmp_path / "rows.png")


def image_data(size=8, examples=60, level=150, channels=1, contrast=40):
    """Three classes of images, a little brighter each."""
    rng, labels = np.random.default_rng(1), np.arange(examples) % 3
    images = level + 20 * labels[:, None, None, None] + rng.integers(0, contrast, (examples, size, size, channels))
    data = LabelledImages(images.astype("uint8"), labels)
    return ImageData("bright", ["a", "b", "c"], data, data, data, [100.0], [60.0], True, "0")


@pytest.mark.once
def test_batches_are_the_same_on_repeat_and_after_a_resume():
    def make(seed=1):
        return AdversarialBatches(
            image_data().train, 8, seed, latent=5, critic_steps=2, penalty_every=3, flip=True
        )  # fmt: skip

    first, again = make(), make()
    assert (len(first), first.batch_size) == (3, 16)
    for batches in (first, again):
        batches.epoch = 2
    again.first = 1
    assert len(again) == 2
    for index in (1, 2):
        for one, other in zip(first[index], again[index - 1], strict=True):
            assert (one is None and other is None) or (one == other).all()
    images, labels, noise, epsilon = first[0]
    assert [each.shape for each in (images, labels, noise, epsilon)] == [(2, 8, 8, 8, 1), (2, 8), (3, 8, 5), (2, 8)]
    assert [str(each.dtype) for each in (images, labels, noise, epsilon)] == ["float32", "int32", "float32", "float32"]
    assert -1 <= images.min() < images.max() <= 1
    np.testing.assert_allclose((images.mean(axis=(2, 3, 4)) + 1) * 127.5 / 20 - labels, 169.5 / 20, atol=0.5)
    other = make(seed=2)
    other.epoch = 2
    assert all((one != another).any() for one, another in zip(first[0], other[0], strict=True))
    before = first[0]
    first.epoch = 3
    assert all((one != another).any() for one, another in zip(before[:3], first[0][:3], strict=True))


@pytest.mark.once
def test_which_batches_have_a_penalty_and_labels():
    data = image_data().train
    batches = AdversarialBatches(data, 14, 0, latent=2, penalty_every=3)
    found = []
    for epoch in range(2):
        batches.epoch = epoch
        found += [batches[index].epsilon is not None for index in range(len(batches))]
    assert found == [True, False, False, True, False, False, True, False]
    assert AdversarialBatches(data, 8, 0, latent=2)[0].epsilon is None
    assert not AdversarialBatches(data, 8, 0, latent=2, conditional=False)[0].labels.any()


@pytest.mark.once
@pytest.mark.parametrize("critic_steps", [1, 2])
def test_a_comparison_reorders_the_examples_of_each_step(critic_steps):
    batches = AdversarialBatches(image_data().train, 8, 0, latent=2, critic_steps=critic_steps, penalty_every=2)
    for batch in (batches[0], batches[1]):
        again = reordered(batch, batches.example_axis, seed=1)
        assert not (again.labels == batch.labels).all()
        for before, after in zip(batch, again, strict=True):
            assert (before is None) == (after is None)
            if before is not None:
                assert before.shape == after.shape
        for part, labels in enumerate(batch.labels):
            examples, moved = (
                sorted(
                    zip(each.labels[part], each.noise[part, :, 0], each.images[part].sum(axis=(1, 2, 3)), strict=True)
                )
                for each in (batch, again)
            )
            assert len(labels) == 8
            assert examples == moved


def tiny(**options):
    """Options of networks that train in no time."""
    options = {"widths": (4,), "critic_widths": (6,), "latent": 6, "batch_size": 10, "ema": 0.8} | options
    return Config.for_preset("smoke", **{"learning_rate": 0.02, "critic_learning_rate": 0.02} | options)


def batches_of(config, data):
    penalty = config.penalty_every if config.r1 or config.loss == "wgan_gp" else 0
    return AdversarialBatches(
        data.train, config.batch_size, 0, config.latent, config.critic_steps, config.class_conditional, penalty
    )


@pytest.mark.in_turn
@pytest.mark.parametrize(
    "options",
    [
        {"loss": "hinge"},
        {"loss": "nonsaturating", "r1": 0.1, "spectral_norm": False, "class_conditional": False},
        {"loss": "wgan_gp", "spectral_norm": False, "critic_steps": 2},
    ],
    ids=lambda options: options["loss"],
)
def test_a_few_steps_make_images_more_real(options):
    prepare_backend(0, "float32")
    config, data = tiny(**options), image_data()
    step, state = adversarial_step(config, build_model(config, data), 80)
    sampler = NoiseSampler(state["average"], config.latent, config.class_conditional, 50, 0)
    labels = np.arange(60) % 3
    before = sampler(labels)
    batches = batches_of(config, data)
    for number in range(80):
        batches.epoch, index = divmod(number, len(batches))
        losses = step(*batches[index])
        assert np.isfinite([float(each) for each in losses.values()]).all()
    after = sampler(labels)
    real = data.train.images.mean()
    assert abs(after.mean() - real) < 0.5 * abs(before.mean() - real)


def test_samples():
    config, data = tiny(), image_data()
    generator, _ = build_model(config, data)
    sampler, labels = NoiseSampler(generator, 6, True, 4, seed=3), np.array([0, 1, 2, 2, 1])
    images = sampler(labels)
    assert (images.shape, images.dtype) == ((5, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(sampler(labels), images)
    assert (sampler(np.roll(labels, 1)) != images).any()
    blind = NoiseSampler(generator, 6, False, 4, seed=3)
    np.testing.assert_array_equal(blind(np.array([1, 2])), sampler(np.array([0, 0])))
    chain = sampler.between(labels[:2], stages=4)
    assert chain.shape == (2, 4, 8, 8, 1)
    np.testing.assert_array_equal(chain[:, 0], sampler.images(sampler.noise(2), labels[:2]))


def test_the_last_convolution_of_the_generator_is_not_rounded_to_half_precision():
    config, data = tiny(), image_data()
    with dtype_policy("mixed_bfloat16"):
        generator, _ = build_model(config, data)
    inputs = {"noise": normal(8, config.latent), "label": np.arange(8) % 3}
    before_tanh = keras.Model(generator.input, generator.get_layer("up_0").output).predict(inputs, verbose=0)
    assert before_tanh.dtype == np.float32
    assert np.mean(before_tanh.view(np.uint32) & 0xFFFF != 0) > 0.5


def trained(out, stop=None, **options):
    """Trains as the recipe does; a SIGTERM comes with step `stop`."""
    config, data = tiny(epochs=2, out=out, r1=0.1, penalty_every=2, **options), image_data()
    run, calls = Run(config), itertools.count(1)
    step, state = adversarial_step(config, build_model(config, data), 12)
    sheets = EpochSheets(run, NoiseSampler(state["average"], config.latent, True, 50, 0), data)

    def counted(*batch):
        if next(calls) == stop:
            signal.raise_signal(signal.SIGTERM)
        return step(*batch)

    run.train(counted, batches_of(config, data), state, "bright 0", after_epoch=sheets)
    return run, state


@pytest.mark.slow
def test_stopped_and_resumed_ends_with_the_same_bits(tmp_path):
    whole, expected = trained(tmp_path / "whole")
    with pytest.raises(Interrupted):
        trained(tmp_path / "stopped", stop=9)
    run, state = trained(tmp_path / "stopped", resume=True)
    for name, part in state.items():
        for one, other in zip(part.variables, expected[name].variables, strict=True):
            np.testing.assert_array_equal(numbers(one.value), numbers(other.value), err_msg=one.path)
    assert run.history == whole.history
    assert set(run.history[0]) == {"epoch", "critic_loss", "generator_loss", "diversity"}
    for name in ("0001.png", "0002.png"):
        sheets = [np.asarray(Image.open(tmp_path / run / "epochs" / name)) for run in ("whole", "stopped")]
        np.testing.assert_array_equal(*sheets)
    assert sheets[0].shape == (3 * 10 + 2, 10 * 10 + 2)


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loss", "square"], "square"),
        (["--r1", "-1"], "--r1 must be at least 0, not -1"),
        (["--ema", "1"], "--ema must be at least 0 and below 1"),
        (["--penalty-every", "0"], "--penalty-every must be at least 1, not 0"),
        (["--critic-learning-rate", "0"], "--critic-learning-rate must be above 0"),
        (["--widths", "0"], "--widths must be at least 1 each"),
        (["--widths", "8", "8", "8"], "--widths must be fewer, to halve 28 by 28"),
        (["--samples", "5"], "--samples must be at least 20, not 5"),
        (["--critic-steps", "200"], "--batch-size times --critic-steps must be at most the 4000 images, not 64"),
        (["--data", "nothing"], "no data set 'nothing'"),
    ],
)
def test_wrong_use(arguments, message):
    if "--data" not in arguments:
        arguments = ["--data", "mnist5k", *arguments]
    with refused_in_one_line(message):
        parse_options(Config, arguments).load()


@pytest.mark.slow
@pytest.mark.in_turn
def test_smoke_as_a_script(run_recipe, tmp_path):
    process = run_recipe("gan_fashion", "--preset", "smoke", "--data", "mnist5k", "--out", "run", check=0)
    result = json.loads(process.stdout.splitlines()[-1].removeprefix("result "))
    metrics = result["metrics"]
    assert (result["data"], result["metric"], result["loss"]) == ("mnist5k", "frechet", Config.loss)
    assert result["judge"] == "efficientnet_lite0-imagenet at 96 pixels"
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {
        *("checkpoint", "config.json", "history.csv", "result.json", "model.keras"),
        *("curves.png", "samples.png", "neighbours.png", "interpolation.png", "training.gif", "epochs"),
    }
    for name in ("curves.png", "samples.png", "neighbours.png", "interpolation.png"):
        with Image.open(tmp_path / "run" / name) as image:
            assert np.asarray(image.convert("L")).std() > 10
    with Image.open(tmp_path / "run" / "training.gif") as image:
        assert image.n_frames == result["epochs"] == len(list((tmp_path / "run/epochs").iterdir()))
    assert 0 <= metrics["frechet_real"] < result["value"] == metrics["frechet"]
    assert "class_accuracy" not in metrics  # a network trained on ImageNet knows no digits
    assert result["collapsed"] is (metrics["diversity"] < COLLAPSED)
    assert metrics["frechet_gap_ratio"] > 4
    assert metrics["diversity_untrained"] < metrics["diversity"] < 1.2
    weights = keras.saving.load_model(tmp_path / "run/model.keras").get_weights()
    assert sum(weight.size for weight in weights) == result["parameters"]


@pytest.mark.once
def test_the_recorded_runs_are_as_good_as_stated():
    records = read_records("gan_fashion")
    assert records
    for record in records:
        metrics = record["metrics"]
        assert record["value"] == metrics["frechet"]
        assert metrics["frechet_gap_ratio"] > 10
        assert metrics["class_accuracy"] > 0.85


NATIVE = PROJECT / f"benchmarks/gan_fashion_{keras.config.backend()}.py"
NEEDS_NATIVE = pytest.mark.skipif(not NATIVE.exists(), reason="no native baseline on this backend")


@NEEDS_NATIVE
@pytest.mark.parametrize(
    "options",
    [
        {"loss": "hinge", "widths": (4, 6), "critic_widths": (6, 4, 5)},
        pytest.param(
            {"loss": "nonsaturating", "r1": 0.3, "penalty_every": 2, "spectral_norm": False}, marks=pytest.mark.slow
        ),
        pytest.param(
            {"loss": "wgan_gp", "r1": 0.1, "critic_steps": 2, "class_conditional": False}, marks=pytest.mark.slow
        ),
    ],
    ids=lambda options: options["loss"],
)
def test_the_native_baseline_trains_as_keras_does(options):
    prepare_backend(1, "float32")
    # In images of little contrast, or with unlucky weights, such as those of seed 0, a channel of the critic is on, or
    # off, all over: then the slopes of its bias cancel but for rounding, which Adam makes as large as any other.
    options = {"learning_rate": 0.002, "critic_learning_rate": 0.004, "ema": 0.5, "seed": 1} | options
    config, data = tiny(**options), image_data(12, channels=3, level=0, contrast=210)
    step, state = adversarial_step(config, build_model(config, data), 100)
    models = [state[name] for name in ("generator", "critic", "average")]
    for model in models:
        for index, weight in enumerate(model.weights):  # none at 0, where it would learn nothing, or hide
            weight.assign(weight + 0.05 * np.abs(normal(*weight.shape, seed=index)))
    trainer = runpy.run_path(str(NATIVE))["Trainer"](config, state, 100)
    initial = [weight.copy() for model in models for weight in model.get_weights()]
    batches = batches_of(config, data)
    for number in range(6):
        batches.epoch, index = divmod(number, len(batches))
        for name in ("critic_loss", "generator_loss"):
            state[name].reset_state()
        theirs = sum(float(each) for each in step(*batches[index]).values())
        tolerance = {"rtol": 1e-5} if keras.config.backend() == "jax" else {"rtol": 1e-4, "atol": 1e-5}
        np.testing.assert_allclose(float(trainer.train_on_batch(*batches[index])), theirs, **tolerance)
    variables = [variable for model in models for variable in model.weights]
    for start, ours, variable in zip(initial, trainer.weights(), variables, strict=True):
        theirs = numbers(variable.value)
        learned = np.linalg.norm(theirs - start)
        assert learned > 0, variable.path
        if "variance" not in variable.path:  # of which PyTorch keeps the unbiased estimate
            assert np.linalg.norm(ours - theirs) < 0.02 * learned, variable.path


@NEEDS_NATIVE
def test_the_native_baseline_refuses_what_it_cannot_do():
    with pytest.raises(UsageError, match="the native baseline needs --precision float32"):
        runpy.run_path(str(NATIVE))["Trainer"](tiny(precision="mixed_bfloat16"), {}, 4)


@pytest.mark.skipif(keras.config.backend() != "torch", reason="the native baseline that samples is in PyTorch")
def test_the_native_baseline_samples_the_same_images():
    config = tiny()
    generator, _ = build_model(config, image_data(12))
    for index, weight in enumerate(generator.weights):
        weight.assign(weight + 0.05 * np.abs(normal(*weight.shape, seed=index)))
    both = NoiseSampler, runpy.run_path(str(NATIVE))["NoiseSampler"]
    ours, theirs = (kind(generator, config.latent, True, 3, 0)(np.arange(5) % 3) for kind in both)
    assert ours.shape == theirs.shape and ours.std() > 10
    assert np.abs(ours.astype(int) - theirs).max() <= 1
