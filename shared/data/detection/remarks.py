"""What is said of a user's files before training: how they were taken, and what of them is not used."""

from collections import Counter

from shared.data.places import PassedOver


class Remarks:
    """What was noticed while files were read; as text, one line."""

    def __init__(self) -> None:
        self.form = ""
        """What the files are, such as COCO's json."""
        self.passed_over = PassedOver()
        self.notes: Counter[str] = Counter()
        """How often something was not as usual, but used."""

    def __str__(self) -> str:
        form = [f"in the format of {self.form}"] if self.form else []
        return "; ".join(
            [*form, *(f"{count:,} {note}" for note, count in self.notes.items() if count), str(self.passed_over)]
        )
