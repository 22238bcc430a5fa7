"""Images out of noise: how noise is added, and how it is taken away again."""
