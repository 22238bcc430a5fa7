"""Data sets by name or path, as arrays."""
