"""Text that goes on: python complete.py model.json "ROMEO:" [LENGTH SEED]

Needs onnxruntime and numpy, for subwords sentencepiece too. A model that was fine-tuned on conversations answers.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

about, prompt, (length, seed) = Path(sys.argv[1]), sys.argv[2], map(int, sys.argv[3:] or [500, 0])
facts = json.loads(about.read_text(encoding="utf-8"))
sessions = {name: onnxruntime.InferenceSession(about.parent / each["file"]) for name, each in facts["graphs"].items()}
alphabet, special, window, end = facts.get("alphabet"), facts.get("special_tokens"), facts["window"], None
if alphabet:
    tokens = [alphabet.index(each) for each in prompt if each in alphabet[1:]] or [max(1, alphabet.find("\n"))]
else:
    import sentencepiece

    subwords = sentencepiece.SentencePieceProcessor(model_file=str(about.parent / facts["files"]["subwords"]))
    tokens = subwords.encode(prompt or "\n")
    if "longest_answer" in facts:
        tokens, end = [special["START"], *tokens[-facts["longest_context"] :], special["START"]], special["END"]
before, start, rng = len(tokens), 0, np.random.default_rng(seed)
while len(tokens) < before + length and tokens[-1] != end:
    if len(tokens) == before or len(tokens) - start >= window:  # reads the beginning, or the half of what it has seen
        start = len(tokens) - window // 2 if len(tokens) - start >= window else 0
        (logits,), state = sessions["encode"].run(["logits", "state"], {"tokens": np.array([tokens[start:]], np.int32)})
    else:
        inputs = {"token": np.array(tokens[-1:], np.int32), "state": state}
        logits, state = sessions["step"].run(["logits", "next_state"], inputs)
    likely = logits[-1].astype(np.float64)
    likely[: end or 1] = -np.inf  # tokens that stand for no text
    weights = np.exp((likely - likely.max()) / (facts["temperature"] or 1e-9))
    tokens.append(int(rng.choice(len(weights), p=weights / weights.sum())))
written = tokens[before : -1 if tokens[-1] == end else None]
print("".join(alphabet[token] for token in written) if alphabet else subwords.decode(written))
