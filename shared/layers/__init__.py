"""Keras layers, written with `keras` and `keras.ops` alone; each saves, loads and runs on every backend."""
