"""The only place that names TensorFlow, PyTorch or JAX: one small function for each thing that differs."""
