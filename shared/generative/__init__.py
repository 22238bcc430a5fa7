"""Image generation: GANs, diffusion models, and the evaluation of their samples."""
