"""Running a recipe: its options, its run directory, checkpoints, figures."""
