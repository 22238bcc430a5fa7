"""Native PyTorch baseline of recipes/yolo_detection.py, for `recipes compare --native`.

The same network, assignment, loss, optimizer and batches; nothing of Keras takes part in a step.
"""

import functools
import math

import torch
from torch import nn
from torch.nn import functional

from benchmarks.native import require_options
from benchmarks.native_torch import DEVICE, Adam, NativeTrainer, kernels_and_others, load_weights
from recipes.yolo_detection import SIZES
from shared.detection.assignment import LEAST_ALIGNMENT
from shared.detection.boxes import LEAST_AREA, STRIDES
from shared.detection.decoding import BINS
from shared.training.schedules import warmup_cosine_rate


class Convolution(nn.Module):
    """Convolution without bias, batch normalization, SiLU.

    Padded as Keras's "same" is: with a stride of 2 on even lengths, behind only. The moving variance is PyTorch's
    unbiased one, a little larger than Keras's.
    """

    def __init__(self, inputs, outputs, size=1, stride=1):
        super().__init__()
        padding = size // 2 if stride == 1 else 0
        self.convolution = nn.Conv2d(inputs, outputs, size, stride, padding, bias=False)
        self.normalization = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)

    def forward(self, x):
        if self.convolution.stride[0] == 2:
            x = functional.pad(x, (0, 1, 0, 1))
        return functional.silu(self.normalization(self.convolution(x)))


class CrossStageBlock(nn.Module):
    """Half of the channels through a chain of small blocks, and all that comes by on the way put together."""

    def __init__(self, inputs, outputs, depth, shortcut=True):
        super().__init__()
        self.shortcut = shortcut
        half = outputs // 2
        self.first = Convolution(inputs, outputs)
        self.last = Convolution((2 + depth) * half, outputs)
        self.blocks = nn.ModuleList(
            nn.Sequential(Convolution(half, half, 3), Convolution(half, half, 3)) for _ in range(depth)
        )

    def forward(self, x):
        parts = list(self.first(x).chunk(2, dim=1))
        for block in self.blocks:
            x = block(parts[-1])
            parts.append(parts[-1] + x if self.shortcut else x)
        return self.last(torch.cat(parts, dim=1))


class PyramidPooling(nn.Module):
    """Maxima over ever larger surroundings beside the input itself."""

    def __init__(self, channels):
        super().__init__()
        self.last = Convolution(channels * 2, channels)
        self.first = Convolution(channels, channels // 2)

    def forward(self, x):
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(functional.max_pool2d(parts[-1], 5, stride=1, padding=2))
        return self.last(torch.cat(parts, dim=1))


class Head(nn.Module):
    """Logits of the boxes (batch, places, 4 * bins) and of the classes (batch, places, classes) of one level."""

    def __init__(self, inputs, box_filters, class_filters, classes):
        super().__init__()

        def branch(filters):
            return nn.Sequential(Convolution(inputs, filters, 3), Convolution(filters, filters, 3))

        self.box_branch = branch(box_filters)
        self.class_branch = branch(class_filters)
        self.boxes = nn.Conv2d(box_filters, 4 * BINS, 1)
        self.scores = nn.Conv2d(class_filters, classes, 1)

    def forward(self, x):
        outputs = self.boxes(self.box_branch(x)), self.scores(self.class_branch(x))
        return [each.flatten(2).transpose(1, 2) for each in outputs]


class Network(nn.Module):
    """Pixels (batch, size, size, 3) in uint8 to logits of sides (batch, anchors, 4, bins) and classes (…, classes).

    The parts are made in the order of the Keras model.
    """

    def __init__(self, size, classes):
        super().__init__()
        depths, channels = SIZES[size]
        fine, middle, coarse = channels[2:]

        def merging(inputs, outputs):
            return CrossStageBlock(inputs, outputs, depths[0], shortcut=False)

        self.stem = Convolution(3, channels[0], 3, 2)
        self.backbone = nn.ModuleList(
            nn.Sequential(Convolution(inputs, outputs, 3, 2), CrossStageBlock(outputs, outputs, depth))
            for inputs, outputs, depth in zip(channels, channels[1:], depths, strict=False)
        )
        self.pooling = PyramidPooling(coarse)
        self.merge_middle = merging(coarse + middle, middle)
        self.merge_fine = merging(middle + fine, fine)
        self.shrink_fine = Convolution(fine, fine, 3, 2)
        self.merge_middle_again = merging(fine + middle, middle)
        self.shrink_middle = Convolution(middle, middle, 3, 2)
        self.merge_coarse_again = merging(middle + coarse, coarse)
        filters = max(64, fine // 4), max(fine, min(classes, 100))
        self.heads = nn.ModuleList(Head(inputs, *filters, classes) for inputs in (fine, middle, coarse))

    def forward(self, images):
        x = self.stem(images.permute(0, 3, 1, 2).float() / 255)
        levels = []
        for stage in self.backbone:
            x = stage(x)
            levels.append(x)
        _, fine, middle, _ = levels
        coarse = self.pooling(x)
        middle = self.merge_middle(torch.cat([enlarged(coarse), middle], dim=1))
        fine = self.merge_fine(torch.cat([enlarged(middle), fine], dim=1))
        middle = self.merge_middle_again(torch.cat([self.shrink_fine(fine), middle], dim=1))
        coarse = self.merge_coarse_again(torch.cat([self.shrink_middle(middle), coarse], dim=1))
        outputs = [head(level) for head, level in zip(self.heads, (fine, middle, coarse), strict=True)]
        sides, logits = (torch.cat(each, dim=1) for each in zip(*outputs, strict=True))
        return sides.unflatten(2, (4, BINS)), logits


def enlarged(x):
    """Twice as high and wide, by repetition."""
    return functional.interpolate(x, scale_factor=2)


def intersection_over_union(first, second):
    """Overlap of boxes (…, 4): (…)."""
    lengths = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
    intersection = lengths.clamp(min=0).prod(dim=-1)
    areas = (first[..., 2:] - first[..., :2]).prod(dim=-1) + (second[..., 2:] - second[..., :2]).prod(dim=-1)
    return intersection / (areas - intersection + LEAST_AREA)


def complete_iou(first, second):
    """CIoU of boxes (…, 4): (…)."""
    overlap = intersection_over_union(first, second)
    apart = (first[..., :2] + first[..., 2:] - second[..., :2] - second[..., 2:]).square().sum(dim=-1)
    around = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])
    distance = apart / 4 / (around.square().sum(dim=-1) + LEAST_AREA)
    angles = []
    for box in (first, second):
        width, height = (box[..., 2:] - box[..., :2]).unbind(dim=-1)
        angles.append(torch.arctan(width / (height + LEAST_AREA)))
    shape = 4 / math.pi**2 * (angles[0] - angles[1]).square()
    weight = (shape / ((1 - overlap).clamp(min=0) + shape + LEAST_AREA)).detach()
    return overlap - distance - weight * shape


class Loss:
    """Overlap and distribution of the boxes, and binary cross-entropy of the classes.

    Args:
        image_size: height and width of the images, in pixels.
        gains: weights of 1 - CIoU, of the distribution focal loss and of the binary cross-entropy.
        device: where the outputs of the network are.
    """

    def __init__(self, image_size, gains, device):
        points, strides = [], []
        for stride in STRIDES:
            middles = (torch.arange(image_size // stride) + 0.5) * stride
            points.append(torch.cartesian_prod(middles, middles).flip(-1))
            strides.append(torch.full((len(points[-1]), 1), float(stride)))
        self.points = torch.cat(points).to(device)
        self.strides = torch.cat(strides).to(device)
        self.bins = torch.arange(BINS, dtype=torch.float32, device=device)
        self.gains = gains

    def __call__(self, sides, logits, targets):
        """The loss, a scalar.

        Args:
            sides: (batch, anchors, 4, bins), logits.
            logits: (batch, anchors, classes).
            targets: (batch, most, 5): class or -1, left, top, right, bottom in pixels.
        """
        distances = (sides.softmax(dim=-1) @ self.bins) * self.strides
        boxes = torch.cat([self.points - distances[..., :2], self.points + distances[..., 2:]], dim=-1)
        target_boxes, target_scores = self.assign(logits, boxes, targets)
        class_loss = functional.binary_cross_entropy_with_logits(logits, target_scores, reduction="sum")

        # Only few anchors learn a box.
        weights = target_scores.sum(dim=-1)
        image, anchor = weights.nonzero(as_tuple=True)
        weights, target_boxes = weights[image, anchor], target_boxes[image, anchor]
        overlap_loss = ((1 - complete_iou(boxes[image, anchor], target_boxes)) * weights).sum()
        points, strides = self.points[anchor], self.strides[anchor]
        distances = torch.cat([points - target_boxes[:, :2], target_boxes[:, 2:] - points], dim=-1) / strides
        nearness = (1 - (distances.clamp(0, BINS - 1.01)[..., None] - self.bins).abs()).clamp(min=0)
        cross_entropy = -(nearness * sides[image, anchor].log_softmax(dim=-1)).sum(dim=-1)
        distribution_loss = (cross_entropy.mean(dim=-1) * weights).sum()

        losses = overlap_loss, distribution_loss, class_loss
        return sum(gain * loss for gain, loss in zip(self.gains, losses, strict=True)) / weights.sum().clamp(min=1)

    @torch.no_grad()
    def assign(self, logits, boxes, targets, candidates=10, alpha=0.5, beta=6.0):
        """Task-aligned assignment: boxes (batch, anchors, 4) and scores (batch, anchors, classes) to learn."""
        used = (targets[..., 0] >= 0).any(dim=0)
        used[0] = True  # so that there is a row
        targets = targets[:, used]
        labels, truth = targets[..., 0].long(), targets[..., 1:]

        # From here on (batch, most, anchors); what depends on two boxes only where an anchor is inside a true one.
        inside = (labels >= 0)[..., None].repeat(1, 1, len(self.points))
        for axis in range(2):
            low, high = truth[..., axis], truth[..., axis + 2]
            reach = ((high - low) / 2).clamp(min=STRIDES[0] / 2)
            inside &= (self.points[:, axis] - ((low + high) / 2)[..., None]).abs() <= reach[..., None]
        image, box, anchor = pairs = inside.nonzero(as_tuple=True)
        overlap = intersection_over_union(truth[image, box], boxes[image, anchor])
        likely = logits[image, anchor, labels[image, box]].sigmoid()
        overlaps, alignment = torch.zeros((2, *inside.shape), device=logits.device)
        overlaps[pairs] = overlap
        alignment[pairs] = likely**alpha * overlap**beta
        least = alignment.topk(min(candidates, len(self.points))).values[..., -1:]
        taken = (alignment >= least) & (alignment > 0)

        owner = (overlaps * taken).argmax(dim=1)  # (batch, anchors), the first box where there is none
        owned = taken & (owner[:, None] == torch.arange(truth.shape[1], device=owner.device)[:, None])
        alignment = alignment * owned
        best_alignment = alignment.amax(dim=2, keepdim=True).clamp(min=LEAST_ALIGNMENT)
        best_overlap = (overlaps * owned).amax(dim=2, keepdim=True)
        fit = (alignment / best_alignment * best_overlap).amax(dim=1)
        target_scores = torch.zeros_like(logits)
        target_scores.scatter_(2, labels.gather(1, owner).clamp(min=0)[..., None], fit[..., None])
        return truth.gather(1, owner[..., None].expand(-1, -1, 4)), target_scores


class Trainer(NativeTrainer):
    """Trains the network, from the weights of a Keras model.

    Args:
        config: options of the recipe.
        model: the recipe's model, compiled.
        steps: of the whole training.
    """

    def __init__(self, config, model, steps):
        require_options(config, precision="float32")
        network = Network(config.size, model.output_shape[-1] - 4 * BINS)
        load_weights(network.to(memory_format=torch.channels_last), model)
        rate = functools.partial(warmup_cosine_rate, peak=config.learning_rate, steps=steps, warmup=config.warmup)
        optimizer = Adam(kernels_and_others(network), rate, weight_decay=config.weight_decay)
        super().__init__(network, optimizer, clip=10.0, ema=config.ema)
        gains = model.loss.box_gain, model.loss.distribution_gain, model.loss.class_gain
        self.detection_loss = Loss(config.image_size, gains, DEVICE)

    def loss(self, images, targets):
        return self.detection_loss(*self.network(images), targets)
