"""Remarks on a user's files: how they were interpreted, and what was not used."""

from collections import Counter

from shared.data.places import PassedOver


class Remarks:
    """Remarks collected while reading files; as text, one line."""

    def __init__(self) -> None:
        self.form = ""
        """Format of the files, such as COCO's json."""
        self.passed_over = PassedOver()
        self.notes: Counter[str] = Counter()
        """Counts of irregularities that were accepted."""

    def __str__(self) -> str:
        form = [f"in the format of {self.form}"] if self.form else []
        return "; ".join(
            [*form, *(f"{count:,} {note}" for note, count in self.notes.items() if count), str(self.passed_over)]
        )
