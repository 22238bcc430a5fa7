"""Texts, sentence pairs and conversations, by name or in files."""
