"""An anchor-free detector in the manner of YOLOv8, but for its layers: boxes, assignment, loss, decoding."""
