"""Text to text: subwords, batches, Transformers, decoding, metrics."""
