"""The command `recipes`: list, copy, compare, record, doctor."""
