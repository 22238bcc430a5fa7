"""The diffusion model: schedule, samplers on a distribution whose exact score is known, batches, recipe."""

import json
import runpy
from typing import get_args

import keras
import numpy as np
import pytest
import scipy.stats
from conftest import PROJECT, all_but_one_slow, normal, numbers, refused_in_one_line
from PIL import Image

import shared.generative.diffusion.sampling
from recipes.diffusion import Config, build_model
from shared.backends.optimizers import grouped_updates
from shared.data.images.datasets import ImageData, LabelledImages, load_images
from shared.data.randomness import random_stream
from shared.errors import UsageError
from shared.generative.diffusion import samplers
from shared.generative.diffusion.batches import NoisyImageBatches, noisy_examples
from shared.generative.diffusion.samplers import SamplerName, sampler_steps
from shared.generative.diffusion.sampling import ImageSampler, guided
from shared.generative.diffusion.schedule import (
    LEAST_NOISE,
    LEAST_SIGNAL,
    Rates,
    cosine_rates,
    noisy_image,
    posterior,
    predicted_image,
    predicted_noise,
    training_target,
    training_times,
)
from shared.generative.pixels import shown_image
from shared.tools.records import read_records
from shared.training.options import parse_options
from shared.training.saving import save_model
from shared.training.schedules import WarmupCosine

TIMES = np.linspace(0, 1, 101)
PREDICTIONS = pytest.mark.parametrize("prediction", ["v", "noise"])


@pytest.mark.once
def test_cosine_schedule():
    signal, noise = cosine_rates(TIMES)
    np.testing.assert_allclose(signal**2 + noise**2, 1)
    np.testing.assert_allclose([noise[0], signal[-1]], [LEAST_NOISE, LEAST_SIGNAL])
    assert (np.diff(signal) < 0).all()
    # Nichol and Dhariwal 2021, equation 17, whose ends are cut otherwise.
    published = np.cos((TIMES + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(signal**2, published, atol=0.003)


@pytest.mark.once
def test_training_times_are_a_normal_distribution_of_the_logarithm():
    quantiles = (np.arange(1000) + 0.5) / 1000
    times = training_times(quantiles)
    assert (np.diff(times) >= 0).all()
    np.testing.assert_array_equal(training_times(np.array([0.0, 1.0])), [0, 1])
    signal, noise = cosine_rates(times)
    expected = scipy.stats.norm(np.log(0.3 / 0.5), 1.2).ppf(quantiles)
    within = (times > 0) & (times < 1)
    assert within.sum() >= 998
    np.testing.assert_allclose(np.log(noise / signal)[within], expected[within], atol=1e-6)


@pytest.mark.once
@PREDICTIONS
def test_what_is_predicted_says_image_and_noise(prediction):
    image, noise = np.random.default_rng(0).normal(size=(2, 5, 101))
    rates = cosine_rates(TIMES)
    noisy = noisy_image(image, noise, rates)
    output = training_target(prediction, image, noise, rates)
    np.testing.assert_allclose(predicted_image(prediction, noisy, output, rates), image, atol=1e-9)
    np.testing.assert_allclose(predicted_noise(prediction, noisy, output, rates), noise, atol=1e-9)


@pytest.mark.once
def test_v_is_how_fast_a_noisy_image_moves_along_the_angle():
    image, noise, step = 0.3, -1.2, 1e-6
    angle = np.linspace(0.1, 1.4, 9)
    ahead, behind = (
        noisy_image(image, noise, Rates(np.cos(each), np.sin(each))) for each in (angle + step, angle - step)
    )
    rates = Rates(np.cos(angle), np.sin(angle))
    np.testing.assert_allclose(training_target("v", image, noise, rates), (ahead - behind) / (2 * step), rtol=1e-6)


@pytest.mark.once
def test_posterior_is_that_of_ddpm():
    signal, noise = cosine_rates(TIMES)
    noisy_weight, image_weight, deviation = posterior(Rates(signal[1:], noise[1:]), Rates(signal[:-1], noise[:-1]))
    # Ho et al. 2020, equations 6 and 7, in their symbols.
    alpha_bar, before = signal[1:] ** 2, signal[:-1] ** 2
    alpha = alpha_bar / before
    beta = 1 - alpha
    np.testing.assert_allclose(image_weight, np.sqrt(before) * beta / (1 - alpha_bar))
    np.testing.assert_allclose(noisy_weight, np.sqrt(alpha) * (1 - before) / (1 - alpha_bar))
    np.testing.assert_allclose(deviation**2, (1 - before) / (1 - alpha_bar) * beta)
    # From what is noisier, it leads to what was less noisy.
    np.testing.assert_allclose(noisy_weight * signal[1:] + image_weight, signal[:-1])
    np.testing.assert_allclose((noisy_weight * noise[1:]) ** 2 + deviation**2, noise[:-1] ** 2)


@pytest.mark.once
def test_ddim_keeps_the_noise():
    steps = sampler_steps("ddim", 7)
    image, noise = np.random.default_rng(0).normal(size=(2, 7))
    after = steps.keep * noisy_image(image, noise, Rates(steps.signal, steps.noise)) + steps.image * image
    rates = cosine_rates(np.linspace(1, 0, 8)[1:-1] ** 2)
    np.testing.assert_allclose(after, [*noisy_image(image[:-1], noise[:-1], rates), image[-1]])
    assert not steps.before.any()
    assert not steps.fresh.any()


@pytest.mark.once
def test_dpm_solver_is_that_of_its_paper():
    steps = sampler_steps("dpm_solver", 6)
    signal, noise = cosine_rates(np.linspace(1, 0, 7) ** 2)
    logarithm = np.log(signal / noise)
    image, before, noisy = 0.3, -0.4, 1.7
    for i in range(2, 6):  # Lu et al. 2022, algorithm 2, its step i from t_{i-1} to t_i
        length, previous = logarithm[i] - logarithm[i - 1], logarithm[i - 1] - logarithm[i - 2]
        ratio = previous / length
        mixed = (1 + 1 / (2 * ratio)) * image - 1 / (2 * ratio) * before
        expected = noise[i] / noise[i - 1] * noisy - signal[i] * np.expm1(-length) * mixed
        found = steps.keep[i - 1] * noisy + steps.image[i - 1] * image + steps.before[i - 1] * before
        assert found == pytest.approx(expected)
    ddim = sampler_steps("ddim", 6)
    for ours, theirs in zip(steps, ddim, strict=True):  # its first step, and here the last one, are of first order
        np.testing.assert_allclose(ours[[0, -1]], theirs[[0, -1]])


@pytest.mark.once
def test_sde_dpm_solver_is_that_of_its_paper():
    steps = sampler_steps("sde_dpm_solver", 6)
    signal, noise = cosine_rates(np.linspace(1, 0, 7) ** 2)
    logarithm = np.log(signal / noise)
    image, before, noisy = 0.3, -0.4, 1.7
    for i in range(2, 6):  # Lu et al. 2022, from t_{i-1} to t_i
        length, previous = logarithm[i] - logarithm[i - 1], logarithm[i - 1] - logarithm[i - 2]
        mixed = image + length / previous / 2 * (image - before)
        expected = noise[i] / noise[i - 1] * np.exp(-length) * noisy - signal[i] * np.expm1(-2 * length) * mixed
        found = steps.keep[i - 1] * noisy + steps.image[i - 1] * image + steps.before[i - 1] * before
        assert found == pytest.approx(expected)
        assert steps.fresh[i - 1] == pytest.approx(noise[i] * np.sqrt(-np.expm1(-2 * length)))
    ddpm = sampler_steps("ddpm", 6)
    for ours, theirs in zip(steps, ddpm, strict=True):  # its first step, and here the last one, are of first order
        np.testing.assert_allclose(ours[[0, -1]], theirs[[0, -1]])


@pytest.mark.once
@pytest.mark.parametrize("name", get_args(SamplerName))
@pytest.mark.parametrize("count", [1, 2, 30])
def test_every_sampler_ends_with_the_image(name, count):
    steps = sampler_steps(name, count)
    assert {each.shape for each in steps} == {(count,)}
    assert np.isfinite(steps).all()
    last = [each[-1] for each in (steps.keep, steps.image, steps.before, steps.fresh)]
    np.testing.assert_allclose(last, [0, 1, 0, 0], atol=1e-12)


MEANS, DEVIATION = (-0.2, 0.3, 0.1), 0.15


@keras.saving.register_keras_serializable("test_diffusion")
class ExactPrediction(keras.layers.Layer):
    """The best prediction where all pixels are normal, about a mean that depends on the label."""

    def __init__(self, prediction, **kwargs):
        super().__init__(**kwargs)
        self.prediction = prediction

    def call(self, image, time, label):
        first, last = np.arcsin(LEAST_NOISE), np.arccos(LEAST_SIGNAL)
        angle = (first + (last - first) * time)[:, None, None, None]
        signal, noise = keras.ops.cos(angle), keras.ops.sin(angle)
        mean = keras.ops.take(np.array(MEANS, "float32"), label)[:, None, None, None]
        gain = signal * DEVIATION**2 / ((signal * DEVIATION) ** 2 + noise**2)
        expected = mean + gain * (image - signal * mean)
        return (signal * image - expected) / noise if self.prediction == "v" else (image - signal * expected) / noise


def exact_model(prediction="v", size=4):
    image, time = keras.Input((size, size, 1), name="image"), keras.Input((), name="time")
    label = keras.Input((), dtype="int32", name="label")
    output = ExactPrediction(prediction)(image, time, label)
    return keras.Model({"image": image, "time": time, "label": label}, output)


def drawn(name, count, labels, prediction="v", guidance=1.0, batch_size=400, seed=0):
    sampler = ImageSampler(
        exact_model(prediction), sampler_steps(name, count), prediction, guidance, 2, batch_size, seed
    )
    return sampler(np.asarray(labels))


@PREDICTIONS
@pytest.mark.parametrize(("name", "count"), [("ddpm", 300), ("ddim", 150), ("dpm_solver", 20), ("sde_dpm_solver", 50)])
def test_samples_of_a_normal_distribution_have_its_mean_and_variance(name, count, prediction):
    labels = np.arange(1200) % 2
    pixels = drawn(name, count, labels, prediction, batch_size=1200) / 127.5 - 1
    for label in (0, 1):
        values = pixels[labels == label]  # 9,600 of them, so within 0.0015 and 0.7 %, as one standard error
        assert values.mean() == pytest.approx(MEANS[label], abs=0.006)
        assert values.std() == pytest.approx(DEVIATION, rel=0.03)
        correlation = np.corrcoef(values.reshape(-1, 16), rowvar=False) - np.eye(16)
        assert np.abs(correlation).max() < 0.2


@pytest.mark.parametrize(("first", "second"), [("ddim", "dpm_solver"), ("ddpm", "sde_dpm_solver")])
def test_few_steps_of_second_order_are_better_than_of_first(first, second):
    labels = np.zeros(400, int)
    errors = [abs((drawn(name, 8, labels) / 127.5).std() - DEVIATION) for name in (first, second)]
    assert errors[1] < 0.5 * errors[0]


def test_guidance():
    model = exact_model()
    inputs = [keras.ops.convert_to_tensor(each) for each in (normal(6, 4, 4, 1), normal(6) % 1, np.arange(6) % 2)]

    def output(guidance):
        return numbers(guided(model, guidance, no_label=2)(*inputs))

    def asked(label):
        names = ("image", "time", "label")
        return numbers(model(dict(zip(names, [*inputs[:2], keras.ops.convert_to_tensor(label)], strict=True))))

    with_label, without = asked(np.arange(6) % 2), asked(np.full(6, 2))
    np.testing.assert_array_equal(output(None), with_label)
    np.testing.assert_allclose(output(0.0), without, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(output(3.0), without + 3 * (with_label - without), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output(1 + 1e-6), with_label, rtol=1e-4, atol=1e-4)
    assert np.abs(with_label - without).max() > 0.1


def test_guidance_moves_away_from_images_without_label(monkeypatch):
    labels = np.zeros(400, int)
    at_some = drawn("ddim", 10, labels, guidance=2.0).mean() / 127.5 - 1
    monkeypatch.setattr(samplers, "GUIDED_RATIOS", (0, np.inf))
    found = [drawn("ddim", 10, labels, guidance=guidance).mean() / 127.5 - 1 for guidance in (0.0, 1.0, 2.0)]
    # The label moves the expected image by the difference of the means times what it does not owe to the noisy image.
    np.testing.assert_allclose(found, [MEANS[2], MEANS[0], 2 * MEANS[0] - MEANS[2]], atol=0.02)
    assert 0.1 < (at_some - found[1]) / (found[2] - found[1]) < 0.9, "at the steps of some noise alone"


@pytest.mark.once
def test_there_is_guidance_where_images_take_shape():
    steps = sampler_steps("ddim", 20)
    ratio = steps.noise / steps.signal
    np.testing.assert_array_equal(steps.guided, (ratio > 0.25) & (ratio < 4))
    assert 5 < steps.guided.sum() < 15
    assert steps.guided[0] == steps.guided[-1] == 0


@pytest.mark.parametrize("name", ["dpm_solver", "sde_dpm_solver"])
def test_an_image_depends_on_its_label_and_index_alone(name, monkeypatch):
    labels = np.array([0, 1, 1, 0, 1, 0, 0])
    whole = drawn(name, 7, labels, batch_size=4)
    assert whole.shape == (7, 4, 4, 1)
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(drawn(name, 7, labels[:5], batch_size=4), whole[:5])
    changed = drawn(name, 7, np.where(np.arange(7) == 2, 0, labels), batch_size=4)
    assert ((changed != whole).any(axis=(1, 2, 3)) == (np.arange(7) == 2)).all()
    assert (drawn(name, 7, labels, batch_size=4, seed=1) != whole).any(axis=(1, 2, 3)).all()
    monkeypatch.setattr(shared.generative.diffusion.sampling, "STEPS_PER_CALL", 3)
    np.testing.assert_array_equal(drawn(name, 7, labels, batch_size=4), whole)


@pytest.mark.parametrize("name", ["ddpm", "dpm_solver"])
def test_the_chain_leads_from_noise_to_the_same_images(name):
    sampler = ImageSampler(exact_model(), sampler_steps(name, 9), "v", 1.0, 2, 4, seed=5)
    labels = np.array([0, 1, 1])
    chain = sampler.chain(labels, stages=4)
    assert chain.shape == (4, 3, 4, 4, 1)
    np.testing.assert_array_equal(chain[-1], sampler(labels))
    noise = random_stream(5, "noise", 0).standard_normal((4, 4, 4, 1), np.float32)
    np.testing.assert_array_equal(chain[0], shown_image(noise[:3]))
    assert sampler.chain(labels, stages=100).shape[0] == 10


def test_sampling_compiles_once():
    traces = []

    class Counting(ExactPrediction):
        def call(self, image, time, label):
            traces.append(image.shape)
            return super().call(image, time, label)

    image, time = keras.Input((4, 4, 1), name="image"), keras.Input((), name="time")
    label = keras.Input((), dtype="int32", name="label")
    model = keras.Model({"image": image, "time": time, "label": label}, Counting("v")(image, time, label))
    sampler = ImageSampler(model, sampler_steps("ddpm", 8), "v", 1.0, 2, 4, seed=0)
    sampler(np.zeros(4, int))
    first = len(traces)
    sampler(np.zeros(11, int))
    sampler.chain(np.zeros(3, int), 4)
    assert len(traces) == first
    for options in ((sampler_steps("ddpm", 7), 1.0, 4, 1), (sampler_steps("ddpm", 5), 0.0, 4, 0)):
        sampler.with_options(*options)(np.zeros(4, int))
    assert len(traces) == first, "other options, too"


def test_another_sampler_with_the_same_program_draws_as_one_of_its_own():
    labels = np.array([0, 1, 1])
    first = ImageSampler(exact_model(), sampler_steps("ddim", 4), "v", 1.0, 2, 3, seed=0)
    for options in ((sampler_steps("ddpm", 5), 2.5, 2, 1), (sampler_steps("dpm_solver", 9), 0.0, 4, 2)):
        steps, guidance, batch_size, seed = options
        alone = ImageSampler(exact_model(), steps, "v", guidance, 2, batch_size, seed)
        np.testing.assert_array_equal(first.with_options(*options)(labels), alone(labels))
    unlabelled = first.with_options(sampler_steps("ddim", 4), 0.0, 3, 0)
    np.testing.assert_array_equal(unlabelled(labels), unlabelled(1 - labels))


@pytest.mark.once
def test_shown_image():
    assert shown_image(np.array([-3, -1, 0, 1, 1.5])).tolist() == [0, 0, 128, 255, 255]


def pictures(examples=50, size=8, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return LabelledImages(
        rng.integers(0, 256, (examples, size, size, channels)).astype("uint8"), np.arange(examples) % 3
    )


def as_list(batch):
    inputs, targets = batch
    assert list(inputs) == ["image", "time", "label"]
    return [*inputs.values(), targets]


@pytest.mark.once
@PREDICTIONS
def test_batches_are_the_same_on_repeat_and_after_a_resume(prediction):
    first, again = (NoisyImageBatches(pictures(), prediction, 3, 8, 1, label_dropout=0.3, flip=True) for _ in range(2))
    assert len(first) == 6
    for batches in (first, again):
        batches.epoch = 2
    again.first = 4
    assert len(again) == 2
    for index in (4, 5):
        for one, other in zip(as_list(first[index]), as_list(again[index - 4]), strict=True):
            np.testing.assert_array_equal(one, other)
    other_seed = NoisyImageBatches(pictures(), prediction, 3, 8, 2)
    other_seed.epoch = 2
    for one, other in zip(as_list(first[0]), as_list(other_seed[0]), strict=True):
        assert (one != other).any()
    before = as_list(first[0])
    first.epoch = 3
    assert all((one != other).any() for one, other in zip(before, as_list(first[0]), strict=True))


@pytest.mark.once
@PREDICTIONS
def test_examples_hold_what_the_schedule_says(prediction):
    data = pictures(3000)
    inputs, targets = noisy_examples(data, prediction, np.random.default_rng(0), no_label=3, label_dropout=0.2)
    assert [str(each.dtype) for each in as_list((inputs, targets))] == ["float32", "float32", "int32", "float32"]
    edges, ordered = training_times(np.arange(3001) / 3000), np.sort(inputs["time"])
    assert (edges[:-1] - 1e-6 <= ordered).all(), "a quantile of each 3000th part"
    assert (ordered <= edges[1:] + 1e-6).all()
    dropped = inputs["label"] == 3
    assert 0.17 < dropped.mean() < 0.23
    np.testing.assert_array_equal(inputs["label"][~dropped], data.labels[~dropped])
    rates = cosine_rates(inputs["time"].reshape(-1, 1, 1, 1))
    image = data.images / 127.5 - 1
    noise = predicted_noise(prediction, inputs["image"], targets, rates)
    np.testing.assert_allclose(noisy_image(image, noise, rates), inputs["image"], atol=2e-5)
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.std() == pytest.approx(1, abs=0.01)
    without, _ = noisy_examples(data, prediction, np.random.default_rng(0), no_label=3)
    np.testing.assert_array_equal(without["label"], data.labels)


def image_data(size=8, examples=60):
    """Three classes of images that differ in brightness."""
    images, labels = pictures(examples, size, seed=1)
    bright = LabelledImages((images // 4 + labels[:, None, None, None] * 64).astype("uint8"), labels)
    return ImageData("bright", ["a", "b", "c"], bright, bright, bright, [100.0], [60.0], True, "0")


@pytest.mark.in_turn
def test_a_few_steps_of_training_lower_the_loss():
    config, data = Config.for_preset("smoke", widths=(16,)), image_data()
    model = build_model(config, data)
    model.compile(grouped_updates(keras.optimizers.Adam(3e-3, global_clipnorm=1.0, use_ema=True)), "mse")
    batches = NoisyImageBatches(data.train, "v", 3, 20, seed=0, label_dropout=0.1)
    losses = []
    for step in range(30):
        batches.epoch, index = divmod(step, len(batches))
        model.reset_metrics()
        losses.append(float(model.train_on_batch(*batches[index])))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])


@pytest.mark.in_turn
def test_half_precision_inside_is_full_precision_outside():
    data = image_data()
    inputs, _ = noisy_examples(data.train, "v", np.random.default_rng(0), no_label=3)
    weights = None
    try:
        outputs = []
        for policy in ("float32", "mixed_bfloat16"):
            keras.config.set_dtype_policy(policy)
            model = build_model(Config.for_preset("smoke", widths=(16,)), data)
            weights = weights or [0.2 * normal(*weight.shape, seed=i) for i, weight in enumerate(model.weights)]
            model.set_weights(weights)
            outputs.append(model.predict(inputs, verbose=0))
    finally:
        keras.config.set_dtype_policy("float32")
    assert {output.dtype.name for output in outputs} == {"float32"}
    assert 0 < np.abs(outputs[1] - outputs[0]).max() < 0.1 * np.abs(outputs[0]).max()


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sampler", "euler"], "euler"),
        (["--prediction", "image"], "image"),
        (["--steps", "0"], "--steps must be at least 1, not 0"),
        (["--guidance", "-1"], "--guidance must be at least 0, not -1"),
        (["--label-dropout", "0"], "--guidance must be 1 where --label-dropout is 0, not 2.0"),
        (["--label-dropout", "1"], "--label-dropout must be at least 0 and below 1"),
        (["--widths", "32", "60"], "--widths must be of 8, 16, 24, …, not (32, 60)"),
        (["--patch", "3"], "--patch must divide 28 and 28, not 3"),
        (["--samples", "5"], "--samples must be at least 20, not 5"),
        (["--chain-samples", "5"], "--chain-samples must be 0 or at least 20, not 5"),
        (["--ema", "1"], "--ema must be at least 0 and below 1"),
        (["--batch-size", "5000"], "--batch-size must be at most the 3920 training images, not 5000"),
        (["--data", "nothing"], "no data set 'nothing'"),
    ],
)
def test_wrong_use(arguments, message):
    if "--data" not in arguments:
        arguments = ["--data", "mnist5k", *arguments]
    with refused_in_one_line(message):
        parse_options(Config, arguments).load()


def save_digit_classifier(path):
    """One with a top-1 accuracy of about 0.93 on the bundled digits."""
    train = load_images("mnist5k", None, "mnist5k", 0.0).train
    hidden = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(64, "relu")]
    model = keras.Sequential([keras.Input((28, 28, 1), dtype="uint8"), *hidden, keras.layers.Dense(10)])
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*train, batch_size=100, epochs=5, verbose=0)
    save_model(model, path)


@pytest.mark.slow
@pytest.mark.in_turn
def test_smoke_as_a_script(run_recipe, tmp_path):
    options = ("--preset", "smoke", "--data", "mnist5k", "--out", "run")
    process = run_recipe("diffusion", *options, check=0)
    result = json.loads(process.stdout.splitlines()[-1].removeprefix("result "))
    metrics = result["metrics"]
    assert (result["data"], result["metric"], result["sampler"]) == ("mnist5k", "frechet", "sde_dpm_solver")
    assert result["judge"] == "efficientnet_lite0-imagenet at 96 pixels"
    assert f"in the features of {result['judge']}: compare only" in process.stderr
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {
        *("checkpoint", "config.json", "history.csv", "result.json", "model.keras"),
        *("curves.png", "samples.png", "neighbours.png", "denoising.png"),
    }
    for name in ("samples.png", "neighbours.png", "denoising.png"):
        with Image.open(tmp_path / "run" / name) as image:
            assert np.asarray(image.convert("L")).std() > 10
    rows = np.genfromtxt(tmp_path / "run/history.csv", delimiter=",", names=True)
    assert rows["val_loss"][-1] < 0.6 * rows["val_loss"][0]
    # These features see the noise that so little training leaves, before the digits.
    assert 0 <= metrics["frechet_real"] < result["value"] == metrics["frechet"] < 0.92 * metrics["frechet_untrained"]
    assert metrics["diversity_untrained"] < 0.3 < metrics["diversity"]
    assert "class_accuracy" not in metrics

    save_digit_classifier(tmp_path / "digits.keras")
    again = ("--out", "run", "--resume", "--sampler", "ddim", "--steps", "20", "--judge", "digits.keras")
    process = run_recipe("diffusion", *again, check=0)
    assert not [line for line in process.stdout.splitlines() if line.startswith("Epoch")]
    other = json.loads(process.stdout.splitlines()[-1].removeprefix("result "))
    assert (other["sampler"], other["steps"], other["judge"]) == ("ddim", 20, "digits.keras")
    assert other["changed_on_resume"].keys() == {"sampler", "steps", "judge"}
    metrics = other["metrics"]
    assert metrics["frechet_real"] < metrics["frechet"] < 0.2 * metrics["frechet_untrained"]
    assert metrics["class_accuracy"] > 0.3
    assert metrics["class_accuracy_real"] > 0.8  # the classifier knows digits
    assert metrics["class_accuracy_untrained"] < 0.3


@pytest.mark.once
def test_the_recorded_runs_are_as_good_as_stated():
    records = read_records("diffusion")
    assert records
    for record in records:
        metrics = record["metrics"]
        assert record["value"] == metrics["frechet"]
        assert metrics["frechet_gap_ratio"] > 20
        assert metrics["class_accuracy"] > 0.85


NATIVE = PROJECT / f"benchmarks/diffusion_{keras.config.backend()}.py"
NEEDS_NATIVE = pytest.mark.skipif(not NATIVE.exists(), reason="no native baseline on this backend")


@NEEDS_NATIVE
@pytest.mark.parametrize("ema", all_but_one_slow([0.0, 0.5], 0.5))
def test_the_native_baseline_trains_as_keras_does(ema):
    options = {"widths": (16, 24), "patch": 1, "depth": 1, "attention": 1, "ema": ema, "batch_size": 16}
    config, data = Config.for_preset("small", learning_rate=0.002, warmup=0.5, **options), image_data(7)
    keras.utils.set_random_seed(0)
    model = build_model(config, data)
    for index, weight in enumerate(model.weights):  # none at 0, where it would learn nothing, or hide
        weight.assign(weight + 0.05 * normal(*weight.shape, seed=index))
    averaging = {"use_ema": config.ema > 0, "ema_momentum": config.ema or 0.99}
    rate = WarmupCosine(config.learning_rate, 4, config.warmup)
    model.compile(grouped_updates(keras.optimizers.Adam(rate, global_clipnorm=1.0, **averaging)), "mse")
    trainer = runpy.run_path(str(NATIVE))["Trainer"](config, model, 4)
    initial = [weight.copy() for weight in model.get_weights()]
    batches = NoisyImageBatches(data.train, "v", 3, config.batch_size, 0)
    for step in range(4):
        batches.epoch, index = divmod(step, len(batches))
        model.reset_metrics()
        ours, theirs = trainer.train_on_batch(*batches[index]), model.train_on_batch(*batches[index])
        np.testing.assert_allclose(float(ours), float(theirs), rtol=1e-5 if keras.config.backend() == "jax" else 3e-5)
    model.optimizer.finalize_variable_values(model.trainable_weights)  # as at the end of `fit`: the averages
    for start, ours, theirs, weight in zip(initial, trainer.weights(), model.get_weights(), model.weights, strict=True):
        learned = np.linalg.norm(theirs - start)
        assert learned > 0, weight.path
        assert np.linalg.norm(ours - theirs) < 0.02 * learned, weight.path


@NEEDS_NATIVE
def test_the_native_baseline_refuses_what_it_cannot_do():
    for options, needed in (
        ({"precision": "mixed_bfloat16"}, "--precision float32"),
        ({"dropout": 0.1}, "--dropout 0"),
    ):
        with pytest.raises(UsageError, match=f"the native baseline needs {needed}:"):
            runpy.run_path(str(NATIVE))["Trainer"](Config.for_preset("smoke", **options), None, 4)


@NEEDS_NATIVE
@pytest.mark.parametrize(
    ("sampler", "guidance", "options"),
    [
        pytest.param("sde_dpm_solver", 2.0, {"widths": (16, 24), "patch": 1}, marks=pytest.mark.only_on("torch")),
        ("dpm_solver", 1.5, {"widths": (8,), "attention": 0}),
    ],
)
def test_the_native_baseline_samples_the_same_images(sampler, guidance, options):
    config = Config.for_preset("smoke", sampler=sampler, guidance=guidance, steps=4, **options)
    model = build_model(config, image_data())
    for index, weight in enumerate(model.weights):
        weight.assign(weight + 0.05 * normal(*weight.shape, seed=index))
    native = runpy.run_path(str(NATIVE))["ImageSampler"]
    labels = np.arange(5) % 3
    steps, named = sampler_steps(sampler, 4), {"no_label": 3, "batch_size": 3, "seed": 0}  # as the recipe names them
    ours, theirs = (kind(model, steps, "v", guidance, **named) for kind in (ImageSampler, native))
    for expected, found in ((ours(labels), theirs(labels)), (ours.chain(labels[:2], 3), theirs.chain(labels[:2], 3))):
        assert found.shape == expected.shape and expected.std() > 10
        assert np.abs(found.astype(int) - expected).max() <= 1
