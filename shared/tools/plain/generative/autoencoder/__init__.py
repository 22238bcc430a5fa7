"""What a plain copy takes in place of `shared.generative.autoencoder`."""
