"""Pairs of token sequences."""

import keras
import numpy as np

from shared.text.pairs import LengthBucket, SequencePairs, padded_pairs


class HeldOutPairs(keras.utils.PyDataset):
    """All pairs of a held-out part, by length, in four shapes; the last batch of each has rows without labels."""

    def __init__(self, pairs: SequencePairs, buckets: list[LengthBucket]):
        super().__init__()
        self.pairs, self.plan = pairs, []
        lengths, size = pairs.lengths(), max(bucket.pairs for bucket in buckets)
        order = np.argsort(lengths.sum(axis=1), kind="stable")
        longest = np.zeros(2, int)
        for part in filter(len, np.array_split(order, 4)):
            longest = np.maximum(longest, lengths[part].max(axis=0))
            bucket = LengthBucket(*longest.tolist(), size)
            self.plan += [(bucket, part[start : start + size]) for start in range(0, len(part), size)]
        self.plan.insert(1, self.plan.pop())  # TensorFlow takes those axes as variable that differ in the first two

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> tuple:
        bucket, chosen = self.plan[index]
        return padded_pairs(self.pairs, chosen, bucket)
