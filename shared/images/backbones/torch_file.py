"""PyTorch weight files (.pth), read without PyTorch and without executing code from the pickle."""

import collections
import pickle
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from shared.errors import UsageError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


DTYPES = {"FloatStorage": np.float32, "LongStorage": np.int64}


class StoredTensor(NamedTuple):
    """A tensor as offset and strides into a storage."""

    storage: tuple
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def rebuild_tensor(storage: tuple, offset: int, shape: tuple, strides: tuple, *_: Any) -> StoredTensor:
    """Stands in for torch._utils._rebuild_tensor_v2."""
    return StoredTensor(storage, offset, shape, strides)


class WeightsUnpickler(pickle.Unpickler):
    """A restricted unpickler: tensors and dictionaries, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return rebuild_tensor
        if module == "torch" and name in DTYPES:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} does not belong in a file of weights")

    def persistent_load(self, reference: tuple) -> tuple:
        _, kind, key, _, count, *_ = reference
        return kind, key, count


def read_torch_weights(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a state dictionary in PyTorch's format before version 1.6, by name.

    Raises:
        UsageError: the file is damaged, in another format, or holds anything but tensors.
    """

    def refuse(reason: object) -> NoReturn:
        raise UsageError(f"{path} is not a file of PyTorch weights ({reason}): install its package again") from None

    try:
        with open(path, "rb") as file:
            if WeightsUnpickler(file).load() != LEGACY_MAGIC:
                refuse("another format")
            for _ in ("protocol", "system"):
                WeightsUnpickler(file).load()
            tensors = WeightsUnpickler(file).load()
            storages = {}
            kinds = {tensor.storage[1]: tensor.storage[0] for tensor in tensors.values()}
            for key in WeightsUnpickler(file).load():
                count = int.from_bytes(file.read(8), "little")
                storages[key] = np.fromfile(file, DTYPES[kinds[key]], count)
    except (OSError, EOFError, ValueError, KeyError, AttributeError, TypeError, pickle.UnpicklingError) as error:
        refuse(error)
    weights = {}
    for name, (storage, offset, shape, strides) in tensors.items():
        array = storages[storage[1]]
        if offset + int(np.prod(shape)) > len(array):
            refuse(f"{name} is cut short")
        view = np.lib.stride_tricks.as_strided(array[offset:], shape, [s * array.itemsize for s in strides])
        weights[name] = np.array(view)
    return weights
