"""Text that goes on: python write.py model.json "ROMEO:" [LENGTH [SEED]]    Needs onnxruntime and numpy."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

about, prompt = Path(sys.argv[1]), sys.argv[2]
length, seed = (int(number) for number in [*sys.argv[3:], *[500, 0][len(sys.argv) - 3 :]])
facts = json.loads(about.read_text(encoding="utf-8"))
graph, alphabet, temperature = facts["graphs"]["step"], facts["alphabet"], facts["temperature"]
session = onnxruntime.InferenceSession(about.parent / graph["file"])
rng = np.random.default_rng(seed)

codes = [alphabet.index(character) for character in prompt if character in alphabet[1:]]
codes = codes or [max(1, alphabet.find("\n"))]
state = np.zeros((1, graph["inputs"]["state"]["shape"][1]), np.float32)
for _ in range(length):
    inputs = {"codes": np.array([codes], np.int32), "state": state}
    logits, state = session.run(["logits", "next_state"], inputs)
    likely = logits[0, -1, 1:].astype(np.float64)  # without code 0, which stands for all other characters
    weights = np.exp((likely - likely.max()) / temperature) if temperature else likely == likely.max()
    codes = [1 + int(rng.choice(len(weights), p=weights / weights.sum()))]
    print(alphabet[codes[0]], end="", flush=True)
print()
