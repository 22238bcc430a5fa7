"""Optimizers, as quick as each backend can."""

import functools
from collections.abc import Callable
from typing import Any

import keras

from shared.backends.gradients import dense_gradients


def prepare_optimizer(model: keras.Model) -> None:
    """Makes the variables of a compiled model's optimizer before the first step of `fit`.

    From then on the optimizer works on all variables together on PyTorch, see `grouped_updates`; on TensorFlow it is
    given the gradients of embeddings as tensors, as on the other backends, see `dense_gradients`.
    """
    optimizer = grouped_updates(model.optimizer)
    optimizer.build(model.trainable_variables)
    if keras.config.backend() == "tensorflow":
        optimizer.apply = functools.partial(apply_dense, optimizer)


def apply_dense(
    optimizer: keras.optimizers.Optimizer, grads: list[Any], trainable_variables: list[keras.Variable] | None = None
) -> None:
    """`optimizer.apply` on TensorFlow, the gradients made tensors first."""
    type(optimizer).apply(optimizer, dense_gradients(grads), trainable_variables)


def grouped_updates(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Lets an optimizer clip by the global norm, average the weights, and Adam and SGD update them, all together.

    On PyTorch, Keras does each of these variable by variable, and Adam in a dozen operations for each, which for a
    small network takes as long as the gradients. Its SGD asks for the value of the learning rate, so that a step cannot
    be recorded. The other backends compile the step. The results differ by rounding only.

    Returns:
        The same optimizer.
    """
    if keras.config.backend() != "torch":
        return optimizer
    replacements = {"_clip_gradients": clip_together}
    if optimizer.use_ema:
        replacements["_update_model_variables_moving_average"] = average_together
    if isinstance(optimizer, keras.optimizers.Adam):
        replacements["_parallel_update_step"] = update_adam_together
    if isinstance(optimizer, keras.optimizers.SGD):
        replacements["_parallel_update_step"] = update_sgd_together
    for name, replacement in replacements.items():
        if name not in vars(optimizer):  # else it has been replaced, for an earlier `fit`
            setattr(optimizer, name, functools.partial(replacement, optimizer, getattr(optimizer, name)))
    return optimizer


def built_optimizer(
    optimizer: keras.optimizers.Optimizer, model: keras.Model, precision: str
) -> keras.optimizers.Optimizer:
    """An optimizer built for the weights of a model, for a training step of one's own.

    Args:
        optimizer: such as `grouped_updates` takes.
        model: whose trainable weights it changes.
        precision: the dtype policy; with "mixed_float16" the loss is scaled.
    """
    optimizer = grouped_updates(optimizer)
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def clip_together(optimizer: keras.optimizers.Optimizer, clip: Callable, gradients: list[Any]) -> list[Any]:
    """Clips by the global norm on PyTorch; what else there is to clip, `clip` does."""
    import torch

    if not optimizer.global_clipnorm or optimizer.clipnorm or any(each is None for each in gradients):
        return clip(gradients)
    with torch.no_grad():
        norm = torch.stack(torch._foreach_norm(gradients)).square().sum().sqrt()
        scale = torch.clamp(optimizer.global_clipnorm / norm, max=1.0)
        return torch._foreach_mul(gradients, scale + (norm - norm))  # NaN, as Keras's, where the norm is not finite


def steps_taken(optimizer: keras.optimizers.Optimizer) -> Any:
    """The updates so far, a tensor: `iterations`, which is a variable unless gradients are accumulated."""
    return keras.ops.convert_to_tensor(optimizer.iterations)


def average_together(optimizer: keras.optimizers.Optimizer, average: Callable, variables: list[keras.Variable]) -> None:
    """Moves the averages towards the weights on PyTorch, or leaves it to `average` where some have none."""
    import torch

    if any(each is None for each in optimizer._model_variables_moving_average):
        return average(variables)
    with torch.no_grad():
        averages = [each.value for each in optimizer._model_variables_moving_average]
        weights = [variable.value for variable in variables]
        # At the first step the averages are the weights.
        momentum = optimizer.ema_momentum * (steps_taken(optimizer) != 0).to(averages[0].dtype)
        torch._foreach_lerp_(averages, weights, [1 - momentum] * len(weights))


def update_adam_together(
    optimizer: keras.optimizers.Adam, update: Callable, gradients: list[Any], variables: list[keras.Variable], rate: Any
) -> None:
    """Adam's update on PyTorch in one operation, or by `update` where that does not know the case."""
    import torch

    indices = [optimizer._get_variable_index(variable) for variable in variables]
    weights = [variable.value for variable in variables]
    moments, velocities = (
        [states[index].value for index in indices] for states in (optimizer._momentums, optimizer._velocities)
    )
    # It reads all tensors in the order in which they lie in memory.
    known = all(x.is_contiguous() and x.dtype == torch.float32 for x in (*weights, *moments, *velocities))
    if optimizer.amsgrad or not known or weights[0].device.type not in ("cpu", "cuda"):
        return update(gradients, variables, rate)
    with torch.no_grad():
        # Keras adds epsilon before it corrects the bias of the moments, so that correction is part of the rate; the
        # operation is told that there were endless steps, and corrects nothing.
        step = steps_taken(optimizer) + 1
        correction = (1 - optimizer.beta_2**step).sqrt() / (1 - optimizer.beta_1**step)
        endless = torch.full((), torch.inf, device=weights[0].device)
        torch._fused_adam_(
            weights, [gradient.contiguous() for gradient in gradients], moments, velocities, [],
            [endless] * len(weights), lr=keras.ops.convert_to_tensor(rate) * correction, beta1=optimizer.beta_1,
            beta2=optimizer.beta_2, weight_decay=0.0, eps=optimizer.epsilon, amsgrad=False, maximize=False,
        )  # fmt: skip


def update_sgd_together(
    optimizer: keras.optimizers.SGD, update: Callable, gradients: list[Any], variables: list[keras.Variable], rate: Any
) -> None:
    """SGD's update on PyTorch in one operation, or by `update` where that does not know the case."""
    import torch

    weights = [variable.value for variable in variables]
    momenta = [
        optimizer.momentums[optimizer._get_variable_index(each)].value for each in variables if optimizer.momentum
    ]
    known = all(x.is_contiguous() and x.dtype == torch.float32 for x in (*weights, *momenta))
    if not known or weights[0].device.type not in ("cpu", "cuda"):
        return update(gradients, variables, rate)
    with torch.no_grad():
        # Keras's momentum sums up steps, PyTorch's gradients: so these are made steps first.
        steps = torch._foreach_mul([each.contiguous() for each in gradients], -keras.ops.convert_to_tensor(rate))
        torch._fused_sgd_(
            weights, steps, momenta, weight_decay=0.0, momentum=optimizer.momentum, lr=-1.0, dampening=0.0,
            nesterov=optimizer.nesterov, maximize=False, is_first_step=False,
        )  # fmt: skip
