"""Classes of images: python classify.py model.json photo.jpg …    Needs onnxruntime, numpy and pillow."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

about = Path(sys.argv[1])
facts = json.loads(about.read_text(encoding="utf-8"))
graph = facts["graphs"]["model"]
_, height, width, channels = graph["inputs"]["image"]["shape"]
session = onnxruntime.InferenceSession(about.parent / graph["file"])

for name in sys.argv[2:]:
    image = ImageOps.fit(Image.open(name).convert("RGB"), (width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    if channels == 1:
        pixels = np.round(pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None]
    (probabilities,) = session.run(["probabilities"], {"image": pixels[None]})
    best = np.argsort(-probabilities[0])[:3]
    print(f"{name}: " + ", ".join(f"{facts['classes'][index]} {probabilities[0, index]:.1%}" for index in best))
