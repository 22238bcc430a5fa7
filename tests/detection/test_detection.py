"""The parts of a detector: against hand-computed numbers, plain NumPy loops, and other people's code."""

import keras
import numpy as np
import pytest
from conftest import gradients_of, numbers
from keras import layers, ops

from shared.data.detection.boxed_images import BoxedImages
from shared.detection.assignment import assign_boxes, nth_largest
from shared.detection.boxes import anchor_grid, complete_iou, intersection_over_union
from shared.detection.decoding import (
    Detections,
    compiled_detector,
    decode_outputs,
    suppress_overlapping,
)
from shared.detection.layers import CrossStageBlock, DetectionHead, NormalizedConvolution
from shared.detection.losses import DetectionLoss, distribution_focal_loss
from shared.detection.metrics import detection_metrics


def random(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def compiled(function):
    """A function of tensors, compiled as `fit` would."""
    match keras.config.backend():
        case "jax":
            import jax

            return jax.jit(function)
        case "tensorflow":
            import tensorflow as tf

            return tf.function(function)
    return function


def computed(function, *arrays, **options):
    """What a function of tensors makes of arrays, as arrays."""
    results = compiled(lambda *tensors: function(*tensors, **options))(*map(ops.convert_to_tensor, arrays))
    return keras.tree.map_structure(numbers, results)


def anchors_of(size):
    return tuple(map(numbers, anchor_grid(size)))


def test_cross_stage_block_is_what_it_says():
    block, x = CrossStageBlock(4, depth=2), ops.convert_to_tensor(random((1, 3, 3, 5)))
    block.build(x.shape)
    y = block.first(x)
    one, two = y[..., :2], y[..., 2:]
    three = two + block.blocks[1](block.blocks[0](two))
    four = three + block.blocks[3](block.blocks[2](three))
    expected = block.last(ops.concatenate([one, two, three, four], axis=-1))
    np.testing.assert_allclose(numbers(block(x)), numbers(expected), rtol=1e-5, atol=1e-6)


def test_head_says_at_first_that_nothing_is_there():
    scores = numbers(ops.sigmoid(DetectionHead(3, 8, 6)(np.zeros((1, 8, 8, 5), "float32"))[..., 64:]))
    np.testing.assert_allclose(scores, 5 / 3 / 64 / (1 + 5 / 3 / 64), rtol=1e-4)


def numpy_iou(a, b):
    """IoU of two boxes, in float64."""
    a, b = np.float64(a), np.float64(b)
    intersection = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - intersection
    return intersection / (union + 1e-7)


def numpy_ciou(a, b):
    """CIoU of two boxes, straight from the paper, in float64."""
    a, b = np.float64(a), np.float64(b)
    iou = numpy_iou(a, b)
    diagonal = ((np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2])) ** 2).sum()
    apart = (((a[:2] + a[2:] - b[:2] - b[2:]) / 2) ** 2).sum()
    angles = [np.arctan2(box[2] - box[0], box[3] - box[1]) for box in (a, b)]
    v = 4 / np.pi**2 * (angles[0] - angles[1]) ** 2
    return iou - apart / (diagonal + 1e-7) - (v * v / (1 - iou + v) if v else 0)


SHAPE = 4 / np.pi**2 * (np.arctan(2) - np.arctan(1)) ** 2  # v of a box twice as wide as high and a square


@pytest.mark.parametrize(
    ("first", "second", "iou", "ciou"),
    [
        ((10, 20, 40, 60), (10, 20, 40, 60), 1, 1),  # identical
        ((0, 0, 10, 10), (20, 0, 30, 10), 0, -(20**2) / (30**2 + 10**2)),  # disjoint
        ((0, 0, 40, 40), (10, 10, 30, 30), 0.25, 0.25),  # contained, in the middle
        ((0, 0, 40, 40), (0, 0, 20, 20), 0.25, 0.25 - 200 / 3200),  # contained, in a corner
        ((0, 0, 20, 10), (0, 0, 10, 10), 0.5, 0.5 - 25 / 500 - SHAPE**2 / (0.5 + SHAPE)),  # of other proportions
    ],
)
def test_overlap_by_hand(first, second, iou, ciou):
    a, b = np.array([first], "float32"), np.array([second], "float32")
    assert computed(intersection_over_union, a, b)[0] == pytest.approx(iou, abs=1e-6)
    assert computed(complete_iou, a, b)[0] == pytest.approx(ciou, abs=1e-6)
    assert numpy_ciou(first, second) == pytest.approx(ciou, abs=1e-6)


def random_boxes(rng, shape, size=64.0, least=2.0):
    corner = rng.uniform(0, size * 0.8, (*shape, 2))
    lengths = rng.uniform(least, size * 0.6, (*shape, 2))
    return np.concatenate([corner, np.minimum(corner + lengths, size)], axis=-1).astype("float32")


def test_overlap_as_keras():
    first, second = random_boxes(np.random.default_rng(0), (2, 200))
    theirs = keras.utils.bounding_boxes.compute_ciou(first, second, "xyxy")
    np.testing.assert_allclose(computed(complete_iou, first, second), numbers(theirs), rtol=1e-4, atol=1e-5)


def test_overlap_as_keras_cv():
    """For boxes of like proportions: where they differ, keras_cv 0.9.0 squares the factor 4/π² of the paper too."""
    losses = pytest.importorskip("keras_cv").losses
    first, second = random_boxes(np.random.default_rng(0), (2, 200))
    second[:, 2:] = second[:, :2] + (first[:, 2:] - first[:, :2]) * np.linspace(0.3, 2, 200)[:, None]
    theirs = losses.CIoULoss(bounding_box_format="xyxy", reduction="none")(first, second)
    np.testing.assert_allclose(1 - computed(complete_iou, first, second), numbers(theirs), rtol=1e-4, atol=1e-5)


def test_overlap_of_empty_boxes_has_finite_gradients():
    boxes = np.array(
        [[5, 5, 5, 5], [5, 5, 5, 9], [5, 5, 9, 5], [0, 0, 0, 0], [3, 3, 8, 8], [0, 0, 1e4, 1e4]], "float32"
    )
    first = keras.Variable(np.repeat(boxes, len(boxes), axis=0))
    second = np.tile(boxes, (len(boxes), 1))
    value, (gradient,) = gradients_of(
        lambda: ops.sum(complete_iou(first + 0.0, ops.convert_to_tensor(second))), [first]
    )
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_distribution_focal_loss_by_hand():
    logits = random((5, 16))
    log_shares = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    distances = np.array([0, 2.3, 7, 14.5, 14.99], "float32")
    expected = [
        -log_shares[0, 0],
        -0.7 * log_shares[1, 2] - 0.3 * log_shares[1, 3],
        -log_shares[2, 7],
        -0.5 * log_shares[3, 14] - 0.5 * log_shares[3, 15],
        -0.01 * log_shares[4, 14] - 0.99 * log_shares[4, 15],
    ]
    np.testing.assert_allclose(computed(distribution_focal_loss, logits, distances), expected, rtol=1e-4)
    assert computed(distribution_focal_loss, np.zeros((1, 16), "float32"), distances[1:2])[0] == pytest.approx(
        np.log(16)
    )


def test_anchors_are_the_middles_of_their_cells():
    points, strides = anchors_of(64)
    assert points.shape == (64 + 16 + 4, 2)
    assert points[:3].tolist() == [[4, 4], [12, 4], [20, 4]]
    assert points[8].tolist() == [4, 12]
    assert points[64:66].tolist() == [[8, 8], [24, 8]]
    assert points[-1].tolist() == [48, 48]
    assert np.unique(strides, return_counts=True)[1].tolist() == [4, 16, 64][::-1]


def test_nth_largest():
    values = np.array([[3, 9, 1, 9, 2], [0, 0, 0, 0, 4]], "float32")
    for n, expected in {1: [9, 4], 2: [3, 0], 3: [2, -np.inf]}.items():
        (found,) = computed(lambda x, n=n: (nth_largest(x, n),), values)
        assert found[:, 0].tolist() == expected


def numpy_assignment(scores, boxes, points, targets, candidates=10, alpha=0.5, beta=6.0):
    """Task-aligned assignment of one image, one box and one anchor after the other."""
    anchors, classes = scores.shape
    alignment, overlaps = np.zeros((2, len(targets), anchors))
    for row, (label, *truth) in enumerate(targets):
        if label < 0:
            continue
        left, top, right, bottom = truth
        for anchor, (x, y) in enumerate(points):
            if (
                abs(x - (left + right) / 2) <= max(right - left, 8) / 2
                and abs(y - (top + bottom) / 2) <= max(bottom - top, 8) / 2
            ):
                overlaps[row, anchor] = numpy_iou(truth, boxes[anchor])
                alignment[row, anchor] = scores[anchor, int(label)] ** alpha * overlaps[row, anchor] ** beta
    takers = [[] for _ in range(anchors)]
    for row in range(len(targets)):
        for anchor in np.argsort(-alignment[row])[:candidates]:
            if alignment[row, anchor] > 0:
                takers[anchor].append(row)
    owner = [max(rows, key=lambda row: overlaps[row, anchor]) if rows else None for anchor, rows in enumerate(takers)]
    target_scores, target_boxes = np.zeros((anchors, classes)), np.zeros((anchors, 4))
    for anchor, row in enumerate(owner):
        if row is not None:
            owned = [a for a in range(anchors) if owner[a] == row]
            fit = alignment[row, anchor] / max(alignment[row, owned]) * max(overlaps[row, owned])
            target_scores[anchor, int(targets[row, 0])] = fit
            target_boxes[anchor] = targets[row, 1:]
    return target_boxes, target_scores


def problem(boxes, rows, seed=0, images=2, classes=3, size=64):
    """Random predictions, not all bad, and so many true boxes in so many rows: scores, boxes, points, targets."""
    rng = np.random.default_rng(seed)
    points, strides = anchors_of(size)
    targets = np.zeros((images, rows, 5), "float32")
    targets[..., 0] = -1
    targets[:, :boxes, 0] = rng.integers(0, classes, (images, boxes))
    targets[:, :boxes, 1:] = random_boxes(rng, (images, boxes), size)
    scores = rng.uniform(0.01, 1, (images, len(points), classes)).astype("float32")
    distances = rng.uniform(0.2, 6, (images, len(points), 4)) * strides[:, None]
    predicted = np.concatenate([points - distances[..., :2], points + distances[..., 2:]], axis=-1).astype("float32")
    if boxes:  # some anchors predict a true box almost
        chosen = rng.integers(0, boxes, (images, len(points)))
        near = np.take_along_axis(targets[..., 1:], chosen[..., None], axis=1) + rng.normal(0, 2, predicted.shape)
        predicted = np.where(rng.random((images, len(points), 1)) < 0.7, near, predicted).astype("float32")
    return scores, predicted, points, targets


@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("boxes", "rows", "candidates"),
    [(0, 1, 10), (0, 6, 10), (1, 1, 10), (5, 8, 10), (30, 40, 10), (300, 300, 10), (5, 8, 3), (2, 4, 500)],
)
def test_assignment_as_plain_loops(boxes, rows, candidates):
    scores, predicted, points, targets = problem(boxes, rows, seed=boxes)
    if boxes >= 30:
        targets[0, 1] = targets[0, 0]  # a box that is listed twice
        targets[0, 2, 1:] = [20, 20, 21, 22]  # and one smaller than a cell
    found_boxes, found_scores = computed(assign_boxes, scores, predicted, points, targets, candidates=candidates)
    assigned = 0
    for image in range(len(targets)):
        wanted_boxes, wanted_scores = numpy_assignment(
            scores[image], predicted[image], points, targets[image], candidates
        )
        np.testing.assert_allclose(found_scores[image], wanted_scores, rtol=1e-3, atol=1e-5)
        positive = wanted_scores.sum(axis=-1) > 1e-4
        np.testing.assert_array_equal(found_boxes[image][positive], wanted_boxes[positive].astype("float32"))
        assigned += positive.sum()
    assert (assigned > 0) == (boxes > 0)


def test_assignment_with_exact_ties_takes_the_first_box():
    points, _ = anchors_of(32)
    truth = np.array([[[1, 4, 4, 20, 20], [0, 4, 4, 20, 20]]], "float32")
    predicted = np.broadcast_to(truth[:, :1, 1:], (1, len(points), 4))
    _, (scores,) = computed(assign_boxes, np.full((1, len(points), 2), 0.5, "float32"), predicted, points, truth)
    inside = ((points >= 4) & (points <= 20)).all(axis=-1)
    np.testing.assert_allclose(scores[:, 1], inside, atol=1e-5)
    assert scores[:, 0].max() == 0


def outputs_for(boxes, points, strides, classes, seed=0):
    """Outputs of a detector that predicts boxes roughly, from random logits."""
    distances = np.concatenate([points - boxes[..., :2], boxes[..., 2:] - points], axis=-1) / strides[:, None]
    sides = -np.abs(np.clip(distances, 0, 15)[..., None] - np.arange(16)) + random((*distances.shape, 16), seed) * 0.3
    logits = random((*boxes.shape[:2], classes), seed + 1) - 2
    return np.concatenate([sides.reshape(*boxes.shape[:2], 64), logits], axis=-1).astype("float32")


@pytest.mark.parametrize("boxes", [0, 1, 12])
def test_loss_as_plain_numpy(boxes):
    _, predicted, points, targets = problem(boxes, 16, seed=3)
    _, strides = anchors_of(64)
    outputs = outputs_for(predicted, points, strides, 3)
    probabilities = np.exp(outputs[..., :64].reshape(*outputs.shape[:2], 4, 16).astype("float64"))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    distances = (probabilities * np.arange(16)).sum(axis=-1) * strides[:, None]
    decoded = np.concatenate([points - distances[..., :2], points + distances[..., 2:]], axis=-1)
    logits = outputs[..., 64:].astype("float64")
    scores = 1 / (1 + np.exp(-logits))
    total, weight = 0.0, 0.0
    for image in range(len(targets)):
        target_boxes, target_scores = numpy_assignment(scores[image], decoded[image], points, targets[image])
        weight += target_scores.sum()
        total += 0.5 * (np.log1p(np.exp(logits[image])) - logits[image] * target_scores).sum()
        for anchor in np.flatnonzero(target_scores.sum(axis=-1)):
            fit = target_scores[anchor].sum()
            total += 7.5 * fit * (1 - numpy_ciou(decoded[image, anchor], target_boxes[anchor]))
            away = (target_boxes[anchor] - np.tile(points[anchor], 2)) * [-1, -1, 1, 1] / strides[anchor]
            for side, distance in enumerate(np.clip(away, 0, 14.99)):
                low = int(distance)
                share = probabilities[image, anchor, side]
                total -= (
                    1.5
                    / 4
                    * fit
                    * ((low + 1 - distance) * np.log(share[low]) + (distance - low) * np.log(share[low + 1]))
                )
    usual = computed(DetectionLoss(64), targets, outputs)
    assert usual == pytest.approx(total / max(weight, 1), rel=1e-4)

    # Neither the size of the batch, nor rows without a box, nor the order of the boxes change it.
    if boxes:
        thrice = computed(DetectionLoss(64), np.tile(targets, (3, 1, 1)), np.tile(outputs, (3, 1, 1)))
        assert thrice == pytest.approx(usual, rel=1e-5)
    empty = np.full((2, 50, 5), [-1, 0, 0, 0, 0], "float32")
    empty[:, 25:, 1:] = [10, 10, 40, 40]  # rows without a box may hold anything
    longer = np.concatenate([targets, empty], axis=1)[:, ::-1].copy()
    assert computed(DetectionLoss(64), longer, outputs) == pytest.approx(usual, rel=1e-5)


@pytest.mark.in_turn
@pytest.mark.parametrize("kind", ["no boxes", "one image without", "empty boxes", "surest and wrong", "hundreds"])
def test_loss_has_finite_gradients(kind):
    _, predicted, points, targets = problem(*((300, 300) if kind == "hundreds" else (6, 8)), seed=5)
    outputs = outputs_for(predicted, points, anchors_of(64)[1], 3)
    if kind == "no boxes":
        targets[..., 0] = -1
    elif kind == "one image without":
        targets[0, :, 0] = -1
    elif kind == "empty boxes":
        targets[:, ::2, 3:] = targets[:, ::2, 1:3]
    elif kind == "surest and wrong":
        outputs = outputs * 100 - 3
    outputs, loss = keras.Variable(outputs), DetectionLoss(64)
    value, (gradient,) = gradients_of(lambda: loss(targets, outputs + 0.0), [outputs])
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[..., 64:]).max() > 0
    assert (np.abs(gradient[0, :, :64]).max() == 0) == (kind in ("no boxes", "one image without"))


def test_loss_can_be_saved():
    loss = DetectionLoss(96, box_gain=3.0, name="mine")
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert copy.get_config() == loss.get_config()
    assert (copy.image_size, copy.box_gain, copy.name) == (96, 3.0, "mine")


def test_decoding_by_hand():
    outputs = np.full((1, 84, 66), -50, "float32")
    for anchor, sides in {9: (1, 1, 2, 3), 83: (0, 1, 0.5, 15)}.items():
        for side, distance in enumerate(sides):
            for bin_, share in ((int(distance), 1 - distance % 1), (int(distance) + 1, distance % 1)):
                if share:
                    outputs[0, anchor, 16 * side + bin_] = np.log(share)
    outputs[0, 9, 65] = 0
    outputs[0, 83, 64] = np.log(3)
    boxes, scores = computed(decode_outputs, outputs, image_size=64)
    np.testing.assert_allclose(boxes[0, 9], [12 - 8, 12 - 8, 12 + 16, 12 + 24], rtol=1e-5)
    np.testing.assert_allclose(boxes[0, 83], [48, 48 - 32, 64, 64], rtol=1e-5)  # the lower side ends at the image
    np.testing.assert_allclose(scores[0, [9, 83]], [[0, 0.5], [0.75, 0]], atol=1e-6)


def numpy_suppression(boxes, scores, confidence, overlap, most):
    """Greedy non-maximum suppression of one image: (score, class, box) of what stays."""
    places = np.argwhere(scores > confidence)
    left = sorted(((scores[i, label], label, boxes[i]) for i, label in places), key=lambda entry: -entry[0])
    stays = []
    while left:
        best, *left = left
        stays.append(best)
        left = [entry for entry in left if entry[1] != best[1] or numpy_iou(entry[2], best[2]) <= overlap]
    return stays[:most]


@pytest.mark.parametrize(
    ("overlap", "most", "confidence"), [(0.5, 300, 0.3), (0.7, 10, 0.5), (0.1, 300, 0.9), (0.5, 9, 2)]
)
def test_suppression_as_a_greedy_loop(overlap, most, confidence):
    rng = np.random.default_rng(1)
    boxes = random_boxes(rng, (2, 8))[:, rng.integers(0, 8, 60)] + rng.normal(0, 3, (2, 60, 4)).astype("float32")
    scores = rng.permutation(2 * 60 * 3).reshape(2, 60, 3).astype("float32") / 360
    options = {"confidence": confidence, "overlap": overlap, "most": most}
    found = computed(suppress_overlapping, boxes, scores, **options)
    assert found.boxes.shape == (2, min(most, 180), 4)
    for image in range(2):
        wanted = numpy_suppression(boxes[image], scores[image], confidence, overlap, most)
        assert (len(wanted) > 3) == (confidence < 1)
        for row, (score, label, box) in enumerate(wanted):
            assert (found.scores[image, row], found.labels[image, row]) == (score, label)
            np.testing.assert_array_equal(found.boxes[image, row], box)
        assert (found.labels[image, len(wanted) :] == -1).all()
        assert not found.scores[image, len(wanted) :].any()
        assert not found.boxes[image, len(wanted) :].any()


def test_a_box_that_is_driven_out_drives_none_out():
    """A long chain, each overlapping the next: every other one stays."""
    starts = np.arange(40) * 4.0
    boxes = np.stack([starts, 0 * starts, starts + 10, 0 * starts + 10], axis=-1)[None].astype("float32")
    scores = np.linspace(0.9, 0.5, 40).reshape(1, 40, 1).astype("float32")
    found = computed(suppress_overlapping, boxes, scores, confidence=0.1, overlap=0.4)
    np.testing.assert_allclose(found.scores[0, :20], scores[0, ::2, 0])
    assert found.labels[0].tolist() == [0] * 20 + [-1] * 20
    few = computed(suppress_overlapping, boxes, scores, confidence=0.1, overlap=0.4, candidates=10)
    assert few.labels[0].tolist() == [0] * 5 + [-1] * 5


def test_suppression_as_keras_hub():
    hub = pytest.importorskip(
        "keras_hub", reason="keras_hub, the other implementation of suppression, is not installed"
    )
    rng = np.random.default_rng(2)
    boxes = random_boxes(rng, (2, 6))[:, rng.integers(0, 6, 40)] + rng.normal(0, 3, (2, 40, 4)).astype("float32")
    scores = rng.permutation(80).reshape(2, 40, 1).astype("float32") / 80
    layer = hub.layers.NonMaxSuppression("xyxy", from_logits=False, iou_threshold=0.5, confidence_threshold=0.2)
    theirs = {name: numbers(value) for name, value in layer(boxes, scores).items()}
    ours = computed(suppress_overlapping, boxes, scores, confidence=0.2, overlap=0.5)
    for image in range(2):
        count = int(theirs["num_detections"][image])
        assert count == (ours.labels[image] >= 0).sum() > 3
        np.testing.assert_allclose(theirs["boxes"][image, :count], ours.boxes[image, :count], rtol=1e-5)


RED, GREEN = (230, 30, 30), (30, 230, 30)


def painted(most=5, size=64):
    """Four images of coloured rectangles, one of them empty, and their boxes: the class is the colour."""
    images = np.full((4, size, size, 3), 90, "uint8")
    targets = np.full((4, most, 5), [-1, 0, 0, 0, 0], "float32")
    for image, rows in enumerate(
        [[(0, 4, 6, 30, 40)], [(1, 30, 20, 60, 62), (0, 2, 2, 22, 16)], [], [(1, 10, 10, 24, 24), (1, 34, 30, 62, 50)]]
    ):
        for row, (label, left, top, right, bottom) in enumerate(rows):
            images[image, top:bottom, left:right] = (RED, GREEN)[label]
            targets[image, row] = label, left, top, right, bottom
    return images, targets


def small_detector(size=64, classes=2, width=16):
    inputs = keras.Input((size, size, 3), dtype="uint8")
    x = layers.Rescaling(1 / 255)(inputs)
    x = NormalizedConvolution(width, 3, 2)(x)
    x = NormalizedConvolution(width, 3, 2)(x)
    outputs = []
    for _ in range(3):
        x = NormalizedConvolution(2 * width, 3, 2)(x)
        outputs.append(DetectionHead(classes, 2 * width, width)(x))
    return keras.Model(inputs, layers.Concatenate(axis=1, dtype="float32")(outputs))


@pytest.mark.once
def test_learns_four_images_by_heart(tmp_path):
    images, targets = painted()
    keras.utils.set_random_seed(0)
    model = small_detector()
    model.compile(keras.optimizers.Adam(0.01), DetectionLoss(64))
    history = model.fit(images, targets, batch_size=4, epochs=150, verbose=0, shuffle=False).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < 0.05 * history[0]

    model.save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")  # with its loss
    assert model.loss.get_config() == DetectionLoss(64).get_config()
    found = compiled_detector(model)(images, 0.05, 0.7)
    assert isinstance(found, Detections)
    scores = detection_metrics(
        BoxedImages(images, targets[..., 1:], targets[..., 0].astype(int)), found, ["red", "green"]
    )
    assert scores.values["map50"] > 0.95


def test_one_compiled_detector_serves_all_thresholds():
    images, _ = painted()
    keras.utils.set_random_seed(0)
    model, calls = small_detector(), []
    detector = compiled_detector(model)
    boxes, scores = decode_outputs(model(images[:1], training=False), 64)
    call = model.call
    model.call = lambda *arguments, **keywords: calls.append(1) or call(*arguments, **keywords)
    for confidence, overlap in ((0.001, 0.7), (0.012, 0.7), (0.012, 0.2)):
        expected = suppress_overlapping(boxes, scores, confidence, overlap)
        found = detector(images[:1], confidence, overlap)
        for each, other in zip(found, expected, strict=True):
            assert isinstance(each, np.ndarray)
            np.testing.assert_allclose(each, numbers(other), rtol=1e-4, atol=1e-3)
    assert len(calls) == 1 or keras.config.backend() == "torch"


def truth(*boxes):
    """One image a list of (class, left, top, right, bottom)."""
    most = max(map(len, boxes))
    labels = np.array([[row[0] for row in rows] + [-1] * (most - len(rows)) for rows in boxes])
    places = np.array([[row[1:] for row in rows] + [(0, 0, 0, 0)] * (most - len(rows)) for rows in boxes], "float32")
    return BoxedImages(np.zeros((len(boxes), 100, 100, 3), "uint8"), places.reshape(*labels.shape, 4), labels)


def found(*boxes):
    """One image a list of (score, class, left, top, right, bottom)."""
    _, places, labels, *_ = truth(*[[row[1:] for row in rows] for rows in boxes])
    scores = np.array([[row[0] for row in rows] + [0] * (labels.shape[1] - len(rows)) for rows in boxes])
    return Detections(places, scores, labels)


A, B, C = (10, 10, 50, 50), (60, 60, 90, 90), (10, 60, 40, 90)
UP_TO_A_HALF = 51 / 101  # of the 101 recalls at which COCO reads the precision
HALF_THEN_THIRDS = (51 + 50 * 2 / 3) / 101


@pytest.mark.once
@pytest.mark.parametrize(
    ("there", "seen", "map50", "map_"),
    [
        ([[(0, *A)], [(0, *B)]], [[(0.9, 0, *A)], [(0.8, 0, *B)]], 1, 1),
        ([[(0, *A)], [(0, *B)]], [[], []], 0, 0),
        ([[(0, *A)], [(0, *B)]], [[(0.9, 1, *A)], [(0.8, 1, *B)]], 0, 0),  # the wrong class
        ([[(0, *A)], [(0, *B)]], [[(0.9, 0, *A)], []], UP_TO_A_HALF, UP_TO_A_HALF),
        ([[(0, *A), (0, *B)]], [[(0.9, 0, *C), (0.8, 0, *A), (0.7, 0, *B)]], 2 / 3, 2 / 3),  # a false one before
        ([[(0, *A), (0, *B)]], [[(0.9, 0, *A), (0.8, 0, *B), (0.1, 0, *C)]], 1, 1),  # and after
        ([[(0, *A)]], [[(0.9, 0, *A), (0.8, 0, *A)]], 1, 1),  # found twice: the second is false
        ([[(0, *A), (0, *B)]], [[(0.9, 0, *A), (0.8, 0, *A), (0.7, 0, *B)]], HALF_THEN_THIRDS, HALF_THEN_THIRDS),
        ([[(0, *A)]], [[(0.9, 0, 10, 10, 50, 42)]], 1, 0.7),  # IoU 0.8: at 7 of 10 thresholds
        ([[(0, *A), (1, *B)]], [[(0.9, 0, *A)]], 0.5, 0.5),  # one of two classes
        ([[], [(2, *A)]], [[(0.3, 2, *B)], [(0.4, 2, *A)]], 1, 1),  # an image without boxes
        ([[], []], [[(0.9, 0, *A)], []], 0, 0),
    ],
)
def test_average_precision_by_hand(there, seen, map50, map_, capfd):
    measured = detection_metrics(truth(*there), found(*seen), ["a", "b", "c"])
    assert measured.values["map50"] == pytest.approx(map50, abs=1e-6)
    assert measured.values["map"] == pytest.approx(map_, abs=1e-6)
    present = {label for rows in there for label, *_ in rows}
    assert {name for name in measured.values if name.startswith("ap50_")} == {f"ap50_{'abc'[i]}" for i in present}
    assert measured.precision.shape == (3, 101)
    assert [bool(np.isnan(row).all()) for row in measured.precision] == [i not in present for i in range(3)]
    assert capfd.readouterr().out == ""


IN_A = (10, 10, 30, 30)
"""A quarter of `A`: it lies in a crowd there wholly, and overlaps a difficult object by an IoU of 0.25."""


@pytest.mark.once
@pytest.mark.parametrize(
    ("ignored", "seen", "map50"),
    [
        ("crowds", [(0.9, 0, *A), (0.8, 0, *B)], 1),
        ("crowds", [(0.9, 0, *IN_A), (0.85, 0, *IN_A), (0.8, 0, *B)], 1),
        ("crowds", [(0.9, 0, *C), (0.8, 0, *B)], 0.5),  # elsewhere it is false
        ("crowds", [(0.9, 0, *B), (0.8, 0, *A)], 1),
        ("crowds", [(0.9, 0, *A)], 0),  # and an ignored one is never right
        ("difficult", [(0.9, 0, *A), (0.85, 0, *A), (0.8, 0, *B)], 1),
        ("difficult", [(0.9, 0, *IN_A), (0.8, 0, *B)], 0.5),
    ],
)
def test_detections_of_what_is_ignored_are_neither_right_nor_wrong(ignored, seen, map50):
    there = truth([(0, *A), (0, *B)], [(0, *C)])
    marked = np.array([[0, -1], [-1, -1]])
    there = there._replace(labels=np.array([[-1, 0], [-1, -1]]), **{ignored: marked})
    measured = detection_metrics(there, found(seen, []), ["a"])
    assert measured.values["map50"] == pytest.approx(map50, abs=1e-6)


@pytest.mark.once
def test_a_class_of_which_all_is_ignored_is_not_measured():
    there = truth([(0, *A), (1, *B)])._replace(labels=np.array([[0, -1]]), crowds=np.array([[-1, 1]]))
    measured = detection_metrics(there, found([(0.9, 0, *A), (0.8, 1, *B)]), ["a", "b"])
    assert measured.values == {"map": pytest.approx(1), "map50": pytest.approx(1), "ap50_a": pytest.approx(1)}
    assert np.isnan(measured.precision[1]).all()


@pytest.mark.once
def test_average_precision_as_pycocotools():
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools, COCO's own evaluator, is not installed")
    from pycocotools.cocoeval import COCOeval

    from shared.detection.metrics import box_entries

    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 3, (20, 8))
    there = BoxedImages(np.zeros((20, 64, 64, 3), "uint8"), random_boxes(rng, labels.shape), labels)
    seen = Detections(
        there.boxes + rng.normal(0, 3, there.boxes.shape), rng.random(labels.shape), labels[:, ::-1].copy()
    )
    seen = seen._replace(labels=np.where(rng.random(labels.shape) < 0.8, labels, seen.labels))
    measured = detection_metrics(there, seen, ["a", "b", "c"])
    reference = coco.COCO()
    reference.dataset = {
        "images": [{"id": image} for image in range(20)],
        "categories": [{"id": label} for label in range(3)],
        "annotations": [
            {"id": number, "iscrowd": 0, "area": entry["bbox"][2] * entry["bbox"][3], **entry}
            for number, entry in enumerate(box_entries(there.boxes, there.labels), 1)
        ],
    }
    reference.createIndex()
    results = box_entries(seen.boxes, seen.labels)
    for entry, score in zip(results, seen.scores[seen.labels >= 0], strict=True):
        entry["score"] = score
    evaluation = COCOeval(reference, reference.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert 0.1 < measured.values["map"] < 0.9
    assert measured.values["map"] == pytest.approx(evaluation.stats[0])
    assert measured.values["map50"] == pytest.approx(evaluation.stats[1])
