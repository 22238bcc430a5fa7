"""Metrics of generated images, computed from features of an evaluation network. NumPy only."""

from typing import NamedTuple

import numpy as np

KERNEL_BLOCK = 1000
"""Examples of each set in one block of the kernel distance."""


COLLAPSED = 0.3
"""Threshold of `diversity` for mode collapse: about that of a thousand copies of a hundred real images."""


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Fréchet distance (FID, with Inception features): squared, between normal distributions fitted to two sets.

    |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½), at least 0 (Dowson and Landau 1982; Heusel et al. 2017, arXiv:1706.08500).
    It is higher with fewer examples: compare only values for the same number of examples.

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
    """Mean (features,) and unbiased covariance (features, features) of (examples, features), in float64."""
    features = features.astype(np.float64)
    return features.mean(axis=0), np.cov(features, rowvar=False).reshape(features.shape[1], -1)


def symmetric_root(matrix: np.ndarray) -> np.ndarray:
    """Square root of a symmetric positive semidefinite matrix; negative eigenvalues, from rounding, count as 0."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(eigenvalues, 0))) @ vectors.T


class KernelDistance(NamedTuple):
    """A kernel distance and its standard error."""

    value: float
    error: float


def kernel_distance(first: np.ndarray, second: np.ndarray) -> KernelDistance:
    """Kernel distance (KID): the squared maximum mean discrepancy of two sets of features, with mean 0 for equal sets.

    The kernel is (x · y / features + 1)³ (Bińkowski et al. 2018, arXiv:1801.01401). The estimate is the mean over
    blocks of `KERNEL_BLOCK` examples of each set, at least five; blocks share no example and so are independent: the
    standard error is their deviation / √blocks. Examples are assigned to blocks at random with a fixed seed.

    Args:
        first: (examples, features), at least 10 examples.
        second: the same, with any number of examples from 10.
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
    """Unbiased estimate on two sets (examples, features) of equal size (Gretton et al. 2012, JMLR 13, equation 3)."""

    def kernel(one, other):
        return (one @ other.T / one.shape[1] + 1) ** 3

    def between_different(values):
        return (values.sum() - np.trace(values)) / (len(values) * (len(values) - 1))

    within = between_different(kernel(first, first)) + between_different(kernel(second, second))
    return within - 2 * kernel(first, second).mean()


class Neighbourhood(NamedTuple):
    """k-nearest-neighbour manifold of a set: all points nearer to an example than its k-th nearest neighbour."""

    examples: np.ndarray
    """(examples, features)."""
    radius: np.ndarray
    """(examples,), the distance from each example to its k-th nearest neighbour."""


def neighbourhood(examples: np.ndarray, neighbours: int = 3) -> Neighbourhood:
    """The manifold of a set of examples, for `precision_recall`.

    Args:
        examples: (examples, features), more than `neighbours` of them.
        neighbours: k.
    """
    # Each example is its own nearest neighbour.
    return Neighbourhood(examples, nearest(examples, examples, neighbours + 1).distances[:, neighbours])


def fraction_inside(points: np.ndarray, around: Neighbourhood) -> float:
    """Fraction of points (points, features) inside a manifold."""
    inside = [(euclidean_distances(part, around.examples) <= around.radius).any(axis=1) for part in parts_of(points)]
    return float(np.concatenate(inside).mean())


class PrecisionRecall(NamedTuple):
    """Precision: fraction of generated examples inside the real manifold. Recall: the reverse. Each 0 to 1."""

    precision: float
    recall: float


def precision_recall(real: Neighbourhood, generated: Neighbourhood) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al. 2019, arXiv:1904.06991).

    Fewer examples have larger radii: compare only values for the same number of examples.
    """
    return PrecisionRecall(fraction_inside(generated.examples, real), fraction_inside(real.examples, generated))


def effective_number(examples: np.ndarray, width: float) -> float:
    """Vendi score: effective number of different examples (Friedman and Dieng 2022, arXiv:2210.02410, definition 3).

    exp(−Σ λ log λ), where λ are the eigenvalues of the similarities exp(−|x − y|² / 2 width²) over the number of
    examples. It is 1 for n equal examples, n for n that are far apart, k for k clusters of equal examples.

    Args:
        examples: (examples, …).
        width: width of the Gaussian kernel, a distance.
    """
    similarities = np.exp(-np.square(euclidean_distances(examples, examples).astype(np.float64) / width) / 2)
    eigenvalues = np.maximum(np.linalg.eigvalsh(similarities / len(examples)), 1e-15)
    return float(np.exp(-np.sum(eigenvalues * np.log(eigenvalues))))


def diversity(generated: np.ndarray, real: np.ndarray) -> float:
    """Diversity: `effective_number` of generated examples over that of as many real ones.

    At most 1,000 of each are compared, chosen with a fixed seed; the kernel width is the median distance from a real
    example to its nearest neighbour. About 0 if all examples are equal, 1 if they are as diverse as real ones, above 1
    for noise.

    Args:
        generated: (examples, …), images or their features, at least two.
        real: the same, with any number of examples.
    """
    count = min(len(generated), len(real), 1000)
    rng = np.random.default_rng(0)
    generated, real = (each[rng.permutation(len(each))[:count]] for each in (generated, real))
    width = max(float(np.median(nearest(real, real, 2).distances[:, 1])), 1e-9)
    return effective_number(generated, width) / effective_number(real, width)


class Neighbours(NamedTuple):
    """Indices and distances of the nearest examples to each query, nearest first: (queries, count)."""

    indices: np.ndarray
    distances: np.ndarray


def nearest(queries: np.ndarray, examples: np.ndarray, count: int) -> Neighbours:
    """Nearest neighbours by Euclidean distance.

    Args:
        queries: (queries, …), of any type.
        examples: (examples, …), of the same shape after the first axis; at least `count`. They are read in parts, so
            that images in uint8 need not all be held as floats.
        count: number of neighbours.
    """
    indices, found = [], []
    start = 0
    for part in parts_of(examples):
        apart = np.concatenate([euclidean_distances(some, part) for some in parts_of(queries)])
        chosen = np.argpartition(apart, min(count, len(part)) - 1, axis=1)[:, :count]
        indices.append(chosen + start)
        found.append(np.take_along_axis(apart, chosen, axis=1))
        start += len(part)
    indices, found = np.concatenate(indices, axis=1), np.concatenate(found, axis=1)
    order = np.argsort(found, axis=1, kind="stable")[:, :count]
    indices = np.take_along_axis(indices, order, axis=1)
    # Anew, from differences: what `euclidean_distances` finds between equal examples need not be 0.
    dtype = np.result_type(queries.dtype, np.float32)
    distances = [
        np.linalg.norm((query.astype(dtype) - examples[rows]).reshape(count, -1), axis=1)
        for query, rows in zip(queries, indices, strict=True)
    ]
    return Neighbours(indices, np.stack(distances))


def parts_of(examples: np.ndarray) -> list[np.ndarray]:
    """The examples, a thousand at a time."""
    return [examples[start : start + 1000] for start in range(0, len(examples), 1000)]


def euclidean_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Euclidean distances between all examples of two sets, (first, second)."""
    dtype = np.result_type(first.dtype, np.float32)
    first, second = (each.reshape(len(each), -1).astype(dtype) for each in (first, second))
    middle = second.mean(axis=0)  # centred, for less rounding error below
    first, second = first - middle, second - middle
    squared = np.square(first).sum(axis=1)[:, None] + np.square(second).sum(axis=1) - 2 * first @ second.T
    return np.sqrt(np.maximum(squared, 0))


def generation_metrics(generated: np.ndarray, real: Neighbourhood) -> dict[str, float]:
    """Metrics of generated images against real ones, both as features (examples, features).

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
