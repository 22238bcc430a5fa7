"""What a comparison asks of a process of its own."""

from typing import NamedTuple


class Job(NamedTuple):
    """One task on one backend."""

    recipe: str
    task: str
    """"prepare": say what the options mean, and write the initial weights; "agree": train the first steps;
    "layers": each layer forward and back; "measure": the whole recipe."""
    directory: str
    """Of what the worker leaves: answer.json, layers.npz and, in run, the run."""
    options: list[str]
    """Those of the recipe."""
    steps: int = 0
    """For "agree": how many."""
    native: str | None = None
    """File with the same model by hand, which then trains in place of the Keras model."""
    reference: str | None = None
    """For "layers": directory of the backend whose inputs each layer is given."""
