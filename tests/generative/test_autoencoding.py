"""Autoencoders: likelihood, divergence and bounds, the codebook, the prior over codes, measures of latents."""

import tracemalloc

import keras
import numpy as np
import pytest
from conftest import gradients_of, normal, numbers
from keras import layers, ops
from scipy.stats import logistic, norm

from shared.backends.compiling import compiled_inference
from shared.backends.steps import compiled_step
from shared.generative.autoencoder.batches import AutoencoderBatches, autoencoder_examples
from shared.generative.autoencoder.coding import ImageCoder, LatentSampler
from shared.generative.autoencoder.evaluation import (
    codebook_perplexity,
    linear_probe,
    principal_axes,
    variational_bounds,
    warn_if_posterior_collapsed,
)
from shared.generative.autoencoder.latents import GaussianLatent, VectorQuantizer
from shared.generative.autoencoder.likelihood import (
    LEAST_LOG_SCALE,
    bits_per_dimension,
    discretized_logistic,
    gaussian_divergence,
    importance_weighted_bound,
    log_importance_weights,
    negative_log_likelihood,
)
from shared.generative.autoencoder.prior import CodePrior, CodeSampler
from shared.generative.pixels import scaled_pixels

LEVELS = scaled_pixels(np.arange(256, dtype=np.uint8))[:, None]


@pytest.mark.parametrize("mean", [-1.5, -1.0, 0.013, 0.9, 3.0])
@pytest.mark.parametrize("log_scale", [-20.0, LEAST_LOG_SCALE, -3.0, 1.0])
def test_the_probabilities_of_all_levels_add_up_to_one(mean, log_scale):
    parameters = np.tile(np.array([[mean, log_scale]], np.float32), (256, 1))
    nats = numbers(discretized_logistic(LEVELS, parameters)).astype(np.float64)
    assert np.isfinite(nats).all()
    assert np.exp(nats).sum() == pytest.approx(1, abs=2e-5)


@pytest.mark.once
def test_the_likelihood_is_that_of_differences_of_the_logistic_distribution():
    means, scales = normal(256, 1), np.exp(normal(256, 1, seed=1) - 2)
    bounds = [logistic.cdf(LEVELS + sign / 255, means, scales).astype(np.float64) for sign in (-1, 1)]
    bounds[0][0], bounds[1][-1] = 0, 1
    found = numbers(discretized_logistic(LEVELS, np.concatenate([means, np.log(scales)], axis=1)))
    expected = np.log(np.maximum(bounds[1] - bounds[0], 1e-300))
    likely = expected > -12  # below, differences of numbers near 1 in the reference are rounded
    np.testing.assert_allclose(found[likely], expected[likely], rtol=1e-3, atol=1e-4)
    images, parameters = LEVELS.reshape(2, 8, 8, 2), normal(2, 8, 8, 4)
    np.testing.assert_allclose(
        numbers(negative_log_likelihood(images, parameters)),
        -numbers(discretized_logistic(images, parameters)).sum(axis=(1, 2, 3)), rtol=1e-5,
    )  # fmt: skip


def test_gradients_of_the_likelihood_are_finite_far_from_the_image():
    parameters = keras.Variable(np.array([[-90.0, -30.0], [90.0, -30.0], [0.0, 20.0], [50.0, 3.0]], np.float32))
    _, (slopes,) = gradients_of(
        lambda: ops.sum(discretized_logistic(LEVELS[[0, 0, 100, 255]], parameters)), [parameters]
    )
    assert np.isfinite(slopes).all()


def divergence(mean, log_variance):
    return gaussian_divergence(*(ops.convert_to_tensor(each, "float32") for each in (mean, log_variance)))


@pytest.mark.once
def test_the_closed_form_of_the_divergence_is_that_of_monte_carlo():
    mean, log_variance = np.array([0.7, -1.2, 0.0]), np.array([-0.5, 0.3, 0.0])
    deviation = np.exp(log_variance / 2)
    samples = mean + deviation * np.random.default_rng(0).standard_normal((400_000, 3))
    expected = np.mean(norm.logpdf(samples, mean, deviation) - norm.logpdf(samples), axis=0)
    found = numbers(divergence(mean, log_variance))
    np.testing.assert_allclose(found, expected, atol=5e-3)
    assert found[2] == 0


@pytest.mark.only_on("torch")
def test_the_closed_form_of_the_divergence_is_that_of_torch():
    import torch
    from torch.distributions import Normal, kl_divergence

    mean, log_variance = normal(5, 4), normal(5, 4, seed=1)
    posterior = Normal(torch.tensor(mean), torch.tensor(np.exp(log_variance / 2)))
    expected = kl_divergence(posterior, Normal(0.0, 1.0)).numpy()
    np.testing.assert_allclose(numbers(divergence(mean, log_variance)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.once
def test_importance_weights_and_their_bound():
    mean, log_variance, noise = normal(6, 3), normal(6, 3, seed=1), normal(6, 3, seed=2)
    latent = mean + np.exp(log_variance / 2) * noise
    expected = -5 + norm.logpdf(latent).sum(axis=1) - norm.logpdf(latent, mean, np.exp(log_variance / 2)).sum(axis=1)
    given = [ops.convert_to_tensor(each) for each in (np.full(6, -5, np.float32), log_variance, noise, latent)]
    found = numbers(log_importance_weights(*given))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    weights = 1000 * np.random.default_rng(0).standard_normal((20, 6)) - 5000
    bound = importance_weighted_bound(weights)
    assert (bound >= weights.mean(axis=0)).all()
    assert (importance_weighted_bound(weights[:1]) == weights[0]).all()
    np.testing.assert_allclose(importance_weighted_bound(weights / 1000), np.log(np.exp(weights / 1000).mean(axis=0)))
    assert bits_per_dimension(8 * np.log(2), (2, 2, 1)) == pytest.approx(2)


def linear_vae(size=4, latent=2):
    """An encoder and a decoder of images of a few pixels; the decoder depends on the latent."""
    image = keras.Input((size, size, 1))
    encoder = keras.Model(image, layers.Dense(2 * latent, bias_initializer="random_normal")(layers.Flatten()(image)))
    code = keras.Input((latent,))
    decoder = keras.Model(code, layers.Reshape((size, size, 2))(layers.Dense(2 * size**2)(code)))
    encoder.layers[-1].kernel.assign(0.1 * normal(size**2, 2 * latent))
    decoder.layers[1].kernel.assign(0.5 * normal(latent, 2 * size**2))
    return encoder, decoder


def test_the_bounds_of_a_small_model():
    encoder, decoder = linear_vae()
    images = np.random.default_rng(0).integers(0, 256, (23, 4, 4, 1), np.uint8)
    found, by_unit = variational_bounds(encoder, decoder, images, samples=60, batch_size=10, seed=0)
    assert found["elbo_nats"] == pytest.approx(-found["reconstruction_nats"] - found["kl_nats"])
    assert found["iwae_nats"] > found["elbo_nats"] + 0.1
    assert found["iwae_bits_per_dim"] < found["bits_per_dim"] == pytest.approx(-found["elbo_nats"] / 16 / np.log(2))
    mean, log_variance = np.split(encoder.predict(scaled_pixels(images), verbose=0), 2, axis=1)
    expected = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance)
    np.testing.assert_allclose(by_unit, expected.mean(axis=0), rtol=1e-4)
    assert found["active_units"] == np.sum(mean.var(axis=0) > 0.01)


@pytest.mark.once
def test_a_collapsed_posterior_is_said(capsys):
    assert warn_if_posterior_collapsed(3, 32)
    assert "WARNING: posterior collapse: 3 of 32 latent units are active" in capsys.readouterr().err
    assert not warn_if_posterior_collapsed(20, 32)
    assert capsys.readouterr().err == "20 of 32 latent units are active\n"
    encoder, decoder = linear_vae()
    encoder.layers[-1].kernel.assign(np.zeros((16, 4)))
    images = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 1), np.uint8)
    assert variational_bounds(encoder, decoder, images, 1, 10, 0)[0]["active_units"] == 0


def test_a_gaussian_latent_samples_and_adds_the_divergence():
    parameters, noise = normal(5, 6), normal(5, 3, seed=1)
    inputs = [keras.Input((6,)), keras.Input((3,))]
    model = keras.Model(inputs, GaussianLatent(beta=4.0)(*inputs))
    mean, log_variance = np.split(parameters, 2, axis=1)
    np.testing.assert_allclose(
        numbers(model([parameters, noise])), mean + np.exp(log_variance / 2) * noise, rtol=1e-5, atol=1e-6
    )
    model.compile("sgd", "mse")
    target = model.predict([parameters, noise], verbose=0)
    expected = 4 * numbers(divergence(mean, log_variance)).sum(axis=1).mean()
    assert model.evaluate([parameters, noise], target, verbose=0) == pytest.approx(expected, rel=1e-5)


def quantized(vectors, codebook):
    """The nearest code of each vector, and its index."""
    indices = np.square(vectors[..., None, :] - codebook).sum(axis=-1).argmin(axis=-1)
    return codebook[indices], indices


def test_a_codebook_follows_the_vectors():
    """Two steps against the formulas in NumPy; codes that are little used become vectors of the batch."""
    layer = VectorQuantizer(codes=5, decay=0.75)
    vectors, priority = normal(4, 2, 3, 2), np.random.default_rng(3).random((4, 6), np.float32)
    layer.build(vectors.shape, priority.shape)
    codebook = np.array([[0.5, 0.5], [-0.5, 0.2], [0.1, -0.6], [90, 90], [-80, 9]], np.float32)
    counts, sums = np.array([9, 9, 9, 1, 1], np.float32), normal(5, 2, seed=4)
    for variable, value in ((layer.codebook, codebook), (layer.counts, counts), (layer.sums, sums)):
        variable.assign(value)
    step = compiled_step(lambda x, noise: layer(x, noise, training=True))
    for _ in range(2):
        output = numbers(step(vectors, priority))
        expected, indices = quantized(vectors, codebook)
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)
        chosen = np.eye(5)[indices.ravel()]
        counts = 0.75 * counts + 0.25 * chosen.sum(axis=0)
        sums = 0.75 * sums + 0.25 * chosen.T @ vectors.reshape(-1, 2)
        fresh = vectors.reshape(-1, 2)[np.argsort(priority.ravel())[:5]]
        sums[counts < 1], counts[counts < 1] = fresh[counts < 1], 1
        codebook = sums / counts[:, None]
        for variable, value in ((layer.codebook, codebook), (layer.counts, counts), (layer.sums, sums)):
            np.testing.assert_allclose(numbers(variable), value, rtol=1e-5, atol=1e-6, err_msg=variable.path)
    assert np.abs(codebook).max() < 10, "the two codes far away were not replaced"
    before = numbers(layer.codebook).copy()
    used = numbers(compiled_inference(lambda x, noise: layer(x, noise), [layer])(vectors, priority))
    np.testing.assert_array_equal(numbers(layer.codebook), before)
    np.testing.assert_allclose(used, quantized(vectors, before)[0], rtol=1e-5, atol=1e-6)


def test_gradients_pass_straight_through_a_codebook():
    layer, slopes = VectorQuantizer(codes=5, commitment=0.0), normal(2, 2, 2, 3, seed=1)
    vectors = keras.Variable(normal(2, 2, 2, 3))
    layer.build(vectors.shape, (2, 4))
    noise = np.zeros((2, 4), np.float32)
    _, (found,) = gradients_of(lambda: ops.sum(ops.multiply(layer(vectors, noise), slopes)), [vectors])
    np.testing.assert_allclose(found, slopes, rtol=1e-5)


def built_prior(codes=7, length=6):
    """A prior whose weights are not those of the start."""
    prior = CodePrior(codes, channels=8, depth=2, heads=2)
    prior.build((None, length))
    for index, weight in enumerate(prior.weights):
        weight.assign(weight + 0.3 * normal(*weight.shape, seed=index))
    return prior


def test_a_prior_sees_what_is_before_and_steps_as_it_reads():
    prior = built_prior()
    ids = np.random.default_rng(0).integers(0, 7, (3, 6)).astype("int32")
    logits = numbers(compiled_inference(prior, [prior])(ids))
    changed = ids.copy()
    changed[:, 3] = (changed[:, 3] + 1) % 7
    others = numbers(compiled_inference(prior, [prior])(changed))
    np.testing.assert_allclose(others[:, :4], logits[:, :4], rtol=1e-5, atol=1e-5)
    assert (np.abs(others[:, 4:] - logits[:, 4:]).max(axis=(0, 2)) > 1e-3).all()
    caches = [(np.zeros((3, 2, 6, 4), np.float32),) * 2 for _ in range(2)]
    step = compiled_inference(prior.step, [prior])
    before = np.full(3, 7, np.int32)
    for index in range(6):
        found, caches = step(before, caches, np.int32(index))
        np.testing.assert_allclose(numbers(found), logits[:, index], rtol=1e-4, atol=1e-4)
        before = ids[:, index]


def test_sampled_codes_have_the_probabilities_of_the_prior():
    prior = built_prior(codes=4, length=2)
    found = CodeSampler(prior, 2, 500, seed=0)(2000)
    assert (found.shape, found.dtype) == ((2000, 2), np.int32)
    first = numbers(ops.softmax(prior(np.zeros((1, 2), np.int32))))[0, 0]
    np.testing.assert_allclose(np.bincount(found[:, 0], minlength=4) / 2000, first, atol=0.04)
    np.testing.assert_array_equal(CodeSampler(prior, 2, 500, seed=0)(600), found[:600])


@pytest.mark.once
def test_measures_of_latents():
    assert codebook_perplexity(np.arange(8).repeat(5), 8) == pytest.approx(8)
    assert codebook_perplexity(np.zeros((3, 4), int), 8) == pytest.approx(1)
    assert codebook_perplexity(np.array([0, 0, 1, 1]), 512) == pytest.approx(2)
    labels = np.arange(300) % 3
    features = normal(300, 10) + 4 * np.eye(10, dtype="float32")[labels]
    assert linear_probe(features[:200], labels[:200], features[200:], labels[200:]) > 0.97
    assert linear_probe(normal(200, 3), labels[:200], normal(100, 3, seed=1), labels[200:]) < 0.5
    stretched = normal(500, 4) * np.array([1, 5, 0.1, 2]) + 7
    axes, deviations = principal_axes(stretched, 2)
    np.testing.assert_allclose(np.abs(axes), np.eye(4)[[1, 3]], atol=0.1)
    np.testing.assert_allclose(deviations, [5, 2], rtol=0.1)


@pytest.mark.once
def test_batches_are_the_same_on_repeat_and_after_a_resume():
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 6, 1), np.uint8)

    def make(seed=1, **options):
        batches = AutoencoderBatches(images, 8, seed, flip=True, **options)
        batches.epoch = 2
        return batches

    first, again = make(noise=5), make(noise=5)
    again.first = 1
    assert (len(first), len(again)) == (3, 2)
    for index in (1, 2):
        (inputs, target), (same, same_target) = first[index], again[index - 1]
        np.testing.assert_array_equal(target, same_target)
        np.testing.assert_array_equal(inputs["image"], target)
        np.testing.assert_array_equal(inputs["noise"], same["noise"])
        assert inputs["noise"].shape == (8, 5)
    assert (make(seed=2, noise=5)[0][0]["noise"] != first[0][0]["noise"]).any()
    np.testing.assert_array_equal(*make()[0])
    noisy, target = make(corruption=0.5)[0]
    assert np.std(noisy - target) == pytest.approx(0.5, rel=0.2)
    uniform, _ = autoencoder_examples(images, np.random.default_rng(0), noise=400, uniform=True)
    assert 0 <= uniform["noise"].min() < 0.01
    assert 0.99 < uniform["noise"].max() < 1
    assert {each.dtype for each in (noisy, target, uniform["noise"])} == {np.dtype("float32")}


def test_the_codes_of_many_images_are_found_without_all_vectors_at_once():
    image, noise, code = keras.Input((4, 4, 1)), keras.Input((16,)), keras.Input((4, 4, 32))
    encoder = keras.Model(image, layers.Dense(32)(image), name="encoder")
    decoder = keras.Model(code, layers.Dense(1)(code), name="decoder")
    quantizer = VectorQuantizer(8, 0.99, 0.25, name="latent")
    model = keras.Model([image, noise], decoder(quantizer(encoder(image), noise)))
    coder = ImageCoder("vector_quantized", model, batch_size=50)
    images = np.random.default_rng(0).integers(0, 256, (8000, 4, 4, 1), np.uint8)
    coder.indices(images[:50])
    tracemalloc.start()
    found = coder.indices(images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    vectors = encoder.predict(scaled_pixels(images), batch_size=500, verbose=0)
    assert peak < vectors.nbytes / 2
    codes = numbers(quantizer.codebook)
    nearest = np.square(vectors[..., None, :] - codes).sum(axis=-1).argmin(axis=-1)
    assert np.mean(found == nearest) > 0.999  # but for rounding


def test_a_coder_of_vectors():
    image, code = keras.Input((4, 4, 1)), keras.Input((16,))
    encoder = keras.Model(image, layers.Flatten()(image), name="encoder")
    decoder = keras.Model(code, layers.Reshape((4, 4, 1))(code), name="decoder")
    coder = ImageCoder("plain", keras.Model(image, decoder(encoder(image))), batch_size=4)
    images = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 1), np.uint8)
    latents = coder.latents(images)
    np.testing.assert_array_equal(coder.images(latents), images)
    rows = coder.between(latents, 3)
    assert rows.shape == (5, 3, 4, 4, 1)
    np.testing.assert_array_equal(rows[:, 0], images[:5])
    np.testing.assert_array_equal(rows[:, 2], images[5:])
    walk = coder.along(latents[0], np.eye(16)[:2], np.array([-1.0, 0.0, 1.0]))
    np.testing.assert_array_equal(walk[:, 1], images[[0, 0]])
    assert ((walk != images[0]).sum(axis=(2, 3, 4)) <= 1).all()
    # Samples have the mean and the covariance of the latents.
    sampler = LatentSampler(coder, 0, latents)
    samples = sampler(400)
    np.testing.assert_array_equal(samples, sampler(400))
    np.testing.assert_allclose(samples.mean(axis=0), images.mean(axis=0), atol=35)
