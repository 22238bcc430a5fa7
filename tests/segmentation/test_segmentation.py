"""Losses, metrics, objects and tiles of segmentation, against closed forms and plain loops."""

import itertools

import keras
import numpy as np
import pytest
from conftest import gradients_of, normal, numbers

from shared.data.segmentation.segmented_images import UNLABELLED, SegmentedImages
from shared.data.segmentation.synthetic_cells import cell_image
from shared.segmentation.augment import (
    centre_crop,
    padded_example,
    random_brightness,
    random_crop_and_scale,
    random_orientation,
)
from shared.segmentation.batches import SegmentationBatches, centre_crops
from shared.segmentation.heads import PartAverages
from shared.segmentation.instances import BACKGROUND, BORDER, INTERIOR, border_targets, separate_objects
from shared.segmentation.losses import SEGMENTATION_LOSSES, SegmentationLoss
from shared.segmentation.metrics import (
    average_precision,
    class_metrics,
    mean_dice,
    object_counts,
    overlaps,
    pixel_counts,
)
from shared.segmentation.plots import class_palette, errors_of, outlines, with_mask
from shared.segmentation.prediction import mask_of, predict_in_tiles, tile_starts

LABELS = np.random.default_rng(3).integers(-1, 3, (2, 4, 5))
LOGITS = normal(2, 4, 5, 3, seed=4)


def softmax64(logits):
    exponentials = np.exp(logits.astype(np.float64))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def reference_loss(name, labels, logits):
    """Each loss as its paper writes it, pixel by pixel, in 64 bits."""
    p = softmax64(logits)[labels >= 0]
    g = np.eye(logits.shape[-1])[labels[labels >= 0]]
    of_truth = (p * g).sum(axis=1)
    if name == "cross_entropy":
        return -np.log(of_truth).mean()
    if name == "focal":
        return (-((1 - of_truth) ** 2) * np.log(of_truth)).mean()
    if name == "dice":
        return 1 - np.mean([(2 * (p[:, c] @ g[:, c]) + 1) / (p[:, c].sum() + g[:, c].sum() + 1) for c in range(3)])
    losses = []
    for c in np.flatnonzero(g.any(axis=0)):  # Berman et al., equation 8 and algorithm 1
        errors = np.abs(g[:, c] - p[:, c])
        order = np.argsort(-errors)

        def jaccard_loss(wrong, truth=g[:, c] > 0):
            wrong = np.isin(np.arange(len(truth)), wrong)
            return wrong.sum() / (truth | wrong).sum()

        steps = [jaccard_loss(order[:count]) for count in range(len(order) + 1)]
        losses.append(np.diff(steps) @ errors[order])
    return np.mean(losses)


@pytest.mark.parametrize("name", SEGMENTATION_LOSSES)
def test_losses_and_their_gradients_are_those_of_the_papers(name):
    logits = keras.Variable(LOGITS)
    loss = SegmentationLoss((name,))
    value, (gradient,) = gradients_of(lambda: loss(LABELS, logits), [logits])
    assert value == pytest.approx(reference_loss(name, LABELS, LOGITS), rel=1e-5)
    expected = np.zeros(LOGITS.shape)
    for place in np.ndindex(LOGITS.shape):
        change = np.zeros(LOGITS.shape)
        change[place] = 1e-5
        ends = [reference_loss(name, LABELS, LOGITS + sign * change) for sign in (1, -1)]
        expected[place] = (ends[0] - ends[1]) / 2e-5
    np.testing.assert_allclose(gradient, expected, atol=2e-5)
    assert (gradient[LABELS < 0] == 0).all(), "what is not labelled has no gradient"


def test_lovasz_of_certain_predictions_is_one_minus_iou():
    predicted = np.random.default_rng(5).integers(0, 3, LABELS.shape)
    counts = pixel_counts(np.where(LABELS < 0, UNLABELLED, LABELS), predicted, 3)
    loss = SegmentationLoss(("lovasz",))(LABELS, 60 * np.eye(3, dtype="float32")[predicted])
    assert float(numbers(loss)) == pytest.approx(1 - class_metrics(counts, list("abc"))["miou"], rel=1e-5)


def test_the_loss_is_saved_by_name():
    loss = keras.losses.deserialize(keras.losses.serialize(SegmentationLoss(("dice", "focal"))))
    assert tuple(loss.names) == ("dice", "focal")


def test_losses_add_up_and_nothing_labelled_costs_nothing():
    each = [float(numbers(SegmentationLoss((name,))(LABELS, LOGITS))) for name in ("dice", "focal")]
    assert float(numbers(SegmentationLoss(("dice", "focal"))(LABELS, LOGITS))) == pytest.approx(sum(each), rel=1e-6)
    for name in SEGMENTATION_LOSSES:
        assert float(numbers(SegmentationLoss((name,))(np.full(LABELS.shape, -1), LOGITS))) == pytest.approx(
            0, abs=1e-6
        )


@pytest.mark.once
def test_class_metrics_are_over_all_images_and_leave_unlabelled_pixels_out():
    rng = np.random.default_rng(0)
    truths, predictions = (rng.integers(0, 3, (4, 6, 7)) for _ in range(2))
    truths[rng.random(truths.shape) < 0.2] = UNLABELLED
    found = class_metrics(
        sum(pixel_counts(truth, predicted, 4) for truth, predicted in zip(truths, predictions, strict=True)),
        list("abcd"),
    )
    counted = truths != UNLABELLED
    iou = [
        ((truths == c) & (predictions == c)).sum() / (((truths == c) | (predictions == c)) & counted).sum()
        for c in range(3)
    ]
    assert found["miou"] == pytest.approx(np.mean(iou)), "the class d does not occur"
    assert [found[f"iou_{name}"] for name in "abc"] == pytest.approx(iou)
    assert "iou_d" not in found
    assert found["pixel_accuracy"] == pytest.approx((truths == predictions)[counted].mean())


@pytest.mark.once
def test_dice_is_averaged_over_images():
    truths = [np.array([[1, 1, 0, UNLABELLED]]), np.array([[0, 0, 0, 0]]), np.array([[0, 0, 1, 0]])]
    predictions = [np.array([[1, 0, 0, 1]]), np.array([[0, 0, 0, 0]]), np.array([[1, 0, 0, 0]])]
    counts = [pixel_counts(*pair, 2) for pair in zip(truths, predictions, strict=True)]
    assert mean_dice(counts) == pytest.approx(np.mean([2 / 3, 1, 0]))


def scene_of_objects(seed, size=24):
    """Random rectangles, numbered with gaps."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((size, size), np.uint16)
    for number in range(1, 9):
        top, left = rng.integers(0, size - 6, 2)
        height, width = rng.integers(3, 8, 2)
        mask[top : top + height, left : left + width] = 3 * number
    return mask


@pytest.mark.once
@pytest.mark.parametrize("seed", range(4))
def test_average_precision_at_iou_one_half(seed):
    """Against sets of pixels, and the best matching among all."""
    truth, predicted = scene_of_objects(seed), np.roll(scene_of_objects(seed), seed, axis=1)
    predicted[:5] = scene_of_objects(seed + 10)[:5]
    sets = [
        [set(np.flatnonzero(mask.ravel() == number)) for number in np.unique(mask[mask > 0])]
        for mask in (truth, predicted)
    ]
    iou = np.array([[len(one & other) / len(one | other) for other in sets[1]] for one in sets[0]])
    np.testing.assert_allclose(overlaps(truth, predicted), iou)
    from scipy.optimize import linear_sum_assignment

    pairs = np.transpose(linear_sum_assignment(iou <= 0.5))
    found = sum(iou[one, other] > 0.5 for one, other in pairs)
    expected = [found, len(sets[0]) - found, len(sets[1]) - found]
    assert object_counts(truth, predicted, 0.5).tolist() == expected
    assert average_precision([np.array(expected)] * 2) == pytest.approx(found / sum(expected))
    empty = np.zeros_like(truth)
    assert object_counts(truth, empty, 0.5).tolist() == [0, len(sets[0]), 0]
    assert average_precision([object_counts(empty, empty, 0.5)]) == 0


@pytest.mark.once
def test_borders_are_the_outermost_pixels_of_each_object():
    mask = np.zeros((7, 9), np.uint16)
    mask[1:6, 1:4], mask[1:6, 4:8] = 1, 2
    targets = border_targets(mask)
    expected = np.zeros((7, 9), int)
    expected[1:6, 1:8] = BORDER
    expected[2:5, 2] = INTERIOR
    expected[2:5, 5:7] = INTERIOR
    np.testing.assert_array_equal(targets, expected)


@pytest.mark.once
def test_objects_are_separated_as_they_were():
    """Touching objects come back from their true classes; those too thin for an interior, and small ones, too."""
    mask = np.zeros((30, 40), np.uint16)
    mask[2:12, 2:12], mask[2:12, 12:25], mask[20:22, 5:25], mask[28:30, 38:40] = 1, 2, 3, 4
    probabilities = np.eye(3)[border_targets(mask)]
    found = separate_objects(probabilities, smallest=4)
    np.testing.assert_array_equal(overlaps(mask, found), np.eye(4)[:, np.argmax(overlaps(mask, found), axis=1)].T)
    assert separate_objects(probabilities, smallest=5).max() == 3
    assert not separate_objects(np.eye(3)[np.zeros((5, 5), int)], 1).any()


@pytest.mark.once
def test_objects_are_separated_at_a_neck_where_no_border_was_seen():
    rows, columns = np.mgrid[:30, :50]
    foreground = (np.hypot(rows - 15, columns - 15) < 10) | (np.hypot(rows - 15, columns - 33) < 10)
    found = separate_objects(np.eye(3)[np.where(foreground, INTERIOR, BACKGROUND)], smallest=4)
    assert found.max() == 2
    assert len(np.unique(found[:, :22])) == len(np.unique(found[:, 27:])) == 2, "background, and one of the two"
    np.testing.assert_array_equal(found > 0, foreground)


@pytest.mark.once
@pytest.mark.parametrize(
    ("length", "size", "overlap"), list(itertools.product((5, 16, 17, 50), (8, 16), (0, 0.25, 0.5)))
)
def test_tiles_cover_and_overlap(length, size, overlap):
    starts = tile_starts(length, size, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - size)
    assert all(1 <= step <= round(size * (1 - overlap)) for step in np.diff(starts))


@pytest.mark.once
def test_tiles_are_blended_into_the_whole():
    """Of a function of each pixel alone the tiles together are exactly what the whole is; small images are padded."""

    def predict(pixels):
        assert pixels.shape == (16, 16, 2)
        return np.stack([pixels[..., 0] / 255, 1 - pixels[..., 0] / 255], axis=-1)

    for shape in ((16, 16, 2), (40, 23, 2), (5, 30, 2), (3, 4, 2)):
        pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        for overlap in (0, 0.5):
            found = predict_in_tiles(predict, pixels, 16, overlap)
            np.testing.assert_allclose(found[..., 0], pixels[..., 0] / 255, atol=1e-6)
    step = predict_in_tiles(lambda tile: np.full((16, 16, 1), tile.max()), np.arange(24, dtype=np.uint8)[None, :, None]
                            .repeat(16, axis=0), 16, 0.5)  # fmt: skip
    assert np.diff(step[0, :, 0]).min() >= 0, "from one tile to the next in between"
    assert len(np.unique(step[0, 8:16, 0])) == 8


@pytest.mark.once
def test_masks_as_pictures():
    classes = mask_of(np.eye(3)[[[0, 1, 2]]], objects=False, smallest=0)
    assert (classes.mode, np.asarray(classes).tolist()) == ("P", [[0, 1, 2]])
    assert np.asarray(classes.convert("RGB")).tolist() == [[[0, 0, 0], [128, 0, 0], [0, 128, 0]]]
    objects = mask_of(np.eye(3)[border_targets(scene_of_objects(0))], objects=True, smallest=0)
    assert objects.mode == "I;16"
    assert len(np.unique(np.asarray(objects))) > 4


@pytest.mark.once
def test_figures_show_what_is_wrong():
    truth, predicted = np.array([[0, 1, 2, UNLABELLED, 0]]), np.array([[1, 0, 1, 0, 0]])
    assert errors_of(truth, predicted)[0].tolist() == [
        [40, 80, 220],
        [210, 30, 40],
        [240, 140, 20],
        [128] * 3,
        [255] * 3,
    ]
    assert outlines(np.array([[1, 1, 2], [1, 1, 0]])).tolist() == [[False, True, True], [False, True, False]]
    assert len(np.unique(class_palette(256), axis=0)) == 256
    assert with_mask(np.zeros((2, 3, 1), np.uint8), np.zeros((2, 3), np.uint16), objects=False).shape == (2, 3, 3)


def example(size=40):
    pixels, _ = cell_image(size, np.random.default_rng(0))
    return pixels, np.where(pixels[..., 0] > 60, 1, 0).astype(np.uint16)


@pytest.mark.once
def test_image_and_mask_are_augmented_together():
    """The mask is that of the augmented image: whatever was bright is still 1."""
    pixels, mask = example()
    for seed in range(10):
        rng = np.random.default_rng(seed)
        crop, its_mask = random_orientation(*random_crop_and_scale(pixels, mask, 32, 1.0, rng), True, rng)
        np.testing.assert_array_equal(crop[..., 0] > 60, its_mask == 1)
        crop, its_mask = random_crop_and_scale(pixels, mask, 32, 1.5, rng)
        assert crop.shape == (32, 32, 1)
        assert np.mean((crop[..., 0] > 60) == (its_mask == 1)) > 0.9
    padded, its_mask = padded_example(pixels, mask, 50)
    assert padded.shape == (50, 50, 1)
    assert (its_mask == UNLABELLED).sum() == 50 * 50 - 40 * 40
    np.testing.assert_array_equal(padded[5:45, 5:45], pixels)
    np.testing.assert_array_equal(centre_crop(pixels, mask, 20)[1], mask[10:30, 10:30])
    ratios = [
        random_brightness(np.full((2, 2, 1), 100, np.uint8), 0.5, np.random.default_rng(s)).max() for s in range(50)
    ]
    assert 100 * np.exp(-0.55) - 1 <= min(ratios) < 75
    assert 140 < max(ratios) <= 100 * np.exp(0.55) + 1


@pytest.mark.once
def test_batches_depend_on_seed_epoch_and_number_alone():
    pixels, masks = zip(*(cell_image(40, np.random.default_rng(seed)) for seed in range(5)), strict=True)
    data = SegmentedImages(list(pixels), list(masks))

    def batch(index, epoch=1, seed=3):
        batches = SegmentationBatches(
            data, 2, seed, size=32, crops=2, objects=True, scale=1.3, turn=True, brightness=0.3
        )
        assert len(batches) == 5
        batches.epoch = epoch
        return batches[index]

    for one, other in zip(batch(4), batch(4), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [(each.shape, each.dtype) for each in batch(0)] == [((2, 32, 32, 1), "uint8"), ((2, 32, 32), "int32")]
    for other in (batch(3), batch(4, epoch=2), batch(4, seed=4)):
        assert (other[0] != batch(4)[0]).any()
    crops, targets = centre_crops(data, 48, objects=True)
    assert crops.shape == (5, 48, 48, 1)
    assert set(np.unique(targets)) == {-1, 0, 1, 2}


@pytest.mark.only_on("torch")
@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_part_averages_are_those_of_pytorch(bins):
    import torch

    x = np.random.default_rng(0).normal(size=(2, 4, 9, 3)).astype("float32")
    expected = torch.nn.functional.adaptive_avg_pool2d(torch.tensor(x).permute(0, 3, 1, 2), bins).permute(0, 2, 3, 1)
    np.testing.assert_allclose(numbers(PartAverages(bins)(x)), expected.numpy(), rtol=1e-5, atol=1e-6)
