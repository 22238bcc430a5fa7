"""Option types with ranges, which are shown in the help and checked whenever a `Config` is made."""

import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from tyro.constructors import PrimitiveConstructorSpec


@dataclass(frozen=True)
class Range:
    """Range of the finite numbers that an option may have."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    optional: bool = False
    """Whether None is allowed too."""

    def __contains__(self, value: float | None) -> bool:
        if value is None:
            return self.optional
        return math.isfinite(value) and self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        """Completes "must be …"."""
        if -math.inf < self.least and self.most < math.inf:
            return f"between {self.least} and {self.most}"
        bounds = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        said = [f"{words} {bound}" for words, bound in bounds.items() if math.isfinite(bound)]
        return " and ".join(said) or "a finite number"


def ranged(kind: type, **bounds: Any) -> Any:
    """Option type: an int or a float in a `Range`; with optional=True also None."""
    allowed = Range(**bounds)
    words = [str(allowed)] * bool(bounds.keys() - {"optional"}) + ["or None"] * allowed.optional

    def parsed(words: list[str]) -> Any:
        try:
            return None if allowed.optional and words[0] == "None" else kind(words[0])
        except ValueError:
            raise ValueError(f"takes {'a whole' if kind is int else 'a'} number, not {words[0]!r}") from None

    form = PrimitiveConstructorSpec(
        nargs=1,
        metavar=" ".join([kind.__name__.upper(), *words]),
        instance_from_str=parsed,
        is_instance=lambda value: isinstance(value, (int, kind)) or (allowed.optional and value is None),
        str_from_instance=lambda value: [str(value)],
    )
    return Annotated[kind | None if allowed.optional else kind, allowed, form]


Count = ranged(int, least=1)
Limit = ranged(int, least=1, optional=True)
Whole = ranged(int, least=0)
Number = ranged(float)
Positive = ranged(float, above=0)
NonNegative = ranged(float, least=0)
Fraction = ranged(float, least=0, most=1)
Rate = ranged(float, least=0, below=1)
Part = ranged(float, above=0, below=1)


def out_of_range(values: Any) -> Iterator[tuple[str, str]]:
    """Name and rule of each field of a dataclass whose value is outside the range of its type."""
    for name, hint in typing.get_type_hints(type(values), include_extras=True).items():
        value, several = getattr(values, name), typing.get_origin(hint) is tuple
        entries = value if several else [value]
        for allowed in getattr(typing.get_args(hint)[0] if several else hint, "__metadata__", ()):
            if isinstance(allowed, Range) and not (entries and all(entry in allowed for entry in entries)):
                infinite = any(isinstance(entry, float) and not math.isfinite(entry) for entry in entries)
                yield name, f"must be {Range() if infinite else allowed}" + " each" * several
