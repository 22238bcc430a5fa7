"""Gradients of Keras models, and steps of optimizers, on whichever backend runs."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras

from shared.errors import UsageError


class StepScope(keras.StatelessScope):
    """Inside it, variables have the values that they are given here, and what is assigned to them stays here.

    A variable that is given none has the value that it has around the scope. Scopes may stand inside each other.

    Args:
        state_mapping: pairs of a variable and its value.
    """

    def __init__(self, state_mapping: Iterable[tuple[keras.Variable, Any]] = ()):
        super().__init__(state_mapping, collect_losses=True)
        self.looked_up: dict[int, keras.Variable] = {}
        """Variables that were read here and have no value here."""
        self.assigned: dict[int, keras.Variable] = {}
        """Variables that were assigned here."""
        self.original_scope: keras.StatelessScope | None = None

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        if value is None:
            self.looked_up[id(variable)] = variable
            if self.original_scope is not None:
                value = self.original_scope.get_current_value(variable)
        return variable._value if value is None else value

    def add_update(self, update):
        self.assigned[id(update[0])] = update[0]
        super().add_update(update)


def value_and_grad(
    loss_fn: Callable[..., Any], variables: Sequence[Any], has_aux: bool = False
) -> tuple[Any, list[Any]]:
    """The value of a loss, and its gradients.

    What the function assigns to variables, such as moving averages, the states of seed generators and metrics, stays
    assigned. (Inside `with keras.StatelessScope():` nothing does.) Gradients of gradients: call it inside a `loss_fn`,
    by weights or by inputs, and use what it returns:

        def penalty():  # Gulrajani et al. 2017, arXiv:1704.00028, equation 3
            _, (slopes,) = value_and_grad(lambda points: ops.sum(critic(points)), [mixed])
            return ops.mean((ops.norm(slopes, axis=-1) - 1) ** 2)

        _, gradients = value_and_grad(penalty, critic.trainable_variables)

    Args:
        loss_fn: computes a scalar tensor from the values of variables.
        variables: what to differentiate by, of a floating type: Keras variables, which `loss_fn` reads, and tensors,
            which it is given as its arguments, in their order.
        has_aux: whether `loss_fn` returns a pair, the scalar and any structure of tensors.

    Returns:
        What `loss_fn` returned, and a tensor of the shape of each of `variables`; None where the loss does not depend
        on it, or, on JAX, zeros.

    Raises:
        UsageError: there are no variables, as in a model that is not built.
        ValueError: the loss is not a scalar.
    """
    if not variables:
        raise UsageError("no variables to differentiate by: build the model first, by calling it once on some inputs")
    values = [x.value if isinstance(x, keras.Variable) else keras.ops.convert_to_tensor(x) for x in variables]
    scope = None

    def run(given: Sequence[Any]) -> tuple[Any, tuple[Any, list[Any]]]:
        """The loss at other values of `variables`; what else was returned; the values that were assigned."""
        nonlocal scope
        pairs = list(zip(variables, given, strict=True))
        changed = [(x, new) for (x, new), old in zip(pairs, values, strict=True) if new is not old]
        with StepScope(pair for pair in changed if isinstance(pair[0], keras.Variable)) as scope:
            result = loss_fn(*(new for x, new in pairs if not isinstance(x, keras.Variable)))
        loss, aux = result if has_aux else (result, None)
        if len(loss.shape):
            raise ValueError(f"the loss must be a scalar, not of shape {tuple(loss.shape)}")
        return loss, (aux, [scope.get_current_value(variable) for variable in scope.assigned.values()])

    match keras.config.backend():
        case "jax":
            import jax

            (loss, (aux, assigned)), gradients = jax.value_and_grad(run, has_aux=True)(values)
        case "torch":
            import torch

            with torch.enable_grad():
                # Others stand in for constants and variables that are not trainable: by those PyTorch does not.
                given = [x if x.requires_grad else x.detach().requires_grad_() for x in values]
                loss, (aux, assigned) = run(given)
            nested = isinstance(scope.original_scope, StepScope)
            gradients = list(torch.autograd.grad(loss, given, create_graph=nested, allow_unused=True))
            if not nested:  # what goes out would keep all that was computed on the way to it
                loss, aux, assigned = keras.tree.map_structure(
                    lambda x: x.detach() if isinstance(x, torch.Tensor) else x, (loss, aux, assigned)
                )
        case "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                tape.watch(values)
                loss, (aux, assigned) = run(values)
            gradients = dense_gradients(tape.gradient(loss, values))
    for variable, value in zip(scope.assigned.values(), assigned, strict=True):
        variable.assign(value)
    return ((loss, aux) if has_aux else loss), gradients


def dense_gradients(gradients: Sequence[Any]) -> list[Any]:
    """Gradients on TensorFlow as tensors: those of embeddings are `tf.IndexedSlices`, rows and their numbers, at first.

    A row that is used several times appears in them as often, and the squares and norms that optimizers take of them
    are then wrong.
    """
    import tensorflow as tf

    return [None if each is None else tf.convert_to_tensor(each) for each in gradients]


@contextlib.contextmanager
def substituted(variables: Sequence[keras.Variable], values: Sequence[Any]) -> Iterator[None]:
    """Runs models with other values of some variables, through which gradients flow; after it these are as before.

    One step of gradient descent inside a loss, as in MAML (Finn et al. 2017, arXiv:1703.03400, equation 1):

        def loss_after_a_step():
            weights = model.trainable_variables
            _, gradients = value_and_grad(lambda: loss_on(support), weights)
            with substituted(weights, [weight - rate * slope for weight, slope in zip(weights, gradients)]):
                return loss_on(query)

        loss, gradients = value_and_grad(loss_after_a_step, model.trainable_variables)

    Args:
        variables: those that get other values.
        values: tensors of their shapes.
    """
    with StepScope(zip(variables, values, strict=True)) as scope:
        yield
    own = {id(variable) for variable in variables}
    for key, variable in scope.assigned.items():
        if key not in own:
            variable.assign(scope.get_current_value(variable))


def apply_gradients(
    optimizer: keras.optimizers.Optimizer, gradients: Sequence[Any], variables: Sequence[keras.Variable]
) -> None:
    """Takes one step of an optimizer, its clipping, weight decay, averaging and loss scaling included.

    Args:
        optimizer: built.
        gradients: of the loss that `optimizer.scale_loss` made larger, if it is a LossScaleOptimizer.
        variables: those that it was built with, in that order.

    Raises:
        UsageError: the optimizer is not built.
    """
    if not optimizer.built:
        raise UsageError(
            f"the optimizer {optimizer.name} is not built: call optimizer.build(model.trainable_variables) before the "
            "first step"
        )
    match keras.config.backend():
        case "jax" if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            # Its `apply` assigns inside the branches of a condition, which JAX does not allow.
            owned = optimizer.variables
            updated = optimizer.stateless_apply([x.value for x in owned], gradients, [x.value for x in variables])
            for variable, value in zip([*variables, *owned], [*updated[0], *updated[1]], strict=True):
                variable.assign(value)
        case "torch":
            import torch

            with torch.no_grad():
                optimizer.apply(gradients, variables)
        case _:
            optimizer.apply(gradients, variables)


def minimize(
    optimizer: keras.optimizers.Optimizer,
    loss_fn: Callable[[], Any],
    variables: Sequence[keras.Variable],
    has_aux: bool = False,
) -> Any:
    """Takes one step of an optimizer down the gradient of a loss, scaled where the optimizer scales (float16).

    Args:
        optimizer: built with `variables`.
        loss_fn: as for `value_and_grad`; the losses of layers and regularizers are the caller's to add, as in
            `loss + sum(model.losses)`.
        variables: those that the optimizer was built with, in that order.
        has_aux: whether `loss_fn` returns a pair, the scalar and any structure of tensors.

    Returns:
        What `loss_fn` returned, before the step.

    Raises:
        UsageError: the model or the optimizer is not built.
    """

    def scaled() -> tuple[Any, tuple[Any, Any]]:
        loss, aux = loss_fn() if has_aux else (loss_fn(), None)
        return optimizer.scale_loss(loss), (loss, aux)

    (_, (loss, aux)), gradients = value_and_grad(scaled, variables, has_aux=True)
    apply_gradients(optimizer, gradients, variables)
    return (loss, aux) if has_aux else loss
