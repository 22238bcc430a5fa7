"""Segmentation: a class for each pixel, and objects apart."""
