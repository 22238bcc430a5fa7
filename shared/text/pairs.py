"""Pairs of token sequences, batched in length buckets with little padding."""

from typing import NamedTuple

import keras
import numpy as np

from shared.data.randomness import random_stream
from shared.text.subwords import END, PAD, START
from shared.training.batches import SeededBatches

LARGEST_FRACTION = 0.4
"""Maximum fraction of all tokens in one merged bucket; see `alternating`."""


MAX_CELLS = 200
"""Maximum number of buckets before merging; with more, lengths are rounded up further."""


class SequencePairs(NamedTuple):
    """Token ids of sources and targets, of any length, without START and END."""

    sources: list[list[int]]
    targets: list[list[int]]

    def lengths(self) -> np.ndarray:
        """Lengths (pairs, 2) of sources and targets in tokens, END included."""
        return np.array([[len(side) + 1 for side in pair] for pair in zip(*self, strict=True)], int).reshape(-1, 2)

    def within(self, source: int, target: int) -> "SequencePairs":
        """The pairs with at most `source` and `target` tokens, END not included."""
        kept = [pair for pair in zip(*self, strict=True) if len(pair[0]) <= source and len(pair[1]) <= target]
        return SequencePairs([source for source, _ in kept], [target for _, target in kept])


class LengthBucket(NamedTuple):
    """Batch shape of a length bucket: tokens per source, tokens per target, number of pairs."""

    source: int
    target: int
    pairs: int


def padded(sequences: list[list[int]], length: int) -> np.ndarray:
    """Ids (sequences, length) in int32, padded with `PAD` or truncated."""
    array = np.full((len(sequences), length), PAD, np.int32)
    for row, sequence in zip(array, sequences, strict=True):
        row[: len(sequence)] = sequence[:length]
    return array


def encoder_inputs(sources: list[list[int]], length: int) -> np.ndarray:
    """Inputs of an encoder: ids (sources, length) in int32, each with END, padded with PAD or truncated."""
    return padded([[*source[: length - 1], END] for source in sources], length)


def padded_pairs(
    pairs: SequencePairs, chosen: np.ndarray, bucket: LengthBucket
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A batch for teacher forcing, of the pairs with the indices `chosen`.

    Missing rows repeat the first source, without labels.

    Returns:
        {"source": (pairs, m), "target": (pairs, n)} and labels (pairs, n): sources end with END, targets begin with
        START, and labels are the targets shifted by one token, ending with END.
    """
    missing = bucket.pairs - len(chosen)
    sources = [pairs.sources[index] for index in [*chosen, *[chosen[0]] * missing]]
    targets = [pairs.targets[index] for index in chosen]
    inputs = {
        "source": encoder_inputs(sources, bucket.source),
        "target": padded([[START, *target] for target in targets] + [[START]] * missing, bucket.target),
    }
    return inputs, padded([[*target, END] for target in targets] + [[]] * missing, bucket.target)


def choose_buckets(lengths: np.ndarray, batch_size: int, most: int, multiple: int) -> list[LengthBucket]:
    """Length buckets that hold all pairs with little padding, with about as many tokens per batch each.

    Lengths are rounded up to a multiple; then the two buckets whose merging adds the least padding are merged,
    repeatedly.

    Keras on TensorFlow treats those axes of a batch as variable that differ between the first two batches. So no two
    buckets have a length or a number of pairs in common.

    Args:
        lengths: (pairs, 2), tokens of each source and target; at least one pair.
        batch_size: mean number of pairs per batch.
        most: maximum number of buckets.
        multiple: initial rounding of lengths.
    """
    cells, counts = np.unique(-(-lengths // multiple) * multiple, axis=0, return_counts=True)
    if len(cells) > MAX_CELLS:
        return choose_buckets(lengths, batch_size, most, 2 * multiple)
    while len(cells) > most:
        joined = np.maximum(cells[:, None], cells[None])
        sizes = cells.sum(axis=1) * counts
        both = joined.sum(axis=2) * (counts[:, None] + counts[None])
        cost = (both - sizes[:, None] - sizes[None]).astype(float)
        cost[both > LARGEST_FRACTION * sizes.sum()] += sizes.sum() * len(cells)
        np.fill_diagonal(cost, np.inf)
        i, j = np.unravel_index(cost.argmin(), cost.shape)
        cells[i], counts[i] = joined[i, j], counts[i] + counts[j]
        cells, counts = np.delete(cells, j, axis=0), np.delete(counts, j)
    order = np.lexsort((cells[:, 1], cells[:, 0]))
    extents = [distinct(cells[order, side]) for side in (0, 1)]
    assigned = bucket_of_each(lengths, [LengthBucket(m, n, 0) for m, n in zip(*extents, strict=True)])
    held = np.bincount(assigned, minlength=len(cells))
    tokens = np.array(extents).sum(axis=0)
    budget = batch_size * (tokens * held).sum() / held.sum()
    sizes = []
    for count, each in zip(held, tokens, strict=True):
        free = [size for size in range(1, min(count, max(1, round(budget / each))) + 1) if size not in sizes]
        sizes.append(free[-1] if free else 0)
    buckets = [LengthBucket(*map(int, bucket)) for bucket in zip(*extents, sizes, strict=True)]
    batches = [int(count) // max(1, size) for count, size in zip(held, sizes, strict=True)]
    if most > 1 and len(buckets) > 1 and (0 in sizes or 2 * max(batches) > sum(batches) + 1):
        return choose_buckets(lengths, batch_size, min(most, len(buckets)) - 1, multiple)
    return buckets


def distinct(numbers: np.ndarray) -> list[int]:
    """The numbers made distinct, each by the smallest increase."""
    found: list[int] = []
    for number in numbers.tolist():
        while number in found:
            number += 1
        found.append(number)
    return found


def bucket_of_each(lengths: np.ndarray, buckets: list[LengthBucket]) -> np.ndarray:
    """Index (pairs,) of the smallest bucket that holds each pair."""
    extents = np.array([bucket[:2] for bucket in buckets])
    fits = (lengths[:, None] <= extents).all(axis=2)
    return np.where(fits, extents.sum(axis=1), np.iinfo(int).max).argmin(axis=1)


def alternating(counts: list[int], rng: np.random.Generator) -> list[int]:
    """Random order of buckets, each `counts` times, without equal neighbours.

    So wherever training starts, the first two batches differ; see `choose_buckets`. At most half may be of one bucket.
    """
    left = np.array(counts)
    order: list[int] = []
    while left.sum():
        free = left.astype(float)
        if order:
            free[order[-1]] = 0
        if 2 * left.max() > left.sum() or not free.any():
            order.append(int((free if free.any() else left).argmax()))
        else:
            order.append(int(rng.choice(len(free), p=free / free.sum())))
        left[order[-1]] -= 1
    return order


class PairBatches(SeededBatches):
    """Shuffled batches for teacher forcing, in length buckets, each a compilation of the training step.

    Batches have about the same number of tokens, so those of short pairs have more pairs. The last, incomplete batch of
    each bucket is dropped, with other pairs in each epoch. See `padded_pairs` for the contents of a batch.

    Args:
        pairs: at least one.
        batch_size: mean number of pairs per batch.
        seed: of shuffling.
        buckets: maximum number of length buckets.
        multiple: rounding of lengths before buckets are merged; larger is faster for long pairs.
    """

    def __init__(self, pairs: SequencePairs, batch_size: int, seed: int, buckets: int = 8, multiple: int = 4):
        super().__init__(seed)
        self.pairs = pairs
        lengths = pairs.lengths()
        self.buckets = choose_buckets(lengths, batch_size, buckets, multiple)
        assigned = bucket_of_each(lengths, self.buckets)
        self.members = [np.flatnonzero(assigned == index) for index in range(len(self.buckets))]
        self.counts = [len(held) // bucket.pairs for held, bucket in zip(self.members, self.buckets, strict=True)]
        self.batches_per_epoch = sum(self.counts)
        trained = sum(count * bucket.pairs for count, bucket in zip(self.counts, self.buckets, strict=True))
        self.batch_size = trained / self.batches_per_epoch
        self.tokens_per_batch = float(lengths[:, 1].mean()) * self.batch_size
        """Mean number of labels in a batch, without padding."""
        self.plan: tuple[int | None, list[tuple[LengthBucket, np.ndarray]]] = (None, [])

    def planned(self) -> list[tuple[LengthBucket, np.ndarray]]:
        """Bucket and pairs of each batch of the current epoch."""
        rng = random_stream(self.seed, "order", self.epoch)
        shuffled = [rng.permutation(members) for members in self.members]
        used = [0] * len(self.buckets)
        plan = []
        for index in alternating(self.counts, rng):
            bucket = self.buckets[index]
            plan.append((bucket, shuffled[index][used[index] :][: bucket.pairs]))
            used[index] += bucket.pairs
        return plan

    def make_batch(self, index: int, rng: np.random.Generator) -> tuple:
        if self.plan[0] != self.epoch:
            self.plan = (self.epoch, self.planned())
        bucket, chosen = self.plan[1][index]
        return padded_pairs(self.pairs, chosen, bucket)


class HeldOutPairs(keras.utils.PyDataset):
    """All pairs of a held-out part, by length, in the buckets of the training.

    The last batch of a bucket is filled with rows without labels. Metrics that ignore `PAD` are therefore exact;
    Keras's own mean of the loss over batches is approximate.

    Args:
        pairs: at least one.
        buckets: buckets of the training; one more is added for longer pairs.
    """

    def __init__(self, pairs: SequencePairs, buckets: list[LengthBucket]):
        super().__init__()
        lengths = pairs.lengths()
        longest, room = lengths.max(axis=0), np.array([bucket[:2] for bucket in buckets])
        if not (lengths[:, None] <= room).all(axis=2).any(axis=1).all():
            tokens = max((bucket.source + bucket.target) * bucket.pairs for bucket in buckets)
            extent = np.maximum(longest, room.max(axis=0) + 1)
            taken = [bucket.pairs for bucket in buckets]
            free = [size for size in range(1, tokens // int(extent.sum()) + 1) if size not in taken]
            buckets = [*buckets, LengthBucket(*map(int, extent), free[-1] if free else max(taken) + 1)]
        assigned = bucket_of_each(lengths, buckets)
        self.pairs = pairs
        self.plan = [
            (bucket, members[start : start + bucket.pairs])
            for index, bucket in enumerate(buckets)
            if len(members := np.flatnonzero(assigned == index))
            for start in range(0, len(members), bucket.pairs)
        ]
        # The first two batches differ, for TensorFlow's sake: see `choose_buckets`.
        self.plan.insert(1, self.plan.pop())

    def __len__(self) -> int:
        return len(self.plan)

    @property
    def num_batches(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> tuple:
        bucket, chosen = self.plan[index]
        return padded_pairs(self.pairs, chosen, bucket)
