"""Measures of generated images, in the features that a classifier gives them. NumPy only."""

from typing import NamedTuple

import numpy as np

KERNEL_BLOCK = 1000
"""Examples of each set that the kernel distance is computed on at once."""


COLLAPSED = 0.3
"""Generated images with less `diversity` than this have collapsed: a thousand that are copies of a hundred real ones
have 0.22 to 0.35, by the pixels of Fashion-MNIST, digits and CIFAR-10 and by their features of EfficientNet-Lite0."""


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """The squared Fréchet distance of two normal distributions with the means and covariances of two sets of features.

    |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½), at least 0 (Dowson and Landau 1982; Heusel et al. 2017, arXiv:1706.08500).
    With fewer examples it is higher: compare only what was measured on equally many.

    Args:
        first: (examples, features), at least two examples.
        second: the same, of any number of examples.
    """
    (mean, covariance), (other_mean, other_covariance) = map(mean_and_covariance, (first, second))
    root = symmetric_root(covariance)
    # The eigenvalues of Σ₁Σ₂ are those of the symmetric Σ₁^½ Σ₂ Σ₁^½.
    eigenvalues = np.linalg.eigvalsh(root @ other_covariance @ root)
    overlap = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    difference = np.square(mean - other_mean).sum()
    return max(0.0, float(difference + np.trace(covariance) + np.trace(other_covariance) - 2 * overlap))


def mean_and_covariance(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean (features,) and the unbiased covariance (features, features) of (examples, features), in 64 bits."""
    features = features.astype(np.float64)
    return features.mean(axis=0), np.cov(features, rowvar=False).reshape(features.shape[1], -1)


def symmetric_root(matrix: np.ndarray) -> np.ndarray:
    """The square root of a symmetric matrix without negative eigenvalues, other than by rounding."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(eigenvalues, 0))) @ vectors.T


class KernelDistance(NamedTuple):
    """An estimate and its standard error."""

    value: float
    error: float


def kernel_distance(first: np.ndarray, second: np.ndarray) -> KernelDistance:
    """The squared maximum mean discrepancy of two sets of features, unbiased: below 0 as often as above for equal sets.

    KID, of the kernel (x · y / features + 1)³ (Bińkowski et al. 2018, arXiv:1801.01401). It is the mean over blocks of
    1,000 examples of each set, of at least five, that have no example in common, and so are independent: the standard
    error is their deviation / √blocks. Which examples come together is drawn, always alike.

    Args:
        first: (examples, features), at least 10 examples.
        second: the same, of any such number of examples.
    """
    count = min(len(first), len(second))
    blocks = max(5, count // KERNEL_BLOCK)
    size = count // blocks
    if size < 2:
        raise ValueError(f"a kernel distance needs at least 10 examples, not {count}")
    rng = np.random.default_rng(0)
    parts = [
        each[rng.permutation(len(each))[: blocks * size]].astype(np.float64).reshape(blocks, size, -1)
        for each in (first, second)
    ]
    values = [block_kernel_distance(*pair) for pair in zip(*parts, strict=True)]
    return KernelDistance(float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(blocks)))


def block_kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    """The unbiased estimate on two sets (examples, features) of one size (Gretton et al. 2012, JMLR 13, equation 3)."""

    def kernel(one, other):
        return (one @ other.T / one.shape[1] + 1) ** 3

    def between_different(values):
        return (values.sum() - np.trace(values)) / (len(values) * (len(values) - 1))

    within = between_different(kernel(first, first)) + between_different(kernel(second, second))
    return within - 2 * kernel(first, second).mean()


class Neighbourhood(NamedTuple):
    """What is among some examples: all that is nearer to one of them than its k-th nearest neighbour."""

    examples: np.ndarray
    """(examples, features)."""
    radius: np.ndarray
    """(examples,), how far each reaches."""


def neighbourhood(examples: np.ndarray, neighbours: int = 3) -> Neighbourhood:
    """How far each example reaches, for `precision_recall`.

    Args:
        examples: (examples, features), more than `neighbours` of them.
        neighbours: k.
    """
    # Each example is its own nearest neighbour.
    return Neighbourhood(examples, nearest(examples, examples, neighbours + 1).distances[:, neighbours])


def share_among(points: np.ndarray, around: Neighbourhood) -> float:
    """The share of points (points, features) that is in a neighbourhood."""
    inside = [(euclidean_distances(part, around.examples) <= around.radius).any(axis=1) for part in parts_of(points)]
    return float(np.concatenate(inside).mean())


class PrecisionRecall(NamedTuple):
    """How many generated examples look real, and how much of what is real is generated; each 0 to 1."""

    precision: float
    recall: float


def precision_recall(real: Neighbourhood, generated: Neighbourhood) -> PrecisionRecall:
    """Shares of the examples of one set that are among those of the other (Kynkäänniemi et al. 2019, arXiv:1904.06991).

    Fewer examples reach farther: compare only what was measured on equally many.
    """
    return PrecisionRecall(share_among(generated.examples, real), share_among(real.examples, generated))


def effective_number(examples: np.ndarray, width: float) -> float:
    """How many different examples there are: the Vendi score (Friedman and Dieng 2022, arXiv:2210.02410, definition 3).

    exp(−Σ λ log λ), where λ are the eigenvalues of the similarities exp(−|x − y|² / 2 width²) over the number of
    examples. n equal ones are 1, n that are all far from each other n, and k heaps k.

    Args:
        examples: (examples, …).
        width: the distance at which two are no longer alike.
    """
    similarities = np.exp(-np.square(euclidean_distances(examples, examples).astype(np.float64) / width) / 2)
    shares = np.maximum(np.linalg.eigvalsh(similarities / len(examples)), 1e-15)
    return float(np.exp(-np.sum(shares * np.log(shares))))


def diversity(generated: np.ndarray, real: np.ndarray) -> float:
    """How many different examples a generator makes, over how many there are among as many real ones.

    The ratio of the `effective_number` of both, on at most 1,000 of each, drawn always alike; its width is the median
    distance from a real one to the real one next to it. About 0 where all are the same, whatever they show; 1 for what
    is as diverse as real ones; above 1 for noise.

    Args:
        generated: (examples, …), images or their features, at least two.
        real: the same, of any number of examples.
    """
    count = min(len(generated), len(real), 1000)
    rng = np.random.default_rng(0)
    generated, real = (each[rng.permutation(len(each))[:count]] for each in (generated, real))
    width = max(float(np.median(nearest(real, real, 2).distances[:, 1])), 1e-9)
    return effective_number(generated, width) / effective_number(real, width)


class Neighbours(NamedTuple):
    """For each query, the places of its nearest examples, the nearest first, and how far each is: (queries, count)."""

    places: np.ndarray
    distances: np.ndarray


def nearest(queries: np.ndarray, examples: np.ndarray, count: int) -> Neighbours:
    """The nearest examples by Euclidean distance.

    Args:
        queries: (queries, …), of any type.
        examples: (examples, …), of the same shape after the first axis; at least `count`. They are read in parts, so
            that images in uint8 need not all be held as floats.
        count: how many.
    """
    places, found = [], []
    start = 0
    for part in parts_of(examples):
        apart = np.concatenate([euclidean_distances(some, part) for some in parts_of(queries)])
        chosen = np.argpartition(apart, min(count, len(part)) - 1, axis=1)[:, :count]
        places.append(chosen + start)
        found.append(np.take_along_axis(apart, chosen, axis=1))
        start += len(part)
    places, found = np.concatenate(places, axis=1), np.concatenate(found, axis=1)
    order = np.argsort(found, axis=1, kind="stable")[:, :count]
    return Neighbours(*(np.take_along_axis(each, order, axis=1) for each in (places, found)))


def parts_of(examples: np.ndarray) -> list[np.ndarray]:
    """The examples, a thousand at a time."""
    return [examples[start : start + 1000] for start in range(0, len(examples), 1000)]


def euclidean_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The Euclidean distance of each example of one set from each of another, (first, second)."""
    dtype = np.result_type(first.dtype, np.float32)
    first, second = (each.reshape(len(each), -1).astype(dtype) for each in (first, second))
    middle = second.mean(axis=0)  # near which less is lost to rounding below
    first, second = first - middle, second - middle
    squared = np.square(first).sum(axis=1)[:, None] + np.square(second).sum(axis=1) - 2 * first @ second.T
    return np.sqrt(np.maximum(squared, 0))


def generation_metrics(generated: np.ndarray, real: Neighbourhood) -> dict[str, float]:
    """Every measure of generated images against real ones, both as features (examples, features).

    Returns:
        "frechet", "kid", "kid_error", "precision", "recall" and "diversity".
    """
    kid = kernel_distance(generated, real.examples)
    return {
        "frechet": frechet_distance(generated, real.examples),
        "kid": kid.value,
        "kid_error": kid.error,
        **precision_recall(real, neighbourhood(generated))._asdict(),
        "diversity": diversity(generated, real.examples),
    }
