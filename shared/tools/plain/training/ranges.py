"""Types of options."""

from typing import Any


def ranged(kind: type, optional: bool = False, **bounds: float) -> Any:
    """The type of an option, a number within these bounds."""
    return kind | None if optional else kind


Count = int  # at least 1
Limit = int | None  # at least 1, or None
Whole = int  # at least 0
Number = float
Positive = float  # above 0
NonNegative = float  # at least 0
Fraction = float  # 0 to 1
Rate = float  # at least 0 and below 1
Part = float  # above 0 and below 1
