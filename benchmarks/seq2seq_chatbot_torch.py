"""Native PyTorch baseline of recipes/seq2seq_chatbot.py, for `recipes compare --native`.

The same shapes, optimizer and batches; nothing of Keras takes part in a step.
"""

import functools
import math

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils._pytree import tree_map

from benchmarks.native import dropout_rate, require_options
from benchmarks.native_decoding_torch import search
from benchmarks.native_torch import DEVICE, Adam, NativeTrainer, load_weights
from shared.text import responder as answering
from shared.text.subwords import PAD
from shared.training.schedules import warmup_cosine_rate

REPLACED = ("Answerer",)
"""What of the recipe is native here too, under the same name."""


class Network(nn.Module):
    """Sources (batch, m) and targets (batch, n), ids, to logits (batch, n, vocabulary).

    Args:
        config: options of the recipe.
        model: the recipe's model, whose weights are taken.
    """

    def __init__(self, config, model):
        super().__init__()
        width, units, vocabulary = config.width, config.units, model.output_shape[-1]
        self.embedding = nn.Embedding(vocabulary, width)
        self.dropout = nn.Dropout(dropout_rate(model.get_layer("encoder")))
        kind = {"gru": nn.GRU, "lstm": nn.LSTM}[config.cell]
        self.reader = kind(width, units // 2, batch_first=True, bidirectional=True)
        self.bridges = nn.ModuleList([nn.Linear(units, units) for _ in range(2 if config.cell == "lstm" else 1)])
        self.writer = kind(width, units, batch_first=True)
        self.query = nn.Linear(units, units, bias=False)
        self.hidden = nn.Linear(2 * units, width)
        self.norm = nn.LayerNorm(width, eps=1e-3)
        load_weights(self, model)

    def forward(self, source, target):
        memory, mask, states = self.read(source)
        return self.write(target, memory, mask, states)[0]

    def embed(self, ids):
        return self.embedding(ids) * math.sqrt(self.embedding.embedding_dim)

    def read(self, source):
        """What each place of the sources says, which places are real, and the first states of the writer."""
        mask = source != PAD
        x = self.dropout(self.embed(source))
        packed = pack_padded_sequence(x, mask.sum(dim=1).cpu(), batch_first=True, enforce_sorted=False)
        packed, finals = self.reader(packed)
        memory, _ = pad_packed_sequence(packed, batch_first=True, total_length=source.shape[1])
        finals = finals if len(self.bridges) == 2 else [finals]
        pairs = zip(self.bridges, finals, strict=True)
        states = [torch.tanh(bridge(torch.cat([ahead, back], dim=-1)))[None] for bridge, (ahead, back) in pairs]
        return memory, mask, tuple(states) if len(states) == 2 else states[0]

    def write(self, target, memory, mask, states):
        """Logits of what follows each target, and the states then."""
        x, states = self.writer(self.dropout(self.embed(target)), states)
        scores = self.query(x) @ memory.transpose(1, 2) / math.sqrt(memory.shape[-1])
        weights = scores.masked_fill(~mask[:, None], -1e9).softmax(dim=-1)
        x = self.norm(self.hidden(torch.cat([weights @ memory, x], dim=-1)))
        return functional.linear(self.dropout(x), self.embedding.weight), states


class Trainer(NativeTrainer):
    """Trains the network, from the weights of a Keras model.

    Args:
        config: options of the recipe.
        model: the recipe's model.
        steps: of the whole training.
    """

    def __init__(self, config, model, steps):
        require_options(config, attention="general", precision="float32", temperature=0)
        network = Network(config, model)
        rate = functools.partial(warmup_cosine_rate, peak=config.learning_rate, steps=steps, warmup=0.1)
        super().__init__(network, Adam(network.parameters(), rate, weight_decay=1e-4), clip=1.0)
        self.smoothing = config.label_smoothing

    def loss(self, inputs, labels):
        logits = self.network(**inputs).flatten(0, 1)
        labels = labels.flatten().long()
        return functional.cross_entropy(logits, labels, ignore_index=PAD, label_smoothing=self.smoothing)


class Answerer(answering.Answerer):
    """The recipe's, but the network and the search are native."""

    def __init__(self, model, subwords, options, *sizes):
        super().__init__(model, subwords, options, *sizes)
        self.network = Network(options, model).eval()
        self.options = {"beams": options.beams, "penalty": options.length_penalty, "no_repeat": options.no_repeat}

    @torch.inference_mode()
    def decode(self, sources, length):
        memory, mask, states = self.network.read(torch.from_numpy(sources).long().to(DEVICE))
        beams = self.options["beams"]
        memory, mask = (each.repeat_interleave(beams, dim=0) for each in (memory, mask))
        states = tree_map(lambda each: each.repeat_interleave(beams, dim=1), states)

        def step(tokens, index, states):
            logits, states = self.network.write(tokens[:, None], memory, mask, states)
            return logits[:, 0], states

        return search(step, states, len(sources), length, axis=1, least=1, **self.options)
