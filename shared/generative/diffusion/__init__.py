"""Diffusion models: noise schedule, training batches, U-Net layers and samplers."""
