"""Images with boxes, by name or in folders, as arrays."""
