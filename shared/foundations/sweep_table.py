"""The table of a sweep."""

from typing import Any


def sweep_markdown(rows: list[dict[str, Any]], title: str) -> str:
    """The rows of a sweep as a Markdown table, the best first.

    Args:
        rows: as `sweep_rows` makes them, also those of a record.
        title: of the first column.
    """
    lines = [f"| {title} | learning rate | top-1, test | validation | training |", "|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: -1 if row["top1"] is None else row["top1"], reverse=True):
        if row["top1"] is None:
            cells = ["diverged", "–", "–"]
        else:
            some = f" ({row['diverged']} seeds diverged)" if row["diverged"] else ""
            cells = [f"{row['top1']:.4f} ± {row['deviation']:.4f}{some}"]
            cells += [f"{row['val_top1']:.4f}", f"{row['train_top1']:.4f}"]
        edge = " (an end of those tried)" if row["at_edge"] else ""
        cells = [row["value"], f"{row['learning_rate']:g}{edge}", *cells]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
