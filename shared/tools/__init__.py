"""The command `recipes`: list, predict, copy, compare, record, tables, doctor."""
