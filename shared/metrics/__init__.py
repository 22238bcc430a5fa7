"""Measures of a result, in NumPy: the same numbers on every backend."""
