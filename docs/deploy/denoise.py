"""Images by diffusion: python denoise.py model.json Sneaker out.png [SEED]    Needs onnxruntime and numpy."""

import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import onnxruntime

about, name, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
facts = json.loads(about.read_text(encoding="utf-8"))
graph, rng = facts["graphs"]["model"], np.random.default_rng(int(sys.argv[4]) if sys.argv[4:] else 0)
session = onnxruntime.InferenceSession(about.parent / graph["file"])
images = rng.standard_normal((8, *graph["inputs"]["image"]["shape"][1:]), np.float32)
before = np.zeros_like(images)
labels = np.repeat(np.array([facts["classes"].index(name), facts["null_label"]], np.int32), 8)

for step in facts["steps"]:
    time = np.full(16, step["time"], np.float32)
    (output,) = session.run(["outputs"], {"image": np.concatenate([images, images]), "time": time, "label": labels})
    output = output[8:] + (1 + step["guided"] * (facts["guidance"] - 1)) * (output[:8] - output[8:])
    signal, noise = step["signal"], step["noise"]
    clean = signal * images - noise * output if facts["prediction"] == "v" else (images - noise * output) / signal
    clean, fresh = np.clip(clean, -1, 1), step["fresh"] * rng.standard_normal(images.shape)
    images = (step["keep"] * images + step["image"] * clean + step["before"] * before + fresh).astype(np.float32)
    before = clean

pixels = np.clip(np.round((np.concatenate(images, axis=1) + 1) * 127.5), 0, 255).astype(np.uint8)
rows = np.insert(pixels.reshape(len(pixels), -1), 0, 0, axis=1).tobytes()
header = struct.pack(">IIBBBBB", pixels.shape[1], len(pixels), 8, 2 if pixels.shape[2] == 3 else 0, 0, 0, 0)
parts = [kind + data for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))]
chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
out.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
