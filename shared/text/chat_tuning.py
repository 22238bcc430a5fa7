"""Fine-tuning of a language model on conversations: a chat template, and the loss on answers only."""

import keras
import numpy as np

from shared.text.causal_model import CachedWriter
from shared.text.dialogue import encode_context
from shared.text.losses import Perplexity, SequenceLoss
from shared.text.metrics import word_perplexity
from shared.text.options import ChatOptions
from shared.text.pairs import SequencePairs, padded
from shared.text.subwords import END, PAD, START, Subwords
from shared.training.batches import SeededBatches
from shared.training.run import Run
from shared.training.schedules import WarmupCosine

LENGTH_STEP = 16
"""Batches are padded to multiples of this, which bounds the number of shapes to compile."""


def chat_prompt(context: list[int]) -> list[int]:
    """The chat template: START before each turn, and before the answer, which END ends.

    Args:
        context: turns in subwords with END between them, see `encode_context`.
    """
    return [START, *(START if token == END else token for token in context), START]


class AnswerBatches(SeededBatches):
    """Contexts with their answers as one sequence each, of about the same length in a batch, batches in random order.

    Yields ids and labels, see `prompts_with_answers`; missing rows of the last batch are PAD. Keras on TensorFlow takes
    the length for fixed if it is that of the first two batches, also where a run is resumed: so no two neighbours have
    the same.

    Args:
        pairs: contexts and answers.
        batch_size: sequences per batch.
        seed: of the order.
    """

    def __init__(self, pairs: SequencePairs, batch_size: int, seed: int):
        super().__init__(seed)
        self.pairs = pairs
        self.batch_size = batch_size
        self.by_length = np.argsort(pairs.lengths().sum(axis=1), kind="stable")
        self.batches_per_epoch = -(-len(self.by_length) // batch_size)

    def make_batch(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        first = self.shuffled(self.batches_per_epoch, self.epoch)[index] * self.batch_size
        chosen = self.by_length[first : first + self.batch_size]
        missing = [[]] * (self.batch_size - len(chosen))
        prompts = [chat_prompt(self.pairs.sources[number]) for number in chosen]
        answers = [[*self.pairs.targets[number], END] for number in chosen]
        return prompts_with_answers(prompts + missing, answers + missing, even=index % 2 == 0)


def prompts_with_answers(
    prompts: list[list[int]], answers: list[list[int]], even: bool | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Prompts and their answers as one sequence each, for teacher forcing.

    Args:
        prompts: ids, at least one each, or none of a row to be padding.
        answers: ids, with END where they ended.
        even: whether the length is an even multiple of `LENGTH_STEP`, or an odd one; None: either.

    Returns:
        Ids (sequences, length) without the last token, and labels of the same shape: the next token where that is of
        the answer, PAD elsewhere.
    """
    whole = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    labels = [[*[PAD] * (len(prompt) - 1), *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    steps = -(-max(map(len, labels)) // LENGTH_STEP)
    steps += even is not None and even != (steps % 2 == 0)
    return padded([each[:-1] for each in whole], steps * LENGTH_STEP), padded(labels, steps * LENGTH_STEP)


def enable_lora(model: keras.Model, rank: int) -> int:
    """Low-rank adaptation, LoRA (Hu et al. 2021, arXiv:2106.09685): trains a low-rank update of each dense layer.

    Args:
        model: built; all its other weights are frozen.
        rank: of the updates.

    Returns:
        The number of weights that are left to train.
    """
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.Dense):
            layer.enable_lora(rank)
            layer.bias.trainable = False
        elif not list(layer._flatten_layers(include_self=False)):
            layer.trainable = False
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def chat_answer(
    writer: CachedWriter, subwords: Subwords, conversation: list[str], options: ChatOptions, seed: int
) -> str:
    """The answer to the last turn of a conversation.

    Args:
        writer: of a fine-tuned model, with a method that END ends.
        subwords: its vocabulary.
        conversation: the turns so far.
        options: of the fine-tuning.
        seed: of sampling.
    """
    turns = [subwords.encode(turn) for turn in conversation[-options.turns :]]
    ids = [
        int(token) for (token,) in writer([chat_prompt(encode_context(turns, options.context))], options.answer, seed)
    ]
    return subwords.decode([token for token in ids if token not in (END, PAD)]).strip()


def finetune_on_conversations(
    run: Run, model: keras.Model, subwords: Subwords, parts: dict[str, SequencePairs], data: str
) -> dict[str, float]:
    """Fine-tunes a language model on conversations, with the loss on answers only.

    Args:
        run: with `ChatOptions`.
        model: a decoder-only model, trained.
        subwords: its vocabulary.
        parts: contexts and answers, see `answer_pairs`.
        data: name and fingerprint of the conversations.

    Returns:
        See `dialogue_metrics`.
    """
    config = run.config
    batches, validation = (
        AnswerBatches(parts[part], config.finetune_batch_size, config.seed) for part in ("train", "validation")
    )
    if config.lora:
        print(f"LoRA trains {enable_lora(model, config.lora):,} weights")
    rate = WarmupCosine(config.finetune_learning_rate, config.finetune_epochs * len(batches), 0.05)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.01, global_clipnorm=1.0)
    model.compile(optimizer, SequenceLoss(), metrics=[Perplexity()])
    run.fit(model, batches, data=data, phase="dialogues", epochs=config.finetune_epochs, validation_data=validation)
    return dialogue_metrics(model, parts["test"], subwords, config.finetune_batch_size)


def dialogue_metrics(model: keras.Model, pairs: SequencePairs, subwords: Subwords, batch_size: int) -> dict[str, float]:
    """How well a fine-tuned model predicts answers.

    Args:
        model: compiled by `finetune_on_conversations`.
        pairs: contexts and answers.
        subwords: the vocabulary.
        batch_size: answers at once.

    Returns:
        The perplexity of a subword, and nats per word, which compare between vocabularies.
    """
    perplexity = model.evaluate(AnswerBatches(pairs, batch_size, 0), return_dict=True, verbose=0)["perplexity"]
    per_word = word_perplexity(perplexity, pairs.targets, subwords)
    return {"dialogue_perplexity": perplexity, "dialogue_word_nats": float(np.log(per_word))}
