"""What the recipes are built on: layers, data, training and the few functions that name a backend."""
