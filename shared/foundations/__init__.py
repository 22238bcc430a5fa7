"""Foundations: what a network is made of, written out."""
