"""Quantization to integers of 8 bits."""

from pathlib import Path

import numpy as np


def quantize(path: Path, inputs: dict[str, np.ndarray], batch_size: int = 50) -> None:
    """Quantizes an .onnx file in place: static quantization of weights, per channel, and activations.

    Args:
        path: of the file.
        inputs: by name, from which the ranges of the activations are taken.
        batch_size: examples that are computed at once.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Batches(CalibrationDataReader):
        """The inputs in batches."""

        def __init__(self):
            examples = len(next(iter(inputs.values())))
            starts = range(0, examples, batch_size)
            self.batches = iter({name: each[at : at + batch_size] for name, each in inputs.items()} for at in starts)

        def get_next(self):
            return next(self.batches, None)

    prepared = path.with_name(f"prepared-{path.name}")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared, path, Batches(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    prepared.unlink()
