"""The recipes, one file each; run them as scripts or import their `main`."""
