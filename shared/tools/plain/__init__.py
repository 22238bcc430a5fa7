"""Counterparts in plain Keras, which a plain copy takes in place of the definitions of the same names.

A file here mirrors one of `shared`, such as plain/training/run.py the file training/run.py. What it defines has the
names and takes the arguments that recipes know; what it lacks, a copy takes from the original.
"""
