"""A chatbot: python chat.py model.json    reads a turn a line. Needs onnxruntime, numpy and sentencepiece."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import sentencepiece

about = Path(sys.argv[1])
facts = json.loads(about.read_text(encoding="utf-8"))
sessions = {name: onnxruntime.InferenceSession(about.parent / each["file"]) for name, each in facts["graphs"].items()}
subwords = sentencepiece.SentencePieceProcessor(model_file=str(about.parent / facts["files"]["subwords"]))
special, size = facts["special_tokens"], facts["no_repeat"]


def answer(turns):
    joined = [token for turn in turns[-facts["turns"] :] for token in (special["END"], *subwords.encode(turn))]
    source = [*joined[1:][-facts["longest_context"] :], special["END"]]
    state, memory, mask = sessions["encode"].run(["state", "memory", "mask"], {"source": np.array([source], np.int32)})
    tokens = [special["START"]]
    while len(tokens) < facts["longest_answer"]:
        inputs = {"token": np.array(tokens[-1:], np.int32), "state": state, "memory": memory, "mask": mask}
        (logits,), state = sessions["step"].run(["logits", "next_state"], inputs)
        logits[: special["END"] + (len(tokens) == 1)] = -np.inf  # no answer is empty
        for start in range(len(tokens) - size + 1 if size else 0):  # and no run of tokens comes twice
            if tokens[start : start + size - 1] == tokens[len(tokens) - size + 1 :]:
                logits[tokens[start + size - 1]] = -np.inf
        tokens.append(int(logits.argmax()))
        if tokens[-1] == special["END"]:
            break
    return subwords.decode(tokens[1:])


turns = []
for line in sys.stdin:
    turns += [line.strip(), answer([*turns, line.strip()])]
    print(turns[-1], flush=True)
