"""A decoder-only Transformer, a small GPT, which writes text.

Predicts each character or subword of a text from those before it, by causal self-attention: Radford et al. 2018,
"Improving Language Understanding by Generative Pre-Training". Blocks are normalized before each part (pre-norm); the
defaults are those of today's models: rotary position embeddings (RoPE, https://arxiv.org/abs/2104.09864), SwiGLU
(https://arxiv.org/abs/2002.05202), tied embeddings. GPT-2's are options, so is grouped-query attention
(https://arxiv.org/abs/2305.13245).

    KERAS_BACKEND=torch python recipes/gpt_text.py                        tiny Shakespeare, on two CPU cores
    KERAS_BACKEND=torch python recipes/gpt_text.py --data book.txt        any text in UTF-8, or a folder of texts
    KERAS_BACKEND=torch python recipes/gpt_text.py --vocabulary 1000      subwords by byte-pair encoding
    KERAS_BACKEND=torch python recipes/gpt_text.py --positions learned --activation gelu --hidden 512
    KERAS_BACKEND=jax python recipes/gpt_text.py --preset full            tiny Shakespeare, on one GPU
    KERAS_BACKEND=torch python recipes/gpt_text.py --vocabulary 2000 --finetune dialogues --lora 8     to talk with
    KERAS_BACKEND=torch python recipes/gpt_text.py --vocabulary 2000 --finetune dialogues --prefer questions
    KERAS_BACKEND=jax recipes predict RUN "ROMEO:"                        writes on, or, fine-tuned, answers
    KERAS_BACKEND=jax recipes predict RUN --chat                          talks, if fine-tuned

It is measured in nats a character on the held-out text, read in windows that overlap by half. The loss in history.csv
is that of windows side by side, so a little higher.

The recorded runs are under results/gpt_text.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

try:
    from shared.backends.choice import require_backend
except ModuleNotFoundError:
    print("error: the package shared is not installed: run  pip install -e .  in keras-recipes", file=sys.stderr)
    sys.exit(2)
require_backend()

import keras
import numpy as np
from keras import layers

from shared.data.text.characters import TextData, load_text
from shared.data.text.conversations import load_conversations
from shared.layers.positions import LearnedPositions
from shared.text.batches import TextBatches, consecutive_windows
from shared.text.causal_model import CachedWriter, attention_maps, continued, nats_in_windows
from shared.text.chat_tuning import chat_answer
from shared.text.exports import exported_causal_model
from shared.text.options import ChatOptions
from shared.text.plots import plot_attention_heads, plot_loss_against_tokens
from shared.text.samples import EpochSamples, save_text, timed_text
from shared.text.subwords import END, read_subwords
from shared.text.talk import learn_to_talk
from shared.text.tokens import CharacterVocabulary, TokenizedText, as_characters, as_subwords
from shared.text.transformer import CausalTransformer, TokenEmbedding
from shared.training.predictors import Conversation, FinishedRun, Text, TextStream
from shared.training.ranges import Count, Limit, NonNegative, Positive, Rate, ranged
from shared.training.run import Run, launch
from shared.training.schedules import WarmupCosine


@dataclass(kw_only=True)
class Config(ChatOptions):
    """Trains a decoder-only Transformer on a text, and generates text."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "test": {
            "data": "chitchat", "epochs": 1, "train_characters": 20_000, "test_characters": 1000, "depth": 2,
            "width": 32, "heads": 4, "key_value_heads": 2, "hidden": 64, "window": 32, "dropout": 0.1, "length": 20,
            "learning_rate": 1e-5,
        },
        "smoke": {
            "epochs": 2, "depth": 3, "width": 96, "heads": 3, "hidden": 256, "window": 64, "train_characters": 200_000,
            "test_characters": 10_000, "length": 200,
        },
        "full": {
            "epochs": 60, "batch_size": 64, "learning_rate": 1e-3, "depth": 6, "width": 384, "heads": 6, "hidden": 1024,
            "window": 256, "dropout": 0.2, "patience": 10,
        },
    }  # fmt: skip

    epochs: Count = 10
    batch_size: Count = 8
    """Windows per step: at a given number of tokens, small batches learn more."""
    learning_rate: Positive = 3e-3
    """The highest learning rate, of AdamW."""
    weight_decay: NonNegative = 0.1
    """Weight decay of the kernels and embeddings."""
    warmup: Rate = 0.05
    """Learning-rate warmup: fraction of the steps over which it rises, before cosine decay."""
    clip: Positive = 1.0
    """Gradient clipping: maximum global norm."""
    depth: Count = 4
    """Number of blocks."""
    width: Count = 128
    """Model width, which is the embedding size."""
    heads: Count = 4
    """Attention heads, which share the width."""
    key_value_heads: Limit = None
    """Grouped-query attention: number of heads of keys and values (default: as many as heads)."""
    hidden: Count = 344
    """Hidden width of the feed-forward layers."""
    positions: Literal["rotary", "learned"] = "rotary"
    """Positional encoding: rotary (RoPE), of queries and keys, or learned, added to the embeddings."""
    normalization: Literal["layer", "rms"] = "layer"
    """Layer normalization, or root mean square normalization (RMSNorm)."""
    activation: Literal["swiglu", "gelu", "relu"] = "swiglu"
    """Activation of the feed-forward layers; SwiGLU has three matrices, so take two thirds of the hidden width."""
    tied: bool = True
    """Tied embeddings: the output projection has the weights of the embedding."""
    dropout: Rate = 0.0
    """Dropout rate."""
    window: ranged(int, least=2) = 128
    """Context length, in tokens."""
    vocabulary: ranged(int, least=0, most=65_535) = 0
    """Vocabulary size: subwords by byte-level BPE, learned from the training text; 0: characters."""

    def __post_init__(self):
        super().__post_init__()
        rule = f"must be a multiple of twice the {self.heads} heads"
        self.require("width", self.width % (2 * self.heads) == 0, rule)
        rule = f"must divide the {self.heads} heads"
        self.require("key_value_heads", self.heads % (self.key_value_heads or 1) == 0, rule)
        alone = self.finetune == "none"
        self.require("finetune", alone or self.vocabulary > 0, "needs subwords, so a --vocabulary")
        self.require("prefer", self.prefer == "none" or not alone, "needs --finetune dialogues")
        rule = "must be rotary for dialogues, which may be longer than the window"
        self.require("positions", alone or self.positions == "rotary", rule)


def build_model(config: Config, tokens: int) -> keras.Model:
    """Token ids (batch, length) to logits (batch, length, tokens) of the next token, in float32."""
    ids = keras.Input((None,), dtype="int32")
    embedding = TokenEmbedding(tokens, config.width, stddev=0.02, name="embedding")
    rotary = config.positions == "rotary"
    x = embedding(ids)
    if not rotary:
        x = LearnedPositions(config.window, name="positions")(x)
    x = layers.Dropout(config.dropout)(x)
    x = CausalTransformer(  # blocks of  x + attention(norm(x))  and  x + feed_forward(norm(x)),  and a last norm
        config.depth, config.heads, config.hidden, config.dropout, rotary, config.key_value_heads,
        config.normalization, config.activation, name="decoder",
    )(x)  # fmt: skip
    logits = embedding(x, reverse=True) if config.tied else layers.Dense(tokens, dtype="float32", name="head")(x)
    return keras.Model(ids, logits, name="gpt")


def build_optimizer(config: Config, steps: int) -> keras.optimizers.Optimizer:
    """AdamW for `steps` steps; biases and the scales of normalization have no weight decay."""
    rate = WarmupCosine(config.learning_rate, steps, config.warmup)
    optimizer = keras.optimizers.AdamW(rate, beta_2=0.99, weight_decay=config.weight_decay, global_clipnorm=config.clip)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "scale"])
    return optimizer


def evaluate(run: Run, model: keras.Model, data: TextData, text: TokenizedText) -> dict[str, float]:
    """Nats a character of the held-out parts, and perplexity of a token; draws the figures."""
    metrics = {}
    for part in ("validation", "test"):
        tokens = getattr(text, part)
        nats = nats_in_windows(model, tokens, run.config.window, run.config.batch_size)
        characters = len(getattr(data, part)) - len(text.vocabulary.decode(tokens[:1]))
        metrics |= {f"{part}_nats": nats * (len(tokens) - 1) / characters, f"{part}_perplexity": float(np.exp(nats))}
    run.save_figure("curves.png", plot_loss_against_tokens(run.history, len(text.train)))
    shown = text.validation[: min(32, run.config.window)]
    labels = [text.vocabulary.decode([token]) for token in shown]
    run.save_figure("attention.png", plot_attention_heads(attention_maps(model, shown), labels))
    return metrics


def main(run: Run) -> dict[str, float]:
    config = run.config
    data = config.limited(load_text(config.data, config.data_dir))
    print(data.found)
    text = as_characters(data)
    if config.vocabulary:
        text = as_subwords(data, run.directory / "subwords.model", config.vocabulary)
        config.require_windows(text.train, text.validation, text.test)
    batches = TextBatches(text.train, config.window, config.batch_size, config.seed)

    model = build_model(config, len(text.vocabulary))
    optimizer = build_optimizer(config, config.epochs * len(batches))
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.summary()

    def sample(writer: CachedWriter, length: int) -> Iterator[str]:
        return continued(writer, text.vocabulary, "\n", length, config.sample_seed)

    writer = CachedWriter(model, config.window, config.sampling())
    run.fit(
        model, batches, data=f"{data.name} {data.fingerprint}", patience=config.patience or config.epochs,
        validation_data=consecutive_windows(text.validation, config.window), validation_batch_size=config.batch_size,
        callbacks=[EpochSamples(run.directory, lambda: sample(writer, min(300, config.length)))],
    )  # fmt: skip
    metrics = evaluate(run, model, data, text)
    written, speed = timed_text(sample(CachedWriter(model, config.window, config.sampling()), config.length))
    save_text(run.directory / "samples.txt", written)
    print(written)
    if config.finetune == "dialogues":
        conversations = load_conversations(config.dialogues, config.data_dir, config.train_conversations)
        metrics |= learn_to_talk(run, model, text.vocabulary, conversations)
    return run.finish(
        model, data.name, "validation_nats", metrics, higher_is_better=False, generated_tokens_per_second=speed,
        tokens=len(text.vocabulary), alphabet=data.alphabet,
    )  # fmt: skip


def predictor(run: FinishedRun) -> Callable:
    """Function from a prompt to generated text."""
    config, path = run.config, run.directory / "subwords.model"
    vocabulary = read_subwords(path) if config.vocabulary else CharacterVocabulary(run.result["alphabet"])

    @functools.lru_cache(4)
    def writer(end: int | None = None, **options: Any) -> CachedWriter:
        return CachedWriter(run.model, config.window, replace(config, **options).sampling(end))

    def write_on(
        prompt: Text, length: int = config.length, temperature: float = config.temperature, top_k: int = config.top_k,
        top_p: float = config.top_p, min_p: float = config.min_p,
        repetition_penalty: float = config.repetition_penalty, sample_seed: int = config.sample_seed,
    ) -> TextStream:  # fmt: skip
        """Generates the continuation of a prompt."""
        replace(config, length=length, sample_seed=sample_seed)  # checks the ranges
        if not config.vocabulary and (missing := set(prompt) - set(vocabulary.alphabet)):
            print(f"left out, not in the training text: {''.join(sorted(missing))!r}", file=sys.stderr)
        write = writer(
            temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty
        )
        return TextStream(continued(write, vocabulary, prompt, length, sample_seed))

    def answer(
        conversation: Conversation, chat: bool = True, temperature: float = config.temperature,
        top_k: int = config.top_k, top_p: float = config.top_p, min_p: float = config.min_p,
        sample_seed: int = config.sample_seed,
    ) -> Text:  # fmt: skip
        """Answers the last turn of a conversation; with --no-chat writes on instead."""
        write = writer(END if chat else None, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        if not chat:
            return Text("".join(continued(write, vocabulary, conversation[-1], config.length, sample_seed)))
        return Text(chat_answer(write, vocabulary, conversation, config, sample_seed))

    answer.exported = write_on.exported = lambda: exported_causal_model(run.model, vocabulary, config, run.directory)
    if config.finetune == "dialogues":
        return answer
    return write_on


if __name__ == "__main__":
    launch(main, Config)
