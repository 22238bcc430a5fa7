"""Objects in images: python detect.py model.json photo.jpg …    Needs onnxruntime, numpy and pillow."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

about = Path(sys.argv[1])
facts = json.loads(about.read_text(encoding="utf-8"))
graph = facts["graphs"]["model"]
size = graph["inputs"]["image"]["shape"][1]
thresholds = {name: np.array(graph["inputs"][name]["default"], np.float32) for name in ("confidence", "overlap")}
session = onnxruntime.InferenceSession(about.parent / graph["file"])

for name in sys.argv[2:]:
    image = Image.open(name).convert("RGB")
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    offset = (size - width) // 2, (size - height) // 2
    square = Image.new("RGB", (size, size), (114, 114, 114))
    square.paste(image.resize((width, height), Image.Resampling.BILINEAR), offset)
    outputs = ["boxes", "scores", "labels"]
    found = session.run(outputs, {"image": np.asarray(square)[None], **thresholds})
    boxes, scores, labels = (each[0] for each in found)
    boxes = np.clip((boxes - np.tile(offset, 2)) / scale, 0, np.tile(image.size, 2))
    for box, score, label in zip(boxes, scores, labels, strict=True):
        if label >= 0:
            left, top, right, bottom = box
            print(f"{name}: {facts['classes'][label]} {score:.2f} at {left:.1f} {top:.1f} {right:.1f} {bottom:.1f}")
