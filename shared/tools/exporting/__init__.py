"""The command `recipes export`: models in formats that run without Keras."""
