"""Detection data: images with boxes, by name or from folders, as arrays."""
