"""What a plain copy takes in place of `shared.images.backbones`."""
