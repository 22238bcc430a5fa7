"""Autoencoders: latent layers, the likelihood of pixels, training batches, a prior over codes, evaluation."""
