"""Pairs of sequences of tokens, in batches of few shapes with little padding."""

from typing import NamedTuple

import keras
import numpy as np

from shared.data.randomness import random_stream
from shared.text.subwords import END, PAD, START
from shared.training.batches import SeededBatches

LARGEST_SHARE = 0.4
"""Of all tokens, what one shape may take when shapes are joined; see `alternating`."""


MOST_CELLS = 200
"""Shapes that are there before the first are joined; with more, lengths are rounded up further."""


class SequencePairs(NamedTuple):
    """Ids of tokens of sources and of their targets, of any length, without START and END."""

    sources: list[list[int]]
    targets: list[list[int]]

    def lengths(self) -> np.ndarray:
        """Tokens (pairs, 2) of each source and target, END included."""
        return np.array([[len(side) + 1 for side in pair] for pair in zip(*self, strict=True)], int).reshape(-1, 2)

    def within(self, source: int, target: int) -> "SequencePairs":
        """The pairs with at most so many tokens, END not included."""
        kept = [pair for pair in zip(*self, strict=True) if len(pair[0]) <= source and len(pair[1]) <= target]
        return SequencePairs([source for source, _ in kept], [target for _, target in kept])


class PairShape(NamedTuple):
    """The shape of a batch: tokens of its sources, tokens of its targets, number of pairs."""

    source: int
    target: int
    pairs: int


def padded(sequences: list[list[int]], length: int) -> np.ndarray:
    """Ids (sequences, length) in int32, `PAD` after the end of each; what is longer is cut."""
    array = np.full((len(sequences), length), PAD, np.int32)
    for row, sequence in zip(array, sequences, strict=True):
        row[: len(sequence)] = sequence[:length]
    return array


def encoder_inputs(sources: list[list[int]], length: int) -> np.ndarray:
    """Sources as an encoder takes them: ids (sources, length) in int32, END after each, then PAD; cut to fit."""
    return padded([[*source[: length - 1], END] for source in sources], length)


def padded_pairs(
    pairs: SequencePairs, chosen: np.ndarray, shape: PairShape
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A batch for teacher forcing, of the pairs with the indices `chosen`.

    Where there are fewer than the shape has room for, the first source fills the room, with nothing to predict.

    Returns:
        {"source": (pairs, m), "target": (pairs, n)} and labels (pairs, n): sources end with END, targets begin with
        START, and labels are what comes after each token of the targets, with END after the last.
    """
    missing = shape.pairs - len(chosen)
    sources = [pairs.sources[index] for index in [*chosen, *[chosen[0]] * missing]]
    targets = [pairs.targets[index] for index in chosen]
    inputs = {
        "source": encoder_inputs(sources, shape.source),
        "target": padded([[START, *target] for target in targets] + [[START]] * missing, shape.target),
    }
    return inputs, padded([[*target, END] for target in targets] + [[]] * missing, shape.target)


def choose_shapes(lengths: np.ndarray, batch_size: int, most: int, multiple: int) -> list[PairShape]:
    """Few shapes that hold all pairs with little padding, of about as many tokens each.

    Lengths are rounded up to a multiple; then, of the shapes that there are, those two are joined again and again whose
    joining adds the fewest tokens of padding.

    Keras on TensorFlow takes for variable, of the axes of a batch, those that differ between the first two batches it
    sees. So no two shapes have a length or a number of pairs in common.

    Args:
        lengths: (pairs, 2), tokens of each source and target; at least one pair.
        batch_size: mean number of pairs a batch.
        most: number of shapes.
        multiple: what lengths are rounded up to at first.
    """
    cells, counts = np.unique(-(-lengths // multiple) * multiple, axis=0, return_counts=True)
    if len(cells) > MOST_CELLS:
        return choose_shapes(lengths, batch_size, most, 2 * multiple)
    while len(cells) > most:
        joined = np.maximum(cells[:, None], cells[None])
        sizes = cells.sum(axis=1) * counts
        both = joined.sum(axis=2) * (counts[:, None] + counts[None])
        cost = (both - sizes[:, None] - sizes[None]).astype(float)
        cost[both > LARGEST_SHARE * sizes.sum()] += sizes.sum() * len(cells)
        np.fill_diagonal(cost, np.inf)
        i, j = np.unravel_index(cost.argmin(), cost.shape)
        cells[i], counts[i] = joined[i, j], counts[i] + counts[j]
        cells, counts = np.delete(cells, j, axis=0), np.delete(counts, j)
    order = np.lexsort((cells[:, 1], cells[:, 0]))
    extents = [distinct(cells[order, side]) for side in (0, 1)]
    places = shape_of_each(lengths, [PairShape(m, n, 0) for m, n in zip(*extents, strict=True)])
    held = np.bincount(places, minlength=len(cells))
    tokens = np.array(extents).sum(axis=0)
    budget = batch_size * (tokens * held).sum() / held.sum()
    sizes = []
    for count, each in zip(held, tokens, strict=True):
        free = [size for size in range(1, min(count, max(1, round(budget / each))) + 1) if size not in sizes]
        sizes.append(free[-1] if free else 0)
    shapes = [PairShape(*map(int, shape)) for shape in zip(*extents, sizes, strict=True)]
    batches = [int(count) // max(1, size) for count, size in zip(held, sizes, strict=True)]
    if most > 1 and len(shapes) > 1 and (0 in sizes or 2 * max(batches) > sum(batches) + 1):
        return choose_shapes(lengths, batch_size, min(most, len(shapes)) - 1, multiple)
    return shapes


def distinct(numbers: np.ndarray) -> list[int]:
    """The numbers, each raised as little as it takes to differ from those before it."""
    found: list[int] = []
    for number in numbers.tolist():
        while number in found:
            number += 1
        found.append(number)
    return found


def shape_of_each(lengths: np.ndarray, shapes: list[PairShape]) -> np.ndarray:
    """Index (pairs,) of the shape with the fewest tokens that holds each pair."""
    extents = np.array([shape[:2] for shape in shapes])
    fits = (lengths[:, None] <= extents).all(axis=2)
    return np.where(fits, extents.sum(axis=1), np.iinfo(int).max).argmin(axis=1)


def alternating(counts: list[int], rng: np.random.Generator) -> list[int]:
    """A random order of shapes in which each appears as often as `counts` says, and no two alike stand together.

    So wherever training begins, the first two batches differ; see `choose_shapes`. At most half may be of one shape.
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
    """Shuffled pairs for teacher forcing, in batches of few shapes, each a compilation of the training step.

    Batches have about the same number of tokens, so those of short pairs have more pairs. What does not fill a batch of
    its shape is left out of an epoch, another part each time. See `padded_pairs` for what a batch is.

    Args:
        pairs: at least one.
        batch_size: mean number of pairs a batch.
        seed: of shuffling.
        shapes: number of shapes, at most.
        multiple: what lengths are rounded up to before shapes are joined; larger is quicker where pairs are long.
    """

    def __init__(self, pairs: SequencePairs, batch_size: int, seed: int, shapes: int = 8, multiple: int = 4):
        super().__init__(seed)
        self.pairs = pairs
        lengths = pairs.lengths()
        self.shapes = choose_shapes(lengths, batch_size, shapes, multiple)
        places = shape_of_each(lengths, self.shapes)
        self.members = [np.flatnonzero(places == index) for index in range(len(self.shapes))]
        self.counts = [len(held) // shape.pairs for held, shape in zip(self.members, self.shapes, strict=True)]
        self.batches_per_epoch = sum(self.counts)
        trained = sum(count * shape.pairs for count, shape in zip(self.counts, self.shapes, strict=True))
        self.batch_size = trained / self.batches_per_epoch
        self.tokens_per_batch = float(lengths[:, 1].mean()) * self.batch_size
        """Mean number of labels in a batch, without padding."""
        self.plan: tuple[int | None, list[tuple[PairShape, np.ndarray]]] = (None, [])

    def planned(self) -> list[tuple[PairShape, np.ndarray]]:
        """The shape and the pairs of each batch of the current epoch."""
        rng = random_stream(self.seed, "order", self.epoch)
        shuffled = [rng.permutation(members) for members in self.members]
        used = [0] * len(self.shapes)
        plan = []
        for index in alternating(self.counts, rng):
            shape = self.shapes[index]
            plan.append((shape, shuffled[index][used[index] :][: shape.pairs]))
            used[index] += shape.pairs
        return plan

    def make_batch(self, index: int, rng: np.random.Generator) -> tuple:
        if self.plan[0] != self.epoch:
            self.plan = (self.epoch, self.planned())
        shape, chosen = self.plan[1][index]
        return padded_pairs(self.pairs, chosen, shape)


class HeldOutPairs(keras.utils.PyDataset):
    """All pairs of a held-out part, in order of length, in batches of the shapes of the training.

    The last batch of a shape is filled up with rows without labels. Metrics that leave `PAD` out are
    therefore exact; Keras's own mean of the loss over batches is not quite.

    Args:
        pairs: at least one.
        shapes: those of the training; one more is added for pairs that are longer.
    """

    def __init__(self, pairs: SequencePairs, shapes: list[PairShape]):
        super().__init__()
        lengths = pairs.lengths()
        longest, room = lengths.max(axis=0), np.array([shape[:2] for shape in shapes])
        if not (lengths[:, None] <= room).all(axis=2).any(axis=1).all():
            tokens = max((shape.source + shape.target) * shape.pairs for shape in shapes)
            extent = np.maximum(longest, room.max(axis=0) + 1)
            taken = [shape.pairs for shape in shapes]
            free = [size for size in range(1, tokens // int(extent.sum()) + 1) if size not in taken]
            shapes = [*shapes, PairShape(*map(int, extent), free[-1] if free else max(taken) + 1)]
        places = shape_of_each(lengths, shapes)
        self.pairs = pairs
        self.plan = [
            (shape, members[start : start + shape.pairs])
            for index, shape in enumerate(shapes)
            if len(members := np.flatnonzero(places == index))
            for start in range(0, len(members), shape.pairs)
        ]
        # The first two batches differ, for TensorFlow's sake: see `choose_shapes`.
        self.plan.insert(1, self.plan.pop())

    def __len__(self) -> int:
        return len(self.plan)

    @property
    def num_batches(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> tuple:
        shape, chosen = self.plan[index]
        return padded_pairs(self.pairs, chosen, shape)
