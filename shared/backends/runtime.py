"""The running backend: its seeds, precision, device, version and memory."""

import contextlib
import os
import platform
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import psutil

from shared.backends.initializers import draw_weights_on_host
from shared.backends.memory import free_tensors_early, keep_freed_memory
from shared.files import cache_directory


def on_jax_cpu() -> bool:
    """Whether this is JAX on a CPU, where XLA is slow at some gradients."""
    if keras.config.backend() != "jax":
        return False
    import jax

    return jax.default_backend() == "cpu"


def on_torch_uncompiled() -> bool:
    """Whether this is PyTorch, and not at work for torch.compile, which fails on the strides of `torch_convolution`."""
    if keras.config.backend() != "torch":
        return False
    import torch

    return not torch.compiler.is_compiling()


def prepare_backend(seed: int, precision: str) -> None:
    """Seeds everything, sets the dtype policy and turns on what makes a run repeatable and its second start quick.

    Matrix products and convolutions of float32 numbers are computed in float32, whatever the policy. By default GPUs
    and TPUs round the factors, to TensorFloat-32 or bfloat16, and each backend does so in other operations.

    Args:
        seed: for initial weights and for whatever the backend draws.
        precision: a Keras dtype policy, such as "float32" or "mixed_bfloat16".
    """
    # The experiment is what the options say, not what is left in keras.json or in KERAS_MAX_EPOCHS.
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)
    keras.config.set_dtype_policy(precision)
    draw_weights_on_host()
    seed_everything(seed)
    keep_freed_memory()
    match keras.config.backend():
        case "jax":
            import jax

            if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
                jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "jax"))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
            jax.config.update("jax_default_matmul_precision", "float32")
        case "torch":
            import torch

            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = False
            free_tensors_early()
        case "tensorflow":
            import tensorflow as tf

            tf.config.experimental.enable_tensor_float_32_execution(False)
            for gpu in tf.config.list_physical_devices("GPU"):
                tf.config.experimental.set_memory_growth(gpu, True)


def seed_everything(seed: int) -> None:
    """Seeds the initial weights of the layers that are made from now on, and whatever the backend draws."""
    # Not keras.utils.set_random_seed, which imports TensorFlow wherever it is installed. Keras draws the seeds of
    # initializers and layers from `random`.
    random.seed(seed)
    np.random.seed(seed)
    match keras.config.backend():
        case "torch":
            import torch

            torch.manual_seed(seed)
        case "tensorflow":
            import tensorflow as tf

            tf.random.set_seed(seed)


@contextlib.contextmanager
def dtype_policy(policy: str) -> Iterator[None]:
    """Layers that are made meanwhile have this dtype policy, such as "float32", unless they are given another."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def matmul_precision() -> str:
    """How the backend is set to multiply float32 numbers: "float32", or "lower" where a GPU or TPU may round them."""
    match keras.config.backend():
        case "jax":
            import jax

            exact = jax.config.jax_default_matmul_precision in ("float32", "highest")
        case "torch":
            import torch

            exact = torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.allow_tf32
        case "tensorflow":
            import tensorflow as tf

            exact = not tf.config.experimental.tensor_float_32_execution_enabled()
    return "float32" if exact else "lower"


def seed_step(rng: np.random.Generator) -> None:
    """Seeds what the backend draws in a training step, by its place alone, so that a resumed run draws the same.

    Keras keeps the states of its own generators, but on PyTorch a Dropout without a seed draws from PyTorch's, and so
    does every pass of a DataLoader.
    """
    if keras.config.backend() == "torch":
        import torch

        torch.manual_seed(int(rng.integers(2**63)))


@contextlib.contextmanager
def without_tensorflow() -> Iterator[None]:
    """Keeps Keras on another backend from importing TensorFlow, as it does wherever that is installed to save or clone
    a model.
    """
    if keras.config.backend() == "tensorflow" or "tensorflow" in sys.modules:
        yield
        return
    sys.modules["tensorflow"] = None  # an import now fails as if it were not installed
    try:
        yield
    finally:
        del sys.modules["tensorflow"]


def synchronize_state(model: keras.Model) -> None:
    """Brings the variables of a model in the middle of `fit` up to date. JAX keeps them elsewhere while it trains."""
    if keras.config.backend() == "jax":
        model.jax_state_sync()


def non_trainable_values(model: keras.Model) -> list[Any]:
    """The values of a model's non-trainable variables after a step of `fit`. JAX keeps them elsewhere meanwhile."""
    if keras.config.backend() == "jax":
        return model._jax_state["non_trainable_variables"]
    return [variable.value for variable in model.non_trainable_variables]


def backend_version() -> str:
    """The version of the running backend, such as "2.13.0"."""
    return sys.modules[keras.config.backend()].__version__.partition("+")[0]


def device_name() -> str:
    """The device that the backend trains on: "cpu", or the name of the first GPU or TPU."""
    match keras.config.backend():
        case "jax":
            import jax

            device = jax.devices()[0]
            return "cpu" if device.platform == "cpu" else device.device_kind
        case "torch":
            import torch

            if torch.cuda.is_available():
                return torch.cuda.get_device_name()
            return keras.ops.zeros(()).device.type
        case "tensorflow":
            import tensorflow as tf

            gpus = tf.config.list_physical_devices("GPU")
            return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "gpu") if gpus else "cpu"


def peak_memory() -> int:
    """The most bytes of main memory that this process has held at once; 0 where the system does not tell."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak_memory() -> int | None:
    """Lets `peak_memory` begin anew, on Linux; returns the bytes that are held now, None where it cannot be done."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    return psutil.Process().memory_info().rss


def peak_device_memory() -> int | None:
    """The most bytes of the accelerator's memory that were in use at once; None on a CPU."""
    if device_name() == "cpu":
        return None
    match keras.config.backend():
        case "jax":
            import jax

            return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
        case "torch":
            import torch

            return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
        case "tensorflow":
            import tensorflow as tf

            return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def machine_name() -> str:
    """The processor, its cores and the memory of this machine, and its accelerator if the backend uses one."""
    try:
        model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))[1]
    except (OSError, TypeError):
        model = platform.processor() or platform.machine()
    device = "" if device_name() == "cpu" else f"{device_name()}, "
    return f"{device}{model}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"


def copied_model(model: keras.Model) -> keras.Model:
    """Another model of the same layers, with weights of its own, which are equal now."""
    with without_tensorflow():
        copy = keras.models.clone_model(model)
    copy.set_weights(copied_weights(model))
    return copy


def copied_weights(model: keras.Model) -> list[np.ndarray]:
    """The weights as they are now: on PyTorch, what `get_weights` gives changes with the model."""
    return [weight.copy() for weight in model.get_weights()]
