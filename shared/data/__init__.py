"""Where data come from, and the pipelines that feed `fit`."""
