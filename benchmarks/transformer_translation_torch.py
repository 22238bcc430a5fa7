"""The Transformer written by hand in PyTorch, for `recipes compare transformer_translation --native`.

The same shapes, loss, optimizer and batches as recipes/transformer_translation.py; nothing of Keras takes part in a
step.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from shared.data.subwords import PAD
from shared.errors import UsageError


class Attention(nn.Module):
    """Multi-head attention."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x, memory, mask=None, causal=False):
        def split(each):
            return each.unflatten(2, (self.heads, -1)).transpose(1, 2)

        keys, values = self.key_value(memory).chunk(2, dim=-1)
        x = functional.scaled_dot_product_attention(
            split(self.query(x)), split(keys), split(values), attn_mask=mask, is_causal=causal
        )
        return self.output(x.transpose(1, 2).flatten(2))


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
        if memory is None:
            x = x + self.dropout(self.attention(normed, normed, mask))
        else:
            x = x + self.dropout(self.attention(normed, normed, causal=True))
            x = x + self.dropout(self.cross_attention(self.cross_norm(x), memory, mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Transformer(nn.Module):
    """Sources (batch, m) and targets (batch, n) to logits (batch, n, vocabulary)."""

    def __init__(self, config, vocabulary, dropout):
        super().__init__()
        shape = (config.width, config.heads, config.hidden, dropout)
        self.embedding = nn.Embedding(vocabulary, config.width)
        self.encoder = nn.ModuleList(Block(*shape, cross=False) for _ in range(config.depth))
        self.encoder_norm = nn.LayerNorm(config.width)
        self.decoder = nn.ModuleList(Block(*shape, cross=True) for _ in range(config.depth))
        self.decoder_norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(dropout)

    def embed(self, ids):
        width = self.embedding.embedding_dim
        steps = torch.arange(width // 2, device=ids.device)
        frequencies = torch.exp(-math.log(10000.0) * steps / max(1, width // 2 - 1))
        angles = torch.arange(ids.shape[1], device=ids.device)[:, None] * frequencies
        places = torch.cat([angles.sin(), angles.cos()], dim=1)
        return self.dropout(self.embedding(ids) * math.sqrt(width) + places)

    def forward(self, source, target):
        mask = (source != PAD)[:, None, None, :]
        memory = self.embed(source)
        for block in self.encoder:
            memory = block(memory, mask)
        memory = self.encoder_norm(memory)
        x = self.embed(target)
        for block in self.decoder:
            x = block(x, mask, memory)
        return functional.linear(self.decoder_norm(x), self.embedding.weight)


class Trainer:
    """Trains the network, from the weights of a Keras model.

    Args:
        config: options of the recipe.
        model: the recipe's model.
        steps: of the whole training.
    """

    def __init__(self, config, model, steps):
        if config.positions != "sinusoidal" or config.precision != "float32":
            raise UsageError(
                "the benchmark by hand has sinusoidal positions and trains in float32: leave those options"
            )
        self.config = config
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        vocabulary = model.get_layer("embedding").input_dim
        self.network = Transformer(config, vocabulary, model.get_layer("dropout").rate)  # 0 where a comparison wants it
        weights = iter(model.get_weights())
        with torch.no_grad():
            for module, parameter in self.parameters_in_order():
                value = torch.tensor(next(weights))
                parameter.copy_(value.T if isinstance(module, nn.Linear) and value.ndim == 2 else value)
        self.network.to(self.device).train()
        self.parameters = list(self.network.parameters())
        self.averages = [parameter.detach().clone() for parameter in self.parameters] if config.ema else []
        self.optimizer = torch.optim.Adam(self.parameters, betas=(0.9, 0.98), eps=1e-9, fused=True)
        self.step = 0

    def parameters_in_order(self):
        """Each module with weights and each of its parameters, in the order of the Keras model."""
        for module in self.network.modules():
            if isinstance(module, nn.Linear | nn.LayerNorm | nn.Embedding):
                for parameter in module.parameters(recurse=False):
                    yield module, parameter

    def learning_rate(self):
        """Linear warm-up, then the inverse square root."""
        step = self.step + 1
        return self.config.learning_rate * min(
            step / self.config.warmup_steps, math.sqrt(self.config.warmup_steps / step)
        )

    def train_on_batch(self, inputs, labels):
        """One step of Adam; returns the loss."""
        source, target = (torch.from_numpy(inputs[name]).to(self.device) for name in ("source", "target"))
        labels = torch.from_numpy(labels).to(self.device).long()
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
        for module, parameter in self.parameters_in_order():
            value = trained[parameter]
            values.append(value.T if isinstance(module, nn.Linear) and value.ndim == 2 else value)
        return [value.detach().cpu().numpy() for value in values]
