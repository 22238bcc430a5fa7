"""Labelled images, by name or in folders, as arrays."""
