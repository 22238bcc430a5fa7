"""Optimizers, as quick as each backend can."""

from typing import Any

import keras


def grouped_updates(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Lets an optimizer clip by the global norm, and average the weights, in few operations for all of them together.

    On PyTorch, Keras does both variable by variable, which for a small network takes as long as the update itself. The
    other backends compile the step. The results differ by rounding only.

    Returns:
        The same optimizer.
    """
    if keras.config.backend() != "torch":
        return optimizer
    import torch

    clip, average = optimizer._clip_gradients, optimizer._update_model_variables_moving_average

    @torch.no_grad()
    def clip_gradients(gradients: list[Any]) -> list[Any]:
        if not optimizer.global_clipnorm or optimizer.clipnorm or any(each is None for each in gradients):
            return clip(gradients)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        return torch._foreach_mul(gradients, torch.clamp(optimizer.global_clipnorm / norm, max=1.0))

    @torch.no_grad()
    def update_averages(variables: list[keras.Variable]) -> None:
        if any(each is None for each in optimizer._model_variables_moving_average):
            return average(variables)
        averages = [each.value for each in optimizer._model_variables_moving_average]
        weights = [variable.value for variable in variables]
        # At the first step the averages are the weights.
        momentum = optimizer.ema_momentum * (optimizer.iterations.value != 0).to(averages[0].dtype)
        torch._foreach_lerp_(averages, weights, [1 - momentum] * len(weights))

    optimizer._clip_gradients = clip_gradients
    if optimizer.use_ema:
        optimizer._update_model_variables_moving_average = update_averages
    return optimizer
