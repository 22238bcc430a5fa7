"""Masks of images of any size: python segment.py model.json photo.png …    Needs onnxruntime, numpy and pillow."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

about = Path(sys.argv[1])
facts = json.loads(about.read_text(encoding="utf-8"))
_, size, _, channels = facts["graphs"]["model"]["inputs"]["image"]["shape"]
session = onnxruntime.InferenceSession(about.parent / facts["graphs"]["model"]["file"])
weight, step = np.minimum(np.arange(1, size + 1), np.arange(size, 0, -1)), max(1, round(size * (1 - facts["overlap"])))


def spread(labels, where, over):  # to pixels beside them, the highest first, also over others or not
    while True:
        sides = [np.roll(np.pad(labels, 1), by, axis)[1:-1, 1:-1] for axis in (0, 1) for by in (-1, 1)]
        after = np.where(where & (over | (labels == 0)), np.max([labels, *sides], axis=0), labels)
        if (after == labels).all():
            return labels * (np.bincount(labels.ravel())[labels] >= facts["smallest"])
        labels = after


for path in map(Path, sys.argv[2:]):
    pixels = np.atleast_3d(np.asarray(Image.open(path).convert("RGB" if channels == 3 else "L")))
    (height, width), (down, right) = pixels.shape[:2], (max(0, size - side) for side in pixels.shape[:2])
    edges = (down // 2, down - down // 2), (right // 2, right - right // 2), (0, 0)
    pixels = np.pad(pixels, edges, mode="reflect")  # images smaller than a tile are mirrored at their edges
    starts = [np.linspace(0, each, 1 + -(-each // step)).round().astype(int) for each in np.array(pixels.shape) - size]
    total = np.zeros((*pixels.shape[:2], *facts["graphs"]["model"]["outputs"]["probabilities"]["shape"][-1:]))
    for top, left in itertools.product(*starts[:2]):
        tile = slice(top, top + size), slice(left, left + size)
        total[tile] += np.outer(weight, weight)[..., None] * session.run(None, {"image": pixels[tile][None]})[0][0]
    total = total[down // 2 :, right // 2 :][:height, :width]
    mask = total.argmax(axis=-1).astype(np.uint8)
    if facts["objects"]:  # of background, interior and border: connected interiors, which grow over the border
        covered = 2 * total[..., 0] < total.sum(axis=-1)
        inside = covered & (total[..., 1] > total[..., 2])
        seeds = spread(np.where(inside, 1 + np.arange(inside.size).reshape(inside.shape), 0), inside, True)
        mask = np.unique(spread(seeds, covered, False), return_inverse=True)[1].reshape(mask.shape).astype(np.uint16)
    Image.fromarray(mask).save(path.with_name(f"{path.stem}-mask.png"))
    print(f"{path}: {mask.max()} objects" if facts["objects"] else f"{path}: classes {np.unique(mask)}")
