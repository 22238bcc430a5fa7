"""A training step, written once in eager style and compiled by the running backend."""

import functools
from collections.abc import Callable
from typing import Any

import keras

from shared.backends.compiling import as_tensors, own_tensor
from shared.backends.gradients import StepScope
from shared.backends.memory import give_back_freed_memory
from shared.errors import UsageError


def compiled_step(function: Callable[..., Any], jit_compile: bool | None = None) -> Callable[..., Any]:
    """Compiles a function that trains; a decorator. shared/training/custom.py shows a whole example.

    The function may use and change whatever Keras keeps in variables, without a word about which: several models and
    optimizers, metrics, seed generators, variables of its own. They are up to date after each call, and on the device:
    nothing is copied to main memory. It takes gradients by `value_and_grad` or `minimize`, and random numbers from a
    `keras.random.SeedGenerator` made outside of it.

    It is compiled once for each combination of shapes and dtypes, which inside are known: keep these few. What is not
    an operation on tensors, such as `print`, runs only while it is compiled. PyTorch runs the function as it is when it
    first meets such a combination, records the operations when it meets it again, and from then on repeats these alone;
    a function that asks for the values of tensors, as Keras's seeded random numbers and gradient accumulation do there,
    always runs as it is.

    On JAX a step takes over the memory of the variables that it changes, as `fit` does. Whatever else shall keep such a
    value from outside of the step keeps a copy: `target.assign(keras.ops.copy(variable.value))`.

    Args:
        function: from tensors to tensors, both in any nested structure, None included. It keeps no tensors elsewhere.
        jit_compile: whether TensorFlow uses XLA; None for Keras's own choice, which is on accelerators only. Say False
            there for a model with a layer whose `supports_jit` is False, such as LSTM. On PyTorch, False runs the
            function as it is each time, to look into it. JAX always compiles.

    Returns:
        A function that takes the same arguments by position, also as NumPy arrays, numbers and variables or their
        values, and gives what the function returns as tensors on the device. What the step changes changes neither its
        arguments nor the results of earlier calls.

    Raises:
        UsageError: the function makes new variables each time (JAX; on TensorFlow, a ValueError of its own).
    """

    @functools.wraps(function)
    def with_values(*arguments: Any) -> Any:
        results = function(*arguments)
        return keras.tree.map_structure(lambda x: x.value if isinstance(x, keras.Variable) else x, results)

    match keras.config.backend():
        case "jax":
            step = JaxStep(with_values)
        case "torch":
            step = TorchStep(with_values, record=jit_compile is not False)
        case "tensorflow":
            import tensorflow as tf

            if jit_compile is None:
                jit_compile = keras.Sequential(name="any_model").jit_compile
            program = tf.function(with_values, autograph=False, jit_compile=jit_compile)

            def step(*arguments: Any) -> Any:
                return program(*as_tensors(arguments))

    return functools.wraps(function)(step)


STEPS_OF_RECORDING = 200
"""How many steps win back on PyTorch what recording one takes."""


def record_training(model: keras.Model, steps: int) -> None:
    """Lets `fit` on PyTorch record Keras's training step, as `compiled_step` does one's own; elsewhere it does nothing.

    Args:
        model: compiled, its optimizer prepared by `prepare_optimizer`.
        steps: how many there will be; for a few the step is left as it is.
    """
    if keras.config.backend() != "torch" or steps < STEPS_OF_RECORDING or model.run_eagerly or model.jit_compile:
        return
    import torch

    def train(*batch: Any) -> dict[str, Any]:
        with torch.enable_grad():
            results = model.train_step(batch)
        model.zero_grad()
        return results

    step = TorchStep(train)
    model.train_function = lambda batches: step(*batches[0])


class OtherVariables(UsageError):
    """A step uses or changes other variables than those that were found."""


class JaxStep:
    """A step on JAX: a pure function of the values of variables, compiled; the new values are put back after each call.

    Args:
        function: as for `compiled_step`.
    """

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self.program: Callable[..., Any] | None = None
        self.changing: list[keras.Variable] = []
        self.fixed: list[keras.Variable] = []

    def prepare(self, arguments: tuple) -> None:
        """Finds the variables that the function uses and changes, by running it on shapes alone."""
        import jax

        with StepScope() as scope:
            jax.eval_shape(self.function, *arguments)
        changing = {id(variable): variable for variable in self.changing} | scope.assigned
        used = {id(variable): variable for variable in self.fixed} | scope.looked_up
        self.changing = list(changing.values())
        self.fixed = [variable for key, variable in used.items() if key not in changing]
        self.program = jax.jit(self.run, donate_argnums=0)

    def run(self, changing: list[Any], fixed: list[Any], arguments: tuple) -> tuple[Any, list[Any]]:
        """The pure function: from values of the variables and arguments to results and the new values of `changing`."""
        import jax

        variables = [*self.changing, *self.fixed]
        with StepScope(zip(variables, [*changing, *fixed], strict=True)) as scope:
            results = self.function(*arguments)
        if scope.looked_up or scope.assigned.keys() - {id(variable) for variable in self.changing}:
            raise OtherVariables("a step makes new variables: make layers, optimizers, metrics and seeds outside of it")
        # With a dtype given, they are not of JAX's weak types, for which the next call would be compiled anew.
        return results, [jax.numpy.asarray(scope.get_current_value(x), dtype=x.dtype) for x in self.changing]

    def __call__(self, *arguments: Any) -> Any:
        import jax

        arguments = jax.tree.map(lambda x: x.value if isinstance(x, keras.Variable) else x, arguments)
        if self.program is None:
            self.prepare(arguments)
        try:
            return self.call(arguments)
        except OtherVariables:  # for these shapes, which it meets for the first time
            self.prepare(arguments)
            return self.call(arguments)

    def call(self, arguments: tuple) -> Any:
        """Calls the program and puts the new values in place."""
        import jax

        # Not `value` and `assign`: for a small model, what these check would take longer than the step.
        changing = [variable._value for variable in self.changing]
        fixed = [variable._value for variable in self.fixed]
        others = fixed + jax.tree.leaves(arguments)
        if len({id(value) for value in changing + others}) < len(changing) + len(others):
            changing = with_memory_of_their_own(changing, others)
        results, changing = self.program(changing, fixed, arguments)
        for variable, value in zip(self.changing, changing, strict=True):
            variable._value = value
        return results


class TorchStep:
    """A step on PyTorch: its operations, recorded, and repeated without Keras, which takes as long for a small network.

    Args:
        function: as for `compiled_step`.
        record: False to run the function as it is each time.
    """

    def __init__(self, function: Callable[..., Any], record: bool = True):
        self.function = function
        self.record = record
        self.outside: dict[Any, list[Any]] = {}
        """For each combination of shapes that was met: the tensors that the function uses beside its arguments."""
        self.programs: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        import torch

        arguments = as_tensors(arguments)
        with torch.no_grad():
            if not self.record:
                return self.run(*arguments)
            leaves, structure = torch.utils._pytree.tree_flatten(arguments)
            shapes = structure, *(None if each is None else (each.shape, each.dtype, each.device) for each in leaves)
            if shapes in self.programs:
                return self.programs[shapes](*arguments)
            # So that an argument is told from the same tensor used beside it.
            arguments = torch.utils._pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, arguments)
            if shapes in self.outside:
                self.programs[shapes] = recorded(self.run, arguments, self.outside.pop(shapes)) or self.run
                return self.programs[shapes](*arguments)
            results, outside = run_and_watch(self.run, arguments)
            if outside is None:
                self.programs[shapes] = self.run
            else:
                self.outside[shapes] = outside
            return results

    def run(self, *arguments: Any) -> Any:
        """Runs the function as it is."""
        return keras.tree.map_structure(own_tensor, self.function(*arguments))


def run_and_watch(function: Callable[..., Any], arguments: tuple) -> tuple[Any, list[Any] | None]:
    """What a function on PyTorch gives, and the tensors that it uses beside its arguments.

    Returns:
        The result; the tensors, or None where the operations depend on values: it asks for the value of a tensor, or
        the shape of one depends on values, as with a mask.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    aten = torch.ops.aten
    packed = aten._pack_padded_sequence.default, aten._pad_packed_sequence.default
    tags = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
    masks = torch.bool, torch.uint8

    def tensors(*structures: Any) -> list[torch.Tensor]:
        return [each for each in torch.utils._pytree.tree_leaves(structures) if isinstance(each, torch.Tensor)]

    inside = torch.utils.weak.WeakIdKeyDictionary(dict.fromkeys(tensors(arguments), True))
    """The arguments and what is computed: whether from arguments or variables, not from constants alone."""
    outside: dict[int, torch.Tensor] = {}
    depends_on_values = False

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            nonlocal depends_on_values
            results, used = operation(*args, **(kwargs or {})), tensors(args, kwargs)
            if operation is aten.lift_fresh.default:  # made from a number
                used = []
            outside.update((id(each), each) for each in used if each not in inside)
            varying = [each for each in used if inside.get(each, True)]
            inside.update((each, bool(varying)) for each in tensors(results) if id(each) not in outside)
            if operation is aten.index.Tensor:
                depends_on_values |= any(inside.get(each, True) for each in tensors(args[1]) if each.dtype in masks)
            elif operation in packed or not tags.isdisjoint(operation.tags):
                depends_on_values |= bool(varying)
            return results

    with Watch():
        results = function(*arguments)
    return results, None if depends_on_values else list(outside.values())


def recorded(function: Callable[..., Any], arguments: tuple, outside: list[Any]) -> Callable[..., Any] | None:
    """The operations on tensors that a function on PyTorch consists of, as a function.

    Args:
        function: to record; it is run twice, and what it changes is put back, the state of PyTorch's generator too.
        arguments: of the shapes to record it for.
        outside: tensors that it uses or changes beside them.

    Returns:
        A function of such arguments; None where the operations cannot be recorded or repeated.
    """
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.overrides import TorchFunctionMode

    reading = torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__, torch.Tensor.__dlpack__

    class Refuse(TorchFunctionMode):
        """Raises where values leave PyTorch other than by `item`, which `run_and_watch` sees."""

        def __torch_function__(self, operation, types, args=(), kwargs=None):
            if operation in reading:
                raise RuntimeError("the values of a tensor are asked for")
            return operation(*args, **(kwargs or {}))

    def refusing(arguments: tuple, outside: list[Any]) -> Any:
        with Refuse():
            return function(*arguments)

    before = [each.clone() for each in outside]

    def put_back() -> None:
        for tensor, value in zip(outside, before, strict=True):
            if not torch.equal(tensor, value):
                tensor.copy_(value)

    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            give_back_freed_memory()
            program = make_fx(refusing)(arguments, outside)
            put_back()
            give_back_freed_memory()
            program(arguments, outside)  # not all operations can be repeated: that of the gradients of an LSTM cannot
    except Exception:  # noqa: BLE001 - whatever it is, the function as it is will raise it again, or can do without
        return None
    finally:
        put_back()
        give_back_freed_memory()
    constants = [getattr(program, node.target) for node in program.graph.nodes if node.op == "get_attr"]
    if any(isinstance(each, torch.nn.Parameter) for each in constants):  # variables that it had not used before
        return None
    return lambda *arguments: program(arguments, outside)


def with_memory_of_their_own(arrays: list[Any], others: list[Any]) -> list[Any]:
    """JAX arrays, copied where one is there twice, as weights and their averages can be, or among the others."""
    seen, distinct = {id(array) for array in others}, []
    for array in arrays:
        distinct.append(array.copy() if id(array) in seen else array)
        seen.add(id(array))
    return distinct
