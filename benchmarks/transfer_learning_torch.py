"""Native PyTorch baseline of recipes/transfer_learning.py, for `recipes compare --native`.

The same shapes, frozen layers, optimizer and batches; nothing of Keras takes part in a step.
"""

import functools

from torch import nn
from torch.nn import functional

from benchmarks.native import dropout_rate, require_options
from benchmarks.native_torch import Adam, NativeTrainer, load_weights
from shared.images.backbones.efficientnet_lite import LITE0_STAGES
from shared.training.schedules import warmup_cosine_rate


class Convolution(nn.Conv2d):
    """Without bias, padded as Keras's "same" is: with a stride, more behind than before."""

    def __init__(self, inputs, outputs, size=1, stride=1, groups=1):
        super().__init__(inputs, outputs, size, stride, groups=groups, bias=False)

    def forward(self, x):
        size, stride = self.kernel_size[0], self.stride[0]
        missing = [max((-(-length // stride) - 1) * stride + size - length, 0) for length in (x.shape[3], x.shape[2])]
        if any(missing):
            x = functional.pad(x, [part for m in missing for part in (m // 2, m - m // 2)])
        return super().forward(x)


class Network(nn.Module):
    """Pixels (batch, height, width, channels) in uint8 to logits (batch, classes), through EfficientNet-Lite0.

    The layers are made in the order of the Keras model.
    """

    def __init__(self, image_size, dropout, classes):
        super().__init__()
        self.image_size = image_size
        self.stages = []
        self.parts = nn.ModuleDict()
        self.add("stem", Convolution(3, 32, 3, 2))
        channels = 32
        for repeats, size, stride, expansion, outputs in LITE0_STAGES:
            for repeat in range(repeats):
                name, width = f"block_{len(self.stages):02}", channels * expansion
                if expansion != 1:
                    self.add(f"{name}_expand", Convolution(channels, width))
                self.add(f"{name}_filter", Convolution(width, width, size, 1 if repeat else stride, groups=width))
                self.add(f"{name}_project", Convolution(width, outputs))
                self.stages.append((name, repeat > 0))
                channels = outputs
        self.add("head", Convolution(channels, 1280))
        self.dropout = nn.Dropout(dropout)
        self.parts["logits"] = nn.Linear(1280, classes)

    def add(self, name, convolution):
        self.parts[name] = convolution
        self.parts[f"{name}_normalization"] = nn.BatchNorm2d(convolution.out_channels, eps=1e-3)

    def normalized(self, name, x):
        return self.parts[f"{name}_normalization"](self.parts[name](x))

    def forward(self, images):
        x = images.permute(0, 3, 1, 2).float()
        x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
        x = functional.interpolate(x, size=(self.image_size, self.image_size), mode="bilinear")
        x = functional.relu6(self.normalized("stem", (x - 127) / 128))
        for name, residual in self.stages:
            inputs = x
            if f"{name}_expand" in self.parts:
                x = functional.relu6(self.normalized(f"{name}_expand", x))
            x = functional.relu6(self.normalized(f"{name}_filter", x))
            x = self.normalized(f"{name}_project", x)
            x = x + inputs if residual else x
        x = functional.relu6(self.normalized("head", x))
        return self.parts["logits"](self.dropout(x.mean(dim=(2, 3))))


class Trainer(NativeTrainer):
    """Fine-tunes the network, from the weights of a Keras model.

    Args:
        config: options of the recipe.
        model: the recipe's model.
        steps: of the whole training.
    """

    def __init__(self, config, model, steps):
        require_options(config, backbone="efficientnet_lite0", precision="float32")
        network = Network(config.image_size, dropout_rate(model.get_layer("classifier")), model.output_shape[-1])
        load_weights(network, model)
        rate = functools.partial(warmup_cosine_rate, peak=config.learning_rate, steps=steps, warmup=0.1)
        super().__init__(network, Adam(network.parameters(), rate, weight_decay=1e-4))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def loss(self, images, labels):
        return functional.cross_entropy(self.network(images), labels, label_smoothing=0.1)
