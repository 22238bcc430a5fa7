"""Files of weights in PyTorch's format."""

import collections
import pickle
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {"FloatStorage": np.float32, "LongStorage": np.int64}


class WeightsUnpickler(pickle.Unpickler):
    """Reads tensors as ((type, key of its storage), offset, shape, strides), and runs no code that a file names."""

    def find_class(self, module: str, name: str) -> Any:
        known = {"OrderedDict": collections.OrderedDict, "_rebuild_tensor_v2": lambda *found: found[:4]}
        return known.get(name, name)

    def persistent_load(self, reference: tuple) -> tuple:
        return reference[1:3]


def read_torch_weights(path: Path) -> dict[str, np.ndarray]:
    """Arrays by name from a file that PyTorch before version 1.6 wrote."""
    with open(path, "rb") as file:
        *_, tensors, keys = (WeightsUnpickler(file).load() for _ in range(5))
        types, arrays = {key: kind for (kind, key), *_ in tensors.values()}, {}
        for key in keys:
            arrays[key] = np.fromfile(file, DTYPES[types[key]], int.from_bytes(file.read(8), "little"))
    return {
        name: np.lib.stride_tricks.as_strided(
            arrays[key][offset:], shape, [step * arrays[key].itemsize for step in strides]
        )
        for name, ((_, key), offset, shape, strides) in tensors.items()
    }
