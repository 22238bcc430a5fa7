"""The exported graphs of models that generate text token by token."""

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from shared.backends.exporting import Graph, Tensor
from shared.data.randomness import random_stream
from shared.data.text.characters import character_codes
from shared.text.causal_model import CachedWriter, continued, model_parts
from shared.text.chat_tuning import chat_answer
from shared.text.decoding import SequenceWriter, generate
from shared.text.graph_writing import cached_writer_by, graph_decoding, sequence_writer_by
from shared.text.language_model import read_on
from shared.text.options import ChatOptions
from shared.text.pairs import encoder_inputs, padded
from shared.text.responder import Answerer
from shared.text.sampling import Sampling
from shared.text.subwords import END, PAD, START, UNKNOWN
from shared.text.tokens import CharacterVocabulary, Vocabulary
from shared.text.translator import LONGEST, Translator
from shared.training.exports import Exported, GraphCall, model_graph, split_caches, stacked_caches, with_room
from shared.training.predictors import Conversation, Text, TextStream

SPECIAL_TOKENS = {"PAD": PAD, "UNKNOWN": UNKNOWN, "START": START, "END": END}


class ExportedWriter(Exported):
    """An encoder, and a decoder that is called for each token."""

    def inputs(self, sizes: dict[str, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Sources of several lengths, with padding, and targets."""
        below, longest = self.raw.inputs["source"].below, sizes["source_length"]
        sources = [rng.integers(END + 1, below, longest - 1 - row % 2) for row in range(sizes["batch"])]
        targets = [[START, *rng.integers(END + 1, below, sizes["target_length"] - 1)] for _ in sources]
        return {"source": encoder_inputs(sources, longest), "target": padded(targets, sizes["target_length"])}

    def computed(self, call: GraphCall, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The logits of each target token, one after the other."""
        context, logits = call("encode", {"source": inputs["source"]}), []
        for token in inputs["target"].T:
            outputs = call("step", {"token": token, **context})
            logits.append(outputs["logits"])
            context["state"] = outputs["next_state"]
        return {"logits": np.stack(logits, axis=1)}


def exported_writer(
    model: keras.Model, vocabulary: int, encode: Callable, step: Callable, state: tuple, after: tuple, memory: tuple,
    **description: Any,
) -> Exported:  # fmt: skip
    """The graphs "encode" and "step" of an encoder–decoder.

    Args:
        model: from a dictionary of "source" and "target" to logits.
        vocabulary: number of tokens.
        encode: from the source to state, memory and mask.
        step: from token, state, memory and mask to logits and state.
        state: shape of the state before a step.
        after: shape of the state after a step.
        memory: shape of the memory.
        description: the task, usage and files of `Exported`.
    """
    raw = model_graph(model, outputs="logits", below=vocabulary)
    tensors = {
        "memory": Tensor(memory),
        "mask": Tensor(("batch", "source_length"), "bool"),
    }
    token = {"token": Tensor(("batch",), "int32", vocabulary)}
    graphs = [
        Graph("encode", encode, {"source": raw.inputs["source"]}, {"state": Tensor(state), **tensors}),
        Graph(
            "step",
            step,
            {**token, "state": Tensor(state), **tensors},
            {"logits": Tensor(("batch", vocabulary)), "next_state": Tensor(after)},
        ),
    ]
    about = {
        "source": "ids of subwords, then END; in a batch shorter ones are filled with PAD",
        "target": "START, then ids of subwords",
        "token": "START in the first step, then the token chosen in the step before",
        "state": "of encode in the first step, then next_state of the step before",
        "next_state": "for the next step; its rows may be reordered, as by beam search",
        "memory": "of encode, the same in each step",
        "mask": "of encode, the same in each step",
        "logits": "of the next token",
    }
    description["usage"] = {"special_tokens": SPECIAL_TOKENS, "tokenizer": "sentencepiece"} | description["usage"]
    return ExportedWriter(model, raw=raw, graphs=graphs, about=about, **description)


def exported_translator(model: keras.Model, translator: Translator, directory: Path) -> Exported:
    """A Transformer, whose state is the key-value cache: as long as there are tokens, empty at first.

    Args:
        model: of the translator.
        translator: with the decoding options.
        directory: of the run.
    """
    attention = translator.decoder.blocks[0].attention
    layers, heads = 2 * len(translator.decoder.blocks), attention.heads
    depth = model.get_layer("embedding").output_dim // heads

    def encode(source: Any) -> dict[str, Any]:
        mask = ops.not_equal(source, PAD)
        outputs = translator.encoder(translator.embedded(source), key_mask=mask, training=False)
        memory = stacked_caches(translator.decoder.memory_keys_values(outputs))
        return {"state": memory[:, :, :, :0], "memory": memory, "mask": mask}

    def step(token: Any, state: Any, memory: Any, mask: Any) -> dict[str, Any]:
        index, caches = with_room(state)
        logits, caches = translator.step(token, index, caches, (split_caches(memory), mask))
        return {"logits": logits, "next_state": stacked_caches(caches)}

    def predictor_by(call: GraphCall) -> Callable:
        @functools.lru_cache(4)
        def translator_with(beams: int, length_penalty: float) -> SequenceWriter:
            return sequence_writer_by(call, Translator(model, translator.subwords, beams, length_penalty))

        def translate_text(text: Text, **options: Any) -> Text:
            return Text(translator_with(**options)([text.strip()])[0])

        translate_text.several = lambda texts, **options: translator_with(**options).several(texts)
        return translate_text

    method, most = translator.method, translator.length(0)
    return exported_writer(
        model, len(translator.subwords), encode, step, ("batch", layers, heads, "tokens - 1", depth),
        ("batch", layers, heads, "tokens", depth), ("batch", layers, heads, "source_length", depth),
        task="translation",
        usage={
            "longest_source": LONGEST,
            "longest_target": {"for_each_16_source_tokens": translator.length(16) - most, "more": most},
            "beams": method.beams,
            "length_penalty": getattr(method, "length_penalty", 0.0),
        },
        files={"subwords": directory / "subwords.model"},
        predictor_by=predictor_by,
    )  # fmt: skip


def exported_answerer(model: keras.Model, answerer_with: Callable[..., Answerer], directory: Path) -> Exported:
    """A recurrent encoder–decoder, whose states are joined to one.

    Args:
        model: of the answerer.
        answerer_with: makes one, with decoding options other than those of the run.
        directory: of the run.
    """
    answerer = answerer_with()
    _, memory, _, *states = answerer.decoder.inputs
    units = [state.shape[-1] for state in states]

    def encode(source: Any) -> dict[str, Any]:
        states, (memory, mask) = answerer.encoded(source)
        return {"state": ops.concatenate(states, axis=-1), "memory": memory, "mask": mask}

    def step(token: Any, state: Any, memory: Any, mask: Any) -> dict[str, Any]:
        logits, states = answerer.step(token, 0, split_state(state, units), [memory, mask])
        return {"logits": logits, "next_state": ops.concatenate(states, axis=-1)}

    def predictor_by(call: GraphCall) -> Callable:
        @functools.lru_cache(4)
        def writer_with(**options: Any) -> SequenceWriter:
            return sequence_writer_by(call, answerer_with(**options))

        def answer_turn(conversation: Conversation, **options: Any) -> Text:
            return Text(writer_with(**options).answer(conversation))

        answer_turn.several = lambda conversations, **options: writer_with(**options).several(conversations)
        return answer_turn

    state, method = ("batch", sum(units)), answerer.method
    return exported_writer(
        model, len(answerer.subwords), encode, step, state, state, ("batch", "source_length", memory.shape[-1]),
        task="dialogue",
        usage={
            "context": "ids of the last turns, END between them; of more tokens than fit the last",
            "turns": answerer.turns,
            "longest_context": answerer.context,
            "longest_answer": answerer.answer_length,
            "beams": method.beams,
            "length_penalty": getattr(method, "length_penalty", 0.0),
            "no_repeat": method.no_repeat,
        },
        files={"subwords": directory / "subwords.model"},
        predictor_by=predictor_by,
    )  # fmt: skip


def split_state(state: Any, sizes: list[int]) -> list[Any]:
    """States (batch, size) of these sizes that were joined to one."""
    edges = [0, *itertools.accumulate(sizes)]
    return [state[:, start:end] for start, end in itertools.pairwise(edges)]


class ExportedCausalModel(Exported):
    """A decoder-only model, which reads the beginning of a text at once and the rest token by token."""

    def inputs(self, sizes: dict[str, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Tokens, at most as many as the model may see."""
        return {"tokens": super().inputs(sizes, rng)["tokens"][:, : self.usage["window"]]}

    def computed(self, call: GraphCall, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The logits of each token: of the first two by "encode", of the rest by "step"."""
        outputs = call("encode", {"tokens": inputs["tokens"][:, :2]})
        logits, state = [outputs["logits"]], outputs["state"]
        for token in inputs["tokens"][:, 2:].T:
            outputs = call("step", {"token": token, "state": state})
            logits.append(outputs["logits"][:, None])
            state = outputs["next_state"]
        return {"logits": np.concatenate(logits, axis=1)}


def exported_causal_model(
    model: keras.Model, vocabulary: Vocabulary, options: ChatOptions, directory: Path
) -> Exported:
    """A decoder-only Transformer, whose state is the key-value cache, as long as there are tokens.

    Args:
        model: see `model_parts`.
        vocabulary: of the model.
        options: of the training and of sampling.
        directory: of the run.
    """
    raw, (embed, decoder, logits_of) = model_graph(model, "tokens", "logits", below=len(vocabulary)), model_parts(model)
    attention = decoder.blocks[0].attention
    depth = model.get_layer("embedding").output_dim // attention.heads
    state = Tensor(("batch", 2 * len(decoder.blocks), attention.key_value_heads, "past", depth))
    after = state._replace(shape=tuple("past + 1" if size == "past" else size for size in state.shape))
    whole = state._replace(shape=tuple("tokens_length" if size == "past" else size for size in state.shape))

    def encode(tokens: Any) -> dict[str, Any]:
        x, caches = decoder.read(embed(tokens))
        return {"logits": logits_of(x), "state": stacked_caches(caches)}

    def step(token: Any, state: Any) -> dict[str, Any]:
        index, caches = with_room(state)
        x, caches = decoder.step(embed(token[:, None], index), caches, index)
        return {"logits": logits_of(x)[:, 0], "next_state": stacked_caches(caches)}

    def predictor_by(call: GraphCall) -> Callable:
        @functools.lru_cache(4)
        def writer(end: int | None, **given: Any) -> CachedWriter:
            return cached_writer_by(call, CachedWriter(model, options.window, replace(options, **given).sampling(end)))

        def write_text(prompt: Text, length: int, sample_seed: int, **given: Any) -> TextStream:
            return TextStream(continued(writer(None, **given), vocabulary, prompt, length, sample_seed))

        def answer_turn(conversation: Conversation, chat: bool, sample_seed: int, **given: Any) -> Text:
            if not chat:
                return Text("".join(write_text(conversation[-1], options.length, sample_seed, **given)))
            return Text(chat_answer(writer(END, **given), vocabulary, conversation, options, sample_seed))

        return write_text if options.finetune == "none" else answer_turn

    token, next_logits = Tensor(("batch",), "int32", len(vocabulary)), Tensor(("batch", len(vocabulary)))
    graphs = [
        Graph("encode", encode, raw.inputs, {**raw.outputs, "state": whole}),
        Graph("step", step, {"token": token, "state": state}, {"logits": next_logits, "next_state": after}),
    ]
    about = {
        "tokens": f"of a text, at most {options.window}",
        "token": "the token chosen last",
        "state": "of encode, then next_state of the step before",
        "next_state": "for the next step; its rows may be reordered",
        "logits": "of the token after each; after the last one in a step",
    }
    usage = {
        "window": options.window,
        "longer": f"where {options.window} tokens are read, encode reads the last {options.window // 2} again",
        "temperature": options.temperature,
    }
    if isinstance(vocabulary, CharacterVocabulary):
        usage["alphabet"] = vocabulary.alphabet
        usage["tokens"] = "places of characters in the alphabet; 0 stands for all others, and is not to be chosen"
        files, task = {}, "language modelling by characters"
    else:
        usage |= {"special_tokens": SPECIAL_TOKENS, "tokenizer": "sentencepiece"}
        files, task = {"subwords": directory / "subwords.model"}, "language modelling by subwords"
    if options.finetune != "none":
        usage["prompt"] = "START before each turn, and before the answer, which END ends"
        usage |= {"turns": options.turns, "longest_context": options.context, "longest_answer": options.answer}
        task = "dialogue by a language model"
    return ExportedCausalModel(model, task, raw, graphs, about, usage, files, predictor_by)


class ExportedLanguageModel(Exported):
    """A language model that reads on from a state."""

    def computed(self, call: GraphCall, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The logits of a text that is read in two parts."""
        codes, logits = inputs["codes"], []
        tensor = self.graphs[0].inputs["state"]
        state = np.zeros(tensor.sized({"batch": len(codes)}), tensor.dtype)
        for part in np.array_split(codes, [1], axis=1):
            outputs = call("step", {"codes": part, "state": state})
            logits.append(outputs["logits"])
            state = outputs["next_state"]
        return {"logits": np.concatenate(logits, axis=1)}


def exported_language_model(model: keras.Model, alphabet: str, temperature: float) -> Exported:
    """A recurrent language model, whose states are joined to one.

    Args:
        model: see `read_on`.
        alphabet: the character of each code.
        temperature: default of sampling.
    """
    raw = model_graph(model, "codes", "logits", below=len(alphabet))
    recurrent = [layer for layer in model.layers if isinstance(layer, keras.layers.RNN)]
    sizes = [keras.tree.flatten(layer.state_size) for layer in recurrent]
    units = [size for each in sizes for size in each]

    def step(codes: Any, state: Any) -> dict[str, Any]:
        parts = iter(split_state(state, units))
        logits, states = read_on(model, codes, [[next(parts) for _ in each] for each in sizes])
        return {"logits": logits, "next_state": ops.concatenate(keras.tree.flatten(states), axis=-1)}

    def predictor_by(call: GraphCall) -> Callable:
        def graph_step(
            tokens: np.ndarray, index: Any, state: np.ndarray, context: None
        ) -> tuple[np.ndarray, np.ndarray]:
            outputs = call("step", {"codes": tokens[:, None], "state": state})
            return outputs["logits"][:, 0], outputs["next_state"]

        @functools.lru_cache(4)
        def decoding(**options: Any) -> tuple[Sampling, Callable]:
            method = Sampling(end=None, **options)
            return method, graph_decoding(graph_step, method)

        def write_text(prompt: Text, length: int, sample_seed: int, **options: Any) -> Iterator[str]:
            codes = [int(code) for code in character_codes(prompt, alphabet) if code]
            codes = codes or [max(1, alphabet.find("\n"))]
            method, advance = decoding(**options)
            start, zeros = method.start(padded([codes], len(codes) + length)), np.zeros((1, sum(units)), np.float32)
            texts = generate(advance, start, zeros, None, random_stream(sample_seed, "tokens"))
            for index, text in enumerate(texts, 1):
                if index >= len(codes):
                    yield alphabet[int(ops.convert_to_numpy(text.ids)[0, index])]

        return write_text

    state = Tensor(("batch", sum(units)))
    graph = Graph("step", step, raw.inputs | {"state": state}, raw.outputs | {"next_state": state})
    about = {
        "codes": "of characters, any number: their places in the alphabet; code 0 stands for all others",
        "state": "zeros before a text, then next_state of the step before",
        "next_state": "after the last of these characters",
        "logits": "of the character after each; code 0 is not to be chosen",
    }
    usage = {"alphabet": alphabet, "temperature": temperature}
    task = "language modelling by characters"
    return ExportedLanguageModel(model, task, raw, [graph], about, usage, predictor_by=predictor_by)
