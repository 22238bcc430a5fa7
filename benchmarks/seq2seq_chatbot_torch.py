"""The chatbot written by hand in PyTorch, for `recipes compare seq2seq_chatbot --native`.

The same shapes, optimizer and batches as recipes/seq2seq_chatbot.py; nothing of Keras takes part in a step.
"""

import functools
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from shared import answering
from shared.data.subwords import END, PAD, START, UNKNOWN
from shared.errors import UsageError
from shared.schedules import warmup_cosine_rate

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

REPLACED = ("Answerer",)
"""What of the recipe is by hand here too, under the same name."""


class Network(nn.Module):
    """Sources (batch, m) and targets (batch, n), ids, to logits (batch, n, vocabulary).

    Args:
        config: options of the recipe.
        model: the recipe's model, whose weights are taken.
    """

    def __init__(self, config, model):
        super().__init__()
        if config.attention != "general" or config.precision != "float32":
            raise UsageError("the benchmark by hand has the general attention in float32: leave those options")
        if config.beams > 1 or config.no_repeat or config.temperature:
            raise UsageError("the benchmark by hand writes the likeliest tokens: say --beams 1 --no-repeat 0")
        width, units, vocabulary = config.width, config.units, model.output_shape[-1]
        encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
        self.embedding = nn.Embedding(vocabulary, width)
        self.dropout = nn.Dropout(next(x.rate for x in encoder.layers if hasattr(x, "rate")))  # 0 where noise is off
        kind = {"gru": nn.GRU, "lstm": nn.LSTM}[config.cell]
        self.reader = kind(width, units // 2, batch_first=True, bidirectional=True)
        self.bridges = nn.ModuleList([nn.Linear(units, units) for _ in range(2 if config.cell == "lstm" else 1)])
        self.writer = kind(width, units, batch_first=True)
        self.query = nn.Linear(units, units, bias=False)
        self.hidden = nn.Linear(2 * units, width)
        self.norm = nn.LayerNorm(width, eps=1e-3)
        self.places = [
            (model.get_layer("embedding"), self.embedding, ""),
            (encoder.get_layer("forward"), self.reader, "_l0"),
            (encoder.get_layer("backward"), self.reader, "_l0_reverse"),
            *((encoder.get_layer(f"bridge_{i}"), bridge, "") for i, bridge in enumerate(self.bridges)),
            (decoder.get_layer("writer"), self.writer, "_l0"),
            (decoder.get_layer("attention"), self.query, ""),
            (decoder.get_layer("hidden"), self.hidden, ""),
            (decoder.get_layer("norm"), self.norm, ""),
        ]
        with torch.no_grad():
            for layer, module, suffix in self.places:
                for name, value in to_torch(layer.get_weights(), module, suffix).items():
                    getattr(module, name).copy_(torch.tensor(value))

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


class Trainer:
    """Trains the network, from the weights of a Keras model.

    Args:
        config: options of the recipe.
        model: the recipe's model.
        steps: of the whole training.
    """

    def __init__(self, config, model, steps):
        self.config = config
        self.rate = functools.partial(warmup_cosine_rate, peak=config.learning_rate, steps=steps, warmup=0.1)
        self.step = 0
        self.network = Network(config, model).to(DEVICE).train()
        self.order = [weight.path for weight in model.weights]
        for name, parameter in self.network.named_parameters():
            if config.cell == "lstm" and "bias_hh" in name:
                parameter.requires_grad_(False)  # Keras's LSTM has one bias
        self.parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, weight_decay=1e-4)

    def train_on_batch(self, inputs, labels):
        """One step; returns the loss."""
        source, target, labels = (
            torch.from_numpy(ids).long().to(DEVICE) for ids in (inputs["source"], inputs["target"], labels)
        )
        logits = self.network(source, target)
        smoothing = self.config.label_smoothing
        loss = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=PAD, label_smoothing=smoothing
        )
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        group = self.optimizer.param_groups[0]
        group["lr"] = self.rate(self.step)
        group["eps"] = 1e-7 / math.sqrt(1 - 0.999 ** (self.step + 1))  # Keras adds it before correcting the bias
        self.optimizer.step()
        self.step += 1
        return loss.detach()

    def weights(self):
        """The weights in the order and the shapes of the Keras model."""
        found = {}
        for layer, module, suffix in self.network.places:
            values = to_keras(module, suffix)
            found |= {weight.path: value for weight, value in zip(layer.weights, values, strict=True)}
        return [found[path] for path in self.order]


class Answerer(answering.Answerer):
    """The recipe's, but the network and the search are by hand: the likeliest token at each step."""

    def __init__(self, model, subwords, options, *sizes):
        super().__init__(model, subwords, options, *sizes)
        self.network = Network(options, model).to(DEVICE).eval()
        self.encode = self.read

    @torch.inference_mode()
    def read(self, source):
        memory, mask, states = self.network.read(torch.from_numpy(source).long().to(DEVICE))
        return states, (memory, mask)

    @torch.inference_mode()
    def search(self, states, context):
        tokens = torch.full((self.rows,), START, device=DEVICE)
        ended, written = tokens == END, []
        while len(written) < self.target_length - 1 and not ended.all():
            logits, states = self.network.write(tokens[:, None], *context, states)
            logits[:, 0, [PAD, UNKNOWN, START] + [END] * (not written)] = -math.inf
            tokens = logits[:, 0].argmax(dim=-1).masked_fill(ended, END)
            ended = ended | (tokens == END)
            written.append(tokens)
        return [[token for token in row if token != END] for row in torch.stack(written, dim=1).tolist()]


def regated(value):
    """The gates of a GRU in the other framework's order: update, reset, candidate and reset, update, candidate."""
    first, second, candidate = np.split(value, 3)
    return np.concatenate([second, first, candidate])


def to_torch(weights, module, suffix):
    """The weights of a Keras layer, in PyTorch's names and shapes."""
    if isinstance(module, nn.Embedding):
        return {"weight": weights[0]}
    if isinstance(module, nn.LayerNorm):
        return {"weight": weights[0], "bias": weights[1]}
    if isinstance(module, nn.Linear):
        return {"weight": weights[0].T} | ({"bias": weights[1]} if len(weights) > 1 else {})
    kernel, recurrent_kernel, bias = weights
    if isinstance(module, nn.GRU):
        values = [regated(each) for each in (kernel.T, recurrent_kernel.T, *bias)]
    else:
        values = [kernel.T, recurrent_kernel.T, bias, np.zeros_like(bias)]
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return {name + suffix: value for name, value in zip(names, values, strict=True)}


def to_keras(module, suffix):
    """The weights of a PyTorch module, in Keras's order and shapes."""
    if isinstance(module, nn.Embedding | nn.LayerNorm | nn.Linear):
        values = [each.detach().cpu().numpy() for each in module.parameters()]
        return [each.T if each.ndim == 2 and isinstance(module, nn.Linear) else each for each in values]
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    values = [getattr(module, name + suffix).detach().cpu().numpy() for name in names]
    if isinstance(module, nn.GRU):
        kernel, recurrent_kernel, *biases = map(regated, values)
        return [kernel.T, recurrent_kernel.T, np.stack(biases)]
    return [values[0].T, values[1].T, values[2]]
