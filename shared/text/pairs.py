"""Pairs of token sequences, batched in length buckets with little padding."""

from typing import NamedTuple

import keras
import numpy as np

from shared.data.randomness import random_stream
from shared.text.subwords import END, PAD, START
from shared.training.batches import SeededBatches


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


def choose_buckets(lengths: np.ndarray, batch_size: int, most: int) -> list[LengthBucket]:
    """Length buckets that hold all pairs with little padding, with about as many tokens per batch each.

    Keras on TensorFlow treats those axes of a batch as variable that differ between the first two batches. So each
    bucket has longer sources, longer targets and fewer pairs than the one before.

    Args:
        lengths: (pairs, 2), tokens of each source and target; at least one pair.
        batch_size: mean number of pairs per batch.
        most: maximum number of buckets.
    """
    # Quantiles, the closer to each other the longer, since the longest are few and far apart.
    ranks = np.arange(most)
    extents = np.quantile(lengths, np.sin(np.pi / 2 * (ranks + 1) / most), axis=0, method="higher")
    extents = np.maximum.accumulate(extents - ranks[:, None]) + ranks[:, None]
    held, tokens = np.array([len(each) for each in members_of_each(lengths, extents)]), extents.sum(axis=1)
    sizes = np.rint(min(batch_size, len(lengths)) * (tokens @ held / len(lengths)) / tokens).astype(int)
    sizes = (np.maximum.accumulate(np.maximum(sizes[::-1], 1) - ranks) + ranks)[::-1]
    batches = held // sizes
    if most > 1 and (not batches.all() or 2 * batches.max() > batches.sum() + 1):
        return choose_buckets(lengths, batch_size, most - 1)
    return [LengthBucket(*map(int, bucket)) for bucket in zip(*extents.T, sizes, strict=True)]


def members_of_each(lengths: np.ndarray, extents: np.ndarray) -> list[np.ndarray]:
    """For buckets of growing extents (buckets, 2), the indices of the pairs that each is the first to hold."""
    assigned = (lengths[:, None] <= extents).all(axis=2).argmax(axis=1)
    return [np.flatnonzero(assigned == index) for index in range(len(extents))]


class PairBatches(SeededBatches):
    """Shuffled batches for teacher forcing, in length buckets, each a compilation of the training step.

    Batches have about the same number of tokens, so those of short pairs have more pairs. The last, incomplete batch of
    each bucket is dropped, with other pairs in each epoch. See `padded_pairs` for the contents of a batch.

    Args:
        pairs: at least one.
        batch_size: mean number of pairs per batch.
        seed: of shuffling.
        buckets: maximum number of length buckets.
    """

    def __init__(self, pairs: SequencePairs, batch_size: int, seed: int, buckets: int = 8):
        super().__init__(seed)
        self.pairs = pairs
        self.buckets = choose_buckets(pairs.lengths(), batch_size, buckets)
        self.members = members_of_each(pairs.lengths(), np.array(self.buckets)[:, :2])
        self.plan = (0, self.planned())
        self.batches_per_epoch = len(self.plan[1])
        self.batch_size = float(np.mean([len(chosen) for _, chosen in self.plan[1]]))

    def planned(self) -> list[tuple[LengthBucket, np.ndarray]]:
        """Bucket and pairs of each batch of the current epoch, no two neighbours of one bucket."""
        rng = random_stream(self.seed, "order", self.epoch)
        batches = []
        for bucket, members in zip(self.buckets, self.members, strict=True):
            shuffled = rng.permutation(members)[: len(members) // bucket.pairs * bucket.pairs]
            batches += [(bucket, chosen) for chosen in shuffled.reshape(-1, bucket.pairs)]
        # No bucket has more than half of the batches: those that lie half of them apart are of two.
        half = len(batches) // 2
        plan = batches[half : len(batches) - half]  # the one in the middle, if any
        for index in rng.permutation(half).tolist():
            pair = [batches[index], batches[index - half]]
            plan += reversed(pair) if plan and plan[-1][0] == pair[0][0] else pair
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
        self.pairs = pairs
        lengths, last = pairs.lengths(), buckets[-1]
        longer = np.maximum(lengths.max(axis=0), [last.source + 1, last.target + 1])
        buckets = [*buckets, LengthBucket(*longer.tolist(), last.pairs - 1 or buckets[0].pairs + 1)]
        self.plan = [
            (bucket, members[start : start + bucket.pairs])
            for bucket, members in zip(buckets, members_of_each(lengths, np.array(buckets)[:, :2]), strict=True)
            for start in range(0, len(members), bucket.pairs)
        ]
        # The first two batches differ, for TensorFlow's sake: see `choose_buckets`.
        self.plan.insert(1, self.plan.pop())

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> tuple:
        bucket, chosen = self.plan[index]
        return padded_pairs(self.pairs, chosen, bucket)
