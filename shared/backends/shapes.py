"""Shapes that may change from step to step, where the running backend does not compile for each."""

from typing import Any

from shared.backends.runtime import on_torch_uncompiled


def used_rows(targets: Any) -> Any:
    """Leaves out rows of targets that are empty in every example; on PyTorch, elsewhere all rows stay.

    Args:
        targets: (batch, rows, …), the first entry of a row negative where it is empty.

    Returns:
        (batch, rows in use, …), at least one row.
    """
    if not on_torch_uncompiled():
        return targets
    used = (targets[..., 0] >= 0).any(dim=0)
    used[0] = True
    return targets[:, used]
