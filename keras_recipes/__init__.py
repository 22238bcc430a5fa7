"""Keras Recipes as a wheel installs it, for the command `keras-recipes`."""
