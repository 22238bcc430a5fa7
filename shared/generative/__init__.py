"""Images out of noise: what GANs and diffusion models share, and how their images are measured."""
