"""Dense layers."""

from collections.abc import Callable
from typing import Any


def as_one_matrix(function: Callable, inputs: Any) -> Any:
    """Applies a function to inputs (…, channels)."""
    return function(inputs)
