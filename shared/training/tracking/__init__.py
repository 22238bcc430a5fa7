"""Experiment tracking: runs shown side by side by TensorBoard, MLflow or Weights & Biases."""
