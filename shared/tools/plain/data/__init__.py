"""What a plain copy takes in place of `shared.data`: a set by name, or files of one kind."""
