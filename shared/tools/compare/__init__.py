"""The same experiment on every backend, side by side."""
