"""Means."""

from typing import Any


def weighted_mean(average: Any, value: Any, share: float | Any) -> Any:
    """average · share + value · (1 − share)."""
    return average * share + value * (1 - share)
