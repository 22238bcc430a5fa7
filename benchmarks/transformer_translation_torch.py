"""The Transformer written by hand in PyTorch, for `recipes compare transformer_translation --native`.

The same shapes, loss, optimizer and batches as recipes/transformer_translation.py; nothing of Keras takes part in a
step.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from shared import translation
from shared.data.subwords import END, PAD, START, UNKNOWN
from shared.errors import UsageError

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

REPLACED = ("Translator",)
"""What of the recipe is by hand here too, under the same name."""


class Attention(nn.Module):
    """Multi-head attention."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x, keys, values, mask=None, causal=False):
        queries = self.split(self.query(x))
        x = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=causal)
        return self.output(x.transpose(1, 2).flatten(2))

    def split(self, x):
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, x):
        return [self.split(each) for each in self.key_value(x).chunk(2, dim=-1)]


class Block(nn.Module):
    """A block of the encoder, or of the decoder with `cross`; its modules in the order of the Keras layer's."""

    def __init__(self, width, heads, hidden, dropout, cross):
        super().__init__()
        self.attention = Attention(width, heads)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.feed_forward_norm = nn.LayerNorm(width)
        if cross:
            self.cross_attention = Attention(width, heads)
            self.cross_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, mask, memory=None):
        normed = self.attention_norm(x)
        keys_values = self.attention.keys_values(normed)
        if memory is None:
            return self.finish(x + self.dropout(self.attention(normed, *keys_values, mask)))
        x = x + self.dropout(self.attention(normed, *keys_values, causal=True))
        return self.look_back(x, self.cross_attention.keys_values(memory), mask)

    def step(self, x, before, memory, mask):
        """One token, after those with the keys and values `before`; those with its own, too."""
        normed = self.attention_norm(x)
        keys_values = [torch.cat(pair, dim=2) for pair in zip(before, self.attention.keys_values(normed), strict=True)]
        return self.look_back(x + self.attention(normed, *keys_values), memory, mask), keys_values

    def look_back(self, x, memory, mask):
        """The other parts of a block of the decoder, from the memory's keys and values."""
        return self.finish(x + self.dropout(self.cross_attention(self.cross_norm(x), *memory, mask)))

    def finish(self, x):
        """The last part of each block."""
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Transformer(nn.Module):
    """Sources (batch, m) and targets (batch, n) to logits (batch, n, vocabulary), with the weights of a Keras model."""

    def __init__(self, model):
        super().__init__()
        table, options = model.get_layer("embedding"), model.get_layer("decoder").options
        if options["rotary"] or model.dtype_policy.name != "float32":
            raise UsageError("the benchmark by hand has sinusoidal positions in float32: leave those options")
        dropout = model.get_layer("dropout").rate  # 0 where a comparison wants it
        shape = (table.output_dim, options["heads"], options["hidden"], dropout)
        self.embedding = nn.Embedding(table.input_dim, table.output_dim)
        self.encoder = nn.ModuleList(Block(*shape, cross=False) for _ in range(options["depth"]))
        self.encoder_norm = nn.LayerNorm(table.output_dim)
        self.decoder = nn.ModuleList(Block(*shape, cross=True) for _ in range(options["depth"]))
        self.decoder_norm = nn.LayerNorm(table.output_dim)
        self.dropout = nn.Dropout(dropout)
        weights = iter(model.get_weights())
        with torch.no_grad():
            for module, parameter in self.parameters_in_order():
                value = torch.tensor(next(weights))
                parameter.copy_(value.T if isinstance(module, nn.Linear) and value.ndim == 2 else value)

    def parameters_in_order(self):
        """Each module with weights and each of its parameters, in the order of the Keras model."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.LayerNorm | nn.Embedding):
                for parameter in module.parameters(recurse=False):
                    yield module, parameter

    def embed(self, ids, start=0):
        width = self.embedding.embedding_dim
        steps = torch.arange(width // 2, device=ids.device)
        frequencies = torch.exp(-math.log(10000.0) * steps / max(1, width // 2 - 1))
        angles = torch.arange(start, start + ids.shape[1], device=ids.device)[:, None] * frequencies
        places = torch.cat([angles.sin(), angles.cos()], dim=1)
        return self.dropout(self.embedding(ids) * math.sqrt(width) + places)

    def encode(self, source):
        """What each place of the sources says (batch, m, width), and which places are real."""
        mask = (source != PAD)[:, None, None, :]
        memory = self.embed(source)
        for block in self.encoder:
            memory = block(memory, mask)
        return self.encoder_norm(memory), mask

    def logits(self, x):
        return functional.linear(self.decoder_norm(x), self.embedding.weight)

    def forward(self, source, target):
        memory, mask = self.encode(source)
        x = self.embed(target)
        for block in self.decoder:
            x = block(x, mask, memory)
        return self.logits(x)


class Trainer:
    """Trains the network, from the weights of a Keras model.

    Args:
        config: options of the recipe.
        model: the recipe's model.
        steps: of the whole training.
    """

    def __init__(self, config, model, steps):
        if config.beams > 1:  # said before the training, and not after it
            raise UsageError("the benchmark by hand writes the likeliest tokens: say --beams 1")
        self.config = config
        self.network = Transformer(model).to(DEVICE).train()
        self.parameters = list(self.network.parameters())
        self.averages = [parameter.detach().clone() for parameter in self.parameters] if config.ema else []
        self.optimizer = torch.optim.Adam(self.parameters, betas=(0.9, 0.98), eps=1e-9, fused=True)
        self.step = 0

    def learning_rate(self):
        """Linear warm-up, then the inverse square root."""
        step = self.step + 1
        return self.config.learning_rate * min(
            step / self.config.warmup_steps, math.sqrt(self.config.warmup_steps / step)
        )

    def train_on_batch(self, inputs, labels):
        """One step of Adam; returns the loss."""
        source, target = (torch.from_numpy(inputs[name]).to(DEVICE) for name in ("source", "target"))
        labels = torch.from_numpy(labels).to(DEVICE).long()
        logits = self.network(source, target)
        loss = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=PAD, label_smoothing=self.config.label_smoothing
        )
        self.optimizer.param_groups[0]["lr"] = self.learning_rate()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.averages:
            with torch.no_grad():  # the first step sets the average to the weights, as Keras does
                torch._foreach_lerp_(self.averages, self.parameters, 1 - self.config.ema if self.step else 1.0)
        self.step += 1
        return loss.detach()

    def weights(self):
        """The weights, averaged where the options say so, in the order and the shapes of the Keras model."""
        trained = dict(zip(self.parameters, self.averages or self.parameters, strict=True))
        values = []
        for module, parameter in self.network.parameters_in_order():
            value = trained[parameter]
            values.append(value.T if isinstance(module, nn.Linear) and value.ndim == 2 else value)
        return [value.detach().cpu().numpy() for value in values]


class Translator(translation.Translator):
    """The recipe's, but the network and the search are by hand: the likeliest token at each step."""

    def __init__(self, model, subwords, beams, length_penalty):
        super().__init__(model, subwords, beams, length_penalty)
        self.network = Transformer(model).to(DEVICE).eval()

    @torch.inference_mode()
    def search(self, source):
        memory, mask = self.network.encode(torch.from_numpy(source).to(DEVICE))
        fixed = [block.cross_attention.keys_values(memory) for block in self.network.decoder]
        caches = [[each[:, :, :0] for each in keys_values] for keys_values in fixed]
        tokens = torch.full((len(source),), START, device=DEVICE)
        ended, written = tokens == END, []
        while len(written) < self.length(source.shape[1]) - 1 and not ended.all():
            x = self.network.embed(tokens[:, None], start=len(written))
            for index, block in enumerate(self.network.decoder):
                x, caches[index] = block.step(x, caches[index], fixed[index], mask)
            logits = self.network.logits(x)[:, 0]
            logits[:, [PAD, UNKNOWN, START]] = -math.inf
            tokens = logits.argmax(dim=-1).masked_fill(ended, END)
            ended = ended | (tokens == END)
            written.append(tokens)
        return [[token for token in row if token != END] for row in torch.stack(written, dim=1).tolist()]
