"""What a plain copy takes in place of `shared.layers`: the operations that they make quicker."""
