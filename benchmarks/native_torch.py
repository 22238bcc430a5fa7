"""What the native PyTorch baselines share: weights from Keras and back, optimizers, the trainer."""

import math

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_weights(network, model):
    """Moves a network to the device and gives it the weights of a Keras model; what is frozen there is frozen here.

    Args:
        network: with its modules made in the order of the Keras model's layers.
        model: the Keras model.

    Returns:
        The network.

    Raises:
        RuntimeError: a weight has another shape.
        ValueError: the model has more weights, or fewer.
    """
    variables, values = model.weights, model.get_weights()
    for module, names in modules_with_weights(network):
        count = len(names) * 3 // 4 if isinstance(module, nn.RNNBase) else len(names)  # Keras has both biases in one
        tensors = map(torch.tensor, to_torch(module, values[:count]))
        module.load_state_dict(dict(zip(names, tensors, strict=True)), strict=False)  # its own, not those of its parts
        trainable = any(variable.trainable for variable in variables[:count])
        for name, parameter in module.named_parameters(recurse=False):
            second_bias = isinstance(module, nn.LSTM) and name.startswith("bias_hh")  # Keras's LSTM has one bias
            parameter.requires_grad_(trainable and not second_bias)
        variables, values = variables[count:], values[count:]
    if values:
        raise ValueError(f"{len(values)} weights of the Keras model have no place in the network")
    return network.to(DEVICE)


def keras_weights(network):
    """The weights of a network in the order and the shapes of the Keras model."""
    values = []
    for module, names in modules_with_weights(network):
        values += to_keras(module, [getattr(module, name).detach().cpu().numpy() for name in names])
    return values


def modules_with_weights(network):
    """Each module with tensors of its own that are weights in Keras too, and their names."""
    for module in network.modules():
        names = [name for name in module.state_dict() if "." not in name and name != "num_batches_tracked"]
        if names:
            yield module, names


def to_torch(module, weights):
    """The weights of a Keras layer in PyTorch's order and shapes."""
    if isinstance(module, nn.RNNBase):
        found = []
        for kernel, recurrent_kernel, bias in zip(weights[::3], weights[1::3], weights[2::3], strict=True):
            biases = bias if isinstance(module, nn.GRU) else (bias, np.zeros_like(bias))
            found += [regated(module, each) for each in (kernel.T, recurrent_kernel.T, *biases)]
        return found
    if isinstance(module, nn.Conv2d):
        axes = (2, 3, 0, 1) if module.groups > 1 else (3, 2, 0, 1)
        return [weight.transpose(axes) if weight.ndim == 4 else weight for weight in weights]
    return [weight.T for weight in weights] if isinstance(module, nn.Linear) else weights


def to_keras(module, tensors):
    """The tensors of a PyTorch module in Keras's order and shapes."""
    if isinstance(module, nn.RNNBase):
        found = []
        for start in range(0, len(tensors), 4):
            kernel, recurrent_kernel, *biases = (regated(module, each) for each in tensors[start : start + 4])
            found += [kernel.T, recurrent_kernel.T, np.stack(biases) if isinstance(module, nn.GRU) else biases[0]]
        return found
    if isinstance(module, nn.Conv2d):
        axes = (2, 3, 0, 1) if module.groups > 1 else (2, 3, 1, 0)
        return [tensor.transpose(axes) if tensor.ndim == 4 else tensor for tensor in tensors]
    return [tensor.T for tensor in tensors] if isinstance(module, nn.Linear) else tensors


def regated(module, weight):
    """A weight with the gates in the other framework's order: of a GRU, Keras has update first, PyTorch reset."""
    if isinstance(module, nn.LSTM):
        return weight
    first, second, candidate = np.split(weight, 3)
    return np.concatenate([second, first, candidate])


def kernels_and_others(network):
    """Parameter groups: kernels and embeddings with the optimizer's weight decay; biases and normalization without."""
    parameters = list(network.parameters())
    return [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1]},
        {"params": [parameter for parameter in parameters if parameter.ndim == 1], "weight_decay": 0.0},
    ]


class Adam(torch.optim.AdamW):
    """Adam as Keras has it, with decoupled weight decay if any.

    Keras adds its epsilon before the bias of the second moment is corrected, PyTorch after it: so epsilon is divided by
    that correction.

    Args:
        parameters: or groups of them.
        rate: learning rate, a function of the step.
        betas: decay rates of the moments.
        epsilon: as in Keras.
        weight_decay: times the learning rate, in each step.
    """

    def __init__(self, parameters, rate, betas=(0.9, 0.999), epsilon=1e-7, weight_decay=0.0):
        super().__init__(parameters, betas=betas, weight_decay=weight_decay, fused=True)
        self.rate = rate
        self.epsilon = epsilon
        self.steps = 0

    def step(self):
        for group in self.param_groups:
            group["lr"] = self.rate(self.steps)
            group["eps"] = self.epsilon / math.sqrt(1 - group["betas"][1] ** (self.steps + 1))
        self.steps += 1
        super().step()


class NesterovSGD(torch.optim.SGD):
    """SGD with Nesterov momentum as Keras has it, and decoupled weight decay of kernels and embeddings.

    Keras's momentum sums up steps, PyTorch's gradients, which is not the same where the learning rate changes: so the
    gradients are multiplied by the learning rate, and PyTorch's own is 1.

    Args:
        parameters: those to train.
        rate: learning rate, a function of the step.
        momentum: decay rate of the sum.
        weight_decay: times the learning rate, in each step.
    """

    def __init__(self, parameters, rate, momentum=0.9, weight_decay=0.0):
        super().__init__(parameters, lr=1.0, momentum=momentum, nesterov=True, fused=True)
        self.rate = rate
        self.decay = weight_decay
        self.steps = 0

    def step(self):
        rate = self.rate(self.steps)
        self.steps += 1
        (group,) = self.param_groups
        with torch.no_grad():
            torch._foreach_mul_([each for each in group["params"] if each.ndim > 1], 1 - rate * self.decay)
            torch._foreach_mul_([each.grad for each in group["params"]], rate)
        super().step()


def on_device(batch):
    """Arrays, or dictionaries or tuples of them, as tensors on the device; what is None stays so."""
    if isinstance(batch, dict):
        return {name: on_device(part) for name, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(map(on_device, batch))
    return None if batch is None else torch.from_numpy(batch).to(DEVICE)


class NativeTrainer:
    """Trains a network; a baseline adds its `loss`.

    Args:
        network: with the weights of a Keras model, see `load_weights`.
        optimizer: of its parameters.
        clip: the largest norm of all gradients together.
        ema: decay rate of the exponential moving average of the weights; 0 for none.
    """

    def __init__(self, network, optimizer, clip=None, ema=0.0):
        self.network = network.train()
        self.optimizer = optimizer
        self.clip = clip
        self.averages = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(ema)) if ema else None

    def loss(self, *batch):
        """The loss on a batch of tensors, a scalar."""
        raise NotImplementedError

    def train_on_batch(self, *batch):
        """One step on a batch of arrays; returns the loss."""
        loss = self.loss(*on_device(batch))
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        self.optimizer.step()
        if self.averages:
            self.averages.update_parameters(self.network)
        return loss.detach()

    def weights(self):
        """The weights that are measured, averaged with `ema`, in the order and the shapes of the Keras model."""
        return keras_weights(self.averages.module if self.averages else self.network)
