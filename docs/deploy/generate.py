"""Images of a class: python generate.py model.json Sneaker out.png [SEED]    Needs onnxruntime and numpy."""

import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import onnxruntime

about, name, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
facts = json.loads(about.read_text(encoding="utf-8"))
graphs, rng = facts["graphs"], np.random.default_rng(int(sys.argv[4]) if sys.argv[4:] else 0)
sessions = {name: onnxruntime.InferenceSession(about.parent / graph["file"]) for name, graph in graphs.items()}

if "decode" in graphs:  # a vector-quantized autoencoder
    _, blocks, heads, _, depth = graphs["step"]["inputs"]["state"]["shape"]
    rows, columns = graphs["decode"]["inputs"]["codes"]["shape"][1:]
    codes, state = [np.full(8, facts["start"], np.int32)], np.zeros((8, blocks, heads, 0, depth), np.float32)
    while len(codes) <= rows * columns:
        logits, state = sessions["step"].run(["logits", "next_state"], {"before": codes[-1], "state": state})
        codes.append(np.argmax(logits + rng.gumbel(size=logits.shape), axis=1).astype(np.int32))
    (images,) = sessions["decode"].run(["images"], {"codes": np.stack(codes[1:], axis=1).reshape(8, rows, columns)})
else:  # a generative adversarial network, or a variational autoencoder
    inputs = graphs["model"]["inputs"]
    label = np.full(8, facts["classes"].index(name) if facts["classes"] else 0, np.int32)
    given = {"noise": rng.standard_normal((8, inputs["noise"]["shape"][1]), np.float32), "label": label}
    (images,) = sessions["model"].run(["images"], {name: given[name] for name in inputs})

pixels = np.clip(np.round((np.concatenate(images, axis=1) + 1) * 127.5), 0, 255).astype(np.uint8)
rows = np.insert(pixels.reshape(len(pixels), -1), 0, 0, axis=1).tobytes()
header = struct.pack(">IIBBBBB", pixels.shape[1], len(pixels), 8, 2 if pixels.shape[2] == 3 else 0, 0, 0, 0)
parts = [kind + data for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))]
chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
out.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
