"""Means."""

from typing import Any


def weighted_mean(average: Any, value: Any, momentum: float | Any) -> Any:
    """average · momentum + value · (1 − momentum)."""
    return average * momentum + value * (1 - momentum)
