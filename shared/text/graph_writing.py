"""Text by exported graphs: these compute the logits, and the running backend chooses among them."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from shared.backends.compiling import compiled_inference
from shared.text.causal_model import CachedWriter
from shared.text.decoding import Method, SequenceWriter, decoding_step
from shared.text.subwords import PAD
from shared.training.exports import GraphCall


def graph_decoding(step: Callable, method: Method, least: int = 0) -> Callable:
    """What `decoding_step` makes, of a step by an exported graph.

    The choice alone is compiled: with the logits as the context, and the numbers of the rows as the state, which it
    returns in the order in which they go on.

    Args:
        step: from tokens (rows,), position, state and context to logits (rows, vocabulary) and the new state, as NumPy
            arrays; the state has a leading axis of rows.
        method: how tokens are chosen from the logits.
        least: minimum tokens of a sequence.
    """
    choose = compiled_inference(decoding_step(lambda tokens, index, rows, logits: (logits, rows), method, least))

    def advance(sequences: Any, index: Any, state: np.ndarray, context: Any, uniform: Any) -> tuple[Any, Any, Any]:
        tokens = ops.convert_to_numpy(sequences.last).reshape(-1).astype(np.int32)
        logits, state = step(tokens, index, state, context)
        rows = np.arange(len(tokens), dtype=np.int32)
        sequences, order, done = choose(sequences, index, rows, logits, uniform)
        return sequences, state[ops.convert_to_numpy(order)] if method.beams > 1 else state, done

    return advance


def sequence_writer_by(call: GraphCall, writer: SequenceWriter) -> SequenceWriter:
    """A writer of an encoder–decoder whose graphs are "encode" and "step".

    Args:
        call: runs the graphs.
        writer: with the model in Keras, which is left as it is.
    """

    def encode(sources: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        outputs = call("encode", {"source": sources})
        found = {name: np.repeat(each, writer.method.beams, axis=0) for name, each in outputs.items()}
        return found.pop("state"), found

    def step(tokens: np.ndarray, index: Any, state: np.ndarray, context: dict) -> tuple[np.ndarray, np.ndarray]:
        outputs = call("step", {"token": tokens, "state": state, **context})
        return outputs["logits"], outputs["next_state"]

    writer = copy.copy(writer)
    writer.encode, writer.advance = encode, graph_decoding(step, writer.method, writer.least)
    return writer


def cached_writer_by(call: GraphCall, writer: CachedWriter) -> CachedWriter:
    """A writer of a decoder-only model whose graphs are "encode" and "step".

    Args:
        call: runs the graphs.
        writer: with the model in Keras, which is changed.
    """

    def read(ids: np.ndarray) -> np.ndarray:
        before = np.count_nonzero(ids[0] != PAD) - 1  # the last token is read by a step
        return call("encode", {"tokens": ids[:, : before + 1]})["state"][:, :, :, :before]

    def step(tokens: np.ndarray, index: Any, state: np.ndarray, context: None) -> tuple[np.ndarray, np.ndarray]:
        outputs = call("step", {"token": tokens, "state": state})
        return outputs["logits"], outputs["next_state"]

    writer.read, writer.advance = read, graph_decoding(step, writer.method)
    return writer
