"""Dialogue responses by a trained encoder–decoder with recurrent layers."""

from typing import Any

import keras
import numpy as np
from keras import ops

from shared.text.decoding import SequenceWriter, WritingOptions
from shared.text.dialogue import encode_context
from shared.text.pairs import encoder_inputs, padded
from shared.text.subwords import PAD, START, Subwords
from shared.training.predictors import TOGETHER


class Answerer(SequenceWriter):
    """Generates answers to contexts token by token, carrying the states of the decoder.

    Args:
        model: with the layers embedding; encoder, from embedded sources and their mask to memory and states; and
            decoder, from embedded targets, memory, mask and states to vectors, whose logits the reversed embedding
            computes, and states. `attention` needs a decoder with the layer "attention" (`GlobalAttention`).
        subwords: its vocabulary.
        options: decoding options.
        turns: maximum turns of a context.
        context: maximum subwords of a context.
        answer: maximum subwords of an answer.
        rows: answers per batch.
    """

    least = 1

    def __init__(
        self,
        model: keras.Model,
        subwords: Subwords,
        options: WritingOptions,
        turns: int,
        context: int,
        answer: int,
        rows: int,
    ):
        self.subwords = subwords
        self.turns = turns
        self.context = context
        self.answer_length = answer + 1
        self.rows = rows
        self.embedding, self.encoder, self.decoder = map(model.get_layer, ("embedding", "encoder", "decoder"))
        super().__init__(self.encoded, self.step, [model], options.method(), options.seed)

    def __call__(self, contexts: list[list[int]]) -> list[list[int]]:
        """The answers, at least a token each, to any number of contexts."""
        parts = [contexts[start : start + self.rows] for start in range(0, len(contexts), self.rows)]
        size = (self.context + 1, self.answer_length, self.rows)
        return [answer for part in parts for answer in self.write(part, *size)]

    def encoded(self, source: Any) -> tuple[list, list]:
        """Initial decoder states for sources (batch, m), and the context of each step: memory and mask."""
        mask = ops.not_equal(source, PAD)
        memory, *states = self.encoder([self.embedding(source), mask], training=False)
        return states, [memory, mask]

    def step(self, tokens: Any, index: Any, states: list, context: list) -> tuple[Any, list]:
        """Logits (rows, vocabulary) of the tokens after tokens (rows,), and the updated states."""
        x, *states = self.decoder([self.embedding(tokens[:, None]), *context, *states], training=False)
        return self.embedding(x[:, 0], reverse=True), states

    def answer(self, turns: list[str]) -> str:
        """The answer to the last of the turns of a conversation."""
        context = encode_context([self.subwords.encode(turn) for turn in turns[-self.turns :]], self.context)
        return self.subwords.decode(self([context])[0])

    def several(self, conversations: list[list[str]]) -> list[str]:
        """The answer to the last turn of each of up to `TOGETHER` conversations, as one batch."""
        kept = [[self.subwords.encode(turn) for turn in turns[-self.turns :]] for turns in conversations]
        contexts = [encode_context(turns, self.context) for turns in kept]
        rows = TOGETHER if len(contexts) > 1 else 1
        return [self.subwords.decode(ids) for ids in self.write(contexts, self.context + 1, self.answer_length, rows)]

    def attention(
        self, sources: list[list[int]], targets: list[list[int]]
    ) -> list[tuple[np.ndarray, list[str], list[str]]]:
        """Attention weights of the decoder for each subword of some targets.

        Returns:
            For each the weights (target subwords, source subwords), and both as text; see `plot_attention`.
        """
        states, context = self.encoded(encoder_inputs(sources, self.context + 1))
        written = self.embedding(padded([[START, *target] for target in targets], self.answer_length))
        # As NumPy arrays, without the mask that Keras attaches to the outputs of a recurrent layer.
        inputs = [ops.convert_to_numpy(each) for each in (written, *context, *states)]
        looking = keras.Model(self.decoder.inputs, self.decoder.get_layer("attention").output[1])
        weights = ops.convert_to_numpy(ops.cast(looking(inputs), "float32"))
        return [
            (seen[: len(target), : len(source)], self.subwords.pieces(source), self.subwords.pieces(target))
            for seen, source, target in zip(weights, sources, targets, strict=True)
        ]
