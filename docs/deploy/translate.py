"""Translations: python translate.py model.json "Ein Hund läuft." …    Needs onnxruntime, numpy and sentencepiece."""

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
special, beams = facts["special_tokens"], facts["beams"]

for text in sys.argv[2:]:
    source = [*subwords.encode(text)[: facts["longest_source"] - 1], special["END"]]
    context = sessions["encode"].run(["state", "memory", "mask"], {"source": np.array([source], np.int32)})
    state, memory, mask = (np.repeat(each, beams, axis=0) for each in context)
    live, scores, ended = [[special["START"]]] * beams, np.array([0.0] + [-np.inf] * (beams - 1)), []
    most = (
        facts["longest_target"]["for_each_16_source_tokens"] * -(-len(source) // 16) + facts["longest_target"]["more"]
    )
    for length in range(1, most):
        inputs = {"token": np.array([tokens[-1] for tokens in live], np.int32), "memory": memory, "mask": mask}
        logits, state = sessions["step"].run(["logits", "next_state"], inputs | {"state": state})
        logits -= logits.max(axis=1, keepdims=True)
        total = scores[:, None] + logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        total[:, : special["END"]] = -np.inf
        best = [divmod(int(index), total.shape[1]) for index in np.argsort(-total, axis=None)[: 2 * beams]]
        penalty = ((5 + length) / 6) ** facts["length_penalty"]
        ended += [(total[row, token] / penalty, live[row]) for row, token in best[:beams] if token == special["END"]]
        if len(ended) >= beams:
            break
        kept = [(row, token) for row, token in best if token != special["END"]][:beams]
        live, state = [[*live[row], token] for row, token in kept], state[[row for row, _ in kept]]
        scores = np.array([total[each] for each in kept])
    print(subwords.decode(max(ended or [(0.0, live[0])])[1][1:]))
