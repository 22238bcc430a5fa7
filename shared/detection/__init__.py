"""Object detection with an anchor-free detector after YOLOv8."""
