"""Metrics of generated images against closed forms and constructed sets; their figures and animations."""

import numpy as np
import pytest
from PIL import Image
from scipy.linalg import sqrtm

from shared.data.images.datasets import LabelledImages
from shared.generative.metrics import (
    euclidean_distances,
    frechet_distance,
    generation_metrics,
    kernel_distance,
    nearest,
    neighbourhood,
    precision_recall,
)
from shared.generative.plots import image_grid, plot_denoising, plot_neighbours, plot_samples, save_animation

pytestmark = pytest.mark.once


def normal(examples, features=5, seed=0, shift=0.0, scale=1.0):
    return shift + scale * np.random.default_rng(seed).normal(size=(examples, features))


def correlated(examples, seed):
    """Features that depend on each other, and a constant one."""
    mix = np.random.default_rng(seed).normal(size=(5, 6))
    return np.concatenate([normal(examples, seed=seed) @ mix, np.ones((examples, 1))], axis=1).astype("float32")


def test_frechet_distance_is_that_of_scipy():
    first, second = correlated(200, 1), correlated(300, 2) + 1
    covariances = [np.cov(each.astype("float64"), rowvar=False) for each in (first, second)]
    expected = np.square(first.mean(axis=0, dtype="float64") - second.mean(axis=0, dtype="float64")).sum()
    # scipy's root of a singular matrix is off by 1e-4 or so, hence the small diagonal.
    roots = sqrtm((covariances[0] + 1e-9 * np.eye(7)) @ (covariances[1] + 1e-9 * np.eye(7)))
    expected += np.trace(covariances[0] + covariances[1] - 2 * roots.real)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-4)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-4)


def test_frechet_distance_of_normal_distributions():
    found = frechet_distance(normal(40_000), normal(40_000, seed=1, shift=2.0, scale=3.0))
    assert found == pytest.approx(5 * 2**2 + 5 * (3 - 1) ** 2, rel=0.02)  # |μ₁ − μ₂|² + Σ (σ₁ − σ₂)²


def test_frechet_distance_of_a_set_to_itself_is_zero():
    features = correlated(100, 3)
    assert 0 <= frechet_distance(features, features[::-1]) < 1e-5 * features.var(axis=0).sum()


def brute_kernel_distance(first, second):
    def kernel(x, y):
        return (np.dot(x, y) / len(x) + 1) ** 3

    def pairs(one, other, same):
        return np.mean([kernel(x, y) for i, x in enumerate(one) for j, y in enumerate(other) if not (same and i == j)])

    return pairs(first, first, True) + pairs(second, second, True) - 2 * pairs(first, second, False)


def test_kernel_distance_is_the_mean_over_blocks():
    first, second = normal(50), normal(50, seed=1, shift=0.3)
    rng = np.random.default_rng(0)
    order, other = rng.permutation(50), rng.permutation(50)
    blocks = [
        brute_kernel_distance(first[order[start : start + 10]], second[other[start : start + 10]])
        for start in range(0, 50, 10)
    ]
    found = kernel_distance(first, second)
    assert found.value == pytest.approx(np.mean(blocks))
    assert found.error == pytest.approx(np.std(blocks, ddof=1) / np.sqrt(5))


def test_kernel_distance_is_unbiased_and_knows_its_error():
    found = [kernel_distance(normal(100, seed=2 * i), normal(100, seed=2 * i + 1)) for i in range(200)]
    values, errors = np.transpose(found)
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(200)
    assert 0.3 < (values < 0).mean() < 0.8
    assert np.sqrt(np.square(errors).mean()) == pytest.approx(values.std(), rel=0.25)


def test_kernel_distance_sees_a_difference():
    found = kernel_distance(normal(2000), normal(1500, seed=1, shift=0.4))
    assert found.value > 5 * found.error > 0


def test_kernel_distance_of_too_few():
    with pytest.raises(ValueError, match="at least 10"):
        kernel_distance(normal(9), normal(100))


def square(left, examples=60, seed=0):
    """Points in a square of side 1."""
    return np.random.default_rng(seed).uniform((left, 0), (left + 1, 1), (examples, 2))


def precisions(real, generated, neighbours=3):
    return precision_recall(neighbourhood(real, neighbours), neighbourhood(generated, neighbours))


def test_precision_and_recall_on_sets_made_by_hand():
    near, far = square(0), square(100)
    assert precisions(near, near + 1e-9) == (1, 1)
    assert precisions(near, far) == (0, 0)
    # Half of what is generated is real, and all of what is real is generated; and the other way about.
    both = np.concatenate([square(0, seed=1), far])
    found = precisions(near, both)
    assert found.precision == pytest.approx(0.5, abs=0.05)
    assert found.recall > 0.9
    found = precisions(both, near)
    assert found.precision > 0.9
    assert found.recall == pytest.approx(0.5, abs=0.05)


def test_precision_and_recall_in_one_dimension():
    real = np.array([[0.0], [1.0], [2.0], [10.0]])
    generated = np.array([[3.5], [4.5], [12.0], [30.0], [31.0]])
    # With k = 1 the real ones reach 1, 1, 1 and 8 far, so to 2…18 too; the generated ones 1, 1, 7.5, 1 and 1.
    assert precisions(real, generated, neighbours=1) == (3 / 5, 1 / 4)


def test_a_collapsed_generator_has_precision_without_recall():
    found = precisions(normal(500), normal(500, seed=1, scale=0.1))
    assert found.precision > 0.95
    assert found.recall < 0.1


def test_nearest_is_that_of_brute_force():
    queries, examples = normal(1003, 3), normal(2050, 3, seed=1)
    apart = np.sqrt(np.square(queries[:, None] - examples).sum(axis=2))
    found = nearest(queries, examples, 4)
    np.testing.assert_array_equal(found.indices, np.argsort(apart, axis=1)[:, :4])
    np.testing.assert_allclose(found.distances, np.sort(apart, axis=1)[:, :4], rtol=1e-9)


def test_nearest_images():
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1)).astype("uint8")
    noisy = np.clip(images[[7, 3]].astype(int) + 2, 0, 255).astype("uint8")
    assert nearest(noisy, images, 3).indices[:, 0].tolist() == [7, 3]
    assert nearest(images[:1], images, 40).indices.shape == (1, 40)
    assert euclidean_distances(images, images).diagonal().max() < 1


def test_all_metrics():
    found = generation_metrics(normal(200, seed=1), neighbourhood(normal(200)))
    assert set(found) == {"frechet", "kid", "kid_error", "precision", "recall", "diversity"}
    assert all(type(value) is float for value in found.values())


def pictures(count, channels=1):
    return np.random.default_rng(0).integers(0, 256, (count, 6, 4, channels)).astype("uint8")


@pytest.mark.parametrize("channels", [1, 3])
def test_image_grid(channels):
    images = pictures(5, channels)
    sheet = image_grid(images, columns=3, margin=2)
    assert sheet.shape == (2 * 8 + 2, 3 * 6 + 2, channels)
    np.testing.assert_array_equal(sheet[2:8, 2:6], images[0])
    np.testing.assert_array_equal(sheet[10:16, 8:12], images[4])
    assert (sheet[10:16, 14:18] == 255).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_figures_are_drawn(channels, tmp_path):
    images = pictures(12, channels)
    figures = [
        plot_samples(LabelledImages(images, np.arange(12) % 3), ["a", "b", "c", "never"], columns=5),
        plot_neighbours(images[:2], images, np.array([[1, 2, 3], [4, 5, 6]])),
        plot_denoising(images.reshape(4, 3, 6, 4, channels)),
    ]
    for index, figure in enumerate(figures):
        figure.savefig(tmp_path / f"{index}.png")
        with Image.open(tmp_path / f"{index}.png") as image:
            assert np.asarray(image.convert("L")).std() > 10


@pytest.mark.parametrize("suffix", ["gif", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_animation(suffix, channels, tmp_path):
    frames = [np.full((6, 4, channels), level, "uint8") for level in (0, 100, 200)]
    save_animation(tmp_path / f"steps.{suffix}", frames, seconds=0.1, enlarge=3)
    assert [path.name for path in tmp_path.iterdir()] == [f"steps.{suffix}"]
    with Image.open(tmp_path / f"steps.{suffix}") as image:
        assert image.n_frames == 3
        assert image.size == (12, 18)
        assert image.info["loop"] == 0
        for index, level in enumerate((0, 100, 200)):
            image.seek(index)
            assert abs(np.asarray(image.convert("L")).astype(int) - level).max() <= 4
