"""Texts, sentence pairs and conversations, by name or from files."""
