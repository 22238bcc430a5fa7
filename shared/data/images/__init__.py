"""Labelled images, by name or from folders, as arrays."""
