"""Backbones with ImageNet weights, and families of networks for images of 32 pixels."""
