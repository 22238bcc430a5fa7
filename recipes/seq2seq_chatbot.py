"""A chatbot of recurrent layers with attention.

A recurrent encoder reads the last turns of a conversation in both directions, and a recurrent decoder writes the
answer, looking back by attention: Luong et al. 2015, "Effective Approaches to Attention-based Neural Machine
Translation" (https://arxiv.org/abs/1508.04025), taught to converse as in Vinyals and Le 2015, "A Neural Conversational
Model" (https://arxiv.org/abs/1506.05869). Subwords go in and come out by the same embeddings (Press and Wolf 2017,
https://arxiv.org/abs/1608.05859). The same model without attention shows what attention is worth.

    KERAS_BACKEND=jax python recipes/seq2seq_chatbot.py                          DailyDialog, on two CPU cores
    KERAS_BACKEND=jax python recipes/seq2seq_chatbot.py --data chitchat          the package chitchat-dataset
    KERAS_BACKEND=jax python recipes/seq2seq_chatbot.py --data talks.jsonl       conversations in JSON, CSV, tabs …
    KERAS_BACKEND=jax python recipes/seq2seq_chatbot.py --no-baseline            without that comparison
    KERAS_BACKEND=jax recipes predict RUN --temperature 0.7                      talks

The headline is the perplexity of a subword over all answers in the test conversations.

The answers are as safe as such models give them: "I'm not sure." The recorded runs are under results/seq2seq_chatbot.
"""

import functools
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

try:
    from shared.backends.choice import require_backend
except ModuleNotFoundError:
    print("error: the package shared is not installed: run  pip install -e .  in keras-recipes", file=sys.stderr)
    sys.exit(2)
require_backend()

import keras
from keras import layers, ops

from shared.data.text.conversations import load_conversations
from shared.layers.recurrent import FusedGRU, FusedLSTM
from shared.text.decoding import WritingOptions
from shared.text.dialogue import answer_counts, answer_pairs, evenly_spread, readable_context
from shared.text.exports import exported_answerer
from shared.text.losses import Perplexity, SequenceLoss
from shared.text.metrics import distinct_n, sacre_bleu, word_perplexity
from shared.text.pairs import HeldOutPairs, PairBatches, SequencePairs
from shared.text.plots import plot_attention
from shared.text.responder import Answerer
from shared.text.samples import save_text
from shared.text.seq2seq_attention import GlobalAttention
from shared.text.subwords import PAD, Subwords, kept_subwords, read_subwords
from shared.text.transformer import TokenEmbedding
from shared.training.plots import plot_curves
from shared.training.predictors import Conversation, FinishedRun, Text
from shared.training.ranges import Count, Limit, Positive, Rate
from shared.training.run import Run, launch
from shared.training.schedules import WarmupCosine

CELLS = {"gru": FusedGRU, "lstm": FusedLSTM}
ALL = {"return_sequences": True, "return_state": True}


@dataclass(kw_only=True)
class Config(WritingOptions):
    """Trains an encoder–decoder with attention on conversations."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "test": {
            "data": "chitchat", "train_conversations": 60, "held_out": 40, "epochs": 1, "test_answers": 8,
            "baseline": False, "learning_rate": 1e-5,
        },
        "smoke": {
            "epochs": 4, "batch_size": 16, "learning_rate": 1e-2, "vocabulary": 600, "width": 64, "units": 64,
            "train_conversations": 600, "held_out": 250, "test_answers": 64, "shapes": 1, "turns": 1, "context": 20,
            "answer": 20, "beams": 2,
        },
        "full": {
            "epochs": 15, "batch_size": 128, "learning_rate": 1e-3, "vocabulary": 8000, "width": 512, "units": 1024,
            "dropout": 0.4, "test_answers": None, "shapes": 8, "context": 80, "turns": 4, "answer": 100,
        },
    }  # fmt: skip

    epochs: Count = 2
    batch_size: Count = 64
    """Pairs of context and answer a step, on average: those of short pairs have more."""
    learning_rate: Positive = 5e-3
    """The highest learning rate."""
    cell: Literal["gru", "lstm"] = "gru"
    attention: Literal["general", "dot", "additive"] = "general"
    """Score of the attention: Luong's general or dot, or Bahdanau's additive."""
    baseline: bool = True
    """Also train the same model without attention, to compare."""
    vocabulary: Count = 4000
    """Vocabulary size, in subwords, learned from the training conversations."""
    width: Count = 256
    """Embedding size, of inputs and outputs."""
    units: Count = 256
    """Units of the decoder, and of both directions of the encoder together."""
    dropout: Rate = 0.2
    label_smoothing: Rate = 0.1
    """Label smoothing factor."""
    patience: Count = 3
    """Early stopping: epochs without a lower validation loss; the best weights are taken."""
    shapes: Count = 5
    """Number of length buckets: more buckets, less padding, more compilations."""
    turns: Count = 2
    """Turns of the conversation in the context."""
    context: Count = 40
    """Maximum context length, in subwords; what was said first is cut off."""
    answer: Count = 60
    """Maximum answer length, in subwords; longer ones are not trained on, but evaluated."""
    train_conversations: Limit = None
    """Limit training to the first N conversations."""
    held_out: Limit = None
    """Limit perplexity to N answers of each held-out part."""
    test_answers: Limit = 1000
    """Number of answers to generate, for BLEU and distinct-n."""

    def __post_init__(self):
        super().__post_init__()
        self.require("units", self.units % 2 == 0, "must be even, a half for each direction")


def build_encoder(config: Config) -> keras.Model:
    """Embedded contexts and mask to memory (batch, sources, units), and the decoder's initial state."""
    embedded, mask = keras.Input((None, config.width)), keras.Input((None,), dtype="bool")
    x, cell = layers.Dropout(config.dropout)(embedded), CELLS[config.cell]
    ahead, *ends = cell(config.units // 2, name="forward", **ALL)(x, mask=mask)
    back, *starts = cell(config.units // 2, go_backwards=True, name="backward", **ALL)(x, mask=mask)
    memory = layers.Concatenate()([ahead, ops.flip(back, axis=1)])
    both = [layers.Concatenate()(pair) for pair in zip(ends, starts, strict=True)]  # of a GRU one, of an LSTM two
    states = [layers.Dense(config.units, "tanh", name=f"bridge_{i}")(state) for i, state in enumerate(both)]
    return keras.Model([embedded, mask], [memory, *states], name="encoder")


def build_decoder(config: Config, attend: bool) -> keras.Model:
    """Embedded targets, all or one, memory, mask and states to (batch, targets, width) and new states."""
    embedded, mask = keras.Input((None, config.width)), keras.Input((None,), dtype="bool")
    memory = keras.Input((None, config.units))
    states = [keras.Input((config.units,)) for _ in range(2 if config.cell == "lstm" else 1)]
    x = layers.Dropout(config.dropout)(embedded)
    x, *new_states = CELLS[config.cell](config.units, name="writer", **ALL)(x, initial_state=states)
    if attend:
        contexts, _ = GlobalAttention(config.attention, name="attention")(x, memory, mask)
        x = layers.Concatenate()([contexts, x])
    # Not Luong's tanh, which the first steps, learning subword frequencies, would saturate.
    x = layers.LayerNormalization(name="norm")(layers.Dense(config.width, name="hidden")(x))
    x = layers.Dropout(config.dropout)(x)
    return keras.Model([embedded, memory, mask, *states], [x, *new_states], name="decoder")


def build_model(config: Config, vocabulary: int, attend: bool = True) -> keras.Model:
    """Sources (batch, m) and targets (batch, n), ids, to logits (batch, n, vocabulary) of each next token."""
    source = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    embedding = TokenEmbedding(vocabulary, config.width, name="embedding")
    mask = ops.not_equal(source, PAD)
    memory, *states = build_encoder(config)([embedding(source), mask])
    x, *_ = build_decoder(config, attend)([embedding(target), memory, mask, *states])
    return keras.Model({"source": source, "target": target}, embedding(x, reverse=True), name="chatbot")


def train(run: Run, model: keras.Model, parts: dict[str, SequencePairs], data: str, phase: str = "") -> float:
    """Trains a model, and returns its test perplexity."""
    config = run.config
    batches = PairBatches(parts["train"], config.batch_size, config.seed, config.shapes)
    rate = WarmupCosine(config.learning_rate, config.epochs * len(batches), 0.1)
    model.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=1e-4, global_clipnorm=1.0),
        loss=SequenceLoss(config.label_smoothing),
        metrics=[Perplexity()],
    )
    validation, test = (HeldOutPairs(parts[part], batches.buckets) for part in ("validation", "test"))
    run.fit(model, batches, data=data, phase=phase, patience=config.patience, validation_data=validation)
    return model.evaluate(test, verbose=0, return_dict=True)["perplexity"]


def answerer(config: Config, model: keras.Model, subwords: Subwords, rows: int) -> Answerer:
    """Answerer of `rows` contexts per batch, with the options of the config."""
    return Answerer(model, subwords, config, config.turns, config.context, config.answer, rows)


def write_answers(
    run: Run, model: keras.Model, pairs: SequencePairs, subwords: Subwords
) -> tuple[dict[str, float], dict[str, Any]]:
    """Generates answers for test contexts and evaluates them; writes samples.txt and attention.png.

    Returns:
        Metrics, and facts for the result.
    """
    pairs = evenly_spread(pairs, run.config.test_answers)
    write = answerer(run.config, model, subwords, rows=32)
    written = write(pairs.sources)
    answers, references = ([subwords.decode(ids) for ids in part] for part in (written, pairs.targets))
    contexts = [readable_context(source, subwords) for source in pairs.sources]
    rows = zip(contexts, answers, references, strict=True)
    text = "\n\n".join(f"{c}\n    answer: {a}\n    said:   {s}" for c, a, s in rows)
    save_text(run.directory / "samples.txt", text)
    run.save_figure("attention.png", plot_attention(write.attention(pairs.sources[:4], written[:4])))
    (bleu, signature), (distinct_1, distinct_2) = sacre_bleu(answers, references), distinct_n(answers)
    metrics = {"bleu": bleu, "distinct_1": distinct_1, "distinct_2": distinct_2}
    return metrics, {"signature": signature, "generated_tokens_per_second": write.tokens_per_second()}


def main(run: Run) -> dict[str, float]:
    config = run.config
    data = load_conversations(config.data, config.data_dir, config.train_conversations)
    lines, identity = itertools.chain(*data.train), f"{data.name} {data.fingerprint}"
    exactly = not config.is_of_preset("vocabulary")
    subwords = kept_subwords(run.directory / "subwords.model", lines, config.vocabulary, exactly=exactly, data=identity)
    parts = answer_pairs(
        data, subwords, turns=config.turns, context=config.context, answer=config.answer, held_out=config.held_out
    )
    print(f"{data.name}: {data.found}; {answer_counts(data, parts)}")
    model = build_model(config, len(subwords))
    model.summary()
    metrics = {"perplexity": train(run, model, parts, identity)}
    metrics["word_perplexity"] = word_perplexity(metrics["perplexity"], parts["test"].targets, subwords)
    written, facts = write_answers(run, model, parts["test"], subwords)
    run.save_figure("curves.png", plot_curves(run.history, ["loss", "perplexity"]))
    if config.baseline:
        plain = build_model(config, len(subwords), attend=False)
        metrics["plain_perplexity"] = train(run, plain, parts, identity, phase="plain")
    facts |= {"subwords": len(subwords), "repeated": data.repeated}
    facts |= {"tokens_per_example": round(parts["train"].lengths()[:, 1].mean(), 2)}
    return run.finish(model, data.name, "perplexity", metrics | written, higher_is_better=False, **facts)


def predictor(run: FinishedRun) -> Callable:
    """Function from a conversation to an answer."""
    config, subwords = run.config, read_subwords(run.directory / "subwords.model")

    @functools.lru_cache(4)
    def answerer_with(**options: Any) -> Answerer:
        return answerer(replace(config, **options), run.model, subwords, rows=1)

    def chat(
        conversation: Conversation, beams: int = config.beams, length_penalty: float = config.length_penalty,
        no_repeat: int = config.no_repeat, temperature: float = config.temperature, top_k: int = config.top_k,
        top_p: float = config.top_p,
    ) -> Text:  # fmt: skip
        """Answers the last turn of a conversation."""
        search = {"beams": beams, "length_penalty": length_penalty, "no_repeat": no_repeat}
        return Text(answerer_with(**search, temperature=temperature, top_k=top_k, top_p=top_p).answer(conversation))

    chat.several = lambda conversations, **options: answerer_with(**options).several(conversations)
    chat.exported = lambda: exported_answerer(run.model, answerer_with, run.directory)
    return chat


if __name__ == "__main__":
    launch(main, Config)
